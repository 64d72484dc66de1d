"""Whether a tokenizer knows the words that it is given: the share of unknown tokens, and what its casing does to it."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import Any

from tokenizers import Tokenizer

from compress.errors import ModelError

CAPITALS = 0.05  # share of pieces with a capital letter from which a vocabulary is of cased text
_CAPITAL = re.compile("[A-Z]")
NOTED = 0.01  # share of unknown tokens from which they are pointed out


def check_words(tokenizer: Any, texts: Sequence[str], name: str, most: float) -> list[str]:
    """Return sentences on unknown tokens where there are more than a few, and on a casing that looks wrong.

    Raises ModelError where unknown tokens are more than the share ``most``, or where BERT's own steps lower-case texts
    for a vocabulary of cased text: such a tokenizer was saved without its settings. Other tokenizers lower-case
    because they were written to.
    """
    backend = tokenizer.backend_tokenizer
    share, unknown = unknown_share(backend, tokenizer.unk_token_id, texts)
    other = recased(backend)
    lower = lower_cases(backend)
    capitals = capital_share(tokenizer) if lower else 0.0
    remedy = f'Write {{"do_lower_case": {"false" if lower else "true"}}} into its tokenizer_config.json'
    if capitals > CAPITALS and other is not None:
        raise ModelError(
            f"{name}: its tokenizer lower-cases texts, but {capitals:.0%} of its word pieces have capital letters, so "
            f"it was trained on cased text ({share:.1%} of the tokens of {len(texts):,} rows are unknown). {remedy}."
        )
    if share <= most:
        notes = [f"{share:.1%} of the tokens are unknown to its tokenizer"] if share > NOTED else []
        if capitals > CAPITALS:
            notes.append(f"its tokenizer lower-cases texts, and {capitals:.0%} of its word pieces have capital letters")
        return notes
    fixed = 1.0 if other is None else unknown_share(other, tokenizer.unk_token_id, texts)[0]
    if fixed < share / 2:
        hint = f"{remedy}: then {fixed:.1%} would be"
    else:
        hint = "Name a model whose vocabulary covers these texts, or allow it: teacher.max_unknown=0.5"
    examples = ", ".join(repr(word) for word in unknown[:5])
    raise ModelError(
        f"{name}: {share:.1%} of the tokens of {len(texts):,} rows are unknown to its tokenizer ({examples}), more "
        f"than teacher.max_unknown = {most:g}. {hint}."
    )


def unknown_share(tokenizer: Tokenizer, number: int | None, texts: Sequence[str]) -> tuple[float, list[str]]:
    """Return the share of tokens, special ones left out, that are the unknown one, and the words that became it."""
    if number is None or not texts:
        return 0.0, []
    total = 0
    unknown: dict[str, int] = {}
    for text, encoding in zip(texts, tokenizer.encode_batch(list(texts), add_special_tokens=False), strict=True):
        total += sum(encoding.attention_mask)
        for token, (start, stop) in zip(encoding.ids, encoding.offsets, strict=True):
            if token == number:
                unknown[text[start:stop]] = unknown.get(text[start:stop], 0) + 1
    return sum(unknown.values()) / max(1, total), sorted(unknown, key=lambda word: -unknown[word])


def lower_cases(tokenizer: Tokenizer) -> bool:
    """Return whether a tokenizer makes capital letters small."""
    normalizer = tokenizer.normalizer
    return normalizer is not None and normalizer.normalize_str("A") == "a"


def recased(tokenizer: Tokenizer) -> Tokenizer | None:
    """Return the tokenizer with the opposite casing; None where its normalizer says nothing of casing."""
    whole = json.loads(tokenizer.to_str())
    normalizer = whole.get("normalizer")
    if not isinstance(normalizer, dict) or normalizer.get("type") != "BertNormalizer":
        return None
    normalizer["lowercase"] = not normalizer["lowercase"]
    return Tokenizer.from_str(json.dumps(whole))


def capital_share(tokenizer: Any) -> float:
    """Return the share of word pieces, special and added tokens left out, that have a capital letter from A to Z.

    Others do not count: in a vocabulary of bytes Ġ stands for a space, and Ã for the first half of é.
    """
    added = set(tokenizer.get_added_vocab())
    pieces = [piece for piece in tokenizer.get_vocab() if piece not in added and not piece.startswith("[")]
    return sum(bool(_CAPITAL.search(piece)) for piece in pieces) / max(1, len(pieces))
