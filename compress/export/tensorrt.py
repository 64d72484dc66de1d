"""The student as TensorRT engines, or, where none can be built, as the graph and the command that build them."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from enum import Enum
from pathlib import Path
from typing import Any

from compress.errors import Fault
from compress.files import MIB, size_mib, write_json
from compress.known import NOTHING, Known
from compress.models.loading import load_tokenizer
from compress.models.positions import longest_row
from compress.onnx.folder import MODEL, copy_folder, onnx_student
from compress.onnx.graph import input_names
from compress.pipeline.artifact import Artifact
from compress.pipeline.record import Details
from compress.pipeline.stage import Stage
from compress.pipeline.state import State
from compress.pipeline.workshop import Kind, Product
from compress.quantize.half import half_student
from compress.quantize.symmetric import symmetric_student
from compress.runtimes.engine_layers import EngineSummary, as_json, read_layers, summarise
from compress.runtimes.tensorrt import ENGINE, LAYERS, TensorRtRuntime
from compress.runtimes.tensorrt_bindings import (
    FULL,
    RTX_CAPABILITIES,
    CannotBuild,
    Shape,
    Target,
    build,
    targets,
    version,
)
from compress.settings import at_least

COMMAND = "build.sh"
SCRIPT = """#!/bin/sh
# run this on the machine with the GPU, with TensorRT's trtexec
cd "$(dirname "$0")" || exit
{command}
"""


class EnginePrecision(Enum):
    """Of an engine: fp32, fp16 with normalizations in fp32, or int8 products with all else as in fp16."""

    fp32 = "fp32"
    fp16 = "fp16"
    int8 = "int8"


@dataclass(frozen=True, kw_only=True)
class Engines(Details):
    """Who built an artifact's engines, and which rows they take."""

    package: str  # that built them; empty where there are none
    version: str  # of the package, with its name
    batch: tuple[int, ...]  # smallest, best and largest
    tokens: tuple[int, ...]  # smallest, best and largest length


