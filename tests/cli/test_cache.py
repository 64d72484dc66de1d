"""A cache folder: what is listed, what is removed, and what must stay."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from compress.cli.main import main
from compress.pipeline.cache import MARKER, PRODUCT, Cache, open_cache
from compress.pipeline.workshop import Kind, Product, Workshop

NOW = time.time()
DAY = 86400


def product(cache: Path, kind: str, *, size: int = 100_000, days: float = 0, run: Path | None = None) -> Product:
    """Make a product of that many bytes, last used so many days ago."""

    def work(folder: Path) -> None:
        (folder / "weights").write_bytes(os.urandom(size))

    made = Workshop(cache, run=run).make(Kind(kind, revision=1), [size, days], work)
    os.utime(cache / "uses" / made.folder.name, (NOW - days * DAY,) * 2)
    return made


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache of three kinds, which no running process uses, and a user's own things beside them."""
    folder = tmp_path / "cache"
    run = tmp_path / "runs" / "first"
    run.mkdir(parents=True)
    product(folder, "teacher", size=300_000, days=40, run=run)
    product(folder, "teacher_outputs", size=500_000, days=10, run=run)
    product(folder, "onnx", size=100_000, days=1)
    ended()
    (folder / "mine.txt").write_text("mine")
    (folder / "mine-0123456789abcdef01234567").mkdir()
    (folder / "mine-0123456789abcdef01234567" / PRODUCT).write_text("mine")
    monkeypatch.chdir(tmp_path)
    return folder


def ended() -> None:
    """Let go of what this process uses, as its end does."""
    from compress.pipeline import cache

    for file in cache._own.values():
        file.close()
    cache._own.clear()


def kinds(folder: Path) -> set[str]:
    return {entry.kind for entry in Cache(folder).entries()}


def stays(folder: Path) -> bool:
    own = folder / "mine-0123456789abcdef01234567" / PRODUCT
    return own.read_text() == (folder / "mine.txt").read_text() == "mine"


def test_a_cache_is_listed_by_kind_with_sizes_ages_and_runs(cache: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["cache", "--cache", str(cache)]) == 0
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    rows = {line[0]: line for line in lines}
    assert list(rows)[1:4] == ["teacher_outputs", "teacher", "onnx"]  # the largest first
    assert rows["teacher"][4:] == ["40", "d", "ago", "1"]
    assert rows["onnx"][4:] == ["1", "d", "ago", "0"]
    assert rows["3"][:2] == ["3", "folders,"]
    assert main(["cache", "list", "--all", "--kind", "teacher", "--cache", str(cache)]) == 0
    out = capsys.readouterr().out
    assert "runs/first" in out
    assert "onnx" not in out


