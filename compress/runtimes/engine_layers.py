"""What an engine made of a graph: its layers, which products run in int8, and whether attention is fused.

Read from the lines that TensorRT's engine inspector writes with detailed verbosity. Each layer names the ONNX nodes
that it computes, so that what runs can be counted in the graph's own terms, whatever was fused.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from compress.onnx.package import import_onnx

PRODUCTS = ("MatMul", "Gemm")
MOVES = ("Transpose", "Reshape", "Squeeze", "Unsqueeze", "Slice", "Identity")
"""What may stand between what makes a tensor and what uses it."""

_LINE = re.compile(
    r"Name: (?P<name>.*?), LayerType: (?P<kind>[^,]*), Inputs: \[(?P<inputs>.*?)\], Constants: \[(?P<constants>.*?)\], "
    r"Outputs: \[(?P<outputs>.*?)\], TacticName: (?P<tactic>.*?), StreamId: [^,]*, Metadata:(?P<metadata>.*)"
)
_NODE = re.compile(r"\[ONNX Layer: ([^\]]*)\]")
_COMPUTES = re.compile(r"gemm|mha|Fc|[mM]at[mM]ul|conv|runtime_fusion")  # in a layer's kind or name


@dataclass(frozen=True)
class Layer:
    """One kernel of an engine. Types are TensorRT's: Int8, Half, Float, Int64, Bool."""

    name: str
    kind: str
    inputs: tuple[str, ...]  # types of what it reads
    constants: tuple[str, ...]
    outputs: tuple[str, ...]
    tactic: str
    nodes: tuple[str, ...]  # the ONNX nodes that it computes, or parts of them


@dataclass(frozen=True)
class EngineSummary:
    """Counts over an engine; products and attention blocks are those of the ONNX graph."""

    layers: int
    products: int  # matrix products, those of attention itself included
    int8_products: int
    attention: int  # softmaxes between two products
    fused_attention: int  # of these, both products and the softmax in one layer

    def __str__(self) -> str:
        return (
            f"{self.layers} layers, {self.int8_products} of {self.products} matrix products in int8, "
            f"attention fused in {self.fused_attention} of {self.attention} blocks"
        )


def read_layers(text: str) -> list[Layer]:
    """Return the layers that the inspector's lines tell; none where they are not detailed."""
    found = (_LINE.match(line.strip()) for line in text.splitlines())
    return [_layer(match) for match in found if match]


def _layer(match: re.Match[str]) -> Layer:
    inputs, constants, outputs = (_types(match[part]) for part in ("inputs", "constants", "outputs"))
    nodes = tuple(dict.fromkeys(_NODE.findall(match["metadata"])))
    return Layer(match["name"], match["kind"], inputs, constants, outputs, match["tactic"], nodes)


def _types(tensors: str) -> tuple[str, ...]:
    return tuple(re.findall(r"Datatype: (\w+)", tensors))


def layers_of(file: Path) -> list[Layer]:
    """Return the layers of a table that was written as `as_json` gives it; none where there is no such file."""
    table: list[dict[str, Any]] = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else []
    return [Layer(**_as_tuples(layer)) for layer in table]


def _as_tuples(layer: dict[str, Any]) -> dict[str, Any]:
    return {name: tuple(value) if isinstance(value, list) else value for name, value in layer.items()}


def as_json(layers: Iterable[Layer]) -> list[dict[str, Any]]:
    """Return the table of layers, JSON-ready."""
    return [
        {name: list(value) if isinstance(value, tuple) else value for name, value in asdict(layer).items()}
        for layer in layers
    ]


def summarise(layers: list[Layer], graph: Path) -> EngineSummary:
    """Return the counts of an engine that was built from the ONNX file ``graph``.

    A product runs in int8 where the graph gives it int8 on both sides and the layer that computes it reads int8:
    then what DequantizeLinear stands for happens inside its kernel. Where a layer of its own does that, the kernel
    reads Half or Float, and the product does not count.
    """
    model = _Graph(import_onnx("Reading ONNX").load(graph, load_external_data=False).graph)
    computed = {name: layer for layer in layers if _computes(layer) for name in layer.nodes}
    products = [node for node in model.nodes if node.op_type in PRODUCTS]
    blocks = list(model.attention())
    fused = sum(
        any({softmax, before, after} <= set(layer.nodes) for layer in layers) for before, softmax, after in blocks
    )
    in_int8 = sum(
        model.quantized(node) and node.name in computed and "Int8" in computed[node.name].inputs for node in products
    )
    return EngineSummary(len(layers), len(products), in_int8, len(blocks), fused)


def _computes(layer: Layer) -> bool:
    """Return whether a layer multiplies matrices, rather than prepares or finishes a product that another computes."""
    return bool(_COMPUTES.search(f"{layer.kind} {layer.name}"))


class _Graph:
    """An ONNX graph, asked who made what."""

    def __init__(self, graph: Any) -> None:
        self.nodes = list(graph.node)
        self.maker = {name: node for node in self.nodes for name in node.output}

    def quantized(self, product: Any) -> bool:
        """Return whether both sides of a product come from DequantizeLinear."""
        sources = [self._source(name) for name in product.input[:2]]
        return all(node is not None and node.op_type == "DequantizeLinear" for node in sources)

    def attention(self) -> Iterator[tuple[str, str, str]]:
        """Yield (product, softmax, product) of each attention block, by the nodes' names."""
        for node in self.nodes:
            if node.op_type not in PRODUCTS:
                continue
            softmax = self._source(node.input[0], through=("QuantizeLinear", "DequantizeLinear", "Cast", *MOVES))
            if softmax is None or softmax.op_type != "Softmax":
                continue
            scores = self._behind(softmax.input[0])
            if scores is not None:
                yield scores.name, softmax.name, node.name

    def _source(self, name: str, through: tuple[str, ...] = MOVES) -> Any:
        """Return the node that made a tensor, what only moves it left out; None for inputs and constants."""
        node = self.maker.get(name)
        while node is not None and node.op_type in through:
            node = self.maker.get(node.input[0])
        return node

    def _behind(self, name: str) -> Any:
        """Return the product whose scores reach a softmax through scaling and masking."""
        waiting, seen = [name], set()
        while waiting:
            node = self.maker.get(waiting.pop(0))
            if node is None or node.name in seen:
                continue
            seen.add(node.name)
            if node.op_type in PRODUCTS:
                return node
            if node.op_type in ("Add", "Mul", "Div", "Cast", "Where", *MOVES):
                waiting.extend(node.input)
        return None
