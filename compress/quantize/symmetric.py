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
from compress.pipeline.artifact import Artifact
from compress.pipeline.state import State
from compress.pipeline.workshop import Kind, Product
from compress.quantize.calibrated import Calibrated, clipped
from compress.quantize.calibration import measure_ranges
from compress.quantize.half import too_wide
from compress.quantize.qdq import (
    MATRIX_PRODUCTS,
    IntegerScheme,
    activations,
    nodes_by_part,
    parts_of_activations,
    with_qdq,
)
from compress.runtimes.onnxruntime import import_onnxruntime


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
        import_onnxruntime("Quantization")
        onnx = import_onnx("Quantization")
        tokenizer = load_tokenizer(graph.folder)
        model = inferred(onnx.load(graph.folder / MODEL))
        left = set(last_products(graph.folder / MODEL))
        parts = nodes_by_part(model, attention=True, embeddings=False)
        nodes = [node for part in parts.values() for node in part if node not in left]
        tokens = tokenize(calibrated.sample(state), tokenizer, tokenizer.model_max_length)
        how = calibrated.rule(symmetric=True)
        measured = measure_ranges(model, activations(model, nodes), tokens, how, state.seed)
        wide = too_wide(model, tokens, state.seed)
        made = in_half(with_qdq(model, nodes, measured.ranges, IntegerScheme(symmetric=True)), wide)
        onnx.helper.set_model_props(made, {IN_FLOATS: "1"})
        write_folder(made, graph.folder, folder, pairs=state.data.pairs)
        warnings = clipped(measured.excess, parts_of_activations(model, parts))
        return {"warnings": warnings} if warnings else {}

    return state.workshop.make(Kind("symmetric", revision=3), [graph.key, *calibrated.measured_with(state)], work)


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
