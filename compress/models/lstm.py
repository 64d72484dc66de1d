"""One direction of an LSTM, in the form that ONNX has it, so that it is exported as one node of any length."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

TORCH_ORDER = (0, 2, 3, 1)  # ONNX has input, output, forget, cell; PyTorch input, forget, cell, output


class Lstm(nn.Module):
    """An LSTM over (tokens, batch, inputs), first to last, from a state of zeros; gives (tokens, batch, units)."""

    def __init__(self, inputs: int, units: int) -> None:
        super().__init__()
        bound = 1 / math.sqrt(units)  # as PyTorch starts it
        self.weight, self.recurrence, self.bias = (
            nn.Parameter(torch.empty(shape).uniform_(-bound, bound))
            for shape in ((1, 4 * units, inputs), (1, 4 * units, units), (1, 8 * units))
        )

    def forward(self, states: Tensor) -> Tensor:
        """Return the hidden state after each token."""
        if torch.compiler.is_exporting():
            exported: Tensor = torch.ops.compress.lstm(states, self.weight, self.recurrence, self.bias)
            return exported
        return _lstm(states, self.weight, self.recurrence, self.bias)


def _lstm(states: Tensor, weight: Tensor, recurrence: Tensor, bias: Tensor) -> Tensor:
    units = recurrence.shape[2]
    start = states.new_zeros(1, states.shape[1], units)
    order = list(TORCH_ORDER)
    parts = [
        part.view(4, units, -1)[order].reshape(4 * units, -1).squeeze(-1)
        for part in (weight[0], recurrence[0], *bias[0].chunk(2))
    ]
    hidden: Tensor = torch._VF.lstm(states, (start, start), parts, True, 1, 0.0, False, False, False)[0]
    return hidden


@torch.library.custom_op("compress::lstm", mutates_args=())
def _exported(states: Tensor, weight: Tensor, recurrence: Tensor, bias: Tensor) -> Tensor:
    return _lstm(states, weight, recurrence, bias)


@_exported.register_fake
def _(states: Tensor, weight: Tensor, recurrence: Tensor, bias: Tensor) -> Tensor:
    return states.new_empty(states.shape[0], states.shape[1], recurrence.shape[2])
