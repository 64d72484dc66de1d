"""Symmetric int8 in Q/DQ form with all else in fp16: the graph from which TensorRT builds int8 engines.

TensorRT wants signed weights and activations around zero; on a CPU without a dot-product instruction that form is
slower than fp32, so it is none of the CPU's candidates.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from compress.models.loading import load_tokenizer
from compress.models.onnx_folder import MODEL, import_onnxruntime, onnx_student, with_tokenizer
from compress.models.onnx_half import import_onnx, write_half
from compress.models.tokens import tokenize
from compress.quantize.int8 import MATRIX_PRODUCTS, _quiet, _Rows
from compress.state import Product, State


def symmetric_student(state: State, rows: int) -> Product:
    """Return the folder with the student's int8 graph; ranges are measured on ``rows`` training rows.

    Weights have a scale for each output. Products of attention itself are int8 too, so that it can be fused; their
    results, biases and the classifier are not.
    """
    graph = onnx_student(state)
    chosen = np.random.default_rng(state.seed).permutation(len(state.data.train))[:rows]
    split = state.data.train.take(chosen)

    def work(folder: Path) -> None:
        import_onnxruntime("Quantization")
        from onnxruntime.quantization import CalibrationMethod, QuantFormat, QuantType, quantize_static

        tokenizer = load_tokenizer(graph.folder)
        with tempfile.TemporaryDirectory() as aside, _quiet():
            quantized = Path(aside) / MODEL
            quantize_static(
                graph.folder / MODEL,
                quantized,
                _Rows(tokenize(split, tokenizer, tokenizer.model_max_length)),
                quant_format=QuantFormat.QDQ,
                op_types_to_quantize=list(MATRIX_PRODUCTS),
                nodes_to_exclude=last_products(graph.folder / MODEL),
                per_channel=True,
                activation_type=QuantType.QInt8,
                weight_type=QuantType.QInt8,
                calibrate_method=CalibrationMethod.MinMax,
                extra_options={
                    "ActivationSymmetric": True,
                    "WeightSymmetric": True,
                    "CalibStridedMinMax": 1,  # ranges are merged after each row
                    "QuantizeBias": False,  # its scale, a product of two, would lose its digits in fp16
                    "OpTypesToExcludeOutputQuantization": list(MATRIX_PRODUCTS),
                },
            )
            write_half(quantized, folder / MODEL)
        with_tokenizer(graph.folder, folder)

    return state.workshop.make("symmetric", [graph.key, split.fingerprint], work)


def last_products(path: Path) -> list[str]:
    """Return the names of the matrix products that nothing multiplies after: the classifier's."""
    graph: Any = import_onnx("Reading ONNX").load(path).graph
    maker = {name: node for node in graph.node for name in node.output}
    waiting, found = [one.name for one in graph.output], []
    while waiting:
        node = maker.get(waiting.pop())
        if node is None:
            continue
        if node.op_type in MATRIX_PRODUCTS:
            found.append(node.name)
        else:
            waiting.extend(node.input)
    return found
