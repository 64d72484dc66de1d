"""How much the loss would miss each attention head and each feed-forward unit."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from enum import Enum
from functools import partial
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from compress.families.base import encoder_layers, family_of, linear
from compress.families.forms.uneven import head_size, kept_heads, neurons
from compress.models.outputs import observe
from compress.models.quantities import HIDDEN
from compress.tasks.registry import task_of_config

Batches = Iterable[Mapping[str, Tensor]]


class Importance(Enum):
    """gradient: E|∂L/∂ξ| of a gate ξ; taylor: E(∂L/∂ξ)²; magnitude of weights; activation; loss: without it."""

    gradient = "gradient"
    taylor = "taylor"
    magnitude = "magnitude"
    activation = "activation"
    loss = "loss"


def head_importance(model: PreTrainedModel, batches: Batches, how: Importance = Importance.gradient) -> list[Tensor]:
    """Return the importance of every head, one tensor (heads,) a layer, not normalised.

    ξ_h multiplies what head h adds, L is the loss on the row's label, means are over rows, not over batches.
    ``gradient`` is Michel et al.'s (arXiv:1905.10650, eq. 2). ``taylor`` is the square, the first-order Taylor
    estimate of the squared change of the loss without the head (Molchanov et al., arXiv:1906.10771, eq. 8, for
    a gate). ``magnitude`` is the l2 norm of the head's query, key, value and output weights; it needs no rows.
    The others are not defined for heads: ValueError. The model is run in evaluation mode; its own gradients
    stay untouched.
    """
    if how in (Importance.activation, Importance.loss):
        raise ValueError(f"heads have no importance by {how.value}")
    if how is Importance.magnitude:
        return [_head_norms(model, index) for index in range(len(kept_heads(model.config)))]
    sizes = [len(heads) for heads in kept_heads(model.config)]
    return by_gates(model, batches, sizes, how, lambda batch, gates: observe(model, batch, gates=gates).logits)


def neuron_importance(model: PreTrainedModel, batches: Batches, how: Importance = Importance.taylor) -> list[Tensor]:
    """Return the importance of every feed-forward unit, one tensor (units,) a layer, not normalised.

    As `head_importance`, with a gate on each unit's output. ``magnitude`` is the l2 norm of a unit's incoming
    and outgoing weights. ``activation`` is the mean absolute output over real tokens. ``loss`` is not defined
    for units: ValueError.
    """
    if how is Importance.loss:
        raise ValueError("feed-forward units have no importance by loss")
    family = family_of(model.config)
    layers = encoder_layers(model, family)
    if how is Importance.magnitude:
        return [
            torch.cat([linear(layer, family.up).weight.detach(), linear(layer, family.down).weight.detach().T], 1)
            .norm(dim=1)
            .cpu()
            for layer in layers
        ]
    downs = [linear(layer, family.down) for layer in layers]
    if how is Importance.activation:
        return _activations(model, batches, downs)

    def logits(batch: Mapping[str, Tensor], gates: list[Tensor]) -> Tensor:
        with _hooked(downs, [partial(_gated, gate) for gate in gates]):
            return observe(model, batch).logits

    return by_gates(model, batches, neurons(model.config), how, logits)


def layer_importance(model: PreTrainedModel, batches: Batches, how: Importance = Importance.loss) -> Tensor:
    """Return the importance of every layer, (layers,).

    ``loss`` is the mean loss on the rows' labels with the layer left out. ``gradient`` and ``taylor`` are those of a
    gate ξ in ξ · output + (1 - ξ) · input of the layer. ``activation`` is the mean over real tokens of one minus
    the cosine of the layer's input and output (block influence, Men et al., arXiv:2403.03853). ``magnitude`` is
    not defined for layers: ValueError.
    """
    if how is Importance.magnitude:
        raise ValueError("layers have no importance by magnitude")
    layers = list(encoder_layers(model, family_of(model.config)))
    if how is Importance.activation:
        return _influences(model, batches)
    if how is Importance.loss:
        return _losses_without(model, list(batches), layers)

    def logits(batch: Mapping[str, Tensor], gates: list[Tensor]) -> Tensor:
        changes = [partial(_mixed, gates[0][:, index]) for index in range(len(layers))]
        with _rewired(layers, changes):
            return observe(model, batch).logits

    return by_gates(model, batches, [len(layers)], how, logits)[0]


def normalised(importance: list[Tensor]) -> list[Tensor]:
    """Divide each layer's importance by its l2 norm, as Michel et al. do before comparing layers."""
    return [scores / scores.norm().clamp(min=1e-20) for scores in importance]


