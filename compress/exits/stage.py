"""Early exits: the student with a head after every layer, written with a rule by which easy rows leave before the last.

The student itself is left as it is. Beside it stand its forms with exits: a model for transformers, and a graph with
branches, in fp32 and in dynamic int8.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from math import log
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from transformers import PreTrainedModel

from compress.data.dataset import Dataset, Split
from compress.distill.losses import HardLabels, Loss, SoftTargets
from compress.distill.teacher_outputs import FromLogits
from compress.errors import Fault, ModelError
from compress.exits.choosing import ExitWorth, at, chosen, in_batches, leaving, thresholds, worth
from compress.exits.heads import ExitHeads, answers_of_heads
from compress.families.forms.exiting import ENTROPY, PATIENCE, ExitingForm, ExitRule, exiting, set_rule
from compress.families.registry import FAMILIES, can_be_taken_apart, layer_count, type_in_words
from compress.known import NOTHING, Known
from compress.models.device import device
from compress.models.loading import load_config, load_model, load_tokenizer, save_model
from compress.models.tokens import tokenize
from compress.onnx.exits import branched
from compress.onnx.folder import MODEL, write_folder
from compress.onnx.graph import input_names, unbranched
from compress.onnx.package import import_onnx
from compress.onnx.storage import save_graph
from compress.pipeline.answers import OfModel
from compress.pipeline.artifact import Artifact, Trained
from compress.pipeline.model import Model
from compress.pipeline.plan import Plan
from compress.pipeline.record import Details
from compress.pipeline.rewrite import Rewritten, rewrite
from compress.pipeline.state import State
from compress.pipeline.workshop import SCRATCH, Kind, Product
from compress.quantize.int8 import DynamicInt8
from compress.settings import at_least, between, plain, positive
from compress.tasks.base import Array, Task
from compress.train import Training, fit, planned, same_randomness

TITLE = "exit heads"
BATCHES = (8, 32)  # for which it is said how many layers a batch takes


@dataclass(frozen=True, kw_only=True)
class EarlyExits(Details):
    """When rows leave, and what that is worth at every threshold that was tried, by PyTorch in fp32."""

    rule: str
    threshold: float
    layers: int
    average_layers: float  # that a test row takes by itself
    rows_by_layer: Sequence[int]  # test rows that leave after each layer
    batches: Mapping[str, float]  # layers that a batch of test rows takes on average, by its size
    tried: Sequence[Mapping[str, Any]]  # threshold; metric and layers on validation and test rows

    def report(self) -> dict[str, Any]:
        """Return all of it under one key."""
        return {"exits": asdict(self)}


@dataclass(kw_only=True)
class Exit(Training):
    """Give the student a head after each layer, and let rows leave where the rule of the class says.

    The heads learn from the teacher's answers and from labels, the student beneath them being left as it is (the two
    stages of DeeBERT, Xin et al., arXiv:2004.12993), or all learn together (PABEE, Zhou et al., arXiv:2006.04152).
    """

    learning_rate: float = 1e-3  # AdamW's for the heads, at its highest
    student_rate: float = 0.0  # AdamW's for the student beneath the heads; 0: it stays as it is
    temperature: float = 2.0  # that softens the teacher's answers and the heads'
    labels: float = 1.0  # weight of the loss on labels, beside that on the teacher's answers
    max_drop: float = 0.5  # points of the main metric that leaving early may cost on validation rows
    int8: bool = True  # also write the graph with exits in dynamic int8
    agreement: float = 0.99  # share of test rows on which the fp32 graph must agree with PyTorch; less is an error

    rule: ClassVar[str]

    def faults(self, known: Known = NOTHING) -> Iterator[Fault]:
        """Check ranges; the student has layers, and rows have one answer each."""
        yield from super().faults(known)
        yield from at_least(self, "student_rate", 0)
        yield from positive(self, "temperature")
        yield from at_least(self, "labels", 0)
        yield from between(self, "max_drop", 0, 100)
        yield from between(self, "agreement", 0, 1)
        for name, none in (("freeze", []), ("layer_decay", 1.0)):
            if getattr(self, name) != none:
                rule = "has no effect: beneath the heads all learns at student_rate"
                yield Fault(name, getattr(self, name), rule, "Leave it out.")
        if known.student is not None:
            if not can_be_taken_apart(known.student):
                rule = f"cannot give exits to a student of type {type_in_words(known.student)}"
                yield Fault("", None, rule, f"Supported: {', '.join(FAMILIES)}.")
            elif layer_count(known.student) < 2:
                yield Fault("", None, "needs a student of at least two layers", "Set student.layers, or leave it out.")
        if known.task is not None and not one_answer(known.task):
            rule = f"needs one class or score per row, and the labels are {known.task.predicts}"
            yield Fault("", None, rule, "Leave it out.")
        if known.data is not None and self.given is None and not _has_labels(known.data):
            rule = "is chosen on validation rows, and these have no labels"
            yield Fault(self.rule, None, rule, "Set it, or give validation rows with labels.")

    @property
    def given(self) -> float | None:
        """The threshold that is set; None: it is chosen."""
        raise NotImplementedError(type(self).__name__)

    def leaves_at(self, threshold: float, task: Task) -> ExitRule:
        """Return the rule with a threshold."""
        return ExitRule(rule=self.rule, threshold=threshold)

    def plan(self, plan: Plan) -> Plan:
        """One training of the heads, which rules with the same settings share."""
        rows = plan.data.transfer
        for step in plan.steps:
            if step.training is not None and step.training.title == TITLE:
                other = step.training.settings
                if isinstance(other, Exit) and other.training_with() == self.training_with():
                    return plan
        return planned(plan, TITLE, rows, self, learner=plan.student, more=plan.added)

    def training_with(self) -> dict[str, Any]:
        """Return the settings that the heads depend on, JSON-ready."""
        left_out = ("max_drop", "int8", "agreement", "checkpoint_seconds", "micro_batch")
        names = [field.name for field in fields(Exit) if field.name not in left_out]
        return {name: plain(getattr(self, name)) for name in names}

    def __call__(self, state: State) -> State:
        """Return the state with the student's forms with exits."""
        if layer_count(load_config(state.given_student.folder)) < 2:
            raise ModelError("exit: pruning has left the student a single layer, before which no row can leave.")
        heads = self._heads(state)
        validation, test = (self._answers(state, heads, rows) for rows in (state.data.validation, state.data.test))
        rule, details, notes = self._chosen(state, validation, test)

        def change(model: PreTrainedModel, tokenizer: Any) -> Rewritten:
            set_rule(model, rule)
            return Rewritten(model, tokenizer)

        product = rewrite(state.workshop, Kind("exits", revision=1), Model.of(heads), [asdict(rule)], change)
        saved, quantizer = Model.of(product), DynamicInt8()
        whole = self._whole(state, saved)

        def artifact(variant: str, made: Product, **more: Any) -> Artifact:
            about: dict[str, Any] = {"runtime": "onnxruntime", "precision": "fp32", "notes": notes} | more
            return Artifact(
                name=f"{self.rule}-{variant}", variant=variant, folder=made.folder, key=made.key, details=details,
                seconds=heads.seconds + made.seconds, **about,
            )  # fmt: skip

        def graph(kind: Kind, change: Callable[[Any], Any], *made_with: Any) -> Product:
            def work(folder: Path) -> None:
                model = import_onnx("Writing ONNX").load(whole.folder / MODEL)
                write_folder(branched(change(model)), saved.folder, folder, pairs=state.data.pairs)

            return state.workshop.make(kind, [whole.key, state.data.pairs, *made_with], work)

        floats = graph(Kind("exits_onnx", revision=1), lambda model: model)
        artifacts = [
            artifact("pytorch", product, runtime="pytorch"),
            artifact("onnx", floats, trained=Trained(saved, self.agreement)),
        ]
        if self.int8:
            integers = graph(Kind("exits_int8", revision=1), quantizer.quantized, *quantizer.quantized_with())
            artifacts.append(artifact("int8", integers, precision="int8", notes=(*notes, quantizer.told())))
        return state.with_artifacts(*artifacts)

    def _whole(self, state: State, saved: Model) -> Product:
        """Return the folder with the graph that has no branches yet, from which all graphs are made."""

        def work(folder: Path) -> None:
            save_graph(unbranched(load_model(saved.folder), input_names(load_tokenizer(saved.folder))), folder / MODEL)

        return state.workshop.make(Kind("exits_whole", revision=1), [saved.key], work)

    def _heads(self, state: State) -> Product:
        """Return the student with trained heads and without a rule."""
        start, data = state.given_student, state.data
        alone = state.answers is None and state.teacher is None
        answers = OfModel(start) if alone else state.given_answers
        rows = data.transfer

        def work(folder: Path) -> dict[str, Any]:
            student, tokenizer = load_model(start.folder, on=device()), load_tokenizer(start.folder)
            tokens, validation = (
                tokenize(split, tokenizer, tokenizer.model_max_length) for split in (rows, data.validation)
            )
            with same_randomness():
                torch.manual_seed(state.seed)  # the heads start from it
                model = exiting(student)
            assert isinstance(model, ExitingForm)
            source = FromLogits(answers.logits(rows, state.workshop), answers.weights(rows))
            losses: dict[str, Loss] = {"soft": SoftTargets(temperature=self.temperature)}
            if self.labels > 0:
                losses["hard"] = HardLabels(weight=self.labels)
            objective = ExitHeads(model, losses, source, data.task, student_learns=self.student_rate > 0)

            def validate() -> dict[str, float]:
                if not self.early_stopping or not len(validation) or validation.labels is None:
                    return {}
                found = answers_of_heads(model, validation)
                metric = data.task.main_metric
                return {metric: float(np.mean([data.task.metrics(own, validation.labels)[metric] for own in found]))}

            beneath = [parameter for name, parameter in model.named_parameters() if not name.startswith("exits.")]
            curves = fit(
                objective, tokens, self, seed=state.seed, folder=folder / SCRATCH, title=TITLE, validate=validate,
                shares=dict.fromkeys(beneath, self.student_rate / self.learning_rate) if self.student_rate else None,
            )  # fmt: skip
            save_model(model.cpu(), tokenizer, folder)
            return {"curves": curves}

        made_with = [
            self.training_with(), start.key, answers.key, rows.fingerprint, data.validation.fingerprint,
            data.task.decides, state.seed,
        ]  # fmt: skip
        return state.workshop.make(Kind("exit_heads", revision=1), made_with, work)

    def _answers(self, state: State, heads: Product, rows: Split) -> Array:
        """Return what every head answers to rows, logits (heads, rows, outputs)."""

        def work(folder: Path) -> None:
            model, tokenizer = load_model(heads.folder, on=device()), load_tokenizer(heads.folder)
            assert isinstance(model, ExitingForm)
            tokens = tokenize(rows, tokenizer, tokenizer.model_max_length)
            np.save(folder / "logits.npy", answers_of_heads(model, tokens, "exits"))

        product = state.workshop.make(Kind("exit_answers", revision=1), [heads.key, rows.fingerprint], work)
        found: Array = np.load(product.folder / "logits.npy", allow_pickle=False)
        return found

    def _chosen(self, state: State, validation: Array, test: Array) -> tuple[ExitRule, EarlyExits, tuple[str, ...]]:
        """Return the rule, chosen on validation rows, what it is worth on test rows, and both in words.

        The arrays are what every head answers to these rows, logits (heads, rows, outputs).
        """
        task, layers = state.data.task, len(validation)
        metric, labelled = task.main_metric, state.data.validation.labels is not None
        start = self.leaves_at(self.given or 0.0, task)
        if self.rule == PATIENCE and self.given is not None and self.given >= layers:
            raise ModelError(
                f"exit: patience = {self.given:g} must be below {layers}: so many layers has the student, pruned."
            )
        tried = [start] if self.given is not None else [at(start, value) for value in thresholds(start, validation)]
        splits = {"test": (test, state.data.test)} | (
            {"validation": (validation, state.data.validation)} if labelled else {}
        )
        worths = {
            name: [worth(rule, answers, task, rows.known_labels) for rule in tried]
            for name, (answers, rows) in splits.items()
        }
        rule, how = tried[0], "as it is set"
        if self.given is None:
            alone = task.metrics(validation[-1], state.data.validation.known_labels)[metric]
            rule = chosen(tried, worths["validation"], alone, self.max_drop)
            drop = (alone - worths["validation"][tried.index(rule)].metric) * 100
            how = (
                f"with which rows take the fewest layers, of those that cost at most {self.max_drop:g} points of "
                f"{metric} on {validation.shape[1]:,} validation rows; there it costs {drop:.2f}"
            )
        taken, _ = leaving(rule, test)
        details = EarlyExits(
            rule=rule.rule, threshold=rule.threshold, layers=layers, average_layers=float(taken.mean()),
            rows_by_layer=np.bincount(taken, minlength=layers + 1)[1:].tolist(),
            batches={str(size): in_batches(taken, size) for size in BATCHES},
            tried=[_point(tried, worths, place) for place in range(len(tried))],
        )  # fmt: skip
        early = int((taken < layers).sum())
        notes = [
            f"{rule.rule} {rule.threshold:.4g}, {how}",
            f"each of {len(taken):,} test rows takes {details.average_layers:.2f} of {layers} layers on average; by "
            f"layer {', '.join(f'{count:,}' for count in details.rows_by_layer)} rows leave",
            "batches do not gain as rows do: a batch goes on until its last row leaves, so 8 test rows take "
            f"{details.batches['8']:.2f} layers, 32 take {details.batches['32']:.2f}; batches in the latency grid are "
            "of random tokens, which leave where they will",
        ]
        if not early:
            notes.append("no row leaves early: use the student itself, which is the same without the heads")
        return rule, details, tuple(notes)


