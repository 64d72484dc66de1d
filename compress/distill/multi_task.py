"""Multi-task distillation: a teacher a task, one student with a head for each."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from compress.data import Dataset, Files
from compress.data.source import assemble
from compress.distill.heads import LearntTask, WrittenHeads, head_alone, with_auto, written_head
from compress.distill.losses import HardLabels, LogitsMSE, Loss, MarginMSE, SoftTargets, wanted
from compress.distill.losses.alignment import Alignment
from compress.distill.objective import Distillation
from compress.distill.schedules import Schedule
from compress.distill.task_batches import ByTask, TaskRows, shares
from compress.distill.teacher_outputs import FromModel, on_disk
from compress.errors import CompressError, Fault
from compress.families.registry import FAMILIES, known_family
from compress.known import NEEDS_WEIGHTS, NOTHING, Known
from compress.models.auto import knows
from compress.models.device import device
from compress.models.evaluate import main_metric, tune
from compress.models.loading import load_model, load_tokenizer, parameter_shapes, save_model
from compress.models.multi_task import (
    MultiTaskForSequenceClassification,
    auto_named,
    config_with_heads,
    with_heads,
)
from compress.models.tokens import Groups, Tokens, tokenize
from compress.pipeline.model import Model
from compress.pipeline.plan import Plan, Rehearsal
from compress.pipeline.record import NONE
from compress.pipeline.state import State
from compress.pipeline.workshop import SCRATCH, Kind
from compress.settings import Settings, all_faults, at_least
from compress.tasks.base import Array, Task
from compress.tasks.choice import AUTO, TaskChoice
from compress.tasks.registry import task_faults
from compress.teachers.members import reading
from compress.teachers.model import Teacher
from compress.train import Objective, Training, Whole, fit, freeze_faults, planned, same_randomness


@dataclass(kw_only=True)
class OtherTask(Settings):
    """A task that the student learns beside the recipe's own: its rows, and a teacher that knows it."""

    data: Files = field(default_factory=Files)
    teacher: Teacher = field(default_factory=Teacher)
    task: str = AUTO  # auto: by the labels; classification, regression, or another task's name
    metric: str | None = None  # the metric that decides; default: the task's first

    def faults(self, known: Known = NOTHING) -> Iterator[Fault]:
        """The task is known."""
        yield from task_faults("task", self.task)

    def known_to_parts(self, known: Known) -> Known:
        """Nothing: the recipe's rows and teacher are others."""
        return NOTHING

    def load(self, seed: int) -> Dataset:
        """Read the rows; raises DataError. Given validation rows are validation rows, for no test is made here."""
        parts = self.data.read_for(self.task)
        if parts.test is None:
            parts = replace(parts, test=parts.validation)
        return assemble(parts, self.data, TaskChoice(kind=self.task, metric=self.metric), seed)


ONE_BY_ONE = "Distil that task alone."


def _headless(task: Task, student: Any) -> str:
    """Return why a student of this configuration can have no head for a task, as a clause; empty where it can."""
    if auto_named(task.auto.__name__) is not task.auto:
        return f"the task {task.name} has models of its own, and multi_task builds those of transformers"
    if not knows(task.auto, type(student)):
        return f"a student of type {student.model_type} has no {task.head}, which the task {task.name} needs"
    return ""


