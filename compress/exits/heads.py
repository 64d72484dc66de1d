"""The heads after a student's layers: how they learn, and what each of them answers."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedModel

from compress.distill.losses import Comparison, Given, Loss
from compress.distill.objective import Source
from compress.families.forms.exiting import ExitingForm
from compress.models.evaluate import TOKENS_A_BATCH
from compress.models.outputs import INPUTS, Outputs
from compress.models.quantities import LOGITS
from compress.models.tokens import Tokens
from compress.progress import progress
from compress.tasks.base import Array, Task
from compress.tasks.heads import output_count
from compress.train import Objective, Whole


class ExitHeads(Objective):
    """The heads of a model with early exits, each compared with the teacher's answers and the labels.

    The loss is the mean over the heads, in which a head counts by its layer's number (PABEE, arXiv:2006.04152). With a
    student that stays as it is (DeeBERT, arXiv:2004.12993) its own head, the last, is left out, and what is below the
    heads is computed as in evaluation, without gradients.
    """

    def __init__(
        self, model: ExitingForm, losses: Mapping[str, Loss], source: Source, task: Task, *, student_learns: bool
    ) -> None:
        super().__init__()
        self.model, self.losses, self.source, self.task = model, dict(losses), source, task
        self.student_learns = student_learns
        for name, parameter in model.named_parameters():
            parameter.requires_grad_(student_learns or name.startswith("exits."))

    @property
    def trained(self) -> PreTrainedModel:
        """The model that learns."""
        return self.model

    def train(self, mode: bool = True) -> ExitHeads:
        """Switch dropout on or off; of a student that stays as it is it is always off."""
        super().train(mode)
        self.model.train(mode and self.student_learns)
        return self

    @property
    def indivisible(self) -> str:
        """Empty: rows are compared one by one."""
        return ""

    def sizes(self, batch: Mapping[str, Tensor], progress: float) -> Mapping[str, int]:
        """Return the size of each loss."""
        given = Given(batch["attention_mask"], None, batch.get("labels"), self.source.row_weights(batch), self.task)
        return {name: given.count(loss.mean_over) for name, loss in self.losses.items() if loss.mean_over is not None}

    def forward(
        self, batch: Mapping[str, Tensor], progress: float, whole: Whole | None = None
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the loss, and each of its parts as the same mean over the heads."""
        logits = self.model.of_every_head(**{name: batch[name] for name in INPUTS if name in batch})
        teacher, mask, labels = self.source.batch(batch), batch["attention_mask"], batch.get("labels")
        learning = logits if self.student_learns else logits[:-1]
        shares = torch.arange(1.0, len(learning) + 1, device=mask.device)
        shares = shares / shares.sum()
        parts = {}
        for name, loss in self.losses.items():
            answers = (Outputs(mask, {LOGITS: {0: own}}) for own in learning)
            values = [loss(Comparison(own, teacher, labels, (), progress, self.task)) for own in answers]
            parts[name] = (shares * torch.stack(values)).sum()
        if whole is not None:
            sizes = self.sizes(batch, progress)
            parts = {name: part * whole.share(name, sizes[name]) for name, part in parts.items()}
        return torch.stack([self.losses[name].weight * part for name, part in parts.items()]).sum(), parts


@torch.inference_mode()
def answers_of_heads(model: ExitingForm, tokens: Tokens, title: str | None = None) -> Array:
    """Return what every head answers, logits (heads, rows, outputs), fp32."""
    model.train(False)
    device, size = next(model.parameters()).device, max(1, TOKENS_A_BATCH // int(tokens.lengths.max()))
    outputs = output_count(model.config)
    found: Array = np.empty((len(model.exits) + 1, len(tokens), outputs), np.float32)
    with progress(total=len(tokens), title=title, unit="row") as bar:
        for rows in tokens.batches(size):
            batch = {name: value.to(device) for name, value in tokens.batch(rows).items() if name in INPUTS}
            found[:, rows] = torch.stack(model.of_every_head(**batch)).float().cpu().numpy()
            bar.update(len(rows))
    return found
