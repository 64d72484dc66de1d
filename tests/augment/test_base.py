"""Copies are written once, as many as are asked for, none twice, and none that is measured."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from compress.augment import base
from compress.augment.base import NOTED, ROWS, Texts, produce, read, texts_of
from compress.augment.perturb import Perturb
from compress.augment.substitute import Substitute
from compress.data.dataset import Dataset, Split
from compress.data.rows import folded
from compress.errors import DamagedError
from compress.files import hash_file
from compress.models.loading import save_model
from compress.pipeline.model import Model
from compress.pipeline.state import State
from compress.pipeline.workshop import Workshop
from compress.tasks.classification import Classification
from tests.conftest import reviews, tiny_model, tiny_tokenizer


class Numbered:
    """Copies that carry random numbers, and count the rows that were asked for."""

    def __init__(self, rows: Split, most: int = 1000, fail_at: int | None = None) -> None:
        self.rows, self.most, self.fail_at, self.asked = rows, most, fail_at, 0

    def copies(self, row: int, number: int, generator: np.random.Generator, counts: Counter[str]) -> Iterator[Texts]:
        self.asked += 1
        if self.asked == self.fail_at:
            raise KeyboardInterrupt
        for _ in range(number):
            counts["drawn"] += 1
            drawn = int(generator.integers(self.most))
            yield tuple(f"{text} {drawn}" for text in texts_of(self.rows, row))


def data(rows: int = 40, **changes: Any) -> Dataset:
    """Return a data set of made-up reviews."""
    labels = np.arange(rows) % 2
    train = Split(tuple(f"row {number}" for number in range(rows)), None, labels)
    other = Split(("x", "y"), None, np.array([0, 1]))
    return replace(Dataset("made up", Classification(("a", "b")), train, other, other), **changes)


def test_copies_of_all_rows_are_written_and_read_back(tmp_path: Path) -> None:
    given = data()
    result = produce(Numbered(given.train), given, 3, None, 7, tmp_path)
    made = read(tmp_path / ROWS, pairs=False)
    assert len(made) == result["counts"]["kept"] == 120 - result["counts"]["duplicates"]
    assert result["counts"]["copies"] == result["counts"]["drawn"] == 120
    assert {text.rpartition(" ")[0] for text in made.texts} == set(given.train.texts)
    assert made.labels is None
    assert len(result["examples"]) == 20
    for example in result["examples"]:
        assert example["augmented"][0] in made.texts
        assert example["augmented"][0].startswith(example["original"][0] + " ")
    assert not (tmp_path / NOTED).exists()


def test_duplicates_and_measured_rows_are_dropped_and_counted(tmp_path: Path) -> None:
    train = Split(("row", "row 1"), None, np.array([0, 1]))
    test = Split(("Row  2",), None, np.array([0]))
    given = data(train=train, test=test, unlabelled=Split(("ROW 3",)))
    made = produce(Numbered(train, most=5), given, 200, None, 0, tmp_path)
    kept = [folded(text) for text in read(tmp_path / ROWS, pairs=False).texts]
    assert sorted(kept) == ["row 0", "row 1 0", "row 1 1", "row 1 2", "row 1 3", "row 1 4", "row 4"]
    counts = made["counts"]
    assert counts["measured"] > 0
    assert counts["kept"] + counts["duplicates"] + counts["measured"] == counts["copies"] == 400


def test_swapped_pairs_are_duplicates_and_pairs_stay_pairs(tmp_path: Path) -> None:
    train = Split(("a", "b"), ("b", "a"), np.array([0, 1]))
    test = Split(("b 1",), ("a 1",), np.array([0]))
    given = data(train=train, validation=test, test=test)
    result = produce(Numbered(train, most=3), given, 50, None, 0, tmp_path)
    made = read(tmp_path / ROWS, pairs=True)
    assert made.pairs is not None
    assert {frozenset(pair) for pair in zip(made.texts, made.pairs, strict=True)} == {
        frozenset(("a 0", "b 0")), frozenset(("a 2", "b 2")),
    }  # fmt: skip
    assert result["counts"]["measured"] > 0


def test_a_limit_keeps_so_many_rows_of_a_random_part_and_makes_no_others(tmp_path: Path) -> None:
    given = data(1000)
    maker = Numbered(given.train)
    result = produce(maker, given, 4, 50, 3, tmp_path)
    made = read(tmp_path / ROWS, pairs=False)
    assert len(made) == result["counts"]["kept"] == 50
    assert maker.asked < 20
    sources = {int(text.split()[1]) for text in made.texts}
    assert max(sources) > 500
    assert min(sources) < 500


def test_the_seed_decides_and_nothing_else(tmp_path: Path) -> None:
    given = data()
    hashes = []
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        (tmp_path / name).mkdir()
        produce(Numbered(given.train), given, 3, None, seed, tmp_path / name)
        hashes.append(hash_file(tmp_path / name / ROWS))
    assert hashes[0] == hashes[1] != hashes[2]


def test_a_stopped_run_goes_on_and_ends_as_one_that_was_left_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(base, "SAVE_EVERY", 10)
    given = data(60)
    whole, stopped = tmp_path / "whole", tmp_path / "stopped"
    whole.mkdir()
    stopped.mkdir()
    expected = produce(Numbered(given.train, most=6), given, 5, None, 7, whole)
    for fail_at in (5, 18, 25):  # before the first note, then in its second and later parts
        with pytest.raises(KeyboardInterrupt):
            produce(Numbered(given.train, most=6, fail_at=fail_at), given, 5, None, 7, stopped)
    assert json.loads((stopped / NOTED).read_text())["done"] == 30
    rest = Numbered(given.train, most=6)
    assert produce(rest, given, 5, None, 7, stopped) == expected
    assert rest.asked == 30
    assert (stopped / ROWS).read_bytes() == (whole / ROWS).read_bytes()


@pytest.mark.parametrize("name", [ROWS, NOTED])
def test_a_stopped_run_does_not_resume_from_damaged_files(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(base, "SAVE_EVERY", 10)
    given = data(60)
    with pytest.raises(KeyboardInterrupt):
        produce(Numbered(given.train, most=6, fail_at=25), given, 5, None, 7, tmp_path)
    content = bytearray((tmp_path / name).read_bytes())
    content[10] ^= 1
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DamagedError, match=name):
        produce(Numbered(given.train, most=6), given, 5, None, 7, tmp_path)


def state(folder: Path, seed: int = 13) -> State:
    """Return a state with a teacher, of made-up reviews."""
    if not (folder / "teacher").exists():
        (folder / "teacher").mkdir(parents=True)
        save_model(tiny_model(), tiny_tokenizer(), folder / "teacher")
    splits = [
        Split(tuple(text for _, text in reviews(rows, seed)), None, np.arange(rows) % 2)
        for rows, seed in ((30, 1), (5, 2), (5, 3))
    ]
    given = Dataset("made up", Classification(("bad", "good")), *splits)
    return State.begin(
        data=given, workshop=Workshop(folder / "cache"), seed=seed, teacher=Model(folder / "teacher", "key")
    )


def made(folder: Path) -> list[Path]:
    return sorted((folder / "cache").glob("augmentation-*"))


def test_the_work_is_done_once_and_again_when_something_it_depends_on_changes(tmp_path: Path) -> None:
    first = Perturb(copies=2)(state(tmp_path))
    assert first.data.unlabelled is not None
    assert len(first.data.unlabelled) == first.augmentations[0].counts["kept"] > 20
    again = Perturb(copies=2)(state(tmp_path))
    assert again.data.unlabelled == first.data.unlabelled
    assert again.augmentations[0].reused
    assert len(made(tmp_path)) == 1
    Perturb(copies=2, mask_rate=0.2)(state(tmp_path))
    Perturb(copies=2)(state(tmp_path, seed=14))
    other = state(tmp_path)
    Perturb(copies=2)(replace(other, data=replace(other.data, train=other.data.train.take(np.arange(20)))))
    Perturb(copies=2)(replace(other, data=replace(other.data, test=other.data.test.take(np.arange(2)))))
    assert len(made(tmp_path)) == 5


def test_a_source_is_known_by_its_content_and_not_by_its_place(tmp_path: Path) -> None:
    for name, content in (("a.tsv", "good\tfine\n"), ("b.tsv", "good\tfine\n"), ("c.tsv", "good\tgreat\n")):
        (tmp_path / name).write_text(content)
        Substitute(copies=2, synonyms=str(tmp_path / name))(state(tmp_path))
    assert len(made(tmp_path)) == 2


def test_two_augmentations_add_up_and_do_not_repeat_each_other(tmp_path: Path) -> None:
    (tmp_path / "s.tsv").write_text("good\tfine\nbad\tpoor\ndull\tawful\n")
    substitute = Substitute(copies=6, rate=0.9, synonyms=str(tmp_path / "s.tsv"))
    once = substitute(state(tmp_path))
    both = Perturb(copies=2)(once)
    assert both.data.unlabelled is not None
    assert len(both.data.unlabelled) == sum(entry.counts["kept"] for entry in both.augmentations)
    thrice = substitute(both)
    assert thrice.augmentations[-1].counts["kept"] == 0
    assert thrice.data.unlabelled == both.data.unlabelled
    rows = [folded(text) for text in (*both.data.train.texts, *both.data.unlabelled.texts)]
    assert len(set(rows[30:])) == len(rows) - 30
    assert not set(rows[30:]) & {folded(text) for text in (*both.data.test.texts, *both.data.validation.texts)}
