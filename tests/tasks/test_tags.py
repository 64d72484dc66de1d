from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn import functional

from compress.data import Files
from compress.data.dataset import Split
from compress.models.row_lengths import with_cuts
from compress.models.tokens import tokenize
from compress.tasks.base import Task
from compress.tasks.functions import UNLABELLED
from compress.tasks.tags import Tags
from tests.conftest import tiny_tokenizer

TASK = Tags(("O", "B-a", "I-a"))


def logits_of(*rows: str, tags: tuple[str, ...] = TASK.tags, words: int = 0) -> np.ndarray:
    """Return logits that give each row these tags, and "-" no answer."""
    longest = max(words, *(len(row.split()) for row in rows))
    made = np.zeros((len(rows), longest, len(tags)))
    for row, tags_of_row in enumerate(rows):
        for word, tag in enumerate(tags_of_row.split()):
            if tag != "-":
                made[row, word, tags.index(tag)] = 4.0
    return made


def encoded(*rows: str) -> np.ndarray:
    return TASK.encoded([TASK.encode(row) for row in rows])


def test_tags_that_mark_spans_are_known_by_their_form() -> None:
    assert Tags.fits(["O B-a I-a", "O O"])
    assert not Tags.fits(["positive", "negative"])
    assert not Tags.fits(["O", "B-a"])  # one label per row
    assert not Tags.fits(["NOUN VERB", "NOUN"])
    assert Tags.of_labels(["O B-b", "I-a B-a"]).tags == ("O", "B-a", "I-a", "B-b")


def test_the_first_token_of_each_word_answers_and_a_word_without_any_has_no_answer() -> None:
    split = Split(["the \x08 great-film awful"], None, encoded("O I-a B-a O"), Tags)
    tokens = tokenize(split, tiny_tokenizer(), 32)
    assert tokens.answering is not None
    assert tokens.answering.tolist() == [[1, -1, 2, 5]]  # great - film are three tokens
    batch = tokens.batch([0])
    assert batch["labels"].tolist() == [[-100, 0, 1, -100, -100, 0, -100]]
    assert batch["answering"].tolist() == [[0, 1, 1, 0, 0, 1, 0]]


def test_words_that_are_cut_off_keep_their_labels_and_have_no_answer() -> None:
    split = Split(["the great film"], None, encoded("O B-a I-a"), Tags)
    tokens = tokenize(split, tiny_tokenizer(max_tokens=4), 4)
    logits = tokens.gathered([([0], np.ones((1, 4, 3)))])
    assert TASK.predictions(logits).tolist() == [[0, 0, -1]]
    assert TASK.metrics(logits, split.known_labels)["accuracy"] == pytest.approx(1 / 3)


def test_the_loss_is_the_mean_over_words_and_that_of_a_row_over_its_own() -> None:
    logits, labels = torch.randn(2, 4, 3), torch.tensor([[-100, 0, 1, -100], [-100, 2, -100, -100]])
    words = torch.stack([logits[0, 1], logits[0, 2], logits[1, 1]])
    torch.testing.assert_close(TASK.mean_loss(logits, labels), functional.cross_entropy(words, torch.tensor([0, 1, 2])))
    torch.testing.assert_close(TASK.loss(logits, labels)[0], functional.cross_entropy(words[:2], torch.tensor([0, 1])))
    assert TASK.mean_loss(logits, torch.full((2, 4), UNLABELLED)) == 0


def test_soft_targets_are_compared_word_by_word() -> None:
    ours, theirs = torch.randn(2, 3, 3), torch.randn(2, 3, 3)
    read = torch.tensor([[0, 1, 0], [1, 1, 0]])
    by_word = []
    for row, token in read.nonzero():
        p, q = (functional.softmax(side[row, token] / 2, -1) for side in (theirs, ours))
        by_word.append(4 * (p * (p / q).log()).sum())
    torch.testing.assert_close(TASK.distance(ours, theirs, read, 2.0), torch.stack(by_word).mean())


def test_answers_are_spans_of_the_text_that_people_wrote() -> None:
    text = "the film, so great"
    (answer,) = TASK.answers(logits_of("O B-a I-a O O"), [text])
    (span,) = answer["spans"]
    assert (span["label"], text[span["start"] : span["end"]]) == ("a", "film,")
    share = float(torch.softmax(torch.tensor([0.0, 0.0, 4.0]), -1)[2])
    assert span["score"] == pytest.approx(share)
    assert Tags.read(text) == "the film , so great"
    assert TASK.answers(logits_of("O - O"), ["a b c"])[0]["spans"] == []


def test_viterbi_keeps_to_the_scheme_where_the_likeliest_tags_do_not() -> None:
    logits = logits_of("O I-a O")
    logits[0, 1] = [1.0, 3.9, 4.0]
    assert TASK.describe(logits) == [{"tags": ["O", "I-a", "O"]}]
    plain, viterbi = (TASK.answers(logits, ["a b c"], decoding)[0]["spans"][0] for decoding in ("", "viterbi"))
    assert (plain["start"], plain["end"]) == (viterbi["start"], viterbi["end"])
    assert viterbi["score"] < plain["score"]


def test_raw_tags_are_answered_word_by_word_and_measured_by_accuracy() -> None:
    task = Tags(("NOUN", "VERB"))
    assert (task.main_metric, TASK.main_metric) == ("accuracy", "f1")
    (answer,) = task.answers(logits_of("NOUN VERB", tags=task.tags), ["dogs bark"])
    assert [(span["label"], span["text"]) for span in answer["spans"]] == [("NOUN", "dogs"), ("VERB", "bark")]


