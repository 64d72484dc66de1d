"""What a tokenizer does not know, and a casing that is not its vocabulary's, is found before any work."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from tokenizers import Tokenizer
from tokenizers.models import BPE, WordPiece
from tokenizers.normalizers import BertNormalizer, Lowercase
from tokenizers.pre_tokenizers import BertPreTokenizer, ByteLevel
from transformers import PreTrainedTokenizerFast

from compress.errors import ModelError
from compress.models.known_words import check_words, unknown_share
from compress.models.loading import load_tokenizer

TEXTS = ["Paris is lovely", "is Rome lovely"]


def tokenizer(words: list[str], *, lowercase: bool) -> Any:
    numbers = {word: index for index, word in enumerate(["[PAD]", "[UNK]", "[CLS]", "[SEP]", *words])}
    backend = Tokenizer(WordPiece(numbers, unk_token="[UNK]"))
    backend.normalizer, backend.pre_tokenizer = BertNormalizer(lowercase=lowercase), BertPreTokenizer()
    return PreTrainedTokenizerFast(tokenizer_object=backend, unk_token="[UNK]", pad_token="[PAD]")


def lower_casing(numbers: dict[str, int]) -> Any:
    """Return a tokenizer of bytes that makes capital letters small by a step of its own."""
    backend = Tokenizer(BPE(numbers, [], unk_token="<unk>"))
    backend.normalizer, backend.pre_tokenizer = Lowercase(), ByteLevel()
    return PreTrainedTokenizerFast(tokenizer_object=backend, unk_token="<unk>", pad_token="<unk>")


UPPER = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
CASED, SMALL = ["Paris", "Rome", "is", "lovely"], ["paris", "rome", "is", "lovely"]


def test_the_share_of_unknown_tokens_is_counted_with_the_words() -> None:
    share, words = unknown_share(tokenizer(SMALL[:2], lowercase=True).backend_tokenizer, 1, TEXTS)
    assert share == pytest.approx(4 / 6)
    assert words[:2] == ["is", "lovely"]


def test_known_texts_pass_without_a_word() -> None:
    for words, lowercase in ((SMALL, True), (CASED, False)):
        assert check_words(tokenizer(words, lowercase=lowercase), TEXTS, "model", 0.1) == []


def test_lower_casing_for_a_cased_vocabulary_is_refused_with_what_fixes_it() -> None:
    with pytest.raises(ModelError, match=r'capital letters.*33\.3% .*"do_lower_case": false'):
        check_words(tokenizer(CASED, lowercase=True), TEXTS, "model", 0.1)


def test_capitals_for_a_vocabulary_without_them_are_refused_with_what_fixes_it() -> None:
    with pytest.raises(ModelError, match=r'33\.3% .*"do_lower_case": true.*then 0\.0% would be'):
        check_words(tokenizer(SMALL, lowercase=False), TEXTS, "model", 0.1)


def test_letters_that_stand_for_bytes_are_no_capitals() -> None:
    numbers = {piece: index for index, piece in enumerate(["<unk>", *sorted(set(ByteLevel.alphabet()) - set(UPPER))])}
    assert check_words(lower_casing(numbers), TEXTS, "model", 0.1) == []


def test_a_vocabulary_with_capitals_is_noted_where_no_setting_would_change_the_casing() -> None:
    numbers = {piece: index for index, piece in enumerate(["<unk>", *sorted(ByteLevel.alphabet())])}
    (note,) = check_words(lower_casing(numbers), TEXTS, "model", 0.1)
    assert note == "its tokenizer lower-cases texts, and 10% of its word pieces have capital letters"


def test_foreign_texts_are_refused_unless_they_are_allowed() -> None:
    with pytest.raises(ModelError, match=r"teacher\.max_unknown = 0\.1\. Name a model"):
        check_words(tokenizer(SMALL, lowercase=True), ["Ελλάδα is Ελλάδα"], "model", 0.1)
    (note,) = check_words(tokenizer(SMALL, lowercase=True), ["Ελλάδα is Ελλάδα"], "model", 0.9)
    assert note == "66.7% of the tokens are unknown to its tokenizer"


def test_a_vocabulary_file_without_its_settings_is_refused_until_they_are_written(tmp_path: Path) -> None:
    (tmp_path / "vocab.txt").write_text("\n".join(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *CASED]))
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "bert"}))
    with pytest.raises(ModelError, match="do_lower_case"):
        check_words(load_tokenizer(tmp_path), TEXTS, "model", 0.1)
    (tmp_path / "tokenizer_config.json").write_text('{"do_lower_case": false}')
    assert check_words(load_tokenizer(tmp_path), TEXTS, "model", 0.1) == []
