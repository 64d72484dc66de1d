"""A smaller vocabulary: the tokenizer without the pieces that texts never use, and the model's rows that go with it."""

from __future__ import annotations

import json
import re
import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tokenizers import Regex, Tokenizer
from tokenizers.models import WordLevel
from tokenizers.normalizers import BertNormalizer
from tokenizers.pre_tokenizers import BertPreTokenizer, ByteLevel, Split
from tokenizers.processors import TemplateProcessing
from torch import nn
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from compress.data.jieba_words import HAN, jieba_words
from compress.data.scripts import UNSEGMENTED, Segmentation
from compress.errors import ModelError
from compress.models.loading import load_tokenizer, quiet
from compress.models.segmenter import segmenting
from compress.models.segments import OfEmbeddings

TOKENIZER = "tokenizer.json"
BYTES = "ByteLevel"  # the pre-tokenizer that writes a text's bytes as letters
_BYTE = re.compile("<0x[0-9A-F]{2}>")
KINDS = ("WordPiece", "BPE", "Unigram", "WordLevel")  # tokenizers that can lose pieces


def kind_of(tokenizer: Any) -> str:
    """Return what a tokenizer's model is called: "WordPiece"."""
    return str(json.loads(tokenizer.backend_tokenizer.to_str())["model"]["type"])


def used_pieces(tokenizer: Any, columns: Iterable[np.ndarray[Any, Any]], texts: Iterable[str]) -> set[int]:
    """Return the token numbers that must stay for the same texts to be cut into the same pieces.

    ``columns`` are the token numbers of those ``texts``. Special and added tokens stay; of WordPiece every single
    character, so that other words can still be spelt, and the pieces at which it fails on words that it cannot cut,
    so that it fails again; of BPE the whole alphabet and every piece that a used one can be merged from; of Unigram
    every single character and byte, and its least likely piece, from whose score it takes that of unknown
    characters. Raises ModelError for other kinds of tokenizers.
    """
    rules = json.loads(tokenizer.backend_tokenizer.to_str())
    model, numbers = rules["model"], rules["model"]["vocab"]
    keep = {token["id"] for token in rules["added_tokens"]} | set(tokenizer.all_special_ids)
    for column in columns:
        keep |= set(np.unique(column).tolist())
    if model["type"] == "WordPiece":
        prefix = model["continuing_subword_prefix"]
        keep |= {number for piece, number in numbers.items() if len(piece.removeprefix(prefix)) == 1}
        return keep | {numbers[piece] for word in _words(tokenizer, texts) for piece in _failing(word, numbers, prefix)}
    if model["type"] == "WordLevel":
        return keep
    if model["type"] == "Unigram":
        keep |= {number for number, (piece, _) in enumerate(numbers) if len(piece) == 1}
        if model["byte_fallback"]:
            keep |= {number for number, (piece, _) in enumerate(numbers) if _BYTE.fullmatch(piece)}
        return keep | {min(range(len(numbers)), key=lambda number: numbers[number][1])}
    if model["type"] != "BPE":
        raise ModelError(f"pieces of a {model['type']} tokenizer cannot be dropped: supported are {', '.join(KINDS)}.")
    keep |= {number for piece, number in numbers.items() if len(piece) == 1}
    parents: dict[str, list[str]] = {}  # several merges may end in one piece
    for left, right in map(_pair, model["merges"]):
        parents.setdefault(left + right, []).extend((left, right))
    pieces = {number: piece for piece, number in numbers.items()}
    waiting = [pieces[number] for number in keep if number in pieces]
    while waiting:
        for part in parents.get(waiting.pop(), ()):
            if numbers[part] not in keep:
                keep.add(numbers[part])
                waiting.append(part)
    return keep


def with_pieces(tokenizer: Any, keep: list[int]) -> Any:
    """Return a tokenizer of the pieces with these ascending numbers; they are numbered from 0 again."""
    place = {old: new for new, old in enumerate(keep)}
    with tempfile.TemporaryDirectory() as aside:
        folder = Path(aside)
        with quiet():
            tokenizer.save_pretrained(folder)
        rules = json.loads((folder / TOKENIZER).read_text())
        model = rules["model"]
        if model["type"] == "Unigram":
            model["vocab"] = [entry for number, entry in enumerate(model["vocab"]) if number in place]
            model["unk_id"] = place.get(model["unk_id"])
        else:
            model["vocab"] = {piece: place[number] for piece, number in model["vocab"].items() if number in place}
        if "merges" in model:
            known = model["vocab"].keys()
            model["merges"] = [merge for merge in model["merges"] if {*_pair(merge), "".join(_pair(merge))} <= known]
        for token in rules["added_tokens"]:
            token["id"] = place[token["id"]]
        rules["post_processor"] = _renumbered(rules["post_processor"], place)
        (folder / TOKENIZER).write_text(json.dumps(rules, ensure_ascii=False))
        beside = folder / "tokenizer_config.json"
        settings = json.loads(beside.read_text())
        if "added_tokens_decoder" in settings:
            decoder = settings["added_tokens_decoder"]
            settings["added_tokens_decoder"] = {str(place[int(old)]): token for old, token in decoder.items()}
            beside.write_text(json.dumps(settings))
        for other in ("vocab.txt", "vocab.json", "merges.txt", "sentencepiece.bpe.model", "spiece.model"):
            (folder / other).unlink(missing_ok=True)
        return load_tokenizer(folder)


