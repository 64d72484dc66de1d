"""PyTorch: what the Auto classes load, as it is, with another attention, in half precision or compiled."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from compress.errors import ModelError
from compress.models.loading import load_config, load_model
from compress.onnx.folder import MODEL
from compress.runtimes.base import Runtime, Session, TensorSession, Variant
from compress.runtimes.devices import Device
from compress.tasks.heads import logits_of

COMPILED = "torch.compile fp16"


@dataclass(frozen=True, kw_only=True)
class TorchVariant(Variant):
    """How a model is changed after loading."""

    attention: str | None = None  # transformers' name; None: its default
    half: bool = False
    compiled: bool = False


AS_LOADED = TorchVariant(precision="fp32")
ON_A_GPU = (
    TorchVariant(name="eager fp32", precision="fp32", attention="eager"),
    TorchVariant(name="eager fp16", precision="fp16", attention="eager", half=True),
    TorchVariant(name="SDPA fp32", precision="fp32", attention="sdpa"),
    TorchVariant(name="SDPA fp16", precision="fp16", attention="sdpa", half=True),
    TorchVariant(name=COMPILED, precision="fp16", attention="sdpa", half=True, compiled=True),
)
FORMS = {form.name: form for form in (AS_LOADED, *ON_A_GPU)}


class PyTorch(Runtime):
    """Models that transformers saved, quantized ones too."""

    name = "pytorch"

    def owns(self, folder: Path) -> bool:
        """Return whether there are weights and no graph."""
        return any(folder.glob("*.safetensors")) and not (folder / MODEL).is_file()

    def unavailable(self, folder: Path, device: Device) -> str:
        """Return why the device is missing."""
        return device.missing()

    def variants(self, folder: Path, device: Device) -> Sequence[Variant]:
        """Return forms of attention and precision on a GPU; elsewhere, and for quantized models, the model as it is."""
        if device.torch_device.type == "cpu":
            return (AS_LOADED,)
        return (Variant(),) if _is_quantized(folder) else ON_A_GPU

    def load(self, folder: Path, device: Device, *, threads: int, variant: str = "") -> Session:
        """Return the model in one of `FORMS`; raises ModelError. `torch_threads` sets the threads, around calls."""
        return self.session(load_model(folder, on=device.torch_device), device, FORMS[variant])

    @staticmethod
    def session(model: PreTrainedModel, device: Device, form: TorchVariant) -> Session:
        """Return a model that is loaded already, which is changed to ``form``; raises ModelError."""
        logging.getLogger("bitsandbytes").setLevel(logging.ERROR)  # it reports at every product that it casts
        if form.attention is not None:
            _set_attention(model, form.attention)
        if form.half:
            nn.Module.to(model, torch.float16)
        return TorchSession(_compiled(model, device) if form.compiled else model, device, form.name)


class TorchSession(TensorSession):
    """A module that takes inputs by name."""

    def __init__(self, model: Callable[..., Any], device: Device, variant: str = "") -> None:
        super().__init__(device, variant)
        self.model = model

    @torch.inference_mode()
    def run(self, placed: Mapping[str, Tensor]) -> Tensor:
        """Return the logits on the device."""
        logits: Tensor = logits_of(self.model(**placed))
        return logits


def _is_quantized(folder: Path) -> bool:
    return getattr(load_config(folder, weights=False), "quantization_config", None) is not None


def _set_attention(model: PreTrainedModel, name: str) -> None:
    try:
        model.set_attn_implementation(name)
    except (ValueError, ImportError) as error:  # of models that transformers offers no such attention for
        raise ModelError(f"models of type {model.config.model_type} have no {name} attention") from error


def _compiled(model: nn.Module, device: Device) -> Callable[..., Any]:
    """Return a model compiled once, for all lengths from the second on."""
    if device.torch_device.type == "cpu":
        return torch.compile(model, backend="aot_eager")  # needs no C++ compiler
    return torch.compile(model)


@contextmanager
def torch_threads(count: int) -> Iterator[None]:
    """Let torch use ``count`` threads, then as many as before."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
