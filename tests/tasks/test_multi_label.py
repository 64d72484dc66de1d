"""Several labels per row: losses, metrics and thresholds against loops and scikit-learn; whole runs on a tiny model."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from serving.artifact import Artifact as Served
from sklearn.metrics import average_precision_score, f1_score, precision_recall_fscore_support
from torch.nn import functional
from transformers import AutoModelForSequenceClassification, pipeline

from compress.benchmark.stage import Benchmark
from compress.data import Files
from compress.distill.losses import HardLabels, SoftTargets
from compress.distill.stage import Distill
from compress.errors import ModelError, RecipeError
from compress.export.onnx import Onnx
from compress.export.transformers_js import TransformersJs
from compress.export.triton import Tokenize, Triton
from compress.models.bilstm import BiLstmConfig, BiLstmForSequenceClassification
from compress.models.cnn import CnnConfig, CnnForSequenceClassification
from compress.models.ensemble import combined_labels
from compress.models.heads import with_outputs
from compress.models.loading import load_config, load_model, save_model
from compress.pipeline.artifact import Artifact
from compress.pipeline.state import State
from compress.pipeline.workshop import Workshop
from compress.prune.heads import PruneHeads
from compress.quantize.int8 import DynamicInt8
from compress.run.check import check
from compress.run.predict import predict
from compress.run.recipe import Recipe
from compress.student.bert import Bert
from compress.tasks.adoption import Refusal
from compress.tasks.functions import label_loss, label_soft_target_loss
from compress.tasks.judging import Head, judge_labels
from compress.tasks.label_scores import METRICS, LabelScores
from compress.tasks.multi_label import MultiLabel
from compress.tasks.registry import task_of_config
from compress.tasks.thresholds import CANDIDATES, ENOUGH, cuts, tuned
from compress.teachers.model import FineTune, Teacher
from tests.conftest import BAD, GOOD, reviews, save_tiny, tiny_model, tiny_tokenizer
from tests.export.triton_server import Server, listening

NAMES = ("dull", "film", "good")
TASK = MultiLabel(NAMES)


def drawn(rows: int, labels: int = 3, seed: int = 0) -> tuple[Any, Any]:
    """Return logits and labels (rows, labels) that go together a little."""
    generator = np.random.default_rng(seed)
    true = (generator.random((rows, labels)) < [0.3, 0.5, 0.1][:labels]).astype(np.float32)
    return (generator.normal(size=true.shape) + 1.5 * true - 0.7).astype(np.float32), true


def sigmoid(value: Any) -> Any:
    return 1 / (1 + np.exp(-value))


# losses


def test_the_loss_of_a_row_is_the_mean_cross_entropy_of_its_known_labels() -> None:
    logits, true = (torch.from_numpy(part) for part in drawn(5))
    true[1, 2] = true[3, 0] = torch.nan
    expected = []
    for row in range(5):
        terms = []
        for label in range(3):
            if not true[row, label].isnan():
                p = float(torch.sigmoid(logits[row, label]))
                terms.append(-np.log(p if true[row, label] else 1 - p))
        expected.append(np.mean(terms))
    torch.testing.assert_close(TASK.loss(logits, true), torch.tensor(expected, dtype=torch.float32))


def test_positive_weights_multiply_the_terms_of_labels_that_are_there() -> None:
    logits, true = (torch.from_numpy(part) for part in drawn(4))
    weights = torch.tensor([2.0, 1.0, 5.0])
    terms = functional.binary_cross_entropy_with_logits(logits, true, reduction="none")
    expected = (terms * torch.where(true == 1, weights, 1.0)).mean(-1)
    torch.testing.assert_close(label_loss(logits, true, weights), expected)
    task = TASK.weighted({"dull": 2.0, "good": 5.0}, true.numpy())
    torch.testing.assert_close(task.loss(logits, true), expected)
    counts = true.numpy().sum(0)
    assert TASK.weighted(None, true.numpy()).weights == pytest.approx(tuple((4 - counts) / counts))
    with pytest.raises(ValueError, match="names 'god', which is not a label"):
        TASK.weighted({"god": 2.0}, true.numpy())


def test_rows_without_labels_do_not_count() -> None:
    logits, true = (torch.from_numpy(part) for part in drawn(4))
    true[2] = torch.nan
    torch.testing.assert_close(TASK.mean_loss(logits, true), TASK.loss(logits[[0, 1, 3]], true[[0, 1, 3]]).mean())


def test_soft_targets_compare_both_outcomes_of_each_label() -> None:
    (ours, _), (theirs, _) = drawn(4, seed=1), drawn(4, seed=2)
    temperature, total = 3.0, 0.0
    for row in range(4):
        for label in range(3):
            q, p = sigmoid(ours[row, label] / temperature), sigmoid(theirs[row, label] / temperature)
            total += p * np.log(p / q) + (1 - p) * np.log((1 - p) / (1 - q))
    loss = label_soft_target_loss(torch.from_numpy(ours), torch.from_numpy(theirs), temperature)
    assert float(loss) == pytest.approx(temperature**2 * total / 12, rel=1e-5)


def test_soft_targets_of_a_label_are_those_of_two_classes() -> None:
    (ours, _), (theirs, _) = drawn(6, 1, seed=1), drawn(6, 1, seed=2)
    first, second = torch.from_numpy(ours), torch.from_numpy(theirs)
    both = [torch.cat([torch.zeros_like(side), side], dim=1) for side in (first, second)]
    logs = [torch.log_softmax(side / 2, dim=-1) for side in both]
    expected = 4 * functional.kl_div(logs[0], logs[1], log_target=True, reduction="batchmean")
    torch.testing.assert_close(label_soft_target_loss(first, second, 2.0), expected)


def test_gradients_of_both_losses_are_right_and_keep_their_size_at_higher_temperatures() -> None:
    logits = torch.randn(3, 4, dtype=torch.double, requires_grad=True)
    teacher, true = torch.randn(3, 4, dtype=torch.double), torch.tensor([[1.0, 0, 1, torch.nan]] * 3)
    assert torch.autograd.gradcheck(lambda given: label_soft_target_loss(given, teacher, 2.0), logits)
    assert torch.autograd.gradcheck(lambda given: label_loss(given, true), logits)
    warm, hot = (
        torch.autograd.grad(label_soft_target_loss(logits, teacher, t), logits)[0].norm() for t in (20.0, 40.0)
    )
    torch.testing.assert_close(hot, warm, rtol=0.02, atol=0.0)


def test_soft_targets_hold_for_logits_that_no_sigmoid_can_tell_apart() -> None:
    far = torch.tensor([[200.0, -200.0]], requires_grad=True)
    loss = label_soft_target_loss(far, torch.tensor([[-200.0, -200.0]]), 1.0)
    assert float(loss.detach()) == pytest.approx(100.0)
    loss.backward()  # type: ignore[no-untyped-call]
    assert far.grad is not None
    assert torch.isfinite(far.grad).all()


# metrics


def test_metrics_are_scikit_learns() -> None:
    logits, true = drawn(300)
    logits = np.round(logits, 1)  # ties
    given = sigmoid(logits) >= 0.5
    found = TASK.metrics(logits, true)
    assert found["micro_f1"] == pytest.approx(f1_score(true, given, average="micro"))
    assert found["macro_f1"] == pytest.approx(f1_score(true, given, average="macro"))
    assert found["average_precision"] == pytest.approx(average_precision_score(true, logits, average="macro"))
    assert found["subset_accuracy"] == pytest.approx((given == true).all(1).mean())
    precisions, recalls, f1s, supports = precision_recall_fscore_support(true, given)
    for label, row in enumerate(TASK.by_class(logits, true)):
        assert (row.label, row.rows, row.answered) == (NAMES[label], supports[label], given[:, label].sum())
        expected = precisions[label], recalls[label], f1s[label]
        assert (row.precision, row.recall, row.f1) == pytest.approx(expected)
        assert TASK.judged_by(f"f1:{row.label}").metrics(logits, true)[f"f1:{row.label}"] == pytest.approx(row.f1)


def test_labels_that_are_not_known_count_nowhere() -> None:
    logits, true = drawn(200)
    hidden = true.copy()
    hidden[:, 1] = np.nan
    alone = MultiLabel(("dull", "good")).metrics(logits[:, [0, 2]], true[:, [0, 2]])
    assert TASK.metrics(logits, hidden) == pytest.approx(alone)


def test_an_interval_holds_the_metric_and_a_resample_counts_rows_again() -> None:
    logits, true = drawn(300)
    metrics, intervals = TASK.metrics(logits, true), TASK.intervals(logits, true)
    assert all(intervals[name][0] < value < intervals[name][1] for name, value in metrics.items())
    rows = np.random.default_rng(1).integers(0, 300, 300)
    scores = LabelScores(NAMES, logits, logits >= 0, true)
    times = np.bincount(rows, minlength=300)[None]
    drawn_again = {name: float(scores.values(name, times)[0]) for name in metrics}
    assert drawn_again == pytest.approx(TASK.metrics(logits[rows], true[rows]))


@pytest.mark.parametrize("metric", [*METRICS, "f1:film"])
def test_two_models_are_compared_on_the_same_rows(metric: str) -> None:
    logits, true = drawn(400)
    worse = logits + 2 * np.random.default_rng(3).normal(size=logits.shape).astype(np.float32)
    task = TASK.judged_by(metric)
    difference = task.difference(logits, worse, true)
    expected = task.metrics(logits, true)[metric] - task.metrics(worse, true)[metric]
    assert (difference.metric, difference.value) == (metric, pytest.approx(expected))
    assert difference.low < expected < difference.high
    assert difference.clear
    same = task.difference(logits, logits, true)
    assert same.value == 0
    assert not same.clear
    assert task.test.startswith("McNemar" if metric == "subset_accuracy" else "a paired bootstrap")


def test_the_constant_answer_is_the_best_that_ignores_the_text() -> None:
    _, true = drawn(400)
    constant = TASK.constant(true)
    found = TASK.metrics(constant.logits(["a"] * 400), true)["micro_f1"]
    sets = [[bool(number >> label & 1) for label in range(3)] for number in range(8)]
    expected = max(f1_score(true, np.tile(own, (400, 1)), average="micro", zero_division=0) for own in sets)
    assert found == pytest.approx(expected)
    assert constant.kind == "always answering 2 labels, the most frequent"


def test_answers_agree_where_all_labels_of_a_row_do() -> None:
    logits, _ = drawn(400)
    worse = logits + np.random.default_rng(3).normal(size=logits.shape).astype(np.float32)
    assert TASK.agreement(logits, logits) == 1
    assert TASK.agreement(logits, worse) == ((logits >= 0) == (worse >= 0)).all(1).mean()


# thresholds


def best_f1(shares: Any, true: Any) -> float:
    """Return the candidate with the highest F1, nearest to one half, by a loop."""
    found = [f1_score(true, shares >= cut, zero_division=0) for cut in CANDIDATES]
    best = [cut for cut, f1 in zip(CANDIDATES, found, strict=True) if f1 >= max(found) - 1e-12]
    return float(min(best, key=lambda cut: abs(cut - 0.5)))


def test_a_label_with_enough_rows_has_its_own_threshold_and_the_others_share_one() -> None:
    logits, true = drawn(1500)
    true[:, 2] = 0
    true[: ENOUGH - 1, 2] = 1  # one row short
    found = tuned(logits, true)
    shares = sigmoid(logits.astype(np.float64))
    assert found[:2] == [best_f1(shares[:, label], true[:, label]) for label in (0, 1)]
    assert found[2] == best_f1(shares.ravel(), true.ravel())


def test_few_rows_leave_every_threshold_at_one_half() -> None:
    logits, true = drawn(40)
    assert true.sum() < ENOUGH
    assert tuned(logits, true) == [0.5] * 3


def test_answers_are_given_from_the_threshold_on() -> None:
    task = MultiLabel(NAMES, (0.2, 0.5, 0.8))
    logits = cuts([0.19, 0.5, 0.81])[None]
    assert task.describe(logits)[0]["labels"] == ["film", "good"]
    assert task.shown(logits, logits) == ["film, good"]
    assert task.shown(np.full((1, 3), -5.0), logits) == ["(none)"]
    assert task.describe(logits)[0]["probabilities"] == pytest.approx({"dull": 0.19, "film": 0.5, "good": 0.81})


def test_the_logits_of_a_model_are_read_with_its_own_thresholds() -> None:
    logits, _ = drawn(50)
    own = MultiLabel(NAMES, (0.2, 0.5, 0.8))
    config = tiny_model(**own.head_config()).config
    moved = TASK.aligned(logits, config)
    assert (TASK.predictions(moved) == own.predictions(logits)).all()
    assert moved.dtype == logits.dtype
    assert TASK.aligned(logits, tiny_model(**TASK.head_config()).config) is logits


@pytest.mark.parametrize("broken", [[0.5], [0.1, 0.2, 1.0], [0.1, 0.2, "x"], {"a": 1}, [0.1, 0.2, float("nan")]])
def test_thresholds_that_cannot_be_used_are_named(broken: Any) -> None:
    config = tiny_model(**TASK.head_config()).config
    config.thresholds = broken
    with pytest.raises(ModelError, match="thresholds must be 3 numbers above 0 and below 1, one for each label"):
        task_of_config(config)


def test_thresholds_move_with_their_outputs_and_leave_with_their_head() -> None:
    model = tiny_model(**MultiLabel(NAMES, (0.2, 0.5, 0.8)).head_config())
    head = MultiLabel(NAMES[::-1]).head_config()
    turned = with_outputs(model, head, [2, 1, 0])
    assert task_of_config(turned.config) == MultiLabel(NAMES[::-1], (0.8, 0.5, 0.2))
    assert task_of_config(with_outputs(model, head, [2, None, 0]).config).thresholds == ()


# heads


def test_the_head_of_transformers_says_that_rows_have_several_labels(tmp_path: Path) -> None:
    names = {"id2label": dict(enumerate(NAMES)), "label2id": {name: n for n, name in enumerate(NAMES)}}
    config = tiny_model(**names, problem_type="multi_label_classification").config
    assert task_of_config(config) == TASK
    assert TASK.adopt(config, {}).outputs == {"dull": 0, "film": 1, "good": 2}
    assert TASK.adopt(config, {}).order_of(TASK.adopt(config, {})) == [0, 1, 2]
    with pytest.raises(Refusal, match="not trained for any number of labels per row"):
        TASK.adopt(tiny_model(**names).config, {})


def test_labels_that_only_the_model_has_are_not_known() -> None:
    head = MultiLabel(("film", "new", "good", "dull"))
    config = tiny_model(**head.head_config()).config
    task, (moved,) = TASK.renumbered(TASK.adopt(config, {}), [np.array([[1, 0, 1]], np.float32)])
    assert task == head
    np.testing.assert_array_equal(moved, [[0, np.nan, 1, 1]])
    weighted = replace(TASK, weights=(1.0, 2.0, 3.0), metric="macro_f1")
    moved_too, _ = weighted.renumbered(TASK.adopt(config, {}), [])
    assert moved_too == replace(head, weights=(2.0, 1.0, 3.0, 1.0), metric="macro_f1")


def test_a_head_with_its_outputs_in_another_order_is_found_out() -> None:
    logits, true = drawn(400)
    names = {f"LABEL_{index}": None for index in range(3)}
    config = tiny_model(
        id2label=dict(enumerate(names)), label2id={name: n for n, name in enumerate(names)},
        problem_type="multi_label_classification",
    ).config  # fmt: skip
    adoption = TASK.adopt(config, {})
    assert adoption.assumed
    head = Head("model", "teacher.model", adoption, mapped=False)

    def judged(order: list[int]) -> list[str]:
        answered = 4 * (2 * true - 1)[:, order] + logits[:, order]
        return list(judge_labels(head, NAMES, TASK.metrics(answered, true), answered >= 0, true))

    assert judged([0, 1, 2]) == ["micro F1 1.000 on 400 sampled rows"]
    with pytest.raises(ModelError, match=r"'data\.labels=\{LABEL_0: good, LABEL_1: film, LABEL_2: dull\}'"):
        judged([2, 1, 0])
    answered = np.random.default_rng(5).normal(size=true.shape)
    of_chance = judge_labels(head, NAMES, TASK.metrics(answered, true), answered >= 0, true)
    with pytest.raises(ModelError, match="as by chance"):
        list(of_chance)


@pytest.mark.parametrize(
    "of", [(BiLstmConfig, BiLstmForSequenceClassification), (CnnConfig, CnnForSequenceClassification)]
)
def test_small_students_are_fine_tuned_by_binary_cross_entropy(of: Any) -> None:
    config_class, model_class = of
    model = model_class(config_class(vocab_size=30, pad_token_id=0, sep_token_id=3, **TASK.head_config())).eval()
    true = torch.tensor([[1.0, 0, 1], [0, 0, 0]])
    answer = model(torch.tensor([[2, 5, 6, 3], [2, 7, 8, 3]]), labels=true)
    torch.testing.assert_close(answer.loss, functional.binary_cross_entropy_with_logits(answer.logits, true))
    torch.testing.assert_close(answer.loss, TASK.head_loss(answer.logits, true))


def test_an_ensemble_averages_each_labels_probability() -> None:
    logits = torch.randn(3, 5, 4)
    weights = torch.tensor([1.0, 2.0, 1.0])
    mean = (torch.sigmoid(logits) * (weights / weights.sum()).view(3, 1, 1)).sum(0)
    torch.testing.assert_close(torch.sigmoid(combined_labels(logits, weights, "probabilities")), mean)
    expected = (logits * (weights / 4).view(3, 1, 1)).sum(0)
    torch.testing.assert_close(combined_labels(logits, weights, "logits"), expected)


# a run


def described(rows: int, seed: int) -> list[dict[str, Any]]:
    """Return rows with their labels: whether a text has a good word, a dull one, and the word film."""
    made = []
    for _, text in [*reviews(rows - 2, seed), ("", "the plot was so"), ("", "a scene")]:
        words = set(text.split())
        kinds = {"good": words & set(GOOD), "dull": words & set(BAD), "film": words & {"film"}}
        made.append({"text": text, "labels": [name for name, found in kinds.items() if found]})
    return made


def write_jsonl(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def recipe(folder: Path, **parts: Any) -> Recipe:
    files = {
        name: str(write_jsonl(folder / f"{name}.jsonl", described(rows, seed)))
        for name, rows, seed in (("train", 160, 1), ("validation", 90, 2), ("test", 60, 3))
    }
    teacher = Teacher(
        model=str(folder / "teacher"), epochs=10, learning_rate=1e-2, batch_size=16, max_tokens=32, least_steps=0,
        early_stopping=0,
    )  # fmt: skip
    made = Recipe(
        recipe="several", name="run", data=Files(**files), teacher=teacher, student=Bert(layers=2),
        distill=Distill(
            losses={"soft": SoftTargets(), "hard": HardLabels()}, epochs=3, learning_rate=5e-3, batch_size=16
        ),
        prune={"heads": PruneHeads(ratio=0.4, rows=40)},
        quantize={"dynamic": DynamicInt8()},
        export={"onnx": Onnx(), "triton": Triton(), "transformers_js": TransformersJs()},
        benchmark=Benchmark(rows=5, batches=[1], tokens=[8], seconds=0.02),
        output=str(folder / "run"), cache=str(folder / "cache"),
    )  # fmt: skip
    return replace(made, **parts)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run."""
    folder = tmp_path_factory.mktemp("several")
    save_tiny(folder / "teacher")
    recipe(folder).run()
    return folder


