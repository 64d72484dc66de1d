"""A teacher that is a file: answers that something else gave, a language model or people, and no weights."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import Enum
from pathlib import Path
from typing import Any

import numpy as np
import torch

from compress.data.dataset import Dataset, Split
from compress.data.splits import SPLITS
from compress.data.unpacking import packed_fault, suffix_of
from compress.errors import Fault, ModelError
from compress.files import hash_json, no_file
from compress.hub_access import meant_file
from compress.known import NOTHING, Known
from compress.pipeline.record import Details
from compress.pipeline.state import State
from compress.pipeline.workshop import Workshop
from compress.settings import at_least, spelled
from compress.tasks.adoption import Adoption
from compress.tasks.base import Array
from compress.tasks.judging import CLASSES, Head
from compress.teachers.answer_table import SUFFIXES, Match, Reading, Table, read_table
from compress.teachers.answer_values import AnswerForm, Rest
from compress.teachers.base import BaseTeacher, Inspection
from compress.teachers.calibration import FittedTemperature, calibrated
from compress.wording import counted, shortened

ENOUGH = 100  # labelled rows of the validation split that a temperature is found on; with fewer, training rows too
SHOWN = 20  # rows whose label looks wrong that the report lists
MUCH = 0.05  # share of training rows without an answer that the report points out


class Missing(Enum):
    """labels: they are learned by their labels alone; leave_out: not at all; refuse: the first one is an error."""

    labels = "labels"
    leave_out = "leave_out"
    refuse = "refuse"


@dataclass(frozen=True, kw_only=True)
class Suspect:
    """A row whose label looks wrong."""

    row: str  # its id
    split: str
    text: str
    label: str
    answer: str


@dataclass(frozen=True, kw_only=True)
class OfAnswers(Details):
    """What a file of answers is worth."""

    file: str
    matched_by: str
    coverage: Mapping[str, tuple[int, int]]  # rows with an answer, and rows, by split
    agreement: Mapping[str, float]  # share of the labelled rows with an answer on which both are the same, by split
    temperature: float  # by which logits were divided
    calibration: FittedTemperature | None
    several: int  # rows with more than one answer
    mean_weight: float | None  # of these rows
    mislabelled: int  # rows whose label looks wrong
    suspects: tuple[Suspect, ...]
    stated_latency_ms: float | None
    cost_per_1000: float | None


@dataclass(frozen=True)
class KeptAnswers:
    """The answers of a file."""

    table: Table
    key: str
    temperature: float = 1.0
    weigh: bool = True

    def logits(self, rows: Split, workshop: Workshop) -> Array:
        """Return the logits, 0 for a row without an answer."""
        return self.of(rows)

    def of(self, rows: Split) -> Array:
        """Return the logits (rows, outputs), fp32, 0 for a row without an answer."""
        places = self.table.find(rows)
        logits = self.table.logits[places] / self.temperature
        logits[places < 0] = 0
        return logits.astype(np.float32)

    def weights(self, rows: Split) -> Array | None:
        """Return 0 for a row without an answer, less than 1 where several answers to a row differ."""
        places = self.table.find(rows)
        weights = np.where(places < 0, 0.0, self.table.weights[places] if self.weigh else 1.0)
        return None if (weights == 1).all() else weights.astype(np.float32)


@dataclass(kw_only=True)
class Answering(BaseTeacher):
    """What all teachers have in common that only answer."""

    words: dict[Any, list[str]] = field(
        default_factory=dict, metadata={"open": True}
    )  # the words that stand for each class, as {good: [good,positive]}; default: its name
    rest: Rest = Rest.drop  # the probability of all other words: drop, or spread equally over the classes
    missing: Missing = Missing.labels  # training rows without an answer: labels, leave_out, refuse
    calibrate: bool = False  # divide logits by the temperature that fits labelled rows best
    latency_ms: float | None = None  # milliseconds that the teacher takes for a row, for the report's tables
    cost_per_1000: float | None = None  # what 1,000 rows cost, in a currency of your choice, for the report's tables

    def __post_init__(self) -> None:
        """Turn the keys of ``words`` into text as YAML writes them."""
        self.words = {spelled(key): words for key, words in self.words.items()}

    def class_names(self) -> Sequence[str]:
        """Return the classes that have words."""
        return list(self.words)

    def faults(self, known: Known = NOTHING) -> Iterator[Fault]:
        """Stated figures can be; nothing adds rows that have no answer."""
        yield from at_least(self, "latency_ms", 0)
        yield from at_least(self, "cost_per_1000", 0)
        if added := list(known.group("augment")):
            rule = f"has no answers to the rows that augment adds ({', '.join(added)})"
            yield Fault("", None, rule, "Leave out augment, or have those rows answered and give them as data.")


@dataclass(kw_only=True)
class AnswerFile(Answering):
    """Read the teacher's answers from a file: probabilities, logits, words, or a language model's likeliest words.

    Rows are Parquet, JSONL, CSV or TSV, with a column for each class or one column that holds them all; or a NumPy
    array (.npy) of shape (rows, classes) or (rows, answers, classes). See docs/teachers.md.
    """

    file: str = ""  # path; matched by number, it has the answers to data.train
    validation: str | None = None  # path of the answers to data.validation, where they are in a file of their own
    test: str | None = None
    unlabelled: str | None = None
    match: Match = Match.auto  # rows by id, text, or number; auto: whichever the file has, in this order
    keys: list[str] = field(default_factory=list)  # the column of the id, or those of the texts; default: recognised
    column: str | None = None  # that holds the answers; with * for the class, one for each; default: recognised
    form: AnswerForm = (
        AnswerForm.auto
    )  # what the numbers are, or logprobs of words, or words; auto: as names and numbers show
    classes: list[str] = field(default_factory=list)  # in the order of the file's numbers; default: the data's order
    several: bool = False  # rows with the same id or text are several answers to one row, which are averaged
    weigh: bool = True  # rows whose several answers differ count less

    def faults(self, known: Known = NOTHING) -> Iterator[Fault]:
        """Files are there, and what is said of them fits."""
        yield from super().faults(known)
        if not self.file:
            yield Fault("file", None, "needs a file", "For example teacher.file=answers.jsonl.")
        for name, path in self._files():
            if fault := _path_fault(path):
                yield Fault(name, path, *fault)
        if repeated := next((name for name in self.classes if self.classes.count(name) > 1), None):
            yield Fault("classes", list(self.classes), f"names {repeated!r} twice")
        if len(self.keys) > 2:
            yield Fault("keys", list(self.keys), "must be one column, or two for pairs of texts")
        if self.column is not None and self.column.count("*") > 1:
            yield Fault("column", self.column, "must have one * at most, for the name of the class")
        if known.reading and known.data is not None and not any(self.faults()):
            yield from self._unlearned(known, known.data)

    def _unlearned(self, known: Known, data: Dataset) -> Iterator[Fault]:
        """Yield why rows without an answer would be learned by nothing."""
        distill = known.stages.get("distill")
        if self.missing is not Missing.labels or distill is None or "training" in data.answered:
            return
        if _compared(data):  # each of them needs an answer, whatever the losses are
            return
        losses = getattr(distill, "losses", {}).values()
        rows = int((self._table(data).find(data.train) < 0).sum())
        if rows and not any(loss.weight > 0 and not loss.needs_teacher for loss in losses):
            rule = f"has {counted(rows, 'training row')} to learn by their labels, and no loss reads labels"
            yield Fault("missing", self.missing.value, rule, "Add the loss hard, or set teacher.missing=leave_out.")

    def class_names(self) -> Sequence[str]:
        """Return the classes of the file's numbers, or those that have words."""
        return self.classes or super().class_names()

    def _files(self) -> Iterator[tuple[str, str]]:
        """Yield (setting, path)."""
        for name in ("file", *SPLITS[1:]):
            if (path := getattr(self, name)) is not None and (path or name != "file"):
                yield name, path

    def inspect(self, data: Dataset) -> Inspection:
        """Return the rows that are learned, and what is known of the answers to them; raises ModelError."""
        kept = self._kept(data)
        covered = self._coverage(kept, data)
        facts = "; ".join([self._covered(covered), *self._judged(kept, data)])
        return Inspection(data=self._learned(kept, data), lines=(f"{self.file} only answers: {facts}",))

    def __call__(self, state: State) -> State:
        """Return the state with the answers, and without the rows that nothing can be learned of."""
        kept = self._kept(state.data)
        details, notes = self._described(kept, state.data)
        data = self._learned(kept, state.data)
        record = self.record("teacher", notes=notes, details=details)
        return replace(state, data=data).with_teacher(record, kept)

    def reading(self, data: Dataset) -> Reading:
        """Return how the fields of the file are read."""
        return Reading(
            match=self.match, keys=tuple(self.keys), column=self.column, form=self.form, classes=tuple(self.classes),
            words=tuple((name, tuple(words)) for name, words in self.words.items()),
            names=tuple(data.label_map.items()), rest=self.rest, several=self.several,
        )  # fmt: skip

    def _table(self, data: Dataset) -> Table:
        if data.task.by_token:
            raise ModelError(
                f"{self.file}: answers in a file are classes, sets of labels, scores or vectors, one for each row, and "
                f"those of the task {data.task.name} are not. Name a teacher that is a model."
            )
        files = {"train" if name == "file" else name: path for name, path in self._files()}
        return read_table(files, self.reading(data), data.task, dict(data.records))

    def _kept(self, data: Dataset) -> KeptAnswers:
        """Return the answers as they are learned; raises ModelError where they are of no use."""
        table = self._table(data)
        places = table.find(data.transfer)
        if (places < 0).all():
            first = data.train.texts[0] if table.match is Match.text else next(iter(data.train.ids or ["without id"]))
            raise ModelError(
                f"{self.file}: has an answer to none of the {len(data.train):,} training rows, by {table.match.value}: "
                f"its first is {shortened(table.first)!r}, the data's {shortened(first)!r}. Check teacher.match and "
                "teacher.keys; ids of the data are named by data.id."
            )
        compared = _compared(data)
        if (places < 0).any() and (self.missing is Missing.refuse or (compared and self.missing is Missing.labels)):
            row = int(np.flatnonzero(places < 0)[0])
            name = data.transfer.ids[row] if data.transfer.ids else str(row)
            why = "Rows that are compared with each other all need one: have" if compared else "Have"
            raise ModelError(
                f"{self.file}: has no answer to {int((places < 0).sum()):,} of {len(places):,} rows; the first is "
                f"{name!r}: {shortened(data.transfer.texts[row])!r}. {why} them answered, or set "
                f"teacher.missing{'=leave_out' if compared else ''}."
            )
        calibration = self._calibration(KeptAnswers(table, ""), data)
        temperature = calibration.temperature if calibration and self.calibrate else 1.0
        by_id = [] if table.match is Match.text else [rows.ids and list(rows.ids) for rows in _splits(data).values()]
        settings = {**self.made_with(), **dict.fromkeys(("file", *SPLITS[1:], "latency_ms", "cost_per_1000"))}
        key = hash_json([settings, table.content, list(data.label_map.items()), repr(data.task), temperature, by_id])
        return KeptAnswers(table, key, temperature, self.weigh)

    def _learned(self, kept: KeptAnswers, data: Dataset) -> Dataset:
        """Return the data without rows that have no answer, where they cannot be learned or are not to be."""
        splits, unlabelled = _splits(data), data.unlabelled
        try:
            task = data.task.answered_by(kept.table.logits)
        except ValueError as error:
            raise ModelError(f"{self.file}: {error}. Have that row answered again, or leave it out.") from None
        learned = [*data.answered, *(["training"] if self.missing is Missing.leave_out else [])]
        for name in learned:
            splits[name] = _answered(kept, splits[name])
            if not len(splits[name]):
                raise ModelError(
                    f"{self.file}: has no answer to a {name} row. Have them answered, or give labelled rows."
                )
        if unlabelled is not None:
            unlabelled = _answered(kept, unlabelled)
        return replace(
            data, task=task, train=splits["training"], validation=splits["validation"], test=splits["test"],
            unlabelled=unlabelled if unlabelled is None or len(unlabelled) else None,
        )  # fmt: skip

    def _coverage(self, kept: KeptAnswers, data: Dataset) -> dict[str, tuple[int, int]]:
        return {name: (int((kept.table.find(rows) >= 0).sum()), len(rows)) for name, rows in _splits(data).items()}

    def _covered(self, coverage: Mapping[str, tuple[int, int]]) -> str:
        found = [f"{there:,} of {counted(rows, f'{name} row')}" for name, (there, rows) in coverage.items()]
        return f"it has answers to {', '.join(found)}"

    def _judged(self, kept: KeptAnswers, data: Dataset) -> Iterator[str]:
        """Yield what its answers are worth on labelled rows; raises ModelError where they are other classes'."""
        logits, labels = _labelled(kept, data, ("validation", "training"))
        if not len(labels):
            return
        names = data.task.output_names
        note = f"its classes are taken to be {', '.join(map(shortened, names[:10]))}, in this order"
        adoption = Adoption(
            names, {name: place for place, name in enumerate(names)}, note=note, assumed=not kept.table.named, own=names
        )
        setting = CLASSES if self.classes or not kept.table.named else "teacher.file"
        yield from data.task.judge(Head(self.file, setting, adoption, mapped=False), logits, labels)

    def _calibration(self, kept: KeptAnswers, data: Dataset) -> FittedTemperature | None:
        if not data.task.distributes:
            return None
        logits, labels = _labelled(kept, data, ("validation",))
        if len(labels) < ENOUGH:
            logits, labels = _labelled(kept, data, ("validation", "training"))
        return calibrated(data.task, logits, labels) if len(labels) else None

    def _described(self, kept: KeptAnswers, data: Dataset) -> tuple[OfAnswers, list[str]]:
        coverage = self._coverage(kept, data)
        notes = [self._covered(coverage)]
        missing = coverage["training"][1] - coverage["training"][0]
        if missing:
            unlearned = self.missing is Missing.leave_out or "training" in data.answered
            how = "left out" if unlearned else "learned by their labels alone"
            notes.append(f"{counted(missing, 'training row')} without an answer are {how}")
        unlabelled = coverage.get("unlabelled", (0, 0))
        if lost := unlabelled[1] - unlabelled[0]:
            notes.append(f"{counted(lost, 'unlabelled row')} without an answer are left out")
        if coverage["test"][0] < coverage["test"][1] and "test" not in data.answered:
            notes.append("it is not measured: not every test row has an answer")
        agreement = {}
        for name in ("training", "validation", "test"):
            logits, labels = _labelled(kept, data, (name,))
            if len(labels):
                agreement[name] = data.task.metrics(logits, labels)[data.task.main_metric]
        if agreement:
            values = ", ".join(f"{value:.3f} on {name} rows" for name, value in agreement.items())
            notes.append(f"{data.task.main_metric} of its answers against the labels: {values}")
        calibration = self._calibration(KeptAnswers(kept.table, ""), data)
        if calibration is not None:
            on = counted(calibration.rows, "labelled row")
            done = (
                "its logits are divided by it" if self.calibrate else "not used: teacher.calibrate=true divides by it"
            )
            notes.append(
                f"calibrated temperature {calibration.temperature:.3g}, on {on}: the loss "
                f"on labels goes from {calibration.before:.3f} to {calibration.after:.3f} nats; {done}"
            )
        suspects = list(_suspects(kept, data))
        if suspects:
            notes.append(
                f"{counted(len(suspects), 'row')} look mislabelled: the answer is surely another; the surest are "
                + ", ".join(f"{suspect.row!r} ({suspect.label}, answered {suspect.answer})" for suspect in suspects[:3])
            )
        mean_weight = None
        if kept.table.several:
            weights = kept.table.weights[kept.table.weights < 1]
            mean_weight = float(weights.mean()) if len(weights) else 1.0
            less = f", which count {mean_weight:.2f} on average" if self.weigh and len(weights) else ""
            rows = counted(kept.table.several, "row")
            notes.append(f"{rows} have several answers, which are averaged; they differ on {len(weights):,}{less}")
        details = OfAnswers(
            file=self.file, matched_by=kept.table.match.value, coverage=coverage, agreement=agreement,
            temperature=kept.temperature, calibration=calibration, several=kept.table.several, mean_weight=mean_weight,
            mislabelled=len(suspects), suspects=tuple(suspects[:SHOWN]), stated_latency_ms=self.latency_ms,
            cost_per_1000=self.cost_per_1000,
        )  # fmt: skip
        return details, notes


