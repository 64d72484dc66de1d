"""Leases: locks between machines that share a folder, by files that are renewed for as long as they are held.

`flock` ends with its process and is what counts among the processes of one machine. On network file systems it may
not reach other machines. So whoever holds a lock also has a lease file: created exclusively, with the holder's name in
it, renewed all the time, and removed at the end. One that was not renewed for `EXPIRES` seconds, by the clock of the
file system, has expired. Whoever replaces it does so by one rename. No hard links are used.
"""

from __future__ import annotations

import fcntl
import json
import os
import tempfile
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import IO

import psutil

from compress.errors import StorageError

EXPIRES = 120.0  # seconds
RENEWED = 20.0  # seconds between renewals
POLL = 2.0  # seconds between two looks at another's lease
SUFFIX, TAKING = ".lease", ".taking"  # of leases, and of what says that one is being replaced


@cache
def machine() -> str:
    """Return what tells this machine, since it was started, from all others."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return f"{uuid.getnode():012x}-{psutil.boot_time():.0f}"


@dataclass(frozen=True)
class Holder:
    """Who holds a lease."""

    machine: str
    namespace: str  # of process numbers: containers of one machine have their own
    process: int
    started: float  # seconds since 1970
    lease: str  # unlike any other

    @classmethod
    def new(cls) -> Holder:
        """Return this process as the holder of a new lease."""
        return cls(machine(), _namespace(), os.getpid(), psutil.Process().create_time(), uuid.uuid4().hex)

    @property
    def is_here(self) -> bool:
        """Whether it is a process of this machine."""
        return self.machine == machine()

    @property
    def has_ended(self) -> bool:
        """Whether it is known to have ended, without looking at its lease."""
        if not self.is_here or self.namespace != _namespace():
            return False
        try:
            return abs(psutil.Process(self.process).create_time() - self.started) > 1
        except psutil.NoSuchProcess:
            return True
        except psutil.Error:
            return False


@contextmanager
def leased(path: Path, waiting: Callable[[], None]) -> Iterator[Lease]:
    """Hold the lock of ``path``, a file in a folder that exists; call ``waiting`` once if another process has it."""
    with path.open("a") as file:
        reached, told = flocked(file, wait=False), False
        if reached is False:
            waiting()
            told = True
            reached = flocked(file, wait=True)
        lease = Lease(path.with_name(path.name + SUFFIX), alone_here=bool(reached))
        lease.acquire(waiting if not told else lambda: None)
        try:
            yield lease
        finally:
            lease.release()


def flocked(file: IO[str], *, wait: bool) -> bool | None:
    """Lock an open file; False where another process has it, None where this file system has no such locks."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except BlockingIOError:
        return False
    except OSError:
        return None
    return True


class Lease:
    """One process's lease of a path; with ``alone_here``, no other process of this machine can hold it."""

    def __init__(self, path: Path, *, alone_here: bool) -> None:
        self.path, self.alone_here, self.own = path, alone_here, Holder.new()

    def acquire(self, waiting: Callable[[], None]) -> None:
        """Wait until it is this process's."""
        told = False
        while not self._created():
            holder = self._holder()
            if self._is_over(holder):
                if self._replaced(holder):
                    break
            elif not told:
                waiting()
                told = True
            time.sleep(POLL)
        keep_fresh(self.path, self.is_ours)

    def release(self) -> None:
        """Let others have it; does nothing where another has taken it."""
        forget(self.path)
        with suppress(OSError):
            if self.is_ours():
                self.path.unlink()

    def check(self) -> None:
        """Raise StorageError where another process has taken the lease, since this one stood still for too long."""
        if not self.is_ours():
            raise StorageError(
                f"{self.path}: this process stood still for more than {EXPIRES:.0f} s, and another one has taken over "
                "its work. Run the same command again; it uses what the other one makes."
            )

    def is_ours(self) -> bool:
        """Return whether no other process has taken it."""
        return self._holder() == self.own

    def _created(self) -> bool:
        try:
            descriptor = os.open(self.path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o644)
        except FileExistsError:
            return False
        with os.fdopen(descriptor, "w") as file:
            file.write(json.dumps(asdict(self.own)))
        return True

    def _holder(self) -> Holder | None:
        """Return whose lease is there; None where there is none, or one that is being written."""
        try:
            return Holder(**json.loads(self.path.read_text()))
        except (OSError, ValueError, TypeError):
            return None

    def _is_over(self, holder: Holder | None) -> bool:
        if holder is not None and (holder.has_ended or (holder.is_here and self.alone_here)):
            return True
        return not is_fresh(self.path)

    def _replaced(self, expired: Holder | None) -> bool:
        """Put our lease in place of one that is over; only one process can do that to each lease."""
        name = "unread" if expired is None else expired.lease
        taking = self.path.with_name(f"{self.path.name}.{name}{TAKING}")
        try:
            os.close(os.open(taking, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o644))
        except FileExistsError:
            if not is_fresh(taking):  # whoever began this has ended
                taking.unlink(missing_ok=True)
            return False
        try:
            now = self._holder()
            if now != expired or not self.path.exists() or not self._is_over(now):
                return False
            aside = self.path.with_name(f"{self.path.name}.{self.own.lease}")
            aside.write_text(json.dumps(asdict(self.own)))
            aside.replace(self.path)
        finally:
            taking.unlink(missing_ok=True)
        return True


def is_fresh(path: Path) -> bool:
    """Return whether a file was renewed within `EXPIRES` seconds, by the clock of its file system; False for none."""
    try:
        with tempfile.NamedTemporaryFile(dir=path.parent, prefix=".now-") as probe:
            os.utime(probe.name)  # the time of the server, not of this machine
            now = os.fstat(probe.fileno()).st_mtime
        with path.open("rb") as file:  # on NFS, opening asks the server
            return now - os.fstat(file.fileno()).st_mtime < EXPIRES
    except FileNotFoundError:
        return False


_fresh: dict[Path, Callable[[], bool]] = {}  # what this process renews, and whether it still may
_guard = threading.Lock()


def keep_fresh(path: Path, still: Callable[[], bool] = lambda: True) -> None:
    """Renew a file from now on where ``still`` says so, until `forget`, or until the process ends."""
    with _guard:
        _fresh[path] = still
        if not any(thread.name == _renew.__name__ for thread in threading.enumerate()):  # also none after a fork
            threading.Thread(target=_renew, name=_renew.__name__, daemon=True).start()


def forget(path: Path) -> None:
    """Renew a file no more."""
    with _guard:
        _fresh.pop(path, None)


def _renew() -> None:
    while True:
        time.sleep(RENEWED)
        with _guard:
            files = list(_fresh.items())
        for path, still in files:
            with suppress(OSError):  # the file system may be away for a moment
                if still():
                    os.utime(path)


@cache
def _namespace() -> str:
    try:
        return str(Path("/proc/self/ns/pid").readlink())
    except OSError:
        return ""
