"""Rankings: losses against loops, rows as they are read and refused, and a whole run on a tiny model."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from compress.benchmark.baselines import TfIdf
from compress.benchmark.stage import Benchmark
from compress.data import Files
from compress.data.dataset import Dataset
from compress.distill.losses import HardLabels, LogitsMSE, SoftTargets
from compress.distill.losses.base import Comparison
from compress.distill.losses.margin_mse import MarginMSE
from compress.distill.losses.pairwise import PairwiseSoftTargets, pairwise_soft_target_loss
from compress.distill.stage import Distill
from compress.errors import DataError, ModelError, RecipeError
from compress.export.onnx import Onnx
from compress.export.triton import Triton
from compress.models.outputs import Outputs
from compress.models.quantities import LOGITS
from compress.models.tokens import tokenize
from compress.quantize.int8 import DynamicInt8
from compress.run.check import check
from compress.run.predict import predict
from compress.run.recipe import Recipe
from compress.student.bert import Bert
from compress.tasks.adoption import named_as
from compress.tasks.choice import TaskChoice
from compress.tasks.classification import Classification
from compress.tasks.judging import Head
from compress.tasks.rank_scores import NDCG
from compress.tasks.ranking import Ranking
from compress.tasks.registry import task_of_config
from compress.teachers.model import Teacher
from tests.conftest import BAD, GOOD, OTHER, save_tiny, tiny_model, tiny_tokenizer
from tests.export.triton_server import Server, load

TASK = Ranking(4.0)
Row = dict[str, Any]


def comparison(student: torch.Tensor, teacher: torch.Tensor, labels: torch.Tensor | None) -> Comparison:
    mask = torch.ones(len(student), 1)
    sides = [Outputs(mask, {LOGITS: {0: side[:, None]}}) for side in (student, teacher)]
    return Comparison(sides[0], sides[1], labels, (), 0.0, TASK)


LABELS = torch.tensor([[7, 1.0], [9, 0.0], [7, 2.0], [9, torch.nan], [7, 1.0], [torch.nan, torch.nan], [3, 1.0]])


# losses


def test_labels_are_learned_as_shares_of_the_highest_relevance() -> None:
    logits = torch.randn(7, 1)
    expected = []
    for row in (0, 1, 2, 4, 6):
        p, share = float(torch.sigmoid(logits[row, 0])), float(LABELS[row, 1]) / 4
        expected.append(-share * np.log(p) - (1 - share) * np.log(1 - p))
    assert float(TASK.mean_loss(logits, LABELS)) == pytest.approx(np.mean(expected), rel=1e-5)


def test_margin_mse_compares_pairs_of_a_group_whose_relevances_differ_or_are_unknown() -> None:
    student, teacher = torch.randn(7), torch.randn(7)
    pairs = [(0, 2), (2, 4), (1, 3)]  # rows 0 and 4 are equally relevant
    errors = [((student[i] - student[j]) - (teacher[i] - teacher[j])) ** 2 for i, j in pairs]
    torch.testing.assert_close(MarginMSE()(comparison(student, teacher, LABELS)), torch.stack(errors).mean())
    shifted = teacher + torch.tensor([5.0, -3, 5, -3, 5, 0, 1])  # by group
    torch.testing.assert_close(
        MarginMSE()(comparison(student, shifted, LABELS)), MarginMSE()(comparison(student, teacher, LABELS))
    )


def test_pairwise_soft_targets_are_ranknets_cross_entropy_less_the_teachers_entropy() -> None:
    student, teacher, temperature = torch.randn(7), torch.randn(7), 1.5
    total, count = 0.0, 0
    for i, j in combinations(range(7), 2):
        if LABELS[i, 0] == LABELS[j, 0]:
            p, q = (float(torch.sigmoid((side[i] - side[j]) / temperature)) for side in (teacher, student))
            total += -p * np.log(q) - (1 - p) * np.log(1 - q) + p * np.log(p) + (1 - p) * np.log(1 - p)
            count += 1
    loss = PairwiseSoftTargets(temperature=temperature)(comparison(student, teacher, LABELS))
    assert float(loss) == pytest.approx(temperature**2 * total / count, rel=1e-4)


def test_gradients_of_pairwise_soft_targets_keep_their_size_at_higher_temperatures() -> None:
    student, teacher = torch.randn(6, dtype=torch.double, requires_grad=True), torch.randn(6, dtype=torch.double)
    assert torch.autograd.gradcheck(lambda given: pairwise_soft_target_loss(given, teacher, 2.0), student)
    warm, hot = (
        torch.autograd.grad(pairwise_soft_target_loss(student, teacher, t), student)[0].norm() for t in (20.0, 40.0)
    )
    torch.testing.assert_close(hot, warm, rtol=0.02, atol=0.0)


@pytest.mark.parametrize("loss", [MarginMSE(), PairwiseSoftTargets()])
@pytest.mark.parametrize("labels", [None, LABELS[[1, 5, 6]]])
def test_a_batch_without_two_rows_of_a_group_has_no_loss_but_a_gradient(
    loss: MarginMSE | PairwiseSoftTargets, labels: torch.Tensor | None
) -> None:
    student = torch.randn(3, requires_grad=True)
    value = loss(comparison(student, torch.randn(3), labels))
    value.backward()  # type: ignore[no-untyped-call]
    assert float(value.detach()) == 0
    assert student.grad is not None


# metrics


def drawn(seed: int = 0, queries: int = 50) -> tuple[Any, Any]:
    """Return logits and labels that go together a little."""
    generator = np.random.default_rng(seed)
    groups = np.repeat(np.arange(queries), 5)
    relevance = generator.integers(0, 3, len(groups))
    labels = np.stack([groups, relevance], axis=1).astype(np.float32)
    return (generator.normal(size=(len(groups), 1)) + relevance[:, None]).astype(np.float32), labels


def test_differences_are_those_of_the_metric_and_drawn_over_groups() -> None:
    logits, labels = drawn()
    worse = logits + 2 * np.random.default_rng(4).normal(size=logits.shape)
    difference = TASK.difference(logits, worse, labels)
    assert difference.value == pytest.approx(TASK.metrics(logits, labels)[NDCG] - TASK.metrics(worse, labels)[NDCG])
    assert difference.clear
    over_seeds = TASK.difference_over_seeds([logits, logits + 0.01], [worse, worse], labels)
    assert over_seeds.value == pytest.approx(difference.value, abs=0.02)
    assert over_seeds.clear


def test_answers_agree_where_sigmoids_are_near() -> None:
    logits = np.array([[0.0], [0.0], [9.0]])
    assert TASK.agreement(logits, logits + np.array([[0.07], [0.09], [3.0]])) == pytest.approx(2 / 3)


def test_a_head_that_ranks_backwards_is_refused_and_chance_is_told() -> None:
    logits, labels = drawn()
    head = Head("model", "teacher.model", named_as(TASK), mapped=False)
    assert next(iter(TASK.judge(head, logits, labels))).startswith("nDCG@10 0.9")
    with pytest.raises(ModelError, match="model: it ranks relevant rows behind others"):
        list(TASK.judge(head, -logits, labels))
    assert "not better than chance" in list(TASK.judge(head, np.zeros_like(logits), labels))[-1]


def test_the_cheap_model_is_the_cosine_of_query_and_candidate() -> None:
    rows = [("red car", "a red car"), ("red car", "blue sky"), ("blue sky", "the blue sky"), ("\x1fred", "red car")]
    texts = [TASK.joined(*row) for row in rows]
    baseline = TASK.baseline(texts, np.zeros((4, 2)), TfIdf(texts, 1))
    scores = baseline.logits(texts)[:, 0]
    assert scores[0] > scores[1]
    assert (scores >= 0).all()
    assert (scores <= 1 + 1e-9).all()
    same = baseline.logits([TASK.joined("red car", "red car")])
    assert float(same[0, 0]) == pytest.approx(1)
    assert baseline.kind.startswith("cosine of TF-IDF")


def test_the_head_is_known_by_its_mark_alone() -> None:
    assert task_of_config(tiny_model(**TASK.head_config()).config) == TASK
    assert task_of_config(tiny_model(num_labels=1).config).name == "regression"


# rows


def candidates(queries: int, seed: int) -> list[Row]:
    """Return rows of queries with four candidates: 2 for a good film, 1 for a mixed one, 0 for bad ones."""
    generator = np.random.default_rng(seed)
    made = []
    for number in range(queries):
        query = " ".join(generator.choice(OTHER, 2))
        for relevance, words in ((2, [*GOOD[:2]]), (1, [GOOD[0], BAD[0]]), (0, [*BAD[:2]]), (0, [*BAD[1:3]])):
            text = " ".join(generator.permutation([*words, *generator.choice(OTHER, 3)]))
            made.append({"relevance": relevance, "query": query, "candidate": text, "qid": f"q{seed}-{number}"})
    return [made[row] for row in generator.permutation(len(made))]


def write(path: Path, rows: list[Row]) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def loaded(path: Path, rows: list[Row], **settings: Any) -> Dataset:
    return Files(train=write(path / "train.jsonl", rows), **settings).load("ranking", 1)


def sizes(data: Dataset) -> list[dict[int, int]]:
    found = []
    for split in (data.train, data.validation, data.test):
        groups, counts = np.unique(split.known_labels[:, 0], return_counts=True)
        found.append(dict(zip(groups.astype(int).tolist(), counts.tolist(), strict=True)))
    return found


def test_groups_stay_whole_when_splits_are_cut_and_sampled(tmp_path: Path) -> None:
    data = loaded(tmp_path, candidates(30, 1), train_rows=41)
    train, validation, test = sizes(data)
    assert set(train.values()) == set(validation.values()) == set(test.values()) == {4}
    assert not set(train) & set(validation)
    assert not (set(train) | set(validation)) & set(test)
    assert len(train) == 10
    assert any("40 of" in note and "whole groups (10 of" in note for note in data.notes)
    assert data.task == Ranking(2.0)


def test_without_a_column_of_groups_the_first_text_is_the_group(tmp_path: Path) -> None:
    rows = [{name: value for name, value in row.items() if name != "qid"} for row in candidates(30, 1)]
    data = loaded(tmp_path, rows)
    for split in (data.train, data.validation, data.test):
        groups: dict[float, set[str]] = {}
        for text, group in zip(split.texts, split.known_labels[:, 0], strict=True):
            groups.setdefault(float(group), set()).add(text)
        assert all(len(texts) == 1 for texts in groups.values())


def test_groups_of_other_splits_and_of_unlabelled_rows_are_others(tmp_path: Path) -> None:
    rows = candidates(20, 1)
    more = [{name: value for name, value in row.items() if name != "relevance"} for row in candidates(5, 1)]
    data = loaded(
        tmp_path, rows, test=write(tmp_path / "test.jsonl", rows), unlabelled=write(tmp_path / "u.jsonl", more)
    )
    train, validation, test = sizes(data)
    assert not (set(train) | set(validation)) & set(test)
    whole = data.transfer
    assert whole.labels is not None
    assert np.isnan(whole.labels[len(data.train) :, 1]).all()
    own = whole.labels[len(data.train) :, 0]
    assert sorted(np.unique(own, return_counts=True)[1]) == [4] * 5
    assert not set(own) & {*train, *validation, *test}
    tokens = tokenize(whole, tiny_tokenizer(), 32)
    batch = tokens.whole.batch([0, whole.count - 1])
    assert [tuple(group) for group in batch["labels"][:, 0].reshape(2, 4).tolist()] == [
        (whole.labels[0, 0],) * 4, (own[-1],) * 4,
    ]  # fmt: skip


def test_training_rows_that_are_left_over_keep_their_groups(tmp_path: Path) -> None:
    data = loaded(tmp_path, candidates(30, 1), train_rows=20, unlabelled_rows=13)
    assert data.unlabelled is not None
    assert data.unlabelled.groups is not None
    assert np.unique(data.unlabelled.groups, return_counts=True)[1].tolist() == [4, 4, 4]


def test_another_task_has_no_use_for_a_column_of_groups(tmp_path: Path) -> None:
    path = write(tmp_path / "train.jsonl", candidates(30, 1))
    data = Files(train=path).load("classification", 1)
    assert data.task == Classification(("0", "1", "2"))
    assert data.summary is not None
    assert data.summary.columns[path].ignored == ("qid",)


def changed(number: int, **fields: Any) -> Callable[[list[Row]], list[Row]]:
    return lambda rows: [*rows[:number], rows[number] | fields, *rows[number + 1 :]]


@pytest.mark.parametrize(
    ("change", "settings", "message"),
    [
        (changed(3, qid=""), {}, r"line 4: the group \('qid'\) is empty\. Name the row's group, or remove the row\."),
        (changed(3, qid=[1]), {}, r"line 4: the group \('qid'\) is a list"),
        (changed(2, relevance=-1), {}, r"line 3: the relevance '-1' is not a finite number of 0 or more\. Correct it"),
        (changed(2, relevance="nan"), {}, "line 3: the relevance 'nan' is not a finite number"),
        (changed(2, relevance="good"), {}, "line 3: the relevance 'good' is not a finite number"),
        (changed(2, relevance=""), {}, r"line 3: the label \('relevance'\) is empty"),
        (
            lambda rows: [*rows, {"relevance": 0, "query": "the plot", "candidate": "a b", "qid": "new"}],
            {}, r"line 121: the group of 'the plot' has no relevant row.*Add a relevant candidate, or remove the group",
        ),
        (
            lambda rows: [row | {"qid": str(number), "relevance": 1} for number, row in enumerate(rows)],
            {}, "in each of 120 groups all rows have the same relevance; there is nothing to rank",
        ),
        (
            lambda rows: [{"relevance": row["relevance"], "text": row["candidate"]} for row in rows],
            {}, r"has one text per row, and a ranking needs two.*data\.text=COLUMN data\.text_pair=COLUMN",
        ),
        (lambda rows: rows, {"group": "qidd"}, r"has no column 'qidd' \(data\.group\).*Did you mean qid"),
        (lambda rows: rows, {"train_rows": 3}, r"data\.train_rows = 3 is less than the rows of any group\. Raise it"),
    ],
)  # fmt: skip
def test_bad_rows_are_refused_with_their_place(
    tmp_path: Path, change: Callable[[list[Row]], list[Row]], settings: dict[str, Any], message: str
) -> None:
    with pytest.raises(DataError, match=message):
        loaded(tmp_path, change(candidates(30, 1)), **settings)


# a run


def recipe(folder: Path, **parts: Any) -> Recipe:
    files = {
        name: write(folder / f"{name}.jsonl", candidates(queries, seed))
        for name, queries, seed in (("train", 50, 1), ("validation", 20, 2), ("test", 20, 3))
    }
    teacher = Teacher(
        model=str(folder / "teacher"), epochs=8, learning_rate=1e-2, batch_size=4, max_tokens=32, least_steps=0,
        early_stopping=0,
    )  # fmt: skip
    made = Recipe(
        recipe="ranked", name="run", data=Files(**files), task=TaskChoice(kind="ranking"), teacher=teacher,
        student=Bert(layers=2),
        distill=Distill(
            losses={"margin_mse": MarginMSE(), "pairwise": PairwiseSoftTargets(), "hard": HardLabels()},
            epochs=4, learning_rate=5e-3, batch_size=4,
        ),
        quantize={"dynamic": DynamicInt8()}, export={"onnx": Onnx(), "triton": Triton()},
        benchmark=Benchmark(rows=5, batches=[1], tokens=[8], seconds=0.02, labels_only=False, teacher_int8=False),
        output=str(folder / "run"), cache=str(folder / "cache"),
    )  # fmt: skip
    return replace(made, **parts)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run."""
    folder = tmp_path_factory.mktemp("ranked")
    save_tiny(folder / "teacher")
    recipe(folder).run()
    return folder


