"""Losses on labels and distances between answers as pure functions of tensors.

Means are over what is real: rows that have a label, tokens that are not padding; where nothing is, they are 0.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from compress.tensors import alike

UNLABELLED = -100


def hard_label_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """Cross-entropy in nats, mean over labelled rows. Logits (batch, classes), labels (batch,), -100 for none."""
    known = labels != UNLABELLED
    errors = functional.cross_entropy(logits[known], labels[known], reduction="none")
    return errors.sum() / known.sum().clamp(min=1)


def soft_target_loss(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """KL(teacher || student) in nats, batch mean. Logits: (batch, classes).

    Times temperature², keeping gradient size (Hinton et al., arXiv:1503.02531).
    """
    log_q, log_p = (functional.log_softmax(x / temperature, dim=-1) for x in alike(student, teacher))
    return temperature**2 * functional.kl_div(log_q, log_p, log_target=True, reduction="batchmean")


def mean_of_softened(shares: Tensor, logits: Tensor, temperature: float) -> Tensor:
    """Return logits (batch, classes) whose softmax at a temperature is the mean of several models' own at it.

    (Hinton et al., arXiv:1503.02531, section 5.2.) Logits are those of the models (batch, models, classes), ``shares``
    the logarithms of what each counts in the mean, in the same shape.
    """
    return temperature * torch.logsumexp(shares + (logits / temperature).log_softmax(-1), dim=1)


def mean_of_softened_labels(shares: Tensor, logits: Tensor, temperature: float) -> Tensor:
    """Return `mean_of_softened` of each label's own two outcomes: sigmoids at a temperature, and means of sigmoids."""
    there, absent = (functional.logsigmoid(sign * logits / temperature) for sign in (1, -1))
    return temperature * (torch.logsumexp(shares + there, dim=1) - torch.logsumexp(shares + absent, dim=1))


def token_soft_target_loss(student: Tensor, teacher: Tensor, mask: Tensor, temperature: float) -> Tensor:
    """`soft_target_loss` of each word's own logits (batch, tokens, tags), mean over the words.

    For tagging (Tsai et al., multilingual MiniBERT, arXiv:1909.00100). Mask (batch, tokens), nonzero on the tokens that
    answer for words.
    """
    real, (ours, theirs) = mask.bool(), alike(student, teacher)
    if not real.any():
        return 0 * ours[real].sum()
    return soft_target_loss(ours[real], theirs[real], temperature)


def span_loss(logits: Tensor, marks: Tensor) -> Tensor:
    """Cross-entropy in nats of the start and of the end of each row (batch,), mean of both.

    Logits (batch, tokens, 2), of starts and of ends; the distribution is over the tokens whose answers are read.
    ``marks`` (batch, tokens) are 1 on the one token in which the answer starts, 2 where it ends, 3 on both, 0 on other
    tokens that are read, and -100 on the rest. All rows have an answer.
    """
    read = (marks != UNLABELLED)[:, :, None]
    sides = torch.stack([(marks > 0) & (marks & bit > 0) for bit in (1, 2)], dim=-1)
    logs = functional.log_softmax(logits.masked_fill(~read, torch.finfo(logits.dtype).min), dim=1)
    return -(logs * sides).sum((1, 2)) / 2


def span_soft_target_loss(student: Tensor, teacher: Tensor, mask: Tensor, temperature: float) -> Tensor:
    """KL(teacher || student) in nats between distributions over positions, mean of starts and ends and over rows.

    Logits (batch, tokens, 2); mask (batch, tokens), nonzero on the tokens that are read: those of the context, and the
    one that stands for no answer. Times temperature², as `soft_target_loss`, which it is for two labels of as many
    classes as there are positions (DistilBERT's second distillation on SQuAD, arXiv:1910.01108).
    """
    left_out = ~mask.bool()[:, :, None]
    ours, theirs = (
        side.masked_fill(left_out, torch.finfo(side.dtype).min) / temperature for side in alike(student, teacher)
    )
    log_q, log_p = (functional.log_softmax(side, dim=1) for side in (ours, theirs))
    apart = (log_p.exp() * (log_p - log_q)).masked_fill(left_out, 0)
    rows = mask.bool().any(-1).sum().clamp(min=1)
    return temperature**2 * apart.sum() / (2 * rows)


def label_loss(logits: Tensor, labels: Tensor, positive_weights: Tensor | None = None) -> Tensor:
    """Binary cross-entropy in nats of each row (batch,), mean over its labels that are known.

    Logits and labels (batch, labels); a label is 1, 0, or NaN where it is not known, and a row has one that is.
    ``positive_weights`` (labels,) multiply the loss where the label is 1.
    """
    known = ~labels.isnan()
    errors = functional.binary_cross_entropy_with_logits(
        logits, labels.nan_to_num().to(logits.dtype), reduction="none", pos_weight=positive_weights
    )
    return (errors * known).sum(-1) / known.sum(-1)


def label_soft_target_loss(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """KL(teacher || student) in nats of each label's own two outcomes, mean over rows and labels.

    Logits (batch, labels), one for each label, softened by the sigmoid: p log(p/q) + (1 - p) log((1 - p)/(1 - q)).
    Times temperature², as `soft_target_loss`. It is that loss for labels that do not exclude each other, each a
    distribution of its own.
    """
    ours, theirs = (x / temperature for x in alike(student, teacher))
    log_q, log_p = (torch.stack([functional.logsigmoid(x), functional.logsigmoid(-x)]) for x in (ours, theirs))
    return temperature**2 * (log_p.exp() * (log_p - log_q)).sum(0).mean()


def pairs_within(groups: Tensor) -> tuple[Tensor, Tensor]:
    """Return the rows of all pairs of the same group, each (pairs,), the first row before the second.

    ``groups`` (batch,) are numbers; NaN stands for a row that has no group.
    """
    rows = torch.arange(len(groups), device=groups.device)
    first, second = torch.where((groups[:, None] == groups[None, :]) & (rows[:, None] < rows[None, :]))
    return first, second
