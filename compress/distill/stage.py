"""Distillation: train the student to answer as the teacher does."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from transformers import PreTrainedModel

from compress.data.dataset import Dataset, Split
from compress.distill.keep_best import Validated, fallen
from compress.distill.layer_drop import unskippable
from compress.distill.losses import (
    AttentionScores,
    Embeddings,
    HardLabels,
    HiddenStates,
    Loss,
    SoftTargets,
    wanted,
)
from compress.distill.losses.mean_over import comparing_rows
from compress.distill.objective import Distillation
from compress.distill.projections import go_on, keep
from compress.distill.source import Keep, Taught, decided, source_of
from compress.distill.sparsify import Masks, Sparsify
from compress.distill.teacher_outputs import FromLogits, FromModel
from compress.errors import Fault, ModelError
from compress.families.registry import can_be_taken_apart, layer_count
from compress.known import NOTHING, Known
from compress.models.device import device
from compress.models.evaluate import main_metric, predict_rows, tune
from compress.models.loading import load_config, load_model, load_tokenizer, save_model
from compress.models.masking import hold_zeros, settle
from compress.models.shared_words import AlignedWords, shared_words
from compress.models.tokenizer import same_tokens
from compress.models.tokens import Tokens, tokenize
from compress.pipeline.model import Model
from compress.pipeline.plan import Plan, Rehearsal
from compress.pipeline.record import NONE, Role
from compress.pipeline.rewrite import Rewritten, rewrite
from compress.pipeline.state import State
from compress.pipeline.workshop import SCRATCH, Kind, Product, Workshop
from compress.settings import at_least, between, positive
from compress.student.base import Student
from compress.student.layer_map import layer_map_faults, layer_pairs
from compress.tasks.base import Task
from compress.train import (
    Supervised,
    Training,
    encoder_faults,
    fit,
    parameter_faults,
    planned,
    same_randomness,
    whole_batch,
)

CYCLE = 10_007  # between the seeds of two cycles: more than there are generations
TRAINED = Kind("distill", revision=3)
GOES_ON = "states are projected to the teacher's width with the projection that the stage before learned"


@dataclass(kw_only=True)
class Distill(Training):
    """Train the student with any subset of losses, weighted and scheduled.

    With several generations each starts from the same weights and learns from the one before (born-again
    networks, Furlanello et al., arXiv:1805.04770). What is trained again later learns from the first teacher.
    """

    role: ClassVar[Role] = Role.distillation

    epochs: float = 3.0  # passes over the rows; 0: a saved student is used unchanged
    losses: dict[str, Loss] = field(
        default_factory=lambda: {
            "soft": SoftTargets(),
            "hard": HardLabels(),
            "hidden": HiddenStates(),
            "embeddings": Embeddings(),
            "attention": AttentionScores(),
        }
    )  # by name, as docs/methods.md describes them; default: the best at once in the table of benchmarks/README.md
    layer_map: Any = None  # uniform, skip, first, last, or teacher layers as [2,4,6]; default: the student's own
    teacher_outputs: Keep = Keep.auto  # auto: disk where they fit into cache_gib, else forward; disk; forward
    cache_gib: float = 8.0  # most disk that the teacher's outputs of one data set may take
    cycles: int = 1  # times that all epochs run, each with the learning rate's whole schedule (warm restarts)
    generations: int = 1  # born again: each trained student is the next one's teacher
    layer_drop: float = 0.0  # probability with which a step skips each layer of the student; 0: none (LayerDrop)
    keep_best: bool = True  # where training lowers the metric on validation rows, keep the weights from before it

    def faults(self, known: Known = NOTHING) -> Iterator[Fault]:
        """Check ranges; a loss has a weight, and the losses fit the task and the models, where they train any."""
        yield from (fault for fault in super().faults(known) if fault.setting != "epochs" or self.epochs != 0)
        if self.epochs == 0 and self.generations > 1:
            yield Fault("generations", self.generations, "follow one another, but epochs = 0 trains nothing")
        if self.epochs == 0 and self.cycles > 1:
            yield Fault("cycles", self.cycles, "repeat the epochs, but epochs = 0 trains nothing")
        yield from positive(self, "cache_gib")
        yield from at_least(self, "generations", 1)
        yield from at_least(self, "cycles", 1)
        yield from between(self, "layer_drop", 0, 1, open_high=True)
        if self.layer_map is not None:
            yield from layer_map_faults("layer_map", self.layer_map)
        if not any(loss.weight > 0 or (loss.weight_end or 0) > 0 for loss in self.losses.values()):
            yield Fault("losses", None, "needs at least one loss with a weight above 0", "For example soft.")
        student = known.stages.get("student")
        if self.epochs == 0 and isinstance(student, Student) and not student.trained:
            yield Fault("epochs", 0, "leaves the student untrained", "Choose student=saved, or set it above 0.")
        if self.epochs or any(stage.recovers for stage in known.stages.values()):
            yield from self._unfit(known)

    def _unfit(self, known: Known) -> Iterator[Fault]:
        """Yield losses and layer maps that do not fit the task and the models."""
        for name, loss in self.losses.items():
            if loss.needs_classes and known.task is not None and not known.task.distributes:
                rule = f"needs classes, but the labels are {known.task.predicts}"
                remedy = "Use margin_mse, pairwise or mse instead." if known.task.grouped else "Use mse instead."
                yield Fault(f"losses.{name}", None, rule, remedy)
            if loss.mean_over is None:
                yield from whole_batch(self, comparing_rows(name))
            if loss.compares_rows and known.task is not None:
                yield from _without_groups(name, known.task, known.data)
            if loss.needs_vectors and known.task is not None and not known.task.apart:
                rule = f"compares vectors of texts, but the labels are {known.task.predicts}"
                yield Fault(f"losses.{name}", None, rule, "Use soft or mse instead.")
        if known.only_answers:
            yield from self._looking_inside()
        if known.student is None:
            return
        faults = [*parameter_faults(self, known.student), *self._incomparable(known)]
        if not faults and all(loss.compares_layers for loss in self.losses.values()):
            faults += encoder_faults(self, known.student)  # no loss reaches the head
        if self.generations > 1 and not faults:
            faults += replace(self, layer_map="uniform")._incomparable(replace(known, teacher=known.student))
        yield from faults
        yield from unskippable(self.layer_drop, known.student)

    def _looking_inside(self) -> Iterator[Fault]:
        """Yield what needs a teacher with weights."""
        for name, loss in self.losses.items():
            if loss.compares_layers:
                rule = "compares layers with the teacher's, and the teacher has no weights: it only answers"
                yield Fault(f"losses.{name}", None, rule, "Leave it out; soft, mse and hard need the answers only.")
        if self.layer_map is not None:
            yield Fault("layer_map", self.layer_map, "maps the teacher's layers, and the teacher only answers")

    def _incomparable(self, known: Known) -> Iterator[Fault]:
        student, teacher = known.student, known.teacher
        if not layer_count(student):
            for name, loss in self.losses.items():
                if loss.compares_layers:
                    rule = f"compares layers, and a student of type {student.model_type} has none"
                    yield Fault(f"losses.{name}", None, rule, "Leave it out; soft, mse and hard need none.")
            return
        if getattr(student, "own_tokens", False):
            by_token = [name for name, loss in self.losses.items() if not all(part.pools for part in loss.quantities)]
            for name in by_token:
                rule = "compares attention token by token, and the student has a tokenizer of its own"
                remedy = "Leave it out; hidden, embeddings, cosine, patient and relations compare words."
                yield Fault(f"losses.{name}", None, rule, remedy)
            if by_token:
                return
        if teacher is None:  # it only answers; see `_looking_inside`
            return
        try:
            self._layers(student, teacher)
        except ValueError as error:
            yield Fault("layer_map", self.layer_map, str(error))
            return
        last = layer_count(student), layer_count(teacher)
        for name, loss in self.losses.items():
            pairs = loss.pairs(self._layers(student, teacher), last)
            if loss.compares_layers and not pairs:
                yield Fault(f"losses.{name}", None, "needs a student of at least two layers", "Leave it out.")
            elif loss.compares_layers:
                yield from (fault.under(f"losses.{name}") for fault in loss.faults(replace(known, layers=pairs)))

    def plan(self, plan: Plan) -> Plan:
        """Every cycle of every generation is a training."""
        plan, teacher = replace(plan, recovery=self), plan.teacher
        for generation in range(self.generations if self.epochs else 0):
            first = self if generation == 0 else replace(self, layer_map="uniform")
            for _ in range(self.cycles):
                plan = first.planned(plan, "distill", teacher, self.epochs * self.cycles)
            teacher = plan.student  # of the next generation
        return plan

    def planned(self, plan: Plan, title: str, teacher: Any, passes: float | None = None) -> Plan:
        """Return the plan with one training with these losses, from a teacher of this configuration; see `train`."""
        rows, passes = plan.data.transfer if self._needs_teacher else plan.data.train, max(passes or 0, self.epochs)
        answering = teacher if self._needs_teacher else None
        return planned(
            plan, title, rows, self, learner=plan.student, teacher=answering,
            more=plan.added if self._needs_teacher else 0,
            rehearsal=self.rehearsal(plan, answering, passes),
        )  # fmt: skip

    def rehearsal(self, plan: Plan, teacher: Any, passes: float) -> Rehearsal:
        """Return how to try a training of ``passes``; without a ``teacher`` learning costs what it does on labels.

        The teacher, where there is one, runs on every batch.
        """
        if teacher is None:
            return Rehearsal(objective=lambda student, *_: Supervised(student, plan.data.task.mean_loss))
        layers, last = self._layers(plan.student, teacher), (layer_count(plan.student), layer_count(teacher))
        needed = wanted(self.losses.values(), layers, last, teacher)

        def objective(student: PreTrainedModel, taught_by: PreTrainedModel | None, tokens: Tokens) -> Distillation:
            assert taught_by is not None
            rate = self._layer_drop(student)
            source = FromModel(taught_by, needed, tokens)
            return Distillation(student, self.losses, source, teacher, layers, rate, plan.data.task)

        def keeps(gib: float) -> bool:
            return decided(self.teacher_outputs, gib, self.cache_gib, passes)[0] is Keep.disk

        return Rehearsal(objective=objective, wanted=needed, keeps=keeps)

    def __call__(self, state: State) -> State:
        """Return the state with the distilled student, and a way to train it again later."""
        teaching, start = state, self._mapped(state)
        state = replace(state, undistilled=state.given_student)
        first = self if start == state.undistilled else replace(self, layer_map=None)
        for generation in range(self.generations if self.epochs else 0):
            losses = first if generation == 0 else replace(self, layer_map="uniform")  # the teacher is now its equal
            products = losses.in_cycles(teaching.with_seed(state.seed + generation), start)
            notes = dict.fromkeys(note for product in products for note in product.record["notes"])
            record = self.record(
                "distill", products, notes=[*fallen(products), *notes], curves=curves_of(products),
                details=Validated.recorded(products[-1]) or NONE,
            )  # fmt: skip
            state = state.with_student(record)
            teaching = replace(teaching, teacher=record.model, answers=None)
        return replace(state, recovery=DistillationRecovery(first))

    def _mapped(self, state: State) -> Model:
        """Return the student with ``layer_map`` in its configuration: pruning leaves out there the layers that go."""
        start = state.given_student
        if self.layer_map is None or state.teacher is None or not self._needs_teacher:
            return start
        student = load_config(start.folder)
        if not can_be_taken_apart(student):
            return start
        layers = [theirs for _, theirs in self._layers(student, load_config(state.given_teacher.folder))]

        def change(model: PreTrainedModel, tokenizer: Any) -> Rewritten:
            model.config.teacher_layers = layers
            return Rewritten(model, tokenizer)

        return Model.of(rewrite(state.workshop, Kind("mapped", revision=1), start, [layers], change))

    @property
    def skipping(self) -> float:
        """The rate of LayerDrop."""
        return self.layer_drop

    def in_cycles(self, state: State, start: Model, name: str = "distill") -> list[Product]:
        """Return ``start`` after each of the cycles; each begins with what the one before became.

        Loshchilov & Hutter 2017, arXiv:1608.03983, with cycles of equal length.
        """
        products: list[Product] = []
        for cycle in range(self.cycles):
            seed = state.seed + CYCLE * cycle  # another order of the rows
            passes = self.epochs * self.cycles
            products.append(self.train(state.with_seed(seed), start, name, passes=passes))
            start = Model.of(products[-1])
        return products

    def train(
        self,
        state: State,
        start: Model,
        name: str = "distill",
        sparsify: Sparsify | None = None,
        passes: float | None = None,
        comparable: bool = True,
    ) -> Product:
        """Return ``start``, trained once with these losses.

        ``sparsify`` says how weights are set to zero meanwhile. ``passes`` are those of a longer training that has read
        the teacher's outputs of the same rows, which decides where they come from; default: this one's epochs.
        ``comparable`` says that ``start`` is of the same form, so that the better of the two can go on.
        """
        settings, passes = replace(self, generations=1, cycles=1), max(passes or 0, self.epochs)
        rows = state.data.transfer if self._needs_teacher else state.data.train
        depends_on = [
            settings.made_with(), start.key, state.given_answers.key if self._needs_teacher else None,
            rows.fingerprint, state.data.validation.fingerprint, state.data.task.decides, state.seed,
            *([sparsify.made_with()] if sparsify else []), passes >= 1, comparable,
        ]  # fmt: skip

        def work(folder: Path) -> dict[str, Any]:
            return settings._work(state, start, rows, folder, name, sparsify, passes, comparable)

        return state.workshop.make(TRAINED.named(name), depends_on, work)

    def _work(
        self, state: State, start: Model, rows: Split, folder: Path, title: str, sparsify: Sparsify | None,
        passes: float, comparable: bool,
    ) -> dict[str, Any]:  # fmt: skip
        student, tokenizer = load_model(start.folder, on=device()), load_tokenizer(start.folder)
        hold_zeros(student)
        masks = Masks(student, sparsify) if sparsify else None
        tokens = tokenize(rows, tokenizer, tokenizer.model_max_length)
        validation = tokenize(state.data.validation, tokenizer, tokenizer.model_max_length)
        notes = [f"{tokens.truncated:,} of {len(tokens):,} rows were longer and were cut"] if tokens.truncated else []
        with same_randomness():
            torch.manual_seed(state.seed)  # the projections start from it
            objective = self._objective(state, student, tokenizer, rows, passes, notes)
            if go_on(objective.projections, start.folder):
                notes.append(GOES_ON)
        objective.masks = masks
        known = comparable and len(validation) > 0 and validation.labels is not None
        before = predict_rows(student, validation) if known else None
        projections = {name: value.clone() for name, value in objective.projections.state_dict().items()}
        scores = masks.scores if masks else []
        rate = sparsify.scores.learning_rate if sparsify else None
        curves = fit(
            objective, tokens, self, seed=state.seed, folder=folder / SCRATCH, title=title,
            validate=lambda: main_metric(student, validation, state.data.task),
            shares=None if rate is None else dict.fromkeys(scores, rate / self.learning_rate),
            undecayed=scores,
        )  # fmt: skip
        if masks:
            masks.finish()
        settle(student)
        record = {"curves": curves, "notes": notes}
        if before is not None and validation.labels is not None:
            after = predict_rows(student, validation)
            validated = Validated.of(state.data.task, before, after, validation.labels, self.keep_best)
            record |= validated.report()
            if validated.start_goes_on:
                student = load_model(start.folder, on=device())
                objective.projections.load_state_dict(projections)
        tune(student, validation, state.data.task)
        save_model(student.cpu(), tokenizer, folder)
        keep(objective.projections, folder)
        return record

    def _objective(
        self, state: State, student: PreTrainedModel, own: Any, rows: Split, passes: float, notes: list[str]
    ) -> Distillation:
        """Return what is trained; ``own`` is the student's tokenizer."""
        if not self._needs_teacher:
            return Distillation(student, self.losses, layer_drop=self._layer_drop(student), task=state.data.task)
        if state.teacher is None:
            for fault in self._looking_inside():
                raise ModelError(str(fault))
            answers = state.given_answers
            source = FromLogits(answers.logits(rows, state.workshop), answers.weights(rows))
            return Distillation(
                student, self.losses, source, layer_drop=self._layer_drop(student), task=state.data.task
            )
        teacher = load_model(state.given_teacher.folder, on=device())
        tokenizer = load_tokenizer(state.given_teacher.folder)
        tokens = tokenize(rows, tokenizer, tokenizer.model_max_length)
        return self.comparison(
            state.workshop, state.given_teacher, teacher, tokens, student, passes, notes, state.data.task,
            words=self.words(student, rows, (own, tokenizer), (own.model_max_length, tokenizer.model_max_length)),
        )  # fmt: skip

    def words(
        self, student: PreTrainedModel, rows: Split, tokenizers: tuple[Any, Any], most: tuple[int, int]
    ) -> AlignedWords | None:
        """Return the words by which layers are compared; None where tokens are compared one by one, or nothing is.

        ``tokenizers`` are the student's and the teacher's, ``most`` the tokens at which each cuts a row.
        """
        own = getattr(student.config, "own_tokens", False) and not same_tokens(*tokenizers)
        if not own or not any(loss.compares_layers for loss in self.losses.values()):
            return None
        return shared_words(rows, tokenizers, most)

    def comparison(
        self,
        workshop: Workshop,
        origin: Model,
        teacher: PreTrainedModel,
        tokens: Tokens,
        student: PreTrainedModel,
        passes: float,
        notes: list[str],
        task: Task | None = None,
        words: AlignedWords | None = None,
    ) -> Distillation:
        """Return the objective for rows as the teacher's ``tokens``; ``origin`` says which teacher that is.

        ``passes`` over the rows decide whether the teacher's outputs are worth keeping; ``task`` compares labels and
        ``words`` are those of the rows, as `Distillation` has them.
        """
        layers = self._layers(student.config, teacher.config)
        last = layer_count(student.config), layer_count(teacher.config)
        # a pruned student may lack the layers that a loss compares
        idle = [name for name, loss in self.losses.items() if loss.compares_layers and not loss.pairs(layers, last)]
        losses = {name: loss for name, loss in self.losses.items() if name not in idle}
        if not losses:
            raise ModelError(f"{', '.join(idle)}: the pruned student has no layers that this compares. Add loss soft.")
        notes += [f"{name} is left out: the student has no layers that it compares" for name in idle]
        taught = Taught(origin, teacher, tokens, wanted(losses.values(), layers, last, teacher.config))
        source, note = source_of(taught, self.teacher_outputs, self.cache_gib, passes, workshop)
        notes.append(note)
        for loss in losses.values():
            notes += loss.notes(student.config, teacher.config, loss.pairs(layers, last))
        if words is not None:
            notes.append(f"layers are compared by words, {words.share:.0%} of the student's tokens being in one")
        return Distillation(student, losses, source, teacher.config, layers, self._layer_drop(student), task, words)

    def _layer_drop(self, student: PreTrainedModel) -> float:
        """Return the rate at which layers are skipped: none where pruning has left a single one."""
        return self.layer_drop if layer_count(student.config) > 1 else 0.0

    @property
    def _needs_teacher(self) -> bool:
        return any(loss.needs_teacher for loss in self.losses.values())

    def _layers(self, student: Any, teacher: Any) -> tuple[tuple[int, int], ...]:
        """Return pairs (student layer, teacher layer), both counted from 1."""
        return layer_pairs(self.layer_map, student, teacher)


