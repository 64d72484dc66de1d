"""The student's graph in fp16 with islands of fp32: half the size, for runtimes and devices that compute in fp16."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from compress.models.onnx_folder import MODEL, onnx_student, with_tokenizer
from compress.models.onnx_half import import_onnx, in_half, kept_in_fp32
from compress.state import Artifact, Stage, State


@dataclass(kw_only=True)
class HalfPrecision(Stage):
    """Weights and activations in fp16; normalizations, powers and sums stay in fp32, masks are made to fit.

    A CPU without fp16 arithmetic gains size, not speed: ONNX Runtime casts to fp32 and back there.
    """

    def __call__(self, state: State) -> State:
        """Return the state with the artifact ``fp16``."""
        graph = onnx_student(state)

        def work(folder: Path) -> Mapping[str, Any]:
            onnx = import_onnx("Writing fp16 ONNX")
            half = in_half(onnx.load(graph.folder / MODEL))
            onnx.save(half, folder / MODEL)
            with_tokenizer(graph.folder, folder)
            return {"fp32": Counter(node.op_type for node in kept_in_fp32(half))}

        product = state.workshop.make("fp16", [graph.key], work)
        kept = ", ".join(f"{count} {kind}" for kind, count in sorted(product.record["fp32"].items()))
        notes = (f"in fp32: {kept or 'nothing'}; inputs and logits keep their types",)
        record = {"notes": notes, "seconds": product.seconds}
        artifact = Artifact("fp16", "onnxruntime", "fp16", product.folder, product.key, record)
        return replace(state, artifacts=(*state.artifacts, artifact))
