"""The config.pbtxt of Triton's models: protobuf's text format, and what is read off an ONNX graph for it."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from compress.errors import ModelError
from compress.onnx.needs import IN_FLOATS
from compress.onnx.package import import_onnx

TYPES = {
    "FLOAT": "FP32", "FLOAT16": "FP16", "BFLOAT16": "BF16", "DOUBLE": "FP64", "BOOL": "BOOL", "STRING": "STRING",
    "INT8": "INT8", "INT16": "INT16", "INT32": "INT32", "INT64": "INT64",
    "UINT8": "UINT8", "UINT16": "UINT16", "UINT32": "UINT32", "UINT64": "UINT64",
}  # fmt: skip
"""ONNX's names of types, and Triton's without TYPE_."""


class EnumName(str):
    """A name of an enumeration, written without quotes."""

    __slots__ = ()


def pbtxt(fields: Mapping[str, Any], indent: str = "") -> str:
    """Return fields in protobuf's text format: a mapping is a message, a list is a repeated field."""
    return "".join(line + "\n" for line in _lines(fields, indent))


def _lines(fields: Mapping[str, Any], indent: str) -> Iterator[str]:
    for name, value in fields.items():
        values = value if isinstance(value, list) else [value]
        if isinstance(value, list) and value and isinstance(value[0], int):
            yield f"{indent}{name}: [{', '.join(map(str, value))}]"
            continue
        for part in values:
            if isinstance(part, Mapping):
                yield f"{indent}{name} {{"
                yield from _lines(part, indent + "  ")
                yield f"{indent}}}"
            else:
                text = str(part) if isinstance(part, (EnumName, int)) else json.dumps(part, ensure_ascii=False)
                yield f"{indent}{name}: {text}"


def parameters(values: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the entries of ``parameters``, all of them strings."""
    return [{"key": name, "value": {"string_value": str(value)}} for name, value in values.items()]


@dataclass(frozen=True)
class Tensor:
    """An input or output of a model."""

    name: str
    kind: str  # Triton's data type: "TYPE_INT64"
    dims: tuple[int, ...]  # without the batch; -1 where any size will do

    def fields(self) -> dict[str, Any]:
        """Return it as a field of ``input`` or ``output``."""
        return {"name": self.name, "data_type": EnumName(self.kind), "dims": list(self.dims)}


@dataclass(frozen=True)
class Graph:
    """What a server must know of an ONNX graph."""

    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]
    in_floats: bool  # its int8 is another device's: on a CPU it is to be computed in floats
    ir_version: int
    opset: int


def read_graph(path: Path) -> Graph:
    """Return the inputs and outputs of the ONNX file, in its order.

    Raises ModelError where one has a fixed batch, or a type that Triton does not know.
    """
    model = import_onnx("Writing a Triton repository").load(path, load_external_data=False)
    weights = {weight.name for weight in model.graph.initializer}
    return Graph(
        tuple(_tensor(path, tensor) for tensor in model.graph.input if tensor.name not in weights),
        tuple(_tensor(path, tensor) for tensor in model.graph.output),
        any(entry.key == IN_FLOATS for entry in model.metadata_props),
        model.ir_version,
        max(opset.version for opset in model.opset_import if not opset.domain),
    )


def _tensor(path: Path, value: Any) -> Tensor:
    onnx = import_onnx("Writing a Triton repository")
    kind = onnx.TensorProto.DataType.Name(value.type.tensor_type.elem_type)
    sizes = [size.dim_value if size.HasField("dim_value") else -1 for size in value.type.tensor_type.shape.dim]
    if kind not in TYPES:
        raise ModelError(f"{path}: {value.name} is of type {kind}, which Triton does not serve.")
    if not sizes or sizes[0] != -1:
        raise ModelError(f"{path}: the batch of {value.name} is fixed, so that Triton cannot batch requests.")
    return Tensor(value.name, f"TYPE_{TYPES[kind]}", tuple(sizes[1:]))


def step(model: str, inputs: Iterable[tuple[str, str]], outputs: Iterable[tuple[str, str]]) -> dict[str, Any]:
    """Return a step of an ensemble; pairs are (the model's name of a tensor, the ensemble's)."""
    maps = {"input_map": inputs, "output_map": outputs}
    return {
        "model_name": model,
        "model_version": -1,
        **{name: [{"key": key, "value": value} for key, value in pairs] for name, pairs in maps.items()},
    }