def test_a_run_distils_prunes_quantizes_and_reports_several_labels(finished: Path) -> None:
    report = json.loads((finished / "run" / "report.json").read_text())
    bootstrap = "a paired bootstrap of 2,000 samples"
    about = {"kind": "multi_label", "labels": list(NAMES), "main_metric": "micro_f1", "test": bootstrap}
    assert report["task"] == about
    assert [stage["name"] for stage in report["stages"]] == ["teacher", "distill", "heads"]
    assert all(stage["metrics"]["micro_f1"] > 0.8 for stage in report["stages"][:2])
    artifacts = {artifact["name"]: artifact for artifact in report["artifacts"]}
    assert sorted(artifacts) == ["dynamic", "onnx", "student", "transformers_js", "triton"]
    assert artifacts["onnx"]["max_abs_difference"] < 1e-3
    assert artifacts["onnx"]["agreement"] == 1
    baselines = {entry["name"]: entry for entry in report["baselines"]}
    assert baselines["tfidf"]["kind"].endswith("a logistic regression for each label")
    assert baselines["tfidf"]["metrics"]["micro_f1"] > 0.9
    assert baselines["labels_only"]["differences"]["teacher"]["metric"] == "micro_f1"


def test_student_and_artifacts_keep_the_same_thresholds(finished: Path) -> None:
    run = finished / "run"
    kept = load_config(run / "student").thresholds
    assert len(kept) == 3
    assert all(cut in CANDIDATES for cut in kept)
    for name in ("onnx", "dynamic", "transformers_js"):
        assert json.loads((run / "artifacts" / name / "config.json").read_text())["thresholds"] == kept
    assert load_config(run / "stages" / "00-teacher").thresholds


