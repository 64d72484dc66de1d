"""The package `onnx`, imported when a graph is read or written."""

from __future__ import annotations

from typing import Any

from compress.errors import MissingPackageError


def import_onnx(purpose: str) -> Any:
    """Return the module; raises MissingPackageError."""
    try:
        import onnx
        import onnx.numpy_helper
        import onnx.shape_inference
    except ImportError as error:
        raise MissingPackageError("onnx", "onnx", purpose) from error
    return onnx
