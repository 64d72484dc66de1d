"""An exported classifier with other numbers of heads, units and layers, for timing: the same graph, other weights."""

from __future__ import annotations

from typing import Any

import numpy as np

from compress.errors import ModelError
from compress.families.forms.uneven import head_size, kept_heads
from compress.families.registry import family_of
from compress.tasks.base import Array


def resized(graph: Any, config: Any, *, heads: int, units: int, layers: int) -> Any:
    """Return a graph whose last ``layers`` layers, each of ``heads`` heads and ``units`` units, are all it has.

    Graphs are ``onnx.ModelProto``. ``graph`` is what `compress.onnx.graph.write_onnx` wrote of a model of this
    configuration, without shapes between its nodes; it is left as it was. Where the model is larger the first heads and
    units are kept, where it is smaller they are repeated: what is said then means nothing, how long it takes does.
    Raises ModelError for another graph.
    """
    import onnx

    made = onnx.ModelProto()
    made.CopyFrom(graph)
    family, count = family_of(config), len(kept_heads(config))
    inner = heads * head_size(config)
    parts = _Parts(made)
    first_read = family.projections()[0].name
    entered = [parts.product(parts.named(family.named(i, f"{first_read}.bias"))).input[0] for i in range(count)]
    for layer in range(count - layers, count):
        for name, width in family.outputs(inner, units).items():
            bias = parts.named(family.named(layer, f"{name}.bias"))
            parts.resize(parts.product(bias).input[1], 1, width)
            parts.resize(bias, 0, width)
        for name, width in family.inputs(inner, units).items():
            parts.resize(parts.product(parts.named(family.named(layer, f"{name}.bias"))).input[1], 0, width)
    first, start = entered[0], entered[count - layers]
    for node in made.graph.node if start != first else ():
        for place, name in enumerate(node.input):
            if name == start:
                node.input[place] = first
    _drop_unread(made.graph)
    return made


def _drop_unread(graph: Any) -> None:
    """Remove the nodes and weights from which no output is made; ONNX Runtime would run them."""
    read, kept = {output.name for output in graph.output}, []
    for node in reversed(graph.node):
        if read.intersection(node.output):
            kept.append(node)
            read.update(node.input)
    weights = [weight for weight in graph.initializer if weight.name in read]
    for field, left in (("node", kept[::-1]), ("initializer", weights)):
        graph.ClearField(field)
        getattr(graph, field).extend(left)


class _Parts:
    """A graph's weights by name, and the matrix product before each bias."""

    def __init__(self, model: Any) -> None:
        self.weights = {weight.name: weight for weight in model.graph.initializer}
        self.makers = {output: node for node in model.graph.node for output in node.output}
        self.adders = {name: node for node in model.graph.node if node.op_type == "Add" for name in node.input}

    def named(self, ending: str) -> str:
        """Return the weight whose name ends so."""
        found = [str(name) for name in self.weights if name.endswith(ending)]
        if len(found) != 1:
            raise ModelError(f"the ONNX graph has {len(found)} weights called …{ending}, where one is looked for.")
        return found[0]

    def product(self, bias: str) -> Any:
        """Return the node of the matrix product that a bias is added to."""
        adder = self.adders.get(bias)
        makers = [self.makers.get(name) for name in adder.input] if adder is not None else []
        for maker in makers:
            if maker is not None and maker.op_type == "MatMul" and maker.input[1] in self.weights:
                return maker
        raise ModelError(f"the ONNX graph adds {bias} to no matrix product.")

    def resize(self, name: str, axis: int, size: int) -> None:
        """Give a weight ``size`` entries along ``axis``: its first ones, repeated where it has fewer."""
        from onnx import numpy_helper

        weight = self.weights[name]
        values: Array = numpy_helper.to_array(weight)
        taken = np.ascontiguousarray(np.take(values, np.arange(size) % values.shape[axis], axis))
        weight.CopyFrom(numpy_helper.from_array(taken, name))
