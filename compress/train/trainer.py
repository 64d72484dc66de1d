"""transformers' Trainer for an objective: which rows make a step, in how many parts, and what is logged of it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from accelerate.utils.memory import clear_device_cache, should_reduce_batch_size
from torch import Tensor, nn
from torch.utils.data import Sampler
from transformers import Trainer

from compress.errors import CompressError, DivergedError
from compress.telling import warn
from compress.train.helpers import Helpers, SharedStep, add_gradients, batches_of, sizes_of
from compress.train.objective import Objective, TrainingRows, Whole
from compress.train.order import Order
from compress.train.words import WordsInUse


class ObjectiveTrainer(Trainer):
    """The Trainer with our batch order, learning rates per parameter, and the parts of the loss in its log."""

    order: Order
    shares: Mapping[Tensor, float]
    undecayed: frozenset[int]
    helpers: Helpers | None = None
    words: WordsInUse | None = None

    def __init__(self, rows: TrainingRows, title: str, micro_batch: int | None, **arguments: Any) -> None:
        super().__init__(train_dataset=rows, data_collator=_as_they_are, **arguments)
        self.rows, self.title, self.micro_batch = rows, title, micro_batch
        self.parts: dict[str, list[float]] = {}

    def _get_train_sampler(self, train_dataset: Any = None) -> Sampler[int]:
        return self.order

    def get_decay_parameter_names(self, model: Any, *arguments: Any, **settings: Any) -> list[str]:
        """Return the Trainer's own choice without the parameters that have no weight decay."""
        names: list[str] = super().get_decay_parameter_names(model, *arguments, **settings)
        free = {name for name, parameter in model.named_parameters() if id(parameter) in self.undecayed}
        return [name for name in names if name not in free]

    def create_optimizer(self, *arguments: Any, **settings: Any) -> torch.optim.Optimizer:
        """Make the Trainer's own optimizer; groups are split where parameters have a share of the rate."""
        optimizer: torch.optim.Optimizer = super().create_optimizer(*arguments, **settings)
        if self.words is not None:
            self.words.follow(optimizer)
        if not self.shares:
            return optimizer
        groups = []
        for group in optimizer.param_groups:
            share_of = {id(parameter): self.shares.get(parameter, 1.0) for parameter in group["params"]}
            for share in sorted(set(share_of.values()), reverse=True):
                own = [parameter for parameter in group["params"] if share_of[id(parameter)] == share]
                groups.append({**group, "params": own, "lr": group["lr"] * share, "initial_lr": group["lr"] * share})
        optimizer.param_groups.clear()
        for group in groups:
            optimizer.add_param_group(group)
        return optimizer

    def training_step(self, model: nn.Module, inputs: Any, *_: Any, **__: Any) -> Tensor:
        """Add the gradients of the loss of ``inputs``, numbers of rows; return it, and keep its parts for the log.

        Raises DivergedError when it is not finite, CompressError when memory does not suffice.
        """
        model.train()
        step = self.state.global_step
        while (found := self._attempt(model, inputs, step / self.state.max_steps)) is None:
            self.micro_batch = self._halved(len(inputs))
        loss, parts = found
        for name, part in parts.items():
            self.parts.setdefault(name, []).append(float(part))
        if not bool(torch.isfinite(loss)):
            raise DivergedError(
                f"Training diverged: the loss is {loss.item()} at step {step}. "
                "Lower the stage's learning_rate, or its gradient_clip."
            )
        return loss.to(self.args.device)

    def _attempt(self, model: nn.Module, rows: list[int], progress: float) -> tuple[Tensor, dict[str, Tensor]] | None:
        """Return what `_gradients` does, or None where memory does not suffice; then there are no gradients."""
        try:
            return self._gradients(model, rows, progress)
        except RuntimeError as error:
            if not should_reduce_batch_size(error):
                raise
        model.zero_grad()
        clear_device_cache(garbage_collection=True)
        return None

    def _gradients(self, model: nn.Module, rows: list[int], progress: float) -> tuple[Tensor, dict[str, Tensor]] | None:
        """Add the gradients of rows, in parts where they are more than are computed at a time; return loss and parts.

        Means of the parts count by what they are means over, so that gradients are those of the whole batch.
        """
        if self.helpers is not None:
            step = SharedStep(
                rows, progress, self.micro_batch, self.goal.draw(progress), self.state.global_step, self._scale
            )
            return self.helpers.gradients(step, model, self._prepare_inputs, self.accelerator.backward)
        if self.micro_batch is None or len(rows) <= self.micro_batch or self.goal.indivisible:
            loss, parts = model(self._prepare_inputs(self.rows.batch(rows)), progress)
            self.accelerator.backward(loss)
            return loss.detach(), {name: part.detach() for name, part in parts.items()}
        batches = batches_of(self.rows, rows, self.micro_batch)
        whole = Whole(sizes_of(self.goal, batches, progress), self.goal.draw(progress))
        return add_gradients(model, self._prepare_inputs, self.accelerator.backward, batches, progress, whole)

    @property
    def _scale(self) -> float:
        """By what fp16 multiplies the loss."""
        return 1.0 if self.accelerator.scaler is None else float(self.accelerator.scaler.get_scale())

    @property
    def goal(self) -> Objective:
        """What is trained."""
        assert isinstance(self.model, Objective)
        return self.model

    def _halved(self, rows: int) -> int:
        """Return half of the rows for which memory was too small; raises CompressError where they stay together."""
        own = rows if self.helpers is None else -(-rows // self.helpers.team.size)
        tried = min(own, self.micro_batch or own)
        if reason := self.goal.indivisible:
            raise CompressError(
                f"{self.title}: out of memory with {rows} rows, which cannot be divided: {reason}. Lower batch_size."
            )
        if tried == 1:
            raise CompressError(f"{self.title}: out of memory with a single row. Lower teacher.max_tokens.")
        warn(f"{self.title}: out of memory with {tried} rows at a time; training continues with {tried // 2}")
        return tried // 2

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Also log the means of the loss's parts since the last entry."""
        logs |= {name: float(np.mean(values)) for name, values in self.parts.items()}
        self.parts.clear()
        super().log(logs, start_time)


def _as_they_are(rows: list[int]) -> Any:
    """Return the numbers of the rows of a step, of which `ObjectiveTrainer.training_step` makes batches."""
    return rows
