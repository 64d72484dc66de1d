from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy.stats import spearmanr
from torch.nn import functional

from compress.benchmark.stage import Benchmark
from compress.data import Files
from compress.data.apart import row_numbers, text_numbers, texts_apart
from compress.data.dataset import Split
from compress.data.rows import Rows
from compress.distill.losses import LOSSES
from compress.distill.losses.contrastive import in_batch_loss
from compress.distill.stage import Distill
from compress.errors import CompressError, DataError, RecipeError
from compress.export.onnx import Onnx
from compress.models.encoders import load_encoder
from compress.models.evaluate import predict_rows
from compress.models.loading import load_config, load_model, load_tokenizer, save_model
from compress.models.sentence_transformers import note_modules
from compress.models.tokens import tokenize
from compress.prune.heads import PruneHeads
from compress.prune.neurons import PruneNeurons
from compress.prune.whitening import Whitening
from compress.quantize.int8 import DynamicInt8
from compress.run.check import check
from compress.run.predict import predict
from compress.run.recipe import Recipe
from compress.student.bert import Bert
from compress.student.bilstm import BiLstm
from compress.student.cnn import Cnn
from compress.student.static import Static
from compress.student.words import WordStart
from compress.tasks.choice import TaskChoice
from compress.tasks.sentence_vectors import POOLINGS, pooled
from compress.tasks.vector_pairs import pairs_of, same_nearest
from compress.tasks.vectors import SentenceVectors
from compress.teachers.model import FineTune, Teacher
from tests.conftest import BAD, FAMILY_NAMES, GOOD, reviews, save_tiny, tiny_tokenizer, write_tsv

TASK = SentenceVectors(0, 5, 4, "mean")


def scored_pairs(rows: int, seed: int) -> list[tuple[str, ...]]:
    """Return (score, text, text) rows: 5 where both reviews are good or both bad, 0 otherwise, with some noise."""
    generator = np.random.default_rng(seed)
    made: list[tuple[str, ...]] = []
    texts = reviews(2 * rows, seed)
    for (_, first), (_, second) in zip(texts[:rows], texts[rows:], strict=True):
        shares = [
            sum(word in GOOD for word in t.split()) - sum(word in BAD for word in t.split()) for t in (first, second)
        ]
        score = 4.0 * (shares[0] * shares[1] > 0) + float(generator.uniform(0, 1))
        made.append((f"{score:.3f}", first, second))
    return made


def numbered(rows: int) -> np.ndarray:
    """Return numbers of texts (rows, 2), all different."""
    return np.arange(2.0 * rows).reshape(rows, 2)


def labels_of(*rows: tuple[float, float, float]) -> np.ndarray:
    return np.array(rows, dtype=np.float64)


def pair_files(folder: Path) -> dict[str, str]:
    sizes = {"train": (80, 1), "validation": (30, 2), "test": (30, 3)}
    return {name: str(write_tsv(folder / f"{name}.tsv", scored_pairs(*size))) for name, size in sizes.items()}


def quick(folder: Path, model: Path, **settings: Any) -> Recipe:
    return Recipe(
        recipe="toy", name="run", output=str(folder / "out"), cache=str(folder / "cache"),
        **{
            "task": TaskChoice(kind="vectors"),
            "data": Files(**pair_files(folder)),
            "teacher": Teacher(model=str(model), max_tokens=16),
            "student": Bert(layers=2),
            "distill": Distill(epochs=2, learning_rate=1e-3, losses={"alignment": LOSSES["alignment"]()}),
            "benchmark": Benchmark(rows=3, batches=[1], tokens=[8], seconds=0.01, teacher_int8=False),
            **settings,
        },
    )  # fmt: skip


# pairs


