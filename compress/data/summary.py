"""A short summary of the rows as they were read: columns, classes, and what is cut at the length limit."""

from __future__ import annotations

import unicodedata
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from itertools import chain
from typing import Any

import numpy as np

from compress.data.rows import Columns, Rows, folded
from compress.tasks.base import Task
from compress.wording import counted

SPLITS = ("training", "validation", "test")
UNLABELLED = "unlabelled"  # its name among the splits in `Summary.rows`
SHOWN = 8  # classes, columns or names in a line of the block
MUCH = 0.1  # share of rows or tokens above which a cut is reported


@dataclass(frozen=True, kw_only=True)
class CutRows:
    """What the length limit cuts off in one split."""

    rows: int  # rows that were inspected: all, or an even sample
    cut: int  # of these, rows above the limit
    tokens: int  # tokens of the inspected rows
    lost: int  # of these, tokens that are cut off
    words: int = 0  # words whose tokens are cut off, where each word has an answer
    unread: int = 0  # words of which the tokenizer makes no token

    @property
    def unanswered(self) -> str:
        """The words that are cut off, as the end of a sentence; empty where words have no answers of their own."""
        return f"; {counted(self.words, 'word')} without an answer" if self.words else ""

    @property
    def is_much(self) -> bool:
        """Whether more than a tenth of the rows or of the tokens is cut."""
        return self.cut > MUCH * self.rows or self.lost > MUCH * self.tokens


@dataclass(frozen=True, kw_only=True)
class Summary:
    """How the rows were read; labels are the words of the files."""

    columns: Mapping[str, Columns] = field(default_factory=dict)  # by file or split
    rows: Mapping[str, int] = field(default_factory=dict)  # by split
    classes: Mapping[str, Mapping[str, int]] = field(default_factory=dict)  # class to rows by split; empty for scores
    once: tuple[str, ...] = ()  # classes with a single training row
    alike: tuple[tuple[str, ...], ...] = ()  # classes that differ only in case, white space or Unicode form
    absent: Mapping[str, tuple[str, ...]] = field(default_factory=dict)  # classes without a row, by split
    max_tokens: int | None = None  # the length limit; None: not known yet
    cut: Mapping[str, CutRows] = field(default_factory=dict)  # by split

    def plain(self) -> dict[str, Any]:
        """Return it as report.json holds it."""
        return asdict(self)

    def cutting(self) -> list[str]:
        """Return a sentence about rows that are cut: how many, what share of the tokens, and the setting."""
        unread = {name: cut.unread for name, cut in self.cut.items() if cut.unread}
        notes = []
        if unread:
            parts = [f"{counted(words, f'{name} word')}" for name, words in unread.items()]
            notes.append(f"Words of which the tokenizer makes no token, and which have no answer: {', '.join(parts)}.")
        lossy = {name: cut for name, cut in self.cut.items() if cut.cut}
        if not lossy:
            return notes
        parts = [
            f"{cut.cut:,} of {counted(cut.rows, f'{name} row')}"
            f"{' that were looked at' if cut.rows < self.rows.get(name, 0) else ''}"
            f" ({cut.lost / max(1, cut.tokens):.1%} of the tokens{cut.unanswered})"
            for name, cut in lossy.items()
        ]
        much = any(cut.is_much for cut in lossy.values())
        remedy = " Raise teacher.max_tokens if the model takes longer rows, or shorten the texts." if much else ""
        return [f"Cut at teacher.max_tokens = {self.max_tokens}: {', '.join(parts)}.{remedy}", *notes]

    def facts(self) -> Iterator[tuple[str, str]]:
        """Yield the block line by line, as (name, text)."""
        for source, columns in self.columns.items():
            yield "file", f"{source}: {_columns(columns)}"
        yield "rows", ", ".join(f"{number:,} {name}" for name, number in self.rows.items())
        if self.classes:
            yield "classes", f"{len(self.classes)} ({'/'.join(SPLITS)} rows): {_some(self._counts())}"
        if self.once:
            yield "seen once in training", _some(map(repr, self.once))
        if self.alike:
            pairs = "; ".join(" and ".join(map(repr, names)) for names in self.alike[:SHOWN])
            yield "differ only in case, space or Unicode form", f"{pairs}; they count as different classes"
        for name, labels in self.absent.items():
            yield f"absent from {name} rows", _some(map(repr, labels))
        for sentence in self.cutting():
            yield "cut" if sentence.startswith("Cut ") else "no token", sentence.removeprefix("Cut ")

    def warnings(self) -> list[str]:
        """Return the sentences that lead a report's notes."""
        notes = self.cutting()
        if self.alike:
            pairs = "; ".join(" and ".join(map(repr, names)) for names in self.alike[:SHOWN])
            notes.append(f"Classes that differ only in case, white space or Unicode form: {pairs}.")
        if self.once:
            notes.append(f"Classes with a single training row: {_some(map(repr, self.once))}.")
        for name, labels in self.absent.items():
            notes.append(f"Classes without {name} rows: {_some(map(repr, labels))}.")
        return notes

    def with_unlabelled(self, rows: int) -> Summary:
        """Return a copy with the number of unlabelled rows."""
        return replace(self, rows={**self.rows, UNLABELLED: rows})

    def with_cuts(
        self,
        lengths: Mapping[str, np.ndarray[Any, Any]],
        max_tokens: int,
        words: Mapping[str, tuple[int, int]] | None = None,
    ) -> Summary:
        """Return a copy with what ``max_tokens`` cuts; ``lengths`` are tokens by row, by split.

        ``words`` are the words that are cut off, and those without a token, where each word has an answer.
        """
        cut = {
            name: CutRows(
                rows=len(tokens),
                cut=int((tokens > max_tokens).sum()),
                tokens=int(tokens.sum()),
                lost=int(np.maximum(tokens - max_tokens, 0).sum()),
                words=(words or {}).get(name, (0, 0))[0],
                unread=(words or {}).get(name, (0, 0))[1],
            )
            for name, tokens in lengths.items()
        }
        return replace(self, max_tokens=max_tokens, cut=cut)

    def _counts(self) -> Iterator[str]:
        for label, counts in self.classes.items():
            yield f"{label!r} " + "/".join(f"{counts.get(name, 0):,}" for name in SPLITS)


