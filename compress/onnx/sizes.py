"""An exported classifier with other numbers of heads, units and layers, or other ranks, for timing."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from compress.errors import ModelError
from compress.families.forms.uneven import head_size, kept_heads
from compress.families.registry import family_of
from compress.onnx.graph import TRANSPOSED
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
    entered = [parts.entering(family.named(i, ""), family.named(i, first_read)) for i in range(count)]
    for layer in range(count - layers, count):
        for kind, width in ((family.projections(), inner), (family.feed_forward(), units)):
            for part in kind:
                module = family.named(layer, part.name)
                parts.resize(parts.product(module).input[1], 1, width, part.holds)
                for bias in parts.named(f"{module}.bias"):
                    parts.resize(bias, 0, width, part.holds)
        for name, width in family.inputs(inner, units).items():
            product = parts.product(family.named(layer, name))
            parts.resize(product.input[1], 0, width)
            parts.flatten(product.input[0])
    for table in family.tables_by_head():
        parts.choose(table, heads)
    first, start = entered[0], entered[count - layers]
    for node in made.graph.node if start != first else ():
        for place, name in enumerate(node.input):
            if name == start:
                node.input[place] = first
    _drop_unread(made.graph)
    return made


def factored(graph: Any, config: Any, ranks: Mapping[tuple[int, str], int]) -> Any:
    """Return a graph in which these matrices are products of two, by layer, counted from 0, and name in the layer.

    Graphs are as in `resized`. The factors are random: how long they take means something, what is said does not.
    """
    import onnx
    from onnx import numpy_helper

    made = onnx.ModelProto()
    made.CopyFrom(graph)
    family, parts, generator = family_of(config), _Parts(made), np.random.default_rng(0)
    for (layer, name), rank in ranks.items():
        product = parts.product(family.named(layer, name))
        weight = product.input[1]
        inputs, outputs = parts.weights[weight].dims
        for factor, shape in (("down", (inputs, rank)), ("up", (rank, outputs))):
            values = generator.normal(0, 0.02, shape).astype(np.float32)
            made.graph.initializer.append(numpy_helper.from_array(values, f"{weight}.{factor}"))
        thin = onnx.helper.make_node("MatMul", [product.input[0], f"{weight}.down"], [f"{weight}.thin"])
        product.input[0], product.input[1] = f"{weight}.thin", f"{weight}.up"
        made.graph.node.insert(list(made.graph.node).index(product), thin)
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
    """A graph's weights by name, and the nodes that read them."""

    def __init__(self, model: Any) -> None:
        self.model = model
        self.weights = {weight.name: weight for weight in model.graph.initializer}
        self.makers = {output: node for node in model.graph.node for output in node.output}
        self.readers: dict[str, list[Any]] = {}
        for node in model.graph.node:
            for name in node.input:
                self.readers.setdefault(name, []).append(node)

    def named(self, ending: str) -> list[str]:
        """Return the weights whose names end so."""
        return [name for name in self.weights if name.endswith(ending)]

    def product(self, module: str) -> Any:
        """Return the node that multiplies by the weight of a module."""
        found = self.named(f"{module}.weight{TRANSPOSED}")
        products = [node for name in found for node in self.readers[name] if node.op_type == "MatMul"]
        if len(products) != 1:
            raise ModelError(f"the ONNX graph multiplies {len(products)} times by the weight of {module}, not once.")
        return products[0]

    def entering(self, layer: str, module: str) -> str:
        """Return what a layer is given, where ``module`` reads it, perhaps normalised by the layer."""
        states: str = self.product(module).input[0]
        while (maker := self.makers.get(states)) is not None and any(layer in name for name in maker.input[1:]):
            states = maker.input[0]
        return states

    def flatten(self, states: str) -> None:
        """Let states that are reshaped to a number of channels take as many as there are."""
        shape = self.makers.get(self.makers[states].input[1]) if self.makers[states].op_type == "Reshape" else None
        if shape is not None and shape.op_type == "Concat" and shape.input[-1] in self.weights:
            shape.input[-1] = self._stored("any_size", np.array([-1]))

    def choose(self, table: str, heads: int) -> None:
        """Give a table (rows, heads) this many heads; where layers take their own heads of it, they take so many."""
        for name in self.named(table):
            own = self._choosing(self.readers[name])
            for node in own:
                node.input[1] = self._stored(f"{heads}_heads", np.arange(heads) % self.weights[name].dims[1])
            if not own:
                self.resize(name, 1, heads)

    def _choosing(self, waiting: list[Any]) -> list[Any]:
        """Return the nodes that take stored numbers of heads of what these nodes, which look up a table, give."""
        found: list[Any] = []
        while waiting:
            node = waiting.pop()
            if node.op_type == "Gather" and node.input[1] in self.weights:
                found.append(node)
            elif node.op_type in ("Gather", "Transpose", "Unsqueeze", "Expand"):
                waiting += self.readers.get(node.output[0], [])
        return found

    def _stored(self, name: str, values: Array) -> str:
        """Return the name of a stored constant of whole numbers, which is added where there is none."""
        from onnx import numpy_helper

        if name not in self.weights:
            self.weights[name] = self.model.graph.initializer.add()
            self.weights[name].CopyFrom(numpy_helper.from_array(values.astype(np.int64), name))
        return name

    def resize(self, name: str, axis: int, size: int, holds: int = 1) -> None:
        """Give a weight ``size`` entries along ``axis``: its first ones, repeated where it has fewer.

        Where the axis holds several such runs of entries, one after another, each run gets so many.
        """
        from onnx import numpy_helper

        weight = self.weights[name]
        values: Array = numpy_helper.to_array(weight)
        before = values.shape[axis] // holds
        chosen = [run * before + place % before for run in range(holds) for place in range(size)]
        weight.CopyFrom(numpy_helper.from_array(np.ascontiguousarray(np.take(values, chosen, axis)), name))
