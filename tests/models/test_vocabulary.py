"""Smaller vocabularies: the same texts in the same pieces, the same logits."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import ByteLevelBPETokenizer, Tokenizer
from tokenizers.models import BPE, Unigram, WordLevel, WordPiece
from tokenizers.pre_tokenizers import Metaspace, Whitespace
from tokenizers.processors import RobertaProcessing, TemplateProcessing
from transformers import AutoModelForSequenceClassification, PreTrainedTokenizerFast, RobertaConfig

from compress.data import Files
from compress.data.dataset import Split
from compress.errors import ModelError
from compress.models.evaluate import predict_rows
from compress.models.loading import load_model, load_tokenizer, quiet, save_model
from compress.models.tokens import tokenize
from compress.models.vocabulary import of_words, used_pieces, with_pieces, with_rows
from compress.pipeline.model import Model
from compress.pipeline.state import State
from compress.pipeline.workshop import Workshop
from compress.prune.vocabulary import PruneVocabulary
from tests.conftest import reviews, tiny_model, tiny_tokenizer, write_tsv

TEXTS = ("the film was good", "an awful plot and the actor was dull dull", "lovely music")


def shrunk(model: Any, tokenizer: Any, texts: tuple[str, ...], folder: Path) -> tuple[Any, Any]:
    """Return the model and tokenizer with what ``texts`` need, saved and loaded again."""
    keep = sorted(used_pieces(tokenizer, [tokenize(Split(texts), tokenizer, 99).columns["input_ids"]], texts))
    smaller = with_pieces(tokenizer, keep)
    with_rows(model, keep, smaller)
    save_model(model, smaller, folder)
    return load_model(folder), load_tokenizer(folder)


def test_words_of_scripts_without_spaces_are_letters_whatever_the_tokenizer_does() -> None:
    backend = Tokenizer(WordLevel({"<unk>": 0, "<s>": 1, "</s>": 2, "<pad>": 3}, unk_token="<unk>"))
    backend.pre_tokenizer = Metaspace()
    teacher = PreTrainedTokenizerFast(
        tokenizer_object=backend, unk_token="<unk>", bos_token="<s>", eos_token="</s>", pad_token="<pad>"
    )
    words = of_words(teacher, ["这部电影很好 good film", "这书 ดีมาก"], 100, 1)
    assert words.convert_ids_to_tokens(words("这电影 good ดีก")["input_ids"]) == [
        "▁", "这", "电", "影", "▁good", "▁", "ดี", "ก",
    ]  # fmt: skip
    again = PreTrainedTokenizerFast(tokenizer_object=Tokenizer.from_str(words.backend_tokenizer.to_str()))
    assert again("这电影 good ดีก")["input_ids"] == words("这电影 good ดีก")["input_ids"]


def test_word_pieces_that_no_text_uses_go_and_the_answers_stay(tmp_path: Path) -> None:
    model, tokenizer = tiny_model(), tiny_tokenizer()
    tokens = tokenize(Split(TEXTS), tokenizer, 32)
    before = predict_rows(model, tokens)
    model, smaller = shrunk(model, tokenizer, TEXTS, tmp_path)
    assert len(smaller) < len(tokenizer)
    assert model.get_input_embeddings().weight.shape[0] == model.config.vocab_size == len(smaller)
    after = tokenize(Split(TEXTS), smaller, 32)
    assert (after.lengths == tokens.lengths).all()
    assert (predict_rows(model, after) == before).all()
    assert smaller.decode(smaller("the film was poor").input_ids).split()[-2:] == ["[UNK]", "[SEP]"]
    assert smaller.model_max_length == tokenizer.model_max_length


def byte_level(texts: tuple[str, ...]) -> PreTrainedTokenizerFast:
    trained = ByteLevelBPETokenizer()
    special = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
    trained.train_from_iterator(texts, vocab_size=330, min_frequency=1, special_tokens=special, show_progress=False)
    tokenizer = Tokenizer.from_str(trained.to_str())
    tokenizer.post_processor = RobertaProcessing(("</s>", 2), ("<s>", 0))
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token="<s>", pad_token="<pad>", eos_token="</s>", unk_token="<unk>",
        mask_token="<mask>", cls_token="<s>", sep_token="</s>", model_max_length=32,
        model_input_names=["input_ids", "attention_mask"],
    )  # fmt: skip


def test_merges_of_byte_pairs_are_kept_as_far_as_they_are_needed(tmp_path: Path) -> None:
    tokenizer = byte_level((*TEXTS, "quite another vocabulary entirely, with zebras and quizzes"))
    config = RobertaConfig(
        vocab_size=len(tokenizer), hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16,
        max_position_embeddings=40, pad_token_id=1, type_vocab_size=1,
    )  # fmt: skip
    torch.manual_seed(0)
    with quiet():
        model = AutoModelForSequenceClassification.from_config(config).eval()
    tokens = tokenize(Split(TEXTS), tokenizer, 32)
    before = predict_rows(model, tokens)
    model, smaller = shrunk(model, tokenizer, TEXTS, tmp_path)
    assert len(smaller) < len(tokenizer)
    after = tokenize(Split(TEXTS), smaller, 32)
    assert [smaller.convert_ids_to_tokens(after.columns["input_ids"].tolist())] == [
        tokenizer.convert_ids_to_tokens(tokens.columns["input_ids"].tolist())
    ]
    assert (predict_rows(model, after) == before).all()
    assert smaller.decode(smaller("zebras", add_special_tokens=False).input_ids) == "zebras"  # spelt in bytes


def unigram(scores: dict[str, float], *, byte_fallback: bool = False) -> PreTrainedTokenizerFast:
    """Return a tokenizer as XLM-R's: its mask is numbered behind all pieces."""
    special = ["<s>", "<pad>", "</s>", "<unk>"]
    pieces = [*((token, 0.0) for token in special), *scores.items(), ("<mask>", 0.0)]
    tokenizer = Tokenizer(Unigram(pieces, unk_id=3, byte_fallback=byte_fallback))
    tokenizer.pre_tokenizer = Metaspace()
    tokenizer.post_processor = TemplateProcessing(single="<s> $A </s>", special_tokens=[("<s>", 0), ("</s>", 2)])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token="<s>", pad_token="<pad>", eos_token="</s>", unk_token="<unk>",
        mask_token="<mask>", cls_token="<s>", sep_token="</s>", model_max_length=32,
    )  # fmt: skip


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_of_unigram_pieces_those_stay_that_keep_the_likeliest_cut(data: st.DataObject) -> None:
    """Any scores, also equal ones, and characters that no piece has."""
    words = st.text("abcdé", min_size=1, max_size=6)
    scores = data.draw(st.dictionaries(st.text("▁abcd", min_size=1, max_size=4), st.sampled_from([-1.0, -2.5, -7.0])))
    texts = [" ".join(text) for text in data.draw(st.lists(st.lists(words, min_size=1), min_size=1, max_size=4))]
    tokenizer = unigram(scores)
    keep = sorted(used_pieces(tokenizer, [np.array(tokenizer(text).input_ids) for text in texts], texts))
    smaller = with_pieces(tokenizer, keep)
    assert len(smaller) == len(keep)
    for text in texts:
        assert smaller.tokenize(text) == tokenizer.tokenize(text)
        assert [keep[number] for number in smaller(text).input_ids] == tokenizer(text).input_ids


