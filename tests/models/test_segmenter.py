"""A tokenizer that finds the words that jieba found, without jieba."""

from __future__ import annotations

import math
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
from tokenizers import ByteLevelBPETokenizer, Tokenizer
from tokenizers.models import Unigram, WordLevel
from tokenizers.pre_tokenizers import Metaspace
from transformers import PreTrainedTokenizerFast

from compress.data.scripts import Segmentation
from compress.models import vocabulary
from compress.models.loading import load_tokenizer
from compress.models.segmenter import whole_word_scores
from compress.models.vocabulary import of_words, used_pieces, with_pieces, wordless

NAMES = {"unk_token": "<unk>", "bos_token": "<s>", "eos_token": "</s>", "pad_token": "<pad>"}
TEXTS = ["我们喜欢这部电影", "我们去电影院 good film", "喜欢电影院", "good, good", "很好看的film好 ดีมาก"] * 2


def metaspace() -> PreTrainedTokenizerFast:
    backend = Tokenizer(WordLevel({"<unk>": 0, "<s>": 1, "</s>": 2, "<pad>": 3}, unk_token="<unk>"))
    backend.pre_tokenizer = Metaspace()
    return PreTrainedTokenizerFast(tokenizer_object=backend, **NAMES)


def bytes_of(texts: list[str]) -> PreTrainedTokenizerFast:
    learner = ByteLevelBPETokenizer(add_prefix_space=True)
    learner.train_from_iterator(texts, vocab_size=300, special_tokens=[*NAMES.values()], show_progress=False)
    return PreTrainedTokenizerFast(tokenizer_object=learner._tokenizer, **NAMES)


def cut_by(tokenizer: PreTrainedTokenizerFast, text: str) -> list[str]:
    """Return the parts of a text that become a token each."""
    encoding = tokenizer.backend_tokenizer.encode(text, add_special_tokens=False)
    places = zip(encoding.tokens, encoding.offsets, strict=True)
    return [text[start:end].strip() for token, (start, end) in places if token != "▁"]


@pytest.mark.parametrize("teacher", [wordless(32), metaspace(), bytes_of(TEXTS)], ids=["bert", "unigram", "bytes"])
def test_words_are_found_again_without_jieba(
    teacher: PreTrainedTokenizerFast, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    of_words(teacher, TEXTS, 1000, 2, Segmentation.jieba).save_pretrained(tmp_path)
    monkeypatch.setattr(vocabulary, "jieba_words", None)
    ours = load_tokenizer(tmp_path)
    assert cut_by(ours, "喜欢电影院") == ["喜欢", "电影院"]
    assert cut_by(ours, "我们去好看的电影 good film") == ["我们", "去", "好看", "的", "电影", "good", "film"]
    assert cut_by(ours, "很film") == ["很", "film"]
    unknown = ours.backend_tokenizer.encode("喜欢饕餮", add_special_tokens=False)
    assert unknown.ids[-1] == ours.unk_token_id
    assert unknown.offsets[-1] == (2, 4)


def test_letters_are_words_where_a_tokenizer_writes_bytes() -> None:
    ours = of_words(bytes_of(TEXTS), TEXTS, 1000, 2)
    assert cut_by(ours, "喜欢电影 good") == [*"喜欢电影", "good"]


def test_the_likeliest_words_are_taken_and_a_known_one_stays_whole() -> None:
    counts = {"a": 900, "b": 700, "c": 500, "ab": 3, "bc": 400, "bca": 2, "abca": 1, "cc": 200}
    scores = whole_word_scores(counts)
    total = sum(counts.values())
    model = Tokenizer(Unigram([("?", 0.0), *scores.items()], 0, False))
    for word, count in counts.items():
        assert model.encode(word).tokens == [word]
        assert scores[word] >= math.log(count / total)
    raised = [word for word in counts if scores[word] > math.log(counts[word] / total)]
    assert raised == ["ab", "bca", "abca"]
    text = "abcabaaccbbcab"
    taken = sum(scores[token] for token in model.encode(text).tokens)
    cuts = (cut for number in range(len(text)) for cut in combinations(range(1, len(text)), number))
    pieces = ([text[a:b] for a, b in zip((0, *cut), (*cut, len(text)), strict=True)] for cut in cuts)
    best = max(sum(scores[piece] for piece in some) for some in pieces if all(piece in scores for piece in some))
    assert taken == pytest.approx(best)


def test_words_that_no_text_uses_can_be_dropped() -> None:
    ours = of_words(wordless(32), TEXTS, 1000, 2, Segmentation.jieba)
    kept = ["我们去电影院", "good film"]
    columns = [np.array(ours(text).input_ids) for text in kept]
    smaller = with_pieces(ours, sorted(used_pieces(ours, columns, kept)))
    assert len(smaller) < len(ours)
    assert [cut_by(smaller, text) for text in kept] == [cut_by(ours, text) for text in kept]
