"""Students that a model other than the teacher can lend its shapes, weights and tokenizer."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

from compress.errors import Fault, ModelError
from compress.families.registry import family_of
from compress.hub_access import absent
from compress.known import NOTHING, Known
from compress.models.loading import content_of, load_config, load_model, load_tokenizer
from compress.models.positions import longest_row
from compress.pipeline.state import State
from compress.student.base import APART, Origin, Student
from compress.student.start import where
from compress.tasks.base import Task
from compress.tasks.heads import with_head


@dataclass(kw_only=True)
class WithStandIn(Student):
    """A student that is built from a named model where the teacher only answers."""

    @property
    def stands_in(self) -> str | None:
        """The folder or hub id of the model; None where none is named."""
        raise NotImplementedError

    @property
    def needs_weights(self) -> bool:
        """Without a model that is named, the teacher's is needed."""
        return self.stands_in is None

    def stands_apart(self, teacher: Any) -> bool:
        """Return whether it is built from the named model although a teacher of this configuration has weights."""
        return False

    def built_from(self, known: Known) -> Any:
        """Return the teacher's configuration; where it has none, or the named model stands apart, that one's."""
        if known.task is not None and known.teacher is not None and self.stands_apart(known.teacher):
            return self.stem(known.task, apart=True)
        return super().built_from(known)

    def lender(self, setting: str, known: Known) -> tuple[Any, list[Fault]]:
        """Return the configuration that lends its shapes, or None, and what is wrong with it under ``setting``."""
        if self.stands_in is None or known.task is None or absent(self.stands_in):
            return known.teacher, []
        try:
            return self.built_from(known), []
        except ModelError as error:
            return None, [Fault(setting, None, str(error).rstrip("."))]

    def stem(self, task: Task, *, apart: bool = False) -> Any:
        """Return the configuration of the model that is named, with the task's head; None where none is.

        ``apart`` notes in it that there is a teacher, whose tokens and whose pretraining are others.
        """
        if self.stands_in is None:
            return None
        config = load_config(self.stands_in)
        family_of(config)
        config = with_head(config, task.head_config())
        if apart:
            config.update(APART)
        return config

    def origin(self, state: State) -> Origin:
        """Return the teacher's model; where there is none, or the one that is named stands apart, that one."""
        apart = state.teacher is not None and self.stands_apart(load_config(state.teacher.folder))
        if self.stands_in is None or (state.teacher is not None and not apart):
            return super().origin(state)
        source, head = self.stands_in, state.data.task.head_config()
        config = load_config(source)
        most = longest_row(config)
        if state.teacher is not None:
            head = head | APART
            most = min(most, load_tokenizer(state.teacher.folder).model_max_length)

        def tokenizer() -> Any:
            loaded = load_tokenizer(source)
            loaded.model_max_length = min(loaded.model_max_length, most)
            return loaded

        key = [content_of(source, config), head, *([most] if apart else [])]
        return Origin(key, tokenizer, lambda material: self.build(load_model(source, head=head), material))


@dataclass(kw_only=True)
class BuiltFromModel(WithStandIn):
    """A student whose stand-in has a setting of its own."""

    model: str | None = None  # folder or hub id that it is built from where the teacher only answers

    remedy: ClassVar[str] = "Name a model in student.model, or choose student=saved with student.model=FOLDER."

    @property
    def stands_in(self) -> str | None:
        """The folder or hub id of the model; None where none is named."""
        return None if self.model is None else where(self.model)

    def faults(self, known: Known = NOTHING) -> Iterator[Fault]:
        """The model is there, is of a known family, and is needed."""
        if self.model is not None:
            if known.teacher is not None:
                rule = "is only for a teacher without weights; this one has the model to build from"
                yield Fault("model", self.model, rule, "Leave it out.")
            elif reason := absent(self.model):
                yield Fault("model", self.model, *reason)
        teacher, faults = self.lender("model", known)
        yield from faults
        if teacher is not None:
            yield from self.against(teacher)
        yield from super().faults(known)

    def against(self, teacher: Any) -> Iterator[Fault]:
        """Yield what does not fit the model that this is built from, given by its configuration."""
        yield from ()

    def made_with(self) -> Any:
        """The content of the model counts, which `origin` has, not where it lies."""
        return {name: value for name, value in super().made_with().items() if name != "model"}
