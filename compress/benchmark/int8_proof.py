"""What really runs in int8, read from the graph that ONNX Runtime made of a model."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from compress.onnx.folder import MODEL, onnx_session
from compress.onnx.half import import_onnx
from compress.onnx.products import MatrixProduct, matrix_products


def optimized_products(folder: Path) -> list[MatrixProduct]:
    """Return the matrix products of the optimized graph.

    The products of attention itself, Q·Kᵀ and P·V, which have no weights, count too; so do a convolution and an
    LSTM direction, as one each.
    """
    onnx = import_onnx("Reading the optimized graph")
    with tempfile.TemporaryDirectory() as aside:
        optimized = Path(aside) / MODEL
        onnx_session(folder / MODEL, threads=1, optimized=optimized)
        return matrix_products(onnx.load(optimized).graph)


def by_part(products: Sequence[MatrixProduct]) -> list[dict[str, Any]]:
    """Return, for each part of the model that has products, the names of those that run in int8 and of the others."""
    parts: dict[str, list[MatrixProduct]] = {}
    for one in products:
        parts.setdefault(one.part, []).append(one)
    return [
        {
            "part": part,
            "int8": [one.name for one in found if one.int8],
            "floats": [one.name for one in found if not one.int8],
        }
        for part, found in parts.items()
    ]


def int8_matmuls(folder: Path) -> tuple[int, int]:
    """Return (matrix products that run in int8, all matrix products) of the optimized graph."""
    found = optimized_products(folder)
    return sum(one.int8 for one in found), len(found)
