"""What every teacher is: something that answers, and perhaps weights."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from compress.data.dataset import Dataset
from compress.pipeline.record import Role
from compress.pipeline.stage import Stage
from compress.pipeline.state import State
from compress.teachers.examination import Subject


@dataclass(frozen=True, kw_only=True)
class Weights:
    """What a teacher is: a model whose layers are compared, which a student can start from, and which is timed."""

    source: str  # the folder or hub id that it is loaded from
    config: Any  # of several models the chosen one's
    must_train: bool  # it is fine-tuned in this run
    tokenizer: Any
    longest: int  # tokens of the longest row that it takes
    max_tokens: int  # at which its rows are cut
    max_unknown: float  # largest share of tokens that its tokenizer may not know


@dataclass(frozen=True, kw_only=True)
class Inspection:
    """What is known of a teacher before any work."""

    data: Dataset  # its labels numbered as the teacher numbers them
    lines: tuple[str, ...]  # what answers and what is done with it, for the user; a line for each model
    weights: Weights | None = None  # None: it only answers


@dataclass(kw_only=True)
class BaseTeacher(Stage):
    """Answers the data's question for every row.

    Called with a state it returns one with its answers, and with its weights where it has any: `State.answers`,
    `State.teacher`.
    """

    role: ClassVar[Role] = Role.teacher

    def inspect(self, data: Dataset) -> Inspection:
        """Return what is known of it and how it numbers the labels; raises ModelError where it cannot be used."""
        raise NotImplementedError(type(self).__name__)

    def class_names(self) -> Sequence[str]:
        """Return the classes that it knows before any row is read, as it calls them; none where rows must say it."""
        return ()

    def fields(self, state: State) -> Mapping[str, Mapping[str, Any]] | None:
        """Return what a file of answers is to hold of each row, by its id; None: its logits.

        ``state`` is the one that it returned.
        """
        return None

    def subjects(self, data: Dataset) -> Iterator[Subject]:
        """Yield its models as they will be used, in the order of the lines, to be tried on rows before any work."""
        yield from ()

    def is_the_model(self, name: str) -> bool:
        """Return whether it is the one model of that folder or hub id."""
        return False
