"""The student as ONNX, checked against PyTorch on real rows."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from compress.known import NOTHING, Known
from compress.onnx.folder import onnx_student
from compress.pipeline.artifact import Artifact
from compress.pipeline.stage import Stage
from compress.pipeline.state import State
from compress.pipeline.workshop import Product
from compress.settings import positive


@dataclass(kw_only=True)
class Onnx(Stage):
    """Write the student in fp32 with dynamic batch and length; it needs onnxruntime and tokenizers to run."""

    tolerance: float = 1e-3  # largest difference of a logit from PyTorch's on the test rows; more is an error

    def faults(self, known: Known = NOTHING) -> Iterator[Any]:
        """The tolerance is above zero."""
        yield from positive(self, "tolerance")

    def __call__(self, state: State) -> State:
        """Return the state with the artifact ``onnx``."""
        return state.with_artifacts(self.artifact("onnx", onnx_student(state)))

    def artifact(self, name: str, graph: Product) -> Artifact:
        """Return the artifact that a folder with an fp32 graph is."""
        return Artifact(
            name=name, runtime="onnxruntime", precision="fp32", folder=graph.folder, key=graph.key,
            seconds=graph.seconds, tolerance=self.tolerance,
        )  # fmt: skip
