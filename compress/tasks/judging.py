"""Whether a finished model's answers on some rows are answers to the data's question, in the order that was assumed."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from compress.errors import ModelError
from compress.tasks.adoption import Adoption
from compress.tasks.base import Array

ENOUGH = 40  # rows; with fewer, nothing is concluded
CERTAIN = 1e-3  # probability below which chance is ruled out
CLASSES = "teacher.classes"  # the setting that orders outputs which have no names
OTHER_SCALE = 0.4  # share of two ranges in which both lie, below which their scales are taken to differ


@dataclass(frozen=True)
class Head:
    """The head of a finished model: who named it, and how it is read."""

    name: str
    setting: str  # that named it, as "teacher.model"
    adoption: Adoption
    mapped: bool  # whether the user says which label is which (``data.labels``)


def judge_classes(
    head: Head, names: Sequence[str], predicted: Array, labels: Array, unit: str = "row"
) -> Iterator[str]:
    """Yield how often it is right; raises ModelError where its outputs stand for other labels than was assumed.

    ``unit`` is what each of the labels belongs to.
    """
    adoption = head.adoption
    right, rows = predicted == labels, len(labels)
    share, most = float(right.mean()), np.bincount(labels, minlength=len(names))
    always = f"always {names[int(most.argmax())]!r}: {most.max() / rows:.1%}"
    yield f"{share:.1%} of {rows:,} sampled {unit}s answered correctly ({always})"
    if rows < ENOUGH:
        if adoption.assumed:
            yield f"too few {unit}s to confirm {adoption.note}"
        return
    order = best_order(predicted, labels, len(names))
    other = order[predicted] == labels
    gained, lost = int((other & ~right).sum()), int((right & ~other).sum())
    if _beyond_chance(gained, gained + lost, 0.5, tests=math.factorial(min(len(names), 20))):
        meant = _meant(adoption, names, order)
        rule = (
            f"it answers {share:.1%} of {rows:,} labelled {unit}s correctly, and would answer {other.mean():.1%} "
            "correctly if its outputs stood for other labels"
        )
        if not head.mapped:
            raise ModelError(
                f"{head.name}: {rule}. If they do, {_remedy(head, meant)}; "
                "otherwise check that the rows are labelled as those it was trained on."
            )
        yield f"despite data.labels, {rule} ({', '.join(f'{name} = {label}' for name, label in meant.items())})"
    if not _associated(predicted, labels, len(names)):
        if adoption.assumed:
            raise ModelError(
                f"{head.name}: it answers {share:.1%} of {rows:,} labelled {unit}s correctly, as chance "
                f"would, and nothing shows that it was trained on these labels ({adoption.note}). {_other(head)}"
            )
        yield "not better than chance: this model does not know these labels, or was trained on other texts"


def judge_labels(
    head: Head, names: Sequence[str], metrics: Mapping[str, float], answered: Array, labels: Array
) -> Iterator[str]:
    """Yield what a model for several labels per row is worth; raises ModelError where its outputs are others' labels.

    ``answered`` and ``labels`` are (rows, labels); NaN stands for a label that is not known.
    """
    adoption, rows = head.adoption, len(labels)
    known, true = ~np.isnan(labels), np.nan_to_num(labels) > 0
    yield f"micro F1 {metrics['micro_f1']:.3f} on {rows:,} sampled rows"
    if rows < ENOUGH:
        if adoption.assumed:
            yield f"too few rows to confirm {adoption.note}"
        return
    order = _best_columns(answered, true, known)
    moved = np.empty_like(answered)
    moved[:, order] = answered  # as if output i stood for label order[i]
    errors, fewer = (((side != true) & known).sum(-1) for side in (answered, moved))
    gained, lost = int((fewer < errors).sum()), int((fewer > errors).sum())
    if _beyond_chance(gained, gained + lost, 0.5, tests=math.factorial(min(len(names), 20))):
        meant = _meant(adoption, names, order)
        rule = (
            f"it is wrong about {errors.mean():.2f} labels per row of {rows:,} labelled rows, and would be about "
            f"{fewer.mean():.2f} if its outputs stood for other labels"
        )
        if not head.mapped:
            raise ModelError(
                f"{head.name}: {rule}. If they do, {_remedy(head, meant)}; "
                "otherwise check that the rows are labelled as those it was trained on."
            )
        yield f"despite data.labels, {rule} ({', '.join(f'{name} = {label}' for name, label in meant.items())})"
    given, shares = (answered & known).sum(0), true.sum(0) / np.maximum(known.sum(0), 1)
    right, expected = int((answered & true & known).sum()), float((given * shares).sum() / max(given.sum(), 1))
    if not _beyond_chance(right, int(given.sum()), expected, tests=1):
        if adoption.assumed:
            raise ModelError(
                f"{head.name}: of {int(given.sum()):,} labels that it gives on {rows:,} labelled rows {right:,} are "
                f"right, as by chance, and nothing shows that it was trained on these labels ({adoption.note}). "
                f"{_other(head)}"
            )
        yield "not better than chance: this model does not know these labels, or was trained on other texts"


def _best_columns(answered: Array, true: Array, known: Array) -> Array:
    """Return for each output the label that it stands for, so that fewest labels are wrong (outputs,)."""
    from scipy.optimize import linear_sum_assignment

    count = answered.shape[1]
    there, absent = (answered.T.astype(np.int64), (~answered).T.astype(np.int64))
    same = there @ (true & known) + absent @ (~true & known)  # (outputs, labels)
    same = same * (count + 1) + np.eye(count, dtype=np.int64)  # of equal orders the one that changes least
    order: Array = linear_sum_assignment(same, maximize=True)[1]
    return order


def best_order(predicted: Array, labels: Array, count: int) -> Array:
    """Return for each class that is predicted the class that it stands for, so that most rows are right, (classes,)."""
    from scipy.optimize import linear_sum_assignment

    confusion = np.zeros((count, count), dtype=np.int64)
    np.add.at(confusion, (predicted, labels), 1)
    confusion = confusion * (count + 1) + np.eye(count, dtype=np.int64)  # of equal orders the one that changes least
    order: Array = linear_sum_assignment(confusion, maximize=True)[1]
    return order


def _meant(adoption: Adoption, names: Sequence[str], order: Array) -> dict[str, str]:
    """Return the labels that outputs stand for by the best order, where they differ from what was assumed."""
    if adoption.single:
        return {adoption.own[0]: names[order[1]]}
    label_of = {index: label for label, index in adoption.outputs.items()}
    moved = [i for i in range(len(names)) if order[i] in label_of and (adoption.assumed or order[i] != i)]
    return {adoption.own[index]: label_of[order[index]] for index in moved}


def _remedy(head: Head, meant: dict[str, str]) -> str:
    """Return what to write so that outputs stand for other labels, as it can be pasted."""
    if head.setting == CLASSES and head.adoption.assumed:
        names = (meant.get(name, name) for name in head.adoption.own)
        return f"name its numbers in their order: 'teacher.classes=[{','.join(names)}]'"
    if head.setting == CLASSES:
        return f"correct teacher.classes ({', '.join(f'{name} is {label}' for name, label in meant.items())})"
    if head.setting not in ("teacher.model", "teacher.file"):
        pairs = ", ".join(f"{name} is {label}" for name, label in meant.items())
        return f"correct the id2label in its config.json ({pairs})"
    if all(re.fullmatch(r"[\w-]+( [\w-]+)*", word) for pair in meant.items() for word in pair):
        pairs = ", ".join(f"{name}: {label}" for name, label in meant.items())
        return f"set 'data.labels={{{pairs}}}'"
    return f"write into a recipe file: data: {{labels: {json.dumps(meant, ensure_ascii=False)}}}"


def _other(head: Head) -> str:
    """Return what to do about a teacher that does not know the labels."""
    if head.setting == CLASSES:
        return "Check how its rows are matched (teacher.match) and the order of its columns (teacher.classes)."
    return (
        "Name a teacher that was, set teacher.fine_tune=always to train it on these rows, or name its outputs: "
        "data.labels."
    )


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


def judge_scores(head: Head, metrics: Mapping[str, float], scores: Array, labels: Array) -> Iterator[str]:
    """Yield how its scores go with the labels; raises ModelError where they are on another scale."""
    rows = len(labels)
    ends = [(float(values.min()), float(values.max())) for values in (scores, labels)]
    ranges = [f"{low:.3g} to {high:.3g}" for low, high in ends]
    yield f"Pearson {metrics['pearson']:.3f} on {rows:,} rows; scores from {ranges[0]}, labels from {ranges[1]}"
    if rows < ENOUGH:
        return
    worse = metrics["mse"] > float(np.var(labels))  # than always answering the mean
    if worse and metrics["pearson"] > 0.5 and _overlap(*ends) < OTHER_SCALE:
        raise ModelError(
            f"{head.name}: its scores run from {ranges[0]}, the labels from {ranges[1]}, though the two go together "
            f"(Pearson {metrics['pearson']:.2f} on {rows:,} rows): they are on another scale. Scale the labels to the "
            "model's, or set teacher.fine_tune=always to train it on these."
        )
    if metrics["pearson"] < 0.1:
        yield "not better than chance: this model does not know these scores, or was trained on other texts"
    elif worse:
        yield "further from the labels than their mean: it is biased on these rows"


def _overlap(first: tuple[float, float], second: tuple[float, float]) -> float:
    """Return the share of the range that two intervals cover together in which both lie."""
    both = min(first[1], second[1]) - max(first[0], second[0])
    whole = max(first[1], second[1]) - min(first[0], second[0])
    return max(0.0, both) / whole if whole else 1.0
