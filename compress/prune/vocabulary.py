"""Word pieces that texts never use: dropped from the tokenizer and the embeddings together."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from compress.data.dataset import Split
from compress.errors import DataError, Fault
from compress.models.loading import load_model, load_tokenizer, save_model
from compress.models.tokens import Tokens, tokenize
from compress.models.vocabulary import used_pieces, with_pieces, with_rows
from compress.state import Model, Record, Stage, State


@dataclass(kw_only=True)
class PruneVocabulary(Stage):
    """Drop the word pieces that a corpus never uses; its texts are cut and answered as before (TextPruner)."""

    corpus: str | None = None  # a text file, a text a line, beside the recipe's own training, validation, other rows

    def faults(self) -> Iterator[Fault]:
        """The corpus is a file."""
        if self.corpus is not None and not Path(self.corpus).is_file():
            yield Fault("corpus", self.corpus, "is no file", "Name a text file with a text a line.")

    def __call__(self, state: State) -> State:
        """Return the state with a student of fewer word pieces."""
        student = state.given_student
        splits = [split for split in (state.data.train, state.data.validation, state.data.unlabelled) if split]
        if self.corpus is not None:
            splits.append(_lines(Path(self.corpus)))

        def work(folder: Path) -> dict[str, Any]:
            model, tokenizer = load_model(student.folder), load_tokenizer(student.folder)
            columns = [_tokens(split, tokenizer).columns["input_ids"] for split in splits]
            before = len(tokenizer)
            keep = sorted(used_pieces(tokenizer, columns))
            if len(keep) < before:
                tokenizer = with_pieces(tokenizer, keep)
                with_rows(model, keep, tokenizer)
            save_model(model, tokenizer, folder)
            return {"before": before, "after": len(keep)}

        product = state.workshop.make("vocabulary", [student.key, [split.fingerprint for split in splits]], work)
        model = Model(product.folder, product.key)
        before, after = product.record["before"], product.record["after"]
        notes = (f"{before - after:,} of {before:,} word pieces removed; {after:,} left",)
        record = Record("vocabulary", type(self).__name__, model, product.seconds, product.reused, notes)
        return state.with_record(record, student=model)


def _tokens(split: Split, tokenizer: Any) -> Tokens:
    """Return whole texts as tokens: what is cut off today may be read tomorrow."""
    return tokenize(split, tokenizer, 10**6)


def _lines(path: Path) -> Split:
    """Return the lines of a file that are not empty; raises DataError where it cannot be read."""
    try:
        lines = tuple(line for line in path.read_text(encoding="utf-8").splitlines() if line.strip())
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: cannot be read as UTF-8 text: {error}.") from error
    return Split(lines)
