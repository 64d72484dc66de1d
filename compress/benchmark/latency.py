"""How long an answer takes: warmed up, threads fixed, the things compared taking turns on one device."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from compress.errors import in_one_line
from compress.models.tokens import Tokens
from compress.onnx.graph import input_names
from compress.runtimes.base import Session
from compress.runtimes.devices import CPU, Device
from compress.runtimes.noise import LEAST, Load, Turns
from compress.runtimes.rows import model_inputs
from compress.runtimes.timing import time_in_turns
from compress.tasks.base import Array

CALLS = 100  # of each model, unless it has been busy for as long as it may be

Feed = Mapping[str, Array]
Row = tuple[str, bool]  # the name of a session, and whether copies to its device and back are timed
Texts = tuple[str, ...]  # of a row: one or two
Reads = Callable[[Texts], Any]  # what is timed on the texts of a row: a tokenizer, a model that reads texts itself


@dataclass(frozen=True, kw_only=True)
class Calls:
    """How long each call of one session took, and in which turns; or why it was not timed."""

    seconds: Sequence[float] = ()
    turns: Turns | None = None
    failure: str = ""  # as a clause


@dataclass(frozen=True)
class Reader:
    """How a model reads texts: its tokenizer, and the texts as its tokens."""

    tokenizer: Any
    tokens: Tokens


def entry(
    spent: Sequence[float],
    turns: Turns | None,
    *,
    device: Device,
    threads: int,
    batch: int,
    tokens: int | str,
    tokenization: bool,
    copies: bool = False,
    variant: str = "",
    not_measured: str = "",
) -> dict[str, Any]:
    """Return one row of a latency table, times in milliseconds, or why there are none.

    ``turns`` are those in which the calls were made; ``quiet_ms`` is the median of the quietest of them, and ``noise``
    says why the figures are to be taken with care, if they are.
    ``copies`` is in it for a device with memory of its own, ``variant`` where a runtime has several.
    """
    condition = {
        "device": device.name, "threads": threads, "batch": batch, "tokens": tokens, "tokenization": tokenization,
        **({"copies": copies} if device.own_memory else {}), **({"variant": variant} if variant else {}),
    }  # fmt: skip
    if not_measured:
        return condition | {"not_measured": not_measured}
    milliseconds = np.asarray(spent) * 1e3
    low, high, highest = (float(np.percentile(milliseconds, q)) for q in (50, 90, 99))
    figures: dict[str, Any] = {"median_ms": low, "p90_ms": high, "p99_ms": highest, "calls": len(milliseconds)}
    if turns is not None and len(spent) == len(turns.alike):
        figures["quiet_ms"] = float(np.median(milliseconds[turns.quiet]))
        figures |= {"noise": noise} if (noise := turns.noise(spent)) else {}
    return condition | figures


def real_rows(
    sessions: Mapping[str, Session], readers: Mapping[str, Reader], texts: Sequence[Texts],
    *, rows: int, seconds: float, threads: int, beside: Mapping[str, Reads] | None = None,
) -> dict[str, list[dict[str, Any]]]:  # fmt: skip
    """Return latencies at batch 1 on real rows at their real lengths, without and with tokenization.

    ``rows`` rows are taken evenly from all ``texts``. Tokenization is timed in the same turns and added; so are models
    ``beside`` the sessions that read texts themselves. The sessions are on one device; where it has memory of its own,
    all is timed without and with copies. What fails has entries that say why.
    """
    chosen = np.linspace(0, len(texts) - 1, min(rows, len(texts))).round().astype(int).tolist()
    different = {id(reader): reader for reader in readers.values()}
    inputs = {
        key: [model_inputs(reader.tokens, reader.tokens.of_row(row)) for row in chosen]
        for key, reader in different.items()
    }
    feeds = {name: inputs[id(readers[name])] for name in sessions}
    tokenizers = {key: f"tokenizer {number}" for number, key in enumerate(different)}
    tokenizing = {tokenizers[key]: partial(_tokenize, reader.tokenizer) for key, reader in different.items()}
    reading: Mapping[str, Reads] = {**(beside or {}), **tokenizing}
    given = [texts[row] for row in chosen]
    timed = _timed(sessions, feeds, max(CALLS, len(chosen)), seconds, "latency, real rows", (reading, given))
    result: dict[str, list[dict[str, Any]]] = {name: [] for name in (*sessions, *(beside or ()))}
    for name in beside or ():
        calls = timed[name, False]
        result[name].append(
            entry(
                calls.seconds, calls.turns, device=CPU, threads=threads, batch=1, tokens="real", tokenization=True,
                not_measured=calls.failure,
            )
        )  # fmt: skip
    for (name, copies), calls in timed.items():
        if name not in sessions:
            continue
        session, more = sessions[name], timed[tokenizers[id(readers[name])], False].seconds
        real = partial(
            entry, device=session.device, variant=session.variant, threads=threads, copies=copies, batch=1,
            tokens="real", not_measured=calls.failure,
        )  # fmt: skip
        result[name].append(real(calls.seconds, calls.turns, tokenization=False))
        if copies or not session.device.own_memory:  # texts come from the CPU
            whole = [spent + reads for spent, reads in zip(calls.seconds, more, strict=False)]
            result[name].append(real(whole, calls.turns, tokenization=True))
    return result


def _tokenize(tokenizer: Any, texts: Texts) -> Any:
    return tokenizer(*texts, truncation=True)


def grid(
    sessions: Mapping[str, Session], tokenizers: Mapping[str, Any],
    *, batches: Sequence[int], lengths: Sequence[int], seconds: float, threads: int,
) -> dict[str, list[dict[str, Any]]]:  # fmt: skip
    """Return latencies for every batch size and length, on random token numbers without padding.

    The sessions are on one device; where it has memory of its own, all is timed without and with copies. A session
    that fails under one condition has an entry that says why, and is timed under the next.
    """
    generator = np.random.default_rng(0)
    vocabulary = min(map(len, tokenizers.values()))
    result: dict[str, list[dict[str, Any]]] = {name: [] for name in sessions}
    for batch in batches:
        for length in lengths:
            numbers = generator.integers(0, vocabulary, (batch, length))
            feeds = {name: [random_rows(numbers, input_names(tokenizers[name]))] for name in sessions}
            timed = _timed(sessions, feeds, CALLS, seconds, f"latency, {batch} × {length} tokens")
            for (name, copies), calls in timed.items():
                session = sessions[name]
                result[name].append(
                    entry(
                        calls.seconds, calls.turns, device=session.device, variant=session.variant, threads=threads,
                        copies=copies, batch=batch, tokens=length, tokenization=False, not_measured=calls.failure,
                    )
                )  # fmt: skip
    return result


def random_rows(numbers: Array, names: Sequence[str]) -> Feed:
    """Return token numbers (batch, tokens) as the inputs of a model, without padding."""
    known = {"input_ids": numbers, "attention_mask": np.ones_like(numbers)}
    return {name: known.get(name, np.zeros_like(numbers)) for name in names}


def _timed(
    sessions: Mapping[str, Session], feeds: Mapping[str, Sequence[Feed]], calls: int, seconds: float, title: str,
    reading: tuple[Mapping[str, Reads], Sequence[Texts]] = ({}, ()),
) -> dict[Row, Calls]:  # fmt: skip
    """Return the calls of sessions on one device, called alternately; with copies too if it has memory of its own.

    What ``reading`` names is called in the same turns on texts, as many as there are feeds.
    """
    runs: dict[Row, Any] = {}
    given: dict[Row, Sequence[Any]] = {}
    failures: dict[Row, Exception] = {}
    for name, session in sessions.items():
        runs[name, session.device.own_memory], given[name, session.device.own_memory] = session, feeds[name]
        if not session.device.own_memory:
            continue
        try:
            given[name, False] = [session.place(feed) for feed in feeds[name]]
        except Exception as error:  # runtimes' errors share no base class
            failures[name, False] = error
        else:
            runs[name, False] = session.run
    if not runs:
        return {(name, False): Calls(failure="nothing was timed beside it") for name in reading[0]}
    for name, reads in reading[0].items():
        runs[name, False], given[name, False] = reads, reading[1]
    device = next(iter(sessions.values())).device
    work = [sum(next(iter(feeds[name][place].values())).size for name in feeds) for place in range(_passes(feeds))]

    def measure(look: Callable[[], None], left: float) -> Spent:
        return time_in_turns(runs, given, calls, left, title, device, failures, look)

    spent, turns = quieter(measure, work, seconds)
    every = [(name, copies) for name in (*sessions, *reading[0]) for copies in (False, True)]
    return {
        row: Calls(seconds=spent[row], turns=turns) if row in spent else Calls(failure=in_one_line(failures[row]))
        for row in every
        if row in failures or row in spent
    }


def _passes(feeds: Mapping[str, Sequence[Feed]]) -> int:
    """Return how many turns a pass over the feeds takes."""
    return len(next(iter(feeds.values())))


Spent = dict[Row, list[float]]


def quieter(
    measure: Callable[[Callable[[], None], float], Spent],
    work: Sequence[float],
    seconds: float,
    load: Callable[[], Load] = Load,
) -> tuple[Spent, Turns | None]:
    """Return the seconds of each runner in each turn; of two measurements where the first is noisy, the quieter one.

    ``measure`` is given what it must call after every turn and how many seconds a runner may be busy, and goes over
    pieces of work of these sizes in turn, as often as it has time for, at least once. The second measurement has what
    the first left of ``seconds``, and is left out where that is too short for `LEAST` calls.
    """

    def once(left: float) -> tuple[Spent, Turns | None]:
        seen = load()
        spent = measure(seen.look, left)
        if not spent:
            return spent, None
        count = len(next(iter(spent.values())))
        return spent, Turns.of(spent, [work[turn % len(work)] for turn in range(count)], seen.mean)

    found, turns = once(seconds)
    if turns is None or turns.badness(found) <= 1:
        return found, turns
    busy = max(map(sum, found.values()))
    left = max(seconds - busy, 0.0)
    if max(len(work), left / busy * len(turns.alike)) < LEAST:
        return found, turns
    again, later = once(left)
    if later is None or set(again) != set(found) or later.badness(again) >= turns.badness(found):
        return found, turns
    return again, later
