"""Graphs in files: in the lowest IR version that holds them, and beside their weights where protobuf's limit is passed.

A protobuf message holds less than 2 GiB. The weights of a larger graph are in a second file, whose name ends in
``_data`` as Optimum's and transformers.js's do, and ONNX Runtime reads it from beside the first.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from compress.files import copy_file
from compress.onnx.package import import_onnx

BESIDE = "_data"  # behind the name of a graph's file: the file with its weights
SUFFIXES = (".onnx", f".onnx{BESIDE}")  # of all files of graphs, for sums of sizes
MOST_INLINE = 2**31 - 2**26  # bytes of weights in the graph's own file; the rest of a message is names and nodes
_LEAST_OUTSIDE = 1024  # bytes of a weight that is moved to the second file; smaller ones are shapes and the like
_NEEDS_IR = {"FLOAT8": 9, "INT4": 10, "UINT4": 10, "FLOAT4": 11, "INT2": 13, "UINT2": 13}  # types by their names' start


def save_graph(model: Any, path: Path) -> None:
    """Write a graph (``onnx.ModelProto``), tidied: for the oldest runtimes that can read it, and without shapes.

    It loses the shapes of what is between its nodes. Where ONNX Runtime knows them it fuses additions and
    normalizations into SkipLayerNormalization, whose kernel for CPUs takes longer than those of the parts:
    benchmarks/graph_fusion.py. A runtime infers what it needs.
    """
    onnx = import_onnx("Writing ONNX")
    del model.graph.value_info[:]
    del model.graph.metadata_props[:]
    _name_used_domains(model)
    model.ir_version = lowest_ir(model)
    outside = Path(f"{path}{BESIDE}")
    outside.unlink(missing_ok=True)  # onnx would append to it
    if is_large(model):
        onnx.save(
            model, path, save_as_external_data=True, all_tensors_to_one_file=True, location=outside.name,
            size_threshold=_LEAST_OUTSIDE,
        )  # fmt: skip
        outside.chmod(0o644)  # as all other files: onnx lets nobody else read it
        onnx.load_external_data_for_model(model, str(path.parent))  # saving took them out of the model that was given
    else:
        onnx.save(model, path)


def copy_graph(source: Path, target: Path) -> None:
    """Copy a graph to a file of another name or place, its weights with it."""
    if not is_outside(source):
        copy_file(source, target)
        return
    onnx = import_onnx("Copying ONNX")
    model = onnx.load(source, load_external_data=False)
    for tensor in all_weights(model):
        for entry in tensor.external_data:
            if entry.key == "location":
                entry.value = f"{target.name}{BESIDE}"
    onnx.save(model, target)
    copy_file(Path(f"{source}{BESIDE}"), Path(f"{target}{BESIDE}"))


def is_outside(path: Path) -> bool:
    """Return whether the weights of a graph's file are in another one beside it."""
    return Path(f"{path}{BESIDE}").is_file()


def is_large(model: Any) -> bool:
    """Return whether a graph (``onnx.ModelProto``) is too large for one protobuf message."""
    return sum(len(tensor.raw_data) for tensor in all_weights(model)) > MOST_INLINE


@contextmanager
def as_given(model: Any) -> Iterator[bytes | str]:
    """Give a graph (``onnx.ModelProto``) in the form that runtimes take: bytes, or a file where these are too many."""
    if not is_large(model):
        yield model.SerializeToString()
        return
    with tempfile.TemporaryDirectory() as aside:
        copy = type(model)()
        copy.CopyFrom(model)
        save_graph(copy, Path(aside) / "model.onnx")
        yield str(Path(aside) / "model.onnx")


def inferred(model: Any, *, strict: bool = False) -> Any:
    """Return a copy of a graph (``onnx.ModelProto``) that says the types and shapes of what is between its nodes.

    Weights are not looked at, so a graph of any size will do; what their values decide (shapes) is small, and is.
    """
    onnx = import_onnx("Reading ONNX")
    light = type(model)()
    light.CopyFrom(model)
    if is_large(model):
        for tensor in all_weights(light):
            if len(tensor.raw_data) >= _LEAST_OUTSIDE:
                tensor.ClearField("raw_data")
                tensor.data_location = onnx.TensorProto.EXTERNAL
    known = onnx.shape_inference.infer_shapes(light, strict_mode=strict)
    whole = type(model)()
    whole.CopyFrom(model)
    del whole.graph.value_info[:]
    whole.graph.value_info.extend(known.graph.value_info)
    for place, output in enumerate(known.graph.output):
        whole.graph.output[place].CopyFrom(output)
    return whole


def lowest_ir(model: Any) -> int:
    """Return the lowest IR version that has the operators' versions and the types of a graph."""
    onnx = import_onnx("Writing ONNX")
    lowest = int(onnx.helper.find_min_ir_version_for(list(model.opset_import), ignore_unknown=True))
    kinds = {onnx.TensorProto.DataType.Name(kind) for kind in _types(model)}
    return max([lowest, *(ir for start, ir in _NEEDS_IR.items() for kind in kinds if kind.startswith(start))])


def _types(model: Any) -> Iterator[int]:
    """Yield the types that a graph names."""
    yield from (tensor.data_type for tensor in all_weights(model))
    yield from (value.type.tensor_type.elem_type for value in (*model.graph.input, *model.graph.output))
    for node in all_nodes(model):
        for attribute in node.attribute:
            if attribute.HasField("t"):
                yield attribute.t.data_type
            elif attribute.name in ("to", "dtype", "output_dtype"):
                yield attribute.i


def _name_used_domains(model: Any) -> None:
    """Leave among the operator sets those that a node or function is of."""
    used = {"", *(node.domain for node in all_nodes(model)), *(function.domain for function in model.functions)}
    kept = [entry for entry in model.opset_import if entry.domain in used]
    del model.opset_import[:]
    model.opset_import.extend(kept)


def all_nodes(model: Any) -> Iterator[Any]:
    """Yield the nodes of a graph (``onnx.ModelProto``), those of its functions and subgraphs too."""
    waiting = [*model.graph.node, *(node for function in model.functions for node in function.node)]
    while waiting:
        node = waiting.pop()
        yield node
        waiting += [inner for graph in subgraphs(node) for inner in graph.node]


def all_weights(model: Any) -> Iterator[Any]:
    """Yield the weights (``onnx.TensorProto``) of a graph, those of its subgraphs too."""
    yield from model.graph.initializer
    for node in all_nodes(model):
        for graph in subgraphs(node):
            yield from graph.initializer


def subgraphs(node: Any) -> Iterator[Any]:
    """Yield the graphs (``onnx.GraphProto``) within a node, such as the branches of an ``If``."""
    for attribute in node.attribute:
        if attribute.HasField("g"):
            yield attribute.g
        yield from attribute.graphs
