from __future__ import annotations

import random
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from compress import mapped
from compress.data import Dataset, Files, cutting, equal_rows
from compress.data.cutting import cut, sample, shares_of
from compress.data.equal_rows import numbers_of
from compress.data.rows import folded


@given(st.lists(st.integers(1, 500), min_size=1, max_size=9), st.integers(1, 2000))
def test_shares_add_up_and_never_exceed_a_stratum(counts: list[int], total: int) -> None:
    shares = shares_of(counts, total)
    assert sum(shares) == min(total, sum(counts))
    assert all(0 <= share <= count for share, count in zip(shares, counts, strict=True))
    if total >= len(counts):
        assert min(shares) >= 1


@settings(deadline=None)
@given(st.lists(st.tuples(st.sampled_from("abcdefgh"), st.sampled_from("xyz")), min_size=1), st.integers(1, 30))
def test_a_cut_keeps_equal_texts_together_and_every_row(rows: list[tuple[str, str]], wanted: int) -> None:
    keys, classes = [key for key, _ in rows], [name for _, name in rows]
    stay, off = cut(numbers_of(keys), classes, wanted, 3)
    assert sorted([*stay, *off]) == list(range(len(rows)))
    assert not {keys[i] for i in stay} & {keys[i] for i in off}
    assert len(off) <= wanted
    assert len(stay)


def test_a_cut_and_a_sample_are_stratified_and_follow_the_seed() -> None:
    classes = ["a"] * 800 + ["b"] * 150 + ["c"] * 50
    keys = numbers_of(str(i) for i in range(1000))
    _, off = cut(keys, classes, 100, 7)
    assert Counter(classes[i] for i in off) == {"a": 80, "b": 15, "c": 5}
    chosen = sample(classes, 200, 7)
    assert Counter(classes[i] for i in chosen) == {"a": 160, "b": 30, "c": 10}
    np.testing.assert_array_equal(chosen, sample(classes, 200, 7))
    assert not np.array_equal(chosen, sample(classes, 200, 8))
    np.testing.assert_array_equal(off, cut(keys, classes, 100, 7)[1])
    assert not np.array_equal(off, cut(keys, classes, 100, 8)[1])


def cut_row_by_row(keys: list[str], classes: list[str], rows: int, seed: int) -> list[int]:
    """Cut as `cut` does, with lists of rows."""
    groups: dict[str, list[int]] = {}
    for row, key in enumerate(keys):
        groups.setdefault(key, []).append(row)
    strata: dict[str, list[list[int]]] = {}
    for group in groups.values():
        strata.setdefault(classes[group[0]], []).append(group)
    generator, off = np.random.default_rng(seed), list[int]()
    shares = shares_of([sum(map(len, stratum)) for stratum in strata.values()], rows)
    for stratum, wanted in zip(strata.values(), shares, strict=True):
        taken, left = 0, len(stratum)
        for place in generator.permutation(np.arange(len(stratum))):
            if left > 1 and taken + len(stratum[place]) <= wanted:
                off += stratum[place]
                taken, left = taken + len(stratum[place]), left - 1
    return sorted(off)


