"""A finished teacher is used as it is, or refused with what would mend it; it is never trained anew in silence."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from compress.data import Files
from compress.distill.losses import LogitsMSE
from compress.errors import CompressError, RecipeError
from compress.models.evaluate import predict_rows
from compress.models.heads import with_outputs
from compress.models.loading import load_model, load_tokenizer, save_model
from compress.models.outputs import observe
from compress.models.tokens import tokenize
from compress.pipeline.state import State
from compress.pipeline.workshop import Workshop
from compress.run.check import check
from compress.run.recipe import Recipe
from compress.student.saved import Saved
from compress.tasks.choice import TaskChoice
from compress.tasks.judging import best_order
from compress.teachers.model import FineTune, Teacher
from tests.conftest import reviews, save_tiny, tiny_tokenizer, write_tsv
from tests.run.test_recipe import recipe


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Files of reviews, and a teacher that knows them."""
    folder = tmp_path_factory.mktemp("examined")
    for name, rows, seed in (("train", 160, 1), ("validation", 60, 2), ("test", 40, 3)):
        write_tsv(folder / f"{name}.tsv", reviews(rows, seed))
    untrained = save_tiny(folder / "untrained")
    before = State.begin(data=files(folder).load("auto", 1), workshop=Workshop(folder / "cache"), seed=1)
    teacher = Teacher(model=str(untrained), epochs=6, learning_rate=1e-2, batch_size=16, max_tokens=32)(before)
    save_model(load_model(teacher.given_teacher.folder), tiny_tokenizer(), folder / "teacher")
    return folder


def files(folder: Path, **changes: Any) -> Files:
    return Files(**({name: str(folder / f"{name}.tsv") for name in ("train", "validation", "test")} | changes))


def variant(world: Path, folder: Path, change: Callable[[dict[str, Any]], object] | None = None) -> Path:
    """Return a copy of the teacher whose config.json is changed."""
    save_model(load_model(world / "teacher"), load_tokenizer(world / "teacher"), folder)
    if change is not None:
        config = json.loads((folder / "config.json").read_text())
        change(config)
        (folder / "config.json").write_text(json.dumps(config))
    return folder


def named(*names: str, **settings: Any) -> Callable[[dict[str, Any]], object]:
    numbered = {"id2label": dict(enumerate(names)), "label2id": {name: index for index, name in enumerate(names)}}
    return lambda config: config.update(numbered | settings)


def asked(world: Path, model: Path, folder: Path, data: Files | None = None, **teacher: Any) -> Recipe:
    given = {name: world / f"{name}.tsv" for name in ("train", "validation", "test")}
    made = recipe(given, model, folder, prune={}, quantize={}, export={})
    changed = replace(made.teacher, **teacher)
    return replace(made, teacher=changed, data=data or made.data, cache=str(world / "cache"))


def refused(wanted: Recipe) -> str:
    with pytest.raises(RecipeError) as error:
        check(wanted)
    return str(error.value)


@pytest.mark.parametrize("names", [("BAD", "Good"), ("LABEL_0", "LABEL_1"), ("0", "1")])
def test_a_teacher_is_used_as_it_is_whatever_the_form_of_its_labels(
    names: tuple[str, str], world: Path, tmp_path: Path
) -> None:
    checked = check(asked(world, variant(world, tmp_path / "model", named(*names)), tmp_path))
    (line,) = map(str, checked.models)
    assert "is used as it is" in line
    assert "100.0% of 220 sampled rows answered correctly" in line


def test_a_head_in_the_weights_counts_though_config_json_names_no_class_or_another(world: Path, tmp_path: Path) -> None:
    for number, names in enumerate((None, [], ["BertForMaskedLM"], ["BertModel"])):
        model = variant(
            world, tmp_path / f"model{number}", lambda config, names=names: config.update(architectures=names)
        )
        assert "is used as it is" in str(check(asked(world, model, tmp_path)).models[0])
    headless = tmp_path / "headless"
    save_model(load_model(world / "teacher").base_model, tiny_tokenizer(), headless)
    config = json.loads((headless / "config.json").read_text())
    (headless / "config.json").write_text(json.dumps(config | {"architectures": None}))
    assert "it has no classification head" in str(check(asked(world, headless, tmp_path)).models[0])