def by_gates(
    model: PreTrainedModel,
    batches: Batches,
    sizes: list[int],
    how: Importance,
    logits: Callable[[Mapping[str, Tensor], list[Tensor]], Tensor],
) -> list[Tensor]:
    """Return the mean over rows of the absolute or squared derivative of the loss in every gate."""
    device = next(model.parameters()).device
    task = task_of_config(model.config)
    totals = [torch.zeros(size) for size in sizes]
    rows = 0
    with evaluating(model):
        for given in batches:
            batch = {name: value.to(device) for name, value in given.items()}
            count = len(batch["input_ids"])
            gates = [torch.ones(count, size, device=device, requires_grad=True) for size in sizes]
            # the mean over rows times the rows: each row's own gradient lands in its own row of the gates
            loss = task.mean_loss(logits(batch, gates), batch["labels"]) * count
            slopes = torch.autograd.grad(loss, gates)
            slopes = tuple(slope.abs() if how is Importance.gradient else slope**2 for slope in slopes)
            totals = [total + slope.sum(0).cpu() for total, slope in zip(totals, slopes, strict=True)]
            rows += count
    return [total / max(rows, 1) for total in totals]


@torch.no_grad()
def _activations(model: PreTrainedModel, batches: Batches, downs: list[nn.Linear]) -> list[Tensor]:
    device = next(model.parameters()).device
    totals = [torch.zeros(down.in_features) for down in downs]
    tokens = 0
    with evaluating(model):
        for given in batches:
            batch = {name: value.to(device) for name, value in given.items()}
            real = batch["attention_mask"].bool()
            outputs: list[Tensor] = []

            def note(output: Tensor, outputs: list[Tensor] = outputs) -> Tensor:
                outputs.append(output)
                return output

            with _hooked(downs, [note] * len(downs)):
                observe(model, batch)
            totals = [t + output[real].abs().sum(0).cpu() for t, output in zip(totals, outputs, strict=True)]
            tokens += int(real.sum())
    return [total / max(tokens, 1) for total in totals]


@torch.no_grad()
def _influences(model: PreTrainedModel, batches: Batches) -> Tensor:
    device = next(model.parameters()).device
    total, tokens = torch.zeros(len(kept_heads(model.config))), 0
    with evaluating(model):
        for given in batches:
            batch = {name: value.to(device) for name, value in given.items()}
            real = batch["attention_mask"].bool()
            states = [state[real] for state in observe(model, batch, HIDDEN)[HIDDEN].values()]
            turned = [1 - nn.functional.cosine_similarity(a, b, dim=-1) for a, b in pairwise(states)]
            total += torch.stack([turn.sum() for turn in turned]).cpu()
            tokens += int(real.sum())
    return total / max(tokens, 1)


@torch.no_grad()
def _losses_without(model: PreTrainedModel, batches: list[Mapping[str, Tensor]], layers: list[nn.Module]) -> Tensor:
    device = next(model.parameters()).device
    losses, task = torch.zeros(len(layers)), task_of_config(model.config)
    rows = sum(len(batch["input_ids"]) for batch in batches)
    with evaluating(model):
        for index, layer in enumerate(layers):
            for given in batches:
                batch = {name: value.to(device) for name, value in given.items()}
                with _rewired([layer], [lambda entered, _: entered]):
                    logits = observe(model, batch).logits
                losses[index] += float(task.mean_loss(logits, batch["labels"])) * len(logits) / max(rows, 1)
    return losses


def _mixed(gate: Tensor, entered: Tensor, left: Tensor) -> Tensor:
    """Return ξ · output + (1 - ξ) · input, with a gate a row."""
    share = gate[:, None, None]
    return share * left + (1 - share) * entered


@contextmanager
def _rewired(layers: Sequence[nn.Module], changes: Sequence[Callable[[Tensor, Tensor], Tensor]]) -> Iterator[None]:
    """Replace what each layer gives by a function of its input and output states."""

    def hook(change: Callable[[Tensor, Tensor], Tensor], given: Any, settings: Any, said: Any) -> Any:
        entered = given[0] if given else settings["hidden_states"]
        left = said[0] if isinstance(said, tuple) else said
        changed = change(entered, left)
        return (changed, *said[1:]) if isinstance(said, tuple) else changed

    handles = [
        layer.register_forward_hook(
            lambda _, given, settings, said, change=change: hook(change, given, settings, said), with_kwargs=True
        )
        for layer, change in zip(layers, changes, strict=True)
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _head_norms(model: PreTrainedModel, index: int) -> Tensor:
    family, size = family_of(model.config), head_size(model.config)
    layer = encoder_layers(model, family)[index]
    parts = [linear(layer, path).weight.detach() for path in (family.query, family.key, family.value)]
    parts.append(linear(layer, family.attention_output).weight.detach().T)
    return torch.stack([part.reshape(-1, size, part.shape[1]).pow(2).sum((1, 2)) for part in parts]).sum(0).sqrt().cpu()


def _gated(gate: Tensor, output: Tensor) -> Tensor:
    """Multiply (batch, tokens, units) by (batch, units)."""
    return output * gate[:, None, :]


@contextmanager
def _hooked(modules: Sequence[nn.Module], changes: Sequence[Callable[[Tensor], Tensor]]) -> Iterator[None]:
    """Pass what each module is given through its function."""
    handles = [
        module.register_forward_pre_hook(lambda _, given, change=change: (change(given[0]),))
        for module, change in zip(modules, changes, strict=True)
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Put a model in evaluation mode for a while."""
    training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(training)
