"""Graphs with QuantizeLinear and DequantizeLinear around their matrix products, written by ONNX Runtime's quantizer.

The ranges of activations are given: how they are measured is `compress.quantize.calibration`'s.
"""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from compress.onnx.folder import MODEL
from compress.onnx.products import EMBEDDINGS, IN_FLOAT, matrix_products
from compress.onnx.storage import is_outside
from compress.quantize.ranges import Range
from compress.runtimes.onnxruntime import import_onnxruntime

MATRIX_PRODUCTS = ("MatMul", "Gemm")
TABLES = ("Gather",)  # embedding tables: most of a small student's size


@dataclass(frozen=True, kw_only=True)
class IntegerScheme:
    """What the integers of a graph are."""

    symmetric: bool = False  # signed activations around zero, as TensorRT wants them; else unsigned ones
    per_channel: bool = True  # a scale for each output of a weight matrix
    reduce_range: bool = False  # weights of 7 bits


def prepared(path: Path) -> Any:
    """Return the graph in a file with its constants folded and its shapes known (``onnx.ModelProto``)."""
    import_onnxruntime("Quantization")
    import onnx
    from onnxruntime.quantization.shape_inference import quant_pre_process

    with tempfile.TemporaryDirectory() as aside, quiet_quantizer():
        outside = is_outside(path)
        quant_pre_process(path, Path(aside) / MODEL, skip_symbolic_shape=True, save_as_external_data=outside)
        return onnx.load(Path(aside) / MODEL)


def nodes_by_part(model: Any, *, attention: bool, embeddings: bool) -> dict[str, list[str]]:
    """Return the names of the nodes that can be quantized, by part of the model, in the graph's order.

    ``attention``: the products of attention itself too, which have no weights; ``embeddings``: the tables.
    """
    stored = {weight.name: weight for weight in model.graph.initializer}
    parts: dict[str, list[str]] = {}
    if embeddings:
        float_type = 1  # onnx.TensorProto.FLOAT
        tables = [
            node.name
            for node in model.graph.node
            if node.op_type in TABLES and node.input[0] in stored and stored[node.input[0]].data_type == float_type
        ]
        if tables:
            parts[EMBEDDINGS] = tables
    for product in matrix_products(model.graph):
        if product.kind in MATRIX_PRODUCTS and product.kind in IN_FLOAT and (product.weighted or attention):
            parts.setdefault(product.part, []).append(product.node)
    return parts


def activations(model: Any, nodes: Collection[str]) -> list[str]:
    """Return the tensors whose ranges the matrix products among ``nodes`` need: what they are given, no weights."""
    stored = {weight.name for weight in model.graph.initializer}
    chosen = [node for node in model.graph.node if node.name in nodes and node.op_type in MATRIX_PRODUCTS]
    return list(dict.fromkeys(name for node in chosen for name in node.input[:2] if name not in stored))


def parts_of_activations(model: Any, parts: Mapping[str, Collection[str]]) -> dict[str, str]:
    """Return in which of the ``parts``, whose nodes are given by name, each tensor is multiplied."""
    part_of = {node: part for part, nodes in parts.items() for node in nodes}
    return {name: part_of[node.name] for node in model.graph.node if node.name in part_of for name in node.input[:2]}


def with_qdq(model: Any, nodes: Collection[str], ranges: Mapping[str, Range], scheme: IntegerScheme) -> Any:
    """Return a copy of a graph (``onnx.ModelProto``) whose ``nodes`` are int8 over the given ranges.

    Results of products stay fp32. Without nodes the copy is as the graph is.
    """
    from onnxruntime.quantization import CalibrationMethod, QDQQuantizer, QuantType
    from onnxruntime.quantization.calibrate import TensorData, TensorsData

    copy = type(model)()
    copy.CopyFrom(model)
    if not nodes:
        return copy
    data = {
        name: TensorData(lowest=np.array(low, np.float32), highest=np.array(high, np.float32))
        for name, (low, high) in ranges.items()
    }
    options: dict[str, Any] = {"OpTypesToExcludeOutputQuantization": [*MATRIX_PRODUCTS, *TABLES]}
    if scheme.symmetric:
        # a bias's scale, a product of two, would lose its digits in fp16
        options |= {"ActivationSymmetric": True, "WeightSymmetric": True, "QuantizeBias": False}
    with quiet_quantizer():
        quantizer = QDQQuantizer(
            copy,
            scheme.per_channel,
            scheme.reduce_range,
            QuantType.QInt8,
            QuantType.QInt8 if scheme.symmetric else QuantType.QUInt8,
            TensorsData(CalibrationMethod.MinMax, data),
            list(nodes),
            [],
            [*MATRIX_PRODUCTS, *TABLES],
            options,
        )
        quantizer.quantize_model()
        quantizer.model.topological_sort()
    return quantizer.model.model


@contextmanager
def quiet_quantizer() -> Iterator[None]:
    """Keep onnxruntime's advice and reports off the terminal, and undo what its modules do to logging."""
    root = logging.getLogger()
    level, handlers = root.level, list(root.handlers)
    root.setLevel(logging.ERROR)
    try:
        yield
    finally:
        root.setLevel(level)
        root.handlers[:] = handlers