def test_a_quantized_teacher_is_refused(world: Path, tmp_path: Path) -> None:
    quantized = {"quant_method": "bitsandbytes", "load_in_8bit": True}
    model = variant(world, tmp_path / "model", lambda config: config.update(quantization_config=quantized))
    assert "its weights are quantized. Name the model that it was made from." in refused(asked(world, model, tmp_path))


def test_outputs_in_another_order_are_refused_with_the_order_that_fits(world: Path, tmp_path: Path) -> None:
    model = load_model(world / "teacher")
    nameless = {"id2label": {0: "LABEL_0", 1: "LABEL_1"}, "label2id": {"LABEL_0": 0, "LABEL_1": 1}}
    save_model(with_outputs(model, nameless, [1, 0]), tiny_tokenizer(), tmp_path / "swapped")
    message = refused(asked(world, tmp_path / "swapped", tmp_path))
    assert "answers 0.0% of 220 labelled rows correctly, and would answer 100.0% correctly" in message
    assert "data.labels={LABEL_0: good, LABEL_1: bad}" in message
    mended = files(world, labels={"LABEL_0": "good", "LABEL_1": "bad"})
    (line,) = map(str, check(asked(world, tmp_path / "swapped", tmp_path, mended)).models)
    assert "100.0% of 220 sampled rows" in line
    wrong = files(world, labels={"LABEL_0": "bad", "LABEL_1": "good"})
    assert "despite data.labels" in str(check(asked(world, tmp_path / "swapped", tmp_path, wrong)).models[0])


def test_a_finished_classifier_of_other_labels_is_trained_only_when_told(world: Path, tmp_path: Path) -> None:
    model = variant(world, tmp_path / "model", named("cheap", "dear"))
    message = refused(asked(world, model, tmp_path))
    assert "finished head that was trained on other labels (cheap, dear)" in message
    assert "Map its labels to the data's (data.labels=" in message
    assert "teacher.fine_tune=always" in message
    (line,) = map(str, check(asked(world, model, tmp_path, fine_tune=FineTune.always)).models)
    assert "is trained, because teacher.fine_tune = always" in line


def test_a_model_without_a_head_is_trained_and_it_is_said_why(world: Path, tmp_path: Path) -> None:
    (line,) = map(str, check(asked(world, world / "untrained", tmp_path)).models)
    assert line == f"teacher: {world / 'untrained'} is trained, because it has no classification head"


@torch.no_grad()
def test_a_head_that_is_trained_anew_starts_from_its_rows_by_name(world: Path, tmp_path: Path) -> None:
    model = load_model(world / "teacher")
    swap = {"id2label": {0: "Good", 1: "bad"}, "label2id": {"Good": 0, "bad": 1}}
    save_model(with_outputs(model, swap, [1, 0]), tiny_tokenizer(), tmp_path / "swapped")
    data = files(world).load("auto", 1)
    teacher = Teacher(model=str(tmp_path / "swapped"), fine_tune=FineTune.always, max_tokens=32)
    (member,) = teacher.looked_at(data)
    batch = tokenize(data.validation, tiny_tokenizer(), 32).batch([0, 1, 2])
    started = observe(teacher.classifier(member, data), batch).logits
    torch.testing.assert_close(started, observe(model, batch).logits, rtol=0, atol=0)


