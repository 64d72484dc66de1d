"""Read a file of answers: one row after the other, matched later by id, text or number."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from enum import Enum
from functools import lru_cache
from pathlib import Path

import numpy as np

from compress.data.columns import choose, listed
from compress.data.dataset import Split
from compress.data.formats import READERS, Bad, Record
from compress.data.rows import row_id
from compress.data.unpacking import suffix_of
from compress.errors import DataError, ModelError
from compress.files import hash_file
from compress.settings import nearest
from compress.tasks.base import Array, Task
from compress.teachers.answer_values import AnswerForm, Meaning, Rest, Unreadable, Vectors, folded_word
from compress.wording import counted, shortened

ARRAYS = ".npy"
SUFFIXES = (*READERS, ARRAYS)
FORMS = {
    "probabilities": AnswerForm.probabilities, "probs": AnswerForm.probabilities, "logits": AnswerForm.logits,
    "logprobs": AnswerForm.logprobs, "top_logprobs": AnswerForm.logprobs, "answers": AnswerForm.words,
    "answer": AnswerForm.words,
}  # fmt: skip
"""The columns that are recognised by name, and what they hold."""
VECTORS = dict.fromkeys(("vector", "vectors", "embedding", "embeddings"), AnswerForm.logits)
"""Those of a task whose answers are vectors."""
ID = "id"


class Match(Enum):
    """auto: by id where the file has such a column, else by text, else by number."""

    auto = "auto"
    id = "id"
    text = "text"
    number = "number"


@dataclass(frozen=True, kw_only=True)
class Reading:
    """The settings by which a file is read; see `compress.teachers.answers.AnswerFile`."""

    match: Match
    keys: tuple[str, ...]
    column: str | None
    form: AnswerForm
    classes: tuple[str, ...]  # in the order of the file, as the file names them; empty: not named
    words: tuple[tuple[str, tuple[str, ...]], ...]
    names: tuple[tuple[str, str], ...]  # the file's name of a class -> the data's
    rest: Rest
    several: bool


@dataclass(frozen=True, kw_only=True)
class Table:
    """Answers by the key of their row."""

    rows: dict[bytes, int]
    logits: Array  # (rows, outputs), fp64
    weights: Array  # (rows,): 1, or less where several answers to a row differ
    match: Match  # not auto
    form: AnswerForm  # not auto
    named: bool  # whether the file or the settings name the classes
    content: str  # a hash of the files
    without: int  # rows of the file that have no answer
    several: int  # rows with more than one answer
    first: str  # the first key, for messages

    def find(self, rows: Split) -> Array:
        """Return where each row's answer is, (rows,); -1 where there is none."""
        return np.fromiter((self.rows.get(key, -1) for key in self._keys(rows)), np.int64, len(rows))

    def _keys(self, rows: Split) -> Iterator[bytes]:
        if self.match is Match.text:
            pairs: Iterable[str | None] = [None] * len(rows) if rows.pairs is None else rows.pairs
            yield from (of_texts(text, pair) for text, pair in zip(rows.texts, pairs, strict=True))
        else:
            yield from map(digest, rows.ids or [""] * len(rows))


def digest(key: str) -> bytes:
    """Return a short key; millions of them fit into memory."""
    return hashlib.blake2b(key.encode("utf-8", "surrogatepass"), digest_size=16).digest()


def of_texts(text: str, pair: str | None) -> bytes:
    """Return the key of a row by its texts, white space folded."""
    return digest("\x00".join(" ".join(part.split()) for part in (text, pair) if part is not None))


def read_table(files: dict[str, str], reading: Reading, task: Task, records: dict[str, int]) -> Table:
    """Return the answers in files, by the part of the data that each is for.

    ``records`` tells how many rows each part of the data without ids has. Raises ModelError for the first answer that
    cannot be used, with its place.
    """
    paths = {part: Path(name).expanduser() for part, name in files.items()}
    try:
        stands = tuple((part, str(path), path.stat().st_mtime_ns, path.stat().st_size) for part, path in paths.items())
    except OSError as error:
        raise ModelError(f"{error.filename}: cannot be read ({error.strerror}).") from None
    return _read(stands, reading, task, tuple(records.items()))


