"""Multi-task distillation: the loss of each task, what is learned, resumption, the whole chain, refusals."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import functional
from transformers import AutoModelForSequenceClassification, BertForSequenceClassification

from compress.data import Files
from compress.data.dataset import Split
from compress.distill.losses import HardLabels, MarginMSE, SoftTargets
from compress.distill.losses.alignment import Alignment
from compress.distill.multi_task import MultiTask, MultiTaskDistillation, OtherTask, _headless
from compress.distill.objective import Distillation
from compress.distill.task_batches import ByTask, TaskRows
from compress.distill.teacher_outputs import FromModel
from compress.errors import Fault, RecipeError
from compress.models.evaluate import main_metric
from compress.models.loading import load_model, save_model
from compress.models.multi_task import MultiTaskForSequenceClassification, with_heads
from compress.models.outputs import INPUTS, observe
from compress.models.static import StaticConfig
from compress.models.tokens import Tokens, tokenize
from compress.pipeline.model import Model
from compress.pipeline.state import State
from compress.pipeline.workshop import Workshop
from compress.run.predict import predict
from compress.runtimes.devices import CPU
from compress.runtimes.registry import load_session
from compress.settings import all_faults
from compress.student.bilstm import BiLstm
from compress.tasks.classification import Classification
from compress.tasks.regression import Regression
from compress.tasks.tags import Tags
from compress.teachers.model import FineTune, Teacher
from compress.train import Training, fit
from tests.conftest import GOOD, VOCABULARY, reviews, save_tiny, tiny_model, tiny_tokenizer, write_tsv
from tests.run.test_recipe import made, recipe, report

SENTIMENT, TOPIC, COUNT = Classification(("bad", "good")), Classification(("film", "none")), Regression(0.0, 2.0)


def topic(text: str) -> str:
    return "film" if "film" in text.split() else "none"


def count(text: str) -> float:
    return float(sum(word in GOOD for word in text.split()))


def splits(rows: int, seed: int) -> dict[str, Split]:
    """Return the same reviews with the labels of three tasks: mood, whether it names a film, number of good words."""
    made = reviews(rows, seed)
    texts = tuple(text for _, text in made)
    labels = {
        "main": np.array([SENTIMENT.encode(label) for label, _ in made], dtype=np.int64),
        "topic": np.array([TOPIC.encode(topic(text)) for text in texts], dtype=np.int64),
        "count": np.array([count(text) for text in texts], dtype=np.float32),
    }
    return {name: Split(texts, None, own) for name, own in labels.items()}


TASKS = {"main": SENTIMENT, "topic": TOPIC, "count": COUNT}
HEADS = {name: task.head_config() for name, task in TASKS.items()}


def rows_of(seed: int = 1, sizes: tuple[int, ...] = (120, 80, 60)) -> list[Tokens]:
    found = splits(max(sizes), seed)
    return [
        tokenize(found[name].take(np.arange(size)), tiny_tokenizer(), 32)
        for name, size in zip(TASKS, sizes, strict=True)
    ]


def student(**settings: Any) -> MultiTaskForSequenceClassification:
    state = torch.get_rng_state()
    torch.manual_seed(4)
    model = with_heads(tiny_model(hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0, **settings), HEADS, "main")
    torch.set_rng_state(state)
    return model


def distillation(model: MultiTaskForSequenceClassification, settings: MultiTask) -> MultiTaskDistillation:
    """Return the objective with random teachers of the right shapes."""
    parts = {}
    for seed, (name, task) in enumerate(TASKS.items()):
        teacher = tiny_model(seed=seed + 20, num_labels=task.outputs)
        source = FromModel(teacher, {}, rows_of()[seed])
        parts[name] = Distillation(model.head(name), settings._losses(task), source)
    return MultiTaskDistillation(model, parts)


@pytest.mark.parametrize("progress", [0.0, 0.3, 1.0])
def test_the_loss_moves_from_the_teacher_to_the_labels_task_by_task(progress: float) -> None:
    """BAM's target is a mixture of the label and the teacher's answer; the teacher's entropy is constant in it."""
    model = student().eval()
    objective, rows = distillation(model, MultiTask()), TaskRows(rows_of())
    for number, (name, task) in enumerate(TASKS.items()):
        start = int(rows.starts[number])
        batch = rows.batch([start + 2, start + 5, start + 7])
        loss, parts = objective(batch, progress)
        teacher = observe(tiny_model(seed=number + 20, num_labels=task.outputs), batch).logits.detach()
        ours = observe(model.head(name), batch).logits
        if task is COUNT:
            labels = batch["labels"].float()[:, None]
            expected = (1 - progress) * ((ours - teacher) ** 2).mean() + progress * ((ours - labels) ** 2).mean()
        else:
            target = (1 - progress) * teacher.softmax(-1) + progress * functional.one_hot(batch["labels"], 2)
            entropy = -(teacher.softmax(-1) * teacher.log_softmax(-1)).sum(-1)
            expected = (-(target * ours.log_softmax(-1)).sum(-1) - (1 - progress) * entropy).mean()
        torch.testing.assert_close(loss, expected)
        assert set(parts) == {f"{name}_soft", f"{name}_hard"}