@dataclass(frozen=True)
class DistillationRecovery:
    """Training again as a student was distilled, after something of it was taken away.

    The losses and settings are those of the distillation, the teacher is the state's.
    """

    distill: Distill

    def train(
        self,
        state: State,
        start: Model,
        epochs: float,
        *,
        name: str = "distill",
        learning_rate: float | None = None,
        share: float = 1.0,
        sparsify: Sparsify | None = None,
        comparable: bool = True,
    ) -> Product:
        """Return ``start``, trained for ``epochs``.

        ``learning_rate`` overrides the distillation's; otherwise that rate times ``share`` is used. ``sparsify`` says
        how weights are set to zero meanwhile, ``comparable`` that the better of ``start`` and what it becomes goes on.
        """
        rate = share * self.distill.learning_rate if learning_rate is None else learning_rate
        settings = replace(self.distill, epochs=epochs, learning_rate=rate)
        if sparsify is not None:
            settings = replace(settings, early_stopping=0)  # the best epoch would be one with fewer zeros
        return settings.train(state, start, name, sparsify, self.distill.epochs, comparable and sparsify is None)


def _without_groups(loss: str, task: Task, data: Dataset | None) -> Iterator[Fault]:
    """Yield why a loss has no rows to compare with each other."""
    if not task.grouped and not task.apart:
        rule = f"compares rows of a group, and rows of the task {task.name} stand alone"
        yield Fault(f"losses.{loss}", None, rule, "Leave it out, or set task=ranking.")
    groups = data.train.groups if data is not None and task.apart else None
    if groups is not None and np.bincount(groups).max(initial=0) < 3:  # a query and two documents
        rule = "compares the documents of a query, and no training row has more than one"
        yield Fault(f"losses.{loss}", None, rule, "Leave it out, or give rows with negative texts.")


def planned_recovery(plan: Plan, epochs: float, title: str = "distill") -> Plan:
    """Return the plan with the student trained again as it was distilled; as it is where nothing is distilled."""
    distill: Distill | None = plan.recovery
    if distill is None or epochs <= 0:
        return plan
    again = replace(distill, epochs=epochs)
    return again.planned(plan, title, plan.teacher, distill.epochs)


def curves_of(products: Sequence[Product]) -> list[Mapping[str, float]]:
    """Return the training curves of products that were made one from another, in order."""
    return [point for product in products for point in product.record["curves"]]


def labels_only(distill: Distill, epochs: float) -> Distill:
    """Return the same training for ``epochs`` on labels alone: what the student would be without a teacher."""
    plain = Distill()
    more = {
        name: loss for name, loss in distill.losses.items() if not (loss.needs_teacher or isinstance(loss, HardLabels))
    }
    return replace(
        distill,
        epochs=epochs,
        losses={"hard": HardLabels(), **more},
        layer_map=None,
        generations=1,
        teacher_outputs=plain.teacher_outputs,
        cache_gib=plain.cache_gib,
    )