@dataclass(kw_only=True)
class PatienceExit(Exit):
    """A row leaves when heads in succession agree (PABEE, Zhou et al., arXiv:2006.04152)."""

    patience: int | None = None  # heads in succession that agree with the one before; default: chosen, see max_drop
    tolerance: float | None = None  # of scores: by how much less two must differ to agree, in the labels' units

    rule = PATIENCE

    def faults(self, known: Known = NOTHING) -> Iterator[Fault]:
        """Patience leaves a layer to spare, and scores have a tolerance."""
        yield from super().faults(known)
        yield from at_least(self, "patience", 1)
        yield from positive(self, "tolerance")
        if self.patience is not None and known.student is not None:
            layers = layer_count(known.student)
            if 2 <= layers <= self.patience:
                rule = f"must be below {layers}, the student's layers: the first head has none before it to agree with"
                yield Fault("patience", self.patience, rule)
        if known.task is not None and one_answer(known.task):
            if known.task.distributes and self.tolerance is not None:
                yield Fault("tolerance", self.tolerance, "is for scores, and the labels are classes", "Leave it out.")
            if not known.task.distributes and self.tolerance is None:
                rule = "must say by how much less two scores must differ to agree"
                yield Fault("tolerance", None, rule, "For example a tenth of the range of the labels.")

    @property
    def given(self) -> float | None:
        """The patience."""
        return None if self.patience is None else float(self.patience)

    def leaves_at(self, threshold: float, task: Task) -> ExitRule:
        """Return the rule, of scores with its tolerance."""
        return ExitRule(rule=self.rule, threshold=threshold, tolerance=self.tolerance)