def test_a_run_distils_quantizes_and_reports_rankings(finished: Path) -> None:
    report = json.loads((finished / "run" / "report.json").read_text())
    assert report["task"]["main_metric"] == NDCG
    assert all(stage["metrics"][NDCG] > 0.9 for stage in report["stages"])
    artifacts = {artifact["name"]: artifact for artifact in report["artifacts"]}
    assert sorted(artifacts) == ["dynamic", "onnx", "student", "triton"]
    assert artifacts["onnx"]["max_abs_difference"] < 1e-3
    baselines = {entry["name"]: entry for entry in report["baselines"]}
    assert baselines["tfidf"]["kind"].startswith("cosine of TF-IDF")
    assert baselines["constant"]["kind"] == "all candidates alike, in random order"
    assert baselines["constant"]["metrics"][NDCG] < 0.8
    assert "ndcg@10" in (finished / "run" / "report.md").read_text()


def test_candidates_of_a_query_are_answered_best_first(finished: Path) -> None:
    given = [f"{BAD[0]} {BAD[1]} film", f"{GOOD[0]} {GOOD[1]} film", f"{BAD[1]} {BAD[2]} film"]
    answers = predict(finished / "run", "the film", given)
    assert [answer["rank"] for answer in answers] == [1, 2, 3]
    assert answers[0]["candidate"] == given[1]
    scores = [answer["score"] for answer in answers]
    assert scores == sorted(scores, reverse=True)
    both = predict(finished / "run", ["the film", "a scene", "the film"], given)
    assert [(answer["text"], answer["rank"]) for answer in both] == [("the film", 1), ("the film", 2), ("a scene", 1)]


