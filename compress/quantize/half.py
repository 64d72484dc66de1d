"""The student's graph in fp16 with islands of fp32: half the size, for runtimes and devices that compute in fp16."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from compress.data.dataset import Split
from compress.errors import Fault, ModelError
from compress.known import NOTHING, Known
from compress.models.loading import load_tokenizer
from compress.models.tokens import Tokens, tokenize
from compress.onnx.folder import MODEL, onnx_student, write_folder
from compress.onnx.half import LARGEST, float_tensors, in_half, kept_in_fp32
from compress.onnx.package import import_onnx
from compress.pipeline.artifact import Artifact, Cost
from compress.pipeline.stage import Stage
from compress.pipeline.state import State
from compress.pipeline.workshop import Kind, Product
from compress.quantize.calibrated import drawn
from compress.quantize.calibration import RangeRule, measure_ranges
from compress.quantize.costs import costs_by_part
from compress.quantize.mixed import Precisions
from compress.quantize.qdq import IntegerScheme, nodes_by_part
from compress.settings import at_least

ROOM = 4  # other rows have larger values than those that were seen: up to this many times as large


@dataclass(kw_only=True)
class HalfPrecision(Stage):
    """Weights and activations in fp16; normalizations, powers and sums stay in fp32, masks are made to fit.

    Where training rows have values that come near to what fp16 holds, those products and sums stay in fp32, too.
    A CPU without fp16 arithmetic gains size, not speed: ONNX Runtime casts to fp32 and back there.
    """

    rows: int = 256  # training rows searched for values too large for fp16

    def faults(self, known: Known = NOTHING) -> Iterator[Fault]:
        """There are rows."""
        yield from at_least(self, "rows", 1)

    def __call__(self, state: State) -> State:
        """Return the state with the artifact ``fp16``."""
        product = half_student(state, self.rows)
        kept = ", ".join(f"{count} {kind}" for kind, count in sorted(product.record["fp32"].items()))
        notes = [f"in fp32: {kept or 'nothing'}; inputs and logits keep their types"]
        if wide := product.record["wide"]:
            notes.append(f"{wide} tensors come near to {LARGEST:,.0f}, the largest number of fp16, and stay in fp32")
        artifact = Artifact(
            name="fp16", runtime="onnxruntime", precision="fp16", folder=product.folder, key=product.key,
            seconds=product.seconds, notes=tuple(notes),
        )  # fmt: skip
        return state.with_artifacts(artifact)

    def costs(self, state: State, artifact: Artifact) -> tuple[Cost, ...]:
        """Return what each part loses with its matrix products alone in fp16."""
        graph, sample = onnx_student(state), drawn(state, self.rows)

        def prepared() -> Precisions:
            model, tokenizer = import_onnx("Writing fp16 ONNX").load(graph.folder / MODEL), load_tokenizer(graph.folder)
            wide = too_wide(model, _tokens(sample, tokenizer), state.seed)
            parts = nodes_by_part(model, attention=True, embeddings=False)
            return Halved(model, parts, {}, IntegerScheme(), wide=tuple(wide))

        return costs_by_part(state, artifact, load_tokenizer(graph.folder), prepared)


@dataclass(frozen=True)
class Halved(Precisions):
    """A graph of which any products can be had in fp16."""

    wide: tuple[str, ...] = ()  # tensors that fp16 may not hold

    def made(self, nodes: Sequence[str]) -> Any:
        """Return the graph (``onnx.ModelProto``) with these products in fp16, where fp16 holds what they are given."""
        chosen = [node for node in self.model.graph.node if node.name in nodes]
        held = {name for node in chosen for name in (*node.input, *node.output)}
        return in_half(self.model, {*self.wide, *(set(float_tensors(self.model)) - held)}) if nodes else self.model


def half_student(state: State, rows: int) -> Product:
    """Return the folder with the student's graph in fp16; too large values are looked for on ``rows`` training rows."""
    graph, sample = onnx_student(state), drawn(state, rows)

    def work(folder: Path) -> Mapping[str, Any]:
        onnx, tokenizer = import_onnx("Writing fp16 ONNX"), load_tokenizer(graph.folder)
        model = onnx.load(graph.folder / MODEL)
        wide = too_wide(model, _tokens(sample, tokenizer), state.seed)
        half = in_half(model, wide)
        write_folder(half, graph.folder, folder, pairs=state.data.pairs)
        return {"fp32": Counter(node.op_type for node in kept_in_fp32(half)), "wide": len(wide)}

    return state.workshop.make(Kind("fp16", revision=2), [graph.key, sample.fingerprint, state.seed], work)


def too_wide(model: Any, tokens: Tokens, seed: int) -> list[str]:
    """Return the tensors of an fp32 graph (``onnx.ModelProto``) that on rows come near to what fp16 cannot hold.

    Infinite ones are among them: a graph may compute the logarithm of a distance of 0 and not read it. Raises
    ModelError where the graph's own outputs are not finite, or a value is not a number.
    """
    ranges = measure_ranges(model, float_tensors(model), tokens, RangeRule(infinite=True), seed).ranges
    for output in model.graph.output:
        if not all(map(math.isfinite, ranges.get(output.name, ()))):
            told = f"the student's {output.name} are infinite on training rows: its training diverged"
            raise ModelError(f"{told}. Lower distill.learning_rate.")
    return [name for name, (low, high) in ranges.items() if max(-low, high) > LARGEST / ROOM]


def _tokens(rows: Split, tokenizer: Any) -> Tokens:
    return tokenize(rows, tokenizer, tokenizer.model_max_length)
