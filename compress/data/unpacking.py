"""Files of lines as they are, or compressed with gzip or Zstandard."""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

CODECS = {".gz": "gzip", ".zst": "zstd"}
"""What Arrow calls the compression of a file with this last suffix."""


def suffix_of(path: str | Path) -> str:
    """Return the suffix that says how a file is written, in small letters: that before .gz or .zst."""
    path = Path(path)
    inside = path.with_suffix("") if path.suffix.lower() in CODECS else path
    return inside.suffix.lower()


def packed_fault(path: Path) -> tuple[str, str] | None:
    """Return (rule, remedy) for an archive of a file that is not read line by line."""
    if path.suffix.lower() in CODECS and (suffix := suffix_of(path)) in (".parquet", ".npy"):
        return f"is an archive of a {suffix} file, which cannot be read part by part", "Unpack it."
    return None


@contextmanager
def unpacked(path: Path) -> Iterator[IO[bytes]]:
    """Open a file to read its bytes, unpacked part by part. Reading raises OSError where they are damaged or end."""
    with path.open("rb") as file:
        codec = CODECS.get(path.suffix.lower())
        if codec is None:
            yield file
            return
        import pyarrow as pa  # type: ignore[import-untyped,unused-ignore]

        with io.BufferedReader(pa.CompressedInputStream(file, codec)) as whole:
            yield whole


def damage(error: OSError) -> str:
    """Return what an archive lacks, and the remedy, as sentences; raises errors of other kinds again."""
    if error.errno is not None:
        raise error
    return f"cannot be unpacked ({error}). Copy the archive again, or pack the file again."
