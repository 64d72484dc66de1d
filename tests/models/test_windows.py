from __future__ import annotations

import numpy as np
import pytest

from compress.data.dataset import Split
from compress.models.tokens import Tokens, tokenize
from compress.tasks.span_labels import Gold, packed
from compress.tasks.spans import AnswerSpans
from tests.conftest import OTHER, tiny_tokenizer

TASK = AnswerSpans()
WORDS = " ".join(OTHER)  # twelve words


def read(*rows: tuple[str, str, tuple[int, int] | None], most: int, overlap: int | None = None) -> Tokens:
    """Return rows of a question, a context and the words of the answer, the first and the last, as tokens."""
    codes = []
    for _, context, answer in rows:
        words = context.split(" ")
        starts = np.cumsum([0, *(len(word) + 1 for word in words)])
        places = [] if answer is None else [(int(starts[answer[0]]), int(starts[answer[1] + 1]) - 1)]
        codes.append(packed(Gold(context, tuple(places))))
    questions, contexts = (tuple(row[side] for row in rows) for side in (0, 1))
    split = Split(questions, contexts, TASK.encoded(codes), AnswerSpans, overlap=overlap)
    return tokenize(split, tiny_tokenizer(max_tokens=most), most)


def text_of(tokens: Tokens, window: int, context: str) -> list[str]:
    assert tokens.windows is not None
    return [context[first:last] for first, last in tokens.windows.extents_of(window) if last > first]


def test_windows_cover_the_context_share_their_overlap_and_keep_the_question() -> None:
    tokens = read(("good film", WORDS, (0, 0)), most=12, overlap=3)
    assert tokens.rows == 1
    assert tokens.of_row(0) == [0, 1, 2]
    texts = [text_of(tokens, window, WORDS) for window in range(3)]
    assert texts == [list(OTHER[:7]), list(OTHER[4:11]), list(OTHER[8:12])]  # 12 less [CLS] good film [SEP] and [SEP]
    assert tokens.lengths.tolist() == [12, 12, 9]
    batch = tokens.batch([0, 2])
    assert batch["token_type_ids"][0].tolist() == [0, 0, 0, 0, *[1] * 8]
    assert batch["answering"][1].tolist() == [1, 0, 0, 0, 1, 1, 1, 1, 0, 0, 0, 0]  # [CLS] says that there is no answer
    assert (batch["input_ids"][:, :4] == batch["input_ids"][0, :4]).all()


def test_an_answer_is_the_label_of_the_windows_that_hold_it_and_none_that_of_the_others() -> None:
    tokens = read(("good film", WORDS, (5, 7)), ("fine", WORDS, None), most=12, overlap=3)
    labels = tokens.batch(list(range(len(tokens))))["labels"].numpy()
    skipped = -100
    assert labels[0].tolist() == [3, *[skipped] * 3, *[0] * 7, skipped]  # words 5 and 6, not 7
    assert labels[1].tolist() == [0, *[skipped] * 3, 0, 1, 0, 2, 0, 0, 0, skipped]
    assert labels[2][0] == 3
    assert (labels[3:, 0] == 3).all()  # unanswerable


def test_a_short_row_is_read_as_the_tokenizer_itself_has_it() -> None:
    tokens, tokenizer = read(("good film", "the plot was fine", (1, 1)), most=32), tiny_tokenizer()
    expected = tokenizer("good film", "the plot was fine")
    assert tokens.columns["input_ids"].tolist() == expected["input_ids"]
    assert tokens.columns["token_type_ids"].tolist() == expected["token_type_ids"]


def test_of_a_question_that_fills_the_window_the_end_is_cut() -> None:
    tokens = read((" ".join(OTHER), "the plot was fine", (3, 3)), most=12)
    assert tokens.truncated == 1
    assert tokens.lengths.max() <= 12
    assert [word for window in range(len(tokens)) for word in text_of(tokens, window, "the plot was fine")].count(
        "fine"
    )


@pytest.mark.parametrize("overlap", [0, 1, 200, None])
def test_any_overlap_covers_every_word(overlap: int | None) -> None:
    tokens = read(("good", WORDS, (0, 0)), most=9, overlap=overlap)
    seen = {word for window in range(len(tokens)) for word in text_of(tokens, window, WORDS)}
    assert seen == set(OTHER)


def test_answers_of_rows_are_those_of_their_windows_with_their_characters() -> None:
    tokens = read(("good film", WORDS, (0, 0)), ("fine", "the plot", (1, 1)), most=12, overlap=3)
    logits = np.random.default_rng(0).normal(size=(len(tokens), 12, 2)).astype(np.float32)
    whole = tokens.gathered([([2, 0], logits[[2, 0]]), ([3, 1], logits[[3, 1]])])
    assert whole.shape == (2, 8 + 8 + 5, 4)
    np.testing.assert_array_equal(whole[0, 8:16, :2], logits[1, [0, *range(4, 11)]])
    assert [WORDS[int(a) : int(b)] for a, b in whole[0, 9:16, 2:]] == list(OTHER[4:11])
    assert whole[1, :3, 2:].tolist() == [[0, 0], [0, 3], [4, 8]]
    assert (whole[1, 3:, 2:] == -1).all()


def test_chosen_windows_keep_their_rows_labels() -> None:
    tokens = read(("good", WORDS, (0, 0)), ("fine", "the plot", (1, 1)), most=12)
    taken = tokens.take(np.array([len(tokens) - 1]))
    assert taken.rows == 1
    assert taken.batch([0])["labels"].tolist() == tokens.batch([len(tokens) - 1])["labels"].tolist()


def test_a_context_without_tokens_can_only_be_left_unanswered() -> None:
    tokens = read(("good", "\u200b", None), most=12)
    whole = tokens.gathered([([0], np.ones((1, int(tokens.lengths[0]), 2)))])
    assert TASK.predictions(whole).tolist() == [[-1, -1]]
