"""A tokenizer beside its model: inputs that the model has, numbers that it has, rows as long as were measured."""

from __future__ import annotations

import inspect
import json
from pathlib import Path
from typing import Any

from compress.errors import ModelError
from compress.families.registry import principal_config
from compress.files import write_text
from compress.models.auto import model_class
from compress.models.folder import TOKENIZER, TOKENIZER_CONFIG

TYPES = "token_type_ids"
_STORED = ("max_length", "stride", "pad_to_multiple_of", "truncation_strategy")  # of a tokenizer.json read before
_MOST = 2**31  # tokens; transformers says 10**30 where it knows no limit


def fit_tokenizer(model: str | Path, tokenizer: Any, config: Any) -> None:
    """Make token types an input where the model and the tokenizer have them; raises ModelError where they disagree.

    They disagree where the tokenizer knows more tokens, or gives more types, than the model has embeddings for.
    """
    longest = tokenizer.model_max_length
    if isinstance(longest, bool) or not isinstance(longest, int | float) or not longest >= 1:
        raise ModelError(
            f"{model}: model_max_length = {longest!r} in {TOKENIZER_CONFIG} must be a number of at least 1."
        )
    config = principal_config(config)
    _check_size(model, tokenizer, getattr(config, "vocab_size", None))
    count, given = _types(config), max(_encoded(tokenizer, "a", "b").type_ids, default=0)
    has_types = TYPES in tokenizer.model_input_names if count is None else count > 1
    if count is not None and 1 < count <= given:
        raise ModelError(
            f"{model}: its tokenizer gives the second text type {given}, and the model has types 0 to {count - 1}. "
            f"Correct post_processor in {TOKENIZER}."
        )
    has_types = has_types and (given > 0 or TYPES in tokenizer.model_input_names)
    names = ["input_ids", *([TYPES] if has_types else []), "attention_mask"]
    if set(names) != set(tokenizer.model_input_names):
        tokenizer.model_input_names = names


def save_tokenizer(tokenizer: Any, folder: Path) -> None:
    """Write the tokenizer so that tokenizer.json alone cuts rows as they were measured, and pads none."""
    backend, longest = tokenizer.backend_tokenizer, tokenizer.model_max_length
    backend.no_padding()
    backend.no_truncation()
    if longest < _MOST:
        backend.enable_truncation(int(longest), strategy="longest_first", direction=tokenizer.truncation_side)
    for name in _STORED:
        tokenizer.init_kwargs.pop(name, None)
    tokenizer.init_kwargs["model_input_names"] = list(tokenizer.model_input_names)  # else the class decides
    tokenizer.save_pretrained(folder)
    path = folder / TOKENIZER_CONFIG
    saved = json.loads(path.read_text(encoding="utf-8"))
    if saved.get("tokenizer_class") == "TokenizersBackend":  # the name since transformers 5; both know the older one
        saved["tokenizer_class"] = "PreTrainedTokenizerFast"
        write_text(path, json.dumps(saved, indent=2, sort_keys=True, ensure_ascii=False) + "\n")


def same_tokens(first: Any, second: Any) -> bool:
    """Return whether two tokenizers make every text the same token numbers, special ones included."""
    return _rules(first) == _rules(second)


def _rules(tokenizer: Any) -> tuple[Any, ...]:
    """Return what decides the token numbers of a text; how the special ones are written down does not."""
    whole = json.loads(tokenizer.backend_tokenizer.to_str())
    added = sorted((token["id"], token["content"]) for token in whole.get("added_tokens") or [])
    parts = {name: whole.get(name) for name in ("model", "normalizer", "pre_tokenizer")}
    return parts, added, _encoded(tokenizer, "a").ids, _encoded(tokenizer, "a", "b").ids


def _encoded(tokenizer: Any, text: str, pair: str | None = None) -> Any:
    """Return the encoding of a row, neither cut nor padded."""
    return tokenizer(text, pair, truncation=False, padding=False).encodings[0]


def _check_size(model: str | Path, tokenizer: Any, rows: int | None) -> None:
    if rows is None:
        return
    numbers = tokenizer.get_vocab()
    token = max(numbers, key=numbers.__getitem__, default=None)
    if token is None:
        raise ModelError(f"{model}: its tokenizer knows no tokens. Save it again: tokenizer.save_pretrained(folder).")
    if numbers[token] >= rows:
        raise ModelError(
            f"{model}: its tokenizer has {_more(numbers[token] + 1 - rows)} than the embeddings have rows: {token!r} "
            f"has number {numbers[token]:,} and the embeddings have {rows:,} rows. Call "
            "model.resize_token_embeddings(len(tokenizer)) and train the model with it, or remove the token from "
            f"{TOKENIZER} and {TOKENIZER_CONFIG}."
        )


def _more(count: int) -> str:
    return f"{count:,} more token{'' if count == 1 else 's'}"


def _types(config: Any) -> int | None:
    """Return how many token types a model has embeddings for; None where its configuration does not say."""
    count = getattr(config, "type_vocab_size", None)
    if isinstance(count, int):
        return count
    kind = model_class(config)
    return 0 if kind is not None and TYPES not in inspect.signature(kind.forward).parameters else None