@lru_cache(maxsize=2)  # a check before work asks several times
def _read(
    stands: tuple[tuple[str, str, int, int], ...], reading: Reading, task: Task, records: tuple[tuple[str, int], ...]
) -> Table:
    collected = _Collected(reading, task, dict(records))
    for part, name, *_ in stands:
        try:
            if Path(name).suffix.lower() == ARRAYS:
                collected.array(part, name)
            else:
                collected.table(part, name)
        except DataError as error:
            raise ModelError(str(error)) from None
    content = hash_of([hash_file(Path(name)) for _, name, *_ in stands])
    return collected.finished(content)


def hash_of(parts: list[str]) -> str:
    """Return one hash of several."""
    return hashlib.sha256("".join(parts).encode()).hexdigest()


class _Collected:
    """Rows as they are read, until all are there."""

    def __init__(self, reading: Reading, task: Task, records: dict[str, int]) -> None:
        self.reading, self.task, self.records = reading, task, records
        self.match, self.form, self.named = reading.match, reading.form, bool(reading.classes)
        self.known_forms = VECTORS if task.apart else FORMS
        self.rows: dict[bytes, int] = {}
        self.places: list[str] = []
        self.values: list[Array] = []  # the answers, fp64, one after the other
        self.owners: list[int] = []  # the row of each
        self.without = self.bad = 0
        self.first_bad = self.first = ""
        self.spans: list[tuple[int, int]] = []  # of each row among the answers
        self.meaning, self.order = meaning_of(reading, task)

    def array(self, part: str, name: str) -> None:
        """Take the rows of an array (rows, outputs) or (rows, answers, outputs)."""
        if self.task.apart:
            raise ModelError(
                f"{name}: has no texts, by which vectors are found. Write Parquet or JSONL with a text and its vector "
                "in each row."
            )
        try:
            values = np.load(name, allow_pickle=False)
        except (ValueError, OSError, EOFError) as error:
            reason = next(iter(str(error).splitlines()), type(error).__name__).rstrip(".")
            raise ModelError(
                f"{name}: cannot be read as NumPy's .npy ({reason}). Write it again: numpy.save."
            ) from None
        outputs = len(self.meaning.classes)
        if (
            not isinstance(values, np.ndarray)
            or not np.issubdtype(values.dtype, np.number)
            or values.ndim not in (2, 3)
        ):
            shape = getattr(values, "shape", "several arrays")
            raise ModelError(
                f"{name}: holds {getattr(values, 'dtype', 'several arrays')} of shape {shape}. Give numbers of shape "
                "(rows, classes), or (rows, answers, classes)."
            )
        if values.shape[-1] != outputs:
            raise ModelError(
                f"{name}: has {values.shape[-1]} columns, and the data has {outputs} classes "
                f"({', '.join(map(shortened, self.meaning.classes[:10]))}). Give one for each."
            )
        if self.reading.match not in (Match.auto, Match.number):
            raise ModelError(
                f"{name}: has no ids and no texts: an array is matched by number. Leave out teacher.match."
            )
        self._matched(Match.number, name)
        for row, answers in enumerate(values.reshape(len(values), -1, outputs)):
            place = f"{name}, row {row + 1}"
            missing = np.isnan(answers).all()
            broken = not missing and not np.isfinite(answers).all()
            if broken:
                self._refuse(place, "holds a number that is not finite. Ask that row again; NaN in all of its columns "
                             "says that it has no answer.")  # fmt: skip
            else:
                self._add(digest(row_id(part, row)), row_id(part, row), place, [] if missing else answers.tolist())
        self._counted(part, name, len(values))

    def table(self, part: str, name: str) -> None:
        """Take the rows of a table."""
        path = Path(name)
        suffix = suffix_of(path)
        unit = "row" if suffix == ".parquet" else "line"
        records = READERS[suffix](path)
        names: list[str] | None = None
        take: Callable[[dict[str, object]], Vectors] | None = None
        count, keys = 0, list[str]()
        for number, record in records:
            place = f"{name}, {unit} {number}"
            if isinstance(record, list) and names is None:
                names = [field.strip() for field in record]
                continue
            count += 1
            fields = self._fields(record, names, place)
            if fields is None:
                continue
            if take is None:
                take = self._columns(name, list(fields))
                keys = self._keys(name, list(fields))
            lacking = [column for column in keys if fields.get(column) in (None, "")]
            if lacking:
                self._refuse(place, f"has no {lacking[0]!r}, by which it is matched. Fill it, or remove the row.")
                continue
            try:
                vectors = take(fields)
            except Unreadable as error:
                self._refuse(place, str(error))
                continue
            shown = row_id(part, count - 1) if self.match is Match.number else str(fields[keys[0]]).strip()
            if self.match is Match.text:
                key = of_texts(str(fields[keys[0]]), str(fields[keys[1]]) if len(keys) > 1 else None)
            else:
                key = digest(shown)
            self._add(key, shown, place, vectors)
        if not count:
            raise ModelError(f"{name}: has no rows. Each holds an answer.")
        if self.match is Match.number:
            self._counted(part, name, count)

    def _fields(self, record: Record, names: list[str] | None, place: str) -> dict[str, object] | None:
        if isinstance(record, Bad):
            self._refuse(place, record.reason)
            return None
        if isinstance(record, dict):
            return record
        assert names is not None
        if len(record) != len(names):
            self._refuse(place, f"has {counted(len(record), 'field')}, and the header {len(names)}. Correct the line.")
            return None
        return dict(zip(names, record, strict=True))

    def _keys(self, name: str, columns: list[str]) -> list[str]:
        """Return the columns by which rows are matched; settles how."""
        keys, match = list(self.reading.keys), self.reading.match
        if self.task.apart:
            if match not in (Match.auto, Match.text):
                raise ModelError(
                    f"{name}: teacher.match={match.value} finds no text: each text has a vector, which its own words "
                    "find. Leave it out."
                )
            match = Match.text
        for key in keys:
            if key not in columns:
                raise ModelError(
                    f"{name}: has no column {key!r} (teacher.keys); its columns are {listed(columns)}. "
                    f"{nearest(key, columns)}"
                )
        if match is Match.number:
            self._matched(match, name)
            return []
        if match is Match.id or (match is Match.auto and (keys or ID in columns)):
            if not keys and ID not in columns:
                raise ModelError(
                    f"{name}: has no column 'id'; its columns are {listed(columns)}. Name it: teacher.keys=[COLUMN]."
                )
            self._matched(Match.id, name)
            return keys[:1] or [ID]
        try:
            text, pair = (*keys, None, None)[:2]
            text, pair, _ = choose(columns, text, pair, None, where=name, labelled=False)
            pair = None if self.task.apart else pair
        except DataError:
            if match is Match.text:
                raise ModelError(
                    f"{name}: cannot tell which column holds the texts: {listed(columns)}. Name it: "
                    "teacher.keys=[COLUMN]."
                ) from None
            self._matched(Match.number, name)
            return []
        self._matched(Match.text, name)
        return [text] if pair is None else [text, pair]

    def _matched(self, match: Match, name: str) -> None:
        if self.rows and self.match is not match:
            raise ModelError(f"{name}: has rows to match by {match.value}, and the file before by {self.match.value}.")
        self.match = match

    def _counted(self, part: str, name: str, rows: int) -> None:
        """Refuse a file, matched by number, that has another number of rows than the data."""
        if part not in self.records:
            raise ModelError(
                f"{name}: is matched by number, and the rows of data.{part} have ids (data.id) or are not there. "
                "Give each answer the id of its row, or leave out data.id."
            )
        if rows != self.records[part]:
            few = "few" if rows < self.records[part] else "many"
            raise ModelError(
                f"{name}: too {few} rows to be matched by number: it has {rows:,}, and data.{part} "
                f"{self.records[part]:,}. Give a row for each row of the data, empty where there is no answer, or an "
                "id or the text beside each answer."
            )

    def _columns(self, name: str, columns: list[str]) -> Callable[[dict[str, object]], Vectors]:
        """Return what reads the answers of a row."""
        column = self.reading.column
        if column is not None and "*" not in column:
            if column not in columns:
                raise ModelError(
                    f"{name}: has no column {column!r} (teacher.column); its columns are {listed(columns)}. "
                    f"{nearest(column, columns)}"
                )
        elif column is None and (self.task.apart or not set(self.meaning.classes) <= set(columns)):
            found = [known for known in self.known_forms if known in columns]
            if not found and self.task.apart:
                raise ModelError(
                    f"{name}: cannot tell which column holds the vectors: {listed(columns)}. Name it: "
                    "teacher.column=COLUMN, or, with a column for each number, as teacher.column=v_*."
                )
            if not found:
                lacking = next(label for label in self.meaning.classes if label not in columns)
                raise ModelError(
                    f"{name}: has neither a column for the class {shortened(lacking)!r} nor one of "
                    f"{', '.join(FORMS)}; its columns are {listed(columns)}. Name it: teacher.column=COLUMN, or, with "
                    "a column for each class, as teacher.column=p_*, where * stands for the class."
                )
            column = found[0]
        if column is None or "*" in column:
            return self._by_class(name, columns, column or "*")
        form = self.reading.form
        self.form = self.known_forms.get(column, AnswerForm.auto) if form is AnswerForm.auto else form
        return lambda fields: self._of_column(fields.get(column))

    def _of_column(self, field: object) -> Vectors:
        vectors = self.meaning.vectors(field, self.form)
        self.named |= self.form in (AnswerForm.words, AnswerForm.logprobs) or isinstance(field, dict)
        return vectors

    def _by_class(self, name: str, columns: list[str], pattern: str) -> Callable[[dict[str, object]], Vectors]:
        before, _, after = pattern.partition("*")
        known = [c for c in columns if c.startswith(before) and c.endswith(after) and len(c) > len(before + after)]
        if self.task.apart:
            if not known:
                raise ModelError(
                    f"{name}: has no column {pattern!r} (teacher.column); its columns are {listed(columns)}."
                )
            return lambda fields: self.meaning.of_columns([fields.get(column) for column in known])
        wanted = [f"{before}{label}{after}" for label in self.meaning.classes]
        for label, column in zip(self.meaning.classes, wanted, strict=True):
            if column not in columns:
                raise ModelError(
                    f"{name}: has no column {column!r} for the class {shortened(label)!r}; its columns are "
                    f"{listed(columns)}. {nearest(column, columns)}"
                )
        if before or after:
            extra = [column for column in known if column not in wanted]
            if extra:
                raise ModelError(
                    f"{name}: the column {extra[0]!r} stands for a class that the data does not have "
                    f"({', '.join(map(shortened, self.meaning.classes[:10]))}). Remove it, or map it: data.labels."
                )
        self.named = True
        return lambda fields: self.meaning.of_columns([fields.get(column) for column in wanted])

    def _add(self, key: bytes, shown: str, place: str, vectors: Vectors) -> None:
        self.first = self.first or shown
        first = self.values[0] if self.values else next(iter(vectors), ())
        if unequal := next((len(vector) for vector in vectors if len(vector) != len(first)), 0):
            other = self.places[self.owners[0]] if self.owners else "its first answer"
            self._refuse(
                place,
                f"has a vector of {unequal:,} numbers, and {other} one of {len(first):,}. Give vectors of one width.",
            )
            return
        row = self.rows.get(key)
        if row is None:
            row = self.rows[key] = len(self.rows)
            self.places.append(place)
            self.spans.append((len(self.values), len(self.values) + len(vectors)))
        elif not self.reading.several and not self._same(row, vectors):
            what = "id" if self.match is Match.id else "text"
            self._refuse(
                place,
                f"the {what} {shortened(shown)!r} is that of {self.places[row]} too, which has another answer. Remove "
                "one, or let them be several answers to one row: teacher.several=true.",
            )
            return
        elif not self.reading.several:
            return
        self.values += [np.array(vector, np.float64) for vector in vectors]
        self.owners += [row] * len(vectors)

    def _same(self, row: int, vectors: Vectors) -> bool:
        """Return whether a text that stands twice has the same answer; the same id twice is an error anyway."""
        if self.match is not Match.text:
            return False
        kept = self.values[slice(*self.spans[row])]
        return len(kept) == len(vectors) and all(map(np.array_equal, kept, vectors))

    def _refuse(self, place: str, reason: str) -> None:
        self.bad += 1
        self.first_bad = self.first_bad or f"{place}: {reason}"

    def finished(self, content: str) -> Table:
        """Return the answers; raises ModelError for bad ones."""
        task, rows = self.task, len(self.rows)
        outputs = len(self.values[0]) if self.values else len(self.meaning.classes)
        values = np.array(self.values, np.float64).reshape(len(self.values), outputs)
        values = values if task.apart else values[:, self.order]
        owners = np.array(self.owners, np.int64)
        self._decide(values)
        if self.form is not AnswerForm.logits and task.distributes:
            outside = ((values < 0) | (values > 1)).any(-1)
            for what, wrong in (("do not lie between 0 and 1", outside), ("do not sum to 1", task.improper(values))):
                for place in np.flatnonzero(wrong & (True if what.startswith("do not l") else ~outside)):
                    shown = ", ".join(f"{value:.4g}" for value in values[place][:6])
                    total = "" if what.startswith("do not l") else f" but to {values[place].sum():.4g}"
                    self._refuse(
                        self.places[owners[place]],
                        f"the probabilities {shown} {what}{total}. Correct them; of logits: teacher.form=logits.",
                    )
        if self.bad:
            more = f" {counted(self.bad - 1, 'more row')} of the answers cannot be used." if self.bad > 1 else ""
            raise ModelError(self.first_bad + more)
        counts = np.bincount(owners, minlength=rows)
        logits, weights = self._averaged(values, owners, counts)
        there = counts > 0
        if not there.any():
            raise ModelError(f"{self.places[0].rpartition(',')[0]}: no row has an answer.")
        kept = np.cumsum(there) - 1
        return Table(
            rows={key: int(kept[row]) for key, row in self.rows.items() if there[row]}, logits=logits[there],
            weights=weights[there], match=self.match, form=self.form, named=self.named, content=content,
            without=int((~there).sum()), several=int((counts > 1).sum()), first=self.first,
        )  # fmt: skip

    def _decide(self, values: Array) -> None:
        """Settle whether numbers are probabilities, where nothing says so: most rows that could be one's decide."""
        if self.form in (AnswerForm.words, AnswerForm.logprobs):
            self.form = AnswerForm.probabilities
        if self.form is AnswerForm.auto:
            inside = ((values >= 0) & (values <= 1)).all(-1) & ~self.task.improper(values)
            self.form = AnswerForm.probabilities if self.task.distributes and inside.mean() > 0.5 else AnswerForm.logits

    def _averaged(self, values: Array, owners: Array, counts: Array) -> tuple[Array, Array]:
        """Return a row's mean answer as logits, and its weight: 1, less the mean distance of its answers from it."""
        task, outputs = self.task, values.shape[-1]

        def mean(numbers: Array) -> Array:
            sums = np.zeros((len(counts), *numbers.shape[1:]))
            np.add.at(sums, owners, numbers)
            return sums / np.maximum(counts, 1).reshape(-1, *[1] * (numbers.ndim - 1))

        if not task.distributes:
            return mean(values), np.ones(len(counts))
        if self.form is AnswerForm.logits and counts.max(initial=0) <= 1:
            logits = np.zeros((len(counts), outputs))
            logits[owners] = values
            return logits, np.ones(len(counts))
        shares = task.probabilities(values) if self.form is AnswerForm.logits else values
        means = mean(shares)
        distances = np.abs(shares - means[owners]).max(-1)
        return task.of_probabilities(means), 1 - mean(distances)