def test_classes_that_the_rows_lack_stay(world: Path, tmp_path: Path) -> None:
    model = load_model(world / "teacher")
    names = ("good", "mixed", "bad")
    head = {"id2label": dict(enumerate(names)), "label2id": {n: i for i, n in enumerate(names)}, "num_labels": 3}
    wide = with_outputs(model, head, [1, None, 0], zero=True)
    with torch.no_grad():
        wide.classifier.bias[1] = -20  # never answered
    save_model(wide, tiny_tokenizer(), tmp_path / "wide")
    before = State.begin(data=files(world).load("auto", 1), workshop=Workshop(tmp_path / "cache"), seed=1)
    after = Teacher(model=str(tmp_path / "wide"), max_tokens=32)(before)
    assert after.data.task.head_config()["label2id"] == {"good": 0, "mixed": 1, "bad": 2}
    assert after.records[-1].notes[-1] == "classes without rows, kept: mixed"
    logits = np.eye(3)[after.data.test.known_labels]
    assert after.data.task.metrics(logits, after.data.test.known_labels)["macro_f1"] == 1


def test_a_class_that_only_measured_rows_have_needs_a_teacher_that_knows_it(world: Path, tmp_path: Path) -> None:
    rows = [row for row in reviews(160, 1) if row[0] == "bad"] + [("fair", "the film")] * 9
    one_class = write_tsv(tmp_path / "train.tsv", rows)
    data = files(world, train=str(one_class))
    message = refused(asked(world, world / "untrained", tmp_path, data))
    assert "validation.tsv, line" in message
    assert "the label 'good' does not occur in the training rows. Known: bad, fair." in message
    model = load_model(world / "teacher")
    names = ("bad", "good", "fair")
    head = {"id2label": dict(enumerate(names)), "label2id": {n: i for i, n in enumerate(names)}, "num_labels": 3}
    save_model(with_outputs(model, head, [0, 1, None], zero=True), tiny_tokenizer(), tmp_path / "wide")
    assert "is used as it is" in str(check(asked(world, tmp_path / "wide", tmp_path, data)).models[0])


@torch.no_grad()
def test_one_logit_trained_by_binary_cross_entropy_is_a_teacher_of_two_classes(world: Path, tmp_path: Path) -> None:
    model = load_model(world / "teacher")
    single = with_outputs(model, {"num_labels": 1, "problem_type": "multi_label_classification"}, [1])
    weight, bias = model.classifier.weight, model.classifier.bias
    single.classifier.weight.copy_((weight[1] - weight[0])[None])
    single.classifier.bias.copy_((bias[1] - bias[0])[None])
    save_model(single, tiny_tokenizer(), tmp_path / "single")
    (line,) = map(str, check(asked(world, tmp_path / "single", tmp_path)).models)
    assert "its single output is the logit of good against bad; 100.0% of 220 sampled rows" in line
    before = State.begin(data=files(world).load("auto", 1), workshop=Workshop(tmp_path / "cache"), seed=1)
    after = Teacher(model=str(tmp_path / "single"), max_tokens=32)(before)
    batch = tokenize(before.data.validation, tiny_tokenizer(), 32).batch([0, 1, 2])
    two = observe(load_model(after.given_teacher.folder), batch).logits.softmax(-1)
    torch.testing.assert_close(two, observe(model, batch).logits.softmax(-1))


@pytest.mark.parametrize(
    ("problem_type", "rule"),
    [
        ("multi_label_classification", "was trained for multi label classification, not for one label per row"),
        ("regression", "was trained for scores, not for classes (task=regression is its task)"),
    ],
)
def test_a_head_of_another_task_is_refused_without_advice_to_map_its_labels(
    problem_type: str, rule: str, world: Path, tmp_path: Path
) -> None:
    model = variant(world, tmp_path / "model", named("bad", "good", problem_type=problem_type))
    message = refused(asked(world, model, tmp_path))
    assert f"has a finished head that {rule}" in message
    assert "Name a teacher of the data's task" in message
    assert "data.labels" not in message


