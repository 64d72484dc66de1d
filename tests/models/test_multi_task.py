"""One encoder, a head a task: each head answers with the shared encoder, from one folder."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from transformers import AutoConfig, AutoModelForSequenceClassification

from compress.distill.heads import with_auto
from compress.families.forms.uneven import shrink
from compress.families.registry import family_of
from compress.models.loading import load_model, quiet, save_model
from compress.models.multi_task import (
    MultiTaskForSequenceClassification,
    classifier_of,
    config_with_heads,
    with_heads,
)
from compress.models.outputs import observe, parameters
from compress.models.quantities import HIDDEN, SCORES
from compress.tasks.classification import Classification
from compress.tasks.heads import HEAD, MARK, NULL_THRESHOLD, THRESHOLDS
from compress.tasks.multi_label import MultiLabel
from compress.tasks.ranking import Ranking
from compress.tasks.registry import task_of_config
from compress.tasks.regression import Regression
from compress.tasks.spans import AnswerSpans
from compress.tasks.tags import Tags
from compress.tasks.vectors import SentenceVectors
from tests.conftest import EVERY_FAMILY, FAMILY_NAMES, tiny_batch, tiny_model, tiny_tokenizer
from tests.fresh import run_fresh

TASKS = {
    "main": Classification(("bad", "good")),
    "topic-3": Classification(("film", "music", "other")),
    "score": Regression(0.0, 5.0),
}
HEADS = {name: task.head_config() for name, task in TASKS.items()}


def several(family: str = "bert") -> MultiTaskForSequenceClassification:
    return with_heads(tiny_model(family), HEADS, "main")


@pytest.mark.parametrize("family", EVERY_FAMILY)
@torch.no_grad()
def test_the_main_task_is_answered_as_by_the_student_and_others_by_their_own_heads(family: str) -> None:
    student, batch = tiny_model(family), tiny_batch(family=family)
    model = several(family)
    own, seen = observe(student, batch, HIDDEN), observe(model, batch, HIDDEN)
    assert torch.equal(own.logits, seen.logits)
    assert all(torch.equal(own[HIDDEN][layer], seen[HIDDEN][layer]) for layer in own[HIDDEN])
    for name, outputs in (("topic-3", 3), ("score", 1)):
        with model.answering(name):
            assert observe(model, batch).logits.shape == (3, outputs)
            assert task_of_config(model.config) == TASKS[name]
    assert torch.equal(observe(model, batch).logits, own.logits)


@pytest.mark.parametrize("family", EVERY_FAMILY)
@torch.no_grad()
def test_a_head_taken_out_is_a_stock_classifier_that_says_the_same(family: str) -> None:
    model, batch = several(family), tiny_batch(family=family)
    for name, task in TASKS.items():
        alone = classifier_of(model, name)
        assert type(alone) is type(tiny_model(family))
        with model.answering(name):
            assert torch.equal(observe(alone, batch).logits, observe(model, batch).logits)
        assert alone.config.num_labels == task.outputs
    assert parameters(classifier_of(model, "main")) == parameters(tiny_model(family))


def test_the_encoder_is_there_once_and_all_heads_train_it() -> None:
    model, batch = several(), tiny_batch()
    encoder = parameters(tiny_model().base_model)
    assert parameters(model) == encoder + (2 + 3 + 1) * 17
    assert len({name.partition(".")[0] for name in model.state_dict()}) == 2
    for name in TASKS:
        model.zero_grad()
        observe(model.head(name), batch).logits.sum().backward()
        assert model.encoder.get_input_embeddings().weight.grad.abs().sum() > 0  # type: ignore[union-attr, operator]
        trained = [other for other in TASKS if any(p.grad is not None for p in model.head(other).parameters())]
        assert trained == [name]


def test_training_mode_reaches_the_encoder() -> None:
    model = several()
    model.train()
    assert model.encoder.training
    model.eval()
    assert not model.encoder.training


@torch.no_grad()
def test_layers_can_be_observed_and_attention_is_put_back() -> None:
    model, batch = several(), tiny_batch()
    before = observe(model, batch).logits
    with quiet():
        seen = observe(model, batch, SCORES)
    expected = observe(tiny_model(), batch, SCORES)
    assert all(torch.equal(seen[SCORES][layer], expected[SCORES][layer]) for layer in expected[SCORES])
    assert torch.equal(observe(model, batch).logits, before)
    assert len(family_of(model.config).layers(model)) == 4


@torch.no_grad()
def test_a_pruned_student_can_share_its_encoder() -> None:
    pruned, batch = shrink(tiny_model(), heads=[[0, 2], [1], [0, 1, 2, 3], [3]], layers=[0, 1, 3]), tiny_batch()
    model = with_heads(pruned, HEADS, "main")
    assert torch.equal(observe(model, batch).logits, observe(pruned, batch).logits)
    assert classifier_of(model, "score").config.model_type == "compress_bert"


@torch.no_grad()
def test_every_head_reloads_to_the_bit_in_a_fresh_process(tmp_path: Path) -> None:
    for family in FAMILY_NAMES:
        model, batch = several(family), tiny_batch(family=family)
        save_model(model, tiny_tokenizer(family), tmp_path / family)
        logits = {}
        for name in TASKS:
            with model.answering(name):
                logits[name] = observe(model, batch).logits
        torch.save({"batch": batch, "weights": model.state_dict(), "logits": logits}, tmp_path / family / "said.pt")
    code = (
        "import sys, pathlib, torch, compress\n"
        "from transformers import AutoModelForSequenceClassification as Auto\n"
        "for folder in pathlib.Path(sys.argv[1]).iterdir():\n"
        "    said = torch.load(folder / 'said.pt')\n"
        "    inputs = {k: v for k, v in said['batch'].items() if k != 'labels'}\n"
        "    default = Auto.from_pretrained(folder).eval()\n"
        "    for name, expected in said['logits'].items():\n"
        "        model = Auto.from_pretrained(folder, task=name).eval()\n"
        "        known = model.state_dict()\n"
        "        assert all(torch.equal(known[key], said['weights'][key]) for key in known | said['weights']), name\n"
        "        with torch.no_grad():\n"
        "            logits, plain = model(**inputs).logits, default(**inputs).logits\n"
        "        if name == 'score':  # a product with one column rounds by where in memory its weights lie\n"
        "            torch.testing.assert_close(logits, expected, rtol=1e-6, atol=1e-8)\n"
        "        else:\n"
        "            assert torch.equal(logits, expected), (folder, name)\n"
        "        assert torch.equal(plain, said['logits']['main'])\n"
        "        assert model.config.num_labels == expected.shape[1]\n"
    )
    run_fresh(code, tmp_path)
    assert not list(tmp_path.rglob("*.bin"))


def test_every_head_keeps_all_its_entries_and_none_of_anothers() -> None:
    of_labels = {"id2label": {0: "a", 1: "b"}, "problem_type": "multi_label_classification", THRESHOLDS: [0.4, 0.6]}
    of_scores = {"id2label": {0: "score"}, "problem_type": "regression", "label_range": [0, 5], MARK: "toy"}
    config = config_with_heads(tiny_model().config, {"labels": of_labels, "scores": of_scores}, "scores")
    for task, entries in (("scores", of_scores), ("labels", of_labels), ("scores", of_scores)):
        config.task = task
        for found in (config, config.classifier(task)):
            assert {name: getattr(found, name) for name in HEAD if name in entries} == entries
            assert not [name for name in (THRESHOLDS, MARK) if name not in entries and getattr(found, name, None)]


KINDS = {
    "main": Classification(("bad", "good")),
    "words": Tags(("O", "B-a", "I-a")),
    "labels": MultiLabel(("film", "plot"), (0.3, 0.6)),
    "ranks": Ranking(2.0),
    "places": AnswerSpans(unanswerable=True, stride=7),
    "vectors": SentenceVectors(0.0, 5.0, 16, "mean"),
}


@pytest.mark.parametrize("main", ["main", "words"])
@torch.no_grad()
def test_heads_of_every_kind_share_an_encoder_and_reload_alone_and_together(main: str, tmp_path: Path) -> None:
    heads = {name: with_auto(task) for name, task in KINDS.items()}
    start = classifier_of(with_heads(tiny_model(), heads, "main"), main)  # of words, it has no pooler
    model, batch = with_heads(start, heads, main), tiny_batch()
    assert torch.equal(observe(model, batch).logits, observe(start, batch).logits)
    save_model(model, tiny_tokenizer(), tmp_path)
    for name, task in KINDS.items():
        alone, again = classifier_of(model, name), load_model(tmp_path)
        with model.answering(name), again.answering(name):
            logits = observe(model, batch).logits
            assert task_of_config(model.config) == task_of_config(again.config) == task_of_config(alone.config) == task
            told = observe(again, batch).logits, observe(alone, batch).logits
        for found in told:  # a product with one column rounds by where in memory its weights lie
            torch.testing.assert_close(found, logits, rtol=1e-6, atol=1e-8)
        assert logits.shape == (3, *([batch["input_ids"].shape[1]] if task.by_token else []), task.outputs)


def test_what_was_tuned_for_a_head_stays_with_it() -> None:
    heads = {name: with_auto(KINDS[name]) for name in ("labels", "places")}
    model = with_heads(tiny_model(), {"main": KINDS["main"].head_config(), **heads}, "main")
    for name, entry, value in (("labels", THRESHOLDS, [0.2, 0.9]), ("places", NULL_THRESHOLD, 1.5)):
        with model.answering(name):
            setattr(model.config, entry, value)
            model.keep_head()
    for name, entry, value in (("labels", THRESHOLDS, [0.2, 0.9]), ("places", NULL_THRESHOLD, 1.5)):
        assert getattr(classifier_of(model, name).config, entry) == value
        with model.answering(name):
            assert getattr(model.config, entry) == value
    assert getattr(model.config, THRESHOLDS, None) is None


def test_a_task_without_a_head_is_refused_by_name(tmp_path: Path) -> None:
    save_model(several(), tiny_tokenizer(), tmp_path)
    for auto in (AutoConfig, AutoModelForSequenceClassification):
        with pytest.raises(ValueError, match="task = 'rte': this model has heads for main, score, topic-3"):
            auto.from_pretrained(tmp_path, task="rte")


def test_the_student_is_left_as_it_was() -> None:
    student = tiny_model()
    before = {name: value.clone() for name, value in student.state_dict().items()}
    model = with_heads(student, HEADS, "main")
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
    assert all(torch.equal(before[name], value) for name, value in student.state_dict().items())
