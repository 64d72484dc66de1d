"""Single weights, blocks of them, or all but n of every m: set to zero, and kept at zero."""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor

from compress.distill.stage import planned_recovery
from compress.errors import Fault
from compress.families.registry import FAMILIES, can_be_taken_apart, type_in_words
from compress.files import MIB
from compress.known import NOTHING, Known
from compress.models.loading import load_model, without_values
from compress.models.masking import Pattern, matrices
from compress.pipeline.model import Model
from compress.pipeline.plan import Plan
from compress.pipeline.record import Details, Role
from compress.pipeline.stage import Stage
from compress.pipeline.state import State
from compress.pipeline.workshop import Kind
from compress.prune.layers import PruneLayers
from compress.prune.methods import METHODS
from compress.prune.methods.lottery import LotterySettings
from compress.prune.methods.movement import MovementSettings
from compress.prune.vocabulary import PruneVocabulary


@dataclass(frozen=True, kw_only=True)
class Sparse(Details):
    """How many weights are zero, and what the weights take."""

    method: str
    pattern: str
    zeros: int
    weights: int
    zeros_by_matrix: Mapping[str, Sequence[int]]  # zeros and weights
    uncompressed_mib: float
    compressed_mib: float  # as zip and gzip do by default
    compressed_mib_before: float

    def report(self) -> dict[str, Any]:
        """Return all of it under one key."""
        return {"sparse": asdict(self)}

    def notes(self) -> tuple[str, ...]:
        """Return it in words."""
        shares = [zeros / total for zeros, total in self.zeros_by_matrix.values()]
        return (
            f"{self.zeros:,} of {self.weights:,} weights in {len(shares)} matrices are zero "
            f"({self.zeros / self.weights:.1%}; by matrix {min(shares):.1%} to {max(shares):.1%})",
            f"compressed as zip does, the weights take {self.compressed_mib:.1f} MiB; before, "
            f"{self.compressed_mib_before:.1f} MiB. Uncompressed they take {self.uncompressed_mib:.1f} MiB, as "
            "before, and it is not faster: the runtimes measured here multiply zeros like other "
            "numbers",
        )


@dataclass(kw_only=True)
class PruneWeights(MovementSettings, LotterySettings):
    """Set weights of the encoder's linear layers to zero while the student is distilled again.

    Shapes stay; files get smaller only when they are compressed, and no runtime here skips zeros. How the weights are
    found is a method's, in `compress.prune.methods`.
    """

    role: ClassVar[Role] = Role.pruning
    recovers: ClassVar[bool] = True

    def faults(self, known: Known = NOTHING) -> Iterator[Fault]:
        """Check the settings, the other pruning stages, and the student's matrices."""
        yield from super().faults(known)
        yield from self._misplaced(known.group("prune"))
        if known.student is not None:
            yield from self._unfit(known.student)

    def _misplaced(self, prune: Mapping[str, Stage]) -> Iterator[Fault]:
        """Yield where another pruning stage would spoil the zeros, or the weights that are gone back to."""
        place = next((place for place, stage in enumerate(prune.values(), 1) if stage is self), None)
        if place is None:
            return
        name = list(prune)[place - 1]
        harmless = (PruneLayers, PruneWeights, *(() if self.embeddings else (PruneVocabulary,)))
        others = [other for other, stage in prune.items() if not isinstance(stage, harmless)]
        if place < len(prune):
            rule = "must come last: what is removed after it changes the share of zeros and their pattern"
            yield Fault("", list(prune), rule, f"Put {name} at the end of prune=[…].")
        elif place > 1 and self.method in METHODS and METHODS[self.method].from_before_distillation:
            rule = "goes back to weights from before distillation, which the other pruning stages have not pruned"
            yield Fault("method", self.method, rule, f"Use prune=[{name}], or another method.")
        elif self.pattern != "none" and others:
            rule = f"must divide the sizes of matrices, and {others[0]} may leave sizes that it does not divide"
            yield Fault("pattern", self.pattern, rule, f"Leave {others[0]} out, or set it to none.")

    def _unfit(self, student: Any) -> Iterator[Fault]:
        """Only families that are known have matrices that are known; the pattern must divide them."""
        if not can_be_taken_apart(student):
            rule = f"cannot prune weights of a student of type {type_in_words(student)}"
            yield Fault("sparsity", self.sparsity, rule, f"Supported: {', '.join(FAMILIES)}.")
            return
        if any(self.pattern_faults()):
            return
        pattern = Pattern.parse(self.pattern)
        for name, shape in _shapes(student, self.embeddings).items():
            if not pattern.fits(shape):
                rule = f"does not divide {name}, which is {shape[0]} x {shape[1]}"
                yield Fault("pattern", self.pattern, rule, "Choose one that does.")
                return

    def plan(self, plan: Plan) -> Plan:
        """As many trainings as the method has."""
        for _ in range(METHODS[self.method].trainings(self)):
            plan = planned_recovery(plan, self.recovery_epochs, f"weights_{self.method}")
        return plan

    def __call__(self, state: State) -> State:
        """Return the state with the student, some of whose weights are zero."""
        student = state.given_student
        products = METHODS[self.method](self, state)
        pruned = Model.of(products[-1])
        told = state.workshop.make(
            Kind("zeros", revision=1), [student.key, pruned.key], lambda _: _zeros(student, pruned)
        )
        sparse = Sparse(**told.record, method=self.method, pattern=self.pattern)
        curves = [point for product in products for point in product.record.get("curves", ())]
        record = self.record("weights", products, notes=sparse.notes(), curves=curves, details=sparse)
        return state.with_student(record, pruned)


def _shapes(config: Any, embeddings: bool) -> dict[str, torch.Size]:
    return {
        f"{name}.weight": module.get_parameter("weight").shape
        for name, module in matrices(without_values(config), embeddings=embeddings).items()
    }


def _zeros(before: Model, after: Model) -> dict[str, Any]:
    """Return how many weights are zero and what the weights take compressed, before and after."""
    model = load_model(after.folder)
    counted = matrices(model, embeddings=True)
    embeddings = model.get_input_embeddings()
    parts: dict[str, list[int]] = {}
    for name, module in counted.items():
        weight = module.weight
        assert isinstance(weight, Tensor)
        zeros = int((weight == 0).sum())
        if module is embeddings and zeros <= weight.shape[1]:
            continue  # at most the row of the padding piece: they were not pruned
        parts[name] = [zeros, weight.numel()]
    return {
        "zeros": sum(zeros for zeros, _ in parts.values()),
        "weights": sum(total for _, total in parts.values()),
        "zeros_by_matrix": parts,
        "uncompressed_mib": _size(after.folder),
        "compressed_mib": _compressed(after.folder),
        "compressed_mib_before": _compressed(before.folder),
    }


def _size(folder: Path) -> float:
    return sum(path.stat().st_size for path in folder.glob("*.safetensors")) / MIB


def _compressed(folder: Path) -> float:
    """Return what a folder's weights take compressed as zip and gzip do by default, MiB."""
    size = 0
    for path in sorted(folder.glob("*.safetensors")):
        packer = zlib.compressobj()
        with path.open("rb") as file:
            for part in iter(partial(file.read, MIB), b""):
                size += len(packer.compress(part))
        size += len(packer.flush())
    return size / MIB