def test_weights_that_are_not_finite_are_refused(world: Path, tmp_path: Path) -> None:
    model = variant(world, tmp_path / "model")
    weights = load_file(model / "model.safetensors")
    weights["classifier.bias"][0] = torch.nan
    save_file(weights, model / "model.safetensors", metadata={"format": "pt"})
    assert "not finite" in refused(asked(world, model, tmp_path))


def test_a_head_without_names_that_knows_nothing_is_refused(world: Path, tmp_path: Path) -> None:
    save_tiny(tmp_path / "random", seed=5, num_labels=2)
    message = refused(asked(world, tmp_path / "random", tmp_path))
    assert "as chance would" in message


def test_a_saved_student_in_another_order_answers_in_the_teachers(world: Path, tmp_path: Path) -> None:
    swap = {"id2label": {0: "good", 1: "bad"}, "label2id": {"good": 0, "bad": 1}}
    save_model(with_outputs(load_model(world / "teacher"), swap, [1, 0]), tiny_tokenizer(), tmp_path / "student")
    before = State.begin(data=files(world).load("auto", 1), workshop=Workshop(tmp_path / "cache"), seed=1)
    taught = Teacher(model=str(world / "teacher"), max_tokens=32)(before)
    student = Saved(model=str(tmp_path / "student"))(taught).given_student
    batch = tokenize(before.data.validation, tiny_tokenizer(), 32).batch([0, 1, 2])
    with torch.no_grad():
        answers = [observe(load_model(folder), batch).logits for folder in (student.folder, world / "teacher")]
    torch.testing.assert_close(*answers, rtol=0, atol=0)


@torch.no_grad()
def test_scores_on_another_scale_are_refused(world: Path, tmp_path: Path) -> None:
    labels = (4.0 * (label == "good") + index % 5 / 10 for index, (label, _) in enumerate(reviews(160, 1)))
    scored = [(str(score), text) for score, (_, text) in zip(labels, reviews(160, 1), strict=True)]
    path = write_tsv(tmp_path / "train.tsv", scored)
    data = Files(train=str(path), validation_share=0.4)
    model = load_model(world / "teacher")
    scores = with_outputs(model, {"num_labels": 1, "problem_type": "regression"}, [1])
    weight, bias = model.classifier.weight, model.classifier.bias
    scores.classifier.weight.copy_((weight[1] - weight[0])[None] / 100)
    scores.classifier.bias.copy_((bias[1] - bias[0])[None] / 100)
    save_model(scores, tiny_tokenizer(), tmp_path / "small")
    wanted = replace(
        asked(world, tmp_path / "small", tmp_path, data), task=TaskChoice(kind="regression"),
        distill=replace(asked(world, world, tmp_path).distill, losses={"mse": LogitsMSE()}),
    )  # fmt: skip
    with pytest.raises(CompressError, match="another scale"):
        check(wanted)


def test_the_best_order_changes_nothing_that_need_not_change() -> None:
    labels = np.array([0, 1, 2, 0, 1, 2])
    assert best_order(labels, labels, 4).tolist() == [0, 1, 2, 3]
    assert best_order(np.array([1, 2, 0, 1, 2, 0]), labels, 4).tolist() == [2, 0, 1, 3]


@pytest.mark.parametrize("names", [("good", "bad"), ("plum", "fig")])  # the first says the reverse of the weights
def test_a_classifier_whose_labels_are_mapped_is_exported_in_the_datas_words(
    names: tuple[str, str], world: Path, tmp_path: Path
) -> None:
    model = variant(world, tmp_path / "model", named(*names))
    mapped = files(world, labels=dict(zip(names, ("bad", "good"), strict=True)))
    wanted = asked(world, model, tmp_path, mapped, fine_tune=FineTune.never)
    student = Saved(model=str(model))
    wanted = replace(wanted, student=student, distill=replace(wanted.distill, epochs=0))
    assert wanted.alone
    assert "100.0% of 220 sampled rows" in str(check(wanted).models[0])
    data = mapped.load("auto", 1)
    after = student(State.begin(data=data, workshop=Workshop(tmp_path / "cache"), seed=1))
    assert after.data.task.head_config()["label2id"] == {"bad": 0, "good": 1}
    batch = tokenize(data.test, tiny_tokenizer(), 32).batch([0, 1, 2])
    with torch.no_grad():
        answers = [observe(load_model(folder), batch).logits for folder in (after.given_student.folder, model)]
    torch.testing.assert_close(*answers, rtol=0, atol=0)


