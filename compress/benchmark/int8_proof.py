"""What really runs in int8, read from the graph that ONNX Runtime made of a model."""

from __future__ import annotations

import tempfile
from pathlib import Path

from compress.models.onnx_folder import MODEL, import_onnxruntime

IN_INT8 = {
    "MatMulInteger", "DynamicQuantizeMatMul", "MatMulIntegerToFloat", "QLinearMatMul", "QGemm", "QAttention",
    "DynamicQuantizeLSTM",
}  # fmt: skip
IN_FLOAT = {"MatMul", "Gemm", "FusedMatMul", "FusedGemm", "TransposeMatMul", "LSTM", "Conv", "FusedConv"}


def int8_matmuls(folder: Path) -> tuple[int, int]:
    """Return (matrix products that run in int8, all matrix products) of the optimized graph.

    The products of attention itself, Q·Kᵀ and P·V, which have no weights, count too; so do a convolution and an
    LSTM direction, as one each.
    """
    ort = import_onnxruntime("Reading the optimized graph")
    import onnx

    with tempfile.TemporaryDirectory() as aside:
        options = ort.SessionOptions()
        options.optimized_model_filepath = str(Path(aside) / MODEL)
        options.log_severity_level = 3
        ort.InferenceSession(str(folder / MODEL), options, providers=["CPUExecutionProvider"])
        kinds = [node.op_type for node in onnx.load(options.optimized_model_filepath).graph.node]
    ran = sum(kind in IN_INT8 for kind in kinds)
    return ran, ran + sum(kind in IN_FLOAT for kind in kinds)
