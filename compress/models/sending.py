"""What is trained, on its way to another process: tensors for its own device, large arrays left in files.

It is pickled, as it holds whatever an objective does. So only this user can enter the folder, and the reader is told,
on the way by which it hears everything else, the digest of what it may read.
"""

from __future__ import annotations

import hashlib
import pickle
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from torch import nn
from transformers import PreTrainedModel

from compress.families.forms.remade import remade
from compress.mapped import SMALL
from compress.models import masking
from compress.models.quiet import quiet

SENT = "sent.pt"


class ForeignError(Exception):
    """What lies in the folder is not what was sent."""


def send(value: Any, folder: Path) -> str:
    """Write a value into a new folder; return its digest. Raises what pickle raises for one that it cannot write."""
    folder.mkdir(mode=0o700)

    class Pickler(pickle.Pickler):
        """Pickle, with what it does not know of models, and with large arrays in files of their own."""

        arrays = 0

        def reducer_override(self, value: Any) -> Any:
            """Return how a value is made again; NotImplemented where pickle knows."""
            found: tuple[Any, ...] | None = None
            if isinstance(value, np.memmap) and isinstance(value.filename, (str, Path)):
                place = (value.dtype, "r", value.offset, value.shape)
                found = np.memmap, (value.filename, *place)
            elif isinstance(value, np.ndarray) and value.nbytes > SMALL and not value.dtype.hasobject:
                self.arrays += 1
                path = folder / f"{self.arrays}.npy"
                np.save(path, value)
                found = np.load, (path, "r")
            elif isinstance(value, type):
                found = remade(value)
            elif isinstance(value, PreTrainedModel):
                found = _begun, (type(value), value.config), value.__dict__.copy(), None, None, _filled
            elif isinstance(value, nn.Module):
                found = masking.remade(value)
            return NotImplemented if found is None else found

    with (folder / SENT).open("x+b") as file:
        torch.save(value, file, pickle_module=SimpleNamespace(Pickler=Pickler, __name__="pickle"))
        file.seek(0)
        return hashlib.file_digest(file, "sha256").hexdigest()


def receive(folder: Path, digest: str, device: torch.device) -> Any:
    """Return a value that `send` wrote, its tensors on a device; raises ForeignError before it reads anything else."""
    with (folder / SENT).open("rb") as file:
        if hashlib.file_digest(file, "sha256").hexdigest() != digest:
            raise ForeignError(f"{folder} does not hold what was sent.")
        file.seek(0)
        return torch.load(file, map_location=device, weights_only=False)


def _begun(kind: type[PreTrainedModel], config: Any) -> PreTrainedModel:
    """Return a model without values: transformers notes about classes, in every process, when one is first made."""
    with torch.device("meta"), quiet():
        return kind(config)


def _filled(model: PreTrainedModel, state: dict[str, Any]) -> None:
    model.__dict__.update(state)
