"""Word pieces that texts never use: dropped from the tokenizer and the embeddings together."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, pairwise
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from torch import nn
from transformers import PreTrainedModel

from compress.data.dataset import Split
from compress.errors import DataError, Fault
from compress.files import MIB
from compress.known import NOTHING, Known
from compress.models.loading import load_tokenizer, without_values
from compress.models.positions import counts_from_padding
from compress.models.tokens import Tokens, tokenize
from compress.models.vocabulary import KINDS, kind_of, used_pieces, with_pieces, with_rows
from compress.pipeline.record import Role
from compress.pipeline.rewrite import Rewritten, rewrite
from compress.pipeline.stage import Stage
from compress.pipeline.state import State
from compress.pipeline.workshop import Kind


@dataclass(kw_only=True)
class PruneVocabulary(Stage):
    """Drop the word pieces that a corpus never uses; its texts are cut and answered as before (TextPruner)."""

    role: ClassVar[Role] = Role.pruning

    corpus: str | None = (
        None  # a text file, one text per line, beside the recipe's own training, validation, other rows
    )

    def faults(self, known: Known = NOTHING) -> Iterator[Fault]:
        """The corpus is a file that can be read, and pieces can be dropped from the tokenizer and the student."""
        if self.corpus is not None and not Path(self.corpus).is_file():
            yield Fault("corpus", self.corpus, "is not a file", "Name a text file with one text per line.")
        elif self.corpus is not None and known.reading:
            try:
                _lines(Path(self.corpus))
            except DataError as error:
                yield Fault("corpus", self.corpus, str(error).removesuffix("."))
        if known.student is not None:
            yield from self._unfit(known.student, known.source or known.student.name_or_path)

    def _unfit(self, student: Any, source: str) -> Iterator[Fault]:
        """Word embeddings must be one table, and the tokenizer, mostly the teacher's, able to lose pieces."""
        if not isinstance(without_values(student).get_input_embeddings(), nn.Embedding):
            rule = f"cannot drop word pieces of a {student.model_type} student whose embeddings are factorised"
            yield Fault("corpus", self.corpus, rule, "Leave vocabulary out of prune, or embedding_size out of student.")
        if getattr(student, "own_tokens", False) or not source:
            return
        kind = kind_of(load_tokenizer(source))
        if kind not in KINDS:
            rule = f"cannot drop pieces of a {kind} tokenizer"
            yield Fault("corpus", self.corpus, rule, f"Supported: {', '.join(KINDS)}.")

    def __call__(self, state: State) -> State:
        """Return the state with a student of fewer word pieces."""
        student = state.given_student
        splits = [split for split in (state.data.train, state.data.validation, state.data.unlabelled) if split]
        if self.corpus is not None:
            splits.append(_lines(Path(self.corpus)))

        test = state.data.test

        def change(model: PreTrainedModel, tokenizer: Any) -> Rewritten:
            columns = [_tokens(split, tokenizer).columns["input_ids"] for split in splits]
            before = len(tokenizer)
            used = used_pieces(tokenizer, columns, chain.from_iterable(split.all_texts() for split in splits))
            if counts_from_padding(model.config):  # whose number must stay
                used |= set(range(model.config.pad_token_id))
            keep, smaller = sorted(used), tokenizer
            if len(keep) < before:
                smaller = with_pieces(tokenizer, keep)
                with_rows(model, keep, smaller)
            table = model.get_input_embeddings()
            assert isinstance(table, nn.Embedding)
            changed = _changed(_tokens(test, tokenizer), _tokens(test, smaller), keep)
            return Rewritten(
                model,
                smaller,
                {"before": before, "after": len(keep), "mib": 4 * table.embedding_dim / MIB, "changed": changed},
            )

        made_with = [[split.fingerprint for split in (*splits, test)]]
        product = rewrite(state.workshop, Kind("vocabulary", revision=2), student, made_with, change)
        before, after, mib = (product.record[name] for name in ("before", "after", "mib"))
        notes = (
            f"{before - after:,} of {before:,} word pieces removed; {after:,} left; embeddings of {before * mib:.1f} "
            f"MiB are now {after * mib:.1f}; {product.record['changed']:,} of {len(test):,} test rows are cut into "
            "other pieces",
        )
        record = self.record("vocabulary", [product], notes=notes)
        return state.with_student(record)


def _tokens(split: Split, tokenizer: Any) -> Tokens:
    """Return whole texts as tokens: what is cut off today may be read tomorrow."""
    return tokenize(split, tokenizer, 10**6)


def _changed(before: Tokens, after: Tokens, keep: Sequence[int]) -> int:
    """Return how many rows are cut into other pieces than before; ``keep`` has the old number of each new one."""
    old, new = before.columns["input_ids"], np.asarray(keep)[after.columns["input_ids"]]
    rows = zip(pairwise(before.offsets), pairwise(after.offsets), strict=True)
    return sum(not np.array_equal(old[slice(*was)], new[slice(*is_now)]) for was, is_now in rows)


def _lines(path: Path) -> Split:
    """Return the lines of a file that are not empty; raises DataError where it cannot be read."""
    try:
        lines = tuple(line for line in path.read_text(encoding="utf-8").splitlines() if line.strip())
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: cannot be read as UTF-8 text: {error}.") from error
    return Split(lines)
