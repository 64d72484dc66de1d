"""Read Parquet row by row, with the class names that the datasets library stores in the metadata."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from compress.data.sniff import HEAD, kind_of_file
from compress.errors import DataError


class NoLabel:
    """A label that is missing on purpose: -1 or null in a column of named classes."""


NO_LABEL = NoLabel()


def read_parquet(path: Path) -> Iterator[tuple[int, dict[str, object]]]:
    """Yield the number and the fields by column name of each row; a column of class numbers gives their names.

    Raises DataError if the file is not Parquet, is damaged, names a column twice, or has unreadable metadata.
    """
    import pyarrow as pa  # type: ignore[import-untyped,unused-ignore]
    import pyarrow.parquet as pq  # type: ignore[import-untyped,unused-ignore]

    number = 0
    try:
        with pq.ParquetFile(path) as file:
            names = list(file.schema_arrow.names)
            if repeated := sorted({name for name in names if names.count(name) > 1}):
                raise DataError(f"{path}: has two columns {repeated[0]!r}. Remove or rename one of them.")
            classes = class_names(path, file.schema_arrow.metadata or {})
            for batch in file.iter_batches():
                columns = [_values(batch.column(place), classes.get(name)) for place, name in enumerate(names)]
                for row in zip(*columns, strict=True):
                    number += 1
                    yield number, dict(zip(names, row, strict=True))
    except (pa.ArrowException, OSError, ValueError, OverflowError, MemoryError) as error:
        raise DataError(f"{path}: {_reason(path, error)}") from None


def class_names(path: Path, metadata: dict[bytes, bytes]) -> dict[str, list[str]]:
    """Return the names of the classes by column, from the metadata of the datasets library; raises DataError."""
    raw = metadata.get(b"huggingface")
    if raw is None:
        return {}
    broken = f"{path}: its metadata 'huggingface', which holds the names of the classes, cannot be read"
    remedy = "Write the file again with datasets, or without metadata: table.replace_schema_metadata(None)."
    try:
        features = json.loads(raw)["info"]["features"]
        kinds = {str(column): _of_items(feature) for column, feature in features.items()}
        found = {
            column: feature["names"]
            for column, feature in kinds.items()
            if isinstance(feature, dict) and feature.get("_type") == "ClassLabel"
        }
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise DataError(f"{broken} ({type(error).__name__}). {remedy}") from None
    for column, names in found.items():
        if not isinstance(names, list) or not names or not all(isinstance(name, str) for name in names):
            raise DataError(f"{broken}: the classes of {column!r} are not a list of names. {remedy}")
    return found


def _of_items(feature: Any) -> Any:
    """Return what a list holds, as datasets of any version writes lists; anything else as it is."""
    if isinstance(feature, list) and len(feature) == 1:
        return feature[0]
    if isinstance(feature, dict) and feature.get("_type") in ("List", "LargeList", "Sequence"):
        return feature.get("feature")
    return feature


def _values(column: Any, classes: list[str] | None) -> list[object]:
    """Return a column's values; values without a Python type become strings."""
    import pyarrow as pa

    try:
        values: list[object] = column.to_pylist()
    except (pa.ArrowException, ValueError, OverflowError):
        if not pa.types.is_temporal(column.type):
            raise
        values = [str(value) for value in column]
    if classes is None:
        return values
    return [
        [_class(label, classes) for label in value] if isinstance(value, list) else _class(value, classes)
        for value in values
    ]


def _class(value: object, names: list[str]) -> object:
    """Return a class's name; a value that is not a class number is unchanged, and refused where it is used."""
    if value is None or value == -1:
        return NO_LABEL
    if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < len(names):
        return names[value]
    return value if isinstance(value, str) and value in names else UnknownClass(value, len(names))


class UnknownClass:
    """A number that is not a class of the column."""

    def __init__(self, value: object, classes: int, source: str = "the file's metadata names") -> None:
        self.reason = f"the label {value!r} is none of the {classes} classes that {source}, 0 first"


def _reason(path: Path, error: Exception) -> str:
    try:
        with path.open("rb") as file:
            kind = kind_of_file(file.read(HEAD))
    except OSError as failure:
        return f"cannot be read ({failure.strerror}). Make it readable: chmod u+r FILE."
    if kind and kind[0] != "a Parquet file":
        return f"this is {kind[0]}, not a Parquet file. {kind[1]}"
    reason = next(iter(str(error).splitlines()), type(error).__name__).rstrip(".")
    return f"cannot be read as Parquet ({reason}). Write it again, or copy it again."