def of_words(
    tokenizer: Any, texts: Iterable[str], most: int, at_least: int, segmentation: Segmentation = Segmentation.letters
) -> Any:
    """Return a tokenizer of whole words, cut and cleaned as ``tokenizer`` does before it looks for pieces.

    Of scripts without spaces between words, ``segmentation`` says what is a word. Its vocabulary is the special tokens
    and the ``most`` most frequent words that occur ``at_least`` so often. Words that jieba found are found again by
    themselves, see `compress.models.segmenter`; a word that is not known is then cut into known ones where it can be.
    """
    tokenizer = _dividing(tokenizer, segmentation)
    counts = Counter(_segments(tokenizer, texts, segmentation))
    special = [tokenizer.convert_ids_to_tokens(number) for number in sorted(set(tokenizer.all_special_ids))]
    words = sorted(
        (word for word, count in counts.items() if count >= at_least), key=lambda word: (-counts[word], word)
    )
    words = [word for word in words[:most] if word not in special]
    if segmentation is Segmentation.jieba:
        known = {word: counts[word] for word in words}
        return with_model(tokenizer, segmenting(known, special, tokenizer.unk_token), special)
    vocabulary = {word: number for number, word in enumerate(special + words)}
    return with_model(tokenizer, {"type": "WordLevel", "vocab": vocabulary, "unk_token": tokenizer.unk_token}, special)


def _dividing(tokenizer: Any, segmentation: Segmentation) -> Any:
    """Return the tokenizer, which divides scripts without spaces between words into letters, with their marks.

    Where jieba finds words, Chinese characters stay together up to the next other one.
    """
    rules = json.loads(tokenizer.backend_tokenizer.to_str())
    expression = UNSEGMENTED + r"\p{M}*"
    if segmentation is Segmentation.jieba:
        expression = rf"{HAN}+\p{{M}}*|{expression}"
        for step in _steps(rules["normalizer"], "normalizers"):
            if "handle_chinese_chars" in step:
                step["handle_chinese_chars"] = False
    letters = Tokenizer(WordLevel({}, unk_token=""))
    letters.pre_tokenizer = Split(Regex(expression), "isolated")
    steps = _steps(rules["pre_tokenizer"], "pretokenizers")
    for step in steps:
        if segmentation is Segmentation.jieba and step["type"] == BYTES:
            step["add_prefix_space"] = False
    place = next((number for number, step in enumerate(steps) if step["type"] == BYTES), len(steps))
    steps.insert(place, json.loads(letters.to_str())["pre_tokenizer"])
    rules["pre_tokenizer"] = {"type": "Sequence", "pretokenizers": steps}
    return PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer.from_str(json.dumps(rules)), model_max_length=tokenizer.model_max_length,
        model_input_names=tokenizer.model_input_names, **tokenizer.special_tokens_map,
    )  # fmt: skip


def _steps(rule: Any, parts: str) -> list[Any]:
    """Return the steps of a normalizer or a pre-tokenizer, which stand under ``parts`` where there are several."""
    if rule is None:
        return []
    return [step for part in rule[parts] for step in _steps(part, parts)] if parts in rule else [rule]


def wordless(longest: int) -> Any:
    """Return a tokenizer that cleans and cuts as uncased BERT's do, and knows nothing but special tokens.

    Rows have at most ``longest`` tokens.
    """
    names = {"pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]"}
    numbers = {token: number for number, token in enumerate(names.values())}
    backend = Tokenizer(WordLevel(numbers, unk_token=names["unk_token"]))
    backend.normalizer = BertNormalizer(lowercase=True)
    backend.pre_tokenizer = BertPreTokenizer()
    backend.post_processor = TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[(token, numbers[token]) for token in ("[CLS]", "[SEP]")],
    )
    return PreTrainedTokenizerFast(tokenizer_object=backend, model_max_length=longest, **names)


