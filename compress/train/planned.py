"""Trainings in a plan: the same rows and steps as `compress.train.engine.fit` has."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from compress.models.tokens import Tokens
from compress.pipeline.plan import Plan, PlannedTraining, Rehearsal, drawn
from compress.train.settings import Training

if TYPE_CHECKING:
    from compress.data.dataset import Split


def planned(
    plan: Plan,
    title: str,
    rows: Split,
    settings: Training,
    *,
    learner: Any,
    teacher: Any = None,
    rehearsal: Rehearsal | None = None,
    tokens: Tokens | None = None,
    more: int = 0,
    others: int = 0,
    least_steps: int = 0,
) -> Plan:
    """Return the plan with one more training, of a model of the configuration ``learner``.

    ``tokens`` are the rows where they are not simply the student's; ``more`` is what augmentations will have added to
    them, at most, and ``others`` what is drawn beside them.
    """
    own = plan.tokens(rows) if tokens is None else tokens
    count = drawn(own) + more + others
    training = PlannedTraining(
        title=title, tokens=own, count=count, settings=settings,
        steps=settings.steps(count, least_steps), at_most=more > 0 or settings.early_stopping > 0,
        learner=learner, teacher=teacher, rehearsal=rehearsal,
        teacher_tokens=None if teacher is None else plan.tokens(rows, plan.teacher_tokenizer),
    )  # fmt: skip
    return plan.having(training=training)
