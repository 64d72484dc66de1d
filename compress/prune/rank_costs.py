"""What low-rank matrices save: counted, or measured in ONNX Runtime on whole models."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from sklearn.isotonic import isotonic_regression
from transformers import PreTrainedModel

from compress.families.registry import family_of
from compress.models.loading import without_values
from compress.models.outputs import parameters
from compress.onnx.sizes import factored
from compress.prune.costs import CostTable, amount
from compress.prune.latency_table import timed

WHOLE = 0
"""Stands for the rank of a matrix that stays as it is."""
EVEN = 8  # ranks above it are multiples of it, at which processors are fast

Ranks = tuple[int, ...]
"""The rank of each matrix, in the order of `matrices_of`."""


@dataclass(frozen=True)
class Matrix:
    """A matrix of an encoder's layers."""

    layer: int  # counted from 0
    name: str  # within the layer
    outputs: int
    inputs: int

    def ranks(self, count: int) -> list[int]:
        """Return ranks at which two factors have fewer weights than the matrix, at most ``count``, evenly spaced."""
        weights, each = self.outputs * self.inputs, self.outputs + self.inputs
        found = {part * weights // (each * (count + 1)) for part in range(1, count + 1)}
        return sorted({rank - rank % EVEN if rank > EVEN else rank for rank in found if rank > 0})

    def saved(self, rank: int) -> int:
        """Return how many weights two factors of a rank have less; 0 for `WHOLE`."""
        return self.outputs * self.inputs - rank * (self.outputs + self.inputs) if rank != WHOLE else 0


def matrices_of(config: Any) -> list[Matrix]:
    """Return all matrices of an encoder's layers, first to last."""
    family = family_of(config)
    layers = family.layers(without_values(config))
    named = ((index, name, part) for index, layer in enumerate(layers) for name, part in family.matrices(layer).items())
    return [Matrix(index, name, *part.get_parameter("weight").shape) for index, name, part in named]


@dataclass(frozen=True)
class RankCosts(CostTable):
    """The cost of a model is ``whole`` less what each matrix saves at its rank."""

    whole: float
    saved: tuple[tuple[tuple[int, float], ...], ...]  # of each matrix (rank, saved), from the least rank to WHOLE

    def of(self, ranks: Ranks) -> float:
        """Return the cost of a model with these ranks."""
        return self.whole - sum(dict(own)[rank] for own, rank in zip(self.saved, ranks, strict=True))

    def options(self, now: Ranks) -> list[list[int]]:
        """Return the ranks that each matrix can have which has this one now; its own is the last."""
        return [
            [rank for rank, _ in own if current in (WHOLE, rank) or WHOLE < rank < current]
            for own, current in zip(self.saved, now, strict=True)
        ]

    def least(self) -> float:
        """Return the cost where every matrix saves most."""
        return self.whole - sum(max(saved for _, saved in own) for own in self.saved)


def counted(
    model: PreTrainedModel, count: int, unit: str, scale: float, aside: float = 0.0, factored_aside: float = 0.0
) -> RankCosts:
    """Return the table of exact counts: parameters times ``scale``, with ``aside`` added once.

    ``factored_aside`` is what a low-rank matrix costs beside its weights.
    """
    matrices = matrices_of(model.config)
    saved = [
        [*((rank, matrix.saved(rank) * scale - factored_aside) for rank in matrix.ranks(count)), (WHOLE, 0.0)]
        for matrix in matrices
    ]
    return RankCosts(unit, parameters(model) * scale + aside, tuple(tuple(own) for own in saved))


def measured(config: Any, names: list[str], tokens: int, threads: int, count: int) -> RankCosts:
    """Return the table of milliseconds of a row of ``tokens`` tokens, batch 1, for models of a configuration.

    Timed are whole models in which the matrices of one name have one of ``count`` ranks in all layers, alternately
    with the whole model; what they save together is divided by how many weights each saves. It never falls as ranks do;
    it is below 0 where two products take longer than one.
    """
    matrices = matrices_of(config)
    kinds = list(dict.fromkeys(matrix.name for matrix in matrices))
    ladders = [matrix.ranks(count) for matrix in matrices]
    steps = max(len(ladder) for ladder in ladders)

    def ranks_of(kind: str, step: int) -> dict[int, int]:
        """Return the ranks of the matrices of a kind, by their places; a short ladder's last step stands for more."""
        places = [place for place, matrix in enumerate(matrices) if matrix.name == kind and ladders[place]]
        return {place: ladders[place][min(step, len(ladders[place]) - 1)] for place in places}

    def graph_of(graph: Any, size: tuple[str, int]) -> Any:
        chosen = ranks_of(*size).items()
        return factored(graph, config, {(matrices[place].layer, matrices[place].name): rank for place, rank in chosen})

    sizes = [(kind, step) for kind in kinds for step in range(steps) if ranks_of(kind, step)]
    times, whole = timed(config, names, tokens, threads, sizes, graph_of)
    saved: list[dict[int, float]] = [{WHOLE: 0.0} for _ in matrices]
    for kind in kinds:
        own = [size for size in sizes if size[0] == kind]
        together = isotonic_regression(np.array([whole - times[size] for size in own]), increasing=False)
        for size, gained in zip(own, together, strict=True):
            chosen = ranks_of(*size)
            weights = {place: matrices[place].saved(rank) for place, rank in chosen.items()}
            for place, rank in chosen.items():
                saved[place][rank] = float(gained) * weights[place] / sum(weights.values())
    return RankCosts("ms", whole, tuple(_ordered(own) for own in saved))


def _ordered(saved: dict[int, float]) -> tuple[tuple[int, float], ...]:
    return (*sorted((rank, gained) for rank, gained in saved.items() if rank != WHOLE), (WHOLE, saved[WHOLE]))


def told(costs: RankCosts, matrices: Sequence[Matrix]) -> str:
    """Return the table in a sentence: what the matrices of each name save at most, in all layers together."""
    most: dict[str, float] = {}
    for matrix, own in zip(matrices, costs.saved, strict=True):
        most[matrix.name] = most.get(matrix.name, 0.0) + max(gained for _, gained in own)
    parts = ", ".join(f"{name} {amount(gained, costs.unit)}" for name, gained in most.items())
    return f"at their least ranks, the matrices of all layers save at most: {parts}"


def drawn(matrices: Sequence[Matrix], ranks: Ranks) -> str:
    """Return ranks in words, layer by layer."""
    layers: dict[int, list[str]] = {}
    for matrix, rank in zip(matrices, ranks, strict=True):
        layers.setdefault(matrix.layer, []).append("whole" if rank == WHOLE else str(rank))
    return "; ".join(", ".join(own) for own in layers.values())