@dataclass(kw_only=True)
class TensorRt(Stage):
    """Write engines for NVIDIA GPUs, with TensorRT-RTX also for GPUs of other machines; each with its ONNX graph."""

    precisions: list[EnginePrecision] = field(
        default_factory=lambda: [EnginePrecision.fp16]
    )  # an artifact each: fp32, fp16, int8
    compute_capabilities: list[str] = field(
        default_factory=list
    )  # GPUs to build for, as [8.6,12.0]; empty: this machine's
    batch: list[int] = field(default_factory=lambda: [1, 8, 32])  # smallest, best and largest batch of an engine
    tokens: list[int] | None = (
        None  # smallest, best and largest length; default: 2, half and all that the student takes
    )
    rows: int = 256  # training rows on which int8's ranges, and values too large for fp16, are measured

    def faults(self, known: Known = NOTHING) -> Iterator[Fault]:
        """Lists are in order and within what the student takes, and TensorRT-RTX knows the GPUs."""
        yield from at_least(self, "rows", 1)
        if not self.precisions or len(set(self.precisions)) < len(self.precisions):
            yield Fault(
                "precisions", [precision.value for precision in self.precisions], "must list one or more, each once"
            )
        for name, low in (("batch", 1), ("tokens", 2)):
            given = getattr(self, name)
            if given is not None and (len(given) != 3 or sorted(given) != list(given) or given[0] < low):
                yield Fault(name, list(given), f"must be three whole numbers from {low}: smallest, best, largest")
        for capability in self.compute_capabilities:
            if capability not in RTX_CAPABILITIES:
                rule = f"cannot be built for on another machine; TensorRT-RTX can for {', '.join(RTX_CAPABILITIES)}"
                yield Fault(
                    "compute_capabilities", capability, rule, "Run the recipe on that GPU, with tensorrt installed."
                )
        if self.tokens and known.student is not None and self.tokens[-1] > (longest := longest_row(known.student)):
            yield Fault("tokens", list(self.tokens), f"must not exceed the {longest} tokens that the student takes")

    def __call__(self, state: State) -> State:
        """Return the state with an artifact for each precision."""
        try:
            found, why = targets(self.compute_capabilities), ""
        except CannotBuild as error:
            found, why = [], str(error)
        artifacts = [self._artifact(state, precision, found, why) for precision in self.precisions]
        return state.with_artifacts(*artifacts)

    def _artifact(self, state: State, precision: EnginePrecision, found: list[Target], why: str) -> Artifact:
        graph = self._graph(state, precision)
        shapes = self._shapes(load_tokenizer(graph.folder))
        cache = state.workshop.cache / "tensorrt"
        made_with = [graph.key, shapes, [[target.name, version(target.package)] for target in found]]

        def work(folder: Path) -> Mapping[str, Any]:
            copy_folder(graph.folder, folder)
            (folder / COMMAND).write_text(SCRIPT.format(command=command(shapes)))
            engines: dict[str, Any] = {}
            failed: dict[str, str] = {}
            for target in found:
                timings = cache / f"{target.name}-{version(target.package)}.timings" if target.package == FULL else None
                try:
                    built = build(folder / MODEL, shapes, target, timings)
                except CannotBuild as error:
                    failed[target.name] = str(error)
                    continue
                (folder / f"{target.name}{ENGINE}").write_bytes(built.engine)
                layers = read_layers(built.layers)
                write_json(folder / f"{target.name}{LAYERS}", as_json(layers))
                engines[target.name] = asdict(summarise(layers, folder / MODEL)) if layers else None
            package = found[0].package if found else ""
            by = version(package) if package else ""
            return {"engines": engines, "failed": failed, "why": why, "package": package, "by": by}

        cache.mkdir(parents=True, exist_ok=True)
        product = state.workshop.make(Kind("tensorrt", revision=2), made_with, work)
        engines = {name: summary and EngineSummary(**summary) for name, summary in product.record["engines"].items()}
        batch, tokens = (tuple(size[place] for size in shapes["input_ids"]) for place in (0, 1))
        return _described(product, precision, engines, batch, tokens)

    def _graph(self, state: State, precision: EnginePrecision) -> Product:
        """Return the folder with the graph in a precision."""
        if precision is EnginePrecision.int8:
            return symmetric_student(state, self.rows)
        return onnx_student(state) if precision is EnginePrecision.fp32 else half_student(state, self.rows)

    def _shapes(self, tokenizer: Any) -> dict[str, list[Shape]]:
        longest = tokenizer.model_max_length
        tokens = self.tokens or [2, max(2, longest // 2), longest]
        return {name: list(zip(self.batch, tokens, strict=True)) for name in input_names(tokenizer)}


def command(shapes: Mapping[str, list[Shape]]) -> str:
    """Return the command line that builds the same engine from model.onnx on a machine with TensorRT and its GPU."""
    sizes = zip(*shapes.values(), strict=True)
    texts = [",".join(f"{name}:{b}x{t}" for name, (b, t) in zip(shapes, size, strict=True)) for size in sizes]
    words = ["trtexec", f"--onnx={MODEL}", f"--saveEngine=model{ENGINE}", "--stronglyTyped"]
    words += [f"--{which}Shapes={text}" for which, text in zip(("min", "opt", "max"), texts, strict=True)]
    words += ["--profilingVerbosity=detailed", f"--exportLayerInfo=model{LAYERS}", "--timingCacheFile=model.timings"]
    return shlex.join([*words, "--skipInference"])


def _described(
    product: Product,
    precision: EnginePrecision,
    engines: Mapping[str, EngineSummary | None],
    batch: tuple[int, ...],
    tokens: tuple[int, ...],
) -> Artifact:
    """Return the artifact, with what is known of its engines, and with why there are none or not all."""
    failed = product.record["failed"]
    why = product.record["why"] or "; ".join(dict.fromkeys(failed.values()))
    notes = [
        f"{name}: {engines[name] or 'its layers are not known'}, "
        f"{(product.folder / f'{name}{ENGINE}').stat().st_size / MIB:.1f} MiB"
        for name in engines
    ]
    if engines:
        notes.append(f"built by {product.record['by']}")
        notes += [f"{name}: not built: {reason}" for name, reason in failed.items()]
    else:
        notes.append(f"no engine was built: {why}; {MODEL} and {COMMAND} are ready")
    details = Engines(
        package=product.record["package"],
        version=product.record["by"],
        batch=batch,
        tokens=tokens,
    )
    return Artifact(
        name="tensorrt", runtime=TensorRtRuntime.name, precision=precision.value, folder=product.folder,
        key=product.key, seconds=product.seconds, notes=tuple(notes), details=details, variant=precision.value,
        unmeasured="" if engines else f"not built: {why}",
        size_mib=size_mib(product.folder, (ENGINE,)) / len(engines) if engines else None,
    )  # fmt: skip