def naive_pairs(labels: np.ndarray) -> set[tuple[int, int, float]]:
    found = set()
    for item in range(len(labels)):
        for second in range(len(labels)):
            same = labels[item, 0] == labels[second, 0] and labels[item, 1] == 0 and labels[second, 1] == 1
            if same and not np.isnan(labels[item, 2]):
                found.add((item, second, float(labels[item, 2])))
    return found


@pytest.mark.parametrize("seed", range(5))
def test_pairs_are_found_in_any_order_and_texts_without_their_other_are_left_out(seed: int) -> None:
    generator = np.random.default_rng(seed)
    whole = TASK.parted(generator.uniform(0, 5, 12), generator.permutation(40)[:12].astype(float), numbered(12))
    whole = np.concatenate([whole, np.full((3, 4), np.nan)])
    labels = whole[generator.permutation(len(whole))[:20]]
    found = pairs_of(labels)
    assert set(zip(found.first.tolist(), found.second.tolist(), found.scores.tolist(), strict=True)) == naive_pairs(
        labels
    )
    tensors = pairs_of(torch.from_numpy(labels))
    assert tensors.first.tolist() == found.first.tolist()
    assert tensors.second.tolist() == found.second.tolist()
    assert tensors.scores.tolist() == found.scores.tolist()


def test_spearman_is_that_of_the_cosines_of_pairs() -> None:
    generator = np.random.default_rng(0)
    vectors, scores = generator.normal(size=(40, 4)), generator.uniform(0, 5, 20)
    labels = TASK.parted(scores, np.arange(20.0), numbered(20))
    by_hand = [a @ b / np.sqrt(a @ a * (b @ b)) for a, b in zip(vectors[::2], vectors[1::2], strict=True)]
    metrics = TASK.metrics(vectors, labels)
    assert metrics["spearman"] == pytest.approx(spearmanr(by_hand, scores).statistic)
    assert metrics["pearson"] == pytest.approx(np.corrcoef(by_hand, scores)[0, 1])
    low, high = TASK.intervals(vectors, labels)["spearman"]
    assert low < metrics["spearman"] < high
    order = generator.permutation(40)
    assert TASK.metrics(vectors[order], labels[order])["spearman"] == pytest.approx(metrics["spearman"])
    wide = np.concatenate([generator.normal(size=(40, 64)), vectors], axis=1)
    assert TASK.metrics(wide, labels)["spearman@64"] == TASK.metrics(wide[:, :64], labels)["spearman"]
    assert "spearman@64" in TASK.intervals(wide, labels)
    assert TASK.metrics(vectors[:1], labels[:1]) == {"spearman": 0.0, "pearson": 0.0}


def test_a_difference_is_that_of_the_metric_and_its_interval_is_over_pairs() -> None:
    generator = np.random.default_rng(0)
    scores = generator.uniform(0, 5, 60)
    angle = np.arccos(scores / 5)
    good = np.stack([np.stack([np.ones(60), np.zeros(60)], 1), np.stack([np.cos(angle), np.sin(angle)], 1)], 1)
    labels, bad = TASK.parted(scores, np.arange(60.0), numbered(60)), generator.normal(size=(120, 2))
    good = good.reshape(120, 2)
    assert TASK.metrics(good, labels)["spearman"] == pytest.approx(1.0)
    for metric in ("spearman", "pearson"):
        task = TASK.judged_by(metric)
        found = task.difference(good, bad, labels)
        assert found.value == pytest.approx(task.metrics(good, labels)[metric] - task.metrics(bad, labels)[metric])
        assert found.clear
        assert found.low > 0
    over_seeds = TASK.difference_over_seeds([good, good], [bad, bad], labels)
    assert over_seeds.value == pytest.approx(TASK.difference(good, bad, labels).value)


