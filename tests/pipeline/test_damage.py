"""What is stored and then damaged is noticed, told in one line and made again; nothing of it reaches a result."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from compress.errors import DamagedError
from compress.files import hash_file
from compress.pipeline.cache import PARTIAL, PRODUCT
from compress.pipeline.workshop import SPENT, Kind, Workshop
from compress.prune.heads import PruneHeads
from compress.quantize.int8 import DynamicInt8
from compress.sealed import read_sealed, write_sealed
from compress.telling import Terminal, telling
from tests.conftest import reviews, save_tiny, write_tsv
from tests.run.test_recipe import recipe

KIND = Kind("thing", revision=1)


def flip(path: Path, place: float = 0.5) -> None:
    """Flip one bit, at that share of the file."""
    content = bytearray(path.read_bytes() or b"x")
    content[int(place * (len(content) - 1))] ^= 4
    path.write_bytes(content)


def flip_unnoticed(path: Path) -> None:
    """Flip one bit and put the times back that the file had."""
    before = path.stat()
    flip(path)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def lengthen(path: Path) -> None:
    path.write_bytes(path.read_bytes() + b"\0")


def delete(path: Path) -> None:
    path.unlink()


def with_folder(path: Path) -> None:
    """Put a folder where the file was."""
    path.unlink()
    path.mkdir()


DAMAGES: tuple[Callable[[Path], None], ...] = (
    flip, lambda path: flip(path, 0), lambda path: flip(path, 1), flip_unnoticed, truncate, lengthen, delete,
    with_folder,
)  # fmt: skip


def contents(folder: Path) -> dict[str, bytes]:
    files = (path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): path.read_bytes() for path in files if path.name != PRODUCT}


def test_every_damage_to_every_file_of_a_product_is_told_in_one_line_and_made_good(tmp_path: Path) -> None:
    calls = []

    def work(folder: Path) -> dict[str, Any]:
        calls.append(folder)
        (folder / "config.json").write_text(json.dumps({"layers": 2}))
        (folder / "deep").mkdir()
        (folder / "deep" / "logits.npy").write_bytes(np.arange(64.0).tobytes())
        return {"accuracy": 0.75, "by": [1, 2.5, None]}

    out = StringIO()
    workshop = Workshop(tmp_path)
    first = workshop.make(KIND, [1], work)
    whole = contents(first.folder)
    for name in ("config.json", "deep/logits.npy", PRODUCT):
        for damage in DAMAGES:
            damage(first.folder / name)
            calls.clear(), out.truncate(0), out.seek(0)
            with telling(Terminal(file=out)):
                again = workshop.make(KIND, [1], work)
            assert len(calls) == 1, (name, damage)
            assert not again.reused
            assert out.getvalue().count("\n") == 1
            assert str(first.folder / name) in out.getvalue()
            assert contents(again.folder) == whole
            assert again.record == {"accuracy": 0.75, "by": [1, 2.5, None]}
            assert workshop.make(KIND, [1], work).reused
    assert list(tmp_path.glob("thing-*")) == [first.folder]


def test_a_product_of_other_work_under_the_name_is_not_taken(tmp_path: Path) -> None:
    workshop = Workshop(tmp_path)
    single, two = (workshop.make(KIND, [n], lambda folder, n=n: {"n": n}) for n in (1, 2))  # type: ignore[misc]
    shutil.copy(two.folder / PRODUCT, single.folder / PRODUCT)
    assert workshop.make(KIND, [1], lambda folder: {"n": 1}).record == {"n": 1}


def test_another_revision_makes_anew(tmp_path: Path) -> None:
    workshop = Workshop(tmp_path)
    made = [workshop.make(Kind("thing", revision=n), [1], lambda folder: {}) for n in (1, 2, 1)]
    assert [product.reused for product in made] == [False, False, True]
    assert made[0].key != made[1].key


def test_interrupted_work_whose_files_are_damaged_starts_anew_and_says_so(tmp_path: Path) -> None:
    out, stopped = StringIO(), True
    resumed: list[int] = []

    def work(folder: Path) -> None:
        done = (read_sealed(folder / "progress.json") or {"done": 0})["done"]
        resumed.append(done)
        write_sealed(folder / "progress.json", {"done": 7})
        if stopped:
            raise KeyboardInterrupt
        (folder / "result").write_text("whole")

    workshop = Workshop(tmp_path)
    with pytest.raises(KeyboardInterrupt):
        workshop.make(KIND, [1], work)
    (partial,) = tmp_path.glob(f"*{PARTIAL}")
    for name in ("progress.json", SPENT):
        flip(partial / name)
        resumed.clear(), out.truncate(0), out.seek(0)
        with pytest.raises(KeyboardInterrupt), telling(Terminal(file=out)):
            workshop.make(KIND, [1], work)
        assert resumed[-1] == 0
        assert out.getvalue().count("\n") == 1
        assert f"{partial / name} of the interrupted work is damaged; starting again" in out.getvalue()
    stopped = False
    flip(partial / "progress.json")
    assert (workshop.make(KIND, [1], work).folder / "result").read_text() == "whole"


def test_work_that_was_stopped_before_its_last_step_is_checked_too(tmp_path: Path) -> None:
    workshop = Workshop(tmp_path)

    def work(folder: Path) -> None:
        (folder / "result").write_text("whole")

    folder = workshop.make(KIND, [1], work).folder
    for damaged in (False, True):
        partial = folder.rename(folder.with_name(folder.name + PARTIAL))
        if damaged:
            flip(partial / "result")
        again = workshop.make(KIND, [1], work)
        assert (again.folder / "result").read_text() == "whole"


def test_sealed_json_is_read_as_written_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "note.json"
    assert read_sealed(path) is None
    value = {"number": 0.1, "text": "é", "list": [1, None], "1": {"a": True}}
    write_sealed(path, value)
    assert read_sealed(path) == value
    whole = path.read_bytes()
    for place in range(len(whole)):
        changed = bytearray(whole)
        changed[place] ^= 1
        path.write_bytes(changed)
        with pytest.raises(DamagedError):
            read_sealed(path)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished tiny run, with its files beside it."""
    folder = tmp_path_factory.mktemp("damaged")
    sizes = {"train": (60, 1), "validation": (20, 2), "test": (20, 3)}
    for name, size in sizes.items():
        write_tsv(folder / f"{name}.tsv", reviews(*size))
    save_tiny(folder / "teacher")
    run(folder)
    return folder


