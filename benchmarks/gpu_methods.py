"""How a classifier can be run on a GPU: each method turns a model into a function from token numbers to logits.

Only torch and transformers are needed; a method whose package is missing says so, and the others go on. What
writes ONNX or builds engines comes from `compress`, imported there.
"""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AutoConfig, AutoModelForSequenceClassification, BertConfig, DistilBertConfig

Inputs = Mapping[str, Tensor]
Run = Callable[[Inputs], Tensor]
"""Token numbers on the device, (batch, tokens) int64, to logits on the device, (batch, outputs), any float type."""

SHAPES: dict[str, Callable[[], Any]] = {
    "bert-base": BertConfig,
    "distilbert": DistilBertConfig,
    "tinybert4": lambda: BertConfig(
        num_hidden_layers=4, hidden_size=312, num_attention_heads=12, intermediate_size=1200
    ),
}
"""Models that are measured with random weights: latency does not depend on their values."""


class NotMeasured(Exception):
    """A method cannot run here; the message says why."""


@dataclass
class Subject:
    """One model under all methods. What methods share of it is made once."""

    name: str
    device: torch.device
    folder: Path | None = None  # saved weights; None: random ones of the shape called ``name``
    config: Any = None
    largest: tuple[int, int] = (128, 384)  # batch and tokens that engines must take
    scratch: Path = Path()  # an empty folder of its own, for graphs
    int8: Path | None = None  # its ONNX graph in symmetric int8, as in artifacts/tensorrt-int8

    def __post_init__(self) -> None:
        if self.folder is not None:
            _know_students()
            self.config = AutoConfig.from_pretrained(str(self.folder))
        elif self.config is None:
            self.config = SHAPES[self.name]()

    def load(self, attention: str, dtype: torch.dtype) -> nn.Module:
        """Return the model on the device."""
        if self.folder is not None:
            model = AutoModelForSequenceClassification.from_pretrained(
                str(self.folder), attn_implementation=attention, dtype=torch.float32, use_safetensors=True
            )
        else:
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(0)
                # the configuration keeps the attention that a model was made with, so each model has its own
                model = AutoModelForSequenceClassification.from_config(
                    copy.deepcopy(self.config), attn_implementation=attention
                )
        loaded: nn.Module = model.eval().requires_grad_(False).to(self.device, dtype)
        return loaded

    @cached_property
    def names(self) -> list[str]:
        """The inputs that the model takes."""
        with torch.device("meta"):
            model = AutoModelForSequenceClassification.from_config(copy.deepcopy(self.config))
        taken = inspect.signature(model.forward).parameters
        return [name for name in ("input_ids", "attention_mask", "token_type_ids") if name in taken]

    @property
    def longest(self) -> int:
        """The longest row that the model takes."""
        most = getattr(self.config, "max_position_embeddings", None) or 10**6
        return most - 2 if "roberta" in self.config.model_type else most

    @cached_property
    def graph(self) -> Path:
        """The fp32 ONNX graph."""
        from compress.onnx.graph import write_onnx

        path = self.scratch / "fp32.onnx"
        write_onnx(self.load("eager", torch.float32).cpu(), self.names, path)  # type: ignore[arg-type]
        return path

    @cached_property
    def half_graph(self) -> Path:
        """The fp16 ONNX graph, normalizations in fp32."""
        from compress.onnx.half import write_half

        path = self.scratch / "fp16.onnx"
        write_half(self.graph, path)
        return path

    @property
    def int8_graph(self) -> Path:
        """The int8 ONNX graph that was given."""
        if self.int8 is None:
            raise NotMeasured("no int8 graph of it was given (--int8)")
        return self.int8


def inputs(subject: Subject, batch: int, tokens: int) -> dict[str, Tensor]:
    """Return random token numbers without padding, on the CPU; in pinned memory where the device is a GPU."""
    generator = torch.Generator().manual_seed(batch * 10_000 + tokens)
    numbers = torch.randint(0, subject.config.vocab_size, (batch, tokens), generator=generator)
    known = {"input_ids": numbers, "attention_mask": torch.ones_like(numbers)}
    made = {name: known.get(name, torch.zeros_like(numbers)) for name in subject.names}
    return {name: value.pin_memory() for name, value in made.items()} if subject.device.type == "cuda" else made


