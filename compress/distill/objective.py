"""From a batch to a loss: the module that the training engine trains."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from compress.distill.layer_drop import draw, idle
from compress.distill.losses import Comparison, Loss, Pairs
from compress.distill.sparsify import Masks
from compress.families.base import layer_count
from compress.families.forms.uneven import kept_channels, kept_heads, unpruned_size
from compress.families.skipping import observe_without
from compress.models.outputs import Outputs
from compress.tasks.registry import task_of_config
from compress.train import Objective


class Source(Protocol):
    """Where the teacher's outputs of a batch come from."""

    def batch(self, batch: Mapping[str, Tensor]) -> Outputs:
        """Return the teacher's outputs for the rows of a batch."""
        ...


class Distillation(Objective):
    """A student, its losses, and the projections that bring its states to the teacher's width.

    Call: (batch, progress) -> (loss, {name: unweighted loss}). The projections W_h (one for all layers)
    and W_e (embeddings) are learned with the student (TinyBERT, arXiv:1909.10351, eq. 8 and 9); the deployed
    student has none. They start at random; where the student had the teacher's width before channels were removed,
    they start by putting each channel where it was. Without a teacher only losses that need none may be given.

    With ``layer_drop`` each layer of the student is skipped with that probability while it is trained (LayerDrop,
    arXiv:1909.11556); the teacher is always whole. The losses are then those of the network that ran: a skipped
    layer's state is its input, so it is the layers below that are brought near the teacher's layer in its place,
    and terms that compare attention, queries, keys or values of a skipped layer are left out, for it has none.
    """

    def __init__(
        self,
        student: PreTrainedModel,
        losses: Mapping[str, Loss],
        teacher: Source | None = None,
        teacher_config: Any = None,
        layers: Pairs = (),
        layer_drop: float = 0.0,
    ) -> None:
        super().__init__()
        self.student, self.losses, self.teacher, self.layers = student, dict(losses), teacher, layers
        self.layer_drop = layer_drop
        self.task = task_of_config(student.config)
        self.masks: Masks | None = None  # of a student whose weights leave while it is trained
        self.hidden = any(loss.needs_hidden or loss.needs_embeddings for loss in losses.values())
        self.scores = any(loss.needs_scores for loss in losses.values())
        self.relations = any(loss.needs_relations for loss in losses.values())
        self.last = (layer_count(student.config), layer_count(teacher_config)) if teacher_config else (0, 0)
        self.teacher_heads = int(getattr(teacher_config, "num_attention_heads", 1))
        self.heads: dict[tuple[int, int], list[int]] = {}
        for loss in losses.values():
            if loss.needs_scores:
                self.heads |= _fewer_heads(student.config, teacher_config, loss.pairs(layers, self.last))
        self.projections = nn.ModuleDict()
        if self.hidden and student.config.hidden_size != teacher_config.hidden_size:
            places = _places(student.config, teacher_config)
            for name in ("states", "embeddings"):
                projection = nn.Linear(student.config.hidden_size, teacher_config.hidden_size, bias=False)
                if places is not None:
                    with torch.no_grad():
                        projection.weight.copy_(places)
                self.projections[name] = projection.to(student.device)

    @property
    def trained(self) -> PreTrainedModel:
        """The model that learns."""
        return self.student

    def forward(self, batch: Mapping[str, Tensor], progress: float) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the weighted sum of the losses and each one's own value."""
        if self.training and self.masks is not None:
            self.masks.step(progress)
        skipped = draw(layer_count(self.student.config), self.layer_drop) if self.training else frozenset()
        student = observe_without(
            self.student, batch, skipped, hidden=self.hidden, scores=self.scores, relations=self.relations
        )
        teacher = self.teacher.batch(batch) if self.teacher is not None else student
        seen = Comparison(
            self._projected(student), teacher, batch.get("labels"), self.layers, progress, self.task,
            self.last, self.teacher_heads, self.heads,
        )  # fmt: skip
        parts = {name: _of_those_that_ran(loss, seen, skipped) for name, loss in self.losses.items()}
        weighted = [self.losses[name].weight_at(progress) * part for name, part in parts.items()]
        total = torch.stack(weighted).sum()
        return total + idle(self.student, skipped) if skipped else total, parts

    def _projected(self, outputs: Outputs) -> Outputs:
        if not self.projections:
            return outputs
        hidden = {
            layer: self.projections["states" if layer else "embeddings"](state)
            for layer, state in outputs.hidden.items()
        }
        return replace(outputs, hidden=hidden)


def _of_those_that_ran(loss: Loss, seen: Comparison, skipped: frozenset[int]) -> Tensor:
    """Return the loss; one inside attention without the pairs whose student layer was skipped, 0 where none is left."""
    if not skipped or not (loss.needs_scores or loss.needs_relations):
        return loss(seen)
    if all(ours in skipped for ours, _ in loss.pairs(seen.layers, seen.last)):
        # not 0 · logits, whose gradient would let weight decay shrink a head that no loss reaches
        return seen.student.logits.new_zeros(())
    return loss(replace(seen, layers=tuple(pair for pair in seen.layers if pair[0] not in skipped)))


def _places(student: Any, teacher: Any) -> Tensor | None:
    """Return the matrix (teacher's width, student's) that puts kept channels where they were; None where none was."""
    ours, theirs = kept_channels(student), kept_channels(teacher)
    if unpruned_size(student) != unpruned_size(teacher) or not set(ours) <= set(theirs):
        return None
    places = torch.zeros(len(theirs), len(ours))
    places[[theirs.index(channel) for channel in ours], range(len(ours))] = 1
    return places


def _fewer_heads(student: Any, teacher: Any, pairs: Pairs) -> dict[tuple[int, int], list[int]]:
    """Return, by pair of layers, where the teacher has the heads that the student keeps; nothing where it has all."""
    ours, theirs = kept_heads(student), kept_heads(teacher)
    places = {(s, t): [theirs[t - 1].index(head) for head in ours[s - 1]] for s, t in pairs}
    return {pair: heads for pair, heads in places.items() if heads != list(range(len(theirs[pair[1] - 1])))}
