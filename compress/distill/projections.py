"""Projections of a narrower student's states, handed from one stage of training to the next."""

from __future__ import annotations

from pathlib import Path

from safetensors.torch import load_file, save_file
from torch import nn

from compress.pipeline.rewrite import PROJECTIONS


def keep(projections: nn.ModuleDict, folder: Path) -> None:
    """Write projections beside the model that they were trained with; nothing where there are none."""
    if projections:
        tensors = {name: value.detach().cpu().contiguous() for name, value in projections.state_dict().items()}
        save_file(tensors, folder / PROJECTIONS)


def go_on(projections: nn.ModuleDict, folder: Path) -> bool:
    """Give ``projections`` the values saved in ``folder`` if they exist and fit; return whether they did.

    TinyBERT's task stages continue with the projection of the general one (arXiv:1909.10351, the authors' code).
    """
    path = folder / PROJECTIONS
    if not projections or not path.exists():
        return False
    kept, own = load_file(path), projections.state_dict()
    if {name: value.shape for name, value in kept.items()} != {name: value.shape for name, value in own.items()}:
        return False
    projections.load_state_dict(kept)
    return True