@dataclass(kw_only=True)
class EntropyExit(Exit):
    """A row leaves at the first head whose answer is certain (DeeBERT, Xin et al., arXiv:2004.12993)."""

    entropy: float | None = None  # nats that an answer's entropy must be below; default: chosen, see max_drop

    rule = ENTROPY

    def faults(self, known: Known = NOTHING) -> Iterator[Fault]:
        """The entropy is one that answers can have, and answers are classes."""
        yield from super().faults(known)
        if known.task is None or not one_answer(known.task):
            yield from positive(self, "entropy")
        elif not known.task.distributes:
            rule = f"needs probabilities, and the labels are {known.task.predicts}"
            yield Fault("", None, rule, "Use exit=[patience].")
        elif self.entropy is not None and not 0 < self.entropy <= log(known.task.outputs):
            highest = log(known.task.outputs)
            rule = f"must lie in (0, {highest:.4g}]: the highest entropy of {known.task.outputs} classes, in nats"
            yield Fault("entropy", self.entropy, rule)

    @property
    def given(self) -> float | None:
        """The entropy."""
        return self.entropy


def one_answer(task: Task) -> bool:
    """Return whether rows of a task have one class or score each, which stands alone."""
    return not (task.by_token or task.apart or task.grouped or task.several)


def _has_labels(data: Dataset) -> bool:
    """Return whether validation rows have labels, or the teacher's answers in their place."""
    return data.validation.labels is not None or "validation" in data.answered


def _point(tried: Sequence[ExitRule], worths: Mapping[str, Sequence[ExitWorth]], place: int) -> dict[str, Any]:
    """Return one threshold, with the metric and the layers of each split."""
    return {"threshold": tried[place].threshold} | {name: asdict(values[place]) for name, values in worths.items()}
