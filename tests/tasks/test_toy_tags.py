"""A task with an answer for every word, complete in this file: its labels, its logits and its report by token."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import Any, Self

import numpy as np
import onnxruntime
import pytest
import torch
from torch import Tensor
from torch.nn import functional
from transformers import AutoModelForTokenClassification

from compress.benchmark.stage import Benchmark
from compress.data import Files
from compress.data.dataset import Split
from compress.distill.losses import HardLabels, SoftTargets
from compress.distill.source import Keep
from compress.distill.stage import Distill
from compress.models.loading import load_model
from compress.models.tokens import tokenize
from compress.quantize.int8 import DynamicInt8
from compress.run.predict import predict
from compress.run.recipe import Recipe
from compress.student.bert import Bert
from compress.tasks import paired
from compress.tasks.adoption import Adoption, adopt_classes
from compress.tasks.base import Array, Baseline, Features, Task
from compress.tasks.functions import UNLABELLED, token_soft_target_loss
from compress.tasks.heads import MARK
from compress.tasks.paired import Difference
from compress.tasks.registry import TASKS, register
from compress.teachers.model import Teacher
from tests.conftest import BAD, GOOD, reviews, save_tiny, tiny_tokenizer, write_tsv

LONGEST = 12  # words that have a label


@dataclass(frozen=True)
class Tags(Task):
    """A tag for each word, written as one word of the label for each word of the text."""

    tags: tuple[str, ...]

    name = "toy_tags"
    auto = AutoModelForTokenClassification
    head = "token classification head"
    pipeline = "token-classification"
    predicts = "tags"
    distributes = True
    metric_names = ("accuracy",)
    test = "a paired bootstrap over texts"
    missing = UNLABELLED
    by_token = True

    @classmethod
    def fits(cls, labels: Sequence[str]) -> bool:
        """Return whether labels are made of a few capital letters each."""
        return all(set(label) <= set("GBO ") for label in set(labels))

    @classmethod
    def of_labels(cls, labels: Sequence[str]) -> Self:
        """Return the task with all tags."""
        return cls(tuple(sorted({tag for label in labels for tag in label.split()})))

    @classmethod
    def refusal(cls, label: str) -> tuple[str, str] | None:
        """Return what is wrong with a label without tags."""
        return None if label.split() else (f"the label {label!r} has no tags.", "Give one for each word.")

    def encode(self, label: str) -> list[int]:
        """Return the tags' numbers."""
        return [self.tags.index(tag) for tag in label.split()][:LONGEST]

    def encoded(self, codes: Sequence[list[int]]) -> Array:
        """Return them (rows, words)."""
        filled = np.full((len(codes), LONGEST), UNLABELLED, dtype=np.int64)
        for row, own in enumerate(codes):
            filled[row, : len(own)] = own
        return filled

    @classmethod
    def answering(cls, text: str, pair: str | None, encoding: Any) -> list[int]:
        """Return the first token of each word."""
        words = text.split()
        starts = {text.index(word, end) for word, end in zip(words, _ends(words), strict=True)}
        special = encoding.special_tokens_mask
        return [place for place, (start, _) in enumerate(encoding.offsets) if not special[place] and start in starts]

    @classmethod
    def owns(cls, config: Any) -> bool:
        """Return whether the class of the saved model says so."""
        return any(name.endswith("ForTokenClassification") for name in config.architectures or [])

    @classmethod
    def of_config(cls, config: Any) -> Self:
        """Return the task with the configuration's tags."""
        return cls(tuple(config.id2label[index] for index in range(len(config.id2label))))

    @property
    def output_names(self) -> tuple[str, ...]:
        """The tags."""
        return self.tags

    def head_config(self) -> dict[str, Any]:
        """Return an output for each tag."""
        names = dict(enumerate(self.tags))
        return {
            MARK: self.name, "id2label": names, "label2id": {name: index for index, name in names.items()},
            "num_labels": len(names), "problem_type": None,
        }  # fmt: skip

    def adopt(self, config: Any, mapping: Mapping[str, str]) -> Adoption:
        """Return how the outputs are read, by their names."""
        return adopt_classes(config, self.tags, mapping)

    def labelled(self, labels: Tensor) -> Tensor:
        """Return which rows have a tag."""
        return (labels != UNLABELLED).any(-1)

    def loss(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Cross-entropy of each row, mean over its tags."""
        known = labels != UNLABELLED
        errors = functional.cross_entropy(logits.transpose(1, 2), labels, reduction="none", ignore_index=UNLABELLED)
        return errors.sum(-1) / known.sum(-1)

    def distance(self, logits: Tensor, others: Tensor, mask: Tensor, temperature: float) -> Tensor:
        """KL of each real token's tags."""
        return token_soft_target_loss(logits, others, mask, temperature)

    def predictions(self, logits: Array) -> Array:
        """Return the tags' numbers (rows, words)."""
        best: Array = logits.argmax(-1)
        return best

    def describe(self, logits: Array) -> list[dict[str, Any]]:
        """Return the tags of each row."""
        return [{"tags": shown.split()} for shown in self.shown(logits, logits)]

    def shown(self, logits: Array, labels: Array) -> list[str]:
        """Return "O G O"."""
        return [" ".join(self.tags[int(row.argmax())] for row in answers if row.any()) for answers in logits]

    def shown_label(self, label: Any) -> str:
        """Return "O G O"."""
        return " ".join(self.tags[tag] for tag in label if tag != UNLABELLED)

    def metrics(self, logits: Array, labels: Array) -> dict[str, float]:
        """Return the share of words with the right tag."""
        right, known = self._right(logits, labels)
        return {"accuracy": float(right.sum() / known.sum())}

    def intervals(self, logits: Array, labels: Array) -> dict[str, tuple[float, float]]:
        """Return an interval that takes each text as one."""
        right, known = self._right(logits, labels)
        shares = right.sum(-1) / known.sum(-1)
        half = 1.96 * shares.std() / np.sqrt(len(shares))
        return {"accuracy": (float(shares.mean() - half), float(shares.mean() + half))}

    def agreement(self, logits: Array, others: Array) -> float:
        """Return the share of texts of which all words have the same tag."""
        return float((self.predictions(logits) == self.predictions(others)).all(-1).mean())

    def difference(self, logits: Array, others: Array, labels: Array) -> Difference:
        """Compare by a paired bootstrap over texts."""
        (right, known), (other, _) = self._right(logits, labels), self._right(others, labels)
        columns = np.stack([right.sum(-1) - other.sum(-1), known.sum(-1)], axis=1).astype(np.float64)
        return paired.of_resampled_rows(self.main_metric, columns, lambda sums: sums[:, 0] / sums[:, 1])

    def baseline(self, texts: Sequence[str], labels: Array, features: Features) -> Baseline:
        """Return the tag that each word has most often."""
        counts: dict[str, Array] = {}
        for text, row in zip(texts, labels, strict=True):
            for word, tag in zip(text.split(), row, strict=False):
                counts.setdefault(word, np.zeros(self.outputs))[tag] += 1

        def logits(given: Sequence[str]) -> Array:
            found = np.zeros((len(given), LONGEST, self.outputs))
            for row, text in enumerate(given):
                for place, word in enumerate(text.split()[:LONGEST]):
                    found[row, place] = counts.get(word, np.ones(self.outputs))
            return found

        return Baseline(kind="the most frequent tag of a word", parameters=len(counts), logits=logits)

    def _right(self, logits: Array, labels: Array) -> tuple[Array, Array]:
        known = labels != UNLABELLED
        return (self.predictions(logits) == labels) & known, known


def _ends(words: list[str]) -> list[int]:
    """Return where each word may begin: behind the one before."""
    return [0, *(length + place for place, length in enumerate(accumulate(map(len, words[:-1])), start=1))]


@pytest.fixture(scope="module", autouse=True)
def known() -> Iterator[None]:
    register(Tags)
    yield
    del TASKS[Tags.name]


def tagged(rows: int, seed: int) -> list[tuple[str, ...]]:
    """Return (tags, text) rows: G and B mark good and bad words."""
    texts = [text for _, text in reviews(rows, seed)]
    return [(" ".join("G" if w in GOOD else "B" if w in BAD else "O" for w in text.split()), text) for text in texts]


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, known: None) -> Path:
    """A finished run."""
    folder = tmp_path_factory.mktemp("tags")
    files = {
        name: str(write_tsv(folder / f"{name}.tsv", tagged(rows, seed)))
        for name, rows, seed in (("train", 160, 1), ("validation", 40, 2), ("test", 60, 3))
    }
    Recipe(
        recipe="toy", name="run", data=Files(**files),
        teacher=Teacher(
            model=str(save_tiny(folder / "teacher")), epochs=15, learning_rate=1e-2, batch_size=16, max_tokens=32,
            least_steps=0, early_stopping=0,
        ),
        student=Bert(layers=2),
        distill=Distill(
            losses={"soft": SoftTargets(), "hard": HardLabels()}, epochs=3, learning_rate=5e-3, batch_size=16,
            teacher_outputs=Keep.disk,
        ),
        quantize={"dynamic": DynamicInt8()},
        benchmark=Benchmark(rows=5, batches=[1], tokens=[8], seconds=0.02),
        output=str(folder / "run"), cache=str(folder / "cache"),
    ).run()  # fmt: skip
    return folder