@dataclass(kw_only=True)
class MultiTask(Training):
    """Learn other tasks too, each from a teacher of its own (BAM, Clark et al., arXiv:1907.04829).

    Tasks may be of any mix of kinds. A batch is of one task, drawn with probability proportional to rows^exponent. Its
    loss moves from the task's teacher to its labels (teacher annealing): soft targets where answers are probabilities,
    margins for rankings, distances for vectors, squared error for scores. Where the rows of a task belong to groups, a
    batch has ``batch_size`` groups. The encoder is shared, each task has a head, and each head is also written as a
    model and as an ONNX graph of its own. Later stages continue with the recipe's own task.
    """

    tasks: dict[str, OtherTask] = field(
        default_factory=dict, metadata={"listed": True}
    )  # by name, in a recipe file: {rte: {data: {train: FILE, validation: FILE}, teacher: {model: FOLDER}}}
    main: str = "main"  # name of the recipe's own task among them
    exponent: float = 0.75  # of a task's rows in the probability of its batches; 0: all equal, 1: by rows
    soft: SoftTargets = field(
        default_factory=lambda: SoftTargets(temperature=1.0, weight_end=0.0, weight_schedule=Schedule.linear)
    )
    hard: HardLabels = field(
        default_factory=lambda: HardLabels(weight=0.0, weight_end=1.0, weight_schedule=Schedule.linear)
    )
    write_heads: bool = True  # write each head as a model and as ONNX of its own, and score both

    def faults(self, known: Known = NOTHING) -> Iterator[Fault]:
        """Names are plain, a loss has weight, all tasks can be learned by the student, and their teachers taught by."""
        yield from super().faults(known)
        yield from at_least(self, "exponent", 0)
        for name in (self.main, *self.tasks):
            if not name.replace("_", "a").replace("-", "a").isalnum():
                yield Fault("main" if name == self.main else "tasks", name, "must be of letters, digits, _ and -")
        if self.main in self.tasks:
            yield Fault("main", self.main, "is the name of another task", "Give the recipe's own task another name.")
        if not any(loss.weight > 0 or (loss.weight_end or 0) > 0 for loss in (self.soft, self.hard)):
            yield Fault("soft.weight", self.soft.weight, "must be above 0, or hard.weight must")
        if known.task is not None and not self.tasks:
            example = "{multi_task: {tasks: {rte: {data: {train: FILE, validation: FILE}, teacher: {model: FOLDER}}}}}"
            yield Fault("tasks", None, "needs at least one more task", f"In a recipe file: `prepare: {example}`.")
        if known.only_answers:
            yield Fault("epochs", self.epochs, NEEDS_WEIGHTS, "Leave multi_task out of prepare.")
        if known.student is not None:
            yield from self._unfit(known.student)
            if known.task is not None and (rule := _headless(known.task, known.student)):
                yield Fault("main", self.main, rule, ONE_BY_ONE)
        if known.student is not None and known.source is not None:
            yield from self._cannot_teach(known.source, known.student, known.seed)

    def _unfit(self, student: Any) -> Iterator[Fault]:
        """The student has an encoder that heads can share, and parameters that can be frozen as is said."""
        if known_family(student) is None:
            rule = f"needs an encoder that heads can share, and the student is of type {student.model_type}"
            yield Fault("main", self.main, rule, f"Supported: {', '.join(FAMILIES)}.")
        elif self.freeze:
            heads = dict.fromkeys((self.main, *self.tasks), student.to_dict())
            yield from freeze_faults(self, list(parameter_shapes(config_with_heads(student, heads, self.main))))

    def _cannot_teach(self, teacher: str, student: Any, seed: int) -> Iterator[Fault]:
        """Every task's rows can be read, and its teacher knows them, or can be trained, and reads as the student."""
        own = reading(load_tokenizer(teacher))
        for name, other in self.tasks.items():
            if any(all_faults(other)):
                continue
            try:
                data = other.load(seed)
            except CompressError as error:
                yield Fault(f"tasks.{name}.data", None, str(error).rstrip("."))
                continue
            if rule := _headless(data.task, student):
                yield Fault(f"tasks.{name}.task", data.task.name, rule, ONE_BY_ONE)
                continue
            try:
                other.teacher.inspect(data)
                theirs = load_tokenizer(other.teacher.source(), trust_remote_code=other.teacher.trust_remote_code)
            except CompressError as error:
                yield Fault(f"tasks.{name}.teacher", None, str(error).rstrip("."))
                continue
            if reading(theirs) != own:
                rule = "has another tokenizer than the student"
                yield Fault(f"tasks.{name}.teacher.model", other.teacher.model, rule, "Name one with the same.")

    def plan(self, plan: Plan) -> Plan:
        """The other tasks' teachers that know them not yet, then one training on the rows of all."""
        others = 0
        for other in self.tasks.values():
            data = other.load(plan.seed)
            theirs = replace(plan, data=data, added=0, known={})
            plan = replace(plan, steps=other.teacher.plan(theirs).steps)
            others += len(data.transfer)
        return planned(
            plan, "multi_task", plan.data.transfer, self, learner=plan.student, teacher=plan.teacher,
            more=plan.added, others=others, rehearsal=self._rehearsal(plan),
        )  # fmt: skip

    def _rehearsal(self, plan: Plan) -> Rehearsal:
        """Return how to try it on the recipe's own rows."""
        losses, task = self._losses(plan.data.task), plan.data.task
        needed = wanted(losses.values(), (), (0, 0), plan.teacher)

        def objective(student: PreTrainedModel, teacher: PreTrainedModel | None, tokens: Tokens) -> Distillation:
            assert teacher is not None
            return Distillation(student, losses, FromModel(teacher, needed, tokens), task=task)

        return Rehearsal(objective=objective, wanted=needed, keeps=lambda _: True)

    def __call__(self, state: State) -> State:
        """Return the state with a student of the recipe's own task that has learned the others beside it."""
        student, learnt = state.given_student, [LearntTask(self.main, state.data, state.given_teacher)]
        seconds, reused = 0.0, True
        for name, other in self.tasks.items():
            taught = other.teacher(State.begin(data=other.load(state.seed), workshop=state.workshop, seed=state.seed))
            learnt.append(LearntTask(name, taught.data, taught.given_teacher))
            seconds, reused = seconds + taught.records[-1].seconds, reused and taught.records[-1].reused
        settings = {name: value for name, value in self.made_with().items() if name not in ("tasks", "write_heads")}
        made_with = [settings, student.key, [task.key for task in learnt], state.seed]

        def work(folder: Path) -> dict[str, Any]:
            return self._work(state, student, learnt, folder)

        product = state.workshop.make(Kind("multi_task", revision=4), made_with, work)
        written = [written_head(task, product, state.workshop, state.seed) for task in learnt if self.write_heads]
        record = self.record(
            "multi_task", [product], notes=[*product.record["notes"], *(head.note for head in written)],
            curves=product.record["curves"],
            details=WrittenHeads(heads=[head.figures for head in written]) if written else NONE,
        )  # fmt: skip
        beside = {place: folder for head in written for place, folder in head.folders.items()}
        record = replace(record, seconds=seconds + record.seconds, reused=reused and record.reused, beside=beside)
        return state.with_student(record, head_alone(self.main, product, state.workshop))

    def _work(self, state: State, student: Model, learnt: list[LearntTask], folder: Path) -> dict[str, Any]:
        tokenizer = load_tokenizer(student.folder)
        with same_randomness():
            torch.manual_seed(state.seed)  # the other tasks' heads start from it
            heads = {task.name: with_auto(task.data.task) for task in learnt}
            model = with_heads(load_model(student.folder), heads, self.main)
        nn.Module.to(model, device())
        parts: dict[str, Distillation] = {}
        rows: list[Tokens | Groups] = []
        classes: list[Array | None] = []
        validation: dict[str, Tokens] = {}
        notes: list[str] = []
        teachers: dict[str, float] = {}
        for task in learnt:
            teacher, theirs = load_model(task.teacher.folder, on=device()), load_tokenizer(task.teacher.folder)
            longest, limit = tokenizer.model_max_length, theirs.model_max_length
            if task.data.task.by_token:  # both answer for the same tokens
                longest = limit = min(longest, limit)
            own = tokenize(task.data.transfer, theirs, limit)
            losses = self._losses(task.data.task)
            read = wanted(losses.values(), (), (0, 0), teacher.config)
            source = on_disk(state.workshop, task.teacher, teacher, own, read)
            parts[task.name] = Distillation(model.head(task.name), losses, source, task=task.data.task)
            tokens = tokenize(task.data.transfer, tokenizer, longest)
            classes.append(tokens.classes(task.data.task))
            rows.append(tokens if tokens.groups is None else tokens.whole)
            validation[task.name] = tokenize(task.data.validation, tokenizer, tokenizer.model_max_length)
            held = tokenize(task.data.validation, theirs, theirs.model_max_length)
            teachers[task.name] = main_metric(teacher, held, task.data.task)[task.data.task.main_metric]

        def measured() -> dict[str, float]:
            found: dict[str, float] = {}
            for task in learnt:
                with model.answering(task.name):
                    metrics = main_metric(model, validation[task.name], task.data.task)
                found[task.name] = metrics[task.data.task.main_metric]
            return found

        def validate() -> dict[str, float]:
            found = measured()  # the mean decides early stopping; the recipe's own task goes by its metric
            return {"mean": sum(found.values()) / len(found), state.data.task.main_metric: found[self.main]} | {
                name: value for name, value in found.items() if name != self.main
            }

        curves = fit(
            MultiTaskDistillation(model, parts), TaskRows(rows), self, seed=state.seed, folder=folder / SCRATCH,
            title="multi_task", validate=validate,
            order=ByTask(
                [tokens.lengths for tokens in rows], self.batch_size, self.exponent, state.seed,
                classes=classes, grouped=self.group_by_length,
            ),
        )  # fmt: skip
        found = measured()
        for task in learnt:
            with model.answering(task.name):
                tune(model, validation[task.name], task.data.task)
                model.keep_head()
        save_model(model.cpu(), tokenizer, folder)
        for task, share in zip(learnt, shares([len(tokens) for tokens in rows], self.exponent), strict=True):
            notes.append(
                f"{task.name}: {task.data.task.main_metric} {found[task.name]:.4f}, its teacher "
                f"{teachers[task.name]:.4f}, on {len(task.data.validation):,} validation rows; "
                f"{share:.0%} of the batches"
            )
        return {"curves": curves, "notes": notes}

    def _losses(self, task: Task) -> dict[str, Loss]:
        """Return the two terms for a task: soft targets or, where it has none, the squared error that it is taught by.

        That of margins between the rows of a group, of vectors, or of scores.
        """
        soft: Loss = self.soft
        if not task.distributes:
            kind: type[Loss] = MarginMSE if task.grouped else Alignment if task.apart else LogitsMSE
            soft = kind(
                weight=soft.weight, weight_end=soft.weight_end, weight_schedule=soft.weight_schedule,
                step_at=soft.step_at,
            )  # fmt: skip
        return {"soft": soft, "hard": self.hard}


