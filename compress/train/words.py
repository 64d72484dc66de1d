"""Word embeddings while a model is trained: those that its rows read are a parameter, the others wait.

A piece of the vocabulary that no row has gets no gradient, so AdamW does nothing to its embedding but multiply it by
1 - learning rate · weight decay at each step. Here these factors are multiplied up and applied at once. Gradients,
their norm, both moments and the work of a step are then of the pieces that rows have, often a small part of a table
that is more than half of a student.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from transformers import PreTrainedModel

from compress.tasks.base import Array
from compress.train.objective import Objective, TrainingRows

SHRUNK = "shrunk"  # the buffer of the table that holds by what the others are multiplied; checkpoints have it


class _Renumbered:
    """A hook that gives a table the places of pieces among those in use for their numbers in the vocabulary."""

    def __init__(self, used: Tensor, size: int) -> None:
        self.places = torch.full((size,), -1, device=used.device)  # -1: an index error, for rows have no such piece
        self.places[used] = torch.arange(len(used), device=used.device)
        self.active = True

    def __call__(self, table: nn.Module, numbers: tuple[Tensor, ...]) -> tuple[Tensor, ...] | None:
        return (self.places[numbers[0]],) if self.active else None


class WordsInUse:
    """A table of embeddings whose parameter has only the rows ``used``, in ascending order, until `restore`."""

    def __init__(self, table: nn.Embedding, used: Array) -> None:
        assert isinstance(table.weight, nn.Parameter)
        self.table, self.whole, self.padding = table, table.weight, table.padding_idx
        self.used = torch.from_numpy(used).to(self.whole.device)
        self.own = nn.Parameter(self.whole.detach()[self.used])
        self.renumbered = _Renumbered(self.used, len(self.whole))
        self.hook = table.register_forward_pre_hook(self.renumbered)
        table.register_buffer(SHRUNK, torch.ones((), dtype=torch.float64, device=self.whole.device))
        self._hold(self.own)

    def _hold(self, weight: nn.Parameter) -> None:
        """Let the table have all rows, or those in use."""
        part = weight is self.own
        self.renumbered.active = part
        padding = self.padding if not part or self.padding is None else int(self.renumbered.places[self.padding])
        self.table.weight, self.table.num_embeddings = weight, len(weight)
        self.table.padding_idx = None if padding == -1 else padding

    def trained(self, parameter: Tensor) -> Tensor:
        """Return what is trained in the place of a parameter: itself, for all but the table's."""
        return self.own if parameter is self.whole else parameter

    def follow(self, optimizer: Optimizer) -> None:
        """Note the weight decay of every step of an optimizer that has the parameter."""
        optimizer.register_step_post_hook(self._note)

    def _note(self, optimizer: Optimizer, *_: Any) -> None:
        if bool(getattr(optimizer, "found_inf", False)):  # fp16: the step was left out
            return
        for group in optimizer.param_groups:
            if any(parameter is self.own for parameter in group["params"]):
                self.table.get_buffer(SHRUNK).mul_(1 - float(group["lr"]) * group["weight_decay"])

    @torch.no_grad()
    def _complete(self) -> Tensor:
        """Return the whole table as it is now."""
        complete = self.whole * float(self.table.get_buffer(SHRUNK))
        complete[self.used] = self.own
        return complete

    @contextmanager
    def complete(self) -> Iterator[None]:
        """Let the model read any text within the block, with the embeddings as they are now."""
        self._hold(nn.Parameter(self._complete(), requires_grad=False))
        try:
            yield
        finally:
            self._hold(self.own)

    def completely(self, validate: Callable[[], Any]) -> Callable[[], Any]:
        """Return ``validate`` as it is with `complete`."""

        def validated() -> Any:
            with self.complete():
                return validate()

        return validated

    def restore(self) -> None:
        """Give the table its own parameter back, with what was learned."""
        with torch.no_grad():
            self.whole.copy_(self._complete())
        self._hold(self.whole)
        self.hook.remove()
        delattr(self.table, SHRUNK)


@contextmanager
def words_in_use(objective: Objective, rows: TrainingRows) -> Iterator[WordsInUse | None]:
    """Train the word embeddings that ``rows`` read, within the block.

    None where all are a parameter: an objective reads others too, or the table is not a plain one of its own.
    """
    table = _table(objective) if objective.reads_rows_alone else None
    used = None if table is None else rows.words
    if table is None or used is None or len(used) >= len(table.weight):
        yield None
        return
    words = WordsInUse(table, used)
    try:
        yield words
    finally:
        words.restore()


def _table(objective: Objective) -> nn.Embedding | None:
    """Return the table of word embeddings, where it learns, is as torch has it, and nothing else has its weight."""
    model: PreTrainedModel = objective.trained
    try:
        table: Any = model.get_input_embeddings()
    except (AttributeError, NotImplementedError):
        return None
    if type(table) is not nn.Embedding or table.max_norm is not None or table.scale_grad_by_freq:
        return None
    places = [p for _, p in objective.named_parameters(remove_duplicate=False) if p is table.weight]
    return table if len(places) == 1 and table.weight.requires_grad else None
