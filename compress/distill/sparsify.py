"""Zeros that come while a student is trained: the schedule, the scores, and when masks are redrawn."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from compress.models.masking import Masked, Pattern, mask, masks, matrices, own_weight
from compress.settings import plain


class WeightScores(ABC):
    """By what weights are compared while a student is trained."""

    learning_rate: float | None = None
    """Of scores that are parameters, learned with the weights; None where they are computed."""

    @abstractmethod
    def of(self, module: nn.Module, masked: Masked) -> Tensor:
        """Return a score for every weight (outputs, inputs), or for every block of the mask's pattern."""

    def made_with(self) -> Mapping[str, Any]:
        """Return what tells these scores from others."""
        return {"scores": plain(self)}


@dataclass(frozen=True)
class AbsoluteValues(WeightScores):
    """The size of a weight, of a block the sum."""

    def of(self, module: nn.Module, masked: Masked) -> Tensor:
        """Return it."""
        return masked.pattern.gather(own_weight(module).abs())

    def made_with(self) -> Mapping[str, Any]:
        """Return what caches have had since the first version."""
        return {"movement": False, "score_learning_rate": 0.01}


@dataclass(frozen=True, kw_only=True)
class Sparsify:
    """How weights leave during a training; what a stage of pruning asks of distillation.

    The share of zeros goes from 0 at ``begin`` to ``sparsity`` at ``end``, both shares of the training: as
    sparsity · (1 - (1 - t)³) (Zhu & Gupta, arXiv:1710.01878) where it is ``cubic``, else evenly. The lowest scores
    leave.
    """

    sparsity: float
    pattern: str = "none"
    together: bool = False  # compare over the whole model; else the same share of each matrix
    embeddings: bool = False  # word embeddings too
    scores: WeightScores = field(default_factory=AbsoluteValues)
    cubic: bool = True
    begin: float = 0.0
    end: float = 0.7
    every: int = 10  # steps between two looks at the scores

    def made_with(self) -> dict[str, Any]:
        """Return what decides the result, for the fingerprint of a training."""
        own = {name: value for name, value in plain(self).items() if name != "scores"}
        return own | dict(self.scores.made_with())

    def at(self, progress: float) -> float:
        """Return the share of zeros when a share ``progress`` of the training is done."""
        if progress >= self.end:
            return self.sparsity
        if progress <= self.begin:
            return 0.0
        way = (progress - self.begin) / (self.end - self.begin)
        return self.sparsity * (1 - (1 - way) ** 3 if self.cubic else way)


class Masks(nn.Module):
    """The masks of a student in training. Its own state is the count of steps, which checkpoints hold.

    Absolute values are asked no more once all zeros are there (Zhu & Gupta); learned scores until the last step.
    """

    steps: Tensor
    sparsity: Tensor

    def __init__(self, student: PreTrainedModel, settings: Sparsify) -> None:
        super().__init__()
        self.settings, self.pattern = settings, Pattern.parse(settings.pattern)
        modules = matrices(student, embeddings=settings.embeddings).values()
        # in a tuple: they are the student's, and no part of this module
        learned = settings.scores.learning_rate is not None
        self.masked = tuple((module, mask(module, self.pattern, learned=learned)) for module in modules)
        self.register_buffer("steps", torch.zeros((), dtype=torch.long))
        self.register_buffer("sparsity", torch.zeros((), dtype=torch.float64))

    @property
    def scores(self) -> list[Tensor]:
        """The scores that are learned; empty where there are none."""
        return [masked.scores for _, masked in self.masked if masked.scores is not None]

    def step(self, progress: float) -> None:
        """Redraw the masks where it is time to."""
        wanted, had = self.settings.at(progress), float(self.sparsity)
        due = int(self.steps) % self.settings.every == 0 or had < wanted == self.settings.sparsity
        self.steps += 1
        if due and wanted > 0 and (self.scores or had < self.settings.sparsity):
            self._draw(wanted)

    def finish(self) -> None:
        """See that all zeros are there that were asked for."""
        if float(self.sparsity) < self.settings.sparsity:
            self._draw(self.settings.sparsity)

    @torch.no_grad()
    def _draw(self, sparsity: float) -> None:
        scores = [self.settings.scores.of(module, masked) for module, masked in self.masked]
        kept = masks(scores, sparsity, self.pattern, together=self.settings.together)
        for (_, masked), stays in zip(self.masked, kept, strict=True):
            masked.mask.copy_(self.pattern.spread(stays))
        self.sparsity.fill_(sparsity)
