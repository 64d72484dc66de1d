"""A folder that machines share where their locks do not reach each other: leases, in real processes.

Each process takes itself for a machine of its own, and its `flock` locks nothing, as on a network file system that is
mounted with local locks.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from compress import leases
from compress.errors import StorageError
from compress.files import locked
from compress.pipeline.cache import Cache
from compress.pipeline.workshop import Kind, Workshop

PROGRAM = """
import fcntl, sys, time
from pathlib import Path
from compress import leases
name, folder, expires, seconds = sys.argv[1], Path(sys.argv[2]), float(sys.argv[3]), float(sys.argv[4])
leases.machine = lambda: name
leases.EXPIRES, leases.RENEWED, leases.POLL = expires, expires / 8, 0.05
if name != "here":
    fcntl.flock = lambda *_: None
from compress.pipeline.workshop import Kind, Workshop
from compress.errors import StorageError

def work(place):
    steps = place / "steps"
    with steps.open("a") as file:
        file.write(name + "\\n")
    (folder / f"{name}.began").touch()
    time.sleep(seconds)
    (place / "made_by").write_text(name)

try:
    product = Workshop(folder / "cache").make(Kind("thing", revision=1), [1], work)
except StorageError as error:
    print("error", error)
else:
    print((product.folder / "made_by").read_text(), product.reused, (product.folder / "steps").read_text().split())
"""


@pytest.fixture
def start(tmp_path: Path) -> Any:
    """A function that starts a process of a machine, which works for some seconds under leases that expire."""
    started = []

    def begin(name: str, expires: float, seconds: float) -> subprocess.Popen[str]:
        words = [sys.executable, "-c", PROGRAM, name, str(tmp_path), str(expires), str(seconds)]
        started.append(subprocess.Popen(words, stdout=subprocess.PIPE, text=True))
        return started[-1]

    yield begin
    for process in started:
        process.kill()
        process.wait()
        process.stdout.close()


def wait_for(there: Callable[[], bool]) -> None:
    until = time.monotonic() + 120
    while not there():
        assert time.monotonic() < until
        time.sleep(0.02)


def test_two_machines_do_the_same_work_once(start: Any, tmp_path: Path) -> None:
    first, second = start("one", 60, 1.0), start("two", 60, 1.0)
    told = sorted(process.communicate()[0].strip() for process in (first, second))
    maker = told[0].split()[0]
    assert told == [f"{maker} False ['{maker}']", f"{maker} True ['{maker}']"]
    assert not [path for path in (tmp_path / "cache" / "locks").iterdir() if path.name.endswith(leases.SUFFIX)]


def test_the_lease_of_a_killed_machine_expires_and_its_work_resumes(start: Any, tmp_path: Path) -> None:
    first = start("one", 1.0, 600)
    wait_for((tmp_path / "one.began").exists)
    first.kill()
    second = start("two", 1.0, 0)
    assert second.communicate()[0].strip() == "two False ['one', 'two']"


def test_who_stood_still_for_too_long_does_not_overwrite_what_another_made(start: Any, tmp_path: Path) -> None:
    first = start("one", 1.0, 1.0)
    wait_for((tmp_path / "one.began").exists)
    os.kill(first.pid, signal.SIGSTOP)
    second = start("two", 1.0, 0)
    assert second.communicate()[0].strip() == "two False ['one', 'two']"
    os.kill(first.pid, signal.SIGCONT)
    told = first.communicate()[0]
    assert "another one has taken over its work. Run the same command again" in told
    assert [path.name for path in (tmp_path / "cache").glob("thing-*/made_by")] == ["made_by"]
    assert next((tmp_path / "cache").glob("thing-*/made_by")).read_text() == "two"


@pytest.mark.slow
def test_a_lease_is_renewed_for_as_long_as_its_holder_works(start: Any, tmp_path: Path) -> None:
    first = start("one", 5.0, 15.0)
    wait_for((tmp_path / "one.began").exists)
    second = start("two", 5.0, 0)
    assert second.communicate()[0].strip() == "one True ['one']"
    assert first.communicate()[0].strip() == "one False ['one']"


@pytest.mark.slow
def test_what_another_machine_uses_is_not_removed_until_it_has_ended(
    start: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = start("one", 5.0, 600)
    wait_for((tmp_path / "one.began").exists)
    monkeypatch.setattr(leases, "EXPIRES", 5.0)
    monkeypatch.setattr(leases, "POLL", 0.05)
    cache = Cache(tmp_path / "cache")
    time.sleep(6)  # longer than a lease lasts
    removed, kept = cache.remove(lambda entries: entries)
    assert removed == []
    assert "is in use by a running process" in kept[0]
    first.kill()
    first.wait()
    wait_for(lambda: not any(entry.in_use for entry in cache.entries()))
    removed, kept = cache.remove(lambda entries: entries)
    assert (len(removed), kept) == (1, [])


def test_a_killed_process_of_this_machine_holds_up_nobody(tmp_path: Path) -> None:
    script = (
        "import sys, time; from pathlib import Path; from compress.files import locked\n"
        "with locked(Path(sys.argv[1])):\n    print('held', flush=True)\n    time.sleep(600)"
    )
    lock = tmp_path / "lock"
    with subprocess.Popen([sys.executable, "-c", script, str(lock)], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        process.kill()
        process.wait()
    assert lock.with_name(lock.name + leases.SUFFIX).exists()
    waited: list[bool] = []
    with locked(lock, lambda: waited.append(True)):
        pass
    assert waited == []


def test_a_lease_that_was_taken_is_noticed_and_left_to_its_holder(tmp_path: Path) -> None:
    lock = tmp_path / "lock"
    place = lock.with_name(lock.name + leases.SUFFIX)
    with locked(lock) as lease:
        lease.check()
        other = place.read_text().replace(lease.own.lease, "another")
        place.write_text(other)
        with pytest.raises(StorageError, match="stood still for more than 120 s"):
            lease.check()
    assert place.read_text() == other


def test_one_process_at_a_time_also_where_there_are_no_locks_at_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(leases, "flocked", lambda *_, **__: None)
    workshop, inside = Workshop(tmp_path), []

    def work(folder: Path) -> None:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(leases, "POLL", 0.01)
            (lease,) = (tmp_path / "locks").glob(f"thing-*{leases.SUFFIX}")
            rival = leases.Lease(lease, alone_here=False)
            inside.append(rival._created() or rival._is_over(rival._holder()))

    workshop.make(Kind("thing", revision=1), [1], work)
    assert inside == [False]
