"""The losses as settings: what a recipe names, weighs and schedules."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from compress.distill.losses.functions import (
    attention_loss,
    cosine_loss,
    hard_label_loss,
    hidden_state_loss,
    logits_mse_loss,
    soft_target_loss,
)
from compress.distill.schedules import Schedule, schedule_faults, value_at
from compress.errors import Fault
from compress.models.outputs import Outputs
from compress.settings import Settings, at_least, between, positive


@dataclass(frozen=True)
class Comparison:
    """One batch as a loss sees it.

    ``layers`` pairs (student layer, teacher layer). The student's states are projected to the teacher's
    width where that differs. The teacher's states are by its own layers; its scores are by the student's
    layers, and only of the heads that the student keeps.
    """

    student: Outputs
    teacher: Outputs
    labels: Tensor | None
    layers: tuple[tuple[int, int], ...]
    progress: float  # share of training done, 0 to 1


@dataclass(kw_only=True)
class Loss(Settings):
    """A named term of the distillation loss."""

    weight: float = 1.0  # its factor in the sum
    weight_end: float | None = None  # the factor at the end of training, with a schedule
    weight_schedule: Schedule = Schedule.constant  # constant, linear or step
    step_at: float = 0.5  # share of training after which a step schedule jumps

    needs_hidden: ClassVar[bool] = False
    needs_embeddings: ClassVar[bool] = False
    needs_scores: ClassVar[bool] = False
    needs_classes: ClassVar[bool] = False
    needs_teacher: ClassVar[bool] = True

    def faults(self) -> Iterator[Fault]:
        """Weights are finite and not negative, schedules complete."""
        yield from at_least(self, "weight", 0)
        yield from at_least(self, "weight_end", 0)
        yield from between(self, "step_at", 0, 1)
        yield from schedule_faults("weight", self.weight_schedule, self.weight_end)

    def weight_at(self, progress: float) -> float:
        """Return the factor when a share ``progress`` of training is done."""
        return value_at(progress, self.weight_schedule, self.weight, self.weight_end, self.step_at)

    def __call__(self, seen: Comparison) -> Tensor:
        """Return the unweighted loss of one batch."""
        raise NotImplementedError(type(self).__name__)


@dataclass(kw_only=True)
class HardLabels(Loss):
    """Labels: cross-entropy, or squared error for scores."""

    needs_teacher = False

    def __call__(self, seen: Comparison) -> Tensor:
        """Return `hard_label_loss`; 0 on rows without labels."""
        if seen.labels is None:
            return seen.student.logits.sum() * 0
        return hard_label_loss(seen.student.logits, seen.labels)


@dataclass(kw_only=True)
class SoftTargets(Loss):
    """The teacher's softened probabilities (Hinton et al., arXiv:1503.02531)."""

    temperature: float = 2.0  # T, dividing both sides' logits
    temperature_end: float | None = None  # T at the end of training, with a schedule
    temperature_schedule: Schedule = Schedule.constant  # constant, linear or step

    needs_classes = True

    def faults(self) -> Iterator[Fault]:
        """Temperatures are above zero."""
        yield from super().faults()
        yield from positive(self, "temperature")
        yield from positive(self, "temperature_end")
        yield from schedule_faults("temperature", self.temperature_schedule, self.temperature_end)

    def __call__(self, seen: Comparison) -> Tensor:
        """Return `soft_target_loss` at the scheduled temperature."""
        temperature = value_at(
            seen.progress, self.temperature_schedule, self.temperature, self.temperature_end, self.step_at
        )
        return soft_target_loss(seen.student.logits, seen.teacher.logits, temperature)


@dataclass(kw_only=True)
class LogitsMSE(Loss):
    """Squared error of the logits (Ba & Caruana, arXiv:1312.6184)."""

    def __call__(self, seen: Comparison) -> Tensor:
        """Return `logits_mse_loss`."""
        return logits_mse_loss(seen.student.logits, seen.teacher.logits)


@dataclass(kw_only=True)
class HiddenStates(Loss):
    """Squared error of mapped layers' hidden states, summed over layers (TinyBERT, arXiv:1909.10351)."""

    needs_hidden = True

    def __call__(self, seen: Comparison) -> Tensor:
        """Return the sum of `hidden_state_loss` over the mapped layers."""
        return _sum(
            hidden_state_loss(seen.student.hidden[s], seen.teacher.hidden[t], seen.student.mask) for s, t in seen.layers
        )


@dataclass(kw_only=True)
class Embeddings(Loss):
    """Squared error of the embedding layer's output (TinyBERT, arXiv:1909.10351)."""

    needs_embeddings = True

    def __call__(self, seen: Comparison) -> Tensor:
        """Return `hidden_state_loss` of layer 0."""
        return hidden_state_loss(seen.student.hidden[0], seen.teacher.hidden[0], seen.student.mask)


@dataclass(kw_only=True)
class Cosine(Loss):
    """Direction of mapped layers' hidden states, mean over layers (DistilBERT, arXiv:1910.01108)."""

    needs_hidden = True

    def __call__(self, seen: Comparison) -> Tensor:
        """Return the mean of `cosine_loss` over the mapped layers."""
        return _sum(
            cosine_loss(seen.student.hidden[s], seen.teacher.hidden[t], seen.student.mask) for s, t in seen.layers
        ) / len(seen.layers)


@dataclass(kw_only=True)
class AttentionScores(Loss):
    """Squared error of attention scores before the softmax, summed over layers (TinyBERT, arXiv:1909.10351)."""

    needs_scores = True

    def __call__(self, seen: Comparison) -> Tensor:
        """Return the sum of `attention_loss` over the mapped layers."""
        return _sum(
            attention_loss(seen.student.scores[s], seen.teacher.scores[s], seen.student.mask) for s, _ in seen.layers
        )


@dataclass(kw_only=True)
class AttentionProbabilities(Loss):
    """Squared error of attention probabilities, summed over layers."""

    needs_scores = True

    def __call__(self, seen: Comparison) -> Tensor:
        """Return the sum of `attention_loss` on softmaxed scores over the mapped layers."""
        return _sum(
            attention_loss(
                _probabilities(seen.student.scores[s], seen.student.mask),
                _probabilities(seen.teacher.scores[s], seen.student.mask),
                seen.student.mask,
            )
            for s, _ in seen.layers
        )


def _probabilities(scores: Tensor, mask: Tensor) -> Tensor:
    """Softmax of (batch, heads, tokens, tokens) over real keys."""
    return scores.masked_fill(~mask.bool()[:, None, None, :], torch.finfo(scores.dtype).min).softmax(-1)


def _sum(terms: Iterator[Tensor]) -> Tensor:
    return torch.stack(list(terms)).sum()


LOSSES: Mapping[str, type[Loss]] = {
    "hard": HardLabels,
    "soft": SoftTargets,
    "mse": LogitsMSE,
    "hidden": HiddenStates,
    "embeddings": Embeddings,
    "cosine": Cosine,
    "attention": AttentionScores,
    "attention_probabilities": AttentionProbabilities,
}
"""The losses by the names that recipes use."""
