"""Files that appear whole or not at all, hashes of them, and locks between processes."""

from __future__ import annotations

import errno
import fcntl
import hashlib
import json
import os
import re
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from compress.errors import CompressError, StorageError
from compress.leases import Lease, leased

TEMPORARY = (".probe-", ".new-")  # how the names of short-lived files begin
FICLONE = 0x40049409  # Linux: make a file a clone of another
MIB = 2**20  # bytes

AGAIN = "and run the same command again; finished work is kept"
REASONS = {
    errno.ENOSPC: ("the disk is full", f"Free some space {AGAIN}"),
    errno.EDQUOT: ("the disk quota is used up", f"Free some space {AGAIN}"),
    errno.EFBIG: ("the limit on file sizes is exceeded", f"Raise the limit (ulimit -f) {AGAIN}"),
    errno.EMFILE: ("too many files are open", f"Raise the limit (ulimit -n) {AGAIN}"),
    errno.EACCES: ("no permission", "Choose another path"),
    errno.EPERM: ("no permission", "Choose another path"),
    errno.EROFS: ("that file system is read-only", "Choose another path"),
    errno.ENOENT: ("there is no such file or folder", "Check the path"),
    errno.ENOTDIR: ("there is a file where a folder is needed", "Choose another path"),
    errno.EEXIST: ("there is a file where a folder is needed", "Choose another path"),
    errno.EISDIR: ("there is a folder where a file is needed", "Move it away, or choose another path"),
    errno.ENAMETOOLONG: ("the name is too long", "Choose a shorter one"),
    errno.ELOOP: ("a symbolic link leads back to itself", "Remove that link, or choose another path"),
}
"""What errors of the operating system mean, and what to do about them."""

_NUMBER = re.compile(r"(?:\[Errno |os error )(\d+)")  # as messages quote it


def no_file(path: Path) -> str:
    """Return why no file can be read at a path, as a rule; "" where there is one."""
    if path.is_dir():
        return "is a directory"
    if path.exists():
        return "" if path.is_file() else "is not a regular file"
    return "is a symbolic link that leads nowhere" if path.is_symlink() else "does not exist"


def no_folder(path: Path) -> str:
    """Return why nothing can be read in a folder at a path, as a rule; "" where there is one."""
    if path.is_dir():
        return ""
    if path.exists():
        return "is a file, not a folder" if path.is_file() else "is neither a file nor a folder"
    return "is a symbolic link that leads nowhere" if path.is_symlink() else "there is no such folder"


def storage_error(error: BaseException, place: object = None) -> StorageError | None:
    """Return an error of reading or writing files with a message for the user; None for other errors.

    ``place`` is named where the error itself names no path.
    """
    text = str(error).strip()
    if isinstance(error, UnicodeEncodeError):
        is_path = any("\ud800" <= letter <= "\udfff" for letter in error.object)
        return StorageError(f"{error.object!r}: is not UTF-8 text. Rename it.") if is_path else None
    if isinstance(error, shutil.Error) and error.args and isinstance(error.args[0], list):
        _, place, reason = error.args[0][0]  # of many files; the first says why
        return _in_words(place, _errno(str(reason)), str(reason))
    if isinstance(error, OSError):
        path = error.filename2 or error.filename  # of a copy, where it was written to
        if path and Path(str(path)).name.startswith(TEMPORARY):
            path = Path(str(path)).parent
        return _in_words(path or (place if error.errno else None), error.errno, error.strerror or text)
    if isinstance(error, RuntimeError) and "Symlink loop" in text:
        return _in_words(place, errno.ELOOP, text)
    if isinstance(error, RuntimeError) and "PytorchStreamWriter failed writing" in text:
        return _in_words(place, errno.ENOSPC, text)
    if isinstance(error, ValueError) and "embedded null" in text:
        return StorageError(f"{place or 'A path'}: contains the character U+0000, which no path may. Rename it.")
    number = _errno(text)  # Rust libraries such as safetensors and tokenizers only have a text
    return None if number is None else _in_words(place, number, text)


def _errno(text: str) -> int | None:
    number = _NUMBER.search(text)
    return int(number[1]) if number else None


