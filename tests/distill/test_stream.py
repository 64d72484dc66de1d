"""Distillation on made rows: what is learned, what stays the same, and what cannot be."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import BertForMaskedLM

from compress.augment.made_rows import MadeRows, MadeTokens
from compress.augment.masked_lm import load
from compress.augment.words import cut
from compress.data.dataset import Dataset, Split
from compress.distill.losses import LogitsMSE, SoftTargets
from compress.distill.stream import Stream
from compress.errors import ModelError
from compress.known import Known
from compress.models.evaluate import predict_rows
from compress.models.loading import load_model, load_tokenizer, quiet, save_model
from compress.models.tokens import tokenize
from compress.pipeline.model import Model
from compress.pipeline.state import State
from compress.pipeline.workshop import Workshop
from compress.student.base import Material
from compress.student.bilstm import BiLstm
from compress.student.words import Pieces, WordStart
from compress.tasks.classification import Classification
from compress.tasks.regression import Regression
from compress.tasks.tags import Tags
from tests.conftest import reviews, tiny_model, tiny_tokenizer

TASK = Classification(("bad", "good"))
QUICK = Stream(rows=1_500, batch_size=25, learning_rate=1e-2, halves_rate=0.5)


def state(folder: Path, *, own_tokens: bool) -> State:
    """Return a state with a tiny teacher, and a BiLSTM that reads its pieces or words of its own."""
    texts = {name: Split(tuple(text for _, text in reviews(rows, seed))) for name, rows, seed in
             (("train", 80, 1), ("validation", 20, 2), ("test", 40, 3))}  # fmt: skip
    labelled = {
        name: replace(split, labels=np.arange(len(split)) % 2) if name != "train" else split
        for name, split in texts.items()
    }
    train = replace(texts["train"], labels=np.arange(80) % 2)
    teacher, tokenizer = tiny_model(**TASK.head_config()), tiny_tokenizer()
    save_model(teacher, tokenizer, folder / "teacher")
    how = (
        BiLstm(hidden_size=12, tokens=Pieces.words, start=WordStart.random, min_count=1)
        if own_tokens
        else BiLstm(hidden_size=12)
    )
    reads = how.tokenizer(tokenizer, train)
    torch.manual_seed(0)
    save_model(how.build(teacher, Material(tokenizer, reads, pairs=False)), reads, folder / "student")
    data = Dataset("reviews", TASK, train, labelled["validation"], labelled["test"])
    return State.begin(
        data,
        Workshop(folder / "cache"),
        0,
        teacher=Model(folder / "teacher", "t"),
        student=Model(folder / "student", "s"),
    )


@pytest.mark.parametrize("own_tokens", [False, True])
def test_a_student_learns_what_the_teacher_answers_to_rows_that_are_nowhere(own_tokens: bool, tmp_path: Path) -> None:
    before = state(tmp_path, own_tokens=own_tokens)
    after = QUICK(before)

    def apart(folder: Path) -> float:
        tokens = tokenize(before.data.test, load_tokenizer(folder), 32)
        theirs = predict_rows(load_model(tmp_path / "teacher"), tokenize(before.data.test, tiny_tokenizer(), 32))
        ours = predict_rows(load_model(folder), tokens)
        return float(np.abs(np.diff(ours) - np.diff(theirs)).mean())

    assert apart(after.given_student.folder) < 0.6 * apart(tmp_path / "student")
    record = after.records[-1]
    assert record.name == "stream"
    assert "1,500 rows made of 80" in record.notes[0]
    assert not list((tmp_path / "cache").rglob("*.jsonl"))  # no row was written


def test_an_interrupted_stream_ends_with_the_same_weights_to_the_bit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = replace(QUICK, rows=500, checkpoint_seconds=1e-9)
    whole = settings(state(tmp_path / "whole", own_tokens=False)).given_student
    begun, made = state(tmp_path / "stopped", own_tokens=False), MadeRows.__getitem__

    def until(rows: MadeRows, number: int) -> Any:
        if number == 290:
            raise KeyboardInterrupt
        return made(rows, number)

    monkeypatch.setattr(MadeRows, "__getitem__", until)
    with pytest.raises(KeyboardInterrupt):
        settings(begun)
    seen: list[int] = []
    monkeypatch.setattr(MadeRows, "__getitem__", lambda rows, number: (seen.append(number), made(rows, number))[1])
    resumed = settings(begun).given_student
    ours, theirs = (load_model(model.folder).state_dict() for model in (whole, resumed))
    assert all(torch.equal(value, theirs[name]) for name, value in ours.items())
    assert min(seen) > 200  # what was done is not done again


def test_what_cannot_be_is_refused_before_work() -> None:
    wrong = Stream(
        rows=0, epochs=2, group_by_length=True, early_stopping=1, halves_rate=2, mask_rate=0.6, replace_rate=0.6
    )
    rules = {fault.setting: fault.rule for fault in wrong.faults()}
    assert set(rules) == {
        "rows", "epochs", "group_by_length", "early_stopping", "halves_rate", "replace_rate"
    }  # fmt: skip
    assert "no row comes twice" in rules["epochs"]
    (fault,) = Stream().faults(Known(task=Tags(("O", "B-a"))))
    assert "needs one answer per row" in str(fault)
    assert not list(Stream().faults(Known(task=TASK)))


def test_answers_are_compared_as_the_task_has_them() -> None:
    assert isinstance(Stream().losses(TASK)["soft"], SoftTargets)
    assert isinstance(Stream().losses(Regression(0.0, 5.0))["mse"], LogitsMSE)


def test_the_mask_is_the_teachers() -> None:
    texts = Split(tuple(text for _, text in reviews(20, 1)))
    data = Dataset("reviews", TASK, texts, texts.take(np.arange(0)), texts.take(np.arange(0)))
    settings = Stream(halves_rate=0, replace_rate=0, ngram_rate=0, mask_rate=1)
    rows = settings.made(data, tiny_tokenizer(), 0)
    assert set(rows[0][0].split()) == {"[MASK]"}
    numbers = MadeTokens(rows, 3, tiny_tokenizer(), 32).batch([0])["input_ids"]
    assert tiny_tokenizer().mask_token_id in numbers


def test_a_teacher_without_a_mask_is_told_what_to_set() -> None:
    texts = Split(("a film",))
    tokenizer = tiny_tokenizer()
    tokenizer.mask_token = tokenizer.unk_token = None
    with pytest.raises(ModelError, match=r"has no mask token\. Set mask_rate to 0"):
        Stream().made(Dataset("reviews", TASK, texts, texts, texts), tokenizer, 0)


@pytest.fixture
def mlm(tmp_path: Path) -> str:
    """A masked language model in a folder, and its path."""
    with quiet():
        model = BertForMaskedLM(tiny_model().config)
    save_model(model, tiny_tokenizer(), tmp_path / "mlm")
    return str(tmp_path / "mlm")


def test_a_language_model_replaces_words_by_those_that_it_expects_there(mlm: str) -> None:
    texts = Split(("the film was good and the plot is dull", "A music actor"))
    data = Dataset("reviews", TASK, texts, texts.take(np.arange(0)), texts.take(np.arange(0)))
    settings = Stream(halves_rate=0, replace_rate=1, ngram_rate=0, mask_rate=0, mlm=mlm, candidates=2)
    rows, model = settings.made(data, tiny_tokenizer(), 0), load(mlm)
    expected = {text: model.candidates([text], [cut(text)], 2) for text in texts.texts}
    made = [rows[number][0].split() for number in range(30)]
    assert made == [settings.made(data, tiny_tokenizer(), 0)[number][0].split() for number in range(30)]
    (first,) = {text for text in texts.texts if len(text.split()) == 9}
    for words, text in ((words, text) for words in made for text in texts.texts if len(text.split()) == len(words)):
        for place, word in enumerate(words):
            assert word.lower() in [candidate.lower() for candidate in expected[text][0, place]]
    assert {words[0] for words in made if len(words) == 3} <= {
        word.capitalize() for word in expected["A music actor"][0, 0]
    }
    assert len({tuple(words) for words in made if len(words) == len(first.split())}) > 3  # drawn, not the likeliest


def test_a_language_model_that_cannot_be_used_is_refused_before_work(mlm: str, tmp_path: Path) -> None:
    (fault,) = Stream(mlm=str(tmp_path / "none")).faults(Known(reading=True))
    assert fault.setting == "mlm"
    (fault,) = Stream(mlm=mlm, replace_rate=0).faults()
    assert "replace_rate is 0" in str(fault)
    assert not list(Stream(mlm=mlm).faults(Known(reading=True)))


def test_what_is_made_depends_on_the_language_model_and_not_on_where_it_lies(mlm: str, tmp_path: Path) -> None:
    moved = tmp_path / "moved"
    shutil.copytree(mlm, moved)
    before = state(tmp_path, own_tokens=False)
    first, again = (replace(QUICK, rows=20, mlm=folder)(before).given_student.key for folder in (mlm, str(moved)))
    assert first == again
    assert replace(QUICK, rows=20)(before).given_student.key != first