def test_scores_are_compared_by_squared_error_with_the_same_weights_and_schedule() -> None:
    soft = SoftTargets(weight=0.7, weight_end=0.1, weight_schedule=MultiTask().soft.weight_schedule)
    settings = MultiTask(soft=soft)
    for progress in (0.0, 0.4, 1.0):
        assert settings._losses(COUNT)["soft"].weight_at(progress) == soft.weight_at(progress)
    assert not settings._losses(COUNT)["soft"].needs_classes


def test_the_objective_holds_every_weight_once() -> None:
    model = student()
    names = [name.removeprefix("model.") for name in distillation(model, MultiTask()).state_dict()]
    assert sorted(names) == sorted(model.state_dict())


@pytest.mark.parametrize("stop_at", [17, *(pytest.param(at, marks=pytest.mark.slow) for at in (4, 30))])
def test_an_interrupted_training_ends_with_the_same_weights_to_the_bit(stop_at: int, tmp_path: Path) -> None:
    def train(folder: Path, stop_at: int | None = None) -> dict[str, torch.Tensor]:
        model = with_heads(tiny_model(), HEADS, "main")  # with dropout: random states are restored too
        objective, rows = distillation(model, MultiTask()), TaskRows(rows_of())
        steps = iter(range(10**6))

        def interrupted(*arguments: Any, forward: Callable[..., Any] = objective.forward) -> Any:
            if next(steps) == stop_at:
                raise KeyboardInterrupt
            return forward(*arguments)

        objective.forward = interrupted  # type: ignore[method-assign]
        settings = Training(epochs=2, batch_size=16, learning_rate=3e-3, checkpoint_seconds=1e-9)
        order = ByTask([tokens.lengths for tokens in rows.tasks], 16, 0.75, seed=3)
        fit(objective, rows, settings, seed=3, folder=folder, title="test", validate=dict, order=order)
        return model.state_dict()

    state = torch.get_rng_state()
    torch.manual_seed(0)
    whole = train(tmp_path / "whole")
    torch.manual_seed(0)
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path / "parts", stop_at)
    assert list((tmp_path / "parts").rglob("whole"))
    torch.manual_seed(0)
    resumed = train(tmp_path / "parts")
    torch.set_rng_state(state)
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)


def test_every_head_learns_its_task(tmp_path: Path) -> None:
    """From labels alone, so that what is learned is known."""
    model, rows = student(), TaskRows(rows_of(sizes=(320, 320, 320)))
    parts = {name: Distillation(model.head(name), {"hard": HardLabels()}) for name in TASKS}
    held = dict(zip(TASKS, rows_of(seed=9, sizes=(80, 80, 80)), strict=True))
    order = ByTask([tokens.lengths for tokens in rows.tasks], 16, 0.75, seed=3)
    settings = Training(epochs=8, batch_size=16, learning_rate=2e-3)
    objective = MultiTaskDistillation(model, parts)
    fit(objective, rows, settings, seed=3, folder=tmp_path, title="test", validate=dict, order=order)
    found = {}
    for name, task in TASKS.items():
        with model.answering(name):
            found |= {name: main_metric(model, held[name], task)[task.main_metric]}
    assert found["main"] >= 0.9
    assert found["topic"] >= 0.9
    assert found["count"] >= 0.9