def test_unknown_characters_stay_as_unlikely_as_they_were() -> None:
    """An unknown character costs ten more than the least likely piece, here zzz, whether that is used or not."""
    scores = {"▁": -1.0, "a": -1.0, "c": -16.0, "d": -16.0, "aéb": -30.0, "cd": -30.0, "bcd": -1.0, "zzz": -50.0}
    tokenizer, texts = unigram(scores), ["aébcd", "bcd"]
    keep = sorted(used_pieces(tokenizer, [np.array(tokenizer(text).input_ids) for text in texts], texts))
    cheaper = [number for number in keep if number != tokenizer.convert_tokens_to_ids("zzz")]
    assert with_pieces(tokenizer, keep).tokenize(texts[0]) == tokenizer.tokenize(texts[0]) == ["▁", "aéb", "cd"]
    assert with_pieces(tokenizer, cheaper).tokenize(texts[0]) == ["▁", "a", "é", "bcd"]


def test_bytes_that_spell_unknown_characters_stay() -> None:
    tokenizer = unigram({"▁": -1.0, "a": -2.0} | {f"<0x{byte:02X}>": -9.0 for byte in range(256)}, byte_fallback=True)
    smaller = with_pieces(tokenizer, sorted(used_pieces(tokenizer, [np.array(tokenizer("a").input_ids)], ["a"])))
    assert smaller.tokenize("aé") == tokenizer.tokenize("aé") == ["▁", "a", "<0xC3>", "<0xA9>"]


