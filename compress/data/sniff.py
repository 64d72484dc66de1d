"""Recognise files that are not what their suffix says: archives, spreadsheets, web pages, other delimiters."""

from __future__ import annotations

from collections.abc import Sequence

HEAD = 64  # bytes that are inspected

_KINDS = (
    (b"\x1f\x8b", "a gzip archive", "End its name in .gz, or unpack it: gunzip."),
    (b"BZh", "a bzip2 archive", "Unpack it: bunzip2."),
    (b"\xfd7zXZ\x00", "an xz archive", "Unpack it: unxz."),
    (b"\x28\xb5\x2f\xfd", "a zstd archive", "End its name in .zst, or unpack it: unzstd."),
    (b"PK\x03\x04", "a zip archive or a spreadsheet", "Unpack it, or save the sheet as CSV (UTF-8)."),
    (b"\xd0\xcf\x11\xe0", "a spreadsheet or a document of Microsoft Office", "Save it as CSV (UTF-8)."),
    (b"PAR1", "a Parquet file", "Rename it to end in .parquet."),
    (b"ARROW1", "an Arrow file", "Write it as Parquet."),
    (b"SQLite format 3", "an SQLite database", "Export its table as CSV."),
    (b"%PDF", "a PDF document", "Save the rows as CSV."),
    (b"version https://git-lfs", "a pointer of Git LFS, not the file itself", "Fetch the file: git lfs pull."),
    (b"<!doctype html", "a web page, perhaps in place of a download", "Download the file again."),
    (b"<html", "a web page, perhaps in place of a download", "Download the file again."),
)
_NAMES = {";": "semicolons", "\t": "tabs", "|": "vertical bars", ",": "commas"}


def kind_of_file(head: bytes) -> tuple[str, str] | None:
    """Return (type, remedy) for a file whose first bytes show that it is not a table of texts; otherwise None."""
    start = head.removeprefix(b"\xef\xbb\xbf").lstrip()[:HEAD]
    for mark, what, remedy in _KINDS:
        if start[: len(mark)].lower() == mark.lower():
            return what, remedy
    return None


def divided_otherwise(suffix: str, fields: Sequence[str], *, named: bool) -> str:
    """Return why a first row seems to have another delimiter than its suffix says, or "".

    The signs are a row of one field, and a label or a column name (``named``) that contains another delimiter.
    """
    own = {".tsv": "\t", ".csv": ","}.get(suffix)
    if own is None:
        return ""
    suspects = fields if named or len(fields) == 1 else fields[:1]
    sign = next(
        (sign for sign in ("\t", ";", "|", ",") if sign != own and any(sign in field for field in suspects)), None
    )
    if sign is None or (sign == "," and len(fields) > 1):
        return ""
    change = "Rename it to end in .tsv" if sign == "\t" else "Rename it to end in .csv" if sign == "," else ""
    remedy = change or f"Write it with {_NAMES[own]}: pandas.read_csv(file, sep={sign!r}).to_csv(file, index=False)"
    return f"its fields seem to be separated by {_NAMES[sign]}; a {suffix} file needs {_NAMES[own]}. {remedy}."


def quoted_tsv(fields: Sequence[str]) -> bool:
    """Return whether all fields of a row are in double quotes, as a CSV writer puts them."""
    return all(len(field) > 1 and field[0] == field[-1] == '"' for field in map(str.strip, fields))
