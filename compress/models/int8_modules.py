"""A fake-quantized model as one that holds integers, in the Q/DQ form that ONNX Runtime runs in int8."""

from __future__ import annotations

from copy import deepcopy

import torch
import torch.ao.quantization.fx._decomposed  # defines the operators that become QuantizeLinear and DequantizeLinear
from torch import Tensor, nn
from transformers import PreTrainedModel

from compress.families.forms.fake_quantization import (
    ACTIVATIONS,
    EMBEDDINGS,
    FakeQuantizedEmbedding,
    FakeQuantizedLinear,
    activation_grid,
    integers,
)


class IntegerLinear(nn.Module):
    """A linear layer of s8 weights and u8 inputs: what a trained `FakeQuantizedLinear` stands for."""

    weight: Tensor
    scale: Tensor
    zeros: Tensor

    def __init__(self, trained: FakeQuantizedLinear) -> None:
        super().__init__()
        self.highest, self.bias = trained.highest, trained.bias
        scale = trained.scale()
        weight = integers(trained.weight, scale, torch.zeros_like(scale), -self.highest, self.highest)
        self.register_buffer("weight", weight.to(torch.int8).T.contiguous())  # (inputs, outputs), as MatMul takes it
        self.register_buffer("scale", scale.flatten().expand(trained.out_features).contiguous())
        self.register_buffer("zeros", torch.zeros(trained.out_features, dtype=torch.int8))
        step, zero = activation_grid(trained.inputs.low, trained.inputs.high)
        self.step, self.zero = float(step), int(zero)

    def forward(self, values: Tensor) -> Tensor:
        """Return outputs (..., outputs) for inputs (..., inputs)."""
        o = torch.ops.quantized_decomposed
        if values.dim() == 2:  # ONNX Runtime makes Gemm of a product of matrices, and runs that in fp32
            return self.forward(values.unsqueeze(1)).squeeze(1)
        grid = (self.step, self.zero, 0, ACTIVATIONS, torch.uint8)
        values = o.dequantize_per_tensor(o.quantize_per_tensor(values, *grid), *grid)
        weight = o.dequantize_per_channel(
            self.weight, self.scale, self.zeros, 1, -self.highest, self.highest, torch.int8
        )
        product: Tensor = values @ weight
        return product if self.bias is None else product + self.bias


class IntegerEmbedding(nn.Module):
    """An embedding table of s8 integers; only the rows that are looked up become fp32."""

    weight: Tensor
    scale: Tensor

    def __init__(self, trained: FakeQuantizedEmbedding) -> None:
        super().__init__()
        scale = trained.scale()
        weight = integers(trained.weight, scale, torch.zeros_like(scale), -EMBEDDINGS, EMBEDDINGS)
        self.register_buffer("weight", weight.to(torch.int8))
        self.register_buffer("scale", scale)
        self.per_channel = trained.per_channel

    def forward(self, numbers: Tensor) -> Tensor:
        """Return embeddings (..., width) of numbers (...)."""
        rows = nn.functional.embedding(numbers, self.weight).float()
        return rows * (nn.functional.embedding(numbers, self.scale) if self.per_channel else self.scale[0])


@torch.no_grad()
def as_integers(model: PreTrainedModel) -> PreTrainedModel:
    """Return a copy of a trained fake-quantized model that holds integers; it is meant for ONNX."""
    copy: PreTrainedModel = deepcopy(model).eval()
    for name, module in list(copy.named_modules()):
        if isinstance(module, FakeQuantizedLinear):
            copy.set_submodule(name, IntegerLinear(module))
        elif isinstance(module, FakeQuantizedEmbedding):
            copy.set_submodule(name, IntegerEmbedding(module))
    return copy
