"""From a batch to a loss: the module that the training engine trains."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from compress.distill.layer_drop import draw, idle
from compress.distill.losses import Comparison, Given, Loss, Pairs
from compress.distill.losses.mean_over import comparing_rows
from compress.distill.sparsify import Masks
from compress.families.forms.fake_quantization import ranges
from compress.families.registry import layer_count
from compress.families.skipping import observe_without
from compress.models.outputs import Outputs, words_in
from compress.models.quantities import Quantity
from compress.models.shared_words import AlignedWords
from compress.tasks.base import Task
from compress.tasks.registry import task_of_config
from compress.train import Objective, Whole


class Source(Protocol):
    """Where the teacher's outputs of a batch come from."""

    def batch(self, batch: Mapping[str, Tensor]) -> Outputs:
        """Return the teacher's outputs for the rows of a batch."""
        ...

    def row_weights(self, batch: Mapping[str, Tensor]) -> Tensor | None:
        """Return how much the logits of each row count, as in `Outputs.weights`, which `batch` gives too."""
        ...


class Distillation(Objective):
    """A student, its losses, and the projections that bring what they compare to the teacher's width.

    Call: (batch, progress) -> (loss, {name: unweighted loss}). The projections, of which each `Quantity` says
    what it needs, are learned with the student; the deployed student has none. Without a teacher only losses that
    need none may be given.

    With ``layer_drop`` each layer of the student is skipped with that probability while it is trained (LayerDrop,
    arXiv:1909.11556); the teacher is always whole. The losses are then those of the network that ran: a skipped
    layer's state is its input, so it is the layers below that are brought near the teacher's layer in its place,
    and terms that compare attention, queries, keys or values of a skipped layer are left out, for it has none.

    ``task`` is what labels are compared by; default: that of the student's head, which knows no weights of classes.
    ``words`` are those of the rows where the two tokenizers differ: what is by token is then compared by word.
    """

    reads_rows_alone = True

    def __init__(
        self,
        student: PreTrainedModel,
        losses: Mapping[str, Loss],
        teacher: Source | None = None,
        teacher_config: Any = None,
        layers: Pairs = (),
        layer_drop: float = 0.0,
        task: Task | None = None,
        words: AlignedWords | None = None,
    ) -> None:
        super().__init__()
        self.student, self.losses, self.teacher, self.layers = student, dict(losses), teacher, layers
        self.layer_drop = layer_drop
        self.task = task or task_of_config(student.config)
        self.words = words
        self.masks: Masks | None = None  # of a student whose weights leave while it is trained
        self.quantities = tuple(dict.fromkeys(quantity for loss in losses.values() for quantity in loss.quantities))
        self.last = (layer_count(student.config), layer_count(teacher_config)) if teacher_config else (0, 0)
        self.kept: dict[tuple[Quantity, tuple[int, int]], list[int]] = {}
        for loss in losses.values():
            if loss.part_by_part:
                self._match(loss, teacher_config)
        self.projections, self.narrower = nn.ModuleDict(), set[Quantity]()
        for quantity in self.quantities:
            for name, projection in quantity.projections(student.config, teacher_config).items():
                self.projections[name] = projection.to(student.device)
                self.narrower.add(quantity)

    def _match(self, loss: Loss, teacher_config: Any) -> None:
        """Note, by pair of layers, which parts of the teacher's the student keeps; nothing where it keeps all."""
        for quantity in loss.quantities:
            for pair in loss.pairs(self.layers, self.last):
                kept = quantity.kept(self.student.config, teacher_config, pair)
                if kept is not None:
                    self.kept[quantity, pair] = kept

    @property
    def trained(self) -> PreTrainedModel:
        """The model that learns."""
        return self.student

    @property
    def indivisible(self) -> str:
        """Why a batch must stay whole: a loss compares its rows, or it moves ranges of activations as a whole."""
        if any(True for _ in ranges(self.student)):
            return "the ranges of fake quantization move with whole batches"
        return next((comparing_rows(name) for name, loss in self.losses.items() if loss.mean_over is None), "")

    def draw(self, progress: float) -> frozenset[int]:
        """Return which layers are skipped; masks are drawn again where it is time to."""
        if self.training and self.masks is not None:
            self.masks.step(progress)
        return draw(layer_count(self.student.config), self.layer_drop) if self.training else frozenset()

    def sizes(self, batch: Mapping[str, Tensor], progress: float) -> Mapping[str, int]:
        """Return the size of each loss."""
        weights = None if self.teacher is None else self.teacher.row_weights(batch)
        mask = batch["attention_mask"]
        if self.words is not None:
            mask = words_in(self.words.student.batch(batch["rows"].cpu().numpy()).to(mask.device))
        given = Given(mask, batch.get("answering"), batch.get("labels"), weights, self.task)
        return {name: given.count(loss.mean_over) for name, loss in self.losses.items() if loss.mean_over is not None}

    def forward(
        self, batch: Mapping[str, Tensor], progress: float, whole: Whole | None = None
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the weighted sum of the losses and the value of each."""
        skipped = self.draw(progress) if whole is None else whole.drawn
        student = observe_without(self.student, batch, skipped, *self.quantities)
        teacher = self.teacher.batch(batch) if self.teacher is not None else student
        if self.words is not None:
            rows, place = batch["rows"].cpu().numpy(), batch["attention_mask"].device
            student = student.by_words(self.words.student.batch(rows).to(place))
            teacher = teacher.by_words(self.words.teacher.batch(rows).to(place))
        comparison = Comparison(
            self._projected(student), teacher, batch.get("labels"), self.layers, progress, self.task,
            self.last, self.kept,
        )  # fmt: skip
        parts = {name: _of_those_that_ran(loss, comparison, skipped) for name, loss in self.losses.items()}
        if whole is not None:
            sizes = self.sizes(batch, progress)
            parts = {name: part * whole.share(name, sizes[name]) for name, part in parts.items()}
        weighted = [self.losses[name].weight_at(progress) * part for name, part in parts.items()]
        total = torch.stack(weighted).sum()
        return total + idle(self.student, skipped) if skipped else total, parts

    def _projected(self, outputs: Outputs) -> Outputs:
        """Return the student's outputs at the teacher's width."""
        projected = {
            quantity: {layer: self.projections[quantity.projected_by(layer)](state) for layer, state in values.items()}
            for quantity, values in outputs.values.items()
            if quantity in self.narrower
        }
        return replace(outputs, values={**outputs.values, **projected})


def _of_those_that_ran(loss: Loss, comparison: Comparison, skipped: frozenset[int]) -> Tensor:
    """Return the loss; where skipped layers lack what it reads, without their pairs, and 0 where none is left."""
    if not skipped or all(quantity.outlives_skipping for quantity in loss.quantities):
        return loss(comparison)
    if all(ours in skipped for ours, _ in loss.pairs(comparison.layers, comparison.last)):
        # not 0 · logits, whose gradient would let weight decay shrink a head that no loss reaches
        return comparison.student.logits.new_zeros(())
    return loss(replace(comparison, layers=tuple(pair for pair in comparison.layers if pair[0] not in skipped)))
