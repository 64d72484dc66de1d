"""What a run will do, as far as that is known before it does anything: stages add to a plan, as they do to a state."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from compress.data.dataset import Dataset, Split
from compress.models.tokens import Tokens, tokenize
from compress.tasks.base import Array

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from compress.train import Objective, Training


@dataclass(frozen=True, kw_only=True)
class Rehearsal:
    """What is needed to try a training on a few batches."""

    objective: Callable[[PreTrainedModel, PreTrainedModel | None, Tokens], Objective]
    """Returns it for a model of the learner's configuration, one of the teacher's, which runs on every batch, and the
    rows as the teacher's tokens."""
    wanted: Mapping[Any, tuple[int, ...]] | None = None  # quantities to keep of the teacher, beside its logits
    keeps: Callable[[float], bool] = lambda gib: False  # whether outputs of this size are computed once and kept


@dataclass(frozen=True, kw_only=True)
class PlannedTraining:
    """One training: `compress.train.fit` with these rows."""

    title: str  # as its progress bar has it
    tokens: Tokens  # the rows that are there now
    count: int  # what an epoch draws: rows, windows or groups, those that augmentations will add included
    settings: Training
    steps: int
    at_most: bool = False  # it may end sooner, or have fewer rows
    learner: Any = None  # configuration of the model that learns
    teacher: Any = None  # configuration of the model that it learns from; None: from labels, or from known answers
    teacher_tokens: Tokens | None = None
    rehearsal: Rehearsal | None = None  # None: what it costs is not known


@dataclass(frozen=True, kw_only=True)
class PlannedRows:
    """Rows that an augmentation makes."""

    copies: int
    at_most: int
    of: int  # training rows


@dataclass(frozen=True, kw_only=True)
class PlannedWork:
    """What a stage does."""

    stage: str  # its name in the recipe
    training: PlannedTraining | None = None
    added: PlannedRows | None = None


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What is known of a run that has not begun."""

    data: Dataset
    seed: int
    tokenizer: Any  # of the student; before there is one, of the teacher
    teacher_tokenizer: Any
    max_tokens: int  # at which rows are cut
    teacher: Any = None  # configuration; None: it only answers
    pretrained: str | None = None  # what the teacher is fine-tuned from, where it is
    student: Any = None  # configuration, as it is before any pruning
    recovery: Any = None  # the distillation, which trains again what was pruned
    added: int = 0  # rows that augmentations add, at most
    steps: tuple[PlannedWork, ...] = ()
    stage: str = ""  # the one that is planned now
    known: dict[Any, Tokens] = field(default_factory=dict, compare=False, repr=False)

    def tokens(self, rows: Split, tokenizer: Any = None, max_tokens: int | None = None) -> Tokens:
        """Return rows as tokens; the student's, unless another tokenizer is given."""
        tokenizer, most = tokenizer or self.tokenizer, max_tokens or self.max_tokens
        key = rows.fingerprint, id(tokenizer), most
        if key not in self.known:
            self.known[key] = tokenize(rows, tokenizer, most)
        return self.known[key]

    def bounded(self, since: Plan) -> Plan:
        """Return the plan in which the trainings that came after ``since`` may not all take place, or end sooner."""
        new = [
            replace(step, training=None if step.training is None else replace(step.training, at_most=True))
            for step in self.steps[len(since.steps) :]
        ]
        return replace(self, steps=(*since.steps, *new))

    def having(self, **what: Any) -> Plan:
        """Return the plan with one more step of the stage that is planned now."""
        return replace(self, steps=(*self.steps, PlannedWork(stage=self.stage, **what)))


def drawn(tokens: Tokens) -> int:
    """Return how much an epoch draws from rows: groups where rows belong together, else rows, or their windows."""
    return len(tokens) if tokens.groups is None else len(tokens.whole)


def lengths(tokens: Tokens) -> Array:
    """Return the tokens of each of what is drawn; of a group those of its longest row."""
    return tokens.lengths if tokens.groups is None else tokens.whole.lengths
