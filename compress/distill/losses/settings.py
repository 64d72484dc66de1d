"""The losses as settings: what a recipe names, weighs and schedules."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import ClassVar

import torch
from torch import Tensor

from compress.distill.losses.functions import (
    attention_loss,
    cosine_loss,
    hard_label_loss,
    hidden_state_loss,
    logits_mse_loss,
    minilm_attention_loss,
    patient_loss,
    relation_loss,
    soft_target_loss,
)
from compress.distill.schedules import Schedule, schedule_faults, value_at
from compress.errors import Fault
from compress.models.outputs import Outputs
from compress.settings import Settings, at_least, between, positive

Pairs = tuple[tuple[int, int], ...]  # (student layer, teacher layer), counted from 1


@dataclass(frozen=True)
class Comparison:
    """One batch as a loss sees it.

    ``layers`` pairs mapped layers, ``last`` the last of both. The student's states are projected to the
    teacher's width where that differs. ``heads`` says, by pair, which of the teacher's heads the student keeps.
    """

    student: Outputs
    teacher: Outputs
    labels: Tensor | None
    layers: Pairs
    progress: float  # share of training done, 0 to 1
    last: tuple[int, int] = (0, 0)
    teacher_heads: int = 1  # a layer, before any pruning
    heads: Mapping[tuple[int, int], list[int]] = field(default_factory=dict)

    def scores(self, student: int, teacher: int) -> tuple[Tensor, Tensor]:
        """Return attention scores (batch, heads, tokens, tokens) of both, of the heads that the student keeps."""
        kept = self.heads.get((student, teacher))
        known = self.teacher.scores[teacher]
        return self.student.scores[student], known if kept is None else known[:, kept]

    def probabilities(self, student: int, teacher: int) -> tuple[Tensor, Tensor]:
        """Return the softmax of `scores` over real keys."""
        ours, theirs = self.scores(student, teacher)
        hidden = ~self.student.mask.bool()[:, None, None, :]
        lowest = torch.finfo(ours.dtype).min
        return ours.masked_fill(hidden, lowest).softmax(-1), theirs.masked_fill(hidden, lowest).softmax(-1)


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
    needs_relations: ClassVar[bool] = False
    needs_classes: ClassVar[bool] = False
    needs_teacher: ClassVar[bool] = True

    def faults(self) -> Iterator[Fault]:
        """Weights are finite and not negative, schedules complete."""
        yield from at_least(self, "weight", 0)
        yield from at_least(self, "weight_end", 0)
        yield from between(self, "step_at", 0, 1)
        yield from schedule_faults("weight", self.weight_schedule, self.weight_end)

    @property
    def compares_layers(self) -> bool:
        """Whether it looks inside both models."""
        return self.needs_hidden or self.needs_embeddings or self.needs_scores or self.needs_relations

    def pairs(self, layers: Pairs, last: tuple[int, int]) -> Pairs:
        """Return which layers this loss compares, of those that are mapped and the last of both."""
        return layers

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
        return _sum(attention_loss(*seen.scores(*pair), seen.student.mask) for pair in seen.layers)


@dataclass(kw_only=True)
class AttentionProbabilities(Loss):
    """Squared error of attention probabilities, summed over layers."""

    needs_scores = True

    def __call__(self, seen: Comparison) -> Tensor:
        """Return the sum of `attention_loss` on softmaxed scores over the mapped layers."""
        return _sum(attention_loss(*seen.probabilities(*pair), seen.student.mask) for pair in seen.layers)


@dataclass(kw_only=True)
class AttentionTransfer(Loss):
    """KL of attention distributions, summed over mapped layers (MobileBERT, arXiv:2004.02984, eq. 3)."""

    needs_scores = True

    def __call__(self, seen: Comparison) -> Tensor:
        """Return the sum of `minilm_attention_loss` over the mapped layers."""
        return _sum(minilm_attention_loss(*seen.probabilities(*pair), seen.student.mask) for pair in seen.layers)


@dataclass(kw_only=True)
class Patient(Loss):
    """[CLS] states of mapped layers but the student's last, normalised (BERT-PKD, arXiv:1908.09355)."""

    needs_hidden = True

    def pairs(self, layers: Pairs, last: tuple[int, int]) -> Pairs:
        """Leave out the student's last layer, which the logits speak for."""
        return tuple(pair for pair in layers if pair[0] != last[0])

    def __call__(self, seen: Comparison) -> Tensor:
        """Return `patient_loss`."""
        pairs = self.pairs(seen.layers, seen.last)
        ours = torch.stack([seen.student.hidden[s][:, 0] for s, _ in pairs])
        return patient_loss(ours, torch.stack([seen.teacher.hidden[t][:, 0] for _, t in pairs]))


@dataclass(kw_only=True)
class MiniLM(Loss):
    """Attention distributions and value relations of the last layer (MiniLM, arXiv:2002.10957)."""

    needs_scores = True
    needs_relations = True

    def pairs(self, layers: Pairs, last: tuple[int, int]) -> Pairs:
        """Compare the last layers."""
        return (last,)

    def __call__(self, seen: Comparison) -> Tensor:
        """Return L_AT + L_VR, one relation head an attention head."""
        student, teacher = seen.last
        ours, theirs = seen.probabilities(student, teacher)
        heads = ours.shape[1]
        values = seen.teacher.values[teacher]
        kept = seen.heads.get(seen.last)
        if kept is not None:
            split = values.unflatten(-1, (seen.teacher.scores[teacher].shape[1], -1))
            values = split[:, :, kept].flatten(2)
        mask = seen.student.mask
        return minilm_attention_loss(ours, theirs, mask) + relation_loss(
            seen.student.values[student], values, heads, mask
        )


@dataclass(kw_only=True)
class Relations(Loss):
    """Query-query, key-key and value-value relations of one layer (MiniLMv2, arXiv:2012.15828)."""

    teacher_layer: int | None = None  # compared with the student's last; default: the last
    relation_heads: int | None = None  # at most so many as cut both widths evenly; default: the teacher's heads

    needs_relations = True

    def faults(self) -> Iterator[Fault]:
        """Counts are counts."""
        yield from super().faults()
        yield from at_least(self, "teacher_layer", 1)
        yield from at_least(self, "relation_heads", 1)

    def pairs(self, layers: Pairs, last: tuple[int, int]) -> Pairs:
        """Compare the student's last layer with the chosen one."""
        return ((last[0], self.teacher_layer or last[1]),)

    def __call__(self, seen: Comparison) -> Tensor:
        """Return the sum of the three relations' losses, each with factor 1 (eq. 2 of the paper)."""
        ((student, teacher),) = self.pairs(seen.layers, seen.last)
        outputs = ((seen.student.queries, seen.teacher.queries), (seen.student.keys, seen.teacher.keys),
                   (seen.student.values, seen.teacher.values))  # fmt: skip
        widths = [side[layer].shape[-1] for side, layer in zip(outputs[0], (student, teacher), strict=True)]
        common = math.gcd(*widths)
        most = self.relation_heads or seen.teacher_heads
        heads = max(number for number in range(1, min(most, common) + 1) if common % number == 0)
        mask = seen.student.mask
        return _sum(relation_loss(ours[student], theirs[teacher], heads, mask) for ours, theirs in outputs)


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
    "attention_transfer": AttentionTransfer,
    "patient": Patient,
    "minilm": MiniLM,
    "relations": Relations,
}
"""The losses by the names that recipes use."""