# the whole chain


def write(folder: Path) -> dict[str, dict[str, Path]]:
    """Write files of three tasks."""
    files: dict[str, dict[str, Path]] = {name: {} for name in TASKS}
    for split, rows, seed in (("train", 120, 1), ("validation", 40, 2), ("test", 40, 3)):
        texts = [text for _, text in reviews(rows, seed)]
        labelled = {
            "main": reviews(rows, seed),
            "topic": [(topic(text), text) for text in texts],
            "count": [(f"{count(text) + 0.01 * (n % 30):.2f}", text) for n, text in enumerate(texts)],
        }
        for name, own in labelled.items():
            (folder / name).mkdir(exist_ok=True)
            files[name][split] = write_tsv(folder / name / f"{split}.tsv", own)
    return files


def others(folder: Path, files: dict[str, dict[str, Path]], **changes: Any) -> dict[str, OtherTask]:
    """Return the two other tasks; the teacher of one knows its task, that of the other is fine-tuned."""
    knows = {"id2label": {0: "none", 1: "film"}, "label2id": {"none": 0, "film": 1}}
    if not (folder / "knows").exists():
        save_tiny(folder / "knows", seed=6, **knows)
    tuned = Teacher(
        model=str(folder / "teacher"), epochs=1, learning_rate=1e-3, batch_size=16, max_tokens=32, least_steps=0
    )
    paths = {
        name: Files(train=str(files[name]["train"]), validation=str(files[name]["validation"]))
        for name in ("topic", "count")
    }
    return {
        "topic": OtherTask(data=paths["topic"], teacher=Teacher(model=str(folder / "knows"), max_tokens=24)),
        "count": OtherTask(data=paths["count"], teacher=tuned),
    } | changes


def test_rows_left_over_of_another_task_are_used_without_their_labels(tmp_path: Path) -> None:
    train, validation = (write_tsv(tmp_path / f"{seed}.tsv", reviews(60, seed)) for seed in (1, 2))
    rows = Files(train=str(train), validation=str(validation), train_rows=20, unlabelled_rows=15)
    data = OtherTask(data=rows).load(13)
    assert data.unlabelled is not None
    assert (len(data.train), len(data.unlabelled), len(data.transfer)) == (20, 15, 35)
    assert not set(data.unlabelled.texts) & {*data.train.texts, *data.validation.texts}
    assert data.notes[-1].startswith("15 other training rows of ")


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tasks")
    write(folder)
    save_tiny(folder / "teacher")
    return folder


def chain(folder: Path, **changes: Any) -> Any:
    files = write(folder)
    settings: dict[str, Any] = {"epochs": 2, "learning_rate": 3e-3, "batch_size": 16}
    settings |= {"tasks": others(folder, files)} | changes
    given = recipe(files["main"], folder / "teacher", folder, prepare={"multi_task": MultiTask(**settings)})
    teacher = replace(given.teacher, epochs=2)
    benchmark = replace(given.benchmark, tfidf=False, labels_only=False)
    return replace(given, teacher=teacher, prune={}, quantize={}, export={}, benchmark=benchmark)


