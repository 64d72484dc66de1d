"""Fake quantization: fp32 arithmetic with the very values that an int8 graph will have, and gradients straight through.

Q8BERT's scheme (Zafrir et al., arXiv:1910.06188) with the ranges that an int8 graph for the CPU wants: inputs of
linear layers are unsigned integers of 8 bits over a moving range, weights signed ones, symmetric. Softmax,
normalisation and GELU stay as they are. Rounding is ONNX's: division, half to even, then saturation.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

ACTIVATIONS = 255  # the highest unsigned integer of an activation
EMBEDDINGS = 127  # the highest signed integer of an embedding, which is never multiplied in int8
WEIGHTS = {8: 127, 7: 64}  # by bits: 255 · 64 · 2, the sum of a pair of products, still fits into 16 bits


@dataclass(frozen=True, kw_only=True)
class FakeQuantization:
    """What is quantized, and how."""

    weight_bits: int = 8  # 8, or 7 for processors that sum pairs of int8 products in 16 bits
    per_channel: bool = True  # a scale for each output of a weight matrix and for each embedding; else one per matrix
    embeddings: bool = True  # embedding tables too
    classifier: bool = True  # the last linear layer too
    decay: float = 0.99  # share of an activation's range that a batch leaves as it was


class _StraightThrough(torch.autograd.Function):
    """Quantize and dequantize; the gradient is that of doing nothing (Q8BERT, section 2.2)."""

    @staticmethod
    def forward(ctx: Any, values: Tensor, scale: Tensor, zero: Tensor, lowest: int, highest: int) -> Tensor:
        return (integers(values, scale, zero, lowest, highest) - zero) * scale

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Any:
        return gradients[0], None, None, None, None


def integers(values: Tensor, scale: Tensor, zero: Tensor, lowest: int, highest: int) -> Tensor:
    """Return ``values / scale + zero`` rounded half to even and saturated, as fp32; what it returns has no gradient."""
    return torch.clamp(torch.round(values.detach().float() / scale) + zero, lowest, highest)


def fake_quantize(values: Tensor, scale: Tensor, zero: Tensor, lowest: int, highest: int) -> Tensor:
    """Return ``values`` (any shape) as the nearest of ``scale`` · (i − ``zero``), i in [``lowest``, ``highest``].

    ``scale`` and ``zero`` broadcast with ``values``. The gradient passes as if nothing had happened.
    """
    fake: Tensor = _StraightThrough.apply(values, scale, zero, lowest, highest)  # type: ignore[no-untyped-call]
    return fake


def step(span: Tensor, steps: int) -> Tensor:
    """Return the width of one of ``steps`` steps over ``span``; 1 where there is no span."""
    return torch.where(span > 0, span / steps, torch.ones_like(span))


def activation_grid(low: Tensor, high: Tensor) -> tuple[Tensor, Tensor]:
    """Return scale and zero point of unsigned integers over [low, high], widened to hold 0, which is exact."""
    low, high = low.clamp(max=0), high.clamp(min=0)
    scale = step(high - low, ACTIVATIONS)
    return scale, torch.round(-low / scale).clamp(0, ACTIVATIONS)


def weight_scale(weight: Tensor, per_channel: bool, highest: int) -> Tensor:
    """Return the scale of symmetric integers up to ``highest``: one per row (rows, 1) of a weight, or one (1, 1)."""
    sizes = weight.detach().abs()
    return step(sizes.amax(-1, keepdim=True) if per_channel else sizes.amax().reshape(1, 1), highest)


class MovingRange(nn.Module):
    """Fake-quantizes activations over an exponential moving average of the smallest and largest value of a batch.

    The first batch sets the range; only training moves it. Padded tokens do not count.
    """

    low: Tensor
    high: Tensor
    batches: Tensor

    def __init__(self, decay: float) -> None:
        super().__init__()
        self.decay = decay
        self.mask: Tensor | None = None  # (batch, tokens), 1 on real tokens
        self.register_buffer("low", torch.zeros(()))
        self.register_buffer("high", torch.zeros(()))
        self.register_buffer("batches", torch.zeros((), dtype=torch.long))

    def forward(self, values: Tensor) -> Tensor:
        """Return ``values``, (batch, tokens, width) or (batch, width), on the grid of the range."""
        if self.training:
            self._move(values.detach().float())
        return fake_quantize(values, *activation_grid(self.low, self.high), 0, ACTIVATIONS)

    @torch.no_grad()
    def _move(self, values: Tensor) -> None:
        if self.mask is not None and values.dim() == 3:
            values = values[self.mask.bool()]
        share = torch.where(self.batches == 0, 1.0, 1 - self.decay)
        low, high = values.aminmax()
        self.low += share * (low - self.low)
        self.high += share * (high - self.high)
        self.batches += 1


class FakeQuantizedLinear(nn.Linear):
    """A linear layer whose inputs and weights are fake-quantized; its bias is not."""

    def __init__(self, linear: nn.Linear, scheme: FakeQuantization) -> None:
        super().__init__(linear.in_features, linear.out_features, linear.bias is not None)
        self.weight, self.bias = linear.weight, linear.bias
        self.per_channel, self.highest = scheme.per_channel, WEIGHTS[scheme.weight_bits]
        self.inputs = MovingRange(scheme.decay)

    def scale(self) -> Tensor:
        """Return the weight's scale, (outputs, 1) or (1, 1)."""
        return weight_scale(self.weight, self.per_channel, self.highest)

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002  # torch's name
        """Return outputs (..., outputs) for inputs (..., inputs)."""
        scale = self.scale()
        weight = fake_quantize(self.weight, scale, torch.zeros_like(scale), -self.highest, self.highest)
        return nn.functional.linear(self.inputs(input), weight, self.bias)