def meaning_of(reading: Reading, task: Task) -> tuple[Meaning, list[int]]:
    """Return how fields are read, and the file's outputs in the order of the data's labels.

    Raises ModelError where the classes that the settings name are not the data's.
    """
    if task.apart:
        for setting, given in (("classes", reading.classes), ("words", reading.words)):
            if given:
                raise ModelError(f"teacher.{setting} has no effect: vectors have no classes. Leave it out.")
        return Meaning(classes=(), words=(), shown=(), rest=reading.rest), []
    outputs, label_of = task.output_names, dict(reading.names)
    own = {label: name for name, label in label_of.items()}
    names = reading.classes or tuple(own.get(label, label) for label in outputs)
    labels = [label_of.get(name, name) for name in names]
    if unknown := next((label for label in labels if label not in outputs), None):
        raise ModelError(
            f"teacher.classes names the class {shortened(unknown)!r}, which the data does not have. "
            f"{nearest(unknown, outputs)}"
        )
    if lacking := next((label for label in outputs if label not in labels), None):
        raise ModelError(f"teacher.classes lacks the class {shortened(lacking)!r} of the data. Name all of them.")
    words, spoken = dict(reading.words), dict[str, int]()
    if unknown := next((name for name in words if name not in (*names, *outputs)), None):
        raise ModelError(f"teacher.words names the class {shortened(unknown)!r}. {nearest(unknown, outputs)}")
    each = [words.get(label, words.get(name, (name,))) for name, label in zip(names, labels, strict=True)]
    for place, name in enumerate(names):
        for word in each[place]:
            other = spoken.setdefault(folded_word(word), place)
            if other != place:
                raise ModelError(
                    f"teacher.words: {word!r} stands for {names[other]!r} and for {name!r}, as case and signs "
                    "around words do not count. Give each class words of its own."
                )
    meaning = Meaning(
        classes=names, words=tuple(spoken.items()), shown=tuple(next(iter(word), "") for word in each),
        rest=reading.rest,
    )  # fmt: skip
    return meaning, [labels.index(label) for label in outputs]
