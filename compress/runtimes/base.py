"""What a runtime is: which folders are its own, where it runs them, and what then executes in which precision."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor

from compress.runtimes.devices import Device
from compress.tasks.base import Array


@dataclass(frozen=True, kw_only=True)
class Variant:
    """One of the ways in which a runtime runs the same folder; the first of a device is what others compare with."""

    name: str = ""  # "" where there is only one
    precision: str = ""  # of weights and products; "" where it is the folder's own


@dataclass(frozen=True, kw_only=True)
class PartProducts:
    """The matrix products of one part of a model, by name."""

    part: str
    int8: Sequence[str]  # those that run in int8
    floats: Sequence[str]


@dataclass(frozen=True, kw_only=True)
class Executed:
    """How many matrix products a loaded model executes in int8."""

    int8: int
    products: int  # all of them; those of attention itself and convolutions count too
    parts: Sequence[PartProducts] = ()  # empty where the runtime does not tell the parts


class Session(ABC):
    """A model on a device. It is called inside the device's `active` context."""

    def __init__(self, device: Device, variant: str = "") -> None:
        self.device, self.variant = device, variant

    def place(self, inputs: Mapping[str, Array]) -> Any:
        """Return a batch as `run` takes it, on the device. Inputs: (batch, tokens) int64 by name."""
        return inputs

    @abstractmethod
    def run(self, placed: Any) -> Any:
        """Start the computation and return the logits where it leaves them; the device may still be at work."""

    def fetch(self, logits: Any) -> Array:
        """Return what `run` gave, fp32 in the CPU's memory, when it is there."""
        answer: Array = logits
        return answer

    def __call__(self, inputs: Mapping[str, Array]) -> Array:
        """Return the logits of a batch, copies to the device and back included.

        They are fp32, (batch, outputs), or (batch, tokens, outputs) of models that answer for every token.
        """
        return self.fetch(self.run(self.place(inputs)))


class TensorSession(Session):
    """A model that takes and gives PyTorch's tensors on its device."""

    def place(self, inputs: Mapping[str, Array]) -> dict[str, Tensor]:
        """Return the inputs as tensors on the device."""
        place = self.device.torch_device
        return {name: torch.from_numpy(value).to(place, non_blocking=True) for name, value in inputs.items()}

    def fetch(self, logits: Tensor) -> Array:
        """Return the logits."""
        answer: Array = logits.float().cpu().numpy()
        return answer


def together(outputs: Sequence[Tensor]) -> Tensor:
    """Return the logits in the outputs of a graph: stacked, (batch, tokens, outputs), where it has several."""
    return outputs[0] if len(outputs) == 1 else torch.stack(list(outputs), dim=-1)


class Runtime(ABC):
    """A way of executing models. One object of each kind is registered under its name."""

    name: ClassVar[str]
    counted: ClassVar[frozenset[str]] = frozenset()
    """Precisions of artifacts whose integer products `executed` counts."""

    @abstractmethod
    def owns(self, folder: Path) -> bool:
        """Return whether the runtime loads folders of this form."""

    @abstractmethod
    def unavailable(self, folder: Path, device: Device) -> str:
        """Return why a folder of its own cannot run on a device of this machine, as a clause; empty where it can."""

    def variants(self, folder: Path, device: Device) -> Sequence[Variant]:
        """Return the ways of running a folder that are worth comparing on a device, the plainest first."""
        return (Variant(),)

    @abstractmethod
    def load(self, folder: Path, device: Device, *, threads: int, variant: str = "") -> Session:
        """Return a folder loaded on a device; raises CompressError. ``threads`` are those of a CPU."""

    def executed(self, folder: Path, device: Device) -> Executed | None:
        """Return what executes in int8 on a device; None where the runtime cannot tell."""
        return None
