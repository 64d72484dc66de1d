"""Fine-tuning with too little memory, which other processes can import."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

from compress.train import Supervised


class Short(Supervised):
    """Raises what PyTorch raises when it is given more than ``most`` rows."""

    def __init__(self, model: PreTrainedModel, most: int) -> None:
        super().__init__(model)
        self.most = most

    def forward(self, batch: Any, *arguments: Any) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the loss."""
        found = super().forward(batch, *arguments)
        if len(batch["input_ids"]) > self.most:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB.")
        return found