def _know_students() -> None:
    """Make transformers know this project's own model types, where the project can be imported."""
    try:
        import compress  # noqa: F401
    except Exception:  # stock models can be measured without it
        return


def pytorch(attention: str, dtype: torch.dtype) -> Callable[[Subject], Run]:
    """PyTorch as it is."""

    def prepare(subject: Subject) -> Run:
        model = subject.load(attention, dtype)
        return lambda given: model(**given).logits

    return prepare


def cuda_graph(subject: Subject) -> Run:
    """SDPA in fp16, each shape recorded once as a CUDA graph and replayed: no time for launching kernels."""
    if subject.device.type != "cuda":
        raise NotMeasured("CUDA graphs need a CUDA device")
    model = subject.load("sdpa", torch.float16)
    recorded: dict[tuple[int, ...], tuple[Any, dict[str, Tensor], Tensor]] = {}

    def run(given: Inputs) -> Tensor:
        shape = tuple(given["input_ids"].shape)
        if shape not in recorded:
            recorded.clear()  # conditions come one after the other, and each recording holds its memory
            static = {name: value.clone() for name, value in given.items()}
            for _ in range(3):
                model(**static)
            torch.cuda.synchronize()
            graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(graph):
                logits = model(**static).logits
            recorded[shape] = graph, static, logits
        graph, static, logits = recorded[shape]
        for name, value in given.items():
            static[name].copy_(value, non_blocking=True)
        graph.replay()
        return logits

    return run


def compiled(subject: Subject) -> Run:
    """torch.compile, max-autotune with CUDA graphs, SDPA in fp16, for each shape anew."""
    return _compile(subject.load("sdpa", torch.float16), subject.device)


def _compile(model: nn.Module, device: torch.device) -> Run:
    limits: Any = torch._dynamo.config
    limits.recompile_limit = max(64, getattr(limits, "recompile_limit", 0))
    if device.type == "cuda":
        quick = torch.compile(model, mode="max-autotune", dynamic=False)
    else:  # the same path without a C++ compiler, for the tests
        quick = torch.compile(model, backend="aot_eager", dynamic=False)

    def run(given: Inputs) -> Tensor:
        if device.type == "cuda":
            torch.compiler.cudagraph_mark_step_begin()
        logits: Tensor = quick(**given).logits
        return logits

    return run


def torchao_int8(subject: Subject) -> Run:
    """torchao: int8 weights, int8 activations quantized at run time, compiled; all else bf16."""
    quantization = _needed("torchao.quantization", "torchao")
    model = subject.load("sdpa", torch.bfloat16)
    kind = getattr(quantization, "Int8DynamicActivationInt8WeightConfig", None)
    kind = kind or quantization.int8_dynamic_activation_int8_weight  # its name before 0.7
    quantization.quantize_(model, kind(), filter_fn=lambda module, name: isinstance(module, nn.Linear) and _inner(name))
    return _compile(model, subject.device)


def bitsandbytes_int8(subject: Subject) -> Run:
    """bitsandbytes LLM.int8(): int8 weights, outlying columns in fp16 (fp32 on a CPU)."""
    bnb = _needed("bitsandbytes", "bitsandbytes")
    model = subject.load("sdpa", torch.float16 if subject.device.type == "cuda" else torch.float32).cpu()
    for name, old in list(model.named_modules()):
        if not isinstance(old, nn.Linear) or not _inner(name):
            continue
        new = bnb.nn.Linear8bitLt(
            old.in_features, old.out_features, old.bias is not None, has_fp16_weights=False, threshold=6.0
        )
        new.weight = bnb.nn.Int8Params(old.weight.data, requires_grad=False, has_fp16_weights=False)
        new.bias = old.bias
        parent, _, last = name.rpartition(".")
        setattr(model.get_submodule(parent), last, new)
    model.to(subject.device)
    return lambda given: model(**given).logits


def _inner(name: str) -> bool:
    """Return whether a layer is not of the classifier, which stays as it is."""
    return "classifier" not in name


def onnxruntime(precision: str) -> Callable[[Subject], Run]:
    """ONNX Runtime's CUDA provider, inputs and logits staying on the device."""

    def prepare(subject: Subject) -> Run:
        ort = _needed("onnxruntime", "onnxruntime-gpu")
        return _session(ort, subject, subject.graph if precision == "fp32" else subject.half_graph)

    return prepare


