"""Read files row by row: TSV, CSV, JSONL and plain text, packed or not, whatever the columns mean."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from compress.data.parquet import read_parquet
from compress.data.sniff import HEAD, kind_of_file
from compress.data.unpacking import damage, unpacked


@dataclass(frozen=True)
class Bad:
    """A row that cannot be read."""

    reason: str  # the problem and the remedy, as sentences


Record = list[str] | dict[str, object] | Bad  # fields by position, fields by name, or neither
LONGEST = 2**31 - 1  # characters of a CSV field
Numbered = Iterator[tuple[int, Record]]  # with the 1-based line (Parquet: row) at which each starts


BOM = b"\xef\xbb\xbf"
_CR = "A carriage return alone does not end a line. Convert the file: tr '\\r' '\\n'."


def lines_of(path: Path) -> Iterator[tuple[int, str | Bad]]:
    """Yield each line with its number; a line that is not UTF-8 text is `Bad`.

    A byte-order mark at the start is dropped. Lines end in LF or CR LF only, not at Unicode's other line separators.
    """
    number = 0
    with unpacked(path) as file:
        try:
            for number, raw in enumerate(file, 1):
                line = raw
                if number == 1:
                    if bad := _not_lines(raw):
                        yield number, bad
                        return
                    while line.startswith(BOM):
                        line = line.removeprefix(BOM)
                yield number, _decoded(number, line)
        except OSError as error:
            yield number + 1, Bad(damage(error))


def _decoded(number: int, line: bytes) -> str | Bad:
    if b"\x00" in line:
        return Bad("a NUL byte; this is not a text file, or it is damaged. Save it again as UTF-8.")
    if number > 1 and line.startswith(BOM):
        return Bad("a byte-order mark in the middle of the file: were two files joined? Remove it.")
    try:
        return line.decode("utf-8")
    except UnicodeDecodeError as error:
        byte = line[error.start]
        return Bad(
            f"byte {error.start + 1} (0x{byte:02x}) is not UTF-8. Save the file as UTF-8, for example: "
            "iconv -f WINDOWS-1252 -t UTF-8."
        )


def _not_lines(first: bytes) -> Bad | None:
    """Return why a file with this first line does not consist of lines of UTF-8 text."""
    if first[:2] in (b"\xff\xfe", b"\xfe\xff"):
        return Bad("this is UTF-16, not UTF-8. Save it as UTF-8: iconv -f UTF-16 -t UTF-8.")
    if kind := kind_of_file(first[:HEAD]):
        return Bad(f"this is {kind[0]}, not lines of text. {kind[1]}")
    if not first.endswith(b"\n") and b"\r" in first.rstrip(b"\r"):
        return Bad(f"lines end in CR alone, as on old Macs. {_CR}")
    return None


def read_tsv(path: Path) -> Numbered:
    """Yield fields separated by tabs, without quoting or escapes."""
    for number, line in lines_of(path):
        if isinstance(line, Bad):
            yield number, line
        elif line.strip(" \r\n"):
            yield number, line.rstrip("\r\n").split("\t")


def read_csv(path: Path) -> Numbered:
    """Yield fields separated by commas; a field in double quotes may hold commas, line ends and doubled quotes."""
    bad: list[tuple[int, Bad]] = []

    def decoded() -> Iterator[str]:
        for number, line in lines_of(path):
            if isinstance(line, Bad):
                bad.append((number, line))
                yield "\n"  # keeps the line count
            else:
                yield line

    reader = csv.reader(decoded(), strict=True)
    start = 1
    while True:
        try:
            with _long_fields():
                fields = next(reader, None)
        except csv.Error as error:
            yield from bad
            reason = f"unbalanced quotes ({error}). Double a quotation mark inside a quoted field."
            if "new-line character" in str(error):
                reason = f"a lone carriage return (CR) outside quotes. {_CR}"
            yield start, Bad(reason)
            return
        yield from bad
        bad.clear()
        if fields is None:
            return
        if any(field.strip() for field in fields) or len(fields) > 1:
            yield start, fields
        start = reader.line_num + 1


@contextmanager
def _long_fields() -> Iterator[None]:
    """Allow fields longer than 131,072 characters within the block; then restore the limit, which is global."""
    before = csv.field_size_limit(LONGEST)
    try:
        yield
    finally:
        csv.field_size_limit(before)


def read_jsonl(path: Path) -> Numbered:
    """Yield one JSON object per line."""
    for number, line in lines_of(path):
        if isinstance(line, Bad):
            yield number, line
            continue
        if not line.strip():
            continue
        if number == 1 and line.lstrip().startswith("["):
            yield number, Bad("a JSON list, where each line must be a JSON object. Convert it: jq -c '.[]'.")
            return
        try:
            value = _JSON.decode(line)
            if "\\ud" in line or "\\uD" in line:
                json.dumps(value, ensure_ascii=False).encode()  # refuses half a surrogate pair, as in "\\ud83d"
        except _RepeatedKeyError as error:
            yield number, Bad(f"has the key {error.args[0]!r} twice. Remove or rename one of them.")
            continue
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
                Bad(f'{kind_of(value)}, not a JSON object. Write {{"label": …, "text": …}} on each line.'),
            )


class _RepeatedKeyError(ValueError):
    """An object has the same key twice; Python would keep the last."""


def _once(pairs: list[tuple[str, object]]) -> dict[str, object]:
    made = dict(pairs)
    if len(made) < len(pairs):
        names = [name for name, _ in pairs]
        raise _RepeatedKeyError(next(name for place, name in enumerate(names) if name in names[:place]))
    return made


_JSON = json.JSONDecoder(object_pairs_hook=_once)


def read_txt(path: Path) -> Numbered:
    """Yield one text per line, as the only field."""
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
    """Return the name of a JSON value's type with its article, for a message: "a list"."""
    if value is None:
        return "null"
    names: dict[type, str] = {bool: "a boolean", int: "a number", float: "a number", str: "a string", list: "a list"}
    return names.get(type(value), "an object" if isinstance(value, dict) else f"a {type(value).__name__}")