def test_other_kinds_of_tokenizers_are_refused() -> None:
    class Backend:
        def to_str(self) -> str:
            return json.dumps({"model": {"type": "Other", "vocab": {}}, "added_tokens": []})

    tokenizer = SimpleNamespace(backend_tokenizer=Backend(), all_special_ids=[])
    with pytest.raises(ModelError, match="Other"):
        used_pieces(tokenizer, [], [])


def word_pieces(*pieces: str) -> PreTrainedTokenizerFast:
    special = ["[PAD]", "[UNK]"]
    vocabulary = {piece: number for number, piece in enumerate([*special, *pieces])}
    tokenizer = Tokenizer(WordPiece(vocabulary, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = Whitespace()
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="[PAD]", unk_token="[UNK]")


def test_words_that_could_not_be_cut_before_still_cannot() -> None:
    """Without ab, "abX" would be a and ##bX."""
    tokenizer = word_pieces("a", "b", "c", "X", "ab", "##bX", "##b", "##X1")
    texts = ("abX cbX",)
    before = tokenizer.tokenize(texts[0])
    assert before == ["[UNK]", "c", "##bX"]
    keep = sorted(used_pieces(tokenizer, [np.array(tokenizer(texts[0]).input_ids)], texts))
    smaller = with_pieces(tokenizer, keep)
    assert smaller.tokenize(texts[0]) == before
    assert len(smaller) < len(tokenizer)


def test_a_piece_may_come_of_several_merges() -> None:
    vocabulary = {piece: number for number, piece in enumerate(["<pad>", "a", "b", "c", "bc", "abc", "ab", "ca"])}
    merges = [("b", "c"), ("a", "bc"), ("a", "b"), ("ab", "c"), ("c", "a")]
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=Tokenizer(BPE(vocabulary, merges)), pad_token="<pad>")
    keep = sorted(used_pieces(tokenizer, [np.array(tokenizer("abc").input_ids)], ["abc"]))
    smaller = with_pieces(tokenizer, keep)
    assert smaller.tokenize("abc") == tokenizer.tokenize("abc") == ["abc"]
    assert smaller.tokenize("ca") == ["c", "a"]


def test_positions_stay_where_they_are_counted_from_the_padding(tmp_path: Path) -> None:
    """RoBERTa's first position is its padding's number + 1; here pieces before it are never used."""
    rows = [*reviews(40, 0)]
    files = {name: write_tsv(tmp_path / f"{name}.tsv", rows) for name in ("train", "validation", "test")}
    tokenizer = word_pieces(
        *(f"unused{number}" for number in range(4)), "[CLS]", *sorted({w for _, t in rows for w in t.split()})
    )
    tokenizer.backend_tokenizer.normalizer = None
    tokenizer.add_special_tokens({"pad_token": "[CLS]"})
    tokenizer.model_max_length = 32
    with quiet():
        model = AutoModelForSequenceClassification.from_config(
            RobertaConfig(
                vocab_size=len(tokenizer), hidden_size=16, num_hidden_layers=1, num_attention_heads=2,
                intermediate_size=16, max_position_embeddings=60, type_vocab_size=1,
                pad_token_id=tokenizer.pad_token_id,
            )
        ).eval()  # fmt: skip
    save_model(model, tokenizer, tmp_path / "student")
    data = Files(**{name: str(path) for name, path in files.items()}).load("auto", seed=0)
    (tmp_path / "cache").mkdir()
    state = State.begin(data, Workshop(tmp_path / "cache"), 0, student=Model(tmp_path / "student", "s"))
    after = PruneVocabulary()(state)
    values = []
    for folder in (tmp_path / "student", after.given_student.folder):
        own = load_tokenizer(folder)
        values.append(predict_rows(load_model(folder), tokenize(data.train, own, 32)))
    np.testing.assert_array_equal(values[0], values[1])
    assert len(load_tokenizer(after.given_student.folder)) == len(tokenizer)  # all before the padding had to stay
