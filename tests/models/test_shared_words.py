"""Words that two tokenizers share: the finest parts that both cut out, and what is compared by them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from compress.data.dataset import Split
from compress.distill.losses import HiddenStates, Relations
from compress.distill.losses.hidden import hidden_state_loss
from compress.distill.losses.relations import relation_loss
from compress.distill.objective import Distillation
from compress.distill.teacher_outputs import FromModel
from compress.models.outputs import observe
from compress.models.quantities import HIDDEN, RELATIONS
from compress.models.shared_words import pooled, shared_words
from compress.models.tokens import tokenize
from compress.models.word_pieces import trained_pieces
from tests.conftest import reviews, tiny_model, tiny_tokenizer

TEXTS = [text for _, text in reviews(12, 1)]
LONG = " ".join(TEXTS)  # longer than either takes


@pytest.fixture(scope="module")
def tokenizers() -> tuple[Any, Any]:
    """Pieces of a few letters, and whole words."""
    teacher = tiny_tokenizer()
    student = trained_pieces(teacher, TEXTS[:6], 40)
    student.model_max_length = 24
    return student, teacher


def components(texts: list[str], encodings: list[Any]) -> list[list[tuple[int, int]]]:
    """Return, for each word, its tokens as (tokenizer, place): characters are joined by the pieces over them."""
    found: list[list[tuple[int, int]]] = []
    for number, text in enumerate(texts):
        leader = list(range(len(text)))

        def root(character: int, leader: list[int] = leader) -> int:
            while leader[character] != character:
                character = leader[character]
            return character

        pieces = [
            (which, place, [c for c in range(*span) if not text[c].isspace()])
            for which, encoding in enumerate(encodings)
            for place, (side, span) in enumerate(zip(encoding.sequence_ids, encoding.offsets, strict=True))
            if side == number
        ]
        pieces = [piece for piece in pieces if piece[2]]
        for _, _, characters in pieces:
            for character in characters:
                leader[root(character)] = root(characters[0])
        words: dict[int, list[tuple[int, int]]] = {}
        for which, place, characters in pieces:
            words.setdefault(root(characters[0]), []).append((which, place))
        found += [word for _, word in sorted(words.items(), key=lambda item: min(item[1]))]
    return [word for word in found if {which for which, _ in word} == {0, 1}]


@pytest.mark.parametrize("pairs", [False, True])
def test_words_are_the_finest_parts_that_both_tokenizers_cut_out(tokenizers: tuple[Any, Any], pairs: bool) -> None:
    texts = [*TEXTS, LONG, "a", "goodbad  plot"]
    rows = Split(texts, texts[::-1] if pairs else None)
    most = (24, 16)
    words = shared_words(rows, tokenizers, most)
    for row, text in enumerate(texts):
        given = [text, texts[::-1][row]] if pairs else [text]
        encodings = [
            tokenizer(*given, truncation=True, max_length=limit).encodings[0]
            for tokenizer, limit in zip(tokenizers, most, strict=True)
        ]
        expected = [np.full(len(encoding), -1) for encoding in encodings]
        for side in expected:
            side[0] = 0  # [CLS]
        for number, word in enumerate(components(given, encodings), start=1):
            for which, place in word:
                expected[which][place] = number
        for own, side in zip((words.student, words.teacher), expected, strict=True):
            assert own.flat[own.offsets[row] : own.offsets[row + 1]].tolist() == side.tolist()


def test_pieces_of_a_word_are_their_mean_and_losses_compare_these(tokenizers: tuple[Any, Any]) -> None:
    student, teacher = tiny_model(seed=1), tiny_model(seed=2)
    student.resize_token_embeddings(len(tokenizers[0]))
    rows = Split(TEXTS)
    own, taught = (tokenize(rows, tokenizer, 24) for tokenizer in tokenizers)
    words = shared_words(rows, tokenizers, (24, 24))
    batch = own.batch([3, 0, 5])
    chosen = {"hidden": HiddenStates(), "relations": Relations(relation_heads=4)}
    pairs = ((2, 3), (4, 4))
    source = FromModel(teacher, {HIDDEN: (3, 4), **dict.fromkeys(RELATIONS, (4,))}, taught)
    objective = Distillation(student, chosen, source, teacher.config, pairs, words=words).eval()
    _, parts = objective(batch, 0.0)

    outputs = [observe(model, tokens.batch([3, 0, 5]), HIDDEN, *RELATIONS)
               for model, tokens in ((student, own), (teacher, taught))]  # fmt: skip
    numbers = [side.batch(np.array([3, 0, 5])) for side in (words.student, words.teacher)]
    count = int(numbers[0].max()) + 1

    def by_loops(side: int, quantity: Any, layer: int) -> torch.Tensor:
        values = outputs[side][quantity][layer]
        made = torch.zeros(3, count, values.shape[-1])
        for row in range(3):
            for word in range(count):
                places = (numbers[side][row] == word).nonzero()[:, 0]
                if len(places):
                    made[row, word] = torch.stack([values[row, place] for place in places]).mean(0)
        torch.testing.assert_close(pooled(values, numbers[side], count), made)
        return made

    mask = torch.stack([torch.arange(count) <= row.max() for row in numbers[0]]).long()
    hidden = sum(hidden_state_loss(by_loops(0, HIDDEN, s), by_loops(1, HIDDEN, t), mask) for s, t in pairs)
    torch.testing.assert_close(parts["hidden"], hidden)
    relations = sum(relation_loss(by_loops(0, part, 4), by_loops(1, part, 4), 4, mask) for part in RELATIONS)
    torch.testing.assert_close(parts["relations"], relations)
