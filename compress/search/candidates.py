"""What is tried: students that differ in speed, and for each the ways to train it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from compress.augment.perturb import Perturb
from compress.distill.layers import Layers
from compress.distill.losses import HardLabels, LogitsMSE, SoftTargets
from compress.distill.stage import Distill
from compress.errors import CompressError
from compress.export.onnx import Onnx
from compress.families.registry import known_family, layer_count
from compress.known import Known
from compress.pipeline.stage import Stage
from compress.pipeline.state import State
from compress.prune.shape import PruneToShape
from compress.prune.width import PruneWidth
from compress.quantize.int8 import DynamicInt8
from compress.run.recipe import Recipe
from compress.settings import all_faults
from compress.student.base import Student
from compress.student.bert import ALL, Bert
from compress.student.bilstm import BiLstm
from compress.student.cnn import Cnn
from compress.student.static import Static
from compress.student.words import Pieces
from compress.wording import counted

BIGRAMS = 100_000  # rows of a static student's table of bigrams
NARROWER = 0.5  # share of the hidden channels that a narrower student lacks
COPIES = 4  # perturbed ones of each training row
GIVEN, PERTURBED = "given", "perturbed"  # the rows that a trial learns from: those that there are, or with copies


@dataclass(frozen=True)
class Candidate:
    """A student whose speed its settings decide, whatever it is trained on."""

    name: str
    student: Student
    layers: int  # of its encoder; 0: it has none
    rates: tuple[float, float]  # between which a learning rate is drawn
    rate: float  # that is tried first
    cut: Mapping[str, Stage] = field(default_factory=dict)  # takes parts of it away before it learns; as in `prepare`

    def ways(self) -> tuple[str, ...]:
        """Return the names of the ways to train it, the first to be tried first; see `Trial`."""
        return ("layers_first", "soft", "mse", "together") if self.layers else ("mse", "soft")

    def untrained(self, taught: State) -> State:
        """Return the state with the student as it is before it learns."""
        state = self.student(taught)
        for stage in self.cut.values():
            state = stage(state)
        return state


@dataclass(frozen=True)
class Trial:
    """One setting of everything that a search decides.

    Ways: "mse" and "soft" learn the logits, "together" layers as well, "layers_first" layers, then logits.
    """

    candidate: Candidate
    way: str
    learning_rate: float
    rows: str = GIVEN

    def recipe(self, base: Recipe, cycles: int, seed: int) -> Recipe:
        """Return the recipe of this trial after ``cycles``, in both forms of ONNX."""
        epochs = base.distill.epochs
        distill = replace(base.distill, learning_rate=self.learning_rate, cycles=cycles, epochs=epochs)
        losses: Mapping[str, Any] = {
            "mse": {"mse": LogitsMSE(), "hard": HardLabels()},
            "soft": {"soft": SoftTargets(), "hard": HardLabels()},
            "layers_first": {"soft": SoftTargets(), "hard": HardLabels()},
            "together": Distill().losses,
        }[self.way]
        layers: dict[str, Stage] = {"layers": Layers(epochs=epochs, learning_rate=self.learning_rate)}
        return replace(
            base,
            augment={"perturb": Perturb(copies=COPIES)} if self.rows == PERTURBED else base.augment,
            student=self.candidate.student,
            prepare={**self.candidate.cut, **(layers if self.way == "layers_first" else {})},
            distill=replace(distill, losses=dict(losses)),
            prune={},
            quantize={"dynamic": DynamicInt8()},
            export={"onnx": Onnx()},
            seed=seed,
        )


def candidates(students: Sequence[str], recipe: Recipe, known: Known) -> tuple[list[Candidate], dict[str, str]]:
    """Return the candidates that this task and teacher allow, and why others do not fit, by name."""
    fitting, why = [], {}
    for candidate in _all(students, known):
        if reason := _misfit(candidate, recipe, known):
            why[candidate.name] = reason
        else:
            fitting.append(candidate)
    return fitting, why


def stems(students: Sequence[str], recipe: Recipe) -> Iterator[Recipe]:
    """Yield the recipe of the smallest candidate of each kind, whatever the teacher is; one of them has to fit."""
    own = {candidate.name: candidate for candidate in _words()}
    for name in students:
        smallest = own.get(name, of_depth(1))
        yield Trial(smallest, "mse", smallest.rate).recipe(recipe, 1, recipe.seed)


def ways(candidate: Candidate, recipe: Recipe, known: Known) -> list[str]:
    """Return the ways to train a candidate that the task and both models allow."""
    return [way for way in candidate.ways() if not _faults(Trial(candidate, way, candidate.rate), recipe, known)]


def rows(recipe: Recipe, known: Known) -> list[str]:
    """Return the rows that trials can learn from: with perturbed copies too, where the recipe adds none itself."""
    unfit = recipe.augment or any(all_faults(Perturb(copies=COPIES), known))
    return [GIVEN] if unfit else [GIVEN, PERTURBED]


def _all(students: Sequence[str], known: Known) -> Iterator[Candidate]:
    whole = layer_count(known.teacher) if known_family(known.teacher) else 0
    if "bert" in students:
        yield from (of_depth(layers) for layers in range(whole, 0, -1))
    if "narrow" in students and whole:
        yield from (_narrow(layers, known) for layers in dict.fromkeys((whole, -(-whole // 2))))
    yield from (candidate for candidate in _words() if candidate.name in students)


def of_depth(layers: int) -> Candidate:
    """Return the candidate with this many of the teacher's layers."""
    return Candidate(counted(layers, "layer"), Bert(layers=layers), layers, (1e-5, 5e-4), 1e-4)


