"""Smaller vocabularies: the same texts in the same pieces, the same logits."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from tokenizers import ByteLevelBPETokenizer, Tokenizer
from tokenizers.models import Unigram
from tokenizers.processors import RobertaProcessing
from transformers import AutoModelForSequenceClassification, PreTrainedTokenizerFast, RobertaConfig

from compress.data.dataset import Split
from compress.errors import ModelError
from compress.evaluate import predict_rows
from compress.models.loading import load_model, load_tokenizer, quiet, save_model
from compress.models.tokens import tokenize
from compress.models.vocabulary import used_pieces, with_pieces, with_rows
from tests.conftest import tiny_model, tiny_tokenizer

TEXTS = ("the film was good", "an awful plot and the actor was dull dull", "lovely music")


def shrunk(model: Any, tokenizer: Any, texts: tuple[str, ...], folder: Path) -> tuple[Any, Any]:
    """Return the model and tokenizer with what ``texts`` need, saved and loaded again."""
    keep = sorted(used_pieces(tokenizer, [tokenize(Split(texts), tokenizer, 99).columns["input_ids"]]))
    smaller = with_pieces(tokenizer, keep)
    with_rows(model, keep, smaller)
    save_model(model, smaller, folder)
    return load_model(folder), load_tokenizer(folder)


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


def test_other_kinds_of_tokenizers_are_refused() -> None:
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer(Unigram([("<unk>", 0.0), ("a", -1.0)], unk_id=0)), unk_token="<unk>"
    )
    with pytest.raises(ModelError, match="Unigram"):
        used_pieces(tokenizer, [])
