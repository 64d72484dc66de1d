"""What preparations on unlabelled texts share: their texts, and the pretrained model that teaches."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from compress.data.corpus import corpus_faults, read_corpus
from compress.data.dataset import Split
from compress.distill.keep_best import head_note
from compress.errors import CompressError, Fault
from compress.families.registry import FAMILIES, UNEVEN, family_behind
from compress.known import NEEDS_WEIGHTS, NOTHING, Known
from compress.models.loading import content_of, load_config, load_tokenizer
from compress.models.positions import longest_row
from compress.pipeline.model import Model
from compress.pipeline.plan import Plan
from compress.pipeline.state import State
from compress.pipeline.workshop import Product
from compress.settings import at_least
from compress.train import Training, encoder_faults, parameter_faults


@dataclass(kw_only=True)
class OnCorpus(Training):
    """Train the student's encoder on texts without labels; its head stays as it was built."""

    reads_unlabelled: ClassVar[bool] = True

    corpus: str | None = None  # a text file, one row per line; default: the run's training and unlabelled rows
    rows: int | None = None  # a seeded sample of the corpus; default: all rows
    teacher: str | None = None  # folder or hub id, pretrained; default: what the teacher was fine-tuned from
    max_tokens: int | None = None  # longer rows are cut; default: teacher.max_tokens

    def faults(self, known: Known = NOTHING) -> Iterator[Fault]:
        """Check ranges; the corpus is a text file, and the pretrained model can teach the student."""
        yield from super().faults()  # the models that are compared here are others than the run's
        if self.corpus is not None:
            yield from corpus_faults("corpus", self.corpus)
        yield from at_least(self, "rows", 1)
        yield from at_least(self, "max_tokens", 4)
        if self.teacher == "":
            yield Fault("teacher", self.teacher, "must name a folder or hub id")
        if self.early_stopping:
            rule = "has no metric here, for texts without labels"
            yield Fault("early_stopping", self.early_stopping, rule, "Set it to 0.")
        if known.only_answers:
            yield Fault("teacher", self.teacher, NEEDS_WEIGHTS, "Leave it out of prepare.")
        elif known.student is not None:
            yield from self._unfit(known.student, known.source, known.fine_tuned)

    def _unfit(self, student: Any, teacher: str | None, fine_tuned: bool | None) -> Iterator[Fault]:
        """Yield why the student cannot be trained so, the corpus not be read, or the pretrained model not teach it."""
        if not self.trains(student, UNEVEN):
            known = ", ".join(self.types())
            rule = f"trains encoders of type {known}, and the student is of type {student.model_type}"
            yield Fault("teacher", self.teacher, rule, "Use student=bert, or leave this preparation out.")
            return
        yield from parameter_faults(self, student)
        yield from encoder_faults(self, student)
        if self.corpus is not None and not any(corpus_faults("corpus", self.corpus)):
            try:
                read_corpus(self.corpus)
            except CompressError as error:
                yield Fault("corpus", self.corpus, str(error).rstrip("."))
        if self.teacher is None and fine_tuned is False:
            rule = "is not known: the run's teacher has its head already and is not fine-tuned here"
            yield Fault("teacher", None, rule, "Name the folder or hub id of the pretrained model.")
            return
        if teacher is None:
            return
        source = self.source(teacher)
        try:
            config = load_config(source)
            if not self.trains(config):
                rule = f"is of type {config.model_type}"
                yield Fault("teacher", self.teacher, rule, f"Supported: {', '.join(self.types())}.")
                return
            same = source == teacher or load_tokenizer(source).get_vocab() == load_tokenizer(teacher).get_vocab()
        except CompressError as error:
            yield Fault("teacher", self.teacher, str(error).rstrip("."))
            return
        if not same:
            rule = "has another vocabulary than the run's teacher"
            yield Fault("teacher", self.teacher, rule, "Name the model that teacher.model was fine-tuned from.")
        longest = min(longest_row(config), longest_row(student))
        if self.max_tokens is not None and self.max_tokens > longest:
            yield Fault("max_tokens", self.max_tokens, f"must be at most {longest}, the most that the models take")
        yield from self._cannot_teach(source, config, student)

    def trains(self, config: Any, *forms: str) -> bool:
        """Return whether it works for encoders of this configuration, perhaps of one of these forms."""
        return family_behind(str(config.model_type), *forms) is not None

    def types(self) -> list[str]:
        """Return the families that it works for."""
        return list(FAMILIES)

    def _cannot_teach(self, source: str, config: Any, student: Any) -> Iterator[Fault]:
        """Yield why this pretrained model, of a known family and the student's vocabulary, cannot teach."""
        yield from ()

    def source(self, pretrained: str | None) -> str:
        """Return the folder or hub id that teaches; raises ValueError where there is none."""
        source = self.teacher or pretrained
        if source is None:
            raise ValueError("a pretrained model is needed: name it, or let the teacher be fine-tuned in this run")
        return str(Path(source).expanduser()) if source.startswith("~") else source

    def source_key(self, source: str) -> str:
        """Return what tells one content of the pretrained model from another."""
        return f"pretrained {content_of(source, load_config(source))}"

    def texts(self, state: State | Plan) -> Split:
        """Return the rows to train on, without labels."""
        rows = replace(state.data.transfer, labels=None) if self.corpus is None else read_corpus(self.corpus)
        if self.rows is None or self.rows >= len(rows):
            return rows
        return rows.take(np.sort(np.random.default_rng(state.seed).choice(len(rows), self.rows, replace=False)))

    def more(self, plan: Plan) -> int:
        """Return how many rows augmentations will have added to the texts, at most."""
        if self.corpus is not None:
            return 0
        return plan.added if self.rows is None else max(0, min(plan.added, self.rows - len(plan.data.transfer)))

    def handed_on(self, state: State, product: Product, rows: Split) -> State:
        """Return the state with the student that ``product`` holds, and its record."""
        note = f"{len(rows):,} texts without labels; {head_note(state, state.given_student, Model.of(product))}"
        kept = product.record
        record = self.record(type(self).__name__, [product], notes=(note, *kept["notes"]), curves=kept["curves"])
        return state.with_student(record)

    def made_with(self) -> Any:
        """Of texts and models the content counts, which the stage adds, not where they lie."""
        left_out = ("corpus", "rows", "teacher")
        return {name: value for name, value in super().made_with().items() if name not in left_out}
