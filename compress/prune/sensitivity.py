"""What a model loses when one layer becomes smaller, measured size by size, and when all of them do."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from math import inf, isfinite
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from compress.families.forms.uneven import head_size, shrink
from compress.families.registry import family_of
from compress.models.outputs import observe
from compress.progress import progress
from compress.prune.costs import GONE, Shape, shape_of
from compress.tasks.registry import task_of_config

Batch = Mapping[str, Tensor]


@dataclass(frozen=True)
class PartOrder:
    """The heads and the units of each layer, the most important first."""

    heads: list[list[int]]
    units: list[list[int]]

    def cut(self, model: PreTrainedModel, shape: Shape) -> PreTrainedModel:
        """Return the model in this shape, made of its most important parts."""
        heads = [sorted(order[:count]) for order, (count, _) in zip(self.heads, shape, strict=True)]
        units = [sorted(order[:width]) for order, (_, width) in zip(self.units, shape, strict=True)]
        return shrink(model, heads=heads, units=units, layers=[i for i, size in enumerate(shape) if size != GONE])


def ranking_of(heads: Sequence[Tensor], units: Sequence[Tensor]) -> PartOrder:
    """Return the order by importance."""
    ordered = [[scores.argsort(descending=True).tolist() for scores in part] for part in (heads, units)]
    return PartOrder(*ordered)


@dataclass(frozen=True)
class Lost:
    """The distance when one layer alone has fewer heads, fewer units, or is left out."""

    heads: Mapping[int, float]
    units: Mapping[int, float]
    gone: float  # infinite for a model's only layer

    def told(self) -> dict[str, Any]:
        """Return it JSON-ready."""
        gone = self.gone if isfinite(self.gone) else None
        return {"heads": list(self.heads.items()), "units": list(self.units.items()), "gone": gone}

    @staticmethod
    def of(record: Mapping[str, Any]) -> Lost:
        """Return what was told."""
        return Lost(dict(record["heads"]), dict(record["units"]), inf if record["gone"] is None else record["gone"])


class Distances:
    """How far a smaller model's answers lie from those of the model as it is, on some rows.

    The distance is the task's, for classes KL(model || smaller) in nats, mean over rows: unlike the loss on labels it
    is never negative, and least where nothing is cut.
    """

    def __init__(self, model: PreTrainedModel, batches: Sequence[Batch]) -> None:
        self.model = model
        self.device = next(model.parameters()).device
        self.batches = [{name: value.to(self.device) for name, value in batch.items()} for batch in batches]
        self.answers = list(self.answered(model))
        self.task = task_of_config(model.config)

    def between(self, answers: Iterator[Tensor]) -> float:
        """Return the distance of these answers, batch by batch."""
        total, rows = 0.0, 0
        for ours, theirs, batch in zip(answers, self.answers, self.batches, strict=True):
            distance = self.task.distance(ours, theirs, batch.get("answering", batch["attention_mask"]), 1.0)
            total, rows = total + float(distance) * len(ours), rows + len(ours)
        return total / max(rows, 1)

    @torch.no_grad()
    def answered(
        self, model: PreTrainedModel, layer: nn.Module | None = None, entered: Sequence[Tensor] = ()
    ) -> Iterator[Tensor]:
        """Yield the logits of each batch; where ``layer`` is the first left, it is given the states ``entered``."""
        for place, batch in enumerate(self.batches):
            if layer is None:
                yield observe(model, batch).logits
                continue
            with _given(layer, entered[place]):
                yield observe(model, batch).logits

    @contextmanager
    def from_layer(self, index: int) -> Iterator[Callable[[], float]]:
        """Let the model run from a layer on, since the work of those before need not be done again.

        Gives a function that returns the distance of the model as it then is.
        """
        family = family_of(self.model.config)
        layers = list(family.layers(self.model))
        layer = layers[index]
        entered = [self._entering(batch, layer) for batch in self.batches]
        with family.running(self.model, layers[index:]):
            yield lambda: self.between(self.answered(self.model, layer, entered))

    @torch.no_grad()
    def _entering(self, batch: Batch, layer: nn.Module) -> Tensor:
        """Return the states that enter a layer."""
        states: list[Tensor] = []

        def note(_: nn.Module, given: Any, settings: Any) -> None:
            states.append(given[0] if given else settings["hidden_states"])

        handle = layer.register_forward_pre_hook(note, with_kwargs=True)
        try:
            observe(self.model, batch)
        finally:
            handle.remove()
        return states[0]


class Sensitivity(Distances):
    """The distances of models without some heads, units and layers."""

    def __init__(self, model: PreTrainedModel, batches: Sequence[Batch], order: PartOrder) -> None:
        super().__init__(model, batches)
        self.order = order

    @torch.no_grad()
    def distance(self, shape: Shape) -> float:
        """Return the distance of the model in a shape."""
        return self.between(self.answered(self.order.cut(self.model, shape)))

    @torch.no_grad()
    def by_layer(self, options: Sequence[Sequence[tuple[int, int]]]) -> list[Lost]:
        """Return, for each layer and the sizes that it can have, the distance when that layer alone is so small.

        Fewer heads and fewer units are measured apart; what a layer loses by both is taken to be their sum.
        """
        model, family = self.model, family_of(self.model.config)
        layers, whole = list(family.layers(model)), shape_of(self.model.config)
        size = head_size(model.config)
        found = []
        for index, layer in progress(list(enumerate(layers)), title="sensitivity", unit="layer"):
            heads, width = whole[index]
            with self.from_layer(index) as distance:
                columns = [[head * size + i for i in range(size)] for head in self.order.heads[index]]
                numbers = sorted({count for count, _ in options[index]} - {0, heads})
                by_heads = self._cut(family.attention_output(layer), columns, numbers, distance)
                columns = [[unit] for unit in self.order.units[index]]
                numbers = sorted({units for _, units in options[index]} - {0, width})
                by_units = self._cut(family.feed_forward_output(layer), columns, numbers, distance)
            gone = tuple(GONE if place == index else size for place, size in enumerate(whole))
            without = self.distance(gone) if len(whole) > 1 else inf
            found.append(Lost({heads: 0.0} | by_heads, {width: 0.0} | by_units, without))
        return found

    def _cut(
        self, module: nn.Linear, columns: list[list[int]], numbers: list[int], distance: Callable[[], float]
    ) -> dict[int, float]:
        """Return the distance for each number of kept parts; ``columns`` are those of each part, in their order.

        What a part adds is gone when its columns of the output matrix are zero.
        """
        weight, found = module.weight.clone(), {}
        for number in reversed(numbers):
            module.weight[:, [column for part in columns[number:] for column in part]] = 0
            found[number] = distance()
        module.weight.copy_(weight)
        return found


@contextmanager
def _given(layer: nn.Module, states: Tensor) -> Iterator[None]:
    """Give a layer these states instead of what reaches it."""

    def change(_: nn.Module, given: Any, settings: Any) -> Any:
        return ((states, *given[1:]), settings) if given else (given, settings | {"hidden_states": states})

    handle = layer.register_forward_pre_hook(change, with_kwargs=True)
    try:
        yield
    finally:
        handle.remove()
