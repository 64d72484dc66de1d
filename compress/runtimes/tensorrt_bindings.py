"""Building and running engines: the one file that knows the packages `tensorrt` and `tensorrt_rtx_bindings`.

Both have the same interface. `tensorrt` builds for the GPU of this machine, and needs it; TensorRT-RTX builds for
any GPU from Turing on but the data centre's (9.0, 10.x), and needs none.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from compress.errors import CompressError, ModelError
from compress.files import locked
from compress.machine import compute_capability

FULL, RTX = "tensorrt", "tensorrt_rtx_bindings"
RTX_CAPABILITIES = ("7.5", "8.0", "8.6", "8.9", "12.0", "12.1")
GET_FULL = "pip install tensorrt --extra-index-url https://pypi.nvidia.com"
GET_RTX = "pip install 'compress-encoders[tensorrt]'"

Shape = tuple[int, int]  # batch, tokens


class CannotBuild(CompressError):
    """No engine can be built here; the message says why and what would help, in one sentence."""


@dataclass(frozen=True)
class Target:
    """A GPU to build for, and the package that does it."""

    capability: str  # "8.6"
    package: str

    @property
    def name(self) -> str:
        """The GPU's generation as NVIDIA's tools write it: "sm86"."""
        return "sm" + self.capability.replace(".", "")


@dataclass(frozen=True)
class Built:
    """A serialized engine, and its layers as the engine inspector writes them, one per line."""

    engine: bytes
    layers: str


def targets(capabilities: Sequence[str]) -> list[Target]:
    """Return what to build for: ``capabilities``, or the GPU of this machine where none are named.

    Raises CannotBuild.
    """
    if capabilities:
        if not _installed(RTX):
            raise CannotBuild(f"building for GPUs of other machines needs TensorRT-RTX, which is missing: {GET_RTX}")
        return [Target(capability, RTX) for capability in capabilities]
    here = compute_capability()
    full, rtx = _installed(FULL), _installed(RTX)
    if here is None:
        helps = "name it (compute_capabilities=[8.6])" + ("" if rtx else f" and install TensorRT-RTX ({GET_RTX})")
        raise CannotBuild(f"there is no NVIDIA GPU here to build for: {helps}, or run build.sh where it is")
    if full:
        return [Target(here, FULL)]
    if not rtx:
        raise CannotBuild(f"neither tensorrt ({GET_FULL}) nor TensorRT-RTX ({GET_RTX}) is installed")
    if here not in RTX_CAPABILITIES:
        raise CannotBuild(f"TensorRT-RTX cannot build for this GPU's compute capability {here}: {GET_FULL}")
    return [Target(here, RTX)]


def version(package: str) -> str:
    """Return a package's version, with its name."""
    return f"{package} {_package(package).__version__}"


def build(graph: Path, shapes: Mapping[str, Sequence[Shape]], target: Target, timing_cache: Path | None) -> Built:
    """Return the engine of an ONNX file, strongly typed: each layer runs in the precision that the graph says.

    ``shapes`` gives each input's smallest, best and largest (batch, tokens), one optimization profile. Timings are
    read from the file ``timing_cache`` and added to it; None for TensorRT-RTX, which times nothing when it builds.
    Raises CannotBuild where TensorRT refuses the graph.
    """
    trt = _package(target.package)
    log = _logger(trt)
    builder = trt.Builder(log)
    network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    parser = trt.OnnxParser(network, log)
    if not parser.parse_from_file(str(graph)):
        raise CannotBuild(f"TensorRT cannot read {graph.name}: {parser.get_error(0)}")
    config = builder.create_builder_config()
    config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED
    profile = builder.create_optimization_profile()
    for name, (smallest, best, largest) in shapes.items():
        profile.set_shape(name, smallest, best, largest)
    config.add_optimization_profile(profile)
    if target.package == RTX:
        config.num_compute_capabilities = 1
        config.set_compute_capability(getattr(trt.ComputeCapability, target.name.upper()), 0)
    with _timings(config, timing_cache):
        engine = builder.build_serialized_network(network, config)
    if engine is None:
        raise CannotBuild(f"TensorRT cannot build {graph.name}: {log.last_error or 'it gave no reason'}")
    plan = bytes(engine)
    return Built(plan, _inspected(trt, log, plan) or log.layers)


