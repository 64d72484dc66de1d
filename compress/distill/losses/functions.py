"""The losses as pure functions of tensors and masks.

Means are over what is real: rows that have a label, positions that are not padding; where nothing is, they are 0.
Half precision is widened to fp32, in which sums do not overflow. Those that compare two tensors element by element
raise ValueError where their shapes differ: broadcasting would give a number that means nothing.
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
    log_q, log_p = (functional.log_softmax(x / temperature, dim=-1) for x in _alike(student, teacher))
    return temperature**2 * functional.kl_div(log_q, log_p, log_target=True, reduction="batchmean")


def logits_mse_loss(student: Tensor, teacher: Tensor) -> Tensor:
    """Squared error of the logits (batch, outputs), mean over both (Ba & Caruana, arXiv:1312.6184)."""
    return functional.mse_loss(*_alike(student, teacher))


def hidden_state_loss(student: Tensor, teacher: Tensor, mask: Tensor) -> Tensor:
    """Squared error of hidden states (batch, tokens, hidden), mean over real positions and units.

    Mask (batch, tokens), nonzero on real tokens. One layer's L_hidn or L_embd of TinyBERT (arXiv:1909.10351).
    """
    real, (ours, theirs) = mask.bool(), _alike(student, teacher)
    errors = (ours[real] - theirs[real]) ** 2
    return errors.sum() / max(errors.numel(), 1)


def attention_loss(student: Tensor, teacher: Tensor, mask: Tensor) -> Tensor:
    """Squared error of attention matrices (batch, heads, tokens, tokens), mean over heads and real pairs.

    Given scores before the softmax it is one layer's L_attn of TinyBERT (arXiv:1909.10351, eq. 7); given
    probabilities it compares what each head looks at. A pair counts where both positions are real.
    """
    pairs, (ours, theirs) = _pairs(mask), _alike(student, teacher)
    errors = torch.where(pairs, ours, 0.0) - torch.where(pairs, theirs, 0.0)
    return (errors**2).sum() / (pairs.sum() * student.shape[1]).clamp(min=1)


def cosine_loss(student: Tensor, teacher: Tensor, mask: Tensor) -> Tensor:
    """One minus the cosine of hidden states (batch, tokens, hidden), mean over real positions.

    DistilBERT's alignment of directions (Sanh et al., arXiv:1910.01108).
    """
    real, (ours, theirs) = mask.bool(), _alike(student, teacher)
    apart = 1 - functional.cosine_similarity(ours[real], theirs[real], dim=-1)
    return apart.sum() / max(apart.numel(), 1)


def token_soft_target_loss(student: Tensor, teacher: Tensor, mask: Tensor, temperature: float) -> Tensor:
    """`soft_target_loss` of each real token's own logits (batch, tokens, tags), mean over real tokens.

    For tagging (Tsai et al., multilingual MiniBERT, arXiv:1909.00100). Mask (batch, tokens), nonzero on real tokens.
    """
    real, (ours, theirs) = mask.bool(), _alike(student, teacher)
    if not real.any():
        return 0 * ours[real].sum()
    return soft_target_loss(ours[real], theirs[real], temperature)


def patient_loss(student: Tensor, teacher: Tensor) -> Tensor:
    """Squared error of normalised [CLS] states (layers, batch, hidden), mean over all three.

    Each state is divided by its l2 norm: L_PT of BERT-PKD (Sun et al., arXiv:1908.09355, eq. 7).
    """
    ours, theirs = _alike(student, teacher)
    return functional.mse_loss(functional.normalize(ours, dim=-1), functional.normalize(theirs, dim=-1))


def minilm_attention_loss(student: Tensor, teacher: Tensor, mask: Tensor) -> Tensor:
    """KL(teacher || student) in nats of attention distributions, mean over heads and real queries.

    Probabilities (batch, heads, tokens, tokens), zero on padded keys; mask (batch, tokens). L_AT of MiniLM
    (Wang et al., arXiv:2002.10957, eq. 5), and the attention transfer of MobileBERT (arXiv:2004.02984, eq. 3).
    """
    pairs, (ours, theirs) = _pairs(mask), _alike(student, teacher)
    smallest = torch.finfo(ours.dtype).tiny
    q, p = (torch.where(pairs, one, 1.0).clamp(min=smallest) for one in (ours, theirs))
    terms = p * (p.log() - q.log())
    counted = torch.where(pairs & (theirs > 0), terms, 0.0)
    return counted.sum() / (mask.bool().sum() * ours.shape[1]).clamp(min=1)


def relation_loss(student: Tensor, teacher: Tensor, heads: int, mask: Tensor) -> Tensor:
    """KL(teacher || student) in nats of scaled dot-product relations, mean over heads and real positions.

    Queries, keys or values (batch, tokens, width) of any two widths, each cut into ``heads`` relation heads;
    the relation of a head is softmax(A Aᵀ / sqrt(width / heads)) over real positions. The value relation of
    MiniLM (arXiv:2002.10957) and all relations of MiniLMv2 (Wang et al., arXiv:2012.15828, eq. 4-7). Raises
    ValueError where a width is no multiple of ``heads``.
    """
    if student.shape[:2] != teacher.shape[:2]:
        raise ValueError(f"{tuple(student.shape[:2])} positions cannot be compared with {tuple(teacher.shape[:2])}")
    for width in (student.shape[-1], teacher.shape[-1]):
        if heads < 1 or width % heads:
            raise ValueError(f"a width of {width} cannot be cut into {heads} relation heads")
    real, pairs = mask.bool(), _pairs(mask)
    log_q, log_p = (_relation(_wide(states), heads, real) for states in (student, teacher))
    terms = log_p.exp() * (log_p - log_q)
    return torch.where(pairs, terms, 0.0).sum() / (real.sum() * heads).clamp(min=1)


def _pairs(mask: Tensor) -> Tensor:
    """Return which pairs of positions (batch, 1, tokens, tokens) are both real."""
    real = mask.bool()
    return real[:, None, :, None] & real[:, None, None, :]


def _wide(values: Tensor) -> Tensor:
    """Return fp16 and bf16 as fp32; others as they are."""
    return values.float() if values.dtype in (torch.float16, torch.bfloat16) else values


def _alike(student: Tensor, teacher: Tensor) -> tuple[Tensor, Tensor]:
    """Return both, wide enough to sum; raises ValueError where their shapes differ."""
    if student.shape != teacher.shape:
        raise ValueError(f"{tuple(student.shape)} cannot be compared with {tuple(teacher.shape)} element by element")
    return _wide(student), _wide(teacher)


def _relation(states: Tensor, heads: int, real: Tensor) -> Tensor:
    """Log-softmax of scaled products (batch, heads, tokens, tokens) over real positions."""
    batch, tokens, width = states.shape
    split = torch.where(real[:, :, None], states, 0.0).view(batch, tokens, heads, width // heads).transpose(1, 2)
    scores = split @ split.transpose(2, 3) * (width // heads) ** -0.5
    lowest = torch.finfo(states.dtype).min
    relation: Tensor = scores.masked_fill(~real[:, None, None, :], lowest).log_softmax(-1)
    return relation
