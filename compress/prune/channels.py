"""How much the loss would miss each hidden channel, the one thing that all layers share."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from compress.families.registry import family_of
from compress.models.outputs import observe
from compress.prune.importance import Batches, Importance, by_gates, evaluating


def channel_importance(model: PreTrainedModel, batches: Batches, how: Importance) -> Tensor:
    """Return the importance of every hidden channel, (hidden,), not normalised.

    ``gradient`` and ``taylor`` are those of a gate ξ_c that multiplies channel c of the states wherever
    `stream` finds them, as `head_importance` has them for a head: a gate at 0 takes the channel out everywhere,
    but for what layer normalisations count it for. ``activation`` is the mean absolute state of the channel over
    real tokens and over those places. Others need no rows or are not defined: ValueError.
    """
    if how is Importance.activation:
        return _activations(model, batches)
    if how not in (Importance.gradient, Importance.taylor):
        raise ValueError(f"hidden channels have no importance by {how.value} here")

    def logits(batch: Mapping[str, Tensor], gates: list[Tensor]) -> Tensor:
        with _changed(stream(model), lambda states: states * gates[0][:, None, :]):
            return observe(model, batch).logits

    return by_gates(model, batches, [int(model.config.hidden_size)], how, logits)[0]


def stream(model: PreTrainedModel) -> list[nn.Module]:
    """Return the modules that give states: what is embedded, and each layer's normalised sums, first to last."""
    family = family_of(model.config)
    norms = (part for layer in family.layers(model) for part in layer.modules() if isinstance(part, nn.LayerNorm))
    return [family.embedders(model)[-1], *norms]


@torch.no_grad()
def _activations(model: PreTrainedModel, batches: Batches) -> Tensor:
    device, places = next(model.parameters()).device, stream(model)
    total, tokens = torch.zeros(int(model.config.hidden_size)), 0
    with evaluating(model):
        for given in batches:
            batch = {name: value.to(device) for name, value in given.items()}
            real = batch["attention_mask"].bool()
            sums: list[Tensor] = []

            def note(states: Tensor, real: Tensor = real, sums: list[Tensor] = sums) -> Tensor:
                sums.append(states[real].abs().sum(0))
                return states

            with _changed(places, note):
                observe(model, batch)
            total += torch.stack(sums).sum(0).cpu()
            tokens += int(real.sum())
    return total / max(tokens * len(places), 1)


@contextmanager
def _changed(modules: Sequence[nn.Module], change: Callable[[Tensor], Tensor]) -> Iterator[None]:
    """Pass what each module gives through a function."""
    handles = [module.register_forward_hook(lambda _, given, said: change(said)) for module in modules]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