def test_the_whole_chain_leaves_a_folder_with_every_head_and_a_student_of_the_main_task(world: Path) -> None:
    chain(world).run()
    facts = report(world)
    assert [stage["name"] for stage in facts["stages"]] == ["teacher", "multi_task", "distill"]
    notes = facts["stages"][1]["notes"]
    assert [note.partition(":")[0] for note in notes[:3]] == ["main", "topic", "count"]
    assert all("its teacher" in note and "40 validation rows" in note for note in notes[:3])
    assert [note.rpartition(" on ")[2] for note in notes[3:]] == ["40 test rows", *["40 validation rows"] * 2]
    assert "pearson" in notes[2]
    several = world / "run" / "stages" / "01-multi_task"
    for name, outputs in (("main", 2), ("topic", 2), ("count", 1)):
        model = AutoModelForSequenceClassification.from_pretrained(several, task=name)
        assert model.config.num_labels == outputs
        alone = AutoModelForSequenceClassification.from_pretrained(several / "heads" / name)
        batch = {key: value for key, value in rows_of()[0].batch([0, 1]).items() if key in INPUTS}
        torch.testing.assert_close(alone(**batch).logits, model(**batch).logits)
        session = load_session(several / "heads" / name / "onnx", CPU)
        said_by_graph = session({key: value.numpy() for key, value in batch.items()})
        torch.testing.assert_close(torch.from_numpy(said_by_graph), alone(**batch).logits.detach(), atol=1e-4, rtol=0)
    heads = facts["stages"][1]["details"]["heads"]
    assert [(head["name"], head["task"], head["rows"], head["rows_are"]) for head in heads] == [
        ("main", "classification", 40, "test"), ("topic", "classification", 40, "validation"),
        ("count", "regression", 40, "validation"),
    ]  # fmt: skip
    assert AutoModelForSequenceClassification.from_pretrained(several, task="topic").config.id2label[0] == "none"
    assert type(load_model(world / "run" / "student")) is BertForSequenceClassification
    curve = facts["stages"][1]["curves"]
    points = [point for point in curve if "validation_mean" in point]
    assert len(points) == 2
    point = points[-1]
    values = [point["validation_accuracy"], point["validation_topic"], point["validation_count"]]
    assert point["validation_mean"] == pytest.approx(np.mean(values))

    before = made(world)
    chain(world).run()
    assert made(world) == before
    assert all(stage["reused"] for stage in report(world)["stages"])


def test_a_given_validation_file_is_what_the_other_tasks_are_measured_on_and_no_row_is_cut_off(world: Path) -> None:
    data = others(world, write(world))["count"].load(seed=1)
    assert (len(data.train), len(data.validation)) == (120, 40)


def test_the_student_goes_on_as_what_its_head_in_the_folder_says(world: Path, tmp_path: Path) -> None:
    files = write(world)
    data = Files(**{name: str(path) for name, path in files["main"].items()}).load("auto", 1)
    save_model(tiny_model(), tiny_tokenizer(), tmp_path / "model")
    model = Model(tmp_path / "model", "model")
    state = State.begin(data=data, workshop=Workshop(tmp_path / "cache"), seed=1, teacher=model, student=model)
    settings = MultiTask(tasks=others(world, files), epochs=0.5, batch_size=16, write_heads=False)
    after = settings(state)
    several, alone = load_model(after.records[-1].model.folder), load_model(after.given_student.folder)
    batch = rows_of()[0].batch([0, 1, 2])
    with torch.no_grad():
        assert torch.equal(observe(several, batch).logits, observe(alone, batch).logits)
    assert type(alone) is BertForSequenceClassification
    before = products(state)
    replace(settings, exponent=1.0)(state)
    assert products(state) - before == {"multi_task": 1, "head": 1}


