"""The runtimes by name; the one place where they are chosen."""

from __future__ import annotations

from pathlib import Path

from compress.errors import ModelError
from compress.models.loading import load_config
from compress.runtimes.base import Runtime, Session
from compress.runtimes.devices import CPU, Device
from compress.runtimes.onnxruntime import OnnxRuntime
from compress.runtimes.pytorch import PyTorch
from compress.runtimes.tensorrt import TensorRtRuntime

RUNTIMES: dict[str, Runtime] = {}
"""Of two that load a folder and can run it, the one that was registered later does."""


def register(runtime: Runtime) -> None:
    """Make a runtime known by its name; raises ValueError where another has that name."""
    if RUNTIMES.setdefault(runtime.name, runtime) is not runtime:
        raise ValueError(f"there is already a runtime called {runtime.name}")


for _runtime in (PyTorch(), OnnxRuntime(), TensorRtRuntime()):
    register(_runtime)


def runtime_of(folder: Path, device: Device = CPU) -> Runtime:
    """Return the runtime that runs a folder on a device; raises ModelError with the reasons where none can."""
    reasons = []
    for runtime in reversed(RUNTIMES.values()):
        if runtime.owns(folder):
            why = runtime.unavailable(folder, device)
            if not why:
                return runtime
            reasons.append(f"{runtime.name}: {why}")
    if not reasons:
        load_config(folder)  # which says what a model's folder lacks
    told = "; ".join(reasons) or "no runtime loads a folder like this"
    raise ModelError(f"{folder}: cannot be run on {device.name}. {told}.")


def load_session(folder: Path, device: Device = CPU, *, threads: int = 1) -> Session:
    """Return an artifact or model folder loaded on a device by the runtime that runs it; raises CompressError."""
    return runtime_of(folder, device).load(folder, device, threads=threads)