def test_a_run_distils_tags_and_reports_them(finished: Path) -> None:
    report = json.loads((finished / "run" / "report.json").read_text())
    about = {"kind": "toy_tags", "labels": ["B", "G", "O"], "main_metric": "accuracy", "test": Tags.test}
    assert report["task"] == about
    assert [stage["name"] for stage in report["stages"]] == ["teacher", "distill"]
    assert all(stage["metrics"]["accuracy"] > 0.9 for stage in report["stages"])
    assert [artifact["name"] for artifact in report["artifacts"]] == ["student", "onnx", "dynamic"]
    assert report["artifacts"][1]["max_abs_difference"] < 1e-3
    assert report["artifacts"][1]["agreement"] == 1
    assert report["artifacts"][2]["int8_matmuls"][0] > 0
    baseline = next(entry for entry in report["baselines"] if entry["name"] == "tfidf")
    assert baseline["kind"] == "the most frequent tag of a word"
    assert baseline["metrics"]["accuracy"] == 1


def test_the_graph_answers_for_every_token(finished: Path) -> None:
    model = load_model(finished / "run" / "student")
    assert type(model).__name__ == "BertForTokenClassification"
    session = onnxruntime.InferenceSession(finished / "run" / "artifacts" / "onnx" / "model.onnx")
    given = {name: np.ones((2, 7), dtype=np.int64) for name in (node.name for node in session.get_inputs())}
    (logits,) = session.run(["logits"], given)
    assert logits.shape == (2, 7, 3)
    expected = model(**{name: torch.from_numpy(value) for name, value in given.items()}).logits
    np.testing.assert_allclose(logits, expected.detach().numpy(), atol=1e-5)


