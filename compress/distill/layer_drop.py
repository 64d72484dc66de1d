"""LayerDrop: layers are skipped at random while a student is trained (Fan, Grave & Joulin, arXiv:1909.11556).

Every step each layer is skipped with the same probability, independently of the others, for the whole batch; the
trained model is used whole, or cut to any depth without training again (`compress.prune.layers`). The paper's
"data driven" variant, in which rates are learned for each layer, is not supported: the paper does not say by which
function of the activations, nor how a gradient reaches a rate through the layers that were drawn.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

from compress.errors import Fault
from compress.families.registry import FAMILIES, can_be_taken_apart, family_of, layer_count, type_in_words


def draw(layers: int, rate: float) -> frozenset[int]:
    """Return which of ``layers`` layers, counted from 1, are skipped this time; all of them may be.

    Drawn from torch's random state, which checkpoints hold; a rate of 0 draws nothing.
    """
    if rate == 0:
        return frozenset()
    return frozenset((torch.rand(layers) < rate).nonzero().flatten().add(1).tolist())


def idle(model: PreTrainedModel, skipped: frozenset[int]) -> Tensor:
    """Return 0, whose gradient in the parameters of skipped layers is 0; in the embeddings where those are frozen.

    That is their true gradient. Without it the optimizer would not see them at all, and momentum and weight decay
    would stand still in some layers and go on in others. A step in which every term was left out has it alone.
    """
    layers = family_of(model.config).layers(model)
    unused = [parameter for number in sorted(skipped) for parameter in layers[number - 1].parameters()]
    learning = [parameter for parameter in unused if parameter.requires_grad]
    return (
        0 * torch.stack([parameter.sum() for parameter in learning or model.get_input_embeddings().parameters()]).sum()
    )


def unskippable(rate: float, student: Any) -> Iterator[Fault]:
    """Yield a student whose layers cannot be skipped; nothing where none are."""
    if rate == 0:
        return
    if not can_be_taken_apart(student):
        rule = f"cannot skip layers of a student of type {type_in_words(student)}"
        yield Fault("layer_drop", rate, rule, f"Supported: {', '.join(FAMILIES)}. Set it to 0.")
    elif layer_count(student) < 2:
        yield Fault("layer_drop", rate, "needs a student of at least two layers", "Set student.layers, or set it to 0.")
