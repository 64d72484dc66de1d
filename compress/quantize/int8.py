"""Int8 candidates of the student's ONNX graph, right for the processor at hand.

One file knows onnxruntime's quantizer. Products of u8 activations and s8 weights are summed in 16 bits on
processors without a dot-product instruction and saturate there; weights then use 7 bits (`reduce_range`).
"""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from enum import Enum
from pathlib import Path
from typing import Any

import numpy as np

from compress.machine import int8_dot_product
from compress.models.loading import load_tokenizer
from compress.models.onnx_folder import MODEL, import_onnxruntime, onnx_student, with_tokenizer
from compress.models.outputs import INPUTS
from compress.models.tokens import Tokens, tokenize
from compress.progress import progress
from compress.settings import at_least
from compress.state import Artifact, Stage, State

MATRIX_PRODUCTS = ("MatMul", "Gemm")
RECURRENT = ("LSTM",)  # only in the dynamic form
TABLES = ("Gather",)  # embedding tables: most of a small student's size


class WeightBits(Enum):
    """auto: 8 where the processor sums int8 products in 32 bits, else 7; or as said."""

    auto = "auto"
    seven = "7"
    eight = "8"


def reduced(bits: WeightBits) -> bool:
    """Return whether weights are to use 7 bits."""
    return bits is WeightBits.seven or (bits is WeightBits.auto and not int8_dot_product())


@dataclass(kw_only=True)
class DynamicInt8(Stage):
    """Int8 weights; activations are measured and quantized at run time, no calibration."""

    weight_bits: WeightBits = WeightBits.auto  # auto: 8 with VNNI or its like, else 7; or 7, 8
    per_channel: bool = True  # a scale for each output of a weight matrix
    embeddings: bool = True  # quantize embedding tables too; they are most of a small student's size

    def __call__(self, state: State) -> State:
        """Return the state with the artifact ``dynamic``."""
        graph = onnx_student(state)
        bits = 7 if reduced(self.weight_bits) else 8

        def work(folder: Path) -> None:
            import_onnxruntime("Quantization")
            from onnxruntime.quantization import QuantType, quantize_dynamic

            with _quiet():
                quantize_dynamic(
                    graph.folder / MODEL,
                    folder / MODEL,
                    op_types_to_quantize=[*MATRIX_PRODUCTS, *RECURRENT, *(TABLES if self.embeddings else ())],
                    per_channel=self.per_channel,
                    reduce_range=bits == 7,
                    weight_type=QuantType.QInt8,
                )
            with_tokenizer(graph.folder, folder)

        product = state.workshop.make("dynamic", [graph.key, bits, self.per_channel, self.embeddings], work)
        return _with_artifact(state, "dynamic", product, bits)


@dataclass(kw_only=True)
class StaticInt8(Stage):
    """Int8 weights and activations (u8), ranges calibrated on training rows; Q/DQ form, for the CPU."""

    rows: int = 256  # training rows that ranges are measured on, one at a time
    weight_bits: WeightBits = WeightBits.auto  # auto: 8 with VNNI or its like, else 7; or 7, 8
    per_channel: bool = True  # a scale for each output of a weight matrix
    embeddings: bool = True  # quantize embedding tables too

    def faults(self) -> Iterator[Any]:
        """At least one row is needed."""
        yield from at_least(self, "rows", 1)

    def __call__(self, state: State) -> State:
        """Return the state with the artifact ``static``."""
        graph = onnx_student(state)
        bits = 7 if reduced(self.weight_bits) else 8
        chosen = np.random.default_rng(state.seed).permutation(len(state.data.train))[: self.rows]
        rows = state.data.train.take(chosen)

        def work(folder: Path) -> None:
            import_onnxruntime("Quantization")
            from onnxruntime.quantization import CalibrationMethod, QuantFormat, QuantType, quantize_static
            from onnxruntime.quantization.shape_inference import quant_pre_process

            tokenizer = load_tokenizer(graph.folder)
            with tempfile.TemporaryDirectory() as aside, _quiet():
                prepared = Path(aside) / MODEL
                quant_pre_process(graph.folder / MODEL, prepared, skip_symbolic_shape=True)
                quantize_static(
                    prepared,
                    folder / MODEL,
                    _Rows(tokenize(rows, tokenizer, tokenizer.model_max_length)),
                    quant_format=QuantFormat.QDQ,
                    op_types_to_quantize=[*MATRIX_PRODUCTS, *(TABLES if self.embeddings else ())],
                    per_channel=self.per_channel,
                    reduce_range=bits == 7,
                    activation_type=QuantType.QUInt8,
                    weight_type=QuantType.QInt8,
                    calibrate_method=CalibrationMethod.MinMax,
                    extra_options={
                        # ranges are merged after each row, so memory does not grow with their number;
                        # "CalibMaxIntermediateOutputs", meant for this, forgets the rows that it drops
                        "CalibStridedMinMax": 1,
                        "MatMulConstBOnly": True,
                        "OpTypesToExcludeOutputQuantization": [*MATRIX_PRODUCTS, *TABLES],
                    },
                )
            with_tokenizer(graph.folder, folder)

        made_with = [graph.key, rows.fingerprint, bits, self.per_channel, self.embeddings]
        product = state.workshop.make("static", made_with, work)
        return _with_artifact(state, "static", product, bits)


class _Rows:
    """Calibration rows as onnxruntime asks for them: a range, then its rows one at a time; with a progress bar."""

    def __init__(self, tokens: Tokens) -> None:
        self.tokens = tokens
        self.waiting: Iterator[int] = iter(range(len(tokens)))
        self.bar = progress(total=len(tokens), title="calibration", unit="row")

    def __len__(self) -> int:
        return len(self.tokens)

    def set_range(self, start_index: int, end_index: int) -> None:
        """Begin again at one row and stop before another."""
        self.waiting = iter(range(start_index, end_index))

    def get_next(self) -> dict[str, Any] | None:
        """Return the next row's inputs; None when there are no more."""
        row = next(self.waiting, None)
        if row is None:
            return None
        self.bar.update()
        return {k: v.numpy() for k, v in self.tokens.batch([row]).items() if k in INPUTS}


def _with_artifact(state: State, name: str, product: Any, bits: int) -> State:
    said = "sums int8 products in 32 bits" if int8_dot_product() else "sums int8 products in 16 bits"
    notes = (f"weights in {bits} bits; this processor {said}",)
    artifact = Artifact(
        name, "onnxruntime", "int8", product.folder, product.key, {"notes": notes, "seconds": product.seconds}
    )
    return replace(state, artifacts=(*state.artifacts, artifact))


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep onnxruntime's advice about pre-processing off the terminal."""
    root = logging.getLogger()
    level = root.level
    root.setLevel(logging.ERROR)
    try:
        yield
    finally:
        root.setLevel(level)
