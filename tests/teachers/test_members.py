"""Several teachers as one in a recipe: who they are, in which order they number labels, what is made again."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from compress.data import Files
from compress.distill.losses import AttentionScores, HardLabels, HiddenStates, LogitsMSE, SoftTargets
from compress.distill.stage import Distill
from compress.distill.theseus import Theseus
from compress.errors import RecipeError
from compress.models.loading import load_model, save_model
from compress.models.outputs import observe
from compress.models.tokens import tokenize
from compress.pipeline.state import State
from compress.pipeline.workshop import Workshop
from compress.run.recipe import Recipe
from compress.student.bert import Bert
from compress.teachers.members import Combine
from compress.teachers.model import FineTune, Teacher
from tests.conftest import VOCABULARY, reviews, save_tiny, tiny_model, tiny_tokenizer, write_tsv
from tests.run.test_recipe import made, recipe, report

GOOD_FIRST = {"id2label": {0: "good", 1: "bad"}, "label2id": {"good": 0, "bad": 1}}
BAD_FIRST = {"id2label": {0: "bad", 1: "good"}, "label2id": {"bad": 0, "good": 1}}
NAMELESS = {"num_labels": 2}


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Files, an encoder without a head, and three models that know the labels, each numbering them its own way."""
    folder = tmp_path_factory.mktemp("members")
    for name, rows, seed in (("train", 96, 1), ("validation", 24, 2), ("test", 32, 3)):
        write_tsv(folder / f"{name}.tsv", reviews(rows, seed))
    save_tiny(folder / "teacher")
    for number, settings in enumerate((GOOD_FIRST, BAD_FIRST, NAMELESS), start=1):
        save_tiny(folder / f"known{number}", seed=number, **settings)
    save_tiny(folder / "electra", family="electra", seed=4, **BAD_FIRST)
    return folder


def state(world: Path, cache: Path) -> State:
    files = {name: str(world / f"{name}.tsv") for name in ("train", "validation", "test")}
    return State.begin(data=Files(**files).load("auto", 1), workshop=Workshop(cache), seed=1)


def known(world: Path, **settings: Any) -> Teacher:
    names = [str(world / name) for name in ("known1", "known2", "known3")]
    return Teacher(**({"model": names[0], "members": names[1:], "max_tokens": 32} | settings))


@pytest.mark.parametrize("chosen", [1, 2, 3])
@torch.no_grad()
def test_labels_are_put_into_the_chosen_members_order(chosen: int, world: Path, tmp_path: Path) -> None:
    before = state(world, tmp_path)
    after = known(world, chosen=chosen)(before)
    labels = after.data.task.head_config()["label2id"]
    assert list(labels) == (["good", "bad"] if chosen == 1 else ["bad", "good"])
    words = [{0: "bad", 1: "good"}[label] for label in before.data.train.known_labels.tolist()]
    assert after.data.train.known_labels.tolist() == [labels[word] for word in words]
    model = load_model(after.given_teacher.folder)
    batch = tokenize(after.data.train, tiny_tokenizer(), 32).batch([0, 1, 2, 3])
    good = [observe(load_model(world / f"known{n}"), batch).logits.softmax(-1) for n in (1, 2, 3)]
    mean = (good[0][:, 0] + good[1][:, 1] + good[2][:, 1]) / 3  # LABEL_0 is the first word by the alphabet
    torch.testing.assert_close(observe(model, batch).logits.softmax(-1)[:, labels["good"]], mean)
    assert model.config.label2id == labels
    assert any("LABEL_0" in note for note in after.records[-1].notes)


def test_a_student_of_an_ensemble_is_of_its_chosen_member(world: Path, tmp_path: Path) -> None:
    teacher = known(world, members=[str(world / "electra")], chosen=2)
    after = Bert(layers=4)(teacher(state(world, tmp_path)))
    student, member = load_model(after.given_student.folder), load_model(world / "electra")
    ours, theirs = student.state_dict(), member.state_dict()
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


