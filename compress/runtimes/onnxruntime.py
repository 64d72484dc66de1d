"""ONNX Runtime: graphs on the CPU and, with its CUDA provider, on a GPU."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from compress.errors import MissingPackageError, ModelError
from compress.machine import lacks_instructions
from compress.models.facts import GraphFacts, read_facts
from compress.onnx.folder import MODEL, graph_in
from compress.onnx.needs import IN_FLOATS, numbered
from compress.onnx.package import import_onnx
from compress.onnx.products import MatrixProduct, matrix_products
from compress.onnx.storage import BESIDE, as_given, is_outside
from compress.runtimes.base import Executed, PartProducts, Runtime, Session, TensorSession, together
from compress.runtimes.devices import CPU, CUDA, Device
from compress.tasks.base import Array

PROVIDERS = {CPU.name: "CPUExecutionProvider", CUDA.name: "CUDAExecutionProvider"}


def import_onnxruntime(purpose: str) -> Any:
    """Return the module; raises MissingPackageError."""
    try:
        import onnxruntime
    except ImportError as error:
        raise MissingPackageError("onnxruntime", "onnx", purpose) from error
    return onnxruntime


class OnnxRuntime(Runtime):
    """Folders with a graph."""

    name = "onnxruntime"
    counted = frozenset({"int8", "int4"})

    def owns(self, folder: Path) -> bool:
        """Return whether there is a graph."""
        return graph_in(folder) is not None

    def unavailable(self, folder: Path, device: Device) -> str:
        """Return why it cannot run: what it needs of the package, its provider for the device or the processor."""
        try:
            ort = import_onnxruntime("Running ONNX")
        except MissingPackageError:
            return "onnxruntime is not installed (pip install 'compress-encoders[onnx]')"
        if device.name not in PROVIDERS:
            return f"ONNX Runtime has no provider for {device.name} that is used here"
        if device.missing():
            return device.missing()
        if PROVIDERS[device.name] not in ort.get_available_providers():
            return f"this onnxruntime {ort.__version__} is built without CUDA (pip install onnxruntime-gpu)"
        facts = read_facts(folder)
        return "" if facts is None or facts.graph is None else _lacking(facts.graph, ort.__version__, device)

    def load(self, folder: Path, device: Device, *, threads: int, variant: str = "") -> Session:
        """Return the graph's session; raises ModelError."""
        return graph_session(_graph(folder), threads, device)

    def executed(self, folder: Path, device: Device) -> Executed | None:
        """Return what the graph that ONNX Runtime made of a model for the device computes."""
        if self.unavailable(folder, device):
            return None
        found = optimized_products(_graph(folder), device)
        return Executed(int8=sum(product.int8 for product in found), products=len(found), parts=by_part(found))


def _graph(folder: Path) -> Path:
    graph = graph_in(folder)
    if graph is None:
        raise ModelError(f"{folder}: has no {MODEL}, and its config.json names no other graph.")
    return graph


def _lacking(graph: GraphFacts, installed: str, device: Device) -> str:
    """Return what this machine lacks that a graph needs, as a clause with the remedy; empty where it has everything."""
    if numbered(installed) < numbered(graph.onnxruntime):
        return (
            f"its graph (opset {graph.opset}, IR {graph.ir_version}) needs ONNX Runtime {graph.onnxruntime} or newer, "
            f"and {installed} is installed (pip install --upgrade onnxruntime)"
        )
    if device.name == CPU.name and graph.instructions and lacks_instructions(graph.instructions):
        return (
            f"its {graph.weight_bits}-bit weights need a processor with {' or '.join(graph.instructions)}, and this "
            "one has none of them: its sums of products would saturate (quantize again with weight_bits=7)"
        )
    return ""


def graph_session(model: Path | Any, threads: int, device: Device = CPU) -> Session:
    """Return a graph, a file or an ``onnx.ModelProto``, loaded on a device; raises ModelError."""
    session = inference_session(model, threads, device)
    return OnnxCudaSession(session, device) if device.own_memory else OnnxSession(session, device)


def logits_of_graph(session: Any, inputs: Mapping[str, Array]) -> Array:
    """Return the logits that ONNX Runtime's own session gives; outputs of a graph that has several are put together."""
    outputs = session.run(None, dict(inputs))
    logits: Array = outputs[0] if len(outputs) == 1 else np.stack(outputs, axis=-1)
    return logits


class OnnxSession(Session):
    """A graph on the CPU, fed with arrays."""

    def __init__(self, session: Any, device: Device) -> None:
        super().__init__(device)
        self.session = session

    def run(self, placed: Mapping[str, Array]) -> Any:
        """Return the logits."""
        return logits_of_graph(self.session, placed)


