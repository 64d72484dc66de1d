"""Low-rank layers: matrices that become products of two thin ones, at the ranks that keep most within a budget."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from torch import Tensor
from transformers import PreTrainedModel

from compress.errors import Fault, RecipeError
from compress.families.forms.uneven import factored, is_low_rank, multiplied, ranks
from compress.files import MIB
from compress.known import NOTHING, Known
from compress.models.device import device
from compress.models.loading import load_config, load_model, load_tokenizer
from compress.models.masking import SPARSE
from compress.models.tokens import tokenize
from compress.pipeline.model import Model
from compress.pipeline.rewrite import Rewritten, rewrite
from compress.pipeline.state import State
from compress.pipeline.workshop import Kind, Product
from compress.prune.layers import PruneLayers
from compress.prune.rank_costs import WHOLE, Matrix, RankCosts, Ranks, counted, drawn, matrices_of, measured, told
from compress.prune.rank_losses import RankSensitivity, modules_of, spectra_of
from compress.prune.search import best_choice
from compress.prune.solver import solve
from compress.prune.speeds import latency_table, side_by_side
from compress.prune.vocabulary import PruneVocabulary
from compress.prune.weights import PruneWeights
from compress.prune.whitening import Whitening
from compress.prune.within_budget import PARAMETER_MIB, Spent, WithinBudget, size_aside
from compress.settings import at_least
from compress.tasks.base import Array

ENTRY_MIB = 256 / MIB  # that one more tensor takes at most in the header of a file of safetensors
AFTER_IT = (PruneLayers, PruneVocabulary, PruneWeights, Whitening)
"""Stages of pruning that take a student with low-rank matrices."""


@dataclass(frozen=True, kw_only=True)
class Ranked(Spent):
    """A budget, and the ranks that were chosen."""

    ranks: Sequence[Mapping[str, int]]  # of each layer's low-rank matrices, by name

    def report(self) -> dict[str, Any]:
        """Return what every budget tells, and the ranks."""
        return super().report() | {"ranks": [dict(layer) for layer in self.ranks]}


@dataclass(kw_only=True)
class PruneRank(WithinBudget):
    """Make matrices of the layers products of two thin ones, nearest on real inputs (SVD-LLM, arXiv:2403.12403)."""

    ranks: int = 8  # ranks that a matrix can have, evenly spaced below the one at which two factors save nothing
    input_rows: int = 2000  # training texts, at most, on which the covariance of the matrices' inputs is measured
    allow_slower: bool = False  # keep a student that is slower than before, in ONNX Runtime fp32, for its size

    name: ClassVar[str] = "rank"
    chooses: ClassVar[str] = "ranks"

    def faults(self, known: Known = NOTHING) -> Iterator[Fault]:
        """Check ranges, that nothing after it cuts the matrices, and that its slowness can be measured."""
        yield from super().faults(known)
        yield from at_least(self, "ranks", 1)
        yield from at_least(self, "input_rows", 1)
        if self.allow_slower and self.timed:
            yield Fault("allow_slower", True, f"contradicts {self.goal}, a budget of time", "Leave out one of them.")
        elif not self.allow_slower and not self.timed and find_spec("onnxruntime") is None:
            rule = "is decided by measuring in onnxruntime"
            yield Fault("allow_slower", False, rule, "pip install 'compress-encoders[onnx]', or set it to true.")
        prune = list(known.group("prune").items())
        place = next((place for place, (_, stage) in enumerate(prune) if stage is self), len(prune))
        for name, stage in prune[place + 1 :]:
            if not isinstance(stage, AFTER_IT):
                rule = f"must come after {name}, which cannot remove parts of low-rank matrices"
                yield Fault("", [name for name, _ in prune], rule, f"Put {prune[place][0]} behind it in prune=[…].")

    def unfit(self, student: Any) -> Iterator[Fault]:
        """Matrices must be whole, and without zeros that are kept: products of two have none."""
        yield from super().unfit(student)
        if is_low_rank(student):
            rule = "cannot choose ranks of a student whose matrices are low-rank already"
            yield Fault(self.goal, self.wanted, rule, "Leave rank out of prune.")
        if getattr(student, SPARSE, False):
            rule = "would fill the zeros of the student's pruned weights"
            yield Fault(self.goal, self.wanted, rule, "Leave rank out of prune, or use a student without zeros.")

    def table(self, state: State, student: Model) -> tuple[RankCosts, float, str, list[Product]]:
        """Return the table, what the student costs by it, what it was measured on, and the products that it took."""
        if self.timed:

            def measure(config: Any, names: list[str], tokens: int) -> dict[str, Any]:
                return asdict(measured(config, names, tokens, self.threads, self.ranks))

            kind = Kind("rank_latency_table", revision=1)
            tokens, product = latency_table(state, student, kind, self.threads, self.ranks, self.tokens, measure)
            saved = tuple(tuple((int(rank), float(ms)) for rank, ms in own) for own in product.record["saved"])
            costs = RankCosts("ms", product.record["whole"], saved)
            return costs, costs.whole, self.timing_condition(tokens), [product]
        model = load_model(student.folder)
        if self.goal == "parameters":
            costs, condition = counted(model, self.ranks, "parameters", 1), "counted"
        else:
            aside = size_aside(student)
            costs = counted(model, self.ranks, "MiB", PARAMETER_MIB, aside, ENTRY_MIB)
            condition = "file of weights, fp32"
        return costs, costs.whole, condition, []

    def told(self, costs: Any, student: Model) -> str:
        """Return the table in a sentence."""
        return told(costs, matrices_of(load_config(student.folder)))

    def smallest(self, costs: Any) -> str:
        """Return in words what costs least."""
        return "every matrix at the rank that saves most"

    def drawn(self, record: Mapping[str, Any], student: Model) -> str:
        """Return the ranks that were chosen."""
        matrices = [Matrix(**matrix) for matrix in record["matrices"]]
        names = ", ".join(dict.fromkeys(matrix.name for matrix in matrices))
        return f"ranks of {names}, layer by layer: {drawn(matrices, record['ranks'])}"

    def cut(self, state: State, student: Model, costs: Any, target: float, products: list[Product]) -> Product:
        """Return the student at the ranks that lose least within ``target``; ``products`` gains what that took."""
        transfer = state.data.transfer
        order = np.random.default_rng(state.seed).permutation(len(transfer))[: self.input_rows]
        texts = transfer.take(np.sort(order))

        def batches(tokenizer: Any, whole: bool) -> list[dict[str, Tensor]]:
            tokens = tokenize(texts, tokenizer, tokenizer.model_max_length) if whole else self.sample(state, tokenizer)
            return [tokens.batch(part) for part in tokens.batches(32)]

        def sensitivity(model: PreTrainedModel, tokenizer: Any) -> RankSensitivity:
            matrices = matrices_of(model.config)
            spectra = spectra_of(model, matrices, batches(tokenizer, True))
            return RankSensitivity(model, batches(tokenizer, False), matrices, spectra)

        def measure(_: Path) -> dict[str, Any]:
            model, tokenizer = multiplied(load_model(student.folder, on=device())), load_tokenizer(student.folder)
            lost = sensitivity(model, tokenizer).by_matrix(costs.options(_ranks_now(student)))
            return {"lost": [list(own.items()) for own in lost]}

        def cut(model: PreTrainedModel, tokenizer: Any) -> Rewritten:
            lost = [dict(own) for own in losses.record["lost"]]
            known = sensitivity(multiplied(model), tokenizer)
            chosen, left = best_ranks(costs, _ranks_now(student), lost, target, known, self.tries, state.seed)
            pairs = zip(known.matrices, known.spectra, modules_of(known.model, known.matrices), chosen, strict=True)
            factors = {
                (matrix.layer, matrix.name): spectrum.factors(module.weight.detach().cpu(), rank)
                for matrix, spectrum, module, rank in pairs
                if rank != WHOLE
            }
            record = {
                "ranks": chosen,
                "matrices": [asdict(matrix) for matrix in known.matrices],
                "predicted": costs.of(chosen),
                "distance": left,
            }
            return Rewritten(factored(known.model, factors), tokenizer, record)

        drawn_from = [state.data.train.fingerprint, texts.fingerprint, self.rows, state.seed]
        losses = state.workshop.make(
            Kind("rank_sensitivity", revision=1), [student.key, self.ranks, *drawn_from], measure
        )
        products.append(losses)
        made_with = [target, asdict(costs), self.tries, *drawn_from]
        products.append(rewrite(state.workshop, Kind("rank", revision=1), student, made_with, cut, on=device()))
        return products[-1]

    def checked(self, state: State, before: Model, after: Model, products: list[Product]) -> list[str]:
        """Return how much faster the student became; raises RecipeError where it did not."""
        if self.allow_slower:
            return []
        found, product = side_by_side(state, before, after, self.threads, self.tokens)
        products.append(product)
        told = f"{found['before']:.3g} ms before and {found['after']:.3g} ms after, {found['speedup']:.2f}×"
        if found["speedup"] <= 1:
            rule = f"makes the student no faster in ONNX Runtime fp32, batch 1, {self.threads} thread(s): {told}"
            remedy = "Ask for less or leave rank out of prune; allow_slower=true keeps it for its size."
            raise RecipeError([Fault(f"prune.rank.{self.goal}", self.wanted, rule, remedy)])
        return [f"before recovery, called alternately in ONNX Runtime fp32, batch 1: {told}"]

    def spent(self, student: Model, **found: Any) -> Spent:
        """Return what the report tells of it."""
        return Ranked(ranks=ranks(load_config(student.folder)), **found)


def _ranks_now(student: Model) -> Ranks:
    """Return the ranks of a student, in the order of its matrices when whole."""
    config = load_config(student.folder)
    now = ranks(config)
    whole = multiplied(load_model(student.folder)).config if any(now) else config
    return tuple(now[matrix.layer].get(matrix.name, WHOLE) for matrix in matrices_of(whole))


def best_ranks(
    costs: RankCosts,
    now: Ranks,
    lost: Sequence[Mapping[int, float]],
    budget: float,
    sensitivity: RankSensitivity,
    tries: int,
    seed: int,
) -> tuple[Ranks, float]:
    """Return the ranks that lose least within ``budget``, and their distance, as `best_shape` finds a shape."""
    options = costs.options(now)
    saved = [dict(own) for own in costs.saved]
    # prices above the least that each matrix can cost, and an option that cannot be taken where the solver has a
    # layer left out
    most = [max(saved[place][rank] for rank in own) for place, own in enumerate(options)]
    prices = [[0.0, *(most[place] - saved[place][rank] for rank in own)] for place, own in enumerate(options)]
    left = budget - (costs.whole - sum(most))

    def solved(weights: Array) -> Ranks | None:
        errors = [
            [np.inf, *(float(weights[place]) * lost[place][rank] for rank in own)] for place, own in enumerate(options)
        ]
        chosen = solve(prices, errors, left)
        return None if chosen is None else tuple(own[i - 1] for own, i in zip(options, chosen, strict=True))

    found = best_choice(solved, (len(options),), sensitivity.distance, tries, seed, unit="choice of ranks")
    if found is None:  # the budget is the very least
        ranks_of_least = tuple(max(own, key=saved[place].__getitem__) for place, own in enumerate(options))
        return ranks_of_least, sensitivity.distance(ranks_of_least)
    return found