def _narrow(layers: int, known: Known) -> Candidate:
    """Return the candidate with this number of layers that lacks hidden channels in all of them."""
    cut = PruneWidth(ratio=NARROWER, recovery_epochs=0)
    width = cut.remaining(int(known.teacher.hidden_size), 1)
    deep = of_depth(layers)
    return replace(deep, name=f"{deep.name}, {width} wide", cut={"width": cut})


def of_shape(heads: Sequence[int], units: Sequence[int]) -> Candidate:
    """Return the candidate with so many heads and feed-forward units in each layer of the teacher."""
    left = sum(count > 0 for count in heads)
    name = f"{counted(left, 'layer')}, {counted(sum(heads), 'head')}, {counted(sum(units), 'unit')}"
    cut = PruneToShape(heads=list(heads), units=list(units), recovery_epochs=0)
    return replace(of_depth(left), name=name, student=Bert(layers=ALL), cut={"shape": cut})


def _words() -> Iterator[Candidate]:
    """Yield the candidates that read words of their own."""
    small: dict[str, Student] = {
        "bilstm": BiLstm(tokens=Pieces.words),
        "cnn": Cnn(tokens=Pieces.words),
        "static": Static(tokens=Pieces.words, bigrams=BIGRAMS),
    }
    for name, student in small.items():
        yield Candidate(name, student, 0, (3e-4, 1e-2), 2e-3)


def _misfit(candidate: Candidate, recipe: Recipe, known: Known) -> str:
    """Return why none of the ways to train a candidate fits, as a sentence; empty where one does."""
    try:
        found = [_faults(Trial(candidate, way, candidate.rate), recipe, known) for way in candidate.ways()]
    except CompressError as error:
        return str(error)
    return "" if not all(found) else found[-1][0]


def _faults(trial: Trial, recipe: Recipe, known: Known) -> list[str]:
    """Return what is wrong with a trial's parts, as sentences."""
    parts = trial.recipe(recipe, 1, recipe.seed)
    told = parts.known_to_parts(known)
    wrong = [str(fault.under("student")) for fault in all_faults(parts.student, told)]
    if wrong:
        return wrong
    told = replace(told, student=parts.student.config(parts.student.built_from(known)))
    stages = {"student": parts.student, "distill": parts.distill} | parts.prepare
    return [str(fault.under(name)) for name, stage in stages.items() for fault in all_faults(stage, told)]