def test_triton_and_the_example_server_score_candidates(finished: Path) -> None:
    from starlette.testclient import TestClient

    given = [f"{word} {word} film" for word in (BAD[0], GOOD[0])]
    inputs = {"TEXT": ["the film"] * 2, "TEXT_PAIR": given}
    asked = {name: np.array([[text.encode()] for text in texts], dtype=np.object_) for name, texts in inputs.items()}
    (logits,) = Server(finished / "run" / "artifacts" / "triton").infer("onnx_text", asked).values()
    app = load(Path(__file__).parents[2] / "examples" / "serve" / "app.py", "serve_ranked")
    with TestClient(app.create_app(finished / "run" / "artifacts" / "onnx")) as client:
        ranked = client.post("/rank", json={"query": "the film", "candidates": given}).json()["candidates"]
        assert [own["index"] for own in ranked] == [1, 0]
        pairs = {"texts": ["the film"] * 2, "pairs": given}
        scores = [own["score"] for own in client.post("/predict", json=pairs).json()["predictions"]]
        assert [ranked[1]["score"], ranked[0]["score"]] == pytest.approx(scores, abs=1e-4)
        assert client.post("/rank", json={"query": "the film", "candidates": []}).status_code == 422
    assert logits.ravel() == pytest.approx(scores, abs=1e-4)


def test_losses_that_do_not_fit_a_ranking_are_named_before_any_work(finished: Path) -> None:
    with pytest.raises(RecipeError) as soft:
        check(recipe(finished, distill=Distill(losses={"soft": SoftTargets()})))
    assert "distill.losses.soft: needs classes, but the labels are relevances. Use margin_mse" in str(soft.value)
    losses = {"mse": LogitsMSE(), "margin_mse": MarginMSE()}
    with pytest.raises(RecipeError) as alone:
        check(recipe(finished, task=TaskChoice(kind="regression"), distill=Distill(losses=losses)))
    assert "compares rows of a group, and rows of the task regression stand alone" in str(alone.value)
