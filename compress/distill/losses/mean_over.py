"""What a loss is a mean over: by that the means over the parts of a batch make up the mean over the whole."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import assert_never

import torch
from torch import Tensor

from compress.tasks.base import Task


class MeanOver(Enum):
    """rows; answers: of rows or, where tokens answer, of tokens; labels; tokens and pairs of them; pairs of rows."""

    rows = "rows"
    soft_answers = "answers that Task.distance compares"
    answers = "answers"
    labels = "labels"
    tokens = "tokens"
    token_pairs = "pairs of tokens of a row"
    margins = "pairs of rows of a group"
    differing_margins = "pairs of rows of a group with different labels"


@dataclass(frozen=True)
class Given:
    """What is known of a batch before a model reads it."""

    mask: Tensor  # (batch, tokens), 1 on real tokens
    answering: Tensor | None  # as in `Outputs`
    labels: Tensor | None
    weights: Tensor | None  # the teacher's, as in `Outputs`
    task: Task

    def count(self, over: MeanOver) -> int:
        """Return how many there are of what a loss is a mean over."""
        match over:
            case MeanOver.rows:
                return len(self.mask)
            case MeanOver.soft_answers | MeanOver.answers if self.weights is not None:  # see `Comparison.mean`
                return int((self.weights > 0).sum())
            case MeanOver.soft_answers:
                return self.task.answers_in(self.mask if self.answering is None else self.answering)
            case MeanOver.answers:
                return len(self.mask) if self.answering is None else int(self.answering.bool().sum())
            case MeanOver.labels:
                return 0 if self.labels is None else self.task.labels_in(self.labels)
            case MeanOver.tokens:
                return int(self.mask.bool().sum())
            case MeanOver.token_pairs:
                return int((self.mask.bool().sum(-1) ** 2).sum())
            case MeanOver.margins | MeanOver.differing_margins:
                return self._margins(differing=over is MeanOver.differing_margins)
        assert_never(over)

    def _margins(self, *, differing: bool) -> int:
        if self.labels is None:
            return 0
        level = torch.zeros(len(self.mask), self.task.outputs, device=self.mask.device)
        return len(self.task.margins(level, self.labels, differing=differing))


def comparing_rows(name: str) -> str:
    """Return why a batch cannot be divided with a loss of that name, as a clause."""
    return f"loss {name} compares all rows of a batch"
