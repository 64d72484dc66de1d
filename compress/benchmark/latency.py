"""How long an answer takes: warmed up, threads fixed, the things compared taking turns."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from compress.benchmark.runners import Runner, model_inputs
from compress.models.tokens import Tokens
from compress.progress import progress
from compress.tasks import Array

WARM_UP = 3  # calls of each runner before any is timed


def time_in_turns(
    runners: Mapping[str, Runner], feeds: Sequence[Mapping[str, Array]], calls: int, seconds: float, title: str
) -> dict[str, list[float]]:
    """Return seconds a call for each runner, called in turn (A B A B …) on one feed after the other.

    It ends after a whole pass over the feeds when each runner has been called ``calls`` times, or, for slow
    ones, been busy for ``seconds``; so a drifting machine touches all alike.
    """
    for runner in runners.values():
        for feed in list(feeds[:WARM_UP]) or feeds:
            runner(feed)
    spent: dict[str, list[float]] = {name: [] for name in runners}
    busy = dict.fromkeys(runners, 0.0)
    with progress(total=calls, title=title, unit="call") as bar:
        while any(len(spent[name]) < calls and busy[name] < seconds for name in runners):
            for feed in feeds:
                for name, runner in runners.items():
                    start = time.perf_counter()
                    runner(feed)
                    spent[name].append(time.perf_counter() - start)
                    busy[name] += spent[name][-1]
                bar.update()
    return spent


def entry(spent: Sequence[float], *, threads: int, batch: int, tokens: int | str, tokenization: bool) -> dict[str, Any]:
    """Return one row of a latency table, times in milliseconds."""
    milliseconds = np.asarray(spent) * 1e3
    low, high, highest = (float(np.percentile(milliseconds, q)) for q in (50, 90, 99))
    return {
        "device": "cpu", "threads": threads, "batch": batch, "tokens": tokens, "tokenization": tokenization,
        "median_ms": low, "p90_ms": high, "p99_ms": highest, "calls": len(milliseconds),
    }  # fmt: skip


def real_rows(
    runners: Mapping[str, Runner], tokens: Tokens, texts: Sequence[tuple[str, ...]], tokenizer: Any,
    *, rows: int, seconds: float, threads: int,
) -> dict[str, list[dict[str, Any]]]:  # fmt: skip
    """Return latencies at batch 1 on real rows at their real lengths, without and with tokenization.

    ``rows`` rows are taken evenly from all. Tokenization is timed on the same rows and added.
    """
    chosen = np.linspace(0, len(tokens) - 1, min(rows, len(tokens))).round().astype(int).tolist()
    feeds = [model_inputs(tokens, [row]) for row in chosen]
    spent = time_in_turns(runners, feeds, max(100, len(feeds)), seconds, "latency, real rows")
    tokenizer(*texts[chosen[0]], truncation=True)
    tokenizing = []
    for row in chosen:
        start = time.perf_counter()
        tokenizer(*texts[row], truncation=True)
        tokenizing.append(time.perf_counter() - start)
    result = {}
    for name, times in spent.items():
        whole = [t + tokenizing[i % len(tokenizing)] for i, t in enumerate(times)]
        result[name] = [
            entry(times, threads=threads, batch=1, tokens="real", tokenization=False),
            entry(whole, threads=threads, batch=1, tokens="real", tokenization=True),
        ]
    return result


def grid(
    runners: Mapping[str, Runner], names: Sequence[str], vocabulary: int,
    *, batches: Sequence[int], lengths: Sequence[int], seconds: float, threads: int,
) -> dict[str, list[dict[str, Any]]]:  # fmt: skip
    """Return latencies for every batch size and length, on random token numbers without padding."""
    generator = np.random.default_rng(0)
    result: dict[str, list[dict[str, Any]]] = {name: [] for name in runners}
    for batch in batches:
        for length in lengths:
            numbers = generator.integers(0, vocabulary, (batch, length))
            feed = {
                name: {"input_ids": numbers, "attention_mask": np.ones_like(numbers)}.get(name, np.zeros_like(numbers))
                for name in names
            }
            spent = time_in_turns(runners, [feed], 100, seconds, f"latency, {batch} × {length} tokens")
            for name, times in spent.items():
                result[name].append(entry(times, threads=threads, batch=batch, tokens=length, tokenization=False))
    return result