def test_the_loss_on_labels_is_the_squared_error_of_whole_pairs_and_each_text_has_its_own() -> None:
    generator = torch.Generator().manual_seed(0)
    vectors = torch.randn(7, 4, generator=generator, requires_grad=True)
    nan = float("nan")
    labels = torch.from_numpy(
        labels_of((9, 1, 5), (3, 0, 2), (9, 0, 5), (8, 0, 1), (3, 1, 2), (nan, nan, nan), (7, 1, 0))
    )
    single = (functional.cosine_similarity(vectors[2], vectors[0], dim=0) - 1) ** 2
    second = (functional.cosine_similarity(vectors[1], vectors[4], dim=0) - 0.4) ** 2
    torch.testing.assert_close(TASK.mean_loss(vectors, labels), (single + second) / 2)
    expected = torch.stack([single, second, single, 0 * single, second, 0 * single, 0 * single])
    torch.testing.assert_close(TASK.loss(vectors, labels), expected)
    assert TASK.labelled(labels).tolist() == [True, True, True, True, True, False, True]
    assert TASK.mean_loss(vectors[:3], labels[[3, 5, 6]]).item() == 0.0


def test_documents_are_found_as_a_loop_over_queries_finds_them() -> None:
    generator = np.random.default_rng(0)
    queries, documents = generator.normal(size=(15, 4)), generator.normal(size=(30, 4))
    rows = [(q, d, float(generator.integers(0, 3))) for q in range(15) for d in generator.permutation(30)[:4]]
    texts = np.array([(q, 100 + d) for q, d, _ in rows], dtype=np.float64)
    labels = TASK.parted(np.array([score for *_, score in rows]), np.arange(float(len(rows))), texts)
    vectors = np.stack([side for q, d, _ in rows for side in (queries[q], documents[d])])
    used = sorted({d for _, d, _ in rows})
    recalls, gained = [], []
    for query in range(15):
        relevance = {d: score for q, d, score in rows if q == query and score > 0}
        if not relevance:
            continue
        cosine = {d: documents[d] @ queries[query] / np.linalg.norm(documents[d]) for d in used}
        order = sorted(used, key=lambda d: -cosine[d])[:10]
        recalls.append(len(set(order) & set(relevance)) / len(relevance))
        ideal = sorted(relevance.values(), reverse=True)[:10]
        sums = [sum(gain / np.log2(place + 2) for place, gain in enumerate(gains)) for gains in (
            [relevance.get(d, 0.0) for d in order], ideal)]  # fmt: skip
        gained.append(sums[0] / sums[1])
    task = TASK.judged_by("ndcg@10")
    metrics = task.metrics(vectors, labels)
    assert metrics["recall@10"] == pytest.approx(np.mean(recalls))
    assert metrics["ndcg@10"] == pytest.approx(np.mean(gained))
    low, high = task.intervals(vectors, labels)["recall@10"]
    assert low < metrics["recall@10"] < high
    second = generator.normal(size=vectors.shape)
    found = task.difference(vectors, second, labels)
    assert found.value == pytest.approx(metrics["ndcg@10"] - task.metrics(second, labels)["ndcg@10"])
    over_seeds = task.difference_over_seeds([vectors, vectors], [second, second], labels)
    assert over_seeds.value == pytest.approx(found.value)
    assert "ndcg@10" not in TASK.metrics(vectors, labels)


