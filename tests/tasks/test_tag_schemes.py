from __future__ import annotations

from itertools import product

import numpy as np
import pytest

from compress.tasks.division import INSIDE, divided, joined, words_of
from compress.tasks.functions import UNLABELLED
from compress.tasks.tag_schemes import Scheme, Spans, letters_of, scheme_of, spans_of, written
from compress.tasks.tag_scores import by_type, count, figures
from compress.tasks.tags import Tags
from compress.tasks.viterbi import likeliest

BIO = ("O", "B-a", "I-a", "B-b", "I-b")
IOBES = (*BIO, "E-a", "S-a", "E-b", "S-b")
NAMED = {"BIO": BIO, "IOBES": IOBES}


def drawn(tags: tuple[str, ...], rows: int = 300, words: int = 9, seed: int = 0) -> tuple[list[list[str]], np.ndarray]:
    """Return random rows of tags of all lengths, and their numbers padded."""
    generator = np.random.default_rng(seed)
    numbers = generator.integers(0, len(tags), (rows, words))
    lengths = generator.integers(1, words + 1, rows)
    numbers[np.arange(words)[None, :] >= lengths[:, None]] = UNLABELLED
    return [[tags[n] for n in row if n != UNLABELLED] for row in numbers], numbers


@pytest.mark.parametrize("tags", NAMED.values(), ids=NAMED)
def test_spans_are_those_of_seqeval(tags: tuple[str, ...]) -> None:
    sequence_labeling = pytest.importorskip("seqeval.metrics.sequence_labeling")
    (true, labels), (found, predicted) = drawn(tags, seed=1), drawn(tags, seed=2)
    found = [row[: len(other)] + ["O"] * (len(other) - len(row)) for row, other in zip(found, true, strict=True)]
    for row in (*true, *found):
        assert spans_of(row) == sequence_labeling.get_entities(row)
    spans = Spans(tags)
    predicted = np.where(predicted == UNLABELLED, 0, predicted)
    counts = count(spans, predicted, labels)
    ours = {name: float(value[0]) for name, value in figures(spans.scheme, counts.columns.sum(0)[None]).items()}
    for name in ("f1", "precision", "recall"):
        assert ours[name] == pytest.approx(getattr(sequence_labeling, f"{name}_score")(true, found))
    assert ours["accuracy"] == pytest.approx(sequence_labeling.accuracy_score(true, found))
    report = sequence_labeling.classification_report(true, found, output_dict=True)
    for figure in by_type(spans, counts):
        theirs = report[figure.label]
        assert figure.f1 == pytest.approx(theirs["f1-score"])
        assert (figure.precision, figure.recall) == pytest.approx((theirs["precision"], theirs["recall"]))
        assert figure.rows == theirs["support"]


@pytest.mark.parametrize("tags", NAMED.values(), ids=NAMED)
def test_counts_by_row_are_those_of_a_loop_over_spans(tags: tuple[str, ...]) -> None:
    spans = Spans(tags)
    (true, labels), (found, predicted) = drawn(tags, seed=3), drawn(tags, seed=4)
    predicted = np.where(labels == UNLABELLED, 3, np.where(predicted == UNLABELLED, -1, predicted))
    counts = count(spans, predicted, labels)
    for row, (tags_of_row, answer) in enumerate(zip(true, found, strict=True)):
        guessed = (answer + ["O"] * len(tags_of_row))[: len(tags_of_row)]
        there, result = set(spans_of(tags_of_row)), set(spans_of(guessed))
        for index, kind in enumerate(spans.types):
            sizes = [sum(span[0] == kind for span in group) for group in (there & result, result, there)]
            assert [counts.right[row, index], counts.found[row, index], counts.true[row, index]] == sizes


def test_a_word_without_an_answer_is_no_span_and_is_wrong() -> None:
    spans = Spans(BIO)
    counts = count(spans, np.array([[1, -1, 0]]), np.array([[1, 2, 0]]))
    assert counts.right.sum() == 0
    assert counts.words.tolist() == [[2, 3]]


