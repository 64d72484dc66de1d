"""Where runs are written: never over a user's files, never where something is read, and one run a folder."""

from __future__ import annotations

import errno
import os
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from compress.benchmark.stage import Benchmark
from compress.cli.main import main
from compress.data import Files, Hub
from compress.data.source import Data
from compress.distill.losses import SoftTargets
from compress.distill.stage import Distill
from compress.errors import RecipeError, StorageError
from compress.files import held, write_text
from compress.models.loading import save_model
from compress.prune.heads import PruneHeads
from compress.run.marker import Marker
from compress.run.place import claimed, identity, lasting, name_faults, place_faults
from compress.run.recipe import Recipe
from compress.runs import MARKER
from compress.student.bert import Bert
from compress.teachers.model import Teacher
from tests.conftest import reviews, tiny_model, tiny_tokenizer, write_tsv


@pytest.fixture(autouse=True)
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with rows and a teacher that knows their labels."""
    monkeypatch.chdir(tmp_path)
    for name, rows, seed in (("train", 40, 1), ("validation", 20, 2), ("test", 20, 3)):
        write_tsv(tmp_path / f"{name}.tsv", reviews(rows, seed))
    labels = {"id2label": {0: "bad", 1: "good"}, "label2id": {"bad": 0, "good": 1}}
    save_model(tiny_model(**labels), tiny_tokenizer(), tmp_path / "pp" / "student")
    return tmp_path


def small(**changes: Any) -> Recipe:
    """Return a recipe of a second or two."""
    made = Recipe(
        recipe="small",
        data=Files(train="train.tsv", validation="validation.tsv", test="test.tsv"),
        teacher=Teacher(model="pp/student", max_tokens=16),
        student=Bert(layers=1),
        distill=Distill(losses={"soft": SoftTargets()}, epochs=0.5),
        export={},
        benchmark=Benchmark(
            rows=2, batches=[1], tokens=[8], seconds=0.01, tfidf=False, labels_only=False, teacher_int8=False
        ),
    )
    return replace(made, **changes)


def snapshot(folder: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in folder.rglob("*") if path.is_file() and "runs" not in path.parts}


def rules(recipe: Recipe) -> str:
    return "\n".join(map(str, place_faults(recipe)))


def test_a_user_file_in_an_earlier_run_survives_and_another_run_is_refused(world: Path) -> None:
    run = small(output="o", seed=1)
    assert run.run().folder == Path("o")
    for name in ("artifacts/mine/p.txt", "stages/mine", "student/p.txt"):
        (world / "o" / name).parent.mkdir(exist_ok=True, parents=True)
        (world / "o" / name).write_text("mine")
    run.run()
    assert {(world / "o" / name).read_text() for name in ("artifacts/mine/p.txt", "stages/mine", "student/p.txt")} == {
        "mine"
    }
    before = snapshot(world)
    with pytest.raises(RecipeError, match="holds another run, with other settings or data"):
        replace(run, seed=2).run()
    write_tsv(world / "train.tsv", reviews(40, 9))
    with pytest.raises(RecipeError, match="holds another run, with other settings or data"):
        run.run()
    write_tsv(world / "train.tsv", reviews(40, 1))
    assert snapshot(world) == before
    (world / "o" / "student" / "README.md").write_text("mine")
    with pytest.raises(RecipeError, match=r"student/README\.md was changed since it was written"):
        run.run()


def test_runs_without_a_name_are_numbered_and_the_latest_is_found(world: Path) -> None:
    folders = [small().run().folder, small(seed=2).run(label="seed=2").folder]
    assert folders == [Path("runs/small/001"), Path("runs/small/002-seed=2")]
    assert (world / "runs" / "small" / "latest").readlink() == Path("002-seed=2")
    for words in (
        ["predict", "runs/small/latest", "a good film"],
        ["compare", *map(str, folders), "runs/small/latest"],
    ):
        assert main(words) == 0


FOREIGN = {
    "a user's folders": ["o/artifacts/mine/p.txt", "o/stages/mine/p.txt", "o/student/p.txt"],
    "a file where a folder is needed": ["o/student"],
    "a run without a list": ["o/report.json", "o/recipe.yaml"],
    "hidden files": ["o/.keep"],
}


@pytest.mark.parametrize("names", FOREIGN.values(), ids=FOREIGN)
def test_a_folder_that_is_not_a_run_is_refused_and_stays(names: list[str], world: Path) -> None:
    for name in names:
        (world / name).parent.mkdir(parents=True, exist_ok=True)
        (world / name).write_text("mine")
    before = snapshot(world)
    assert f"o has no {MARKER}" in rules(small(output="o"))
    with pytest.raises(RecipeError, match=MARKER):
        small(output="o").run()
    assert snapshot(world) == before


@pytest.mark.parametrize(
    ("output", "fragment"),
    [
        ("pp", "pp holds teacher.model = 'pp/student'"),
        ("pp/student", "pp/student is teacher.model"),
        ("pp/student/run", "is inside teacher.model"),
        ("linked/run", "is inside teacher.model"),
        ("train.tsv", "train.tsv is data.train"),
        ("cache", "cache is cache = 'cache'"),
        ("cache/run", "is inside cache"),
        (".", "holds"),
    ],
)
def test_a_run_is_not_written_where_something_is_read(output: str, fragment: str, world: Path) -> None:
    (world / "linked").symlink_to("pp/student")
    before = snapshot(world)
    assert fragment in rules(small(output=output, cache="cache"))
    assert main(["export", "pp/student", "data=files", "data.train=train.tsv", f"output={output}", "cache=cache"]) == 2
    assert snapshot(world) == before


@pytest.mark.parametrize(
    "data",
    [
        Files(train="train.tsv", text="text", text_pair="text", label="text", labels={"LABEL_0": "text"}),
        Hub(path="someone/rows", subset="text", train="text", test="text"),
    ],
    ids=["files", "hub"],
)
def test_names_of_columns_labels_and_splits_are_no_paths(data: Data, world: Path) -> None:
    (world / "text").mkdir()
    assert not rules(small(data=data, output="text/run1"))


def test_a_folder_of_rows_and_one_of_students_are_paths(world: Path) -> None:
    (world / "text").mkdir()
    assert "is inside data.path" in rules(small(data=Hub(path="text"), output="text/run1"))
    assert "is inside student.start" in rules(small(student=Bert(layers=1, start="text"), output="text/run1"))


def test_the_default_folder_lies_beside_the_default_cache() -> None:
    assert not rules(small(name="a"))
    assert not rules(small())


def test_links_that_lead_nowhere_are_refused(world: Path) -> None:
    (world / "loop").symlink_to("loop")
    (world / "dangling").symlink_to("nowhere")
    assert "does not lead to a folder" in rules(small(output="loop"))
    assert "does not lead to a folder" in rules(small(output="dangling"))
    assert "a symbolic link leads back to itself" in rules(small(output="loop/run"))
    assert "a symbolic link leads back to itself" in rules(small(cache="loop/run"))


def test_a_linked_output_is_written_through_the_link(world: Path) -> None:
    (world / "real").mkdir()
    (world / "link").symlink_to("real")
    small(output="link").run()
    assert (world / "real" / "report.json").is_file()
    assert (world / "link").is_symlink()
    small(output="real").run()


def test_a_report_that_is_a_folder_is_refused_before_work(world: Path, capsys: pytest.CaptureFixture[str]) -> None:
    small(output="o").run()
    (world / "o" / "report.json").unlink()
    (world / "o" / "report.json").mkdir()
    assert "report.json is a folder where a file is needed" in rules(small(output="o"))
    for words in (["compare", "o", "o"], ["predict", "o", "a film"], ["bench", "o"]):
        assert main(words) == 2
        assert "report.json" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("changes", "setting"),
    [
        ({"name": "latest"}, "name"),
        ({"name": "x" * 300}, "name"),
        ({"recipe": "a\x1bb"}, "recipe"),
        ({"output": "a\nb"}, "output"),
        ({"output": "x" * 300 + "/run"}, "output"),
        ({"cache": "a\0b"}, "cache"),
        ({"prune": {"../x": PruneHeads()}}, "prune"),
        ({"prune": {"x" * 250: PruneHeads()}}, "prune"),
        ({"teacher": Teacher(model="caf\udce9")}, "teacher.model"),
    ],
)
def test_names_are_checked_before_any_work(changes: dict[str, Any], setting: str, world: Path) -> None:
    assert setting in {fault.setting for fault in name_faults(small(**changes))}
    with pytest.raises(RecipeError):
        small(**changes).run()
    assert not (world / "runs").exists()


def test_a_folder_is_one_runs_at_a_time_and_goes_when_nothing_was_written(world: Path) -> None:
    run = small(output="o")
    with claimed(run, "first") as folder:
        assert (folder / MARKER).is_file()
        with pytest.raises(StorageError, match="another process is writing a run there"), claimed(run, "first"):
            pass
    assert not (world / "o").exists()
    with held(world), claimed(small(), "first") as folder:  # as by a run beside it that is being written
        assert folder == Path("runs/small/001")
    (world / "o").mkdir()
    with claimed(run, "first"):
        pass
    assert (world / "o").is_dir()  # it was there before


def test_what_stands_in_a_folder_that_was_only_taken_is_a_users(world: Path) -> None:
    run = small(output="o")
    (world / "o" / "student").mkdir(parents=True)
    Marker("killed before it wrote").write(world / "o")
    assert "o/student was not written by this program" in rules(run)


def test_a_setting_that_goes_through_latest_names_the_run_itself(world: Path) -> None:
    (world / "runs" / "001").mkdir(parents=True)
    (world / "runs" / "latest").symlink_to("001")
    made = small(teacher=Teacher(model="runs/latest/student", members=["pp/student"]))
    (world / "runs" / "001" / "student").mkdir()
    after = lasting(made)
    assert after.teacher.model == str(world / "runs" / "001" / "student")
    assert after.teacher.members == ["pp/student"]


def test_only_what_decides_the_results_makes_a_run_another() -> None:
    run = small(output="o")
    same = (replace(run, name="x"), replace(run, output="p"), replace(run, cache="q"), replace(run, recipe="r"))
    assert {identity(item, "data") for item in same} == {identity(run, "data")}
    others = (replace(run, seed=1), replace(run, student=Bert(layers=2)), replace(run, prune={"heads": PruneHeads()}))
    assert len({identity(item, "data") for item in (run, *others)} | {identity(run, "other data")}) == 5


def test_a_full_disk_is_told_and_the_same_command_ends_it(world: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(source: object, target: object, **_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(source), None, str(target))

    with monkeypatch.context() as patched:
        patched.setattr(shutil, "copyfile", full)
        with pytest.raises(StorageError, match=r"^o/.*the disk is full\. Free some space and run the same command"):
            small(output="o").run()
    assert [path.name for path in (world / "o").iterdir()] == [MARKER]
    small(output="o").run()
    assert (world / "o" / "report.json").is_file()


def test_a_page_of_compare_replaces_only_such_a_page(world: Path, capsys: pytest.CaptureFixture[str]) -> None:
    small(output="a").run()
    write_text(world / "notes.html", "mine")
    for file in ("notes.html", "pp", "x" * 300, "a\nb.html"):
        assert main(["compare", "a", "a", "--output", file]) == 2
        assert "--output" in capsys.readouterr().err
    assert (world / "notes.html").read_text() == "mine"
    for _ in range(2):
        assert main(["compare", "a", "a", "--output", "page.html"]) == 0