def _path_fault(name: str) -> tuple[str, str] | None:
    """Return (rule, remedy) where there is no file of answers."""
    path = Path(name).expanduser()
    if rule := no_file(path):
        return rule, meant_file(path) or "Name the file with the answers."
    if suffix_of(path) not in SUFFIXES:
        return f"has the unknown suffix {suffix_of(path)!r}", f"Known: {', '.join(SUFFIXES)}. Convert or rename it."
    return packed_fault(path) or (("is empty", "Write it again.") if path.stat().st_size == 0 else None)


def _compared(data: Dataset) -> bool:
    """Return whether rows are compared with each other: candidates of a query, or two texts."""
    return data.train.grouped or data.task.apart


def _splits(data: Dataset) -> dict[str, Split]:
    """Return the splits by their names in sentences."""
    splits = {"training": data.train, "validation": data.validation, "test": data.test}
    return splits if data.unlabelled is None else {**splits, "unlabelled": data.unlabelled}


def _answered(kept: KeptAnswers, rows: Split) -> Split:
    """Return the rows that have an answer, of groups those with answers to all: the same split where all have one."""
    there = kept.table.find(rows) >= 0
    if rows.groups is not None:
        there = np.bincount(rows.groups, ~there)[rows.groups] == 0
    return rows if there.all() else rows.take(np.flatnonzero(there))