def run(folder: Path) -> str:
    """Run again what is in ``folder``; return what was said."""
    files = {name: folder / f"{name}.tsv" for name in ("train", "validation", "test")}
    given = recipe(files, folder / "teacher", folder)
    tiny = replace(
        given,
        teacher=replace(given.teacher, epochs=1),
        distill=replace(given.distill, epochs=1),
        prune={"heads": PruneHeads(ratio=0.4, rows=20, recovery_epochs=0.5)},
        quantize={"dynamic": DynamicInt8()},
    )
    out = StringIO()
    with telling(Terminal(file=out)):
        tiny.run()
    return out.getvalue()


def results(folder: Path) -> dict[str, Any]:
    """Return what a run gave: the bytes of its models, and all that its report says but for times."""
    models = [*(folder / "run").rglob("*.safetensors"), *(folder / "run").rglob("*.onnx")]
    hashes = {str(path.relative_to(folder)): hash_file(path) for path in models}
    report = json.loads((folder / "run" / "report.json").read_text())
    parts = report["stages"] + report["artifacts"] + report["baselines"]
    return hashes | {part["name"]: (part["metrics"], part["interval"]) for part in parts}


@pytest.mark.parametrize("turn", [0, *(pytest.param(turn, marks=pytest.mark.slow) for turn in range(1, 6))])
def test_a_run_over_a_cache_in_which_every_product_is_damaged_gives_the_same_results(turn: int, finished: Path) -> None:
    before = results(finished)
    damages = (flip, truncate, delete)
    damaged = []
    products = sorted(path.parent for path in (finished / "cache").glob(f"*/{PRODUCT}"))
    for number, product in enumerate(products):
        files = sorted(path for path in product.rglob("*") if path.is_file() and path.stat().st_size)
        path = files[(turn + number) % len(files)]
        damages[(turn // 2 + number) % 3](path)
        damaged.append(path)
    kinds = {product.name.rpartition("-")[0] for product in products}
    assert {
        "teacher",
        "student",
        "teacher_outputs",
        "distill",
        "heads",
        "onnx",
        "dynamic",
        "logits",
        "latency",
    } <= kinds
    told = run(finished)
    assert [path for path in damaged if told.count(f"{path} ") != 1] == []
    assert "Traceback" not in told
    assert results(finished) == before
    assert "made again" not in run(finished)


def test_outputs_are_copies_so_editing_them_leaves_the_cache_as_it_is(finished: Path) -> None:
    files = [path for path in (finished / "run").rglob("*") if path.is_file()]
    before = contents(finished / "cache")
    assert {path.stat().st_nlink for path in files} == {1}
    for path in files:
        with path.open("r+b") as file:
            file.write(b"edited")
    assert contents(finished / "cache") == before