def test_raw_tags_are_counted_by_word() -> None:
    spans = Spans(("NOUN", "VERB", "ADJ"))
    assert spans.scheme is Scheme.raw
    counts = count(spans, np.array([[0, 1, 1]]), np.array([[0, 1, 2]]))
    found = figures(spans.scheme, counts.columns)
    assert found["accuracy"][0] == pytest.approx(2 / 3)
    assert found["macro_f1"][0] == pytest.approx((1 + 2 / 3 + 0) / 3)
    verb = by_type(spans, counts)[1]
    assert (verb.label, verb.rows, verb.answered, verb.precision, verb.recall) == ("VERB", 1, 2, 0.5, 1)


@pytest.mark.parametrize("tags", NAMED.values(), ids=NAMED)
def test_what_is_written_is_read_again(tags: tuple[str, ...]) -> None:
    for row in drawn(tags, 50)[0]:
        spans = spans_of(row)
        again = written(len(row), spans, letters_of(tags))
        assert spans_of(again) == spans
        assert set(again) <= set(tags)


def test_other_spellings_of_iobes_are_known() -> None:
    assert spans_of(["B-a", "I-a", "L-a", "U-b", "O"]) == [("a", 0, 2), ("b", 3, 3)]
    assert spans_of(["B-a", "M-a", "E-a", "S-a"]) == [("a", 0, 2), ("a", 3, 3)]
    assert written(4, [("a", 0, 2), ("b", 3, 3)], letters_of(["B-a", "I-a", "L-a", "U-b", "O"])) == [
        "B-a", "I-a", "L-a", "U-b",
    ]  # fmt: skip
    assert scheme_of(["O", "B-a"]) is Scheme.bio
    assert scheme_of(["O"]) is Scheme.raw
    assert scheme_of(["O", "B-a", "NOUN"]) is Scheme.raw


@pytest.mark.parametrize("tags", NAMED.values(), ids=NAMED)
def test_viterbi_finds_the_best_of_all_legal_rows(tags: tuple[str, ...]) -> None:
    tags = tags if len(tags) < 6 else ("O", "B-a", "I-a", "E-a", "S-a")
    spans = Spans(tags)
    for seed in range(8):
        scores = np.random.default_rng(seed).normal(size=(4, len(tags)))
        legal = [
            row for row in product(range(len(tags)), repeat=4)
            if written(4, spans_of([tags[n] for n in row]), letters_of(tags)) == [tags[n] for n in row]
        ]  # fmt: skip
        best = max(legal, key=lambda row: sum(scores[np.arange(4), row]))
        assert likeliest(scores, spans.legal).tolist() == list(best)


def test_broken_rows_are_repaired_as_they_are_read() -> None:
    assert Tags.repaired(["O I-a I-a", "B-a I-b", "B-a I-a O"]) == ["O B-a I-a", "B-a B-b", "B-a I-a O"]
    assert Tags.repaired(["B-a E-a", "I-a O", "B-b O S-b"]) == ["B-a E-a", "S-a O", "S-b O S-b"]
    assert Tags.repaired(["NOUN VERB"]) == ["NOUN VERB"]


def test_a_text_is_divided_into_words_as_people_write_it() -> None:
    text = "John's U.S. visit (Paris), don't @me 3.14! 我爱"
    assert [text[start:stop] for start, stop in divided(text)] == [
        "John", "'s", "U.S", ".", "visit", "(", "Paris", ")", ",", "don't", "@me", "3.14", "!", "我", "爱",
    ]  # fmt: skip


def test_only_spaces_tabs_and_line_ends_divide_the_words_of_a_row() -> None:
    text = joined(["New York", "is", "a\tcity"])
    assert text == f"New{INSIDE}York is a{INSIDE}city"
    assert [text[start:stop] for start, stop in words_of(text)] == text.split(" ")
    assert len(words_of(" a  b\tc ")) == 3