def test_labels_are_renumbered_as_a_head_numbers_them() -> None:
    config = type("Config", (), {"num_labels": 3, "problem_type": None, "label2id": {}})()
    config.id2label = {0: "I-a", 1: "O", 2: "B-a"}
    task, (labels,) = TASK.renumbered(TASK.adopt(config, {}), [np.array([[0, 1, UNLABELLED]])])
    assert task == Tags(("I-a", "O", "B-a"))
    assert labels.tolist() == [[1, 2, UNLABELLED]]


def test_a_difference_is_that_of_the_metrics_and_is_clear_where_one_side_is_right() -> None:
    labels = encoded(*["B-a I-a O", "O B-a O"] * 30)
    right, wrong = logits_of(*["B-a I-a O", "O B-a O"] * 30), logits_of(*["B-a O O", "O B-a O"] * 30)
    difference = TASK.difference(right, wrong, labels)
    assert difference.metric == "f1"
    assert difference.value == pytest.approx(TASK.metrics(right, labels)["f1"] - TASK.metrics(wrong, labels)["f1"])
    assert difference.clear
    assert not TASK.difference(right, right, labels).clear


def test_intervals_hold_the_value_and_shrink_with_more_rows() -> None:
    widths = []
    for rows in (40, 640):
        generator = np.random.default_rng(rows)
        labels, noise = generator.integers(0, 3, (2, rows, 6))
        answers = np.where(generator.random(labels.shape) < 0.8, labels, noise)
        logits = np.eye(3)[answers]
        low, high = TASK.intervals(logits, labels)["f1"]
        assert low < TASK.metrics(logits, labels)["f1"] < high
        widths.append(high - low)
    assert widths[1] < widths[0] / 2


def test_the_f1_of_one_type_can_decide() -> None:
    task = Tags(("O", "B-a", "B-b"), metric="f1:b")
    labels = np.array([[1, 2, 0], [0, 2, 1]])
    logits = np.eye(3)[np.array([[1, 0, 0], [0, 2, 0]])]
    assert task.metrics(logits, labels)["f1:b"] == pytest.approx(2 / 3)
    assert task.difference(np.eye(3)[labels], logits, labels).value == pytest.approx(1 / 3)
    assert [(item.label, item.rows, item.recall) for item in task.by_class(logits, labels)] == [
        ("a", 2, 0.5),
        ("b", 2, 0.5),
    ]
    (doubt,) = Tags(task.tags, metric="accuracy").doubts(labels)
    assert "'O' is right for 33.3% of the training words" in doubt


def test_types_with_fifty_spans_are_guarded_by_their_recall() -> None:
    labels = encoded(*["B-a I-a O", "O B-a O"] * 25)
    half = logits_of(*["B-a O O", "O B-a O"] * 25)
    (guard,) = TASK.guarded(half, logits_of(*["B-a I-a O", "O B-a O"] * 25), labels)
    assert (guard.metric, guard.value) == ("recall:a", pytest.approx(-0.5))
    assert guard.low < -0.5 < guard.high < 0
    assert TASK.guarded(half[:40], half[:40], labels[:40]) == []


def test_the_baseline_learns_words_and_their_neighbours() -> None:
    rows = [("the film was dull", "O B-a O O"), ("a dull actor", "O O B-a"), ("so dull", "O O"), ("film", "B-a")] * 10
    labels = encoded(*(tags for _, tags in rows))
    baseline = TASK.baseline([text for text, _ in rows], labels, None)  # type: ignore[arg-type]
    logits = baseline.logits(["the actor was dull", "the plot"])
    assert logits.shape == (2, 4, 3)
    assert TASK.predictions(logits)[0].tolist() == [0, 1, 0, 0]
    assert not logits[1, 2:].any()


def test_the_constant_answer_is_the_most_frequent_tag() -> None:
    constant = TASK.constant(encoded("O B-a O", "O"))
    assert "always answering 'O'" in constant.kind
    assert TASK.predictions(constant.logits(["a b", "c"])).tolist() == [[0, 0], [0, -1]]


def test_words_that_are_cut_off_or_have_no_token_are_counted(tmp_path: Path) -> None:
    rows = [f"the\u200b O\ngreat B-a\nfilm I-a\n\x08 O\nwas{number} O\n" for number in range(40)]
    (tmp_path / "a.conll").write_text("\n".join(rows))
    data = with_cuts(Files(train=str(tmp_path / "a.conll")).load("tags", 1), tiny_tokenizer(), 5)
    assert data.summary is not None
    training = data.summary.cut["training"]
    assert (training.words, training.unread) == (len(data.train), len(data.train))  # of the last word, and of \x08
    cut, unread = data.summary.cutting()
    assert f"{len(data.train)} words without an answer" in cut
    assert f"makes no token, and which have no answer: {len(data.train)} training words" in unread


def test_ways_to_train_are_compared_over_seeds_by_counted_spans_as_by_evaluating_every_sample_anew() -> None:
    generator, words = np.random.default_rng(0), ["O", "B-a", "I-a"]
    labels = encoded(*(" ".join(generator.choice(words, 5)) for _ in range(12)))
    ways = [[generator.normal(size=(12, 5, 3)) + share * np.eye(3)[labels] for _ in range(2)] for share in (3.0, 0.5)]
    found = TASK.difference_over_seeds(*ways, labels)
    anew = Task.difference_over_seeds(TASK, *ways, labels)
    assert (found.value, found.low, found.high) == pytest.approx((anew.value, anew.low, anew.high))
    assert found.value > 0