@pytest.mark.parametrize(
    ("words", "left"),
    [
        (["prune", "--older-than", "30d"], {"teacher_outputs", "onnx"}),
        (["prune", "--older-than", "1w"], {"onnx"}),
        (["prune", "--older-than", "1w", "--kind", "teacher"], {"teacher_outputs", "onnx"}),
        (["prune", "--kind", "onnx", "--kind", "teacher"], {"teacher_outputs"}),
        (["prune", "--max-size", "700MB"], {"teacher", "teacher_outputs", "onnx"}),
        (["prune", "--max-size", "0.7MB"], {"teacher_outputs", "onnx"}),
        (["prune", "--max-size", "0.2MB"], {"onnx"}),
        (["prune", "--max-size", "0MB", "--older-than", "30d"], {"teacher_outputs", "onnx"}),
        (["empty"], set()),
    ],
)
def test_only_what_is_chosen_is_removed_and_only_when_confirmed(
    words: list[str], left: set[str], cache: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["cache", *words, "--cache", str(cache)]
    assert main(words) == 0
    assert "Nothing was removed" in capsys.readouterr().out
    assert kinds(cache) == {"teacher", "teacher_outputs", "onnx"}
    assert main([*words, "--yes"]) == 0
    assert f"Removed {3 - len(left)} folder" in capsys.readouterr().out
    assert kinds(cache) == left
    assert stays(cache)
    assert {path.name.rpartition("-")[0] for path in (cache / "uses").iterdir()} == left


def test_what_this_process_uses_stays(cache: Path, capsys: pytest.CaptureFixture[str]) -> None:
    product(cache, "teacher", size=300_000, days=40)  # found finished: that is a use too
    assert main(["cache", "empty", "--yes", "--cache", str(cache)]) == 0
    assert kinds(cache) == {"teacher"}
    assert "is in use by a running process; it stays" in capsys.readouterr().err
    ended()
    assert main(["cache", "empty", "--yes", "--cache", str(cache)]) == 0
    assert kinds(cache) == set()


def test_what_another_process_is_making_stays_until_that_is_killed(cache: Path) -> None:
    code = (
        "import sys, time; from pathlib import Path; from compress.pipeline.workshop import Kind, Workshop\n"
        "def work(folder):\n"
        "    (folder / 'half').write_text('7'); print('working', flush=True); time.sleep(600)\n"
        "Workshop(Path(sys.argv[1])).make(Kind('slow', revision=1), 1, work)\n"
    )
    with subprocess.Popen([sys.executable, "-c", code, str(cache)], stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "working\n"
            assert main(["cache", "empty", "--yes", "--cache", str(cache)]) == 0
            assert [path.read_text() for path in cache.glob("slow-*.partial/half")] == ["7"]
        finally:
            process.kill()
    assert main(["cache", "empty", "--yes", "--cache", str(cache)]) == 0
    assert not list(cache.glob("slow-*"))


def test_a_product_that_holds_a_file_of_a_user_stays(cache: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder,) = cache.glob("onnx-*")
    (folder / "notes.txt").write_text("mine")
    assert main(["cache", "empty", "--yes", "--cache", str(cache)]) == 0
    assert "holds notes.txt, which this program did not write; it stays" in capsys.readouterr().err
    assert (folder / "notes.txt").read_text() == "mine"
    assert kinds(cache) == {"onnx"}


def test_what_was_removed_is_made_again(cache: Path) -> None:
    first = product(cache, "onnx", days=1)
    assert first.reused
    ended()
    open_cache(cache).remove(lambda entries: entries)
    again = product(cache, "onnx", days=1)
    assert not again.reused
    assert again.key == first.key


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--cache", "nowhere"], "nowhere: there is no such folder"),
        (["--cache", "runs"], f"runs: is not a cache of this program (it has no {MARKER})"),
        (["empty", "--yes", "--cache", "runs"], f"runs: is not a cache of this program (it has no {MARKER})"),
        (["prune", "--cache", "cache"], "prune needs --kind, --older-than or --max-size"),
        (["prune", "--older-than", "30", "--cache", "cache"], "'30' must be a whole number with m, h, d or w"),
        (["prune", "--max-size", "20", "--cache", "cache"], "'20' must be a number with MB, GB"),
        (["prune", "--kind", "onx", "--cache", "cache"], "--kind onx: nothing of this kind is in the cache. It holds"),
        (["empty", "--kind", "onnx", "--cache", "cache"], "with --kind, --older-than or --max-size, use prune"),
        (["--yes", "--cache", "cache"], "go with prune"),
        (["prune", "--kind", "onnx", "--all", "--cache", "cache"], "--all goes with list"),
        (["prun", "--cache", "cache"], "invalid choice: 'prun'"),
        (["--al", "--cache", "cache"], "Did you mean --all?"),
    ],
)
def test_bad_words_are_refused_in_one_line_and_nothing_is_removed(
    words: list[str], message: str, cache: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    try:
        code: object = main(["cache", *words])
    except SystemExit as stop:  # of argparse
        code = stop.code
    assert code == 2
    captured = capsys.readouterr()
    assert message in captured.err
    assert captured.err.count("\n") == 1
    assert kinds(cache) == {"teacher", "teacher_outputs", "onnx"}
    assert stays(cache)
