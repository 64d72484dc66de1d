"""What a graph needs of the program and the processor that run it, found in the graph itself.

Which ONNX Runtime reads and computes what was measured, from 1.15.0 on, the oldest that pip installs for Python 3.11,
with benchmarks/oldest_runtime.py: graphs of every operator set and IR version were loaded, and artifacts were
compared with the newest.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import numpy as np

from compress.machine import INT8_DOT_PRODUCT, versions
from compress.models.facts import GraphFacts
from compress.onnx.package import import_onnx
from compress.onnx.products import BLOCKWISE, INT8_LEVEL, INT8_LSTM
from compress.onnx.storage import all_nodes

IN_FLOATS = "compress.in_floats"  # metadata of a graph whose int8 is another device's: here it is computed in floats

READERS = (
    ("1.15.0", 19, 9), ("1.17.0", 20, 9), ("1.18.0", 21, 10), ("1.21.0", 22, 10), ("1.23.0", 23, 11),
    ("1.24.1", 25, 13),
)  # fmt: skip
"""ONNX Runtime's versions, each with the highest operator set and IR version that it reads."""
BLOCKWISE_READERS = {(4, False): "1.17.0", (4, True): "1.19.0", (8, True): "1.22.0", (8, False): "1.23.0"}
"""For MatMulNBits, by bits and whether it computes in int8: 1.17 and 1.18 read the second, and compute it otherwise."""

_PRODUCTS = ("MatMul", "Gemm", "MatMulInteger", INT8_LSTM)
_SEVEN_BITS = 64  # the largest weight of 7 bits
_BEFORE_PRODUCTS = ("DequantizeLinear", "Transpose", "Reshape", "Cast")


def needs_of(model: Any, file: str) -> GraphFacts:
    """Return what a graph (``onnx.ModelProto``), kept in ``file``, needs.

    On x86 without a dot product of int8, products of u8 activations and s8 weights are summed in 16 bits, and those
    of 8 bits saturate.
    """
    opset = max(entry.version for entry in model.opset_import if not entry.domain)
    blockwise = [node for node in all_nodes(model) if node.op_type == BLOCKWISE]
    signed = max(_signed_bits(model), default=None)
    bits = [*(_attribute(node, "bits") for node in blockwise), *([] if signed is None else [signed])]
    in_floats = any(entry.key == IN_FLOATS for entry in model.metadata_props)
    return GraphFacts(
        file=file,
        opset=opset,
        ir_version=int(model.ir_version),
        onnxruntime=max(_readers(model, opset), key=numbered),
        weight_bits=max(bits, default=None),
        instructions=INT8_DOT_PRODUCT if signed == 8 and not in_floats else (),
    )


def numbered(version: str) -> tuple[int, ...]:
    """Return the numbers of a version, which can be compared."""
    return tuple(map(int, re.findall(r"\d+", version.partition("+")[0])[:3]))


def _readers(model: Any, opset: int) -> Iterator[str]:
    """Yield the lowest versions for the graph as a whole and for each of its operators of no standard.

    Of an operator that was not tried, and of versions of the standard, it is the one that is installed.
    """
    installed = versions().get("onnxruntime", READERS[-1][0])
    yield next((name for name, sets, ir in READERS if opset <= sets and model.ir_version <= ir), installed)
    for node in all_nodes(model):
        if node.op_type == BLOCKWISE:
            int8 = _attribute(node, "accuracy_level") == INT8_LEVEL
            yield BLOCKWISE_READERS.get((_attribute(node, "bits"), int8), installed)
        elif node.domain and node.op_type != INT8_LSTM:
            yield installed


def _signed_bits(model: Any) -> Iterator[int]:
    """Yield the bits, 7 or 8, of the signed integers of each weight that a matrix product takes."""
    onnx = import_onnx("Reading ONNX")
    stored = {tensor.name: tensor for tensor in model.graph.initializer if tensor.data_type == onnx.TensorProto.INT8}
    makers = {name: node for node in model.graph.node for name in node.output}
    for node in model.graph.node:
        for name in node.input if node.op_type in _PRODUCTS else ():
            while name in makers and makers[name].op_type in _BEFORE_PRODUCTS:
                name = makers[name].input[0]  # noqa: PLW2901  # back to what is stored
            if name in stored and len(stored[name].dims) > 1:
                values = onnx.numpy_helper.to_array(stored[name])
                yield 7 if np.abs(values.astype(np.int16)).max(initial=0) <= _SEVEN_BITS else 8


def _attribute(node: Any, name: str) -> int:
    return next((int(entry.i) for entry in node.attribute if entry.name == name), 0)
