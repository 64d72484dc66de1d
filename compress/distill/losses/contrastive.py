"""Each query's documents found among all documents of the batch (in-batch negatives, arXiv:1705.00652)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from compress.distill.losses.base import Comparison, Loss, register
from compress.errors import Fault
from compress.known import NOTHING, Known
from compress.settings import positive


def in_batch_loss(queries: Tensor, documents: Tensor, relevant: Tensor, temperature: float) -> Tensor:
    """Return the cross-entropy in nats of finding a relevant document, mean over (query, relevant document).

    Vectors (queries, width) and (documents, width), ``relevant`` (queries, documents). The softmax is over the cosines,
    divided by ``temperature``, of that document and of those that are not relevant to the query (Henderson et al.,
    arXiv:1705.00652, section 4; there with one relevant document each). 0 where none is relevant.
    """
    scores = functional.normalize(queries, dim=-1) @ functional.normalize(documents, dim=-1).T / temperature
    asked, found = relevant.nonzero(as_tuple=True)
    if not len(asked):
        return queries.sum() * 0
    others = scores.masked_fill(relevant, -torch.inf).logsumexp(-1)[asked]
    own = scores[asked, found]
    return (torch.logaddexp(own, others) - own).mean()


@register("contrastive")
@dataclass(kw_only=True)
class Contrastive(Loss):
    """Relevant documents against the others of the batch (in-batch negatives, Henderson et al., arXiv:1705.00652).

    Rows are queries and documents: relevant is a document whose score is above 0. It reads no teacher; a row's own
    negative texts are in its batch.
    """

    temperature: float = 0.05  # that cosines are divided by

    needs_vectors = True
    needs_teacher = False

    def faults(self, known: Known = NOTHING) -> Iterator[Fault]:
        """The temperature is above 0."""
        yield from super().faults(known)
        yield from positive(self, "temperature")

    def __call__(self, comparison: Comparison) -> Tensor:
        """Return `in_batch_loss`; 0 where no row has labels."""
        vectors = comparison.student.logits
        if comparison.labels is None:
            return vectors.sum() * 0
        queries, documents, relevant = comparison.task.relevant(comparison.labels)
        return in_batch_loss(vectors[queries], vectors[documents], relevant, self.temperature)