@pytest.mark.parametrize("at_once", [7, 10_000])
def test_a_cut_in_passes_is_that_of_all_rows_at_once(at_once: int, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (cutting, equal_rows, mapped):
        monkeypatch.setattr(module, "PART", at_once)
    draw = random.Random(1)
    for rows in (1, 20, 300):
        keys, classes = draw.choices([f"text {i}" for i in range(200)], k=rows), draw.choices("xyz", (8, 1, 1), k=rows)
        for wanted in (1, rows // 4, rows):
            stay, off = cut(numbers_of(keys), classes, wanted, 5)
            assert off.tolist() == cut_row_by_row(keys, classes, wanted, 5)
            assert sorted([*stay, *off]) == list(range(rows))


def test_a_rare_class_is_in_every_sample_and_never_leaves_training() -> None:
    classes = ["common"] * 997 + ["rare"] * 3
    assert Counter(classes[i] for i in sample(classes, 10, 1))["rare"] == 1
    stay, off = cut(numbers_of(str(i) for i in range(1000)), classes, 999, 1)
    assert "rare" in {classes[i] for i in stay}
    assert "rare" in {classes[i] for i in off}


def rows_file(path: Path, rows: int, start: int = 0) -> str:
    path.write_text("".join(f"{'np'[i % 2]}\ttext {i}\n" for i in range(start, start + rows)))
    return str(path)


def notes(dataset: Dataset) -> str:
    return "\n".join(dataset.notes)


def test_given_validation_rows_without_a_test_become_the_test(tmp_path: Path) -> None:
    files = Files(train=rows_file(tmp_path / "a.tsv", 200), validation=rows_file(tmp_path / "b.tsv", 30, start=200))
    dataset = files.load("auto", 13)
    assert dataset.test.texts == tuple(f"text {i}" for i in range(200, 230))
    assert (len(dataset.train), len(dataset.validation)) == (180, 20)
    assert "30 given validation rows are the test rows" in notes(dataset)
    assert "choosing a checkpoint never sees" in notes(dataset)
    assert "20 validation rows cut from the 200 given training rows (stratified, seed 13" in notes(dataset)


def test_both_missing_splits_are_cut_from_training(tmp_path: Path) -> None:
    path = rows_file(tmp_path / "a.tsv", 200)
    first, same, second = (Files(train=path).load("auto", seed) for seed in (1, 1, 2))
    assert (len(first.train), len(first.validation), len(first.test)) == (150, 20, 30)
    assert first.fingerprint == same.fingerprint != second.fingerprint
    assert set(Counter(first.test.known_labels.tolist()).values()) == {15}


def test_three_given_splits_are_left_as_they_are(tmp_path: Path) -> None:
    names = {"train": (40, 0), "validation": (12, 100), "test": (10, 200)}
    dataset = Files(
        **{name: rows_file(tmp_path / f"{name}.tsv", rows, start) for name, (rows, start) in names.items()}
    ).load("auto", 1)
    assert dataset.notes == ()
    assert dataset.train.texts == tuple(f"text {i}" for i in range(40))
    assert dataset.validation.texts == tuple(f"text {i}" for i in range(100, 112))


def test_samples_are_noted(tmp_path: Path) -> None:
    path, test = rows_file(tmp_path / "a.tsv", 2000), rows_file(tmp_path / "t.tsv", 50, start=3000)
    dataset = Files(train=path, test=test, train_rows=1000, validation_rows=40, test_rows=60).load("auto", 13)
    assert (len(dataset.train), len(dataset.validation), len(dataset.test)) == (1000, 40, 50)
    assert "1,000 of 1,800 training rows, stratified, seed 13." in notes(dataset)
    assert "40 of 200 validation rows, stratified, seed 13." in notes(dataset)
    assert "60 test rows were asked for; there are 50, and all are used." in notes(dataset)


def test_equal_texts_stay_on_one_side_and_are_counted(tmp_path: Path) -> None:
    lines = [f"{'np'[i % 2]}\tText {i % 100}\n{'np'[i % 2]}\ttext   {i % 100}\n" for i in range(150)]
    (tmp_path / "a.tsv").write_text("".join(lines))
    dataset = Files(train=str(tmp_path / "a.tsv")).load("auto", 1)
    sides = [{folded(text) for text in split.texts} for split in (dataset.train, dataset.validation, dataset.test)]
    assert len(sides[0] | sides[1] | sides[2]) == sum(map(len, sides))
    assert f"Repeated texts: {len(dataset.train) - len(sides[0])} training rows after the first" in notes(dataset)


def test_leaks_and_contradictions_are_counted(tmp_path: Path) -> None:
    train = rows_file(tmp_path / "a.tsv", 40)
    with Path(train).open("a") as file:
        file.write("p\tTEXT 0\n")
    (tmp_path / "more.txt").write_text("text 3\nText  100\n")
    dataset = Files(
        train=train,
        validation=rows_file(tmp_path / "b.tsv", 10, start=60),
        test=rows_file(tmp_path / "c.tsv", 65, start=36),
        unlabelled=str(tmp_path / "more.txt"),
    ).load("auto", 1)
    assert "1 training row after the first (case and white space folded); 1 text with more than one label" in notes(
        dataset
    )
    assert "4 of 65 test rows (6.2%) have a text that is also in training" in notes(dataset)
    assert "Unlabelled rows that are test rows too: 1;" in notes(dataset)


@pytest.mark.parametrize("swapped", [False, True])
def test_a_pair_is_a_repetition_in_either_order(tmp_path: Path, swapped: bool) -> None:
    (tmp_path / "a.tsv").write_text("".join(f"{'np'[i % 2]}\ta{i}\tb{i}\n" for i in range(40)))
    first, second = ("b0", "A0") if swapped else ("A0", "b0")
    (tmp_path / "b.tsv").write_text(f"n\t{first}\t{second}\nn\ta1\tb2\n")
    files = Files(train=str(tmp_path / "a.tsv"), validation=str(tmp_path / "b.tsv"), test=str(tmp_path / "b.tsv"))
    assert "1 of 2 test rows (50.0%)" in notes(files.load("auto", 1))