def test_a_saved_student_answers_with_labels(finished: Path) -> None:
    for folder in ("student", "artifacts/dynamic"):
        good, dull = predict(finished / "run" / folder, ["good great film a the plot", "the awful dull plot so the"])
        assert set(good) == {"labels", "probabilities"}
        assert "good" in good["labels"]
        assert "dull" in dull["labels"]
        assert "good" not in dull["labels"]


def test_transformers_own_pipeline_reads_the_student(finished: Path) -> None:
    folder = finished / "run" / "student"
    (answers,) = pipeline("text-classification", model=str(folder), top_k=None)(["good film a the plot"])
    (ours,) = predict(folder, ["good film a the plot"])
    assert {answer["label"]: answer["score"] for answer in answers} == pytest.approx(ours["probabilities"], abs=1e-6)


def test_a_finished_teacher_of_several_labels_is_used_as_it_is(finished: Path, tmp_path: Path) -> None:
    model = str(finished / "run" / "student")
    (line, *_) = check(recipe(tmp_path, teacher=Teacher(model=model, max_tokens=32))).models
    assert "is used as it is" in line.line
    assert any("micro F1" in answer for answer in line.answers)


def test_a_head_of_one_label_per_row_is_refused(tmp_path: Path) -> None:
    names = {"id2label": dict(enumerate(NAMES)), "label2id": {name: n for n, name in enumerate(NAMES)}}
    save_model(tiny_model(**names), tiny_tokenizer(), tmp_path / "one")
    with pytest.raises(RecipeError, match="was not trained for any number of labels per row"):
        check(recipe(tmp_path, teacher=Teacher(model=str(tmp_path / "one"), max_tokens=32)))
    again = Teacher(model=str(tmp_path / "one"), max_tokens=32, fine_tune=FineTune.always)
    assert "trained" in check(recipe(tmp_path, teacher=again)).models[0].line