def test_what_is_advised_for_labels_that_no_word_can_hold_goes_into_a_recipe_file(world: Path, tmp_path: Path) -> None:
    rows = {split: [(f"{label}, really", text) for label, text in reviews(count, seed)]
            for split, count, seed in (("train", 160, 1), ("validation", 60, 2), ("test", 40, 3))}  # fmt: skip
    data = Files(**{name: str(write_tsv(tmp_path / f"{name}.tsv", own)) for name, own in rows.items()})
    nameless = {"id2label": {0: "LABEL_0", 1: "LABEL_1"}, "label2id": {"LABEL_0": 0, "LABEL_1": 1}}
    save_model(with_outputs(load_model(world / "teacher"), nameless, [1, 0]), tiny_tokenizer(), tmp_path / "swapped")
    message = refused(asked(world, tmp_path / "swapped", tmp_path, data))
    assert 'data: {labels: {"LABEL_0": "good, really", "LABEL_1": "bad, really"}}' in message


def test_a_map_that_fits_nothing_is_refused_also_for_a_model_that_is_trained(world: Path, tmp_path: Path) -> None:
    wrong = files(world, labels={"fair": "bad"})
    assert "has no label 'fair'" in refused(asked(world, world / "teacher", tmp_path, wrong, fine_tune=FineTune.always))
    assert "has no classification head" in refused(asked(world, world / "untrained", tmp_path, wrong))


def test_each_member_takes_its_own_part_of_a_map(world: Path, tmp_path: Path) -> None:
    nameless = {"id2label": {0: "LABEL_0", 1: "LABEL_1"}, "label2id": {"LABEL_0": 0, "LABEL_1": 1}}
    save_model(with_outputs(load_model(world / "teacher"), nameless, [1, 0]), tiny_tokenizer(), tmp_path / "swapped")
    data = files(world, labels={"LABEL_0": "good", "LABEL_1": "bad"})
    wanted = asked(world, tmp_path / "swapped", tmp_path, data, members=[str(world / "teacher")])
    assert all("100.0% of 220 sampled rows" in str(model) for model in check(wanted).models)
    before = State.begin(data=data.load("auto", 1), workshop=Workshop(tmp_path / "cache"), seed=1)
    joined = wanted.teacher(before)
    tokens = tokenize(joined.data.test, tiny_tokenizer(), 32)
    logits = predict_rows(load_model(joined.given_teacher.folder), tokens)
    assert joined.data.task.metrics(logits, joined.data.test.known_labels)["accuracy"] == 1
    unknown = files(world, labels={"LABEL_7": "good"})
    assert "no member of the teacher has a label 'LABEL_7'" in refused(
        asked(world, tmp_path / "swapped", tmp_path, unknown, members=[str(world / "teacher")])
    )


def test_an_ensemble_is_no_student(world: Path, tmp_path: Path) -> None:
    before = State.begin(data=files(world).load("auto", 1), workshop=Workshop(tmp_path / "cache"), seed=1)
    again = variant(world, tmp_path / "again")
    teacher = Teacher(model=str(world / "teacher"), members=[str(again)], max_tokens=32)
    joined = teacher(before).given_teacher.folder
    wanted = replace(asked(world, world / "teacher", tmp_path), student=Saved(model=str(joined)))
    assert "is an ensemble, but a student is a single model" in refused(wanted)
