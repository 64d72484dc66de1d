"""An fp32 ONNX graph in fp16: the form that a strongly typed runtime (TensorRT) builds fp16 engines from.

What `in_half` guarantees:

- Weights and activations are fp16. Integer and boolean tensors, and int8 weights behind DequantizeLinear, stay as
  they are; scales of Q/DQ pairs become fp16 too, so that what they give back is fp16.
- Islands of fp32 stand where sums of squares leave fp16's range or precision: normalizations with their scales and
  biases, powers, roots, exponentials and reductions, and what is added or multiplied between them. Softmax is not an
  island: it subtracts the largest score first, and attention is fused only where all of it is of one type.
- What computes with tensors that fp16 may not hold stays in fp32 too. Which these are the caller says, who has seen
  their values; of weights the graph tells.
- Single numbers that fp16 cannot hold are masks (PyTorch writes -3.4e38) and become ±1e4: exp(-1e4) is 0, and a
  score added to it stays finite.
- Inputs and outputs keep their names and types: logits come out in fp32.

It knows no runtime; ONNX Runtime runs the result on a CPU too, through casts of its own.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Generator, Iterator
from typing import Any

import numpy as np

from compress.onnx.package import import_onnx
from compress.onnx.storage import inferred, is_large

NORMALIZATIONS = frozenset({
    "LayerNormalization", "GroupNormalization", "InstanceNormalization", "BatchNormalization", "RMSNormalization",
})  # fmt: skip
ISLANDS = frozenset({
    *NORMALIZATIONS, "Pow", "Sqrt", "Reciprocal", "Exp", "Log", "CumSum",
    "ReduceMean", "ReduceSum", "ReduceSumSquare", "ReduceL1", "ReduceL2", "ReduceProd", "ReduceLogSum",
    "ReduceLogSumExp",
})  # fmt: skip
BETWEEN = frozenset({"Add", "Sub", "Mul", "Div", "Max", "Min", "Clip", "Neg", "Abs"})
"""Stay in fp32 where all they are given was made so, as variance + epsilon is between its mean and its root."""

QUANTIZERS = frozenset({"QuantizeLinear", "DequantizeLinear"})

LARGEST, SMALLEST = 65504.0, 2.0**-24  # of what fp16 holds
MASKED = 1e4
LOWEST_OPSET = 19  # from here on Q/DQ take fp16 scales


def float_tensors(model: Any) -> list[str]:
    """Return the names of the fp32 tensors that the nodes of an ``onnx.ModelProto`` make."""
    onnx = import_onnx("Reading ONNX")
    graph = inferred(model, strict=True).graph
    types = {value.name: value.type.tensor_type.elem_type for value in (*graph.value_info, *graph.output)}
    return [name for node in graph.node for name in node.output if types.get(name) == onnx.TensorProto.FLOAT]


def in_half(model: Any, wide: Collection[str] = ()) -> Any:
    """Return an fp16 copy of an fp32 ``onnx.ModelProto``, Q/DQ nodes or not; ``model`` is left as it was.

    ``wide`` names tensors whose values fp16 may not hold: the nodes that make or take them compute in fp32. Raises
    ValueError for a graph with subgraphs or of an opset below 19.
    """
    onnx = import_onnx("Writing fp16 ONNX")
    opset = next((opset.version for opset in model.opset_import if not opset.domain), 0)
    if opset < LOWEST_OPSET:
        raise ValueError(f"the graph has opset {opset}; at least {LOWEST_OPSET} is needed for fp16 scales")
    if any(attribute.HasField("g") for node in model.graph.node for attribute in node.attribute):
        raise ValueError("the graph has subgraphs (If, Loop, Scan), which the cast to fp16 does not enter")
    shaped = inferred(model, strict=True)
    half = onnx.ModelProto()
    half.CopyFrom(model)
    for part in ("node", "initializer", "value_info"):
        half.graph.ClearField(part)
    half.graph.node.extend(_Cast(shaped.graph, half.graph, onnx, wide).nodes())
    if not is_large(half):  # the checker takes one message
        onnx.checker.check_model(half)
    return half


def kept_in_fp32(half: Any) -> Iterator[Any]:
    """Yield the nodes of an fp16 ``onnx.ModelProto`` that compute in fp32, casts left out."""
    onnx = import_onnx("Reading ONNX")
    graph = inferred(half, strict=True).graph
    known = (*graph.value_info, *graph.output)
    types = {value.name: value.type.tensor_type.elem_type for value in known}
    for node in graph.node:
        if node.op_type != "Cast" and any(types.get(name) == onnx.TensorProto.FLOAT for name in node.output):
            yield node


class _Cast:
    """One pass over a graph in its order; every float tensor has an fp16 form, and an fp32 form where one is asked."""

    def __init__(self, source: Any, target: Any, onnx: Any, wide: Collection[str]) -> None:
        self.source, self.target, self.onnx = source, target, onnx
        self.float, self.half = onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16
        self.weights = {value.name: value for value in source.initializer}
        self.weights |= dict(self._constants())
        known = (*source.value_info, *source.input, *source.output)
        self.types = {value.name: value.type.tensor_type.elem_type for value in known}
        self.types |= {name: weight.data_type for name, weight in self.weights.items()}
        self.outputs = {value.name for value in source.output}
        self.forms: dict[tuple[str, int], str] = {}  # (tensor, type) -> the name under which it is available
        self.wide = {*wide, *(name for name, weight in self.weights.items() if self._is_wide(weight))}
        self.made_in_fp32: set[str] = set()  # by islands, except for normalizations
        self.stored: set[str] = set()  # initializers of the new graph

    def nodes(self) -> Iterator[Any]:
        """Yield the new graph's nodes, and store its initializers."""
        for node in self.source.node:
            if node.op_type == "Constant" and node.output[0] in self.weights:
                continue
            wide = not self.wide.isdisjoint((*node.input, *node.output))
            if wide and node.op_type in QUANTIZERS:  # integers, and what they give back, stand for the same values
                self.wide.update(node.output)
            kind = int(self.float) if wide else self._kind(node)
            new = self.onnx.NodeProto()
            new.CopyFrom(node)
            if kind == self.half:
                self._retype(new)
            for place, name in enumerate(node.input):
                if name:
                    new.input[place] = yield from self._wanted(name, kind)
            made = []
            for place, name in enumerate(node.output):
                if name and self._is_float(name):
                    # a graph's output keeps its name for its fp32 form; an island's results take another
                    plain = kind == self.half and name not in self.outputs
                    new.output[place] = name if plain else f"{name}_{'fp16' if kind == self.half else 'fp32'}"
                    self.forms[name, kind] = new.output[place]
                    made.append(name)
                    if kind == self.float and not wide and node.op_type not in NORMALIZATIONS:
                        self.made_in_fp32.add(name)
            yield new
            for name in made:
                if name in self.outputs:
                    yield self._cast(self.forms[name, kind], name, self.float)
                    self.forms[name, self.float] = name

    def _constants(self) -> Iterator[tuple[str, Any]]:
        """Yield the float constants that are nodes, as named tensors."""
        for node in self.source.node:
            for given in node.attribute if node.op_type == "Constant" else ():
                if given.name == "value" and given.t.data_type == self.float:
                    values = self.onnx.numpy_helper.to_array(given.t)
                elif given.name in ("value_float", "value_floats"):
                    values = np.array(given.f if given.name == "value_float" else given.floats, np.float32)
                else:
                    continue
                yield node.output[0], self.onnx.numpy_helper.from_array(values, node.output[0])

    def _kind(self, node: Any) -> int:
        """Return the type that a node computes in, where it computes with floats."""
        if node.op_type in ISLANDS:
            return int(self.float)
        given = [name for name in node.input if name and name not in self.weights]
        inside = node.op_type in BETWEEN and given and all(name in self.made_in_fp32 for name in given)
        return int(self.float if inside else self.half)

    def _is_wide(self, weight: Any) -> bool:
        """Return whether fp16 cannot hold a weight; a single number beyond it is a mask."""
        if weight.data_type != self.float or math.prod(weight.dims) < 2:
            return False
        return bool(np.abs(self.onnx.numpy_helper.to_array(weight)).max() > LARGEST)

    def _is_float(self, name: str) -> bool:
        if name not in self.types:
            raise ValueError(f"the type of {name} is not known")
        return bool(self.types[name] == self.float)

    def _wanted(self, name: str, kind: int) -> Generator[Any, None, str]:
        """Yield the cast that is still missing, if one is; return the name of ``name`` in type ``kind``."""
        if not self._is_float(name):
            if name in self.weights:
                self._store(self.weights[name])
            return name
        if (name, kind) not in self.forms:
            made = f"{name}_{'fp16' if kind == self.half else 'fp32'}"
            if name in self.weights:
                made = name if kind == self.half else made
                self._store(self._constant(self.weights[name], kind, made))
            else:
                other = self.half if kind == self.float else self.float
                yield self._cast(self.forms.get((name, other), name), made, kind)
            self.forms[name, kind] = made
        return self.forms[name, kind]

    def _cast(self, source: str, target: str, kind: int) -> Any:
        return self.onnx.helper.make_node("Cast", [source], [target], name=f"{target}_cast", to=kind)

    def _store(self, weight: Any) -> None:
        if weight.name not in self.stored:
            self.stored.add(weight.name)
            self.target.initializer.append(weight)

    def _constant(self, weight: Any, kind: int, name: str) -> Any:
        """Return a float tensor under another name, in fp32, or in fp16 with masks that it can hold."""
        values = self.onnx.numpy_helper.to_array(weight)
        return self.onnx.numpy_helper.from_array(values if kind == self.float else half_values(values), name)

    def _retype(self, node: Any) -> None:
        """Make what a node itself says about types say fp16: casts to fp32, filled tensors, Q/DQ outputs."""
        for attribute in node.attribute:
            if attribute.name in ("to", "dtype", "output_dtype") and attribute.i == self.float:
                attribute.i = self.half
            elif attribute.HasField("t") and attribute.t.data_type == self.float:
                attribute.t.CopyFrom(self._constant(attribute.t, self.half, attribute.t.name))


def half_values(values: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Return fp32 values in fp16: what lies outside its range becomes ±1e4, what is not 0 stays so."""
    values = np.where(np.abs(values) > LARGEST, np.sign(values) * MASKED, values)
    tiny = (values != 0) & (np.abs(values) < SMALLEST)
    return np.asarray(np.where(tiny, np.sign(values) * SMALLEST, values).astype(np.float16))
