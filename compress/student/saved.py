"""A student that exists already: a saved classifier with its weights and tokenizer."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

from transformers import PreTrainedModel

from compress.data.dataset import Dataset, Split
from compress.data.scripts import Segmentation
from compress.errors import Fault, ModelError
from compress.hub_access import absent
from compress.known import NOTHING, Known
from compress.models.encoders import load_encoder
from compress.models.ensemble import EnsembleConfig
from compress.models.heads import with_outputs
from compress.models.loading import check_trained, content_of, load_config, load_model, load_tokenizer, save_model
from compress.models.positions import longest_row
from compress.models.sentence_transformers import note_modules
from compress.models.tokenizer import same_tokens
from compress.pipeline.plan import Plan
from compress.pipeline.state import State
from compress.pipeline.workshop import Kind
from compress.student.base import APART, Student
from compress.student.start import where
from compress.tasks.adoption import Refusal, adopt, adopted, is_trained
from compress.tasks.base import Task
from compress.tasks.heads import output_count
from compress.teachers.examination import Subject


@dataclass(kw_only=True)
class Saved(Student):
    """Continue from a student that was trained before, here or elsewhere; with distill.epochs=0 it is used as it is."""

    model: str = ""  # its folder, or a hub id: a classifier that knows the task's labels
    trust_remote_code: bool = False  # run code from the model's folder

    trained: ClassVar[bool] = True

    def faults(self, known: Known = NOTHING) -> Iterator[Fault]:
        """A model is named that is not a file or a missing path, can be read and knows the teacher's classes."""
        if not self.model:
            yield Fault("model", self.model, "must name a folder or a hub id")
        elif reason := absent(self.model):
            yield Fault("model", self.model, *reason)
        elif known.reading:
            yield from self._unusable(known)
        yield from super().faults(known)

    def _unusable(self, known: Known) -> Iterator[Fault]:
        try:
            config = self.config(known.teacher)
            if known.task is None or not known.task.any_encoder:
                check_trained(self.source, config, trust_remote_code=self.trust_remote_code)
            load_tokenizer(self.source, trust_remote_code=self.trust_remote_code)
        except ModelError as error:
            yield Fault("model", None, str(error).rstrip("."))
            return
        if getattr(config, "quantization_config", None) is not None:
            yield Fault("model", self.model, "has quantized weights", "Name the model that it was made from.")
        if known.task is not None and not known.alone and (known.only_answers or known.teacher is not None):
            try:
                self.rows(config, known.task)
            except Refusal as refusal:
                yield Fault("model", self.model, str(refusal), "Name one that was trained on these labels.")

    @property
    def source(self) -> str:
        """The folder or hub id to load."""
        return where(self.model)

    @property
    def own_tokens(self) -> bool:
        """Whether the student tokenizes texts differently from the teacher: it has a tokenizer of its own."""
        return True

    @property
    def needs_weights(self) -> bool:
        """It brings its own weights and its own tokenizer."""
        return False

    def config(self, teacher: Any) -> Any:
        """Return the model's configuration, marked if it reads tokens of its own; raises ModelError."""
        config = load_config(self.source, trust_remote_code=self.trust_remote_code)
        if isinstance(config, EnsembleConfig):
            raise ModelError(f"{self.model}: is an ensemble, but a student is a single model. Name one of its members.")
        note_modules(config, self.source)
        if teacher is not None and (config.vocab_size != teacher.vocab_size or not self._reads_tokens_of(teacher)):
            made_here = getattr(config, "own_tokens", False)  # pieces of its own, on the layers of its teacher
            config.update({"own_tokens": True} if made_here else APART)
        return config

    def subject(self, data: Dataset, max_tokens: int | None, max_unknown: float) -> Subject:
        """Return the model as it will be used, for a trial on rows with labels numbered like the teacher's.

        ``max_tokens`` is where the teacher's rows are cut; None: a teacher that only answers cuts none.
        """
        config = self.config(None)
        return Subject(
            setting="student.model", name=self.model,
            key=[content_of(self.source, config), self.rows(config, data.task)],
            tokenizer=load_tokenizer(self.source, trust_remote_code=self.trust_remote_code),
            load=partial(self.classifier, data.task), adoption=adopt(config, data.task, {}),
            max_tokens=min(max_tokens or longest_row(config), longest_row(config)), max_unknown=max_unknown,
            data=replace(data, label_map={}),
        )  # fmt: skip

    def classifier(self, task: Task, rows: list[int | None] | None = None) -> PreTrainedModel:
        """Return the model with its outputs named and ordered as the task's; raises Refusal if they differ.

        ``rows`` are its outputs in that order, None for a class with the logit 0; default: as `rows` finds them.
        """
        config, head = self.config(None), task.head_config()
        if task.any_encoder:
            trained = is_trained(config, task)
            trust = self.trust_remote_code
            return load_encoder(self.source, config, head, trained=trained, trust_remote_code=trust)
        rows = self.rows(config, task) if rows is None else rows
        if rows == list(range(output_count(config))):
            return load_model(self.source, trust_remote_code=self.trust_remote_code, head=head, trained=True)
        model = load_model(self.source, trust_remote_code=self.trust_remote_code)
        return with_outputs(model, head, rows, zero=True)

    def tokenizer(self, teacher: Any, texts: Split, words: Segmentation = Segmentation.letters) -> Any:
        """Return the model's own."""
        return load_tokenizer(self.source, trust_remote_code=self.trust_remote_code)

    def plan(self, plan: Plan) -> Plan:
        """Rows are cut where the model has to."""
        plan = super().plan(plan)
        most = min(plan.max_tokens, plan.tokenizer.model_max_length, longest_row(plan.student))
        return replace(plan, max_tokens=most)

    @staticmethod
    def rows(config: Any, task: Task) -> list[int | None]:
        """Return, for each output of the task, the output of the configuration's head; raises Refusal."""
        return adopt(config, task, {}).rows(task.output_names)

    def _reads_tokens_of(self, teacher: Any) -> bool:
        """Return whether the model's tokenizer makes the same tokens as the teacher's.

        This is assumed if the teacher's configuration does not say where its tokenizer is.
        """
        taught_by = teacher.name_or_path
        if not taught_by or taught_by == self.source:
            return True
        own = load_tokenizer(self.source, trust_remote_code=self.trust_remote_code)
        return same_tokens(own, load_tokenizer(taught_by, trust_remote_code=self.trust_remote_code))

    def __call__(self, state: State) -> State:
        """Return the state with the model; its rows are cut at the teacher's limit, or at its own if that is lower.

        Without a teacher it is its own teacher: later training learns from its present state.
        """
        config = self.config(load_config(state.teacher.folder) if state.teacher else None)
        marks = {name: True for name in APART if getattr(config, name, False)}
        alone = state.teacher is None and state.answers is None
        if alone:
            data, adoption = adopted(config, state.data)
            state = replace(state, data=data)
            rows: list[int | None] = [None, 0] if adoption.single else [*range(output_count(config))]
        else:
            rows = self.rows(config, state.data.task)
        task = state.data.task
        most = load_tokenizer(state.teacher.folder).model_max_length if state.teacher else longest_row(config)

        def work(folder: Path) -> None:
            tokenizer = load_tokenizer(self.source, trust_remote_code=self.trust_remote_code)
            tokenizer.model_max_length = min(tokenizer.model_max_length, longest_row(config), most)
            model = self.classifier(task, rows)
            model.config.update(marks)
            save_model(model, tokenizer, folder)

        made_with = [content_of(self.source, config), most, task.head_config(), rows, marks]
        product = state.workshop.make(Kind("saved", revision=1), made_with, work)
        record = self.record("student", [product], notes=[f"loaded as it is: {self.model}"])
        return replace(state, teacher=record.model if alone else state.teacher).with_student(record)
