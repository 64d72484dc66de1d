"""Distillation on rows without end: made of the texts that are there, labelled by the teacher batch by batch."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

from transformers import PreTrainedModel

from compress.augment import masked_lm
from compress.augment.made_rows import MadeRows, MadeTokens
from compress.augment.perturb import mask_token
from compress.data.dataset import Dataset
from compress.distill.losses import LogitsMSE, Loss, SoftTargets
from compress.distill.objective import Distillation
from compress.distill.teacher_outputs import FromModel
from compress.errors import CompressError, Fault
from compress.known import NEEDS_WEIGHTS, NOTHING, Known
from compress.models.device import device
from compress.models.evaluate import main_metric
from compress.models.loading import load_model, load_tokenizer, save_model
from compress.models.tokenizer import same_tokens
from compress.models.tokens import Tokens, tokenize
from compress.pipeline.plan import Plan, Rehearsal
from compress.pipeline.state import State
from compress.pipeline.workshop import SCRATCH, Kind
from compress.settings import at_least, between, positive
from compress.tasks.base import Task
from compress.train import Training, fit, planned
from compress.train.order import InOrder

TITLE = "stream"


@dataclass(kw_only=True)
class Stream(Training):
    """Learn the teacher's answers to made rows, as Tang et al. do (arXiv:1903.12136), but never the same row twice.

    A row is made of training and unlabelled texts when a batch needs it: two texts recombined, words masked and
    replaced, texts cut to n-grams (section 3.3; words are replaced by words of any part of speech). With ``mlm`` a
    word is replaced by one of the words that a masked language model expects there, as in TinyBERT's augmentation
    (arXiv:1909.10351); where the model has none, by one of the texts. The teacher runs on every batch; nothing is
    stored. Answers are compared as soft targets, scores by their squared error.
    """

    reads_unlabelled: ClassVar[bool] = True

    rows: int = 100_000  # rows to make, each of which is read once
    epochs: float = 1.0
    learning_rate: float = 2e-4  # AdamW's, at its highest
    temperature: float = 2.0  # that softens the answers of teacher and student
    halves_rate: float = 0.25  # probability that the second half of a row is another row's
    mask_rate: float = 0.1  # probability that a word is masked
    replace_rate: float = 0.1  # probability that a word becomes another word of the texts
    ngram_rate: float = 0.25  # probability that a text becomes one of its n-grams
    longest_ngram: int = 5  # words in the longest n-gram
    mlm: str | None = None  # folder or hub id of a masked language model, whose words replace others
    candidates: int = 15  # K, most probable words, one of which replaces a word
    group_by_length: bool = False

    def faults(self, known: Known = NOTHING) -> Iterator[Fault]:
        """Rates are probabilities, rows come once, and a teacher with weights answers for rows as a whole."""
        yield from super().faults(known)
        yield from at_least(self, "rows", 1)
        yield from positive(self, "temperature")
        for name in ("halves_rate", "mask_rate", "replace_rate", "ngram_rate"):
            yield from between(self, name, 0, 1)
        for name in ("longest_ngram", "candidates"):
            yield from at_least(self, name, 1)
        if self.mlm is not None and not self.replace_rate:
            yield Fault("mlm", self.mlm, "replaces words, and replace_rate is 0", "Leave it out, or set the rate.")
        elif self.mlm is not None and known.reading:
            try:
                masked_lm.load(self.mlm)
            except CompressError as error:
                yield Fault("mlm", None, str(error).rstrip("."))
        if self.mask_rate + self.replace_rate > 1:
            yield Fault("replace_rate", self.replace_rate, f"leaves no room beside mask_rate = {self.mask_rate}")
        if self.epochs != 1:
            rule = "must be 1: no row comes twice"
            yield Fault("epochs", self.epochs, rule, "Set rows, how many are made.")
        if self.group_by_length:
            rule = "is not possible: rows are made one batch after the other"
            yield Fault("group_by_length", True, rule, "Leave it out.")
        if self.early_stopping:
            rule = "has no second epoch to wait for"
            yield Fault("early_stopping", self.early_stopping, rule, "Set it to 0.")
        if known.only_answers:
            yield Fault("rows", self.rows, NEEDS_WEIGHTS, "Leave stream out of prepare.")
        task = known.task
        if task is not None and (task.by_token or task.grouped or task.apart):
            rule = f"needs one answer per row, and the labels are {task.predicts}"
            yield Fault("rows", self.rows, rule, "Leave stream out of prepare.")

    def made_with(self) -> Any:
        """Leave out the language model's path; its content counts."""
        return {name: value for name, value in super().made_with().items() if name != "mlm"}

    def losses(self, task: Task) -> dict[str, Loss]:
        """Return what answers are compared by."""
        return {"soft": SoftTargets(temperature=self.temperature)} if task.distributes else {"mse": LogitsMSE()}

    def plan(self, plan: Plan) -> Plan:
        """One training of as many rows as are made, in which the teacher runs."""
        data, teacher = plan.data, plan.teacher

        def objective(student: PreTrainedModel, taught_by: PreTrainedModel | None, tokens: Tokens) -> Distillation:
            assert taught_by is not None
            return Distillation(student, self.losses(data.task), FromModel(taught_by, {}, tokens), teacher)

        share = self.rows / len(data.transfer)
        return planned(
            plan, TITLE, data.transfer, replace(self, epochs=share), learner=plan.student, teacher=teacher,
            rehearsal=Rehearsal(objective=objective),
        )  # fmt: skip

    def __call__(self, state: State) -> State:
        """Return the state with a student that has learned from the stream."""
        start, teacher, data = state.given_student, state.given_teacher, state.data

        def work(folder: Path) -> dict[str, Any]:
            student, own = load_model(start.folder, on=device()), load_tokenizer(start.folder)
            model, theirs = load_model(teacher.folder, on=device()), load_tokenizer(teacher.folder)
            rows = self.made(data, theirs, state.seed)
            ours, read = (MadeTokens(rows, self.rows, reader, reader.model_max_length) for reader in (own, theirs))
            alike = same_tokens(own, theirs) and own.model_max_length <= theirs.model_max_length
            seen = None if alike else read  # None: as the student reads them
            validation = tokenize(data.validation, own, own.model_max_length)
            objective = Distillation(student, self.losses(data.task), FromModel(model, {}, seen), model.config)
            curves = fit(
                objective, ours, self, seed=state.seed, folder=folder / SCRATCH, title=TITLE,
                order=InOrder(self.rows), validate=lambda: main_metric(student, validation, data.task),
            )  # fmt: skip
            save_model(student.cpu(), own, folder)
            return {"curves": curves}

        made_with = [
            self.made_with(), masked_lm.content(self.mlm), start.key, teacher.key, data.transfer.fingerprint,
            data.validation.fingerprint, data.test.fingerprint, data.task.decides, state.seed, *data.words.key,
        ]  # fmt: skip
        product = state.workshop.make(Kind("stream", revision=1), made_with, work)
        note = f"{self.rows:,} rows made of {len(data.transfer):,}, labelled by the teacher batch by batch, not stored"
        return state.with_student(self.record("stream", [product], notes=(note,), curves=product.record["curves"]))

    def made(self, data: Dataset, tokenizer: Any, seed: int) -> MadeRows:
        """Return the rows that are made, as far as possible none of the validation or test rows."""
        mask = mask_token(tokenizer) if self.mask_rate else ""
        mlm = None if self.mlm is None else masked_lm.load(self.mlm, data.words)
        measured = (data.validation, data.test)
        return MadeRows(data.transfer, measured, self, mask, seed, data.words, mlm, self.candidates)