def mixed(folder: Path, made: list[tuple[str, str]]) -> dict[str, str]:
    """Write rows of every kind of task; what is asked is which words are good."""
    folder.mkdir()
    good = [[word for word in text.split() if word in GOOD] for _, text in made]
    lines: dict[str, list[dict[str, Any]]] = {
        "words": [
            {"tokens": text.split(), "tags": ["B-good" if word in GOOD else "O" for word in text.split()]}
            for _, text in made
        ],
        "labels": [
            {"text": text, "labels": [name for name in ("film", "plot") if name in text.split()]} for _, text in made
        ],
        "ranks": [
            {"relevance": int(label == "good"), "query": "the film", "candidate": text, "qid": number // 8}
            for number, (label, text) in enumerate(made)
        ],
        "places": [
            {"question": "was the film so", "context": text,
             "answers": [{"text": word, "answer_start": text.index(word)} for word in found]}
            for (_, text), found in zip(made, good, strict=True)
        ],
        "vectors": [
            {"score": float(first[0] == second[0]), "text": first[1], "text_b": second[1]}
            for first, second in zip(made, made[1:] + made[:1], strict=True)
        ],
    }  # fmt: skip
    paths = {name: folder / f"{name}.jsonl" for name in lines}
    for name, path in paths.items():
        path.write_text("".join(json.dumps(row) + "\n" for row in lines[name]))
    return {name: str(path) for name, path in paths.items()}


KINDS = {"words": "tags", "labels": "multi_label", "ranks": "ranking", "places": "spans", "vectors": "vectors"}


@pytest.mark.slow
def test_one_student_learns_every_kind_of_task_beside_classes_and_each_head_is_exported(tmp_path: Path) -> None:
    train, held = mixed(tmp_path / "train", reviews(200, 1)), mixed(tmp_path / "held", reviews(60, 2))
    labels = {"id2label": {0: "bad", 1: "good"}, "label2id": {"bad": 0, "good": 1}}
    save_model(tiny_model(**labels), tiny_tokenizer(), tmp_path / "teacher")
    quick = Teacher(
        model=str(tmp_path / "teacher"), epochs=12, learning_rate=5e-3, batch_size=16, max_tokens=32, least_steps=0,
        fine_tune=FineTune.always,
    )  # fmt: skip
    tasks = {
        name: OtherTask(data=Files(train=train[name], validation=held[name]), teacher=quick, task=kind)
        for name, kind in KINDS.items()
    }
    rows = write_tsv(tmp_path / "main.tsv", reviews(200, 3))
    data = Files(train=str(rows)).load("auto", 1)
    model = Model(tmp_path / "teacher", "model")
    state = State.begin(data=data, workshop=Workshop(tmp_path / "cache"), seed=1, teacher=model, student=model)
    settings = MultiTask(tasks=tasks, epochs=12, batch_size=16, learning_rate=5e-3)
    assert [type(settings._losses(other.load(1).task)["soft"]) for other in tasks.values()] == [
        SoftTargets, SoftTargets, MarginMSE, SoftTargets, Alignment,
    ]  # fmt: skip
    record = settings(state).records[-1]
    heads = {head["name"]: head for head in record.details.report()["heads"]}
    assert {name: heads[name]["task"] for name in KINDS} == KINDS
    assert heads["words"]["metrics"]["f1"] > 0.8
    assert heads["labels"]["metrics"]["micro_f1"] > 0.2  # its teacher, trained as briefly, has 0.7
    assert heads["ranks"]["metrics"]["ndcg@10"] > 0.9
    assert heads["places"]["metrics"]["f1"] > 0.5
    assert heads["vectors"]["metrics"]["spearman"] > 0.5
    graphs = {name: record.beside[f"heads/{name}/onnx"] for name in ("main", *KINDS)}
    text = "good film good"
    assert len(predict(graphs["words"], text)[0]["spans"]) == 2
    assert set(predict(graphs["labels"], text)[0]["probabilities"]) == {"film", "plot"}
    assert len(load_model(record.beside["heads/labels"]).config.thresholds) == 2
    assert predict(graphs["ranks"], "the film", [text, "bad film bad"])[0]["candidate"] == text
    assert "label" in predict(graphs["main"], text)[0]
    assert predict(graphs["places"], "was the film so", "a lovely plot")[0]["answer"] == "lovely"
    assert len(predict(graphs["vectors"], text)[0]["vector"]) == 16
    assert type(load_model(record.beside["heads/words"])).__name__ == "BertForTokenClassification"


def test_a_student_that_cannot_have_a_head_for_a_task_is_refused_by_name() -> None:
    rule = _headless(Tags(("O", "B-a")), StaticConfig())
    assert rule == ("a student of type compress_static has no token classification head, which the task tags needs")
    assert not _headless(Tags(("O", "B-a")), tiny_model().config)


def products(state: State) -> Counter[str]:
    """Count what is finished in the cache, by its kind."""
    found = (path.parent.name for path in state.workshop.cache.glob("*/product.json"))
    return Counter(name.rpartition("-")[0] for name in found)


def refused(wrong: Any) -> list[Fault]:
    with pytest.raises(RecipeError) as told:
        wrong.run()
    assert not (Path(wrong.cache) / "locks").exists()
    return list(told.value.faults)


def one_class(folder: Path) -> Files:
    return Files(train=str(write_tsv(folder / "one.tsv", [("same", text) for _, text in reviews(20, 1)])))


def foreign(folder: Path) -> Teacher:
    """Return a teacher whose tokenizer numbers the same words otherwise."""
    tokenizer = tiny_tokenizer()
    numbers = dict(zip(VOCABULARY, [*range(5), *reversed(range(5, len(VOCABULARY)))], strict=True))
    model = tokenizer.backend_tokenizer.model
    tokenizer.backend_tokenizer.model = type(model)(numbers, unk_token="[UNK]")
    save_model(tiny_model(), tokenizer, folder / "foreign")
    return Teacher(model=str(folder / "foreign"), max_tokens=24)


def topic_with(tasks: dict[str, OtherTask], **changes: Any) -> dict[str, Any]:
    return {"tasks": {"topic": replace(tasks["topic"], **changes)}}


def untrained(tasks: dict[str, OtherTask]) -> dict[str, Any]:
    """Let a model with classes teach scores without being fine-tuned."""
    teacher = replace(tasks["topic"].teacher, fine_tune=FineTune.never)
    return {"tasks": {"count": replace(tasks["count"], teacher=teacher)}}


Change = Callable[[Path, dict[str, OtherTask]], dict[str, Any]]
CASES: dict[str, tuple[str, Change]] = {
    "no task": ("tasks", lambda *_: {"tasks": {}}),
    "name": ("tasks", lambda _, tasks: {"tasks": {"a.b": tasks["topic"]}}),
    "main's name": ("main", lambda *_: {"main": "topic"}),
    "exponent": ("exponent", lambda *_: {"exponent": -1.0}),
    "no weight": ("soft.weight", lambda *_: {"soft": SoftTargets(weight=0), "hard": HardLabels(weight=0)}),
    "freeze": ("freeze", lambda *_: {"freeze": ["bert.*", "classifier.*"]}),
    "no file": ("tasks.topic.data.train", lambda _, tasks: topic_with(tasks, data=Files())),
    "no folder": ("tasks.topic.teacher.model", lambda _, tasks: topic_with(tasks, teacher=Teacher(model="./nowhere"))),
    "one class": ("tasks.topic.data", lambda folder, tasks: topic_with(tasks, data=one_class(folder))),
    "tokenizer": ("tasks.topic.teacher.model", lambda folder, tasks: topic_with(tasks, teacher=foreign(folder))),
    "other labels": ("tasks.count.teacher", lambda _, tasks: untrained(tasks)),
}


@pytest.mark.parametrize("name", CASES)
def test_what_cannot_be_is_refused_before_any_work(name: str, world: Path, tmp_path: Path) -> None:
    setting, change = CASES[name]
    files = write(world)
    wrong = chain(world, **change(tmp_path, others(world, files)))
    faults = refused(replace(wrong, cache=str(tmp_path / "cache"), output=str(tmp_path / "run")))
    assert f"prepare.multi_task.{setting}" in {fault.setting for fault in faults}


def test_layers_below_can_learn_more_slowly_and_heads_be_frozen(tmp_path: Path) -> None:
    """Layer-wise decay is what BAM fine-tunes with; the heads are not below the top."""
    model, rows = student(), TaskRows(rows_of())
    before = {name: value.clone() for name, value in model.state_dict().items()}
    settings = Training(
        epochs=0.1, batch_size=16, learning_rate=1e-3, warmup=0.0, weight_decay=0.0, layer_decay=0.1,
        freeze=["heads.topic_head.*"],
    )  # fmt: skip
    order = ByTask([tokens.lengths for tokens in rows.tasks], 16, 0.75, seed=3)
    fit(
        distillation(model, MultiTask()), rows, settings, seed=3, folder=tmp_path, title="test", validate=dict,
        order=order,
    )  # fmt: skip
    moved = {name: float((value - before[name]).abs().max()) for name, value in model.state_dict().items()}
    by_layer = [moved[f"bert.encoder.layer.{layer}.intermediate.dense.weight"] for layer in range(4)]
    assert all(below < 0.2 * above for below, above in pairwise(by_layer))
    assert moved["heads.topic_head.classifier.weight"] == 0
    assert max(value for name, value in moved.items() if name.startswith("heads.")) > by_layer[-1]


def test_a_student_without_an_encoder_is_refused(world: Path, tmp_path: Path) -> None:
    wrong = replace(chain(world), student=BiLstm(), cache=str(tmp_path / "cache"), output=str(tmp_path / "run"))
    assert "prepare.multi_task.main" in {fault.setting for fault in refused(wrong)}


def test_the_default_settings_are_in_order() -> None:
    assert not list(all_faults(MultiTask()))
