"""The base of all augmentations: copies of training rows, written one by one, that only the teacher labels.

A row's copies depend on the seed and the row alone, so a stopped run resumes.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from compress.data.dataset import Dataset, Split
from compress.data.rows import key_of
from compress.errors import CompressError, DamagedError, Fault
from compress.known import NOTHING, Known
from compress.pipeline.plan import Plan, PlannedRows
from compress.pipeline.record import Augmented
from compress.pipeline.stage import Stage
from compress.pipeline.state import State
from compress.pipeline.workshop import Kind
from compress.progress import progress
from compress.sealed import read_sealed, write_sealed
from compress.settings import at_least
from compress.telling import say
from compress.wording import counted

ROWS = "rows.jsonl"  # one line per row: its one or two texts
NOTED = "progress.json"  # progress of the work; removed when it is done
SAVE_EVERY = 500  # training rows between notes
EXAMPLES = 20  # rows kept for the report

Texts = tuple[str, ...]  # one text, or the two of a pair


class Maker(Protocol):
    """Produces copies of rows."""

    def copies(self, row: int, number: int, generator: np.random.Generator, counts: Counter[str]) -> Iterator[Texts]:
        """Yield copies of a training row, and count each kind of change by name."""
        ...


@dataclass(kw_only=True)
class Augmentation(Stage):
    """Add changed copies of the training rows to the rows that the teacher labels.

    Copies equal to another row (case and white space folded) are dropped, and so are those equal to a
    validation or test row.
    """

    copies: int = 20  # per training row, before duplicates are dropped
    rows: int | None = None  # maximum number of added rows, from training rows in random order; default: all

    def faults(self, known: Known = NOTHING) -> Iterator[Fault]:
        """Require at least one copy and one row, and sources that can be used."""
        yield from at_least(self, "copies", 1)
        yield from at_least(self, "rows", 1)
        if known.reading and not any(self.faults()):
            try:
                self.look()
            except CompressError as error:
                yield Fault("", None, str(error).rstrip("."))

    def look(self) -> None:
        """Raise CompressError if a source of this augmentation cannot be used."""

    def sources(self, state: State) -> Any:
        """Return, JSON-ready, what the copies depend on besides the settings and the rows."""
        raise NotImplementedError(type(self).__name__)

    def maker(self, state: State) -> Maker:
        """Return the object that produces the copies."""
        raise NotImplementedError(type(self).__name__)

    def plan(self, plan: Plan) -> Plan:
        """Rows are added, of which duplicates are not known yet."""
        most = min(self.copies * len(plan.data.train), 10**12 if self.rows is None else self.rows)
        added = PlannedRows(copies=self.copies, at_most=most, of=len(plan.data.train))
        return replace(plan.having(added=added), added=plan.added + most)

    def __call__(self, state: State) -> State:
        """Return the state with more unlabelled rows, and a record of them for the report."""
        data = state.data
        splits = (data.train, data.validation, data.test, data.unlabelled)
        made_with = [
            self.made_with(), self.sources(state), [s and s.fingerprint for s in splits], state.seed, *data.words.key,
        ]  # fmt: skip

        def work(folder: Path) -> dict[str, Any]:
            return produce(self.maker(state), data, self.copies, self.rows, state.seed, folder)

        product = state.workshop.make(Kind("augmentation", revision=1), made_with, work)
        counts = product.record["counts"]
        augmented = Augmented(
            kind=type(self).__name__, settings=self.made_with(), counts=counts,
            examples=tuple(product.record["examples"]), seconds=product.seconds, reused=product.reused,
        )  # fmt: skip
        say(
            f"  {counted(counts['kept'], 'row')} made of {len(data.train):,}; dropped: {counts['duplicates']:,} "
            f"duplicates, {counts['measured']:,} equal to a validation or test row; "
            + ("taken from the cache" if product.reused else f"{product.seconds:.0f} s")
        )
        added = read(product.folder / ROWS, data.pairs)
        unlabelled = added if data.unlabelled is None else data.unlabelled.followed_by(added)
        return replace(
            state, data=replace(data, unlabelled=unlabelled), augmentations=(*state.augmentations, augmented)
        )


def produce(maker: Maker, data: Dataset, copies: int, most: int | None, seed: int, folder: Path) -> dict[str, Any]:
    """Write the copies of all training rows, or as many as ``most``, to ``folder``; return counts and examples."""
    order = np.random.default_rng(seed).permutation(len(data.train))
    measured = {digest_of(texts) for split in (data.validation, data.test) for texts in _rows(split)}
    known = {digest_of(texts) for split in (data.train, data.unlabelled) if split for texts in _rows(split)}
    noted = folder / NOTED
    resumed = read_sealed(noted)
    note: dict[str, Any] = {"done": 0, "size": 0, "counts": {}, "examples": []} | (resumed or {})
    counts = Counter({"copies": 0, "kept": 0, "duplicates": 0, "measured": 0} | note["counts"])
    examples: list[dict[str, Any]] = note["examples"]
    with (folder / ROWS).open("a+b") as file:
        file.truncate(note["size"])  # rows after the last note are made again
        file.seek(0)
        written = hashlib.sha256()
        for line in file:
            written.update(line)
        if resumed and written.hexdigest() != resumed["rows"]:
            raise DamagedError(folder / ROWS, "has changed since it was written")
        file.seek(0)
        known |= {digest_of(tuple(json.loads(line))) for line in file}
        left = range(note["done"], len(order))
        for place in progress(left, title="augmentation", unit="row", initial=note["done"], total=len(order)):
            if most is not None and counts["kept"] >= most:
                break
            row = int(order[place])
            original = texts_of(data.train, row)
            kept: list[Texts] = []
            for texts in maker.copies(row, copies, np.random.default_rng([seed, row]), counts):
                counts["copies"] += 1
                digest = digest_of(texts)
                if digest in measured:
                    counts["measured"] += 1
                elif digest in known:
                    counts["duplicates"] += 1
                elif most is None or counts["kept"] < most:
                    known.add(digest)
                    counts["kept"] += 1
                    kept.append(texts)
            lines = [json.dumps(texts, ensure_ascii=False).encode() + b"\n" for texts in kept]
            file.writelines(lines)
            written.update(b"".join(lines))
            if kept and len(examples) < EXAMPLES:
                chosen = kept[len(examples) % len(kept)]  # not always the first copy
                examples.append({"original": list(original), "augmented": list(chosen)})
            if place % SAVE_EVERY == SAVE_EVERY - 1:
                file.flush()
                os.fsync(file.fileno())
                done = {"done": place + 1, "size": file.tell(), "rows": written.hexdigest()}
                write_sealed(noted, {**done, "counts": counts, "examples": examples})
    noted.unlink(missing_ok=True)
    return {"counts": dict(counts), "examples": examples}


def read(path: Path, pairs: bool) -> Split:
    """Return the rows of a file that `produce` wrote."""
    with path.open(encoding="utf-8") as file:
        rows = [tuple(json.loads(line)) for line in file]
    return Split(tuple(row[0] for row in rows), tuple(row[1] for row in rows) if pairs else None)


def texts_of(split: Split, row: int) -> Texts:
    """Return a row's one or two texts."""
    return (split.texts[row],) if split.pairs is None else (split.texts[row], split.pairs[row])


def _rows(split: Split) -> Iterator[Texts]:
    return (texts_of(split, row) for row in range(len(split)))


def digest_of(texts: Texts) -> bytes:
    """Return a short key that equal rows share; millions of them fit into memory."""
    return hashlib.blake2b(key_of(*texts).encode(), digest_size=16).digest()
