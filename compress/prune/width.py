"""Hidden width: find the channels that the loss misses least and remove them wherever residual connections add them.

torch-pruning finds what must go together and removes it: its dependency graph is traced through the model.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from compress.errors import Fault, MissingPackageError
from compress.families.forms.uneven import kept_channels, kept_heads, neurons, reshaped, unpruned_size
from compress.families.registry import family_of
from compress.known import NOTHING, Known
from compress.pipeline.workshop import Kind
from compress.prune.parts import Parts, Weighed
from compress.prune.parts.channels import Channels
from compress.prune.rounds import InRounds
from compress.settings import at_least
from compress.tasks.heads import logits_of


class WeighedChannels(Channels, Weighed):
    """Hidden channels, whose weights torch-pruning finds."""

    def norms(self, model: PreTrainedModel) -> list[Tensor]:
        """Return `channel_magnitude`."""
        return [channel_magnitude(model)]


@dataclass(kw_only=True)
class PruneWidth(InRounds):
    """Remove hidden channels, in all layers at once, by torch-pruning's graph (Fang et al., arXiv:2301.12900)."""

    ratio: float = 0.25  # share of hidden channels removed; heads and feed-forward networks keep their own sizes
    importance: str = "fisher"  # fisher, molchanov (mini-batches), gradient, magnitude (torch-pruning's), activation
    multiple_of: int = 8  # the width is rounded up to a multiple of this, at which processors are fast; 1: not rounded

    kind: ClassVar[Kind] = Kind("channels", revision=1)
    parts: ClassVar[Parts] = WeighedChannels()

    def faults(self, known: Known = NOTHING) -> Iterator[Fault]:
        """Sizes are sizes, the package is there, and the student's normalisation has channels to compare."""
        faults = [*super().faults(known), *at_least(self, "multiple_of", 1)]
        yield from faults
        student = known.student
        if student is None:
            return
        if find_spec("torch_pruning") is None:
            yield Fault(
                "ratio", self.ratio, "needs the package torch-pruning", "pip install 'compress-encoders[prune]'"
            )
        if faults:
            return
        if not family_of(student).loses_channels:
            rule = f"cannot remove hidden channels from a student of type {student.model_type}"
            yield Fault("", None, rule, "Leave width out.")
        elif self.remaining(int(student.hidden_size), 1) < 2:
            rule = f"leaves one of {student.hidden_size} channels, which layer normalisation makes a constant"
            yield Fault("ratio", self.ratio, rule, "Lower it.")

    def remaining(self, before: int, done: float) -> int:
        """Return how many channels are left, a multiple of ``multiple_of``."""
        return min(before, -(-super().remaining(before, done) // self.multiple_of) * self.multiple_of)

    def without(self, model: PreTrainedModel, keep: list[list[int]]) -> PreTrainedModel:
        """Return the model with these channels."""
        return narrow(model, keep[0])

    def notes(self, before: int, left: list[int]) -> tuple[str, ...]:
        """Say how many were removed, and what that does to those that stay."""
        first = f"{before - left[0]:,} of {before:,} hidden channels removed from all layers; left: {left[0]:,}"
        if left[0] == before:
            return (first,)
        return (
            first,
            "layer normalisations now average over fewer channels, so those that stay no longer compute exactly what "
            "they did",
        )


def narrow(model: PreTrainedModel, keep: Sequence[int]) -> PreTrainedModel:
    """Return a model with only these hidden channels, physically narrower; ``model`` is left as it was.

    torch-pruning removes the others from embeddings, layer normalisations and every projection that reads or
    writes states, as its dependency graph couples them. Heads, feed-forward units and the hidden layer of the
    classifier's head stay as they are; ELECTRA's embeddings too, where they reach the states through a
    projection. Raises ValueError where fewer than two channels would stay, and MissingPackageError.
    """
    config, family = model.config, family_of(model.config)
    before = kept_channels(config)
    if len(keep) < 2 or not set(keep) <= set(range(len(before))):
        raise ValueError(f"a model must keep two or more of its {len(before)} hidden channels")
    pruned = _traceable(model)
    gone = sorted(set(range(len(before))) - set(keep))
    if gone:
        _coupled(pruned, gone, {nn.LayerNorm: _in_order()}).prune()
    shape: dict[str, Any] = {
        **family.sizes(hidden=len(set(keep))),
        "kept_channels": [before[channel] for channel in sorted(set(keep))],
        "unpruned_size": unpruned_size(config),
        "kept_heads": kept_heads(config),
        "neurons": neurons(config),
        **family.narrowed(pruned),
    }
    return reshaped(model, shape, pruned.state_dict())  # fails if anything has not the width that it should have


def channel_magnitude(model: PreTrainedModel) -> Tensor:
    """Return torch-pruning's group magnitude of every hidden channel, (hidden,), its mean 1.

    The mean, over all linear layers and layer normalisations of the group, of the channel's squared weights
    (its `GroupMagnitudeImportance`); it leaves embedding tables out. Raises MissingPackageError.
    """
    tp = _torch_pruning()
    copied = _traceable(model)
    measure = tp.importance.GroupMagnitudeImportance(
        p=2, group_reduction="mean", normalizer="mean", bias=False, target_types=[nn.Linear, nn.LayerNorm]
    )
    found: Tensor = measure(_coupled(copied, list(range(int(model.config.hidden_size))), {}))
    return found.detach().float()


def _traceable(model: PreTrainedModel) -> PreTrainedModel:
    """Return a copy on the CPU, whose kernels torch-pruning knows, in evaluation mode and with all its gradients."""
    copied = copy.deepcopy(model)
    nn.Module.to(copied, "cpu")
    copied.requires_grad_(True)
    copied.eval()
    return copied


def _coupled(model: PreTrainedModel, channels: list[int], pruners: dict[Any, Any]) -> Any:
    """Return torch-pruning's group of all that holds these hidden channels; `prune` removes them from ``model``.

    ``pruners`` are ways to prune types of modules that stand in for the package's own. Every list and dictionary is
    new for each call: the package keeps what it is given, and its defaults are shared.
    """
    tp = _torch_pruning()
    tokens = torch.zeros(2, 7, dtype=torch.long)
    with torch.enable_grad():
        graph = tp.DependencyGraph().build_dependency(
            model,
            example_inputs={"input_ids": tokens, "attention_mask": torch.ones_like(tokens)},
            output_transform=logits_of,
            unwrapped_parameters=[],
            customized_pruners=pruners,
            ignored_layers=[],
            ignored_params=[],
            verbose=False,
        )
    norm = family_of(model.config).stream(model)[-1]
    return graph.get_pruning_group(norm, graph.get_pruner_of_module(norm).prune_out_channels, channels)


def _in_order() -> Any:
    """Return torch-pruning's way to prune layer normalisations, with the channels that stay in their order.

    Its own (1.6.1) takes them as a set yields them, which is not always sorted: it sorts a copy and drops it.
    """

    class InOrder(_torch_pruning().function.LayernormPruner):  # type: ignore[misc]
        def _prune_parameter_and_grad(self, weight: Any, keep_idxs: Any, pruning_dim: int) -> Any:
            return super()._prune_parameter_and_grad(weight, sorted(int(index) for index in keep_idxs), pruning_dim)

    return InOrder()


def _torch_pruning() -> Any:
    try:
        import torch_pruning
    except ImportError as error:
        raise MissingPackageError("torch-pruning", "prune", "Pruning the hidden width") from error
    return torch_pruning