@pytest.mark.parametrize("how", ["text", "tokens"])
def test_triton_answers_with_lists_of_labels(finished: Path, tmp_path: Path, how: str) -> None:
    texts = ["good film", "the plot is so bad", "the plot was so"]
    artifact = finished / "run" / "artifacts" / "onnx"
    expected = predict(artifact, texts)
    folder, model = finished / "run" / "artifacts" / "triton", "onnx_text"
    if how == "tokens":
        made = Artifact(name="onnx", runtime="onnxruntime", precision="fp32", folder=artifact, key="onnx")
        data = recipe(tmp_path).data.load("auto", 1)
        state = State.begin(data, Workshop(tmp_path), 0, artifacts=(made,))
        folder, model = Triton(tokenize=Tokenize.client)(state).artifacts[-1].folder, "onnx"
    server = Server(folder)
    if how == "text":
        replies = server.infer(model, {"TEXT": np.array([[text.encode()] for text in texts], dtype=np.object_)})
        assert [json.loads(row[0]) for row in replies["LABELS"]] == [answer["labels"] for answer in expected]
        shares = [list(answer["probabilities"].values()) for answer in expected]
        np.testing.assert_allclose(replies["PROBABILITIES"], shares, atol=1e-6)
    with listening(server) as url:
        words = [sys.executable, folder / "client.py", model, *texts, "--url", url]
        printed = subprocess.run(words, capture_output=True, text=True, check=True, timeout=120).stdout
    labels = [", ".join(answer["labels"]) or "(none)" for answer in expected]
    assert printed.splitlines() == [f"{own}\t{text}" for own, text in zip(labels, texts, strict=True)]


def test_the_example_server_answers_with_labels(finished: Path) -> None:
    folder, texts = finished / "run" / "artifacts" / "onnx", ["good film", "the plot was so"]
    answers = Served(folder, 1)([(text, None) for text in texts])
    for answer, expected in zip(answers, predict(folder, texts), strict=True):
        assert answer["labels"] == expected["labels"]
        assert answer["probabilities"] == pytest.approx(expected["probabilities"], abs=1e-5)


def test_the_saved_model_is_transformers_own(finished: Path) -> None:
    folder = finished / "run" / "stages" / "00-teacher"
    model = AutoModelForSequenceClassification.from_pretrained(folder)
    assert model.config.problem_type == "multi_label_classification"
    ids = torch.tensor([[2, 5, 6, 3]])
    torch.testing.assert_close(model(ids).logits, load_model(folder)(ids).logits)
