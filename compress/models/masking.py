"""Weights that are zero: in which matrices and patterns, and how they stay zero while a model is trained.

A model whose configuration says ``sparse_weights`` keeps its zeros in every later training. It is of an ordinary type
all the same: the zeros are in its weights, and nothing is needed to load it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Self

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize
from transformers import PreTrainedModel

from compress.families.registry import family_of

SPARSE = "sparse_weights"  # in the configuration
_WEIGHT = ".parametrizations.weight.original"  # what torch calls a weight that is masked


@dataclass(frozen=True)
class Pattern:
    """Which weights leave together: single ones, blocks of ``rows`` × ``columns``, or all but n of every m."""

    rows: int = 1  # of a block: outputs
    columns: int = 1  # of a block: inputs
    kept: int = 0  # n of n:m, along the inputs; 0: another pattern
    group: int = 0  # m of n:m

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read ``none``, ``2:4`` or ``32x32``; raises ValueError that says what is wrong."""
        if text == "none":
            return cls()
        if found := re.fullmatch(r"(\d+):(\d+)", text):
            kept, group = map(int, found.groups())
            if not 0 < kept < group:
                raise ValueError("must keep at least one weight per group, and not all, as 2:4 does")
            return cls(kept=kept, group=group)
        if found := re.fullmatch(r"(\d+)x(\d+)", text):
            rows, columns = map(int, found.groups())
            if rows * columns < 2:
                raise ValueError("must be a block of two or more weights, as 4x1; none prunes single ones")
            return cls(rows, columns)
        raise ValueError("must be none, n:m as 2:4, or a block as 4x1 (outputs x inputs)")

    def fits(self, shape: Sequence[int]) -> bool:
        """Return whether a matrix (outputs, inputs) divides into groups or blocks."""
        if self.group:
            return shape[1] % self.group == 0
        return shape[0] % self.rows == 0 and shape[1] % self.columns == 0

    def gather(self, values: Tensor) -> Tensor:
        """Return the sums of ``values`` (outputs, inputs) over blocks; the values themselves where there are none."""
        if self.rows == self.columns == 1:
            return values
        rows, columns = values.shape
        return values.reshape(rows // self.rows, self.rows, columns // self.columns, self.columns).sum((1, 3))

    def spread(self, values: Tensor) -> Tensor:
        """Return a value for every weight from one per block, the inverse of `gather`'s shapes."""
        if self.rows == self.columns == 1:
            return values
        return values.repeat_interleave(self.rows, 0).repeat_interleave(self.columns, 1)


def masks(scores: Sequence[Tensor], sparsity: float, pattern: Pattern, *, together: bool) -> list[Tensor]:
    """Return what stays of each matrix: True where a score, (outputs, inputs) or a block's, is among the highest.

    ``sparsity`` is the share that leaves, rounded to whole weights or blocks: of all matrices ``together``, or of
    each. An n:m pattern takes from every group of m instead: its n lowest leave one after the other as ``sparsity``
    goes from 0 to 1 - n/m. Of equal scores the first stay, so the numbers are exact.
    """
    if pattern.group:
        leaving = min(round(sparsity * pattern.group), pattern.group - pattern.kept)
        return [_best_of_groups(matrix, pattern.group, pattern.group - leaving) for matrix in scores]
    flat = [matrix.flatten() for matrix in scores]
    if together:
        sizes = [len(matrix) for matrix in flat]
        parts = _best(torch.cat(flat), sparsity).split(sizes)
    else:
        parts = tuple(_best(matrix, sparsity) for matrix in flat)
    return [part.reshape(matrix.shape) for part, matrix in zip(parts, scores, strict=True)]


def _best(scores: Tensor, sparsity: float) -> Tensor:
    """Return True for the highest scores (n,), exactly n - round(sparsity · n) of them."""
    leaving = round(sparsity * len(scores))
    if leaving == 0:
        return torch.ones_like(scores, dtype=torch.bool)
    threshold = scores.kthvalue(leaving).values
    kept = scores > threshold
    kept[(scores == threshold).nonzero().flatten()[: len(scores) - leaving - int(kept.sum())]] = True
    return kept


def _best_of_groups(scores: Tensor, group: int, kept: int) -> Tensor:
    """Return True for the ``kept`` highest of every ``group`` along the inputs."""
    groups = scores.reshape(scores.shape[0], -1, group)
    order = groups.argsort(dim=-1, descending=True, stable=True)[..., :kept]
    return torch.zeros_like(groups, dtype=torch.bool).scatter_(-1, order, True).reshape(scores.shape)


class Masked(nn.Module):
    """What torch puts between a weight and its layer: the weight where the mask says so, 0 elsewhere.

    A masked weight has no gradient. ``scores``, where there are any, have that of the mask's place, straight through
    (movement pruning, Sanh et al., arXiv:2005.07683, eq. 2): ∂L/∂S = ∂L/∂W′ · W, summed over a block.
    """

    mask: Tensor

    def __init__(self, weight: Tensor, pattern: Pattern, *, learned: bool = False) -> None:
        super().__init__()
        self.pattern = pattern
        self.register_buffer("mask", torch.ones_like(weight, dtype=torch.bool))
        self.scores = nn.Parameter(torch.zeros_like(pattern.gather(weight.detach()))) if learned else None

    def forward(self, weight: Tensor) -> Tensor:
        """Return the masked weight, (outputs, inputs)."""
        if self.scores is None:
            return weight * self.mask
        spread = self.pattern.spread(self.scores)
        masked: Tensor = _Scored.apply(weight, spread, self.mask)  # type: ignore[no-untyped-call]
        return masked


class _Scored(torch.autograd.Function):
    """weight · mask, as if the mask were the scores where gradients are concerned."""

    @staticmethod
    def forward(ctx: Any, weight: Tensor, scores: Tensor, mask: Tensor) -> Tensor:
        ctx.save_for_backward(weight, mask)
        return weight * mask

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Any:
        weight, mask = ctx.saved_tensors
        return gradients[0] * mask, gradients[0] * weight, None


def matrices(model: PreTrainedModel, *, embeddings: bool = False) -> dict[str, nn.Module]:
    """Return the modules whose ``weight`` may have zeros, by name: linear layers of the encoder, then word embeddings.

    Pooler and classifier stay whole, as in the papers. Raises ModelError for a family that is not in the table.
    """
    family = family_of(model.config)
    found = {
        family.named(index, name): module
        for index, layer in enumerate(family.layers(model))
        for name, module in family.matrices(layer).items()
    }
    if embeddings:
        words = model.get_input_embeddings()
        found[next(name for name, module in model.named_modules() if module is words)] = words
    return found


def mask(module: nn.Module, pattern: Pattern, *, learned: bool = False) -> Masked:
    """Put a `Masked` between a module and its weight, and return it; nothing is masked yet."""
    weight = module.weight
    assert isinstance(weight, Tensor)
    masked = Masked(weight, pattern, learned=learned)
    parametrize.register_parametrization(module, "weight", masked)
    return masked


def remade(module: nn.Module) -> tuple[Any, ...] | None:
    """Return what pickle makes a masked module of, which it does not know how to by itself; None for other modules."""
    if not parametrize.is_parametrized(module, "weight"):
        return None
    (plain,) = type(module).__bases__
    return _unfilled, (plain,), module.__dict__.copy(), None, None, _mask_again


def _unfilled(kind: type[nn.Module]) -> nn.Module:
    return kind.__new__(kind)


def _mask_again(module: nn.Module, state: dict[str, Any]) -> None:
    """Make a module of a masked one's attributes read its weight through the mask."""
    module.__dict__.update(state)
    masks = module._modules.pop("parametrizations")
    assert isinstance(masks, nn.ModuleDict)
    below = masks["weight"]
    assert isinstance(below, parametrize.ParametrizationList)
    module.register_parameter("weight", below.get_parameter("original"))
    parametrize.register_parametrization(module, "weight", below[0], unsafe=True)


def own_weight(module: nn.Module) -> Tensor:
    """Return the weight below a mask, as it is trained."""
    masked = parametrize.is_parametrized(module, "weight")
    return module.get_parameter("parametrizations.weight.original" if masked else "weight").detach()


def settle(model: PreTrainedModel) -> None:
    """Write the zeros into the weights, take the masks away, and say so in the configuration."""
    for _, module in masked_modules(model):
        parametrize.remove_parametrizations(module, "weight")  # leaves what the layer saw
        setattr(model.config, SPARSE, True)


def masked_modules(model: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """Yield the modules whose weight is masked, by name."""
    found = [(name, module) for name, module in model.named_modules() if parametrize.is_parametrized(module, "weight")]
    yield from found


def hold_zeros(model: PreTrainedModel) -> None:
    """Mask what is zero in a model whose configuration says that its zeros are kept; do nothing to another."""
    if not getattr(model.config, SPARSE, False):
        return
    for module in matrices(model, embeddings=True).values():
        weight = own_weight(module)
        if not bool(weight.all()):
            mask(module, Pattern()).mask.copy_(weight != 0)


def unmasked_name(name: str) -> str:
    """Return a parameter's name as it is without masks."""
    return name.replace(_WEIGHT, ".weight")