def _session(ort: Any, subject: Subject, path: Path) -> Run:
    cuda = subject.device.type == "cuda"
    if cuda and "CUDAExecutionProvider" not in ort.get_available_providers():
        raise NotMeasured(f"this onnxruntime {ort.__version__} is built without CUDA (onnxruntime-gpu has it)")
    options = ort.SessionOptions()
    options.log_severity_level = 3
    on_stream = {"user_compute_stream": str(torch.cuda.current_stream().cuda_stream)} if cuda else {}
    providers = [("CUDAExecutionProvider", on_stream)] if cuda else ["CPUExecutionProvider"]
    session = ort.InferenceSession(str(path), options, providers=providers)
    if cuda and session.get_providers()[0] != "CUDAExecutionProvider":
        raise NotMeasured("ONNX Runtime could not start its CUDA provider (cuDNN or CUDA libraries are missing)")
    width = int(session.get_outputs()[0].shape[1])

    def run(given: Inputs) -> Tensor:
        binding = session.io_binding()
        logits = torch.empty(len(given["input_ids"]), width, device=subject.device)
        for name, value in given.items():
            binding.bind_input(name, subject.device.type, 0, "int64", tuple(value.shape), value.data_ptr())
        binding.bind_output("logits", subject.device.type, 0, "float32", tuple(logits.shape), logits.data_ptr())
        session.run_with_iobinding(binding)
        return logits

    return run


def tensorrt(precision: str) -> Callable[[Subject], Run]:
    """A TensorRT engine, strongly typed, for the GPU of this machine."""

    def prepare(subject: Subject) -> Run:
        from compress.runtimes.tensorrt_bindings import CannotBuild, build, targets

        try:
            path = subject.int8_graph if precision == "int8" else None
            target = targets([])[0]
            path = path or subject.half_graph
            batch, tokens = subject.largest
            sizes = [(1, 2), (min(8, batch), min(128, tokens)), (batch, tokens)]
            timings = subject.scratch / "timings" if target.package == "tensorrt" else None
            plan = build(path, dict.fromkeys(subject.names, sizes), target, timings).engine
        except CannotBuild as error:
            raise NotMeasured(str(error)) from error
        return _engine(_needed(target.package, target.package), plan, int(subject.config.num_labels))

    return prepare


def _engine(trt: Any, plan: bytes, width: int) -> Run:
    runtime = trt.Runtime(trt.Logger(trt.Logger.ERROR))
    engine = runtime.deserialize_cuda_engine(plan)
    if engine is None:
        raise NotMeasured("TensorRT cannot load the engine that it built")
    context = engine.create_execution_context()

    def run(given: Inputs) -> Tensor:
        logits = torch.empty(len(given["input_ids"]), width, device="cuda")
        for name, value in given.items():
            context.set_input_shape(name, tuple(value.shape))
            context.set_tensor_address(name, value.data_ptr())
        context.set_tensor_address("logits", logits.data_ptr())
        if not context.execute_async_v3(torch.cuda.current_stream().cuda_stream):
            raise RuntimeError("TensorRT could not run the engine")
        return logits

    return run


def _needed(module: str, package: str) -> Any:
    import importlib

    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise NotMeasured(f"{package} is not installed") from error


QUICK: dict[str, Callable[[Subject], Run]] = {
    "eager fp32": pytorch("eager", torch.float32),
    "SDPA fp32": pytorch("sdpa", torch.float32),
    "eager fp16": pytorch("eager", torch.float16),
    "SDPA fp16": pytorch("sdpa", torch.float16),
    "SDPA fp16, CUDA graph": cuda_graph,
    "bitsandbytes int8": bitsandbytes_int8,
    "ONNX Runtime fp32": onnxruntime("fp32"),
    "ONNX Runtime fp16": onnxruntime("fp16"),
}
SLOW: dict[str, Callable[[Subject], Run]] = {  # minutes to prepare, so they come last
    "TensorRT fp16": tensorrt("fp16"),
    "TensorRT int8": tensorrt("int8"),
    "torch.compile fp16": compiled,
    "torchao int8, torch.compile": torchao_int8,
}
REFERENCE = "eager fp32"
