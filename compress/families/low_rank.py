"""A linear layer as the product of two thin ones."""

from __future__ import annotations

from torch import Tensor, nn


class LowRankLinear(nn.Module):
    """A linear layer whose weight is ``up · down``, (outputs, rank) times (rank, inputs), and never multiplied out."""

    def __init__(self, whole: nn.Linear, rank: int) -> None:
        super().__init__()
        like = {"device": whole.weight.device, "dtype": whole.weight.dtype}
        self.down = nn.Linear(whole.in_features, rank, bias=False, **like)
        self.up = nn.Linear(rank, whole.out_features, bias=whole.bias is not None, **like)

    def forward(self, states: Tensor) -> Tensor:
        """Return outputs (..., outputs) for inputs (..., inputs)."""
        outputs: Tensor = self.up(self.down(states))
        return outputs


def linear_layers(name: str, module: nn.Module) -> dict[str, nn.Module]:
    """Return a linear layer by its name, or the two that it is the product of by theirs."""
    if isinstance(module, LowRankLinear):
        return {f"{name}.down": module.down, f"{name}.up": module.up}
    return {name: module}
