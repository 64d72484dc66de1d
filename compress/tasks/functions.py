"""Losses on labels and distances between answers as pure functions of tensors.

Means are over what is real: rows that have a label, tokens that are not padding; where nothing is, they are 0.
"""

from __future__ import annotations

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


def token_soft_target_loss(student: Tensor, teacher: Tensor, mask: Tensor, temperature: float) -> Tensor:
    """`soft_target_loss` of each word's own logits (batch, tokens, tags), mean over the words.

    For tagging (Tsai et al., multilingual MiniBERT, arXiv:1909.00100). Mask (batch, tokens), nonzero on the tokens that
    answer for words.
    """
    real, (ours, theirs) = mask.bool(), alike(student, teacher)
    if not real.any():
        return 0 * ours[real].sum()
    return soft_target_loss(ours[real], theirs[real], temperature)
