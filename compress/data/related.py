"""Rows of a query, texts that go with it and texts that do not, as one row for each of those texts."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain

from compress.data.formats import Bad, Numbered, Record, kind_of
from compress.wording import counted

QUERIES = ("query", "anchor", "question")
POSITIVES = ("positive", "positives")
NEGATIVE = "negative"  # and names that begin so
QUERY, DOCUMENT, RELEVANCE, RECORD = "query", "document", "relevance", "record"
"""The columns of the rows that are made."""


@dataclass(frozen=True)
class Related:
    """The columns of a file whose rows are a query with positive and negative texts."""

    names: Sequence[str]
    query: str
    positives: str
    negatives: tuple[str, ...]

    @classmethod
    def of(cls, names: Sequence[str]) -> Related | None:
        """Return them; None where the columns are others."""
        by_name = {name.strip().casefold(): name for name in reversed(names)}
        query, positives = (next((by_name[n] for n in known if n in by_name), None) for known in (QUERIES, POSITIVES))
        if query is None or positives is None:
            return None
        negatives = tuple(name for name in names if name.strip().casefold().startswith(NEGATIVE))
        return cls(names, query, positives, negatives)

    def note(self, source: str) -> str:
        """Return how they are read, for the report."""
        negatives = f", those in {', '.join(map(repr, self.negatives))} relevance 0" if self.negatives else ""
        return f"{source}: each text in {self.positives!r} is a row with relevance 1{negatives}, beside its query."

    def rows(self, number: int, record: Record) -> Iterator[tuple[int, Record]]:
        """Yield a row for each text beside the query, relevance 1 or 0, all from one record; or what is wrong."""
        fields = self._fields(record)
        if isinstance(fields, Bad):
            yield number, fields
            return
        found: list[tuple[str, int]] = []
        for relevance, columns in ((1, (self.positives,)), (0, self.negatives)):
            for column in columns:
                texts = _texts(column, fields.get(column))
                if isinstance(texts, Bad):
                    yield number, texts
                    return
                found += [(text, relevance) for text in texts]
        if not any(relevance for _, relevance in found):
            yield number, Bad(f"the text ({self.positives!r}) is empty. Fill it, or remove the row.")
            return
        for text, relevance in found:
            yield number, {QUERY: fields[self.query], DOCUMENT: text, RELEVANCE: relevance, RECORD: number}

    def _fields(self, record: Record) -> Mapping[str, object] | Bad:
        if isinstance(record, dict):
            missing = [name for name in (self.query, self.positives) if name not in record]
            return Bad(f"has no {missing[0]!r}. Each object needs the same keys.") if missing else record
        if isinstance(record, Bad):
            return record
        if len(record) != len(self.names):
            return Bad(
                f"expected {counted(len(self.names), 'field')} ({', '.join(self.names)}), got {len(record)}. A row "
                "without a negative text leaves its field empty."
            )
        return dict(zip(self.names, record, strict=True))


def related(records: Numbered) -> tuple[Numbered, Related | None]:
    """Return rows as `Related` makes them where the first record has such columns; else the records as they are."""
    first = next(records, None)
    if first is None:
        return iter(()), None
    record = first[1]
    columns = None if isinstance(record, Bad) else Related.of([name.strip() for name in record])
    if columns is None:
        return chain([first], records), None
    left = chain([first], records) if isinstance(record, dict) else records
    return (row for number, record in left for row in columns.rows(number, record)), columns


def _texts(column: str, value: object) -> list[str] | Bad:
    """Return the texts in a field: one, several in a list, or none where it is empty."""
    texts = []
    for text in value if isinstance(value, list) else [] if value is None else [value]:
        if not isinstance(text, str):
            return Bad(f"{column!r} holds {kind_of(text)}, not a text. Give a text, or a list of texts.")
        texts += [text] if text.strip() else []
    return texts
