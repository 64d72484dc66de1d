"""The list of what a run wrote: only that is replaced or removed, also when a process was killed in between."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from compress.errors import StorageError
from compress.run import marker
from compress.run.marker import ASIDE, Marker, obstacles, read_marker, write_files
from compress.runs import MARKER

FIRST = {"student/config.json": "one", "stages/00-teacher/model": "two", "report.json": "three"}


def files(folder: Path) -> dict[str, str]:
    """Return the texts below a folder, but for the marker."""
    found = {str(path.relative_to(folder)): path.read_text() for path in folder.rglob("*") if path.is_file()}
    return {name: text for name, text in found.items() if name != MARKER}


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A folder in which a run was written, and beside its files a user's."""
    folder = tmp_path / "run"
    folder.mkdir()
    write_files(folder, "a run", FIRST)
    (folder / "student" / "mine.txt").write_text("mine")
    (folder / "artifacts" / "mine").mkdir(parents=True)
    (folder / "artifacts" / "mine" / "p.txt").write_text("mine")
    return folder


MINE = {"student/mine.txt": "mine", "artifacts/mine/p.txt": "mine"}


def test_what_is_written_again_replaces_only_what_was_written(run: Path) -> None:
    write_files(run, "a run", {"student/config.json": "new", "report.json": "three"})
    assert files(run) == {"student/config.json": "new", "report.json": "three"} | MINE
    assert not (run / "stages").exists()
    marker = read_marker(run)
    assert marker is not None
    assert set(marker.files) == {"student/config.json", "report.json"}
    assert not marker.writing


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("student/config.json", "student/config.json was changed since it was written"),
        ("recipe.yaml", "recipe.yaml was not written by this program"),
        (f"{ASIDE}/x", f"{ASIDE} was not written by this program"),
    ],
)
def test_what_is_not_its_own_stops_it_before_anything_is_written(run: Path, name: str, message: str) -> None:
    (run / name).parent.mkdir(exist_ok=True)
    (run / name).write_text("mine")
    before = files(run)
    with pytest.raises(StorageError, match=message):
        write_files(run, "a run", {"recipe.yaml": "new", "student/config.json": "new"})
    assert files(run) == before


def test_a_link_or_a_folder_in_a_place_of_its_own_is_not_followed(run: Path, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (run / "stages" / "00-teacher" / "model").unlink()
    (run / "stages" / "00-teacher").rmdir()
    (run / "stages" / "00-teacher").symlink_to(tmp_path / "elsewhere")
    (run / "report.json").unlink()
    (run / "report.json").mkdir()
    marker = read_marker(run)
    assert marker is not None
    told = " ".join(obstacles(run, marker))
    assert "00-teacher is a symbolic link where a folder is needed" in told
    assert "report.json is a folder where a file is needed" in told
    with pytest.raises(StorageError):
        write_files(run, "a run", FIRST)
    assert not any((tmp_path / "elsewhere").iterdir())


@pytest.mark.parametrize("step", range(6))
def test_a_process_killed_at_any_step_leaves_a_folder_that_can_be_finished(
    run: Path, step: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every change of the disk may be the last: what was there is intact, and the same files can be written again."""
    second = {"student/config.json": "new", "artifacts/onnx/model.onnx": "graph", "report.json": "new"}
    steps = iter(range(100))

    def dying(work):
        def step_or_die(*arguments):
            if next(steps) == step:
                raise KeyboardInterrupt
            return work(*arguments)

        return step_or_die

    with monkeypatch.context() as patched:
        patched.setattr(marker, "_write", dying(marker._write))
        patched.setattr(Path, "replace", dying(Path.replace))
        patched.setattr(marker.shutil, "rmtree", lambda *_, **__: None)  # a killed process removes nothing
        with pytest.raises(KeyboardInterrupt):
            write_files(run, "a run", second)
    assert files(run).items() >= MINE.items()
    found = read_marker(run)
    assert found is not None
    assert not list(obstacles(run, found))
    write_files(run, "a run", second)
    assert files(run) == second | MINE


@pytest.mark.parametrize(
    "content", ["", "[]", "{}", '{"schema": 2, "run": "x", "writing": false, "files": {}}', "\udce9"]
)
def test_a_list_that_cannot_be_read_is_not_trusted(tmp_path: Path, content: str) -> None:
    (tmp_path / MARKER).write_bytes(content.encode(errors="surrogateescape"))
    with pytest.raises(StorageError, match="cannot be read"):
        read_marker(tmp_path)


@pytest.mark.parametrize("name", ["../mine.txt", "/etc/passwd", "a/../../b", MARKER])
def test_a_list_cannot_name_what_lies_outside(tmp_path: Path, name: str) -> None:
    Marker("x", {name: ["0"]}).write(tmp_path)
    with pytest.raises(StorageError, match="cannot be read"):
        read_marker(tmp_path)


def test_a_list_that_is_a_link_is_not_trusted(tmp_path: Path) -> None:
    (tmp_path / "theirs.json").write_text(json.dumps({"schema": 1, "run": "x", "writing": False, "files": {}}))
    (tmp_path / MARKER).symlink_to("theirs.json")
    with pytest.raises(StorageError, match="cannot be read"):
        read_marker(tmp_path)
