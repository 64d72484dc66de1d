from __future__ import annotations

import collections
import re
import string
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from compress.errors import DataError
from compress.tasks.adoption import Refusal
from compress.tasks.base import Task
from compress.tasks.heads import MARK
from compress.tasks.span_decoding import best, n_best
from compress.tasks.span_labels import Gold, packed, read, unpacked, written
from compress.tasks.span_scores import scores
from compress.tasks.spans import AnswerSpans

CONTEXT = "In 1973 the oil crisis began; it ended in March 1974."
WORDS = [match.span() for match in re.finditer(r"\w+|[^\w\s]", CONTEXT)]
V1, V2 = AnswerSpans(), AnswerSpans(unanswerable=True)


def labels_of(*rows: tuple[str, ...]) -> np.ndarray:
    """Return the labels of questions about `CONTEXT` with these answers."""
    places = [tuple((CONTEXT.index(text), CONTEXT.index(text) + len(text)) for text in row) for row in rows]
    return V1.encoded([V1.encode(written(Gold(CONTEXT, answers))) for answers in places])


def logits_of(*answers: str, none: float = -9.0, windows: int = 1) -> np.ndarray:
    """Return logits that give each question this answer, "" for no span; every window reads the whole context."""
    rows = []
    for answer in answers:
        row = [[none / 2, none / 2, 0.0, 0.0], *([0.0, 0.0, *extent] for extent in WORDS)]
        if answer:
            start, end = CONTEXT.index(answer), CONTEXT.index(answer) + len(answer)
            row[1 + [first for first, _ in WORDS].index(start)][0] = 4.0
            row[1 + [last for _, last in WORDS].index(end)][1] = 4.0
        rows.append(row * windows)
    return np.array(rows, dtype=np.float32)


# the evaluation as the authors of SQuAD 2.0 published it, shortened to one question


def official(prediction: str, gold_answers: list[str]) -> tuple[float, float]:
    def normalize_answer(s: str) -> str:
        s = "".join(ch for ch in s.lower() if ch not in set(string.punctuation))
        return " ".join(re.sub(re.compile(r"\b(a|an|the)\b", re.UNICODE), " ", s).split())

    def compute_f1(a_gold: str, a_pred: str) -> float:
        gold_toks, pred_toks = normalize_answer(a_gold).split(), normalize_answer(a_pred).split()
        num_same = sum((collections.Counter(gold_toks) & collections.Counter(pred_toks)).values())
        if len(gold_toks) == 0 or len(pred_toks) == 0:
            return int(gold_toks == pred_toks)
        if num_same == 0:
            return 0
        precision, recall = 1.0 * num_same / len(pred_toks), 1.0 * num_same / len(gold_toks)
        return (2 * precision * recall) / (precision + recall)

    gold_answers = [a for a in gold_answers if normalize_answer(a)] or [""]
    return (
        max(int(normalize_answer(a) == normalize_answer(prediction)) for a in gold_answers),
        max(compute_f1(a, prediction) for a in gold_answers),
    )


KNOWN = ["The", "a", "An", "oil", "Oil-", "crisis!", "1973", "?", " ", "der", "É"]
PIECES = st.lists(st.sampled_from(KNOWN), max_size=5)
PLACES = st.integers(0, 9)


@given(PIECES.map(" ".join), st.lists(PIECES.map(" ".join), max_size=3))
def test_exact_match_and_f1_are_those_of_the_official_evaluation(answer: str, golds: list[str]) -> None:
    assert scores(answer, golds) == pytest.approx(official(answer, golds))


def test_articles_punctuation_and_case_do_not_count() -> None:
    assert scores("the Oil-crisis.", ["oilcrisis"]) == (1.0, 1.0)
    assert scores("crisis of oil", ["oil crisis", "war"]) == (0.0, pytest.approx(0.8))
    assert scores("", []) == (1.0, 1.0)
    assert scores("", ["oil"]) == (0.0, 0.0)
    assert scores("oil", []) == (0.0, 0.0)


@given(st.text(max_size=30), st.lists(st.tuples(PLACES, PLACES), max_size=3))
def test_labels_come_back_whole_whatever_the_context(context: str, answers: list[tuple[int, int]]) -> None:
    gold = Gold(context, tuple(answers))
    assert unpacked(np.array(packed(gold), dtype=np.int32)) == gold


def test_a_label_in_words_is_told_from_any_other() -> None:
    gold = Gold('a "context"', ((0, 1),))
    assert read(written(gold)) == gold
    assert read("good") is None
    assert read('{"answers": 3}') is None
    assert AnswerSpans.fits([written(gold)])
    assert AnswerSpans.refusal("good") is not None