def test_relevant_documents_are_found_among_those_of_the_batch_that_are_not_relevant_to_the_query() -> None:
    """Query 0 has the relevant documents 10 and 11 and the irrelevant 12, query 1 has 12; document 10 comes twice."""
    rows = [(7, 0, 1), (7, 10, 2), (7, 11, 1), (7, 12, 0), (9, 1, 1), (9, 12, 1), (4, 0, 1), (4, 10, 1)]
    place = [0, 1, 1, 1, 0, 1, 0, 1]
    labels = torch.tensor(
        [[row, own, score, text] for (row, text, score), own in zip(rows, place, strict=True)], dtype=torch.float64
    )
    generator = torch.Generator().manual_seed(0)
    of_text = {text: torch.randn(3, generator=generator) for text in (0, 1, 10, 11, 12)}
    vectors = torch.stack([of_text[text] for _, text, _ in rows]).requires_grad_()
    queries, documents, relevant = TASK.relevant(labels)
    assert labels[queries, 3].tolist() == [0, 1]
    assert labels[documents, 3].tolist() == [10, 11, 12]
    assert relevant.tolist() == [[True, True, False], [False, False, True]]
    scores = {(q, d): functional.cosine_similarity(of_text[q], of_text[d], dim=0) / 0.1
              for q in (0, 1) for d in (10, 11, 12)}  # fmt: skip
    expected = []
    for query, document, others in ((0, 10, [12]), (0, 11, [12]), (1, 12, [10, 11])):
        found = scores[query, document].exp()
        expected.append(-(found / (found + sum(scores[query, second].exp() for second in others))).log())
    loss = in_batch_loss(vectors[queries], vectors[documents], relevant, 0.1)
    torch.testing.assert_close(loss, torch.stack(expected).mean())
    loss.backward()
    assert in_batch_loss(vectors[queries], vectors[documents], torch.zeros_like(relevant), 0.1) == 0


def test_margins_are_those_of_a_querys_inner_products_with_its_own_documents() -> None:
    labels = torch.from_numpy(np.array([
        (5, 0, 1, 0), (5, 1, 1, 1), (6, 0, 1, 2), (5, 1, 0, 3), (6, 1, 1, 4), (6, 1, 1, 5), (np.nan,) * 4,
    ]))  # fmt: skip
    vectors = torch.randn(7, 3, generator=torch.Generator().manual_seed(0))
    near = vectors[0] @ vectors[1] - vectors[0] @ vectors[3]
    alike = vectors[2] @ vectors[4] - vectors[2] @ vectors[5]
    torch.testing.assert_close(TASK.margins(vectors, labels, differing=True), near[None])
    torch.testing.assert_close(TASK.margins(vectors, labels, differing=False), torch.stack([near, alike]))


def test_vectors_agree_by_their_angle_and_by_their_neighbours_where_widths_differ() -> None:
    generator = np.random.default_rng(0)
    vectors = generator.normal(size=(30, 8))
    assert TASK.agreement(vectors, 3 * vectors) == 1.0
    turned = vectors.copy()
    turned[:15] = -turned[:15]
    assert TASK.agreement(vectors, turned) == 0.5
    wider = np.concatenate([vectors, np.zeros((30, 4))], axis=1)
    assert TASK.agreement(vectors, wider) == 1.0
    second = generator.normal(size=(30, 3))
    nearest = []
    for side in (vectors, second):
        unit = side / np.linalg.norm(side, axis=1, keepdims=True)
        nearest.append([max((j for j in range(30) if j != i), key=lambda j: unit[i] @ unit[j]) for i in range(30)])
    assert same_nearest(vectors, second) == pytest.approx(np.mean(np.equal(*nearest)))


# rows


def test_both_texts_of_a_row_stay_together_when_rows_are_drawn_joined_and_batched() -> None:
    rows = Rows("f", ["a b", "c", "a b", "d e f"], ["x", "y z", "x", "w"], ["1", "2", "1", "4"])
    labels = TASK.parted(np.array([1.0, 2, 1, 4]), row_numbers(rows), text_numbers(rows))
    split = Split(texts_apart(rows).texts, labels=labels, grouped=True)
    assert list(split.texts) == ["a b", "x", "c", "y z", "a b", "x", "d e f", "w"]
    assert split.groups is not None
    assert split.groups.tolist() == [0, 0, 1, 1, 2, 2, 3, 3]
    taken = split.take(np.array([7, 2]))
    assert list(taken.texts) == ["d e f", "w", "c", "y z"]
    longer = split.followed_by(Split(["more", "texts"]))
    assert longer.groups is not None
    assert longer.groups.tolist() == [0, 0, 1, 1, 2, 2, 3, 3, 4, 5]
    assert longer.steps(4) == 2
    tokens = tokenize(split, tiny_tokenizer(), 16)
    batches = [sorted(split.groups[rows].tolist()) for rows in tokens.batches(4)]
    assert [len(set(groups)) * 2 == len(groups) for groups in batches] == [True, True]
    assert sorted(group for groups in batches for group in groups) == split.groups.tolist()
    assert tokens.whole.batch([1, 3])["rows"].tolist() == [2, 3, 6, 7]
    assert tokens.whole.lengths.tolist() == [max(tokens.lengths[2 * i : 2 * i + 2]) for i in range(4)]


