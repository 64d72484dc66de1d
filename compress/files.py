"""Files that appear whole or not at all, hashes of them, and locks between processes."""

from __future__ import annotations

import errno
import fcntl
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from safetensors import SafetensorError

from compress.errors import StorageError

BIG = 1 << 20  # bytes from which a file is hard-linked rather than copied


@contextmanager
def storage_faults(folder: Path) -> Iterator[None]:
    """Turn a full disk or a folder that cannot be written into a StorageError."""
    try:
        yield
    except SafetensorError as error:  # no OSError; its text is all that tells
        if "os error 28" not in str(error) and "No space left" not in str(error):
            raise
        raise StorageError(f"{folder}: the disk is full. Free some space, then give the same command again.") from error
    except OSError as error:
        said = {
            errno.ENOSPC: "the disk is full. Free some space",
            errno.EDQUOT: "the disk quota is used up. Free some space",
            errno.EACCES: "no permission to write there. Choose another folder",
            errno.EPERM: "no permission to write there. Choose another folder",
            errno.EROFS: "that file system is read-only. Choose another folder",
            errno.ENOTDIR: "a file stands where a folder is needed. Choose another folder",
            errno.EEXIST: "a file stands where a folder is needed. Choose another folder",
        }.get(error.errno or 0)
        if said is None:
            raise
        raise StorageError(
            f"{error.filename or folder}: {said}, then give the same command again; finished work is kept."
        ) from error


def writable(folder: Path) -> None:
    """Prove that files can be written in ``folder``, or that it can be made; leaves nothing. Raises StorageError."""
    with storage_faults(folder):
        nearest = next(path for path in (folder, *folder.absolute().parents) if path.exists())
        with tempfile.NamedTemporaryFile(dir=nearest, prefix=".probe-") as probe:
            probe.write(b"0")


def write_text(path: Path, text: str) -> None:
    """Write ``text`` beside ``path``, flush it to the disk, then rename it into place."""
    with storage_faults(path.parent):
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}-")
        try:
            with os.fdopen(descriptor, "w", encoding="utf-8") as file:
                file.write(text)
                file.flush()
                os.fsync(file.fileno())
            Path(name).chmod(0o644)
            Path(name).replace(path)
        except BaseException:
            Path(name).unlink(missing_ok=True)
            raise


def write_json(path: Path, value: Any) -> None:
    """Write ``value`` as indented JSON, whole or not at all; NaN is refused."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def settle(work: Path, final: Path, finish: Callable[[], None] | None = None) -> None:
    """Flush every file of ``work`` to the disk and rename it to ``final``, which must not exist."""
    if finish is not None:
        finish()
    for path in sorted(work.rglob("*")):
        if path.is_file():
            with path.open("rb") as file:
                os.fsync(file.fileno())
    work.rename(final)
    descriptor = os.open(final.parent, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def place(source: Path, target: Path, *without: str) -> None:
    """Make ``target`` a copy of the folder ``source``, replacing what stood there; big files are hard links.

    Files named ``without`` are left out.
    """
    with storage_faults(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        aside = Path(tempfile.mkdtemp(dir=target.parent, prefix=f".{target.name}-"))
        try:
            shutil.copytree(
                source, aside, dirs_exist_ok=True, copy_function=link_or_copy, ignore=shutil.ignore_patterns(*without)
            )
            aside.chmod(0o755)
            if target.exists():
                old = Path(tempfile.mkdtemp(dir=target.parent, prefix=f".{target.name}-"))
                target.rename(old / target.name)
                aside.rename(target)
                shutil.rmtree(old)
            else:
                aside.rename(target)
        except BaseException:
            shutil.rmtree(aside, ignore_errors=True)
            raise


def sweep_up(target: Path) -> None:
    """Remove what `place` or `write_text` left unfinished beside ``target`` when their process was killed."""
    for path in target.parent.glob(f".{target.name}-????????"):
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink()


def link_or_copy(source: str | Path, target: str | Path) -> str:
    """Make ``target`` the same file as ``source``, or, where it is small or cannot be linked, a copy of it."""
    if Path(source).stat().st_size >= BIG:
        try:
            os.link(source, target)
            return str(target)
        except OSError:
            pass  # another file system, or one without links
    return str(shutil.copyfile(source, target))


def size_mib(folder: Path, suffixes: tuple[str, ...]) -> float:
    """Return the size of the files below ``folder`` that end in one of ``suffixes``, in MiB."""
    return sum(p.stat().st_size for p in folder.rglob("*") if p.suffix in suffixes) / 2**20


def hash_file(path: Path) -> str:
    """Return the SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def hash_folder(folder: Path, suffixes: tuple[str, ...] = (".json", ".safetensors", ".txt", ".model", ".onnx")) -> str:
    """Return a hash of the names and contents of the files directly in ``folder`` with one of ``suffixes``."""
    found = sorted(p for p in folder.iterdir() if p.suffix in suffixes)
    return hash_json([[p.name, hash_file(p)] for p in found])


def hash_json(value: Any) -> str:
    """Return a hash of a JSON-ready value."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


@contextmanager
def locked(path: Path, waiting: Callable[[], None] = lambda: None) -> Iterator[None]:
    """Hold an exclusive lock on ``path``; call ``waiting`` once if another process has it.

    The lock goes with the process, also when that is killed.
    """
    with storage_faults(path.parent):
        path.parent.mkdir(parents=True, exist_ok=True)
        file = path.open("a")
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            waiting()
            fcntl.flock(file, fcntl.LOCK_EX)
        yield
