"""Single weights, blocks of them, or all but n of every m: set to zero, and kept at zero."""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from enum import Enum
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor
from transformers import PreTrainedModel

from compress.distill.sparsify import Masks, Sparsify
from compress.errors import Fault
from compress.families.registry import FAMILIES, can_be_taken_apart
from compress.files import MIB
from compress.known import NOTHING, Known
from compress.models.loading import load_model, without_values
from compress.models.masking import Pattern, mask, matrices, settle
from compress.pipeline.model import Model
from compress.pipeline.record import Details, Role
from compress.pipeline.rewrite import Rewritten, rewrite
from compress.pipeline.stage import Stage
from compress.pipeline.state import State
from compress.pipeline.workshop import Kind, Product
from compress.prune.gradual import Curve
from compress.prune.layers import PruneLayers
from compress.prune.rounds import Scope
from compress.prune.vocabulary import PruneVocabulary
from compress.settings import at_least, between, positive


class Method(Enum):
    """magnitude: the smallest; movement: those that training moves to zero; lottery: smallest, and begin again."""

    magnitude = "magnitude"
    movement = "movement"
    lottery = "lottery"


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
class PruneWeights(Stage):
    """Set weights of the encoder's linear layers to zero while the student is distilled again.

    ``magnitude``: the smallest leave, on a schedule (Compressing BERT, arXiv:2002.08307; Zhu & Gupta,
    arXiv:1710.01878). ``movement``: those leave that training moves towards zero (Sanh et al., arXiv:2005.07683),
    by blocks where the pattern says so (Lagunas et al., arXiv:2109.04838). ``lottery``: in rounds the smallest of
    the trained weights leave, and what is left goes back to the weights from before distillation and is trained
    again (Frankle & Carbin, arXiv:1803.03635; for BERT Chen et al., arXiv:2007.12223). Shapes stay; files get
    smaller only when they are compressed, and no runtime here skips zeros.
    """

    role: ClassVar[Role] = Role.pruning
    recovers: ClassVar[bool] = True

    method: Method = Method.magnitude  # magnitude, movement or lottery
    sparsity: float = 0.5  # share of the pruned matrices' weights that is zero at the end
    pattern: str = "none"  # none: single weights; n:m along the inputs, as 2:4; blocks outputs x inputs, as 4x1
    scope: Scope = Scope.layer  # layer: the same share of each matrix; all: compare over the whole model
    embeddings: bool = False  # word embeddings too
    recovery_epochs: float = 2.0  # distillation while weights are removed and after; per round of lottery; 0: none
    begin: float = 0.0  # share of that training before the first zeros
    end: float = 0.7  # share of that training after which all zeros are set
    schedule: Curve = Curve.cubic  # cubic: most of them early; linear: equally many each time
    every: int = 10  # steps between choices of what to remove
    score_learning_rate: float = 0.01  # of movement's scores, at its highest
    rounds: int = 3  # rounds of lottery, each removing the same share of what is left

    def faults(self, known: Known = NOTHING) -> Iterator[Fault]:
        """Check ranges, that every setting has an effect, the other pruning stages, and the student's matrices."""
        yield from between(self, "sparsity", 0, 1, open_low=True, open_high=True)
        yield from at_least(self, "recovery_epochs", 0)
        yield from between(self, "begin", 0, 1)
        yield from between(self, "end", 0, 1)
        yield from at_least(self, "every", 1)
        yield from at_least(self, "rounds", 1)
        yield from positive(self, "score_learning_rate")
        if self.begin > self.end:
            yield Fault("begin", self.begin, f"must be at most end = {self.end:g}")
        if self.recovery_epochs == 0 and self.method is not Method.magnitude:
            rule = f"trains nothing, and {self.method.value} finds out by training which weights to remove"
            yield Fault("recovery_epochs", 0, rule, "Set it above 0, or use method=magnitude.")
        if self.method is Method.movement and self.begin == self.end:
            yield Fault("end", self.end, "must be above begin: meanwhile movement learns which weights to remove")
        plain, movement, lottery = PruneWeights(), self.method is Method.movement, self.method is Method.lottery
        for name, used in {
            "score_learning_rate": movement,
            "rounds": lottery,
            "begin": not lottery,
            "end": not lottery,
            "schedule": not lottery,
            "every": not lottery,
        }.items():
            if not used and getattr(self, name) != getattr(plain, name):
                value = getattr(self, name)
                yield Fault(name, getattr(value, "value", value), f"has no effect on method = {self.method.value}")
        yield from self._pattern_faults()
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
        elif self.method is Method.lottery and place > 1:
            rule = "goes back to weights from before distillation, which the other pruning stages have not pruned"
            yield Fault("method", "lottery", rule, f"Use prune=[{name}], or another method.")
        elif self.pattern != "none" and others:
            rule = f"must divide the sizes of matrices, and {others[0]} may leave sizes that it does not divide"
            yield Fault("pattern", self.pattern, rule, f"Leave {others[0]} out, or set it to none.")

    def _pattern_faults(self) -> Iterator[Fault]:
        try:
            pattern = Pattern.parse(self.pattern)
        except ValueError as error:
            yield Fault("pattern", self.pattern, str(error))
            return
        if pattern.group and self.sparsity != (share := 1 - pattern.kept / pattern.group):
            remedy = f"Set sparsity={share:.17g}."
            yield Fault("sparsity", self.sparsity, f"must be 1 - n/m with pattern = {self.pattern}", remedy)
        if pattern.group and self.scope is Scope.all:
            yield Fault("scope", "all", "has no effect on n:m, which takes as many from every group")

    def _unfit(self, student: Any) -> Iterator[Fault]:
        """Only families that are known have matrices that are known; the pattern must divide them."""
        if not can_be_taken_apart(student):
            rule = f"cannot prune weights of a student of type {student.model_type}"
            yield Fault("sparsity", self.sparsity, rule, f"Supported: {', '.join(FAMILIES)}.")
            return
        if any(self._pattern_faults()):
            return
        pattern = Pattern.parse(self.pattern)
        for name, shape in _shapes(student, self.embeddings).items():
            if not pattern.fits(shape):
                rule = f"does not divide {name}, which is {shape[0]} x {shape[1]}"
                yield Fault("pattern", self.pattern, rule, "Choose one that does.")
                return

    def __call__(self, state: State) -> State:
        """Return the state with the student, some of whose weights are zero."""
        student = state.given_student
        if self.method is Method.lottery:
            products = self._lottery(state)
        elif self.recovery_epochs > 0 and state.recovery is not None:
            name, epochs = f"weights_{self.method.value}", self.recovery_epochs
            products = [state.recovery.train(state, student, epochs, name=name, sparsify=self._sparsify)]
        else:
            products = [self._at_once(state, student, student, self.sparsity)]
        pruned = Model.of(products[-1])
        told = state.workshop.make(
            Kind("zeros", revision=1), [student.key, pruned.key], lambda _: _zeros(student, pruned)
        )
        sparse = Sparse(**told.record, method=self.method.value, pattern=self.pattern)
        curves = [point for product in products for point in product.record.get("curves", ())]
        record = self.record("weights", products, notes=sparse.notes(), curves=curves, details=sparse)
        return state.with_student(record, pruned)

    @property
    def _sparsify(self) -> Sparsify:
        return Sparsify(
            sparsity=self.sparsity,
            pattern=self.pattern,
            together=self.scope is Scope.all,
            embeddings=self.embeddings,
            movement=self.method is Method.movement,
            cubic=self.schedule is Curve.cubic,
            begin=self.begin,
            end=self.end,
            every=self.every,
            score_learning_rate=self.score_learning_rate,
        )

    def _at_once(self, state: State, judged: Model, pruned: Model, sparsity: float) -> Product:
        """Return ``pruned`` with zeros where the weights of ``judged`` are smallest."""

        def change(model: PreTrainedModel, tokenizer: Any) -> Rewritten:
            zero_smallest(load_model(judged.folder), model, self._sparsify, sparsity)
            return Rewritten(model, tokenizer)

        settings = [self.pattern, self.scope.value, self.embeddings, sparsity]
        return rewrite(state.workshop, Kind("weights", revision=1), pruned, [judged.key, *settings], change)

    def _lottery(self, state: State) -> list[Product]:
        """Return the products of iterative magnitude pruning with rewinding; the last is the trained ticket."""
        start, trained = state.undistilled, state.given_student
        if start is None:
            raise ValueError("a lottery ticket goes back to weights from before distillation; run Distill first")
        products: list[Product] = []
        for turn in range(1, self.rounds + 1):
            sparsity = 1 - (1 - self.sparsity) ** (turn / self.rounds)
            ticket = self._at_once(state, trained, start, sparsity)
            recovered = state.given_recovery.train(
                state, Model.of(ticket), self.recovery_epochs, name="weights_lottery", comparable=False
            )
            products += [ticket, recovered]
            trained = Model.of(recovered)
        return products


@torch.no_grad()
def zero_smallest(judged: PreTrainedModel, pruned: PreTrainedModel, how: Sparsify, sparsity: float) -> None:
    """Zero the weights of ``pruned``, in place, where those of ``judged``, of the same shapes, are smallest.

    It can be the same model. What is zero in ``judged`` already stays among the smallest.
    """
    chosen = Masks(judged, replace(how, movement=False, sparsity=sparsity))
    chosen.finish()
    if judged is not pruned:
        ours = matrices(pruned, embeddings=how.embeddings).values()
        for module, (_, theirs) in zip(ours, chosen.masked, strict=True):
            mask(module, chosen.pattern).mask.copy_(theirs.mask)
    settle(pruned)


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