def test_a_query_with_its_positive_and_negative_texts_is_read_once_and_stays_together(tmp_path: Path) -> None:
    path = tmp_path / "train.jsonl"
    lines = [{"query": f"q {n}", "positive": f"p {n}", "negatives": [f"n {n}", f"m {n}"][: n % 3]} for n in range(40)]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    held = write_tsv(
        tmp_path / "held.tsv", [("relevance", "query", "document"), ("2", "q 1", "p 1"), ("0", "q 1", "x")]
    )
    data = Files(train=str(path), validation=str(held), test=str(held)).load(
        TaskChoice(kind="vectors", metric="ndcg@10"), 0
    )  # fmt: skip
    assert list(data.train.texts)[:7] == ["q 0", "p 0", "q 1", "p 1", "n 1", "q 2", "p 2"]
    assert data.train.groups is not None
    assert data.train.groups.tolist()[:9] == [0, 0, 1, 1, 1, 2, 2, 2, 2]
    pairs = pairs_of(data.train.known_labels)
    found = [(data.train.texts[a], data.train.texts[b], score) for a, b, score in zip(
        pairs.first, pairs.second, pairs.scores, strict=True)]  # fmt: skip
    assert found[:3] == [("q 0", "p 0", 1.0), ("q 1", "p 1", 1.0), ("q 1", "n 1", 0.0)]
    assert len(data.test) == 4  # rows of their own, as nothing says that they belong together
    assert data.task.metrics(np.eye(4), data.test.known_labels)["ndcg@10"] > 0


def test_losses_that_compare_documents_need_a_query_with_two(tmp_path: Path) -> None:
    teacher, margins = save_tiny(tmp_path / "teacher"), Distill(losses={"margin_mse": LOSSES["margin_mse"]()})
    with pytest.raises(RecipeError, match=r"distill\.losses\.margin_mse.*no training row has more than one"):
        check(quick(tmp_path, teacher, distill=margins))


def test_bad_rows_are_refused_with_their_line(tmp_path: Path) -> None:
    path = write_tsv(tmp_path / "train.tsv", [("1.5", "a", "b"), ("nan", "c", "d"), ("2", "e", "f")])
    with pytest.raises(DataError, match="line 2: the score 'nan' is not a finite number"):
        Files(train=str(path)).load("vectors", 0)
    path = write_tsv(tmp_path / "one.tsv", [("1.5", "a"), ("2", "c")])
    with pytest.raises(DataError, match="one text and a label, and task=vectors needs two texts"):
        Files(train=str(path)).load("vectors", 0)
    with pytest.raises(RecipeError, match=r"task\.pooling = 'median'.*mean, cls, max"):
        Files(**pair_files(tmp_path)).load(TaskChoice(kind="vectors", pooling="median"), 0)
    with pytest.raises(RecipeError, match=r"task\.pooling = 'cls'.*no sentence vectors"):
        Files(**pair_files(tmp_path)).load(TaskChoice(kind="regression", pooling="cls"), 0)


# models


