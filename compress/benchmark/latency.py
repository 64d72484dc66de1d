"""How long an answer takes: warmed up, threads fixed, the things compared taking turns."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from compress.models.tokens import Tokens
from compress.onnx.graph import input_names
from compress.runtimes.runners import Runner
from compress.runtimes.timing import model_inputs, time_in_turns


@dataclass(frozen=True)
class Reader:
    """How a model reads texts: its tokenizer, and the texts as its tokens."""

    tokenizer: Any
    tokens: Tokens


def entry(spent: Sequence[float], *, threads: int, batch: int, tokens: int | str, tokenization: bool) -> dict[str, Any]:
    """Return one row of a latency table, times in milliseconds."""
    milliseconds = np.asarray(spent) * 1e3
    low, high, highest = (float(np.percentile(milliseconds, q)) for q in (50, 90, 99))
    return {
        "device": "cpu", "threads": threads, "batch": batch, "tokens": tokens, "tokenization": tokenization,
        "median_ms": low, "p90_ms": high, "p99_ms": highest, "calls": len(milliseconds),
    }  # fmt: skip


def real_rows(
    runners: Mapping[str, Runner], readers: Mapping[str, Reader], texts: Sequence[tuple[str, ...]],
    *, rows: int, seconds: float, threads: int,
) -> dict[str, list[dict[str, Any]]]:  # fmt: skip
    """Return latencies at batch 1 on real rows at their real lengths, without and with tokenization.

    ``rows`` rows are taken evenly from all ``texts``. Tokenization is timed on the same rows and added.
    """
    chosen = np.linspace(0, len(texts) - 1, min(rows, len(texts))).round().astype(int).tolist()
    different = {id(reader): reader for reader in readers.values()}
    inputs = {key: [model_inputs(reader.tokens, [row]) for row in chosen] for key, reader in different.items()}
    feeds = {name: inputs[id(readers[name])] for name in runners}
    spent = time_in_turns(runners, feeds, max(100, len(chosen)), seconds, "latency, real rows")
    tokenizing = {
        key: _tokenizing(reader.tokenizer, [texts[row] for row in chosen]) for key, reader in different.items()
    }
    result = {}
    for name, times in spent.items():
        more = tokenizing[id(readers[name])]
        whole = [t + more[i % len(more)] for i, t in enumerate(times)]
        result[name] = [
            entry(times, threads=threads, batch=1, tokens="real", tokenization=False),
            entry(whole, threads=threads, batch=1, tokens="real", tokenization=True),
        ]
    return result


def _tokenizing(tokenizer: Any, texts: Sequence[tuple[str, ...]]) -> list[float]:
    """Return the seconds that each text takes, after one call to warm up."""
    tokenizer(*texts[0], truncation=True)
    spent = []
    for text in texts:
        start = time.perf_counter()
        tokenizer(*text, truncation=True)
        spent.append(time.perf_counter() - start)
    return spent


def grid(
    runners: Mapping[str, Runner], tokenizers: Mapping[str, Any],
    *, batches: Sequence[int], lengths: Sequence[int], seconds: float, threads: int,
) -> dict[str, list[dict[str, Any]]]:  # fmt: skip
    """Return latencies for every batch size and length, on random token numbers without padding."""
    generator = np.random.default_rng(0)
    vocabulary = min(map(len, tokenizers.values()))
    result: dict[str, list[dict[str, Any]]] = {name: [] for name in runners}
    for batch in batches:
        for length in lengths:
            numbers = generator.integers(0, vocabulary, (batch, length))
            known = {"input_ids": numbers, "attention_mask": np.ones_like(numbers)}
            feeds = {
                name: [{one: known.get(one, np.zeros_like(numbers)) for one in input_names(tokenizers[name])}]
                for name in runners
            }
            spent = time_in_turns(runners, feeds, 100, seconds, f"latency, {batch} × {length} tokens")
            for name, times in spent.items():
                result[name].append(entry(times, threads=threads, batch=batch, tokens=length, tokenization=False))
    return result
