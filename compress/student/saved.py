"""A student that is there already: a saved classifier, taken with the weights and the tokenizer that it has."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from compress.errors import Fault, ModelError
from compress.hub_access import absent
from compress.models.loading import content_of, load_config, load_model, load_tokenizer, save_model
from compress.state import Model, Record, State
from compress.student.base import Student
from compress.student.start import where
from compress.tasks import Task
from compress.teacher import has_head, in_order_of, longest_row


@dataclass(kw_only=True)
class Saved(Student):
    """Go on from a student that was trained before, here or elsewhere; with distill.epochs=0 it is taken as it is."""

    model: str = ""  # its folder, or a hub id: a classifier that knows the task's labels
    trust_remote_code: bool = False  # run code that the model's folder ships

    def faults(self) -> Iterator[Fault]:
        """A model is named, and is no file and no path to nowhere."""
        if not self.model:
            yield Fault("model", self.model, "must name a folder or a hub id")
        elif reason := absent(self.model):
            yield Fault("model", self.model, *reason)

    @property
    def own_tokens(self) -> bool:
        """It has a tokenizer of its own."""
        return True

    def teacher_faults(self, teacher: Any, fine_tuned: bool = True) -> Iterator[Fault]:
        """The model and its tokenizer can be read."""
        if not any(self.faults()):
            try:
                self.config(teacher)
                load_tokenizer(where(self.model), trust_remote_code=self.trust_remote_code)
            except ModelError as error:
                yield Fault("model", None, str(error).rstrip("."))

    def task_faults(self, task: Task) -> Iterator[Fault]:
        """The model has a head for the task, and weights in floats."""
        config = self.config(None)
        knows, why = has_head(config, task)
        if not knows:
            yield Fault("model", self.model, why, "Name one that was trained on these labels.")
        if getattr(config, "quantization_config", None) is not None:
            yield Fault("model", self.model, "has quantized weights", "Name the model that it was made from.")

    def config(self, teacher: Any) -> Any:
        """Return the model's configuration; raises ModelError. Of another vocabulary it has tokens of its own."""
        config = load_config(where(self.model), trust_remote_code=self.trust_remote_code)
        if teacher is not None and config.vocab_size != teacher.vocab_size:
            config.own_tokens = True
        return config

    def __call__(self, state: State) -> State:
        """Return the state with the model; its rows are cut where the teacher's are, or where it must cut them.

        Without a teacher it is its own: what is trained later learns from it as it is now.
        """
        config = self.config(None)
        if state.teacher is None:
            state = replace(state, data=replace(state.data, **in_order_of(config, state.data)))
        elif in_order_of(config, state.data).get("task") is not None:
            raise ModelError(
                f"{self.model}: numbers its labels otherwise than the teacher, so they cannot be compared."
            )
        most = load_tokenizer(state.teacher.folder).model_max_length if state.teacher else longest_row(config)

        def work(folder: Path) -> None:
            tokenizer = load_tokenizer(where(self.model), trust_remote_code=self.trust_remote_code)
            tokenizer.model_max_length = min(tokenizer.model_max_length, longest_row(config), most)
            head = state.data.task.head_config()  # labels get their names where they had none
            model = load_model(where(self.model), trust_remote_code=self.trust_remote_code, head=head, trained=True)
            save_model(model, tokenizer, folder)

        made_with = [content_of(where(self.model), config), most, state.data.task.head_config()]
        product = state.workshop.make("saved", made_with, work)
        model = Model(product.folder, product.key)
        record = Record("student", "Saved", model, product.seconds, product.reused, (f"loaded as it is: {self.model}",))
        return state.with_record(record, student=model, teacher=state.teacher or model)