@pytest.mark.parametrize("pooling", POOLINGS)
def test_pooling_is_that_of_a_loop_over_real_tokens(pooling: str) -> None:
    states = torch.randn(3, 5, 4, generator=torch.Generator().manual_seed(0))
    mask = torch.tensor([[1, 1, 1, 1, 1], [1, 1, 0, 0, 0], [1, 0, 0, 0, 0]])
    expected = []
    for row, real in zip(states, mask.bool(), strict=True):
        expected.append({"mean": row[real].mean(0), "max": row[real].max(0).values, "cls": row[0]}[pooling])
    torch.testing.assert_close(pooled(states, mask, pooling), torch.stack(expected))


def encoder(folder: Path, **head: Any) -> Any:
    config = load_config(folder)
    note_modules(config, folder)
    task = SentenceVectors(0, 5)
    task, _ = task.renumbered(task.adopt(config, {}), [])  # type: ignore[assignment]
    return load_encoder(folder, config, task.head_config() | head, trained=False)


@pytest.mark.parametrize("family", FAMILY_NAMES)
def test_any_encoder_gives_its_own_pooled_states_whatever_the_padding(tmp_path: Path, family: str) -> None:
    folder = save_tiny(tmp_path / family, family)
    model, tokenizer = encoder(folder), load_tokenizer(folder)
    texts = ["the film was good", "awful"]
    vectors = predict_rows(model, tokenize(Split(texts), tokenizer, 16))
    for text, vector in zip(texts, vectors, strict=True):
        batch = tokenize(Split([text]), tokenizer, 16).batch([0])
        inputs = {name: batch[name] for name in tokenizer.model_input_names}
        with torch.no_grad():
            states = model.base_model(**inputs)[0][0].mean(0)
        torch.testing.assert_close(torch.from_numpy(vector), states / states.norm())
    save_model(model, tokenizer, tmp_path / "again")
    assert (predict_rows(load_model(tmp_path / "again"), tokenize(Split(texts), tokenizer, 16)) == vectors).all()


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("pooling", POOLINGS)
def test_sentence_transformers_opens_our_folders_and_gives_the_same_vectors(tmp_path: Path, pooling: str) -> None:
    sentence_transformers = pytest.importorskip("sentence_transformers")
    folder = save_tiny(tmp_path / "encoder")
    model, tokenizer = encoder(folder, vector_pooling=pooling), load_tokenizer(folder)
    texts = ["the film was good", "awful", "so and so"]
    for name in ("identity", "dense"):
        (tmp_path / name).mkdir()
        save_model(model, tokenizer, tmp_path / name)
        ours = predict_rows(model, tokenize(Split(texts), tokenizer, 32))
        theirs = sentence_transformers.SentenceTransformer(str(tmp_path / name), device="cpu")
        assert np.abs(theirs.encode(texts) - ours).max() < 1e-5
        assert theirs.max_seq_length == 32
        theirs.save(str(tmp_path / f"{name}-saved"))  # and the way back
        again = encoder(tmp_path / f"{name}-saved")
        assert np.abs(predict_rows(again, tokenize(Split(texts), tokenizer, 32)) - ours).max() < 1e-5
        with torch.no_grad():
            model.classifier.weight.add_(0.1 * torch.randn(16, 16))


def with_modules(folder: Path, *modules: str, **files: Any) -> Path:
    entries = [
        {"type": f"sentence_transformers.models.{name}", "path": name if n else ""} for n, name in enumerate(modules)
    ]
    (folder / "modules.json").write_text(json.dumps(entries))
    for name, content in {"Pooling/config": {"pooling_mode_cls_token": True}, **files}.items():
        (folder / f"{name}.json").parent.mkdir(exist_ok=True)
        (folder / f"{name}.json").write_text(json.dumps(content))
    return folder