class FakeQuantizedEmbedding(nn.Embedding):
    """An embedding table whose rows are fake-quantized."""

    def __init__(self, embedding: nn.Embedding, scheme: FakeQuantization) -> None:
        super().__init__(embedding.num_embeddings, embedding.embedding_dim, embedding.padding_idx)
        self.weight = embedding.weight
        self.per_channel = scheme.per_channel

    def scale(self) -> Tensor:
        """Return the table's scale, (rows, 1) or (1, 1)."""
        return weight_scale(self.weight, self.per_channel, EMBEDDINGS)

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002  # torch's name
        """Return embeddings (..., width) of numbers (...)."""
        rows = super().forward(input)
        # a row's own scale needs that row alone, not the whole table at every step
        scale = weight_scale(rows if self.per_channel else self.weight, self.per_channel, EMBEDDINGS)
        return fake_quantize(rows, scale, torch.zeros_like(scale), -EMBEDDINGS, EMBEDDINGS)


FAKE = (FakeQuantizedLinear, FakeQuantizedEmbedding)


def insert(model: nn.Module, scheme: FakeQuantization) -> None:
    """Put fake-quantized modules in the place of the linear layers and embeddings that ``scheme`` says."""
    linears = [name for name, module in model.named_modules() if type(module) is nn.Linear]
    for name in linears if scheme.classifier else linears[:-1]:
        linear = model.get_submodule(name)
        assert isinstance(linear, nn.Linear)
        model.set_submodule(name, FakeQuantizedLinear(linear, scheme))
    for name in [name for name, module in model.named_modules() if type(module) is nn.Embedding]:
        if scheme.embeddings:
            embedding = model.get_submodule(name)
            assert isinstance(embedding, nn.Embedding)
            model.set_submodule(name, FakeQuantizedEmbedding(embedding, scheme))
    model.register_forward_pre_hook(_tell_mask, with_kwargs=True)


def only(model: nn.Module, names: Collection[str]) -> None:
    """Leave fake quantization in these modules alone: the others compute with the same weights as they are."""
    for name, module in list(model.named_modules()):
        if name in names or not isinstance(module, FAKE):
            continue
        with torch.device("meta"):
            plain: nn.Linear | nn.Embedding
            if isinstance(module, FakeQuantizedLinear):
                plain = nn.Linear(module.in_features, module.out_features, module.bias is not None)
                plain.bias = module.bias
            else:
                plain = nn.Embedding(module.num_embeddings, module.embedding_dim, module.padding_idx)
        plain.weight = module.weight
        model.set_submodule(name, plain)


def ranges(model: nn.Module) -> Iterator[MovingRange]:
    """Yield the moving ranges of a model."""
    return (module for module in model.modules() if isinstance(module, MovingRange))


def _tell_mask(model: nn.Module, _: Any, given: Mapping[str, Any]) -> None:
    """Tell the ranges which tokens are real, as the model is told."""
    for observed in ranges(model):
        observed.mask = given.get("attention_mask")
