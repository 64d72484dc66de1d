"""Weights with a scale for each group of inputs of an output, finer than one an output.

Q-BERT's group-wise quantization (Shen et al., arXiv:1909.05840, section 3.2) in the form that ONNX Runtime runs:
``MatMulNBits``, whose groups are neighbouring inputs of one output. Asked to, it quantizes activations at run time, a
scale per group too, and multiplies integers.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from compress.errors import Fault
from compress.known import NOTHING, Known
from compress.models.loading import load_tokenizer
from compress.models.tokens import tokenize
from compress.onnx.folder import MODEL, onnx_student, write_folder
from compress.onnx.package import import_onnx
from compress.onnx.products import INT8_LEVEL
from compress.pipeline.artifact import Artifact, Cost
from compress.pipeline.stage import Stage
from compress.pipeline.state import State
from compress.pipeline.workshop import Kind
from compress.quantize.costs import costs_by_part
from compress.quantize.mixed import Precisions
from compress.quantize.qdq import IntegerScheme, nodes_by_part, quiet_quantizer
from compress.runtimes.onnxruntime import import_onnxruntime, inference_session
from compress.runtimes.rows import model_inputs

FP32_LEVEL = 1
GROUPS = (16, 32, 64, 128, 256)  # the sizes that ONNX Runtime has


@dataclass(kw_only=True)
class GroupWise(Stage):
    """Weights of 4 or 8 bits with a scale for each group of inputs; activations int8, quantized at run time.

    Embeddings, pooler and classifier stay fp32.
    """

    bits: int = 4  # of weights: 4 or 8
    group: int = 32  # inputs that share a scale: 16, 32, 64, 128 or 256
    symmetric: bool = True  # no zero point; false: one per group
    int8: bool = True  # multiply integers; false: weights become fp32 again before they are multiplied

    def faults(self, known: Known = NOTHING) -> Iterator[Fault]:
        """Bits and group have a size that the runtime has."""
        if self.bits not in (4, 8):
            yield Fault("bits", self.bits, "must be 4 or 8")
        if self.group not in GROUPS:
            yield Fault("group", self.group, f"must be one of {', '.join(map(str, GROUPS))}")

    def __call__(self, state: State) -> State:
        """Return the state with the artifact ``groups``."""
        graph = onnx_student(state)
        sample = state.data.train.take(np.arange(min(8, len(state.data.train))))

        def work(folder: Path) -> Mapping[str, Any]:
            tokens = tokenize(sample, tokenizer := load_tokenizer(graph.folder), tokenizer.model_max_length)
            inputs = model_inputs(tokens, list(range(len(tokens))))
            onnx = import_onnx("Quantization")
            floats = self.quantized(onnx.load(graph.folder / MODEL), FP32_LEVEL)
            made, moved = floats, 0.0
            if self.int8:
                integers = self.quantized(onnx.load(graph.folder / MODEL), INT8_LEVEL)
                logits = [inference_session(m, 1).run(None, inputs)[0] for m in (floats, integers)]
                moved = float(np.abs(logits[0] - logits[1]).max())
                made = integers if moved > 0 else floats  # a runtime without such a kernel takes the level for a hint
            write_folder(made, graph.folder, folder, pairs=state.data.pairs)
            return {"moved": moved}

        made_with = [graph.key, self.made_with(), sample.fingerprint]
        product = state.workshop.make(Kind("groups", revision=2), made_with, work)
        moved = product.record["moved"]
        notes = (
            f"weights in {self.bits} bits, a scale for each {self.group} inputs; embeddings and head in fp32",
            f"products of integers: activations are quantized too, which moves logits by up to {moved:.2g} on "
            f"{len(sample)} rows"
            if moved
            else "weights only: products are computed in fp32",
        )
        artifact = Artifact(
            name="groups", runtime="onnxruntime", precision=f"int{self.bits}", folder=product.folder, key=product.key,
            seconds=product.seconds, notes=notes,
        )  # fmt: skip
        return state.with_artifacts(artifact)

    def costs(self, state: State, artifact: Artifact) -> tuple[Cost, ...]:
        """Return what each part loses with its products alone in groups."""
        graph = onnx_student(state)

        def prepared() -> Precisions:
            model = import_onnx("Quantization").load(graph.folder / MODEL)
            products = {node.name for node in model.graph.node if node.op_type == "MatMul"}
            by_part = nodes_by_part(model, attention=False, embeddings=False)
            own = {part: [node for node in nodes if node in products] for part, nodes in by_part.items()}
            parts = {part: nodes for part, nodes in own.items() if nodes}
            return _Grouped(model, parts, {}, IntegerScheme(), stage=self)

        return costs_by_part(state, artifact, load_tokenizer(graph.folder), prepared)

    def quantized(self, model: Any, level: int, without: Sequence[str] = ()) -> Any:
        """Return a graph (``onnx.ModelProto``) with its products in groups, at an accuracy level of MatMulNBits.

        ``model`` is changed; the nodes ``without`` stay as they are.
        """
        import_onnxruntime("Quantization")
        with quiet_quantizer():
            from onnxruntime.quantization.matmul_nbits_quantizer import (
                DefaultWeightOnlyQuantConfig,
                MatMulNBitsQuantizer,
            )

        how = DefaultWeightOnlyQuantConfig(
            block_size=self.group, is_symmetric=self.symmetric, accuracy_level=level, bits=self.bits,
            op_types_to_quantize=("MatMul",),
        )  # fmt: skip
        with quiet_quantizer():
            quantizer = MatMulNBitsQuantizer(model, algo_config=how, nodes_to_exclude=list(without))
            quantizer.process()
        return quantizer.model.model


@dataclass(frozen=True)
class _Grouped(Precisions):
    """A graph of which any products can be had in groups."""

    stage: GroupWise = field(default_factory=GroupWise)

    def made(self, nodes: Sequence[str]) -> Any:
        """Return the graph (``onnx.ModelProto``) with these products in groups."""
        model = type(self.model)()
        model.CopyFrom(self.model)
        others = [node.name for node in model.graph.node if node.name not in nodes]
        level = INT8_LEVEL if self.stage.int8 else FP32_LEVEL
        return self.stage.quantized(model, level, others) if nodes else model
