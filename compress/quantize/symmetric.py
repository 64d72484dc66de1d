"""Symmetric int8 in Q/DQ form with all else in fp16: the graph from which TensorRT builds int8 engines.

TensorRT wants signed weights and activations around zero. A CPU gains nothing from that form; ONNX Runtime computes
it in floats there, with the very values that the integers stand for, so what it says can be scored anywhere.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from compress.models.loading import load_tokenizer
from compress.models.tokens import tokenize
from compress.onnx.folder import MODEL, onnx_student, write_folder
from compress.onnx.half import in_half
from compress.onnx.needs import IN_FLOATS
from compress.onnx.package import import_onnx
from compress.onnx.storage import inferred
from compress.pipeline.artifact import Artifact, Cost
from compress.pipeline.state import State
from compress.pipeline.workshop import Kind, Product
from compress.quantize.calibrated import Calibrated, clipped
from compress.quantize.calibration import measure_ranges
from compress.quantize.costs import costs_by_part
from compress.quantize.half import too_wide
from compress.quantize.mixed import Precisions
from compress.quantize.qdq import (
    MATRIX_PRODUCTS,
    IntegerScheme,
    activations,
    nodes_by_part,
    parts_of_activations,
    with_qdq,
)
from compress.runtimes.onnxruntime import import_onnxruntime

SCHEME = IntegerScheme(symmetric=True)


@dataclass(kw_only=True)
class SymmetricInt8(Calibrated):
    """Int8 weights and activations around zero, all else in fp16: the graph that TensorRT builds an engine from.

    It is kept beside the candidates for the CPU and scored through ONNX Runtime; export=[tensorrt] builds engines.
    """

    def __call__(self, state: State) -> State:
        """Return the state with the artifact ``symmetric``."""
        product = symmetric_graph(state, self)
        notes = (
            "for TensorRT: signed integers around zero, all else in fp16; a CPU computes it in floats",
            self.told(),
            *product.record.get("warnings", ()),
        )
        artifact = Artifact(
            name="symmetric", runtime="onnxruntime", precision="int8", folder=product.folder, key=product.key,
            seconds=product.seconds, notes=notes, target="TensorRT",
        )  # fmt: skip
        return state.with_artifacts(artifact)

    def costs(self, state: State, artifact: Artifact) -> tuple[Cost, ...]:
        """Return what each part loses alone in int8, with all else in fp32."""
        graph = onnx_student(state)

        def prepared() -> Precisions:
            quantizable = _Quantizable(graph.folder, self, state)
            return Precisions(quantizable.model, quantizable.parts, quantizable.measured.ranges, SCHEME)

        return costs_by_part(state, artifact, load_tokenizer(graph.folder), prepared)


def symmetric_student(state: State, rows: int) -> Product:
    """Return the folder with the student's int8 graph; ranges are measured on ``rows`` training rows."""
    return symmetric_graph(state, SymmetricInt8(rows=rows))


def symmetric_graph(state: State, calibrated: Calibrated) -> Product:
    """Return the folder with the student's int8 graph.

    Weights have a scale for each output. Products of attention itself are int8 too, so that it can be fused; their
    results, biases and the classifier are not.
    """
    graph = onnx_student(state)

    def work(folder: Path) -> dict[str, Any]:
        onnx, found = import_onnx("Quantization"), _Quantizable(graph.folder, calibrated, state)
        model, parts, measured = found.model, found.parts, found.measured
        nodes = [node for part in parts.values() for node in part]
        wide = too_wide(model, found.tokens, state.seed)
        made = in_half(with_qdq(model, nodes, measured.ranges, SCHEME), wide)
        onnx.helper.set_model_props(made, {IN_FLOATS: "1"})
        write_folder(made, graph.folder, folder, pairs=state.data.pairs)
        warnings = clipped(measured.excess, parts_of_activations(model, parts))
        return {"warnings": warnings} if warnings else {}

    return state.workshop.make(Kind("symmetric", revision=3), [graph.key, *calibrated.measured_with(state)], work)


class _Quantizable:
    """A student's graph, what is int8 in it, and the ranges that training rows give."""

    def __init__(self, folder: Path, calibrated: Calibrated, state: State) -> None:
        import_onnxruntime("Quantization")
        tokenizer = load_tokenizer(folder)
        self.model = inferred(import_onnx("Quantization").load(folder / MODEL))
        left = set(last_products(folder / MODEL))
        by_part = nodes_by_part(self.model, attention=True, embeddings=False)
        own = {part: [node for node in nodes if node not in left] for part, nodes in by_part.items()}
        self.parts = {part: nodes for part, nodes in own.items() if nodes}
        self.tokens = tokenize(calibrated.sample(state), tokenizer, tokenizer.model_max_length)
        read = activations(self.model, [node for nodes in self.parts.values() for node in nodes])
        self.measured = measure_ranges(self.model, read, self.tokens, calibrated.rule(symmetric=True), state.seed)


def last_products(path: Path) -> list[str]:
    """Return the names of the matrix products that nothing multiplies after: the classifier's."""
    graph: Any = import_onnx("Reading ONNX").load(path, load_external_data=False).graph
    maker = {name: node for node in graph.node for name in node.output}
    waiting, found = [output.name for output in graph.output], []
    while waiting:
        node = maker.get(waiting.pop())
        if node is None:
            continue
        if node.op_type in MATRIX_PRODUCTS:
            found.append(node.name)
        else:
            waiting.extend(node.input)
    return found