def _labelled(kept: KeptAnswers, data: Dataset, names: tuple[str, ...]) -> tuple[Array, Array]:
    """Return logits and labels of the rows in these splits that have both an answer and a label."""
    logits, labels = [], []
    for name in names:
        rows = _answered(kept, _splits(data)[name])
        if rows.labels is None:
            continue
        known = data.task.labelled(torch.from_numpy(rows.labels)).numpy()
        logits.append(kept.of(rows)[known])
        labels.append(rows.labels[known])
    return np.concatenate(logits), np.concatenate(labels)


def _suspects(kept: KeptAnswers, data: Dataset) -> Iterator[Suspect]:
    """Yield the rows whose label looks wrong, the surest first within each split."""
    for name in ("training", "validation", "test"):
        rows = _answered(kept, _splits(data)[name])
        if rows.labels is None or not len(rows) or name in data.answered:
            continue
        logits = kept.of(rows)
        for row in data.task.mislabelled(logits, rows.labels):
            yield Suspect(
                row=rows.ids[row] if rows.ids else str(row), split=name, text=shortened(rows.texts[row], 200),
                label=data.task.shown_label(rows.labels[row]),
                answer=data.task.shown(logits[row : row + 1], rows.labels[row : row + 1])[0],
            )  # fmt: skip