def test_modules_are_replaced_in_the_chosen_member(world: Path, tmp_path: Path) -> None:
    after = Bert(layers=2)(known(world, chosen=2)(state(world, tmp_path)))
    trained = load_model(Theseus(epochs=1, batch_size=16)(after).given_student.folder)
    member = load_model(world / "known2").state_dict()
    shared = [name for name in trained.state_dict() if ".layer." not in name]
    assert shared
    assert all(torch.equal(trained.state_dict()[name], member[name]) for name in shared)


def test_its_notes_say_how_each_member_does_on_validation_rows(world: Path, tmp_path: Path) -> None:
    after = known(world)(state(world, tmp_path))
    notes = after.records[-1].notes
    assert notes[0].startswith("the mean of 3 members (probabilities), 0.")
    assert [note.partition(":")[0] for note in notes[1:4]] == ["member 1", "member 2", "member 3"]
    assert all("validation accuracy" in note for note in notes[:4])


def copies(world: Path, folder: Path, **changes: Any) -> Recipe:
    """Return a recipe of seconds with fine-tuned copies."""
    files = {name: world / f"{name}.tsv" for name in ("train", "validation", "test")}
    given = recipe(files, world / "teacher", folder, prune={}, quantize={}, export={})
    teacher = replace(given.teacher, epochs=1, **({"copies": 2} | changes))
    benchmark = replace(given.benchmark, tfidf=False, labels_only=False)
    losses = {"soft": SoftTargets(), "hidden": HiddenStates(), "attention": AttentionScores(weight=0.1)}
    return replace(given, teacher=teacher, benchmark=benchmark, distill=replace(given.distill, losses=losses))


def kinds(names: set[str]) -> list[str]:
    return sorted(name.rpartition("-")[0] for name in names if not name.startswith(("logits", "latency")))


def test_copies_go_through_the_whole_chain_and_nothing_is_made_twice(world: Path, tmp_path: Path) -> None:
    copies(world, tmp_path).run()
    facts, first = report(tmp_path), made(tmp_path)
    assert [stage["name"] for stage in facts["stages"]] == ["teacher", "distill"]
    teacher = load_model(tmp_path / "run" / "stages" / "00-teacher")
    assert teacher.config.model_type == "compress_ensemble"
    assert facts["stages"][0]["parameters"] == sum(p.numel() for p in teacher.parameters())
    assert facts["stages"][0]["latency"][0]["median_ms"] > 0
    assert facts["stages"][0]["retained"] == 1
    assert [note.rpartition("seed ")[2][:2] for note in facts["stages"][0]["notes"][1:3]] == ["13", "14"]
    left, second = (member.state_dict() for member in teacher.members)  # type: ignore[union-attr]
    assert not all(torch.equal(left[name], second[name]) for name in left)
    assert kinds(first) == ["distill", "ensemble", "student", "teacher", "teacher", "teacher_outputs"]

    copies(world, tmp_path).run()
    assert made(tmp_path) == first
    assert all(stage["reused"] for stage in report(tmp_path)["stages"])


@pytest.mark.parametrize(
    ("before", "after", "expected"),
    [
        ({"copies": 1}, {"copies": 2}, ["ensemble", "teacher"]),
        ({"copies": 2}, {"copies": 3}, ["ensemble", "teacher"]),
        ({"copies": 2}, {"copies": 2, "combine": Combine.logits, "weights": [1.0, 2.0]}, ["ensemble"]),
        ({"copies": 2}, {"copies": 2, "chosen": 2}, ["ensemble"]),
        ({"copies": 2}, {"copies": 2}, []),
    ],
)
def test_a_change_makes_only_its_member_again(
    before: dict[str, Any], after: dict[str, Any], expected: list[str], world: Path, tmp_path: Path
) -> None:
    teacher = Teacher(model=str(world / "teacher"), epochs=0.5, batch_size=16, max_tokens=32, least_steps=0)
    replace(teacher, **before)(state(world, tmp_path / "cache"))
    first = made(tmp_path)
    replace(teacher, **after)(state(world, tmp_path / "cache"))
    assert kinds(made(tmp_path) - first) == expected


