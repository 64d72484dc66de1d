"""A look at a finished model before any work: does it answer the data's question, in the order that was assumed?

A head that numbers its labels otherwise, a tokenizer that does not know the words, weights that are not finite: each
would be found only in the figures of a finished run, or never.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Iterator
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
from compress.tasks.base import Array
from compress.tasks.classification import Classification

TOKENS, MOST_ROWS, ENOUGH = 10_000, 500, 40  # how many rows are read; with fewer, nothing is concluded
CERTAIN = 1e-3  # probability below which chance is ruled out
OTHER_SCALE = 0.4  # share of two ranges in which both lie, below which their scales are taken to differ


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
            labels = np.concatenate([chosen.known_labels, more.known_labels])
            pairs = None if chosen.pairs is None or more.pairs is None else [*chosen.pairs, *more.pairs]
            chosen = Split([*chosen.texts, *more.texts], pairs, labels)
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
    if not np.isfinite(logits).all():
        broken = int((~np.isfinite(logits).all(-1)).sum())
        raise ModelError(
            f"{subject.name}: its logits are not finite on {broken:,} of {len(logits):,} rows, so its weights or its "
            "number format are damaged. Save it again from where it was trained, in fp32."
        )
    judge = _of_classes if isinstance(subject.data.task, Classification) else _of_scores
    return [*notes, *judge(subject, subject.adoption, logits, labels)]


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


def _of_classes(subject: Subject, adoption: Adoption, logits: Array, labels: Array) -> Iterator[str]:
    """Yield how often it is right; raises ModelError where its outputs stand for other labels than was assumed."""
    names = list(subject.data.task.head_config()["label2id"])
    predicted = logits.argmax(-1)
    right, rows = predicted == labels, len(labels)
    share, most = float(right.mean()), np.bincount(labels, minlength=len(names))
    always = f"always {names[int(most.argmax())]!r}: {most.max() / rows:.1%}"
    yield f"{share:.1%} of {rows:,} sampled rows answered correctly ({always})"
    if rows < ENOUGH:
        if adoption.assumed:
            yield f"too few rows to confirm {adoption.note}"
        return
    order = best_order(predicted, labels, len(names))
    other = order[predicted] == labels
    gained, lost = int((other & ~right).sum()), int((right & ~other).sum())
    if _beyond_chance(gained, gained + lost, 0.5, tests=math.factorial(min(len(names), 20))):
        meant = _meant(adoption, names, order)
        rule = (
            f"it answers {share:.1%} of {rows:,} labelled rows correctly, and would answer {other.mean():.1%} "
            "correctly if its outputs stood for other labels"
        )
        if not subject.data.label_map:
            raise ModelError(
                f"{subject.name}: {rule}. If they do, {_remedy(subject, meant)}; "
                "otherwise check that the rows are labelled as those it was trained on."
            )
        yield f"despite data.labels, {rule} ({', '.join(f'{name} = {label}' for name, label in meant.items())})"
    if not _associated(predicted, labels, len(names)):
        if adoption.assumed:
            raise ModelError(
                f"{subject.name}: it answers {share:.1%} of {rows:,} labelled rows correctly, no more than chance "
                f"would, and nothing says that it was trained on these labels ({adoption.note}). Name a teacher that "
                "was, set teacher.fine_tune=always to train it on these rows, or say what its outputs are: data.labels."
            )
        yield "that is no more than chance: this model does not know these labels, or was trained on other texts"


def best_order(predicted: Array, labels: Array, count: int) -> Array:
    """Return for each class that is predicted the class that it stands for, so that most rows are right, (classes,)."""
    from scipy.optimize import linear_sum_assignment

    confusion = np.zeros((count, count), dtype=np.int64)
    np.add.at(confusion, (predicted, labels), 1)
    confusion = confusion * (count + 1) + np.eye(count, dtype=np.int64)  # of equal orders the one that changes least
    order: Array = linear_sum_assignment(confusion, maximize=True)[1]
    return order


def _meant(adoption: Adoption, names: list[str], order: Array) -> dict[str, str]:
    """Return the labels that outputs stand for by the best order, where they differ from what was assumed."""
    if adoption.single:
        return {adoption.own[0]: names[order[1]]}
    label_of = {index: label for label, index in adoption.outputs.items()}
    moved = [i for i in range(len(names)) if order[i] in label_of and (adoption.assumed or order[i] != i)]
    return {adoption.own[index]: label_of[order[index]] for index in moved}


def _remedy(subject: Subject, meant: dict[str, str]) -> str:
    """Return what to write so that outputs stand for other labels, as it can be pasted."""
    if subject.setting != "teacher.model":
        pairs = ", ".join(f"{name} is {label}" for name, label in meant.items())
        return f"correct the id2label in its config.json ({pairs})"
    if all(re.fullmatch(r"[\w-]+( [\w-]+)*", word) for pair in meant.items() for word in pair):
        pairs = ", ".join(f"{name}: {label}" for name, label in meant.items())
        return f"set 'data.labels={{{pairs}}}'"
    return f"write into a recipe file: data: {{labels: {json.dumps(meant, ensure_ascii=False)}}}"


def _beyond_chance(successes: int, trials: int, share: float, tests: int) -> bool:
    """Return whether so many successes are too many for chance, of the best of ``tests`` hypotheses (Bonferroni)."""
    from scipy.stats import binomtest

    if not trials:
        return False
    p = float(binomtest(successes, trials, share, alternative="greater").pvalue)
    return p * tests < CERTAIN


def _associated(predicted: Array, labels: Array, count: int) -> bool:
    """Return whether answers and labels have anything to do with each other: agreement beyond that of independence."""
    rows = len(labels)
    shares = [np.bincount(values, minlength=count) / rows for values in (predicted, labels)]
    expected = float((shares[0] * shares[1]).sum())
    return _beyond_chance(int((predicted == labels).sum()), rows, expected, tests=1)


def _of_scores(subject: Subject, _: Adoption, logits: Array, labels: Array) -> Iterator[str]:
    """Yield how its scores go with the labels; raises ModelError where they are on another scale."""
    metrics = subject.data.task.metrics(logits, labels)
    scores, rows = logits[:, 0].astype(np.float64), len(labels)
    ends = [(float(values.min()), float(values.max())) for values in (scores, labels)]
    ranges = [f"{low:.3g} to {high:.3g}" for low, high in ends]
    yield f"Pearson {metrics['pearson']:.3f} on {rows:,} rows; scores from {ranges[0]}, labels from {ranges[1]}"
    if rows < ENOUGH:
        return
    worse = metrics["mse"] > float(np.var(labels))  # than always answering the mean
    if worse and metrics["pearson"] > 0.5 and _overlap(*ends) < OTHER_SCALE:
        raise ModelError(
            f"{subject.name}: its scores run from {ranges[0]}, the labels from {ranges[1]}, though the two go together "
            f"(Pearson {metrics['pearson']:.2f} on {rows:,} rows): they are on another scale. Scale the labels to the "
            "model's, or set teacher.fine_tune=always to train it on these."
        )
    if metrics["pearson"] < 0.1:
        yield "that is no more than chance: this model does not know these scores, or was trained on other texts"
    elif worse:
        yield "further from the labels than their mean is: it is biased on these rows"


def _overlap(first: tuple[float, float], second: tuple[float, float]) -> float:
    """Return the share of the range that two intervals cover together in which both lie."""
    both = min(first[1], second[1]) - max(first[0], second[0])
    whole = max(first[1], second[1]) - min(first[0], second[0])
    return max(0.0, both) / whole if whole else 1.0
