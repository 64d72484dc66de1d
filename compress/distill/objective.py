"""From a batch to a loss: the module that the training engine trains."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from compress.distill.losses.settings import Comparison, Loss
from compress.models.outputs import Outputs, observe
from compress.models.uneven import kept_heads


class Source(Protocol):
    """Where the teacher's outputs of a batch come from."""

    def batch(self, batch: Mapping[str, Tensor]) -> Outputs:
        """Return the teacher's outputs for the rows of a batch."""
        ...


class Distillation(nn.Module):
    """A student, its losses, and the projections that bring its states to the teacher's width.

    Call: (batch, progress) -> (loss, {name: unweighted loss}). The projections W_h (one for all layers)
    and W_e (embeddings) are learned with the student and thrown away with this module (TinyBERT,
    arXiv:1909.10351, eq. 8 and 9). Without a teacher only losses that need none may be given.
    """

    def __init__(
        self,
        student: PreTrainedModel,
        losses: Mapping[str, Loss],
        teacher: Source | None = None,
        teacher_config: Any = None,
        layers: tuple[tuple[int, int], ...] = (),
    ) -> None:
        super().__init__()
        self.student, self.losses, self.teacher, self.layers = student, dict(losses), teacher, layers
        self.hidden = any(loss.needs_hidden or loss.needs_embeddings for loss in losses.values())
        self.scores = any(loss.needs_scores for loss in losses.values())
        self.heads = _heads_of_teacher(student.config, teacher_config, layers) if self.scores else []
        self.projections = nn.ModuleDict()
        if self.hidden and student.config.hidden_size != teacher_config.hidden_size:
            for name in ("states", "embeddings"):
                projection = nn.Linear(student.config.hidden_size, teacher_config.hidden_size, bias=False)
                self.projections[name] = projection.to(student.device)

    def forward(self, batch: Mapping[str, Tensor], progress: float) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the weighted sum of the losses and each one's own value."""
        student = observe(self.student, batch, hidden=self.hidden, scores=self.scores)
        teacher = self._fitting(self.teacher.batch(batch)) if self.teacher is not None else student
        seen = Comparison(self._projected(student), teacher, batch.get("labels"), self.layers, progress)
        parts = {name: loss(seen) for name, loss in self.losses.items()}
        weighted = [self.losses[name].weight_at(progress) * part for name, part in parts.items()]
        return torch.stack(weighted).sum(), parts

    def _projected(self, outputs: Outputs) -> Outputs:
        if not self.projections:
            return outputs
        hidden = {
            layer: self.projections["states" if layer else "embeddings"](state)
            for layer, state in outputs.hidden.items()
        }
        return Outputs(outputs.logits, outputs.mask, hidden, outputs.scores)

    def _fitting(self, outputs: Outputs) -> Outputs:
        """Return the teacher's outputs with scores by student layer, of the heads that the student keeps."""
        scores = {}
        for (ours, theirs), heads in zip(self.layers, self.heads, strict=False):
            known = outputs.scores[theirs]
            scores[ours] = known if heads == list(range(known.shape[1])) else known[:, heads]
        return Outputs(outputs.logits, outputs.mask, outputs.hidden, scores)


def _heads_of_teacher(student: Any, teacher: Any, layers: tuple[tuple[int, int], ...]) -> list[list[int]]:
    """Return, by student layer, where the teacher's layer has the heads that the student keeps."""
    ours, theirs = kept_heads(student), kept_heads(teacher)
    return [[theirs[t - 1].index(head) for head in ours[s - 1]] for s, t in layers]