def test_what_a_folder_of_sentence_transformers_says_is_followed_or_refused(tmp_path: Path) -> None:
    folder, files = save_tiny(tmp_path / "encoder"), pair_files(tmp_path)

    def refusal(*modules: str, **settings: Any) -> str:
        pooling = settings.pop("pooling", None)
        with_modules(folder, *modules, **settings)
        data = Files(**files).load(TaskChoice(kind="vectors", pooling=pooling), 0)
        with pytest.raises(CompressError) as error:
            Teacher(model=str(folder), max_tokens=16).inspect(data)
        return str(error.value)

    told = with_modules(folder, "Transformer", "Pooling")
    data = Files(**files).load("vectors", 0)
    found = Teacher(model=str(told), max_tokens=16).inspect(data)
    assert isinstance(found.data.task, SentenceVectors)
    assert (found.data.task.pooling, found.data.task.normalized, found.data.task.width) == ("cls", False, 16)
    assert "pooled by cls and have their own length" in found.lines[0]
    assert "pooling cls, and task.pooling is mean" in refusal("Transformer", "Pooling", pooling="mean")
    assert "only Transformer → Pooling" in refusal("Transformer", "WordWeights", "Pooling")
    lasttoken = {"Pooling/config": {"pooling_mode_lasttoken": True}}
    assert "pooling_mode_lasttoken" in refusal("Transformer", "Pooling", **lasttoken)
    prompts = {"prompts": {"query": "query: "}, "default_prompt_name": "query"}
    back = {"Pooling/config": {"pooling_mode_mean_tokens": True}, "config_sentence_transformers": prompts}
    assert "puts the prompt 'query'" in refusal("Transformer", "Pooling", **back)


# a run


def test_a_whole_run_distils_vectors_prunes_exports_and_predicts(tmp_path: Path) -> None:
    teacher = save_tiny(tmp_path / "teacher")
    more = tmp_path / "more.txt"
    more.write_text("".join(f"{text}\n{second}\n" for _, text, second in scored_pairs(10, 5)))
    recipe = quick(
        tmp_path, teacher, data=Files(**pair_files(tmp_path), unlabelled=str(more)),
        prune={"neurons": PruneNeurons(ratio=0.5, recovery_epochs=1), "whitening": Whitening(dimensions=8)},
        quantize={"dynamic": DynamicInt8()}, export={"onnx": Onnx()},
    )  # fmt: skip
    run = recipe.run()
    report = run.report
    assert report.task.kind == "vectors"
    assert report.task.main_metric == "spearman"
    by_name = {stage.name: stage for stage in report.stages}
    curve = [point["alignment"] for point in by_name["distill"].curves if "alignment" in point]
    assert curve[-1] < curve[0]
    assert {artifact.name for artifact in report.artifacts} == {"student", "onnx", "dynamic"}
    onnx = next(artifact for artifact in report.artifacts if artifact.name == "onnx")
    assert onnx.metrics["spearman"] == pytest.approx(report.artifacts[0].metrics["spearman"], abs=1e-4)
    assert {baseline.name for baseline in report.baselines} == {"tfidf", "labels_only"}
    answers = predict(run.folder / "artifacts" / "onnx", ["good film", "awful"])
    vectors = np.array([answer["vector"] for answer in answers])
    assert vectors.shape == (2, 8)
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1.0, rtol=1e-5)
    ranked = {"text": "awful", "cosine": pytest.approx(vectors[0] @ vectors[1], abs=1e-6)}
    assert (answers[0]["nearest"], answers[0]["ranking"]) == ("awful", [ranked])
    student = predict(run.folder / "student", ["good film", "awful"])
    np.testing.assert_allclose(vectors, [answer["vector"] for answer in student], atol=1e-5)
    assert not (run.folder / "student" / "modules.json").exists()  # its layers are narrower than transformers builds