class MultiTaskDistillation(Objective):
    """The distillation of whichever task a batch is of.

    Call: (batch, progress) -> (loss, {task and loss: unweighted loss}). ``parts`` distil into the heads of
    ``model``, which alone holds weights.
    """

    reads_rows_alone = True

    def __init__(self, model: MultiTaskForSequenceClassification, parts: Mapping[str, Distillation]) -> None:
        super().__init__()
        self.model = model
        self.parts = tuple(parts.items())  # not modules of this one: their weights are the model's

    @property
    def trained(self) -> MultiTaskForSequenceClassification:
        """The model that learns."""
        return self.model

    @property
    def indivisible(self) -> str:
        """What keeps a batch of one of the tasks whole."""
        return next((reason for _, part in self.parts if (reason := part.indivisible)), "")

    def draw(self, progress: float) -> frozenset[int]:
        """Return nothing: no layer is skipped."""
        return frozenset()

    def sizes(self, batch: Mapping[str, Tensor], progress: float) -> Mapping[str, int]:
        """Return those of the batch's task."""
        return self.parts[int(batch["task"][0])][1].sizes(batch, progress)

    def forward(
        self, batch: Mapping[str, Tensor], progress: float, whole: Whole | None = None
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the loss of the batch's task."""
        name, part = self.parts[int(batch["task"][0])]
        loss, terms = part(batch, progress) if whole is None else part(batch, progress, whole)
        return loss, {f"{name}_{term}": value for term, value in terms.items()}