def test_a_text_is_answered_word_by_word(finished: Path) -> None:
    (answer,) = predict(finished / "run" / "student", ["the good film was awful"])
    assert answer == {"tags": ["O", "G", "O", "O", "B"]}


def test_the_card_loads_the_class_of_the_task(finished: Path) -> None:
    card = (finished / "run" / "student" / "README.md").read_text()
    assert "pipeline_tag: token-classification" in card
    assert "AutoModelForTokenClassification.from_pretrained(folder)" in card


def test_labels_are_given_to_the_first_token_of_each_word() -> None:
    task = Tags(("B", "G", "O"))
    split = Split(["the great film", "awful"], None, task.encoded([[2, 1, 2], [0]]), Tags)
    tokens = tokenize(split, tiny_tokenizer(), 32)
    batch = tokens.batch([0, 1])
    assert batch["labels"].tolist() == [[-100, 2, 1, 2, -100], [-100, 0, -100, -100, -100]]
    logits = np.arange(2 * 5 * 3, dtype=np.float32).reshape(2, 5, 3)
    gathered = tokens.gathered([([0, 1], logits)])
    assert gathered[0, :3].tolist() == logits[0, 1:4].tolist()
    assert gathered[1, 0].tolist() == logits[1, 1].tolist()
    assert not gathered[1, 1:].any()


def test_words_that_are_cut_off_have_no_answer() -> None:
    task = Tags(("B", "G", "O"))
    split = Split(["the great film"], None, task.encoded([[2, 1, 2]]), Tags)
    tokens = tokenize(split, tiny_tokenizer(max_tokens=4), 4)
    assert tokens.batch([0])["labels"].tolist() == [[-100, 2, 1, -100]]


def test_the_loss_of_a_row_is_that_of_its_own_tags() -> None:
    task = Tags(("B", "G", "O"))
    logits, labels = torch.randn(2, 4, 3), torch.tensor([[-100, 0, 1, -100], [-100, 2, -100, -100]])
    tagged_words = ((0, slice(1, 3)), (1, slice(1, 2)))
    rows = torch.stack([functional.cross_entropy(logits[words], labels[words]) for words in tagged_words])
    torch.testing.assert_close(task.loss(logits, labels), rows)
    torch.testing.assert_close(task.mean_loss(logits, labels), rows.mean())
