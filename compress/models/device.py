"""The device of training and prediction."""

from __future__ import annotations

import torch


def device() -> torch.device:
    """Return the device that training and prediction use: the process's GPU, the first by default, else the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")