@pytest.mark.parametrize(
    "student", [Cnn(filters=6, widths=[1, 2]), BiLstm(hidden_size=8), Static(start=WordStart.random)]
)
def test_students_without_attention_give_vectors_whatever_the_padding(tmp_path: Path, student: Any) -> None:
    model = student.build(encoder(save_tiny(tmp_path / "teacher")))
    texts = ["the film was good", "awful"]
    vectors = predict_rows(model, tokenize(Split(texts), tiny_tokenizer(), 16))
    assert vectors.shape == (2, 16)
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1.0, rtol=1e-6)
    alone = predict_rows(model, tokenize(Split(texts[1:]), tiny_tokenizer(), 16))
    np.testing.assert_allclose(alone[0], vectors[1], atol=1e-6)
    save_model(model, tiny_tokenizer(), tmp_path / "student")
    assert (
        predict_rows(load_model(tmp_path / "student"), tokenize(Split(texts), tiny_tokenizer(), 16)) == vectors
    ).all()


@pytest.mark.slow
def test_documents_and_negative_texts_teach_a_student_beside_its_teachers_margins(tmp_path: Path) -> None:
    made = [(text, label) for label, text in reviews(120, 1)]
    good, bad = ([text for text, label in made if label == name] for name in ("good", "bad"))
    train = [("query", "positive", "negative"), *(("good", *both) for both in zip(good, bad, strict=False))]
    train += [("bad", *both) for both in zip(bad, good, strict=False)]
    files = {name: str(write_tsv(tmp_path / f"{name}s.tsv", train)) for name in ("train", "validation", "test")}
    losses = {name: LOSSES[name]() for name in ("contrastive", "margin_mse")}
    recipe = quick(
        tmp_path, save_tiny(tmp_path / "teacher"), data=Files(**files), export={},
        task=TaskChoice(kind="vectors", metric="ndcg@10"), distill=Distill(epochs=4, learning_rate=1e-2, losses=losses),
        benchmark=Benchmark(rows=3, batches=[1], tokens=[8], seconds=0.01, teacher_int8=False, labels_only=False),
    )  # fmt: skip
    report = recipe.run().report
    before, after = (stage.metrics["ndcg@10"] for stage in report.stages)
    assert after > max(before, 0.6)
    assert "each text in 'positive' is a row with relevance 1, those in 'negative' relevance 0" in " ".join(
        report.dataset.notes
    )


@pytest.mark.slow
@pytest.mark.parametrize("student", [Cnn(filters=6, widths=[1, 2]), BiLstm(hidden_size=8)])
def test_students_without_attention_learn_vectors(tmp_path: Path, student: Any) -> None:
    recipe = quick(tmp_path, save_tiny(tmp_path / "teacher"), student=student, export={"onnx": Onnx()})
    recipe.distill.epochs, recipe.distill.learning_rate = 3, 1e-2
    recipe.distill.losses = {"alignment": LOSSES["alignment"](), "similarities": LOSSES["similarities"]()}
    recipe.benchmark.labels_only = False
    report = recipe.run().report
    curve = [point["alignment"] for point in report.stages[-1].curves if "alignment" in point]
    assert curve[-1] < 0.7 * curve[0]
    assert (report.artifacts[1].max_abs_difference or 0) < 1e-5


@pytest.mark.slow
def test_a_teacher_is_fine_tuned_on_scores_and_heads_leave_by_the_loss_on_labels(tmp_path: Path) -> None:
    teacher = Teacher(
        model=str(save_tiny(tmp_path / "teacher")), max_tokens=16, fine_tune=FineTune.always, epochs=40, least_steps=0,
        learning_rate=1e-3,
    )  # fmt: skip
    prune = {"heads": PruneHeads(ratio=0.5, recovery_epochs=0)}
    report = quick(tmp_path, tmp_path, teacher=teacher, prune=prune).run().report
    assert report.stages[0].metrics["spearman"] > 0.5


def test_losses_of_vectors_are_refused_where_the_task_has_none(tmp_path: Path) -> None:
    recipe = quick(tmp_path, save_tiny(tmp_path / "teacher"))
    recipe.task = TaskChoice(kind="regression")
    with pytest.raises(RecipeError, match=r"distill\.losses\.alignment.*compares vectors of texts"):
        check(recipe)
