"""A look at a finished model before any work: does it answer the data's question, in the order that was assumed?

A head that numbers its labels otherwise, a tokenizer that does not know the words, weights that are not finite: each
would be found only in the figures of a finished run, or never.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import PreTrainedModel

from compress.data.dataset import Dataset, Split
from compress.errors import ModelError
from compress.models.evaluate import predict_rows
from compress.models.known_words import check_words
from compress.models.outputs import observe
from compress.models.tokens import Tokens, tokenize
from compress.pipeline.workshop import Kind, Workshop
from compress.tasks.adoption import Adoption
from compress.tasks.judging import ENOUGH, Head

TOKENS, MOST_ROWS = 10_000, 500  # how many are read


@dataclass(frozen=True, kw_only=True)
class Subject:
    """A finished model, how it is loaded, and how its head is read."""

    setting: str  # that named it, as "teacher.model"
    name: str
    key: Any  # what tells this version of it from another, JSON-ready
    tokenizer: Any
    load: Callable[[], PreTrainedModel]  # on the CPU
    adoption: Adoption | None  # how its head is read; None: it is trained later, and only its tokenizer is looked at
    max_tokens: int
    max_unknown: float  # largest share of unknown tokens
    data: Dataset  # labels numbered as the head's outputs

    def sample(self) -> Split:
        """Return labelled rows to try it on: of the validation split, then of the training split, in random order."""
        generator = np.random.default_rng(0)
        validation, train = self.data.validation, self.data.train
        chosen = validation.take(generator.permutation(len(validation))[:MOST_ROWS])
        if len(chosen) < MOST_ROWS:
            more = train.take(np.sort(generator.permutation(len(train))[: MOST_ROWS - len(chosen)]))
            chosen = chosen.joined(more, self.data.task.missing)
        return chosen


def examine(subject: Subject, workshop: Workshop) -> list[str]:
    """Return sentences on what the model answers on rows of the data; raises ModelError where it cannot be used."""
    sample = subject.sample()
    notes = check_words(subject.tokenizer, [*sample.texts, *(sample.pairs or ())], subject.name, subject.max_unknown)
    if subject.adoption is None:
        return notes

    def work(folder: Path) -> dict[str, int]:
        model = subject.load()
        _run_extremes(subject, model, sample)
        tokens = tokenize(sample, subject.tokenizer, subject.max_tokens)
        rows = within(tokens)
        logits = predict_rows(model, tokens.take(np.arange(rows)), f"trying {Path(subject.name).name}")
        np.save(folder / "logits.npy", logits)
        return {"rows": rows}

    made_with = [subject.key, subject.max_tokens, subject.data.task.head_config(), sample.fingerprint]
    product = workshop.make(Kind("examination", revision=1), made_with, work)
    logits = np.load(product.folder / "logits.npy", allow_pickle=False)
    labels = sample.known_labels[: len(logits)]
    known = subject.data.task.labelled(torch.from_numpy(labels)).numpy()
    head = Head(subject.name, subject.setting, subject.adoption, mapped=bool(subject.data.label_map))
    if not np.isfinite(logits).all():
        broken = int((~np.isfinite(logits).all(-1)).sum())
        raise ModelError(
            f"{subject.name}: its logits are not finite on {broken:,} of {len(logits):,} rows, so its weights or its "
            "number format are damaged. Save it again from where it was trained, in fp32."
        )
    if not known.any():
        return [*notes, "no row has a label by which its answers could be judged"]
    return [*notes, *subject.data.task.judge(head, logits[known], labels[known])]


def within(tokens: Tokens) -> int:
    """Return how many of the first rows hold about `TOKENS` tokens together: `ENOUGH` at least, where there are."""
    full = int(np.searchsorted(tokens.offsets, TOKENS, side="right")) - 1
    return min(len(tokens), max(ENOUGH, full))


def _run_extremes(subject: Subject, model: PreTrainedModel, sample: Split) -> None:
    """Run one row as long as allowed, one single text and one pair; raises ModelError where one cannot be."""
    long = " ".join([sample.texts[0]] * (subject.max_tokens + 1))
    kinds = {
        f"a row of {subject.max_tokens} tokens, as teacher.max_tokens allows": (long, None),
        "a pair of texts" if sample.pairs else "one text": (sample.texts[0], sample.pairs[0] if sample.pairs else None),
    }
    for kind, (text, pair) in kinds.items():
        tokens = tokenize(Split([text], None if pair is None else [pair]), subject.tokenizer, subject.max_tokens)
        try:
            with torch.inference_mode():
                observe(model, tokens.batch([0]))
        except (IndexError, RuntimeError, ValueError, TypeError, KeyError) as error:
            reason = next(iter(str(error).splitlines()), type(error).__name__)
            raise ModelError(
                f"{subject.name}: cannot answer {kind}: {reason.rstrip('.')}. "
                "Set teacher.max_tokens to what it was trained with, and check that its tokenizer is its own."
            ) from error
