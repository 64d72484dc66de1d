"""Words that a masked language model predicts at a position."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedModel

from compress.augment.words import Words, cut, is_word
from compress.data.scripts import Segmentation
from compress.errors import ModelError
from compress.models.device import device
from compress.models.loading import content_of, load_config, load_masked_lm, load_tokenizer
from compress.models.positions import longest_row

TOKENS = 1024  # tokens of a batch at most: its logits, 30,000 per token, stay near 120 MB
STARTS = ("Ġ", "▁")  # how byte-level BPE and SentencePiece mark a piece that starts a word after a space
INSIDE = "##"  # how WordPiece marks a continuation
Place = tuple[int, int]
"""Which text of a row, and which of its words."""


class MaskedLm:
    """A model with a masked-language-model head, and which of its pieces are words."""

    def __init__(self, model: PreTrainedModel, tokenizer: Any, words: Segmentation = Segmentation.letters) -> None:
        self.model, self.tokenizer = model, tokenizer
        self.longest = min(tokenizer.model_max_length, longest_row(model.config))
        self.words: list[str] = []  # by piece; "" for a piece that is not a whole word
        self.marks: list[str] = []
        special = set(tokenizer.all_special_ids)
        for number, piece in enumerate(tokenizer.convert_ids_to_tokens(list(range(len(tokenizer))))):
            word = "" if number in special else tokenizer.convert_tokens_to_string([piece]).strip()
            whole = not piece.startswith(INSIDE) and is_word(word) and cut(word, words).words == [word]
            self.words.append(word if whole else "")
            self.marks.append(mark(piece))
        outputs = int(model.config.vocab_size)
        self.allowed = {
            start: torch.tensor(
                [bool(word) and own == start for word, own in zip(self.words, self.marks, strict=True)][:outputs]
                + [False] * (outputs - len(self.words))
            )
            for start in set(self.marks)
        }

    @torch.inference_mode()
    def candidates(
        self, texts: Sequence[str], sides: Sequence[Words], number: int, only: Place | None = None
    ) -> dict[Place, list[str]]:
        """Return, by (side, place), the ``number`` most probable words at each single-piece word, or ``only`` at one.

        The word is masked alone; the model reads the rest of the row, both texts of a pair. Special tokens,
        continuation pieces and punctuation do not count as words. A piece that starts a word after a space
        is replaced by such pieces only. Words of several pieces, unknown ones, and those beyond the model's longest
        row are skipped.
        """
        encoding = self.tokenizer(*texts, truncation=True, max_length=self.longest, return_offsets_mapping=True)
        pieces = _single_pieces(encoding.encodings[0], sides)
        pieces = {key: at for key, at in pieces.items() if encoding["input_ids"][at] != self.tokenizer.unk_token_id}
        inputs = {name: torch.tensor([encoding[name]]) for name in self.tokenizer.model_input_names}
        candidates: dict[Place, list[str]] = {}
        asked = pieces if only is None else pieces.keys() & {only}
        keys = [key for key in asked if self._allowed(encoding["input_ids"][pieces[key]]).any()]
        size = max(1, TOKENS // inputs["input_ids"].shape[1])
        for start in range(0, len(keys), size):
            part = keys[start : start + size]
            rows, places = torch.arange(len(part)), torch.tensor([pieces[key] for key in part])
            batch = {name: value.repeat(len(part), 1) for name, value in inputs.items()}
            before = batch["input_ids"][rows, places]
            batch["input_ids"][rows, places] = self.tokenizer.mask_token_id
            on = self.model.device
            logits = self.model(**{name: value.to(on) for name, value in batch.items()}).logits[rows, places].cpu()
            allowed = torch.stack([self._allowed(int(piece)) for piece in before])
            best = logits.masked_fill(~allowed, -torch.inf).topk(min(number, logits.shape[1]))
            for key, scores, chosen in zip(part, best.values, best.indices, strict=True):
                candidates[key] = [self.words[piece] for piece in chosen[scores.isfinite()].tolist()]
        return candidates

    def _allowed(self, piece: int) -> torch.Tensor:
        """Return which pieces may replace a piece: words that start the same way."""
        return self.allowed[self.marks[piece]]


def source(name: str) -> str:
    """Return the folder or hub id for a name."""
    folder = Path(name).expanduser()
    return str(folder) if folder.is_dir() else name


def content(name: str | None) -> str | None:
    """Return what tells the model of a folder or hub id from others; None where none is named."""
    return None if not name else content_of(source(name), load_config(source(name)))


def load(name: str, words: Segmentation = Segmentation.letters) -> MaskedLm:
    """Return the masked language model of a folder or hub id; raises ModelError if it cannot fill masks.

    ``words`` says what its words are where no space divides them.
    """
    tokenizer = load_tokenizer(source(name))
    if tokenizer.mask_token_id is None:
        raise ModelError(f"{name}: its tokenizer has no mask token, so it cannot fill masks.")
    return MaskedLm(load_masked_lm(source(name), on=device()), tokenizer, words)


def mark(piece: str) -> str:
    """Return the mark of a piece that starts a word after a space; "" for other pieces."""
    return piece[0] if piece[:1] in STARTS else ""


def _single_pieces(encoding: Any, sides: Sequence[Words]) -> dict[Place, int]:
    """Return, by (side, place), the position of each piece that is exactly one word."""
    spans: dict[tuple[int, int], int] = {}
    for position, (side, (_, end)) in enumerate(zip(encoding.sequence_ids, encoding.offsets, strict=True)):
        if side is not None:
            spans[side, end] = -1 if (side, end) in spans else position
    positions = {}
    for side, words in enumerate(sides):
        for place, (word, start) in enumerate(zip(words.words, words.starts, strict=True)):
            position = spans.get((side, start + len(word)), -1)
            if position >= 0 and is_word(word):
                begin = encoding.offsets[position][0]  # some tokenizers include the preceding space
                if start - len(words.gaps[place]) <= begin <= start:
                    positions[side, place] = position
    return positions
