"""The losses as pure functions of tensors and masks.

Means are over what is real: rows that have a label, positions that are not padding.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional


def hard_label_loss(student: Tensor, labels: Tensor) -> Tensor:
    """Cross-entropy in nats for whole-number labels, squared error for real ones; mean over labelled rows.

    Logits (batch, outputs), labels (batch,). Rows labelled -100 or NaN are left out; none left gives 0.
    """
    if labels.is_floating_point():
        known = ~labels.isnan()
        errors = (student[known, 0] - labels[known].to(student.dtype)) ** 2
    else:
        known = labels != -100
        errors = functional.cross_entropy(student[known], labels[known], reduction="none")
    return errors.sum() / known.sum().clamp(min=1)


def soft_target_loss(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """KL(teacher || student) in nats, batch mean. Logits: (batch, classes).

    Times temperature², keeping gradient size (Hinton et al., arXiv:1503.02531).
    """
    log_q, log_p = (functional.log_softmax(x / temperature, dim=-1) for x in (student, teacher))
    return temperature**2 * functional.kl_div(log_q, log_p, log_target=True, reduction="batchmean")


def logits_mse_loss(student: Tensor, teacher: Tensor) -> Tensor:
    """Squared error of the logits (batch, outputs), mean over both (Ba & Caruana, arXiv:1312.6184)."""
    return functional.mse_loss(student, teacher)


def hidden_state_loss(student: Tensor, teacher: Tensor, mask: Tensor) -> Tensor:
    """Squared error of hidden states (batch, tokens, hidden), mean over real positions and units.

    Mask (batch, tokens), nonzero on real tokens. One layer's L_hidn or L_embd of TinyBERT (arXiv:1909.10351).
    """
    real = mask.bool()
    return ((student[real] - teacher[real]) ** 2).mean()


def attention_loss(student: Tensor, teacher: Tensor, mask: Tensor) -> Tensor:
    """Squared error of attention matrices (batch, heads, tokens, tokens), mean over heads and real pairs.

    Given scores before the softmax it is one layer's L_attn of TinyBERT (arXiv:1909.10351, eq. 7); given
    probabilities it compares what each head looks at. A pair counts where both positions are real.
    """
    real = mask.bool()
    pairs = real[:, None, :, None] & real[:, None, None, :]
    errors = torch.where(pairs, student, 0.0) - torch.where(pairs, teacher, 0.0)
    return (errors**2).sum() / (pairs.sum() * student.shape[1]).clamp(min=1)


def cosine_loss(student: Tensor, teacher: Tensor, mask: Tensor) -> Tensor:
    """One minus the cosine of hidden states (batch, tokens, hidden), mean over real positions.

    DistilBERT's alignment of directions (Sanh et al., arXiv:1910.01108).
    """
    real = mask.bool()
    return 1 - functional.cosine_similarity(student[real], teacher[real], dim=-1).mean()