def _in_words(place: object, number: int | None, text: str) -> StorageError:
    plain = os.strerror(number) if number else text.partition("\n")[0].rstrip(".") or "cannot be read or written"
    reason, remedy = REASONS.get(number or 0, (plain, f"Fix that {AGAIN}"))
    where = f"{place}: {reason}" if place else reason[:1].upper() + reason[1:]
    return StorageError(f"{where}. {remedy}.")


@contextmanager
def storage_faults(folder: Path) -> Iterator[None]:
    """Turn errors such as a full disk or a folder that cannot be written into a StorageError."""
    try:
        yield
    except CompressError:
        raise
    except Exception as error:  # those of Rust libraries share no base class
        failure = None if isinstance(error, UnicodeEncodeError | ConnectionError) else storage_error(error, folder)
        if failure is None:
            raise
        raise failure from error


def writable(folder: Path) -> None:
    """Check that files can be written in ``folder``, or that it can be made; leave nothing. Raises StorageError."""
    with storage_faults(folder):
        nearest = next(path for path in (folder, *folder.absolute().parents) if os.path.lexists(path))
        with tempfile.NamedTemporaryFile(dir=nearest, prefix=TEMPORARY[0]) as probe:
            probe.write(b"0")


def write_text(path: Path, text: str) -> None:
    """Write ``text`` to ``path``, whole or not at all."""
    write_content(path, text)


def write_content(path: Path, content: str | bytes) -> None:
    """Write text or bytes to ``path``, whole or not at all."""
    with storage_faults(path.parent):
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=TEMPORARY[1])  # whatever the length of the name
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(content.encode() if isinstance(content, str) else content)
                file.flush()
                os.fsync(file.fileno())
            Path(name).chmod(0o644)
            Path(name).replace(path)
        except BaseException:
            Path(name).unlink(missing_ok=True)
            raise


def write_json(path: Path, value: Any) -> None:
    """Write ``value`` as indented JSON, whole or not at all; NaN is refused."""
    write_text(path, json_text(value))


def json_text(value: Any) -> str:
    """Return ``value`` as indented JSON; NaN is refused."""
    return json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n"


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


def copy_file(source: Path, target: Path) -> None:
    """Write a copy: a change to the one leaves the other as it is.

    Where the file system can (btrfs, XFS, bcachefs), the copy is a clone, which shares blocks on disk until either is
    written to; elsewhere it takes up disk space again.
    """
    with source.open("rb") as read, target.open("wb") as written:
        try:
            fcntl.ioctl(written, FICLONE, read.fileno())
            return
        except OSError:
            pass  # not on this file system, or not between these two
    shutil.copyfile(source, target)


def size_mib(folder: Path, suffixes: tuple[str, ...]) -> float:
    """Return the size of the files below ``folder`` that end in one of ``suffixes``, in MiB."""
    return sum(p.stat().st_size for p in folder.rglob("*") if p.suffix in suffixes) / MIB


def hash_file(path: Path) -> str:
    """Return the SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def hash_text(text: str | bytes) -> str:
    """Return the SHA-256 of a text, or of bytes, as `write_content` writes it."""
    return hashlib.sha256(text.encode() if isinstance(text, str) else text).hexdigest()


def hash_folder(folder: Path, suffixes: tuple[str, ...] = (".json", ".safetensors", ".txt", ".model", ".onnx")) -> str:
    """Return a hash of the names and contents of the files directly in ``folder`` with one of ``suffixes``."""
    paths = sorted(path for path in folder.iterdir() if path.suffix in suffixes)
    return hash_json([[path.name, hash_file(path)] for path in paths])


def hash_json(value: Any) -> str:
    """Return a hash of a JSON-ready value."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


@contextmanager
def locked(path: Path, waiting: Callable[[], None] = lambda: None) -> Iterator[Lease]:
    """Hold an exclusive lock on ``path``, also against other machines; call ``waiting`` once if another process has it.

    The lock ends with the process, even when that is killed: at once for this machine, for others as the lease expires.
    """
    with ExitStack() as held_lease:
        with storage_faults(path.parent):
            path.parent.mkdir(parents=True, exist_ok=True)
            lease = held_lease.enter_context(leased(path, waiting))
        yield lease


@contextmanager
def held(folder: Path, *, wait: bool = True) -> Iterator[None]:
    """Hold an exclusive lock on a folder itself; without ``wait``, raises BlockingIOError where a process has it.

    The lock ends with the process, even when that is killed.
    """
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        yield
    finally:
        os.close(descriptor)