class OnnxCudaSession(TensorSession):
    """A graph on a GPU; inputs and logits stay there, bound to PyTorch's tensors."""

    def __init__(self, session: Any, device: Device) -> None:
        super().__init__(device)
        self.session = session

    def run(self, placed: Mapping[str, Tensor]) -> Tensor:
        """Return the logits on the GPU."""
        binding, place = self.session.io_binding(), self.device.torch_device
        outputs = {name: torch.empty(shape, device=place) for name, shape in self.shapes_of_outputs(placed).items()}
        for name, value in placed.items():
            binding.bind_input(name, place.type, 0, "int64", tuple(value.shape), value.data_ptr())
        for name, value in outputs.items():
            binding.bind_output(name, place.type, 0, "float32", tuple(value.shape), value.data_ptr())
        self.session.run_with_iobinding(binding)
        return together(list(outputs.values()))

    def shapes_of_outputs(self, placed: Mapping[str, Tensor]) -> dict[str, tuple[int, ...]]:
        """Return (batch, outputs), or (batch, tokens, …) of a graph that answers for every token, by output."""
        sizes = {
            dimension: size
            for declared in self.session.get_inputs()
            for dimension, size in zip(declared.shape, placed[declared.name].shape, strict=True)
        }
        return {
            output.name: tuple(sizes.get(dimension, dimension) for dimension in output.shape)
            for output in self.session.get_outputs()
        }


def inference_session(model: Path | Any, threads: int, device: Device = CPU, *, optimized: Path | None = None) -> Any:
    """Return ONNX Runtime's own session of a graph, a file or an ``onnx.ModelProto``; raises ModelError.

    ``threads`` 0: as many as there are cores. The optimized graph is written to ``optimized``.
    """
    ort = import_onnxruntime("Running ONNX")
    options = ort.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    options.log_severity_level = 3
    if optimized is not None:
        options.optimized_model_filepath = str(optimized)
        if isinstance(model, Path) and is_outside(model):
            options.add_session_config_entry(
                "session.optimized_model_external_initializers_file_name", f"{optimized.name}{BESIDE}"
            )
    provider = PROVIDERS[device.name]
    providers = [(provider, _provider_options(device))]
    try:
        with nullcontext(str(model)) if isinstance(model, Path) else as_given(model) as given:
            session = ort.InferenceSession(given, options, providers=providers)
            if IN_FLOATS in session.get_modelmeta().custom_metadata_map:
                # products of signed integers saturate on processors that sum them in 16 bits
                options.add_session_config_entry("session.disable_quant_qdq", "1")
                session = ort.InferenceSession(given, options, providers=providers)
    except Exception as error:  # onnxruntime's errors share no base class
        name = model if isinstance(model, Path) else "the graph"
        raise ModelError(f"{name}: ONNX Runtime cannot load it: {str(error).splitlines()[0]}") from error
    if session.get_providers()[0] != provider:
        raise ModelError(f"ONNX Runtime could not start its {provider}: CUDA's or cuDNN's libraries are missing")
    return session


def _provider_options(device: Device) -> dict[str, str]:
    """Return PyTorch's current stream for a GPU, on which events time it, and fp32 that is fp32 there."""
    if device.name == CPU.name:
        return {}
    return {"user_compute_stream": str(torch.cuda.current_stream().cuda_stream), "use_tf32": "0"}


def optimized_products(model: Path, device: Device = CPU) -> list[MatrixProduct]:
    """Return the matrix products of a graph as ONNX Runtime optimizes it for a device.

    The products of attention itself, Q·Kᵀ and P·V, which have no weights, count too; so do a convolution and an
    LSTM direction, as one each.
    """
    onnx = import_onnx("Reading the optimized graph")
    with tempfile.TemporaryDirectory() as aside:
        optimized = Path(aside) / MODEL
        inference_session(model, 1, device, optimized=optimized)
        return matrix_products(onnx.load(optimized, load_external_data=False).graph)


def by_part(products: list[MatrixProduct]) -> list[PartProducts]:
    """Return, for each part of the model that has products, the names of those that run in int8 and of the others."""
    parts: dict[str, list[MatrixProduct]] = {}
    for product in products:
        parts.setdefault(product.part, []).append(product)
    return [
        PartProducts(
            part=part,
            int8=[product.name for product in found if product.int8],
            floats=[product.name for product in found if not product.int8],
        )
        for part, found in parts.items()
    ]