class Engine:
    """An engine on this machine's GPU, ready to run."""

    def __init__(self, engine: Any) -> None:
        self._engine, self._context = engine, engine.create_execution_context()

    def prepare(self, shapes: Mapping[str, tuple[int, ...]]) -> dict[str, tuple[int, ...]]:
        """Take the inputs' shapes, and return those of the outputs by name, in the graph's order.

        Raises ModelError outside the engine's profile.
        """
        for name, shape in shapes.items():
            if not self._context.set_input_shape(name, shape):
                low, _, high = (tuple(size) for size in self._engine.get_tensor_profile_shape(name, 0))
                raise ModelError(f"the engine takes {name} from {low} to {high} (batch, tokens), not {shape}")
        names = [self._engine.get_tensor_name(number) for number in range(self._engine.num_io_tensors)]
        return {name: tuple(self._context.get_tensor_shape(name)) for name in names if name not in shapes}

    def start(self, addresses: Mapping[str, int], stream: int) -> None:
        """Start on a CUDA stream; ``addresses`` of the inputs and of the outputs, fp32, are on the GPU.

        Raises ModelError where it does not run.
        """
        for name, address in addresses.items():
            self._context.set_tensor_address(name, address)
        if not self._context.execute_async_v3(stream):
            raise ModelError("TensorRT could not run the engine")


def load_engine(path: Path) -> Engine:
    """Return the engine of a file, loaded by whichever package built it; raises ModelError."""
    plan, errors = path.read_bytes(), []
    for package in (FULL, RTX):
        if not _installed(package):
            continue
        trt = _package(package)
        log = _logger(trt)
        engine = trt.Runtime(log).deserialize_cuda_engine(plan)
        if engine is not None:
            return Engine(engine)
        errors.append(f"{package}: {log.last_error or 'gave no reason'}")
    raise ModelError(f"{path}: the engine cannot be loaded. {'; '.join(errors) or 'TensorRT is not installed'}")


def installed() -> bool:
    """Return whether one of the packages is here."""
    return _installed(FULL) or _installed(RTX)


@contextmanager
def _timings(config: Any, file: Path | None) -> Iterator[None]:
    """Give a build the timings of earlier ones, and keep those that it adds."""
    if file is None:
        yield
        return
    with locked(file.with_suffix(".lock")):
        known = file.read_bytes() if file.exists() else b""
        config.set_timing_cache(config.create_timing_cache(known), ignore_mismatch=False)
        yield
        aside = file.with_suffix(".new")
        aside.write_bytes(bytes(config.get_timing_cache().serialize()))
        aside.replace(file)


def _inspected(trt: Any, log: Any, plan: bytes) -> str:
    """Return the inspector's layers; empty where the engine is for another GPU, or there is none."""
    if compute_capability() is None:  # deserializing without a driver gives nothing but errors
        return ""
    engine = trt.Runtime(log).deserialize_cuda_engine(plan)
    if engine is None:
        return ""
    return str(engine.create_engine_inspector().get_engine_information(trt.LayerInformationFormat.ONELINE))


def _logger(trt: Any) -> Any:
    """Return a logger that keeps the table of layers, which a build ends with, and the last error."""

    class Log(trt.ILogger):  # type: ignore[misc]
        def __init__(self) -> None:
            trt.ILogger.__init__(self)
            self.layers = self.last_error = ""

        def log(self, severity: Any, message: str) -> None:
            if message.lstrip().startswith("Layers:"):
                self.layers = message
            elif severity in (trt.ILogger.ERROR, trt.ILogger.INTERNAL_ERROR):
                self.last_error = message.splitlines()[0]

    return Log()


def _installed(package: str) -> bool:
    try:
        _package(package)
    except (ImportError, OSError):  # the second where its libraries are missing
        return False
    return True


def _package(package: str) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if package == FULL:
            import tensorrt as trt
        else:
            import tensorrt_rtx_bindings as trt
    return trt