def with_model(tokenizer: Any, model: dict[str, Any], special: list[str]) -> Any:
    """Return ``tokenizer`` with another model; ``special`` tokens come first in its vocabulary, in this order."""
    rules = json.loads(tokenizer.backend_tokenizer.to_str())
    place = {tokenizer.convert_tokens_to_ids(word): number for number, word in enumerate(special)}
    rules["model"] = model
    rules["added_tokens"] = [
        token | {"id": place[token["id"]]} for token in rules["added_tokens"] if token["id"] in place
    ]
    rules["post_processor"] = _renumbered(rules["post_processor"], place)
    return PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer.from_str(json.dumps(rules)),
        model_max_length=tokenizer.model_max_length,
        model_input_names=tokenizer.model_input_names,
        **tokenizer.special_tokens_map,
    )


def with_rows(model: PreTrainedModel, keep: list[int], tokenizer: Any) -> None:
    """Leave these rows of the model's word embeddings, in this order, in place."""
    old = model.get_input_embeddings()
    assert isinstance(old, nn.Embedding)
    padding = None if old.padding_idx is None else keep.index(old.padding_idx)
    new = nn.Embedding(len(keep), old.embedding_dim, padding_idx=padding, device=old.weight.device)
    with torch.no_grad():
        new.weight.copy_(old.weight[torch.tensor(keep, device=old.weight.device)])
    model.set_input_embeddings(new)
    if isinstance(model, OfEmbeddings):
        model.keep_tokens(torch.tensor(keep, device=old.weight.device))
    model.config.vocab_size = len(keep)
    for name in ("pad", "bos", "eos", "cls", "sep"):
        number = getattr(model.config, f"{name}_token_id", None)
        if number is not None:
            setattr(model.config, f"{name}_token_id", keep.index(number) if number in keep else None)
    model.config.pad_token_id = tokenizer.pad_token_id


def _words(tokenizer: Any, texts: Iterable[str]) -> Iterator[str]:
    """Yield the words of texts, cut and cleaned as the tokenizer does before it looks for pieces."""
    backend = tokenizer.backend_tokenizer
    for text in texts:
        clean = backend.normalizer.normalize_str(text) if backend.normalizer else text
        yield from (word for word, _ in backend.pre_tokenizer.pre_tokenize_str(clean))


def _segments(tokenizer: Any, texts: Iterable[str], segmentation: Segmentation) -> Iterator[str]:
    """Yield the words of texts as `_words` does, those between which there is no space too."""
    if segmentation is Segmentation.letters:
        yield from _words(tokenizer, texts)
        return
    backend, spelt = tokenizer.backend_tokenizer, ByteLevel(add_prefix_space=False, use_regex=False)
    for text in texts:
        clean = backend.normalizer.normalize_str(text) if backend.normalizer else text
        for word, (start, end) in backend.pre_tokenizer.pre_tokenize_str(clean):
            written = clean[start:end]
            found = [written[begin:behind] for begin, behind in jieba_words(written)]
            if not found:
                yield word
            elif word == written:
                yield from found
            else:  # its bytes
                yield from (spelt.pre_tokenize_str(part)[0][0] for part in found)


def _failing(word: str, numbers: Mapping[str, int], prefix: str) -> list[str]:
    """Return the pieces that WordPiece takes of a word, the longest first, before it finds none; else nothing."""
    taken: list[str] = []
    start = 0
    while start < len(word):
        starts = prefix if start else ""
        ends = (end for end in range(len(word), start, -1) if starts + word[start:end] in numbers)
        end = next(ends, None)
        if end is None:
            return taken
        taken.append(starts + word[start:end])
        start = end
    return []


def _pair(merge: Any) -> tuple[str, str]:
    """Return the two halves of a merge, which older files write as one string."""
    left, right = merge.split(" ") if isinstance(merge, str) else merge
    return left, right


def _renumbered(processor: Any, place: dict[int, int]) -> Any:
    """Return a post-processor with its special tokens' numbers changed."""
    if processor is None:
        return None
    if processor["type"] == "Sequence":
        return processor | {"processors": [_renumbered(part, place) for part in processor["processors"]]}
    if processor["type"] == "TemplateProcessing":
        special = {
            name: token | {"ids": [place[number] for number in token["ids"]]}
            for name, token in processor["special_tokens"].items()
        }
        return processor | {"special_tokens": special}
    changed = {
        end: [token, place[number]] for end in ("sep", "cls") if end in processor for token, number in [processor[end]]
    }
    return processor | changed
