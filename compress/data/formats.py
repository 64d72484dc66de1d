"""Read files row by row: TSV, CSV, JSONL, Parquet and plain text, without knowing what the columns mean."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from compress.errors import DataError


@dataclass(frozen=True)
class Bad:
    """A row that cannot be read."""

    reason: str  # what is wrong, and the remedy, as sentences


Record = list[str] | dict[str, object] | Bad  # fields by position, fields by name, or neither
Numbered = Iterator[tuple[int, Record]]  # with the 1-based line (Parquet: row) at which each starts


def lines_of(path: Path) -> Iterator[tuple[int, str | Bad]]:
    """Yield each line with its number; a line that is not UTF-8 text is `Bad`. A byte-order mark is dropped."""
    with path.open("rb") as file:
        for number, raw in enumerate(file, 1):
            line = raw.removeprefix(b"\xef\xbb\xbf") if number == 1 else raw
            if number == 1 and line[:2] in (b"\xff\xfe", b"\xfe\xff"):
                yield number, Bad("this is UTF-16, not UTF-8. Save it as UTF-8: iconv -f UTF-16 -t UTF-8.")
                return
            if b"\x00" in line:
                yield number, Bad("a NUL byte; this is not a text file, or it is damaged. Save it again as UTF-8.")
                continue
            try:
                yield number, line.decode("utf-8")
            except UnicodeDecodeError as error:
                byte = line[error.start]
                yield (
                    number,
                    Bad(
                        f"byte {error.start + 1} (0x{byte:02x}) is not UTF-8. Save the file as UTF-8, for example: "
                        "iconv -f WINDOWS-1252 -t UTF-8."
                    ),
                )


def read_tsv(path: Path) -> Numbered:
    """Yield fields divided by tabs. No quoting, no escapes: a quotation mark is a quotation mark."""
    for number, line in lines_of(path):
        if isinstance(line, Bad):
            yield number, line
        elif line.strip(" \r\n"):
            yield number, line.rstrip("\r\n").split("\t")


def read_csv(path: Path) -> Numbered:
    """Yield fields divided by commas; a field in double quotes may hold commas, line ends and doubled quotes."""
    bad: list[tuple[int, Bad]] = []

    def decoded() -> Iterator[str]:
        for number, line in lines_of(path):
            if isinstance(line, Bad):
                bad.append((number, line))
                yield "\n"  # keeps the count of lines
            else:
                yield line

    reader = csv.reader(decoded(), strict=True)
    start = 1
    while True:
        try:
            fields = next(reader, None)
        except csv.Error as error:
            yield from bad
            yield start, Bad(f"the quotes do not add up ({error}). Double a quotation mark inside a quoted field.")
            return
        yield from bad
        bad.clear()
        if fields is None:
            return
        if any(field.strip() for field in fields) or len(fields) > 1:
            yield start, fields
        start = reader.line_num + 1


def read_jsonl(path: Path) -> Numbered:
    """Yield one JSON object a line."""
    for number, line in lines_of(path):
        if isinstance(line, Bad):
            yield number, line
            continue
        if not line.strip():
            continue
        if number == 1 and line.lstrip().startswith("["):
            yield number, Bad("a JSON list; one JSON object a line is read. Convert it: jq -c '.[]'.")
            return
        try:
            value = json.loads(line)
            json.dumps(value, ensure_ascii=False).encode()  # refuses half a surrogate pair, as in "\\ud83d"
        except UnicodeEncodeError:
            yield number, Bad("holds half a character (a lone surrogate). Write the whole character.")
            continue
        except (ValueError, RecursionError) as error:
            what = error.msg if isinstance(error, json.JSONDecodeError) else "nested too deeply"
            what = "a number of too many digits" if type(error) is ValueError else what
            yield number, Bad(f"not valid JSON ({what}). Each line must hold one whole JSON object.")
            continue
        if isinstance(value, dict):
            yield number, value
        else:
            yield (
                number,
                Bad(f'a JSON {kind_of(value)}, not an object. Write {{"label": …, "text": …}} on each line.'),
            )


def read_parquet(path: Path) -> Numbered:
    """Yield the rows of a Parquet file by column name, in batches."""
    import pyarrow as pa  # type: ignore[import-untyped,unused-ignore]
    import pyarrow.parquet as pq  # type: ignore[import-untyped,unused-ignore]

    number = 0
    try:
        with pq.ParquetFile(path) as file:
            for batch in file.iter_batches():
                for row in batch.to_pylist():
                    number += 1
                    yield number, row
    except (pa.ArrowException, OSError) as error:
        reason = str(error).splitlines()[0].rstrip(".")
        raise DataError(f"{path}: cannot be read as Parquet ({reason}). Write it again, or copy it again.") from None


def read_txt(path: Path) -> Numbered:
    """Yield one text a line, as the only field."""
    for number, line in lines_of(path):
        if isinstance(line, Bad):
            yield number, line
        elif line.strip():
            yield number, [line.rstrip("\r\n")]


READERS: dict[str, Callable[[Path], Numbered]] = {
    ".tsv": read_tsv,
    ".csv": read_csv,
    ".jsonl": read_jsonl,
    ".json": read_jsonl,
    ".parquet": read_parquet,
}


def kind_of(value: object) -> str:
    """Return the name of a JSON value's kind, for a message."""
    if value is None:
        return "null"
    names: dict[type, str] = {bool: "boolean", int: "number", float: "number", str: "string", list: "list"}
    return names.get(type(value), "object" if isinstance(value, dict) else type(value).__name__)
