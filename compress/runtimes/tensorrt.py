"""TensorRT: engines, each executed on the GPU that it was built for."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from compress.machine import compute_capability
from compress.onnx.folder import MODEL
from compress.runtimes.base import Executed, Runtime, Session, TensorSession, together
from compress.runtimes.devices import CUDA, Device
from compress.runtimes.engine_layers import layers_of, summarise
from compress.runtimes.tensorrt_bindings import GET_FULL, GET_RTX, Engine, installed, load_engine

ENGINE, LAYERS = ".engine", ".layers.json"  # behind a GPU's generation: sm86.engine, sm86.layers.json


class TensorRtRuntime(Runtime):
    """Folders with engines, each beside the graph that it was built from."""

    name = "tensorrt"
    counted = frozenset({"int8"})

    def owns(self, folder: Path) -> bool:
        """Return whether there is an engine."""
        return any(folder.glob(f"*{ENGINE}"))

    def unavailable(self, folder: Path, device: Device) -> str:
        """Return why it cannot run: no NVIDIA GPU, no engine for this GPU, or TensorRT is missing."""
        if device.name != CUDA.name:
            return "engines run on an NVIDIA GPU (device cuda)"
        if device.missing():
            return device.missing()
        if not _engine_here(folder).is_file():
            others = ", ".join(sorted(path.stem for path in folder.glob(f"*{ENGINE}"))) or "no GPU"
            return f"its engines are for {others}, not for this machine's {_engine_here(folder).stem}"
        if not installed():
            return f"neither tensorrt ({GET_FULL}) nor TensorRT-RTX ({GET_RTX}) is installed"
        return ""

    def load(self, folder: Path, device: Device, *, threads: int, variant: str = "") -> Session:
        """Return the engine for the GPU that is here; raises ModelError."""
        return EngineSession(load_engine(_engine_here(folder)), device)

    def executed(self, folder: Path, device: Device) -> Executed | None:
        """Return the counts of the engine for the GPU that is here, else those of the one with the least in int8.

        None where no engine told its layers.
        """
        here = _engine_here(folder)
        engines = [here] if here.is_file() else sorted(folder.glob(f"*{ENGINE}"))
        tables = [layers_of(path.with_suffix(LAYERS)) for path in engines]
        counts = [summarise(layers, folder / MODEL) for layers in tables if layers]
        least = min(counts, key=lambda summary: (summary.int8_products, summary.products), default=None)
        return Executed(int8=least.int8_products, products=least.products) if least else None


def _engine_here(folder: Path) -> Path:
    """Return where the engine for this machine's GPU is, if it is there."""
    return folder / f"sm{(compute_capability() or 'none').replace('.', '')}{ENGINE}"


class EngineSession(TensorSession):
    """An engine; inputs and logits are PyTorch's tensors on the GPU."""

    def __init__(self, engine: Engine, device: Device) -> None:
        super().__init__(device)
        self.engine = engine

    def run(self, placed: Mapping[str, Tensor]) -> Tensor:
        """Return the logits on the GPU; raises ModelError for a batch outside the engine's profile."""
        shapes = self.engine.prepare({name: tuple(value.shape) for name, value in placed.items()})
        outputs = {name: torch.empty(shape, device=self.device.torch_device) for name, shape in shapes.items()}
        addresses = {name: value.data_ptr() for name, value in {**placed, **outputs}.items()}
        self.engine.start(addresses, torch.cuda.current_stream().cuda_stream)
        return together(list(outputs.values()))
