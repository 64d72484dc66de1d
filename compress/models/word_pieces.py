"""A vocabulary of its own: word pieces trained on texts, and embeddings for them from another model's."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from tokenizers import Tokenizer
from tokenizers.models import WordPiece
from tokenizers.trainers import WordPieceTrainer
from torch import Tensor

from compress.models.vocabulary import with_model

PREFIX = "##"  # of a piece that goes on a word


def trained_pieces(tokenizer: Any, texts: Sequence[str], size: int) -> Any:
    """Return a tokenizer of about ``size`` word pieces trained on ``texts``, cut into words as ``tokenizer`` does.

    Special tokens are its special tokens, numbered first; cleaning, case and words are its own too. Every
    character of the texts is a piece, so there may be more than ``size``, and fewer where the texts are short.
    The same texts give the same pieces in the same order.
    """
    backend = tokenizer.backend_tokenizer
    learner = Tokenizer(WordPiece(unk_token=tokenizer.unk_token))
    learner.pre_tokenizer = backend.pre_tokenizer
    if backend.normalizer is not None:
        learner.normalizer = backend.normalizer
    special = [tokenizer.convert_ids_to_tokens(number) for number in sorted(set(tokenizer.all_special_ids))]
    # The trainer breaks ties by the numbers of pieces, and numbers inner characters as a hash map yields them;
    # given beforehand they have one order.
    inner = sorted({PREFIX + character for text in texts for word in _words(learner, text) for character in word[1:]})
    first = [*special, *(piece for piece in inner if piece not in special)]
    trainer = WordPieceTrainer(
        vocab_size=max(size, len(first) + 1), special_tokens=first, continuing_subword_prefix=PREFIX,
        show_progress=False,
    )  # fmt: skip
    learner.train_from_iterator(texts, trainer)
    numbers = learner.get_vocab(with_added_tokens=False) | {piece: number for number, piece in enumerate(first)}
    pieces = sorted(numbers, key=numbers.__getitem__)
    model = {
        "type": "WordPiece", "unk_token": tokenizer.unk_token, "continuing_subword_prefix": PREFIX,
        "max_input_chars_per_word": 100, "vocab": {piece: number for number, piece in enumerate(pieces)},
    }  # fmt: skip
    return with_model(tokenizer, model, special)


def started_pieces(weight: Tensor, teacher: Any, student: Any) -> Tensor:
    """Return an embedding for each of the student's pieces: the mean of the teacher's for the same characters.

    ``weight`` (teacher's pieces, width) are the teacher's embeddings; both tokenizers are given.
    """
    return torch.stack([weight[numbers].mean(0) for numbers in same_characters(teacher, student)])


def same_characters(teacher: Any, student: Any) -> list[list[int]]:
    """Return the numbers of the teacher's pieces for the characters of each of the student's pieces."""
    pieces = student.convert_ids_to_tokens(list(range(len(student))))
    special = set(student.all_special_tokens)
    return [_numbers(piece, piece in special, teacher) for piece in pieces]


def _words(tokenizer: Tokenizer, text: str) -> Iterable[str]:
    clean = tokenizer.normalizer.normalize_str(text) if tokenizer.normalizer else text
    return (word for word, _ in tokenizer.pre_tokenizer.pre_tokenize_str(clean))


def _numbers(piece: str, special: bool, tokenizer: Any) -> list[int]:
    """Return the tokenizer's numbers for a piece; inside a word where the piece goes on one."""
    backend, unknown = tokenizer.backend_tokenizer, [tokenizer.unk_token_id]
    known, pieces = backend.token_to_id(piece), isinstance(backend.model, WordPiece)
    if known is not None and (special or pieces):
        return [known]
    if special:
        return unknown
    inside = piece.startswith(PREFIX) and len(piece) > len(PREFIX)
    body = piece.removeprefix(PREFIX) if inside else piece
    if inside and pieces:
        return _greedy(body, backend.model.continuing_subword_prefix, backend) or unknown
    return [token.id for token in backend.model.tokenize(body)] or unknown


def _greedy(body: str, prefix: str, backend: Tokenizer) -> list[int]:
    """Return the numbers of the longest pieces, first to last, that go on a word; empty where one is not known."""
    found: list[int] = []
    while body:
        for end in range(len(body), 0, -1):
            number = backend.token_to_id(prefix + body[:end])
            if number is not None:
                found.append(number)
                body = body[end:]
                break
        else:
            return []
    return found
