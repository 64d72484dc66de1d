"""Names and numbers of runs, the link to the latest one, and paths as they are typed."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from compress.errors import CompressError
from compress.run.names import distinct, given_path, name_rule, path_rule, point_to_latest, reserve
from compress.runs import MARKER, run_in


@pytest.mark.parametrize(
    ("name", "rule"),
    [
        ("a b.c=ü", ""),
        ("x" * 255, ""),
        ("ü" * 128, "256 bytes"),
        ("x" * 300, "300 bytes"),
        ("", "plain name"),
        (" ", "plain name"),
        ("..", "plain name"),
        ("a/b", "plain name"),
        ("a\0b", "U+0000"),
        ("a\nb", "U+000A"),
        ("a\x1b[2Jb", "U+001B"),
        ("a\x9bb", "U+009B"),
        ("caf\udce9", "UTF-8"),
    ],
)
def test_a_name_is_the_name_of_one_folder(name: str, rule: str) -> None:
    assert rule in name_rule(name)
    assert bool(rule) == bool(name_rule(name))
    if rule != "plain name":
        assert rule in path_rule(f"a/../{name}/b")


def test_a_path_as_a_whole_has_a_limit_too() -> None:
    assert "4,095 bytes" in path_rule("x/" * 2100)
    with pytest.raises(CompressError, match="must not hold"):
        given_path("a\x1bb")


def test_runs_that_start_at_once_get_numbers_of_their_own(tmp_path: Path) -> None:
    with ThreadPoolExecutor(8) as pool:
        made = list(pool.map(lambda label: reserve(tmp_path / "runs", label), ["", "seed=1"] * 8))
    assert sorted(folder.name[:3] for folder in made) == [f"{number:03d}" for number in range(1, 17)]
    assert all(folder.name[3:] in {"", "-seed=1"} for folder in made)


def test_a_number_follows_the_highest_whatever_else_is_there(tmp_path: Path) -> None:
    for name in ("20251129-235959", "001", "003-seed=1", "mine", "004x"):
        (tmp_path / name).mkdir()
    assert reserve(tmp_path).name == "004"
    (tmp_path / "999").mkdir()
    assert [reserve(tmp_path).name for _ in range(2)] == ["1000", "1001"]


def test_latest_is_a_relative_link_that_moves_on(tmp_path: Path) -> None:
    for name in ("001", "002"):
        (tmp_path / name).mkdir()
        assert not point_to_latest(tmp_path / name)
        assert (tmp_path / "latest").readlink() == Path(name)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["001", "002", "latest"]


def test_what_is_called_latest_and_is_no_such_link_stays(tmp_path: Path) -> None:
    (tmp_path / "latest").mkdir()
    assert "is left unchanged" in point_to_latest(tmp_path / "001")
    (tmp_path / "latest").rmdir()
    (tmp_path / "latest").symlink_to("/somewhere/else")
    assert "is left unchanged" in point_to_latest(tmp_path / "001")
    assert (tmp_path / "latest").readlink() == Path("/somewhere/else")


def test_a_run_is_counted_once_and_one_that_is_not_finished_not_at_all(tmp_path: Path) -> None:
    for name in ("001", "002", "003"):
        (tmp_path / name).mkdir()
    (tmp_path / "001" / "report.json").touch()
    (tmp_path / "002" / "report.json").touch()
    (tmp_path / "003" / MARKER).touch()
    point_to_latest(tmp_path / "002")
    notes: list[str] = []
    given = [str(tmp_path / name) for name in ("001", "002", "003", "latest")]
    assert distinct(given, notes.append) == given[:2]
    assert [note.split("/")[-1] for note in notes] == [
        "latest leads to another of these paths and is skipped",
        "003 is not finished and is skipped",
    ]
    assert distinct(given[3:], notes.append) == given[3:]
    assert run_in(tmp_path) == f"It holds runs: name one of them, for example {tmp_path / 'latest'}."
    assert not run_in(tmp_path / "001")
