"""Which matrix products a graph has, and to which module of the model each belongs; also after a runtime's fusions.

Node names do not outlive fusions, and some of those rename weights; the biases behind the products keep the model's
names. Layers without biases are known by their weights, which fusions then leave alone.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from compress.families.registry import in_embeddings, place_of
from compress.onnx.storage import subgraphs

INT8_LSTM = "DynamicQuantizeLSTM"
IN_INT8 = frozenset({
    "MatMulInteger", "DynamicQuantizeMatMul", "MatMulIntegerToFloat", "QLinearMatMul", "QGemm", "QAttention",
    INT8_LSTM,
})  # fmt: skip
IN_FLOAT = frozenset({
    "MatMul", "Gemm", "FusedMatMul", "FusedGemm", "TransposeMatMul", "LSTM", "Conv", "FusedConv",
})  # fmt: skip
BLOCKWISE = "MatMulNBits"  # weights with a scale per block; computes in int8 where its accuracy level says so
INT8_LEVEL = 4
_ALL = IN_INT8 | IN_FLOAT | {BLOCKWISE}

_LAYER = re.compile(r"\.(?:layer|layers)\.(\d+)\.")
_BIAS = re.compile(r"^(?:model\.)?(?P<path>.+)\.bias(?:_quantized)?$")
_WEIGHT = re.compile(r"^(?:model\.)?(?P<path>.+)\.weight(?:_\w+)?$")  # transposed, quantized, dequantized
HEAD, EMBEDDINGS = "head", "embeddings"


@dataclass(frozen=True)
class MatrixProduct:
    """A node that multiplies matrices."""

    node: str  # its name in the graph
    kind: str  # its operator
    path: str  # the module that it belongs to, "" where no bias tells
    weighted: bool  # False: of two activations, as Q·Kᵀ and P·V
    int8: bool  # whether it computes in int8

    @property
    def part(self) -> str:
        """Which part of the model it is in, as `part_of` says."""
        return part_of(self.path)

    @property
    def name(self) -> str:
        """What it is called within its layer: the module's path there, or which product of attention's own."""
        place = place_of(self.path)
        inner = self.path[found.end() :] if (found := _LAYER.search(self.path)) else self.path
        inner = inner if place is None else place[2]
        return inner if self.weighted else f"{inner.partition('.')[0]}, of two activations"


def part_of(path: str) -> str:
    """Return the part of a model that a module is in: "layer 1 attention", "layer 1 ffn", "embeddings" or "head".

    Layers are counted from 1. What is in no layer and no embedding is the head.
    """
    place = place_of(path)
    if place is not None:
        family, layer, inner = place
        return f"layer {layer + 1} {'attention' if family.in_attention(inner) else 'ffn'}"
    found = _LAYER.search(path)
    if found is None:
        return EMBEDDINGS if "embeddings" in path or in_embeddings(path) else HEAD
    return f"layer {int(found.group(1)) + 1} {'attention' if 'attention' in path else 'ffn'}"


def layer_of(path: str) -> str:
    """Return the layer that a module is in, "layer 1", or "embeddings" or "head"."""
    return whole_part(part_of(path))


def whole_part(part: str) -> str:
    """Return the layer that a part is in; a part of no layer as it is."""
    return part.removesuffix(" attention").removesuffix(" ffn")


def matrix_products(graph: Any) -> list[MatrixProduct]:
    """Return the matrix products of an ``onnx.GraphProto`` in its order, those of branches too.

    LSTM directions and convolutions count as products.
    """
    return list(_Reader(graph).products())


class _Reader:
    """Reads a graph; of one that is a branch of another, ``outer`` reads that."""

    def __init__(self, graph: Any, outer: _Reader | None = None) -> None:
        self.nodes = graph.node
        self.stored: set[str] = {weight.name for weight in graph.initializer}
        self.makers: dict[str, Any] = {name: node for node in graph.node for name in node.output}
        if outer is not None:
            self.stored, self.makers = outer.stored | self.stored, outer.makers | self.makers
        self.users: dict[str, list[Any]] = {}
        for node in graph.node:
            for name in node.input:
                self.users.setdefault(name, []).append(node)

    def products(self) -> Iterator[MatrixProduct]:
        for node in self.nodes:
            for branch in subgraphs(node):
                yield from _Reader(branch, self).products()
            if node.op_type not in _ALL:
                continue
            path, weighted = self._path(node), self._weighted(node)
            level = next((attribute.i for attribute in node.attribute if attribute.name == "accuracy_level"), 0)
            int8 = node.op_type in IN_INT8 or (node.op_type == BLOCKWISE and level == INT8_LEVEL)
            yield MatrixProduct(node.name, node.op_type, path, weighted, int8)

    def _weighted(self, node: Any) -> bool:
        """Return whether one of the factors is stored, perhaps behind DequantizeLinear, Transpose or Cast."""
        return any(self._is_stored(name) for name in node.input if not _BIAS.match(name) and not _is_grid(name))

    def _is_stored(self, name: str) -> bool:
        maker = self.makers.get(name)
        if maker is None:
            return name in self.stored
        return maker.op_type in ("DequantizeLinear", "Transpose", "Cast", "Constant") and (
            maker.op_type == "Constant" or self._is_stored(maker.input[0])
        )

    def _path(self, node: Any) -> str:
        """Return the module that a product's weight or bias names, its own or the first that reads what it gives."""
        waiting: list[Any] = [node]
        seen: set[int] = set()
        while waiting:
            current = waiting.pop(0)
            if (path := self._named(current)) is not None:
                return path
            for name in current.output:
                waiting += [user for user in self.users.get(name, []) if id(user) not in seen]
                seen.update(id(user) for user in self.users.get(name, []))
        return ""

    def _named(self, node: Any) -> str | None:
        """Return the module whose bias a node adds or whose weight it multiplies by; a normalization has neither."""
        if "Norm" in node.op_type:
            return None
        names = [name for name in node.input if not _is_grid(name)]
        biases = [found["path"] for name in names if (found := _BIAS.match(name))]
        weights = [found["path"] for name in names if node.op_type in _ALL and (found := _WEIGHT.match(name))]
        return next(iter([*biases, *weights]), None)


def _is_grid(name: str) -> bool:
    """Return whether a tensor is a scale or zero point: stored, but no factor."""
    return name.endswith(("_scale", "_zero_point"))
