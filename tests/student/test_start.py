"""What a student's weights start from, and what is refused."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import ConvBertConfig, ConvBertForSequenceClassification, PreTrainedModel

from compress.data.dataset import Dataset, Split
from compress.distill.losses import AttentionScores, HardLabels, HiddenStates, Relations, SoftTargets
from compress.distill.stage import Distill
from compress.errors import RecipeError
from compress.families.registry import FAMILIES, family_of
from compress.known import Known
from compress.models.loading import load_model, load_tokenizer, quiet, save_model
from compress.pipeline.model import Model
from compress.pipeline.rewrite import PROJECTIONS
from compress.pipeline.state import State
from compress.pipeline.workshop import Workshop
from compress.run.check import check
from compress.student.bert import Bert
from compress.student.layer_map import layer_pairs
from compress.student.start import name_faults
from compress.tasks.classification import Classification
from compress.teachers.model import FineTune
from tests.conftest import EVERY_FAMILY, VOCABULARY, reviews, save_tiny, tiny_model, tiny_tokenizer
from tests.run.test_recipe import recipe

HEAD = {"id2label": {0: "bad", 1: "good"}, "label2id": {"bad": 0, "good": 1}}


def a_state(folder: Path, family: str = "bert", pretrained: str | None = None) -> State:
    """Return a state with a teacher that knows the labels, saved in ``folder``."""
    teacher = tiny_model(family, **HEAD)
    save_model(teacher, tiny_tokenizer(family), folder / "teacher")
    rows = reviews(8, 0)
    split = Split(tuple(text for _, text in rows), None, np.zeros(8, dtype=np.int64))
    data = Dataset("made up", Classification(("bad", "good")), split, split, split)
    (folder / "cache").mkdir(exist_ok=True)
    shop = Workshop(folder / "cache")
    return State.begin(data, shop, 3, teacher=Model(folder / "teacher", "teacher"), pretrained=pretrained)


def started(state: State, student: Bert) -> PreTrainedModel:
    return load_model(student(state).given_student.folder)


def same(a: torch.nn.Module, b: torch.nn.Module) -> bool:
    return all(torch.equal(x, y) for x, y in zip(a.parameters(), b.parameters(), strict=True))


@pytest.mark.parametrize("family", EVERY_FAMILY)
def test_pretrained_is_what_the_teacher_was_before_with_a_head_of_its_own(family: str, tmp_path: Path) -> None:
    origin = save_tiny(tmp_path / "pretrained", family, seed=9)
    state = a_state(tmp_path, family, str(origin))
    student = started(state, Bert(layers=2, layer_map=[1, 4], start="pretrained"))
    before, teacher = load_model(origin), load_model(state.given_teacher.folder)
    theirs, ours = (FAMILIES[family].layers(model) for model in (before, student))
    assert same(ours[0], theirs[0])
    assert same(ours[1], theirs[3])
    assert same(student.base_model.embeddings, before.base_model.embeddings)
    assert not same(student.classifier, teacher.classifier)
    assert not same(student.classifier, before.classifier)
    assert student.config.id2label == {0: "bad", 1: "good"}


@pytest.mark.parametrize("family", EVERY_FAMILY)
def test_a_folder_gives_each_layer_its_own_and_a_head_for_the_same_labels(family: str, tmp_path: Path) -> None:
    state = a_state(tmp_path, family)
    earlier = Bert(layers=2, start="random").build(tiny_model(family, **HEAD))
    save_model(earlier, tiny_tokenizer(family), tmp_path / "earlier")
    assert same(started(state, Bert(layers=2, start=str(tmp_path / "earlier"))), earlier)


def test_a_head_for_other_labels_is_not_taken_over(tmp_path: Path) -> None:
    state = a_state(tmp_path)
    turned = tiny_model(seed=5, id2label={0: "good", 1: "bad"}, label2id={"good": 0, "bad": 1})
    save_model(turned, tiny_tokenizer(), tmp_path / "turned")
    student = started(state, Bert(layers="all", start=str(tmp_path / "turned")))
    assert same(student.base_model, turned.base_model)
    assert not same(student.classifier, turned.classifier)
    assert student.config.id2label == {0: "bad", 1: "good"}


def test_a_deeper_folder_gives_the_layers_that_the_map_names(tmp_path: Path) -> None:
    state, deep = a_state(tmp_path), save_tiny(tmp_path / "deep", seed=7)
    student = started(state, Bert(layers=2, layer_map="last", start=str(deep)))
    theirs, ours = (FAMILIES["bert"].layers(model) for model in (load_model(deep), student))
    assert same(ours[0], theirs[2])
    assert same(ours[1], theirs[3])


def test_a_random_start_depends_on_the_seed_alone(tmp_path: Path) -> None:
    state, student = a_state(tmp_path), Bert(layers=2, start="random")
    first, other = started(state, student), started(state.with_seed(4), student)
    again = started(replace(state, context=replace(state.context, workshop=Workshop(tmp_path))), student)
    assert same(first, again)
    assert not same(first.classifier, other.classifier)


def test_what_is_in_the_folder_counts_and_not_its_name(tmp_path: Path) -> None:
    state = a_state(tmp_path)
    single, copy = save_tiny(tmp_path / "one", seed=7), save_tiny(tmp_path / "copy", seed=7)
    keys = [Bert(layers="all", start=str(folder))(state).given_student.key for folder in (single, copy)]
    assert keys[0] == keys[1]
    save_model(tiny_model(seed=8).base_model, tiny_tokenizer(), copy)
    assert Bert(layers="all", start=str(copy))(state).given_student.key != keys[0]
    origins = [replace(state, pretrained=str(folder)) for folder in (single, copy)]
    assert len({Bert(start="pretrained")(given).given_student.key for given in origins}) == 2


@pytest.mark.parametrize(("start", "fine"), [("teacher", True), ("random", True), ("tecaher", False), ("", False)])
def test_words_are_read_and_misspellings_told(start: str, fine: bool) -> None:
    assert (not list(name_faults(start))) is fine
    assert [fault.setting for fault in Bert(start=start).faults()] == ([] if fine else ["start"])


def test_a_start_that_is_no_folder_is_told_with_the_nearest_one(tmp_path: Path) -> None:
    (tmp_path / "students" / "small").mkdir(parents=True)
    (fault,) = name_faults(str(tmp_path / "students" / "smal"))
    assert (fault.rule, fault.remedy) == ("there is no such folder", f"Did you mean {tmp_path}/students/small?")
    (tmp_path / "students" / "file").touch()
    (fault,) = name_faults(str(tmp_path / "students" / "file"))
    assert fault.rule == "is a file, not a folder"
    assert not list(name_faults(str(tmp_path / "students" / "small")))
    assert not list(name_faults("owner/model"))
    assert [fault.setting for fault in name_faults("model/")] == ["start"]


@pytest.mark.parametrize(("layers", "faults"), [("all", []), ("many", ["layers"]), (0, ["layers"]), (None, [])])
def test_layers_are_a_number_or_all(layers: Any, faults: list[str]) -> None:
    assert [fault.setting for fault in Bert(layers=layers).faults()] == faults
    if layers == "all":
        assert Bert(layers=layers).config(tiny_model().config).num_hidden_layers == 4


def other_family(folder: Path) -> Path:
    return save_tiny(folder / "other", "roberta")


def fewer_layers(folder: Path) -> Path:
    save_model(Bert(layers=1).build(tiny_model()), tiny_tokenizer(), folder / "shallow")
    return folder / "shallow"


def narrower(folder: Path) -> Path:
    save_model(Bert(layers=2, intermediate_size=12).build(tiny_model()), tiny_tokenizer(), folder / "narrow")
    return folder / "narrow"


def other_heads(folder: Path) -> Path:
    save_model(Bert(layers=2, heads=2).build(tiny_model()), tiny_tokenizer(), folder / "heads")
    return folder / "heads"


def other_vocabulary(folder: Path) -> Path:
    place = save_tiny(folder / "words")
    told = json.loads((place / "tokenizer.json").read_text())
    numbers = told["model"]["vocab"]
    numbers["good"], numbers["bad"] = numbers["bad"], numbers["good"]
    (place / "tokenizer.json").write_text(json.dumps(told))
    return place


def no_weights(folder: Path) -> Path:
    place = save_tiny(folder / "empty")
    (place / "model.safetensors").unlink()
    return place


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda folder: folder / "nowhere", ["student.start", "there is no such folder"]),
        (fewer_layers, ["has fewer layers, 1, than the student, 2"]),
        (
            narrower,
            ["intermediate.dense.weight is 12 × 16, the student's 32 × 16"],
        ),
        (other_heads, ["has 2 heads per layer, where the student has 4"]),
        (no_weights, ["has no weights"]),
    ],
)
def test_a_folder_that_cannot_give_the_weights_is_refused_before_any_work(
    make: Any, words: list[str], files: dict[str, Path], teacher_folder: Path, tmp_path: Path
) -> None:
    wrong = recipe(files, teacher_folder, tmp_path, student=Bert(layers=2, start=str(make(tmp_path))))
    with pytest.raises(RecipeError) as told:
        wrong.run()
    for word in words:
        assert word in str(told.value)
    assert [fault.setting for fault in told.value.faults] == ["student.start"]
    assert not (tmp_path / "cache").exists()


@pytest.mark.parametrize("make", [other_family, other_vocabulary])
def test_a_folder_with_other_tokens_gives_its_own_shapes_tokenizer_and_layers(make: Any, tmp_path: Path) -> None:
    state, place = a_state(tmp_path), make(tmp_path)
    student = Bert(layers=2, start=str(place))
    made = student(state).given_student
    model, source = load_model(made.folder), load_model(place, head=HEAD)
    assert type(model.config) is type(source.config)
    assert model.config.own_tokens
    assert same(model.base_model.embeddings, source.base_model.embeddings)
    layers, origins = (FAMILIES[part.config.model_type].layers(part) for part in (model, source))
    assert all(same(ours, origins[theirs - 1]) for ours, theirs in zip(layers, (2, 4), strict=True))
    own, theirs = (load_tokenizer(folder) for folder in (made.folder, place))
    assert own.get_vocab() == theirs.get_vocab()
    assert own.model_max_length == 32  # the teacher's
    assert [pair[1] for pair in layer_pairs(None, model.config, tiny_model().config)] == [2, 4]
    losses = {"soft": SoftTargets(), "hidden": HiddenStates(), "relations": Relations()}
    known = Known(student=model.config, teacher=load_model(state.given_teacher.folder).config, task=state.data.task)
    assert not list(Distill(losses=losses).faults(known))
    (fault,) = Distill(losses={**losses, "attention": AttentionScores()}).faults(known)
    assert "compares attention token by token, and the student has a tokenizer of its own" in str(fault)
    trained = Distill(losses=losses, epochs=1, batch_size=4).train(state, made)
    by_words = any("layers are compared by words" in note for note in trained.record["notes"])
    assert by_words == (make is other_vocabulary)  # the other one cuts texts as the teacher does
    assert (trained.folder / PROJECTIONS).is_file()  # of one width, but nothing says that their channels agree
    assert not same(load_model(trained.folder), model)


def test_an_encoder_learns_the_answers_of_a_teacher_whose_layers_are_not_known_and_whose_tokens_it_reads(
    files: dict[str, Path], tmp_path: Path
) -> None:
    sizes = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 32}
    with quiet():
        config = ConvBertConfig(
            **sizes, vocab_size=len(VOCABULARY), embedding_size=16, max_position_embeddings=64, **HEAD
        )
        teacher = ConvBertForSequenceClassification(config)
    save_model(teacher, tiny_tokenizer(), tmp_path / "teacher")
    student = Bert(layers=2, start=str(save_tiny(tmp_path / "start")))
    answers = Distill(losses={"soft": SoftTargets(), "hard": HardLabels()}, epochs=1, batch_size=16)
    state = recipe(files, tmp_path / "teacher", tmp_path, student=student, distill=answers).run().state
    assert family_of(load_model(state.given_student.folder).config) is FAMILIES["bert"]


def test_pretrained_needs_a_teacher_that_is_trained_here(files: dict[str, Path], tmp_path: Path) -> None:
    teacher = save_tiny(tmp_path / "trained", **HEAD)
    asked = recipe(files, teacher, tmp_path, student=Bert(layers=2, start="pretrained"))
    with pytest.raises(RecipeError, match=r"student\.start = 'pretrained': is not known: the teacher has its head"):
        check(asked)
    asked.teacher.fine_tune = FineTune.always
    check(asked)
