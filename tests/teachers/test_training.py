"""A teacher trained here is really trained: long enough, its best weights kept, and the report says how it went."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from compress.data import Files
from compress.models.evaluate import main_metric, metric_and_loss, predict_rows
from compress.models.loading import load_model, load_tokenizer
from compress.models.tokens import tokenize
from compress.pipeline.state import State
from compress.pipeline.workshop import Workshop
from compress.teachers.model import Teacher
from tests.conftest import reviews, save_tiny, write_tsv


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with a tiny encoder without a head, and few rows."""
    folder = tmp_path_factory.mktemp("teacher")
    save_tiny(folder / "encoder")
    for name, rows in (("train", 64), ("validation", 40), ("test", 40)):
        write_tsv(folder / f"{name}.tsv", reviews(rows, rows))
    return folder


def state(world: Path, cache: Path) -> State:
    paths = {name: str(world / f"{name}.tsv") for name in ("train", "validation", "test")}
    data = Files(**paths).load("auto", seed=1)
    return State.begin(data=data, workshop=Workshop(cache), seed=1)


def teacher(world: Path) -> Teacher:
    return Teacher(model=str(world / "encoder"), max_tokens=32, learning_rate=1e-3)


def test_few_rows_are_trained_on_for_the_floor_of_steps_and_the_record_says_so(world: Path, tmp_path: Path) -> None:
    after = replace(teacher(world), epochs=1, early_stopping=0, least_steps=60)(state(world, tmp_path))
    (record,) = after.records
    assert record.curves[-1]["step"] == 60
    validated = [point["step"] for point in record.curves if "validation_accuracy" in point]
    assert validated == [50, 60]  # 2 steps an epoch: not after each
    assert record.notes[-1].startswith("trained for 30 epochs: validation accuracy 0.")
    assert record.notes[-1].endswith("(60 steps are the least, more than teacher.epochs = 1)")


def test_it_stops_when_validation_no_longer_improves_and_the_record_says_when(
    world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    values = iter([{"accuracy": 0.9, "loss": 0.4}, {"accuracy": 0.9, "loss": 0.5}])
    monkeypatch.setattr("compress.teachers.model.metric_and_loss", lambda *_: next(values))
    after = replace(teacher(world), epochs=200, early_stopping=1, least_steps=0)(state(world, tmp_path))
    note = "stopped after 50 of 200 epochs: validation accuracy 0.900, best at epoch 25"
    assert after.records[0].notes[1:] == (note,)


def test_by_default_it_goes_on_until_validation_stops_improving() -> None:
    plain = Teacher()
    assert plain.early_stopping > 0
    assert plain.least_steps >= 300
    assert plain.epochs >= 5


def test_a_teacher_stopped_in_the_middle_is_the_same_when_resumed(
    world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    quick = replace(teacher(world), epochs=1, least_steps=60, early_stopping=1, checkpoint_seconds=0.2)
    whole = quick(state(world, tmp_path / "whole"))
    calls = iter(range(100))

    def interrupted(*arguments: object) -> dict[str, float]:
        if next(calls) == 1:
            raise KeyboardInterrupt
        return metric_and_loss(*arguments)  # type: ignore[arg-type]

    with monkeypatch.context() as patch:
        patch.setattr("compress.teachers.model.metric_and_loss", interrupted)
        with pytest.raises(KeyboardInterrupt):
            quick(state(world, tmp_path / "parts"))
    resumed = quick(state(world, tmp_path / "parts"))
    first, second = (load_model(after.given_teacher.folder).state_dict() for after in (whole, resumed))
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert whole.records[0].notes == resumed.records[0].notes


def test_the_loss_beside_the_metric_is_the_models_own(world: Path, tmp_path: Path) -> None:
    start = state(world, tmp_path)
    after = replace(teacher(world), epochs=1, least_steps=0)(start)
    model, tokenizer = load_model(after.given_teacher.folder), load_tokenizer(after.given_teacher.folder)
    tokens = tokenize(start.data.test, tokenizer, 32)
    batch = tokens.batch(list(range(len(tokens))))
    with torch.no_grad():
        expected = model(**{n: batch[n] for n in ("input_ids", "attention_mask", "token_type_ids", "labels")}).loss
    found = metric_and_loss(model, tokens, start.data.task)
    assert found["loss"] == pytest.approx(float(expected), rel=1e-5)
    assert {"accuracy": found["accuracy"]} == main_metric(model, tokens, start.data.task)


def test_another_metric_decides_and_weights_of_classes_train_another_teacher(world: Path, tmp_path: Path) -> None:
    quick = replace(teacher(world), epochs=1, least_steps=0)
    start = state(world, tmp_path)
    plain = quick(start)
    task = start.data.task.judged_by("macro_f1").weighted({"good": 20.0}, start.data.train.known_labels)
    weighed = quick(replace(start, data=replace(start.data, task=task)))
    (record,) = weighed.records
    assert not record.reused
    assert [name for name in record.curves[-1] if name.startswith("validation")] == [
        "validation_macro_f1", "validation_loss",
    ]  # fmt: skip
    values = []
    for after in (plain, weighed):
        model, tokenizer = load_model(after.given_teacher.folder), load_tokenizer(after.given_teacher.folder)
        values.append(predict_rows(model, tokenize(start.data.test, tokenizer, 32)))
    margins = [float((logits[:, 1] - logits[:, 0]).mean()) for logits in values]
    assert margins[1] > margins[0]  # it leans to the heavier class
    again = quick(replace(start, data=replace(start.data, task=task)))
    assert again.records[0].reused


def test_a_learning_rate_that_is_not_named_is_that_of_the_model() -> None:
    assert Teacher().rate == 1e-4
    assert Teacher(model="some/bert").rate == 5e-5
    assert Teacher(learning_rate=3e-5).rate == 3e-5
    assert Teacher().made_with() == Teacher(learning_rate=1e-4).made_with()
    assert not [fault for fault in Teacher().faults() if fault.setting == "learning_rate"]
    assert [fault.setting for fault in Teacher(learning_rate=-1).faults()] == ["learning_rate"]
    assert [fault.setting for fault in Teacher(least_steps=-1).faults()] == ["least_steps"]
