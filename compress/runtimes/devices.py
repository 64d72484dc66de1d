"""The processors that models run on. Measured times and logits belong to a device, and say which."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import cached_property
from typing import Any, ClassVar

import torch

from compress.errors import CompressError
from compress.machine import instructions
from compress.settings import nearest


class Device:
    """A processor: whether it is here, how to wait for it, and how to time what it does.

    This class is a processor with the CPU's memory and clock; others override what differs.
    """

    name: ClassVar[str]
    own_memory: ClassVar[bool] = False  # inputs and logits have to be copied, so timings with and without copies differ

    def missing(self) -> str:
        """Return why this machine lacks the device, as a clause; empty where it is here."""
        return ""

    @property
    def torch_device(self) -> torch.device:
        """The device as PyTorch names it."""
        return torch.device("cpu")

    @property
    def identity(self) -> str:
        """What logits computed here depend on: the name, and the processor or its instructions."""
        return " ".join((self.name, *instructions()))

    def active(self) -> AbstractContextManager[Any]:
        """Return the context in which models are loaded and called, so that all work is in one queue."""
        return nullcontext()

    def synchronize(self) -> None:
        """Wait until everything that was started is done."""

    def seconds(self, action: Callable[[], object]) -> float:
        """Return how long an action takes, from an idle device until everything that it started is done."""
        self.synchronize()
        start = time.perf_counter()
        action()
        self.synchronize()
        return time.perf_counter() - start


class Cpu(Device):
    """The machine's processor."""

    name = "cpu"


class Cuda(Device):
    """The first NVIDIA GPU, timed between events on one stream that all runtimes share."""

    name = "cuda"
    own_memory = True

    def missing(self) -> str:
        """Return why there is no usable GPU."""
        if torch.cuda.is_available():
            return ""
        if torch.version.cuda is None:
            return "the installed torch is built without CUDA"
        return "torch finds no NVIDIA GPU and driver"

    @property
    def torch_device(self) -> torch.device:
        """The first GPU."""
        return torch.device("cuda", 0)

    @property
    def identity(self) -> str:
        """The name, and the GPU's."""
        return f"{self.name} {torch.cuda.get_device_name(self.torch_device)}"

    @cached_property
    def stream(self) -> torch.cuda.Stream:
        """The stream of all work; the default one has no address that another runtime could be given."""
        return torch.cuda.Stream(self.torch_device)

    def active(self) -> AbstractContextManager[Any]:
        """Return the context in which this stream is the current one."""
        return torch.cuda.stream(self.stream)

    def synchronize(self) -> None:
        """Wait for all streams."""
        torch.cuda.synchronize(self.torch_device)

    def seconds(self, action: Callable[[], object]) -> float:
        """Return the time between two events on the stream around an action."""
        first, last = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        self.synchronize()
        with self.active():
            first.record()
            action()
            last.record()
        self.synchronize()
        return float(first.elapsed_time(last)) / 1e3


CPU, CUDA = Cpu(), Cuda()
DEVICES: dict[str, Device] = {CPU.name: CPU, CUDA.name: CUDA}
"""Every known device by name, in the order in which they are measured where none are chosen."""


def register_device(device: Device) -> None:
    """Make a device known by its name; raises ValueError where another has that name."""
    if DEVICES.setdefault(device.name, device) is not device:
        raise ValueError(f"there is already a device called {device.name}")


def devices_here() -> list[str]:
    """Return the names of the devices that this machine has."""
    return [name for name, device in DEVICES.items() if not device.missing()]


def device_fault(names: Sequence[str]) -> tuple[str, str] | None:
    """Return the rule that a list of devices breaks, and a remedy; None where all of them are here, each once."""
    for name in names:
        if name not in DEVICES:
            return f"{name!r} is not a device", nearest(name, list(DEVICES))
        if why := DEVICES[name].missing():
            return f"this machine has no device {name}: {why}", f"Here: {', '.join(devices_here())}."
    if len(set(names)) < len(names):
        return "must list each device once", ""
    return None


def chosen_devices(names: Sequence[str], option: str) -> list[Device]:
    """Return the devices of a command-line option; without names, all that this machine has. Raises CompressError."""
    if fault := device_fault(names):
        rule, remedy = fault
        raise CompressError(f"{option} {','.join(names)}: {rule}. {remedy}".rstrip())
    return [DEVICES[name] for name in names or devices_here()]
