"""Int8 candidates of the student's ONNX graph, right for this processor.

Products of u8 activations and s8 weights are summed in 16 bits on processors without a dot-product instruction and
saturate there; weights then use 7 bits (`reduce_range`).
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import Enum
from pathlib import Path
from typing import Any

import numpy as np

from compress.machine import int8_dot_product
from compress.models.loading import load_tokenizer
from compress.models.tokens import Tokens, tokenize
from compress.onnx.folder import MODEL, onnx_student, write_folder
from compress.onnx.package import import_onnx
from compress.onnx.storage import is_large
from compress.pipeline.artifact import Artifact
from compress.pipeline.record import NONE, Details
from compress.pipeline.stage import Stage
from compress.pipeline.state import State
from compress.pipeline.workshop import Kind, Product
from compress.quantize.calibrated import Calibrated, clipped, drawn
from compress.quantize.calibration import measure_ranges
from compress.quantize.mixed import Mixed, MixedSearch, Precisions
from compress.quantize.qdq import (
    MATRIX_PRODUCTS,
    TABLES,
    IntegerScheme,
    activations,
    nodes_by_part,
    parts_of_activations,
    prepared,
    with_qdq,
)
from compress.quantize.qdq import quiet_quantizer as _quiet
from compress.runtimes.onnxruntime import import_onnxruntime
from compress.tasks.base import Array

RECURRENT = ("LSTM",)  # only in the dynamic form
CURVATURE_ROWS = 256  # training rows that Ω is measured on where parts stay in fp32


class WeightBits(Enum):
    """auto: 8 where the processor sums int8 products in 32 bits, else 7; or the number of bits."""

    auto = "auto"
    seven = "7"
    eight = "8"


def reduced(bits: WeightBits) -> bool:
    """Return whether weights are to use 7 bits."""
    return bits is WeightBits.seven or (bits is WeightBits.auto and not int8_dot_product())


@dataclass(kw_only=True)
class DynamicInt8(Stage):
    """Int8 weights; activations are measured and quantized at run time, no calibration."""

    weight_bits: WeightBits = WeightBits.auto  # auto: 8 with VNNI or similar, else 7; or 7, 8
    per_channel: bool = True  # a scale for each output of a weight matrix
    embeddings: bool = True  # quantize embedding tables too; they are most of a small student's size
    mixed: Mixed = field(default_factory=Mixed)  # what stays in fp32

    def gentler(self, max_drop: float) -> Iterator[tuple[str, Stage]]:
        """Yield the same with its most sensitive parts in fp32, then the static form."""
        yield "mixed", replace(self, mixed=Mixed(max_drop=max_drop, bound=True))
        yield (
            "static",
            StaticInt8(weight_bits=self.weight_bits, per_channel=self.per_channel, embeddings=self.embeddings),
        )

    def __call__(self, state: State) -> State:
        """Return the state with the artifact ``dynamic``."""
        graph = onnx_student(state)
        if self.mixed.max_drop is None:
            return state.with_artifacts(self.artifact("dynamic", graph, state))
        scheme = IntegerScheme(per_channel=self.per_channel, reduce_range=self._bits == 7)
        rows = drawn(state, CURVATURE_ROWS)

        def work(folder: Path) -> Mapping[str, Any]:
            onnx, tokenizer = import_onnx("Quantization"), load_tokenizer(graph.folder)
            model = onnx.load(graph.folder / MODEL)
            parts = nodes_by_part(model, attention=False, embeddings=self.embeddings)
            tokens = tokenize(rows, tokenizer, tokenizer.model_max_length)
            precisions = _Dynamic(model, parts, {}, scheme)
            nodes, sensitivity = self.mixed.choose(state, precisions, tokenizer, tokens)
            write_folder(precisions.made(nodes), graph.folder, folder, pairs=state.data.pairs)
            return sensitivity.report()

        made_with = [graph.key, self._bits, self.per_channel, self.embeddings, rows.fingerprint, state.seed]
        product = state.workshop.make(
            Kind("dynamic_mixed", revision=1), [*made_with, *self.mixed.depends_on(state)], work
        )
        sensitivity = MixedSearch.of(product.record["sensitivity"])
        return state.with_artifacts(_artifact("dynamic", product, self._bits, str(sensitivity), details=sensitivity))

    def artifact(self, name: str, graph: Product, state: State) -> Artifact:
        """Return the artifact that a folder with an fp32 graph becomes, all of it in int8."""

        def work(folder: Path) -> None:
            model = import_onnx("Quantization").load(graph.folder / MODEL)
            write_folder(self.quantized(model), graph.folder, folder, pairs=state.data.pairs)

        product = state.workshop.make(Kind("dynamic", revision=2), [graph.key, *self.quantized_with()], work)
        return _artifact(name, product, self._bits)

    def quantized(self, model: Any) -> Any:
        """Return a graph (``onnx.ModelProto``) without branches, all of it in int8."""
        onnx = import_onnx("Quantization")
        import_onnxruntime("Quantization")
        from onnxruntime.quantization import QuantType, quantize_dynamic

        with _quiet(), tempfile.TemporaryDirectory() as aside:
            quantize_dynamic(
                model,
                Path(aside) / MODEL,
                op_types_to_quantize=[*MATRIX_PRODUCTS, *RECURRENT, *(TABLES if self.embeddings else ())],
                per_channel=self.per_channel,
                reduce_range=self._bits == 7,
                weight_type=QuantType.QInt8,
                use_external_data_format=is_large(model),
            )
            return onnx.load(Path(aside) / MODEL)

    def quantized_with(self) -> list[Any]:
        """Return all that `quantized` depends on beside the graph, on this processor, JSON-ready."""
        return [self._bits, self.per_channel, self.embeddings]

    def told(self) -> str:
        """Return in words how many bits weights have, and what this processor makes of them."""
        return _bits_told(self._bits)

    @property
    def _bits(self) -> int:
        return 7 if reduced(self.weight_bits) else 8


class _Dynamic(Precisions):
    """A graph whose activations are quantized at run time, by the largest values of the rows given together."""

    def made(self, nodes: Sequence[str]) -> Any:
        """Return the graph (``onnx.ModelProto``) with these nodes in int8."""
        onnx = import_onnx("Quantization")
        import_onnxruntime("Quantization")
        from onnxruntime.quantization import QuantType, quantize_dynamic

        if not nodes:
            return self.model
        chosen = [*nodes, *(f"{node}_MatMul" for node in nodes)]  # what the quantizer makes of a Gemm
        model = type(self.model)()
        model.CopyFrom(self.model)
        with tempfile.TemporaryDirectory() as aside, _quiet():
            quantize_dynamic(
                model, Path(aside) / MODEL, op_types_to_quantize=[*MATRIX_PRODUCTS, *TABLES], nodes_to_quantize=chosen,
                per_channel=self.scheme.per_channel, reduce_range=self.scheme.reduce_range,
                weight_type=QuantType.QInt8, use_external_data_format=is_large(model),
            )  # fmt: skip
            return onnx.load(Path(aside) / MODEL)

    def batches(self, tokens: Tokens) -> Iterable[Array]:
        """Return one row at a time, as it is served."""
        return list(np.arange(len(tokens))[:, None])


@dataclass(kw_only=True)
class StaticInt8(Calibrated):
    """Int8 weights and activations (u8), ranges calibrated on training rows; Q/DQ form, for the CPU.

    Parts of the model can stay in fp32, so that the metric on validation rows holds (``mixed``).
    """

    weight_bits: WeightBits = WeightBits.auto  # auto: 8 with VNNI or similar, else 7; or 7, 8
    per_channel: bool = True  # a scale for each output of a weight matrix
    embeddings: bool = True  # quantize embedding tables too
    attention: bool = True  # quantize attention's own products, which have no weights, too
    mixed: Mixed = field(default_factory=Mixed)  # what stays in fp32

    def gentler(self, max_drop: float) -> Iterator[tuple[str, Stage]]:
        """Yield the same with its most sensitive parts in fp32."""
        yield "mixed", replace(self, mixed=Mixed(max_drop=max_drop, bound=True))

    def __call__(self, state: State) -> State:
        """Return the state with the artifact ``static``."""
        graph = onnx_student(state)
        bits = 7 if reduced(self.weight_bits) else 8
        rows = self.sample(state)
        scheme = IntegerScheme(per_channel=self.per_channel, reduce_range=bits == 7)

        def work(folder: Path) -> Mapping[str, Any]:
            tokenizer = load_tokenizer(graph.folder)
            model = prepared(graph.folder / MODEL)
            parts = nodes_by_part(model, attention=self.attention, embeddings=self.embeddings)
            nodes = [node for part in parts.values() for node in part]
            tokens = tokenize(rows, tokenizer, tokenizer.model_max_length)
            how = self.rule(symmetric=False)
            measured = measure_ranges(model, activations(model, nodes), tokens, how, state.seed)
            ranges = measured.ranges
            record: dict[str, Any] = {}
            if warning := clipped(measured.excess, parts_of_activations(model, parts)):
                record["warnings"] = warning
            if self.mixed.max_drop is not None:
                precisions = Precisions(model, parts, ranges, scheme)
                nodes, sensitivity = self.mixed.choose(state, precisions, tokenizer, tokens)
                record |= sensitivity.report()
            write_folder(with_qdq(model, nodes, ranges, scheme), graph.folder, folder, pairs=state.data.pairs)
            return record

        made_with = [graph.key, bits, self.per_channel, self.embeddings, self.attention, *self.measured_with(state)]
        product = state.workshop.make(Kind("static", revision=3), [*made_with, *self.mixed.depends_on(state)], work)
        kept = product.record.get("sensitivity")
        sensitivity = None if kept is None else MixedSearch.of(kept)
        details, more = (NONE, ()) if sensitivity is None else (sensitivity, (str(sensitivity),))
        warnings = product.record.get("warnings", ())
        return state.with_artifacts(_artifact("static", product, bits, self.told(), *warnings, *more, details=details))


def _artifact(name: str, product: Product, bits: int, *more: str, details: Details = NONE) -> Artifact:
    return Artifact(
        name=name, runtime="onnxruntime", precision="int8", folder=product.folder, key=product.key,
        seconds=product.seconds, notes=(_bits_told(bits), *more), details=details,
    )  # fmt: skip


def _bits_told(bits: int) -> str:
    return f"weights in {bits} bits; this processor sums int8 products in {32 if int8_dot_product() else 16} bits"