def slowly(row: np.ndarray, most: int = 30) -> tuple[float, tuple[int, int]]:
    """Return the best sum and its characters, by a loop over all pairs of positions."""
    windows, real = (row[:, 2:] == 0).all(-1).cumsum(), row[:, 3] > row[:, 2]
    pairs = [(i, j) for i in range(len(row)) for j in range(i, min(len(row), i + most))]
    return max(
        (float(row[i, 0]) + float(row[j, 1]), (int(row[i, 2]), int(row[j, 3])))
        for i, j in pairs
        if windows[i] == windows[j] and real[i] and real[j]
    )


def test_the_best_span_lies_in_one_window_and_is_no_longer_than_allowed() -> None:
    generator = np.random.default_rng(0)
    rows = []
    for _ in range(20):
        windows = [np.concatenate([[[0, 0]], [[k, k + 1] for k in range(40)]]) for _ in range(2)]
        extents = np.concatenate([*windows, np.full((3, 2), -1)])
        rows.append(np.concatenate([generator.normal(size=(len(extents), 2)), extents], axis=1))
    logits = np.stack(rows)
    found = best(logits)
    for row, span, score, none in zip(logits, found.spans, found.score, found.none, strict=True):
        expected, place = slowly(row)
        assert score == pytest.approx(expected)
        assert tuple(span) == place
        assert none == pytest.approx(min(row[0, :2].sum(), row[41, :2].sum()))
        assert n_best(row, 5)[0] == (*place, pytest.approx(expected))


def test_metrics_are_means_over_questions() -> None:
    labels = labels_of(("1973", "March 1974"), ("oil crisis",), ("March 1974",))
    logits = logits_of("March 1974", "the oil crisis", "1974")
    assert V1.metrics(logits, labels) == {"f1": pytest.approx((1 + 1 + 2 / 3) / 3), "exact": pytest.approx(2 / 3)}
    assert V1.shown(logits, labels) == ["March 1974", "the oil crisis", "1974"]
    assert V1.shown_label(labels[0]) == "1973 | March 1974"
    assert V1.agreement(logits, logits_of("March 1974", "oil crisis", "1974")) == pytest.approx(2 / 3)


def test_where_questions_may_be_unanswerable_the_threshold_decides_and_both_kinds_are_measured() -> None:
    labels = labels_of(("1973",), ())
    logits = np.concatenate([logits_of("1973", none=6.0), logits_of("1974", none=9.0)])
    assert V2.predictions(logits).tolist() == [[3, 7], [-1, -1]]
    assert V2.metrics(logits, labels) == {"f1": 1.0, "exact": 1.0, "f1_answerable": 1.0, "exact_unanswerable": 1.0}
    strict = AnswerSpans(unanswerable=True, null_threshold=2.0)
    assert strict.metrics(logits, labels)["exact_unanswerable"] == 0.0
    assert V1.predictions(logits).tolist() == [[3, 7], [48, 52]]  # nothing is unanswerable
    assert V2.shown_label(labels[1]) == "(none)"
    assert [guarded.metric for guarded in V2.guarded(logits, logits, labels)] == ["f1_answerable", "exact_unanswerable"]


def test_the_threshold_is_tuned_for_f1_and_another_models_own_one_is_heeded() -> None:
    labels = labels_of(("1973",), ("oil crisis",), ())
    parts = [logits_of("1973", none=9.0), logits_of("oil crisis", none=9.5), logits_of("1974", none=11)]
    logits = np.concatenate(parts)
    assert V2.metrics(logits, labels)["f1"] == pytest.approx(1 / 3)
    entries = V2.tuned(lambda: logits, labels)
    assert entries["null_threshold"] == pytest.approx(2.25)  # between margins of 1.5 and of 3
    config = SimpleNamespace(**(V2.head_config() | entries))
    assert V2.metrics(V2.aligned(logits, config), labels)["f1"] == 1.0
    assert AnswerSpans.of_config(config).metrics(logits, labels)["f1"] == 1.0
    assert V1.tuned(lambda: logits, labels) == {}


def test_answers_have_characters_probability_and_the_next_best() -> None:
    (answer,) = V2.answers(logits_of("oil crisis", none=-2.0), ["What began?"], pairs=[CONTEXT])
    assert (answer["answer"], answer["start"], answer["end"]) == ("oil crisis", 12, 22)
    assert answer["score"] == max(found["score"] for found in answer["best"])
    assert 0 < sum(found["score"] for found in answer["best"]) < 1
    (none,) = V2.answers(logits_of("oil crisis", none=20.0), ["What began?"], pairs=[CONTEXT])
    assert (none["answer"], none["start"]) == ("", None)
    assert none["score"] > 0.9