def summarize(chosen: Mapping[str, Rows], unlabelled: Rows | None, task: Task) -> Summary:
    """Return a summary of the used rows by split, without the length limit."""
    files = {rows.source: rows.columns for rows in (*chosen.values(), unlabelled) if rows is not None and rows.columns}
    sizes = {name: len(rows) for name, rows in chosen.items()}
    if unlabelled is not None:
        sizes[UNLABELLED] = len(unlabelled)
    counts = {n: Counter(chain.from_iterable(map(task.names, rows.labels or ()))) for n, rows in chosen.items()}
    if not any(counts.values()):
        return Summary(columns=files, rows=sizes)
    labels = sorted(set().union(*counts.values()), key=lambda label: (-counts["training"][label], label))
    return Summary(
        columns=files,
        rows=sizes,
        classes={label: {name: by_label[label] for name, by_label in counts.items()} for label in labels},
        once=tuple(label for label in labels if counts["training"][label] == 1),
        alike=_alike(labels),
        absent={
            name: missing
            for name, by_label in counts.items()
            if by_label and (missing := tuple(label for label in labels if not by_label[label]))
        },
    )


def _alike(labels: list[str]) -> tuple[tuple[str, ...], ...]:
    """Return groups of labels that differ only in case, white space, quotes, Unicode form or number format."""
    groups: dict[object, list[str]] = {}
    for label in sorted(labels):
        groups.setdefault(_folded_label(label), []).append(label)
    return tuple(tuple(group) for group in groups.values() if len(group) > 1)


def _folded_label(label: str) -> object:
    visible = "".join(sign for sign in unicodedata.normalize("NFKC", label) if unicodedata.category(sign) != "Cf")
    word = folded(visible.strip(" \"'"))
    try:
        return float(word)
    except ValueError:
        return unicodedata.normalize("NFKC", word)


def _columns(columns: Columns) -> str:
    used = [
        ("label", columns.label), ("text", columns.text), ("second text", columns.pair), ("group", columns.group),
    ]  # fmt: skip
    pairs = ", ".join(f"{role} = {name!r}" for role, name in used if name is not None)
    pairs += f", labels = {_some(map(repr, columns.label_columns))}" if columns.label_columns else ""
    ignored = f"; not used: {_some(map(repr, columns.ignored))}" if columns.ignored else ""
    return f"{columns.header}; {pairs}{ignored}"


def _some(words: Any) -> str:
    """Return words in a line; only the first ones if there are many."""
    listed = list(words)
    more = f" and {len(listed) - SHOWN:,} more" if len(listed) > SHOWN else ""
    return ", ".join(listed[:SHOWN]) + more
