"""Which texts have no spaces between words, and what follows from it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from compress.augment.perturb import Perturb
from compress.augment.substitute import Substitute
from compress.augment.words import cut, joined
from compress.benchmark import baselines
from compress.benchmark.baselines import tfidf
from compress.cli.main import main
from compress.data import Dataset, Split
from compress.data.scripts import is_unsegmented, unsegmented_share, words_in
from compress.known import Known
from compress.tasks.classification import Classification
from compress.tasks.regression import Regression
from tests.conftest import write_tsv

CHINESE = {0: ("房间很差", "服务不好", "很脏", "太吵了"), 1: ("房间很好", "服务热情", "很干净", "很安静")}


def chinese(rows: int) -> Dataset:
    """Reviews of hotels in two or three clauses, without spaces."""
    generator = np.random.default_rng(1)
    labels = np.arange(rows) % 2
    texts = tuple("，".join(generator.choice(CHINESE[int(label)], 2)) + "。" for label in labels)
    split = Split(texts, labels=labels)
    return Dataset("hotels", Classification(("bad", "good")), split, split, split)


@pytest.mark.parametrize(
    ("text", "unsegmented"),
    [
        ("这家酒店很干净", True),
        ("このホテルはとてもきれいです", True),
        ("โรงแรมนี้สะอาดมาก", True),
        ("ໂຮງແຮມສະອາດ", True),
        ("សណ្ឋាគារស្អាត", True),
        ("ဟိုတယ်သန့်ရှင်းတယ်", True),
        ("དེ་རིང་ཡག་པོ་", True),
        ("이 호텔은 매우 깨끗합니다", False),
        ("a clean hotel in 北京", False),
        ("这家 hotel 的 WiFi 很好很快很稳定", True),
        ("чистая гостиница", False),
        ("होटल साफ है", False),
        ("12 345 !!", False),
        ("", False),
    ],
)
def test_scripts_without_spaces_are_known(text: str, unsegmented: bool) -> None:
    assert is_unsegmented([text]) == unsegmented
    assert 0 <= unsegmented_share([text]) <= 1


def test_words_are_estimated_where_no_space_divides_them() -> None:
    assert words_in("three plain words") == 3
    assert words_in("酒店很干净") == 3
    assert words_in("") == 0


def test_tfidf_counts_characters_where_no_space_divides_words() -> None:
    record = tfidf(chinese(80)).figures
    assert record.kind == "TF-IDF of characters (1–3) + logistic regression"
    assert record.metrics["accuracy"] == 1.0


def test_tfidf_counts_words_and_characters_within_them_elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    split = Split(tuple(f"a film that is number {i}" for i in range(20)), labels=np.arange(20, dtype=np.float32))
    data = Dataset("films", Regression(0, 19), split, split, split)
    assert tfidf(data).figures.kind == "TF-IDF of words (1–2) and characters within words (2–5) + ridge regression"
    monkeypatch.setattr(baselines, "MOST_CHARACTERS", 10)
    assert tfidf(data).figures.kind == "TF-IDF of words (1–2) + ridge regression"


def test_tfidf_of_texts_without_a_word_counts_characters() -> None:
    split = Split(tuple("ab"[i % 2] for i in range(20)), labels=np.arange(20) % 2)
    record = tfidf(Dataset("letters", Classification(("a", "b")), split, split, split)).figures
    assert record.metrics["accuracy"] == 1.0


def test_letters_of_such_scripts_are_words_but_have_no_part_of_speech() -> None:
    text = "这部电影good!很好 ดีมาก かな"
    words = cut(text)
    assert words.words == [*"这部电影", "good", "!", "很", "好", "ดี", "ม", "า", "ก", "か", "な"]
    assert joined(words.words, words.gaps) == text
    known = Known(data=chinese(20))
    (fault,) = Perturb().faults(known)
    assert (fault.setting, fault.remedy) == ("replace_rate", "Set it to 0.")
    assert not list(Perturb(replace_rate=0).faults(known))
    assert not list(Substitute(mlm="some/model").faults(known))
    split = Split(("a film", "another film"), labels=np.arange(2))
    assert not list(Perturb().faults(Known(data=Dataset("films", Classification(("a", "b")), split, split, split))))


def test_the_refusal_comes_before_any_work(
    tmp_path: Path, teacher_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = chinese(80)
    labels = [("bad", "good")[int(label)] for label in rows.train.known_labels]
    train = write_tsv(tmp_path / "train.tsv", list(zip(labels, rows.train.texts, strict=True)))
    words = [f"data.train={train}", f"teacher.model={teacher_folder}", "teacher.max_tokens=32", "augment=[perturb]"]
    rest = ["benchmark.tokens=[8]", f"output={tmp_path / 'run'}"]
    assert main(["run", "--cfg", "data=files", *words, *rest]) == 2
    error = capsys.readouterr().err
    assert "augment.perturb.replace_rate = 0.1: draws words of the same part of speech, and letters of" in error