def test_the_loss_is_the_mean_cross_entropy_of_start_and_end_over_what_is_read() -> None:
    logits = torch.randn(2, 5, 2)
    marks = torch.tensor([[0, -100, 1, 0, 2], [3, -100, 0, 0, -100]])
    expected = []
    for row, (start, end) in enumerate([(2, 4), (0, 0)]):
        read_tokens = [place for place in range(5) if marks[row, place] != -100]
        for side, place in ((0, start), (1, end)):
            values = logits[row, read_tokens, side]
            expected.append(values.logsumexp(0) - logits[row, place, side])
    torch.testing.assert_close(V1.loss(logits, marks), torch.stack(expected).view(2, 2).mean(1))
    none = torch.full((1, 5), -100)
    torch.testing.assert_close(
        V1.mean_loss(torch.cat([logits, logits[:1]]), torch.cat([marks, none])), torch.stack(expected).mean()
    )
    assert V1.mean_loss(logits[:1], none) == 0


def test_the_loss_of_evaluated_rows_is_that_of_their_windows() -> None:
    labels, logits = labels_of(("1973",), ("oil crisis",)), logits_of("1973", "March 1974", windows=2)
    by_hand = []
    for row, (start, end) in zip(logits, ((2, 2), (4, 5)), strict=True):
        window = torch.from_numpy(row[: 1 + len(WORDS), :2])
        by_hand.append((2 * window.logsumexp(0).sum() - 2 * window[start, 0] - 2 * window[end, 1]) / 4)
    found = V1.mean_loss(torch.from_numpy(logits), torch.from_numpy(labels))
    torch.testing.assert_close(found, torch.stack(by_hand).mean())


def test_soft_targets_are_distributions_over_positions() -> None:
    ours, theirs, mask = torch.randn(2, 4, 2), torch.randn(2, 4, 2), torch.tensor([[1, 0, 1, 1], [1, 0, 1, 0]])
    expected = []
    for row in range(2):
        for side in range(2):
            kept = mask[row].bool()
            p, q = (torch.softmax(x[row, kept, side] / 3, 0) for x in (theirs, ours))
            expected.append(9 * (p * (p / q).log()).sum())
    torch.testing.assert_close(V1.distance(ours, theirs, mask, 3.0), torch.stack(expected).mean())
    ours.requires_grad_()
    V1.distance(ours, theirs, mask, 3.0).backward()  # type: ignore[no-untyped-call]
    assert ours.grad is not None
    assert bool(ours.grad.isfinite().all())
    assert not ours.grad[:, 1].any()


def test_a_head_needs_two_outputs_and_a_marked_configuration_says_its_task() -> None:
    config = SimpleNamespace(num_labels=3)
    with pytest.raises(Refusal, match="has 3 outputs where spans need two"):
        V1.adopt(config, {})
    task = AnswerSpans(unanswerable=True, stride=12)
    assert task.head_config()[MARK] == "spans"
    assert AnswerSpans.of_config(SimpleNamespace(**task.head_config())) == task


def labelled(**columns: Any) -> Any:
    return SimpleNamespace(source="a.jsonl", **columns)


def test_rows_without_a_context_or_without_any_answer_are_refused() -> None:
    with pytest.raises(DataError, match="needs a question and a context"):
        AnswerSpans.check([labelled(pairs=None, words=[])], asked=True)
    with pytest.raises(DataError, match="no question has an answer"):
        AnswerSpans.check([labelled(pairs=["x"], words=[written(Gold("x", ()))])], asked=True)


def test_the_baseline_finds_answers_that_look_alike_and_stand_near_the_words_of_the_question() -> None:
    towns = [f"Town{number}" for number in range(60)]
    told = "{} was built in {}. Elsewhere 12 houses stood."
    rows = [(f"When was {town} built?", told.format(town, 1800 + number)) for number, town in enumerate(towns)]
    golds = [Gold(context, ((context.index("18"), context.index("18") + 4),)) for _, context in rows]
    texts, labels = [V1.joined(*row) for row in rows], V1.encoded([packed(gold) for gold in golds])
    reader = V1.baseline(texts[:40], labels[:40], None)  # type: ignore[arg-type]  # it needs no features
    assert V1.metrics(reader.logits(texts[40:]), labels[40:])["exact"] > 0.9
    assert V1.constant(labels) is None
    nothing = V2.constant(labels)
    assert nothing is not None
    assert V2.metrics(nothing.logits(texts), labels)["exact"] == 0.0


def test_ways_to_train_are_compared_over_seeds_by_the_scores_of_questions_as_by_answering_every_sample_anew() -> None:
    golds = ["1973", "oil crisis", "March", "March 1974"]
    ours = [logits_of(*golds), logits_of("oil", *golds[1:])]
    theirs = [logits_of("oil", "crisis", "March 1974", "March"), logits_of("the", "oil", "March", "March")]
    labels = labels_of(*((gold,) for gold in golds))
    found = V1.difference_over_seeds(ours, theirs, labels)
    anew = Task.difference_over_seeds(V1, ours, theirs, labels)
    assert (found.value, found.low, found.high) == pytest.approx((anew.value, anew.low, anew.high))
    assert found.value > 0
