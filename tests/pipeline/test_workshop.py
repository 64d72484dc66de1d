"""The workshop: work is done once, goes on where it broke off, and two processes do not meet in it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from compress.errors import StorageError
from compress.files import writable, write_text
from compress.pipeline.workshop import SCRATCH, Kind, Workshop


def test_work_is_done_once_and_said_to_be_reused(tmp_path: Path) -> None:
    calls = []

    def work(folder: Path) -> dict[str, int]:
        calls.append(folder)
        (folder / "result").write_text("7")
        return {"answer": 7}

    workshop = Workshop(tmp_path)
    first, second = (workshop.make(Kind("thing", revision=1), {"a": 1}, work) for _ in range(2))
    assert len(calls) == 1
    assert (first.reused, second.reused) == (False, True)
    assert first.key == second.key
    assert dict(second.record) == {"answer": 7}
    assert workshop.make(Kind("thing", revision=1), {"a": 2}, work).key != first.key
    assert len(calls) == 2


def test_broken_work_leaves_nothing_finished_and_finds_its_files_again(tmp_path: Path) -> None:
    def work(folder: Path) -> None:
        half = folder / SCRATCH / "half"
        if not half.exists():
            half.parent.mkdir()
            half.write_text("done")
            raise KeyboardInterrupt
        (folder / "whole").write_text(half.read_text())

    workshop = Workshop(tmp_path)
    with pytest.raises(KeyboardInterrupt):
        workshop.make(Kind("thing", revision=1), 1, work)
    assert not [path for path in tmp_path.glob("thing-*") if path.suffix != ".partial"]
    product = workshop.make(Kind("thing", revision=1), 1, work)
    assert (product.folder / "whole").read_text() == "done"
    assert not (product.folder / SCRATCH).exists()
    assert not list(tmp_path.glob("*.partial"))


def test_two_processes_make_a_thing_once(tmp_path: Path) -> None:
    code = (
        "import sys, time; from pathlib import Path; from compress.pipeline.workshop import Kind, Workshop\n"
        "def work(folder):\n"
        "    with open(sys.argv[1] + '/calls', 'a') as calls: calls.write('x')\n"
        "    time.sleep(1); (folder / 'result').write_text('7')\n"
        "print((Workshop(Path(sys.argv[1])).make(Kind('thing', revision=1), 1, work).folder / 'result').read_text())\n"
    )
    both = [
        subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    printed = [process.communicate(timeout=120)[0] for process in both]
    assert [text.splitlines()[-1] for text in printed] == ["7", "7"]
    assert (tmp_path / "calls").read_text() == "x"


def test_a_full_disk_is_said_and_earlier_work_kept(tmp_path: Path) -> None:
    workshop = Workshop(tmp_path)
    kept = workshop.make(Kind("kept", revision=1), 1, lambda folder: (folder / "result").write_text("7") and None)

    def work(_: Path) -> None:
        with Path("/dev/full").open("w") as full:  # its writes really fail with ENOSPC
            full.write("x" * 100_000)

    with pytest.raises(StorageError, match="the disk is full"):
        workshop.make(Kind("thing", revision=1), 1, work)
    assert (kept.folder / "result").read_text() == "7"


def test_a_place_that_cannot_be_written_is_refused_and_nothing_left(tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("mine")
    with pytest.raises(StorageError, match="there is a file where a folder is needed"):
        writable(tmp_path / "taken" / "run")
    writable(tmp_path / "new" / "run")
    assert [path.name for path in tmp_path.iterdir()] == ["taken"]


def test_a_text_that_cannot_be_written_leaves_the_old_one(tmp_path: Path) -> None:
    path = tmp_path / "report.md"
    write_text(path, "old")
    with pytest.raises(UnicodeEncodeError):
        write_text(path, "\ud800")
    assert path.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["report.md"]