def test_an_encoder_without_a_head_is_fine_tuned_in_the_order_of_the_member_that_is_not(
    world: Path, tmp_path: Path
) -> None:
    teacher = known(world, members=[str(world / "teacher")], epochs=1, batch_size=16, least_steps=0)
    after = teacher(state(world, tmp_path))
    model = load_model(after.given_teacher.folder)
    assert model.config.orders == [[0, 1], [0, 1]]
    assert model.members[1].config.id2label == {0: "good", 1: "bad"}  # type: ignore[union-attr]


def test_scores_are_averaged_through_the_whole_chain(tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    for name, rows in (("train", 60), ("validation", 16), ("test", 24)):
        scored = [(f"{generator.random() * 5:.2f}", text) for _, text in reviews(rows, rows)]
        write_tsv(tmp_path / f"{name}.tsv", scored)
    save_tiny(tmp_path / "teacher")
    losses = {"mse": LogitsMSE(), "hard": HardLabels()}
    distill = Distill(losses=losses, epochs=1, learning_rate=1e-3, batch_size=16)
    replace(copies(tmp_path, tmp_path, weights=[1.0, 3.0]), distill=distill).run()
    assert report(tmp_path)["task"]["kind"] == "regression"
    model = load_model(tmp_path / "run" / "stages" / "00-teacher")
    batch = tokens_of("the good film", "a bad plot")
    with torch.no_grad():
        first, second = (observe(member, batch).logits for member in model.members)  # type: ignore[union-attr, arg-type]
        torch.testing.assert_close(observe(model, batch).logits, (first + 3 * second) / 4)


def tokens_of(*texts: str) -> dict[str, torch.Tensor]:
    encoded: dict[str, torch.Tensor] = dict(tiny_tokenizer()(list(texts), padding=True, return_tensors="pt"))
    return encoded


def test_a_saved_ensemble_can_be_a_teacher_as_it_is_but_not_be_fine_tuned(world: Path, tmp_path: Path) -> None:
    folder = known(world)(state(world, tmp_path)).given_teacher.folder
    after = Teacher(model=str(folder), max_tokens=32)(state(world, tmp_path / "again"))
    batch = tokens_of("the good film")
    with torch.no_grad():
        outputs = [observe(load_model(place), batch).logits for place in (folder, after.given_teacher.folder)]
    assert torch.equal(*outputs)
    assert load_model(Bert(layers=2)(after).given_student.folder).config.model_type == "bert"
    with pytest.raises(Exception, match="is an ensemble, which cannot be fine-tuned"):
        Teacher(model=str(folder), max_tokens=32, fine_tune=FineTune.always)(state(world, tmp_path))


def foreign(world: Path, tmp_path: Path) -> dict[str, Any]:
    """Add a member with other words."""
    tokenizer = tiny_tokenizer()
    model = tokenizer.backend_tokenizer.model
    words = (*VOCABULARY[:-1], "song")
    numbers = {word: number for number, word in enumerate(words)}
    tokenizer.backend_tokenizer.model = type(model)(numbers, unk_token="[UNK]")
    save_model(tiny_model(**BAD_FIRST), tokenizer, tmp_path / "foreign")
    return {"members": [str(tmp_path / "foreign")]}


def other_labels(world: Path, tmp_path: Path) -> dict[str, Any]:
    save_tiny(tmp_path / "other", id2label={0: "yes", 1: "no"}, label2id={"yes": 0, "no": 1})
    return {"members": [str(tmp_path / "other")]}


def short(world: Path, tmp_path: Path) -> dict[str, Any]:
    """Add a member that takes fewer tokens than the longest rows."""
    save_tiny(tmp_path / "short", seed=5, **BAD_FIRST)
    model = load_model(tmp_path / "short")
    positions = model.get_submodule("bert.embeddings.position_embeddings")
    positions.weight = nn.Parameter(positions.weight[:16].detach().clone())
    model.config.max_position_embeddings = 16
    save_model(model, tiny_tokenizer(), tmp_path / "short")
    return {"members": [str(tmp_path / "short")]}


Change = Callable[[Path, Path], dict[str, Any]]
REFUSALS: dict[str, tuple[Change, str, str]] = {
    "weights of one": (lambda *_: {"members": [], "weights": [1.0]}, "teacher.weights", "more than one member"),
    "combine of one": (lambda *_: {"members": [], "combine": Combine.logits}, "teacher.combine", "more than one"),
    "chosen of one": (lambda *_: {"members": [], "chosen": 2}, "teacher.chosen", "must be 1"),
    "too few weights": (lambda *_: {"weights": [1.0, 2.0]}, "teacher.weights", "each of the 3 members"),
    "weight of 0": (lambda *_: {"weights": [1.0, 2.0, 0.0]}, "teacher.weights", "above 0"),
    "infinite weight": (lambda *_: {"weights": [1.0, 2.0, float("inf")]}, "teacher.weights", "above 0"),
    "chosen 0": (lambda *_: {"chosen": 0}, "teacher.chosen", "from 1 to 3"),
    "chosen 4": (lambda *_: {"chosen": 4}, "teacher.chosen", "from 1 to 3"),
    "no copies": (lambda *_: {"members": [], "copies": 0}, "teacher.copies", "at least 1"),
    "copies and members": (lambda *_: {"copies": 2}, "teacher.copies", "cannot be combined with members"),
    "copies that know": (lambda *_: {"members": [], "copies": 2}, "teacher", "knows the task already"),
    "twice": (lambda world, _: {"members": [str(world / "known1")]}, "teacher.members", "twice"),
    "no folder": (lambda *_: {"members": ["./nowhere"]}, "teacher.members", "there is no such folder"),
    "empty": (lambda *_: {"members": [""]}, "teacher.members", "must name"),
    "other labels": (other_labels, "teacher", "was trained on other labels (yes, no)"),
    "other words": (foreign, "teacher", "different tokenizer"),
    "too short": (short, "teacher", "takes at most 16 tokens"),
    "inputs": (lambda world, tmp: {"members": [str(distilbert(tmp))]}, "teacher", "different tokenizer"),
}


def distilbert(folder: Path) -> Path:
    """Save a member with the same words but without token types, which its model does not take."""
    return save_tiny(folder / "distilbert", family="distilbert", **BAD_FIRST)


@pytest.mark.parametrize("name", REFUSALS)
def test_members_that_cannot_answer_as_one_are_refused_before_any_work(name: str, world: Path, tmp_path: Path) -> None:
    change, setting, words = REFUSALS[name]
    given = replace(copies(world, tmp_path), teacher=known(world, **change(world, tmp_path)))
    with pytest.raises(RecipeError) as told:
        given.run()
    assert any(fault.setting == setting and words in str(fault) for fault in told.value.faults), told.value
    assert not (tmp_path / "cache").exists()


def test_confidence_in_scores_is_refused(tmp_path: Path) -> None:
    for name, rows in (("train", 60), ("validation", 16), ("test", 24)):
        write_tsv(tmp_path / f"{name}.tsv", [(f"{n / 7:.2f}", text) for n, (_, text) in enumerate(reviews(rows, rows))])
    save_tiny(tmp_path / "teacher")
    distill = Distill(losses={"mse": LogitsMSE()})
    with pytest.raises(RecipeError, match=r"teacher\.combine = confidence: the labels are scores"):
        replace(copies(tmp_path, tmp_path, combine=Combine.confidence), distill=distill).run()
