"""Whole layers, as one group."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from itertools import pairwise
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from compress.families.registry import family_of, layer_count
from compress.models.outputs import observe
from compress.models.quantities import HIDDEN
from compress.prune.parts.base import Active, Batch, Dispensable, Parts


class WholeLayers(Parts, Active, Dispensable):
    """A gate ξ lets ξ · output + (1 - ξ) · input of the layer take the place of its output."""

    name: ClassVar[str] = "layers"

    def sizes(self, config: Any) -> list[int]:
        """Return the number of layers."""
        return [layer_count(config)]

    def gated(self, model: PreTrainedModel, gates: list[Tensor]) -> AbstractContextManager[None]:
        """Gate every layer."""
        layers = list(family_of(model.config).layers(model))
        return _rewired(layers, [partial(_mixed, gates[0][:, index]) for index in range(len(layers))])

    def activity(self, model: PreTrainedModel, batch: Batch) -> tuple[list[Tensor], int]:
        """Return one minus the cosine of each layer's input and output (Men et al., arXiv:2403.03853)."""
        real = batch["attention_mask"].bool()
        states = [state[real] for state in observe(model, batch, HIDDEN)[HIDDEN].values()]
        turned = [1 - nn.functional.cosine_similarity(a, b, dim=-1) for a, b in pairwise(states)]
        return [torch.stack([turn.sum() for turn in turned]).cpu()], int(real.sum())

    def without(self, model: PreTrainedModel, group: int, part: int) -> AbstractContextManager[None]:
        """Let a layer hand on what it is given."""
        layer = family_of(model.config).layers(model)[part]
        return _rewired([layer], [lambda entered, _: entered])


def _mixed(gate: Tensor, entered: Tensor, left: Tensor) -> Tensor:
    """Return ξ · output + (1 - ξ) · input, with a gate for each row."""
    share = gate[:, None, None]
    return share * left + (1 - share) * entered


@contextmanager
def _rewired(layers: Sequence[nn.Module], changes: Sequence[Callable[[Tensor, Tensor], Tensor]]) -> Iterator[None]:
    """Replace what each layer gives by a function of its input and output states."""

    def hook(change: Callable[[Tensor, Tensor], Tensor], given: Any, settings: Any, output: Any) -> Any:
        entered = given[0] if given else settings["hidden_states"]
        left = output[0] if isinstance(output, tuple) else output
        changed = change(entered, left)
        return (changed, *output[1:]) if isinstance(output, tuple) else changed

    handles = [
        layer.register_forward_hook(
            lambda _, given, settings, output, change=change: hook(change, given, settings, output), with_kwargs=True
        )
        for layer, change in zip(layers, changes, strict=True)
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


LAYERS = WholeLayers()
