"""How relevant a candidate is to a query: the score of a cross-encoder, by which the candidates are ranked."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Self

import numpy as np
from torch import Tensor
from torch.nn import functional
from transformers import AutoModelForSequenceClassification

from compress.errors import DataError, ModelError
from compress.tasks.adoption import Adoption, adopt_score
from compress.tasks.base import Array, Baseline, Features, Labelled, Task
from compress.tasks.doubts import is_score
from compress.tasks.functions import pairs_within
from compress.tasks.heads import MARK
from compress.tasks.judging import ENOUGH, Head
from compress.tasks.paired import Difference, of_seeds
from compress.tasks.rank_scores import MRR, NDCG, RankScores, rank
from compress.tensors import alike
from compress.wording import counted, shortened

APART = "\x1f"  # between the texts of a row, for the baseline


@dataclass(frozen=True)
class Ranking(Task):
    """One logit for a query and a candidate, whose sigmoid is how relevant it is, as a share of ``highest``.

    Rows with the same query are a group. Labels are (rows, 2): the group's number, then the relevance, 0 or more, or
    NaN. As read, a label is relevance and number with a space between.
    """

    highest: float  # relevance of the training rows

    name = "ranking"
    auto = AutoModelForSequenceClassification
    head = "classification head"
    pipeline = "text-ranking"
    predicts = "relevances"
    distributes = False
    grouped = True
    metric_names = (NDCG, MRR)
    missing = math.nan
    same_within: ClassVar[float] = 0.02  # two answers agree when their sigmoids differ by at most this

    # labels as they are read

    @classmethod
    def fits(cls, labels: Sequence[str]) -> bool:
        """Return False: relevances look like scores or classes, so a recipe has to name the task."""
        return False

    @classmethod
    def check(cls, splits: Sequence[Labelled], *, asked: bool) -> None:
        """Raise DataError for a group without a relevant row, and where no group has rows of different relevance."""
        for rows in splits:
            _refuse_irrelevant(rows)
        of_group: dict[str, set[str]] = {}
        for word in splits[0].words:
            relevance, group = _parts(word)
            of_group.setdefault(group, set()).add(relevance)
        if all(len(relevances) == 1 for relevances in of_group.values()):
            raise DataError(
                f"{splits[0].source}: in each of {counted(len(of_group), 'group')} all rows have the same relevance; "
                "there is nothing to rank. Name the column that tells rows of one query: data.group=COLUMN, or give "
                "candidates that are less relevant."
            )

    @classmethod
    def refusal(cls, label: str) -> tuple[str, str] | None:
        """Return what is wrong with a relevance that is not a finite number of 0 or more."""
        relevance, _ = _parts(label)
        if is_score(relevance) and float(relevance) >= 0:
            return None
        what = f"the relevance {shortened(relevance)!r} is not a finite number of 0 or more."
        return what, "Correct it, or remove the row; 0 stands for a candidate that is not relevant."

    @classmethod
    def of_labels(cls, labels: Sequence[str]) -> Self:
        """Return the task with the highest relevance; raises ValueError where one cannot be used."""
        if any(cls.refusal(label) is not None for label in set(labels)):
            raise ValueError("a relevance is not a finite number of 0 or more")
        return cls(max(float(_parts(label)[0]) for label in set(labels)))

    def encode(self, label: str) -> tuple[int, float]:
        """Return group and relevance; raises ValueError where the relevance is not a number."""
        relevance, group = _parts(label)
        return int(group), float(relevance)

    def encoded(self, codes: Sequence[tuple[int, float]]) -> Array:
        """Return them (rows, 2); groups below 2²⁴, up to which fp32 tells whole numbers apart."""
        return np.asarray(codes, dtype=np.float32).reshape(len(codes), 2)

    @classmethod
    def without_labels(cls, labels: Array) -> Array:
        """Return labels (rows, 2) whose relevance is NaN."""
        return np.stack([labels[:, 0], np.full(len(labels), np.nan, labels.dtype)], axis=1)

    def too_few(self, labels: Array) -> str:
        """Return why, where no group has rows of different relevance."""
        near = np.diff(labels[np.lexsort((labels[:, 1], labels[:, 0]))], axis=0)
        return (
            "" if ((near[:, 0] == 0) & (near[:, 1] > 0)).any() else "leaves no group with rows of different relevance"
        )

    # the head of a model

    @classmethod
    def owns(cls, config: Any) -> bool:
        """Return False: a single output alone may be any score's; `MARK` names this task."""
        return False

    @classmethod
    def of_config(cls, config: Any) -> Self:
        """Return the task with the highest relevance that the configuration keeps, 1 without."""
        return cls(float(getattr(config, "label_range", (0.0, 1.0))[1]))

    @property
    def output_names(self) -> tuple[str, ...]:
        """The one output."""
        return ("relevance",)

    def head_config(self) -> dict[str, Any]:
        """Return one output; other programs see a score."""
        return {
            MARK: self.name,
            "id2label": {0: "relevance"},
            "label2id": {"relevance": 0},
            "num_labels": 1,
            "problem_type": "regression",
            "label_range": [0.0, self.highest],
        }

    def adopt(self, config: Any, mapping: Mapping[str, str]) -> Adoption:
        """Return how a model's one output is read as the relevance; raises Refusal."""
        return adopt_score(config)

    def doubts(self, labels: Array) -> Iterator[str]:
        """Yield how many training groups hold rows of one relevance only."""
        groups, place = np.unique(labels[:, 0], return_inverse=True)
        low, high = np.full(len(groups), np.inf), np.full(len(groups), -np.inf)
        np.minimum.at(low, place, labels[:, 1])
        np.maximum.at(high, place, labels[:, 1])
        if alike_groups := int((low == high).sum()):
            yield (
                f"{alike_groups:,} of {len(groups):,} training groups have rows of one relevance only, which teach no "
                "order. Where test groups are like that, every order is right, which flatters the figures."
            )

    # losses

    def labelled(self, labels: Tensor) -> Tensor:
        """Return which rows have a relevance (batch,)."""
        return ~labels[:, 1].isnan()

    def loss(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Binary cross-entropy in nats (batch,), of the relevance as a share of the highest."""
        shares = (labels[:, 1] / self.highest).clamp(max=1).to(logits.dtype)
        return functional.binary_cross_entropy_with_logits(logits[:, 0], shares, reduction="none")

    def distance(self, logits: Tensor, others: Tensor, mask: Tensor, temperature: float) -> Tensor:
        """Squared error, mean over rows: a temperature that divides both sides cancels out."""
        return functional.mse_loss(*alike(logits, others))

    def margins(self, logits: Tensor, labels: Tensor, *, differing: bool) -> Tensor:
        """Return the difference of both logits (pairs,)."""
        first, second = pairs_within(labels[:, 0])
        if differing:
            kept = labels[first, 1] != labels[second, 1]
            first, second = first[kept], second[kept]
        return logits[first, 0] - logits[second, 0]

    # answers

    def predictions(self, logits: Array) -> Array:
        """Return the scores, (rows,)."""
        return logits[:, 0]

    def describe(self, logits: Array) -> list[dict[str, Any]]:
        """Return the score of each row."""
        return [{"score": float(score)} for score in self.predictions(logits)]

    def answers(
        self, logits: Array, texts: Sequence[str], decoding: str = "", pairs: Sequence[str] | None = None
    ) -> list[dict[str, Any]]:
        """Return the candidates of each query from best to worst, with rank and score; queries in their order."""
        places = {query: place for place, query in enumerate(dict.fromkeys(texts))}
        scores = self.predictions(logits)
        ranks: Counter[str] = Counter()
        found = []
        for row in sorted(range(len(texts)), key=lambda row: (places[texts[row]], -scores[row])):
            ranks[texts[row]] += 1
            score = {"rank": ranks[texts[row]], "score": float(scores[row])}
            found.append({"text": texts[row]} | score | {"candidate": "" if pairs is None else pairs[row]})
        return found

    def shown(self, logits: Array, labels: Array) -> list[str]:
        """Return the scores."""
        return [f"{answer['score']:.4g}" for answer in self.describe(logits)]

    def shown_label(self, label: Any) -> str:
        """Return the relevance."""
        return f"{float(label[1]):.4g}"

    def metrics(self, logits: Array, labels: Array) -> dict[str, float]:
        """Return nDCG@10 and the mean reciprocal rank, means over groups."""
        return self._ranked(logits, labels).metrics()

    def intervals(self, logits: Array, labels: Array) -> dict[str, tuple[float, float]]:
        """Return bootstrap intervals over groups."""
        return self._ranked(logits, labels).intervals()

    def agreement(self, logits: Array, others: Array) -> float:
        """Return the share of rows whose sigmoids differ by at most 0.02."""
        ours, theirs = (1 / (1 + np.exp(-self.predictions(side).astype(np.float64))) for side in (logits, others))
        return float((np.abs(ours - theirs) <= self.same_within).mean())

    def difference(self, logits: Array, others: Array, labels: Array) -> Difference:
        """Compare the metric that decides by a paired bootstrap over groups."""
        return self._ranked(logits, labels).difference(self._ranked(others, labels), self.main_metric)

    def difference_over_seeds(self, logits: Sequence[Array], others: Sequence[Array], labels: Array) -> Difference:
        """Compare two ways to train over seeds and groups."""
        values = [[self._ranked(side, labels).values[self.main_metric] for side in way] for way in (logits, others)]
        apart = np.array(values[0]) - np.array(values[1])  # (seeds, groups)
        return of_seeds(self.main_metric, lambda groups: apart[:, groups].mean(1), apart.shape[1])

    def judge(self, head: Head, logits: Array, labels: Array) -> Iterator[str]:
        """Yield how well it ranks; raises ModelError where it ranks the least relevant first."""
        ours, chance = self._ranked(logits, labels), self._ranked(np.zeros_like(logits), labels)
        found, by_chance = (side.metrics()[NDCG] for side in (ours, chance))
        yield f"nDCG@10 {found:.3f} on {counted(len(ours.ndcg), 'group')} of sampled rows ({by_chance:.3f} by chance)"
        if len(labels) < ENOUGH:
            return
        difference = ours.difference(chance, NDCG)
        if difference.clear and difference.value < 0:
            raise ModelError(
                f"{head.name}: it ranks relevant rows behind others (nDCG@10 {found:.3f}; {by_chance:.3f} by chance). "
                "If it scores distances, negate the labels' order; otherwise name a teacher that was trained to rank, "
                "or set teacher.fine_tune=always to train it on these rows."
            )
        if not difference.clear:
            yield "not better than chance: this model does not know these relevances, or was trained on other texts"

    def constant(self, labels: Array) -> Baseline:
        """Return the same score for all candidates: they come in any order."""
        kind = "all candidates alike, in random order"
        return Baseline(kind=kind, parameters=0, logits=lambda texts: np.zeros((len(texts), 1)))

    @classmethod
    def joined(cls, text: str, pair: str) -> str:
        """Return query and candidate with a sign between them that texts do not have."""
        return f"{text.replace(APART, ' ')}{APART}{pair}"

    def baseline(self, texts: Sequence[str], labels: Array, features: Features) -> Baseline:
        """Return the cosine of the features of query and candidate; labels are not used."""

        def logits(given: Sequence[str]) -> Array:
            sides = zip(*(text.split(APART, 1) for text in given), strict=True)
            query, candidate = (features(list(side)) for side in sides)
            lengths = [np.sqrt(np.asarray(side.multiply(side).sum(1))) for side in (query, candidate)]
            dots = np.asarray(query.multiply(candidate).sum(1))
            cosines: Array = dots / np.maximum(lengths[0] * lengths[1], 1e-12)
            return cosines

        return Baseline(kind=f"cosine of {features.kind}", parameters=0, logits=logits)

    def _ranked(self, logits: Array, labels: Array) -> RankScores:
        return rank(self.predictions(logits), labels[:, 1], labels[:, 0])


def _parts(label: str) -> tuple[str, str]:
    """Return relevance and group's number of a label as it is read."""
    relevance, _, group = label.rpartition(" ")
    return relevance, group


def _refuse_irrelevant(rows: Labelled) -> None:
    """Raise DataError for a group without a row whose relevance is above 0; labels that are not numbers are left."""
    first: dict[str, int] = {}
    relevant: set[str] = set()
    for index, word in enumerate(rows.words):
        relevance, group = _parts(word)
        first.setdefault(group, index)
        if not is_score(relevance) or float(relevance) > 0:
            relevant.add(group)
    without = [group for group in first if group not in relevant]
    if without:
        more = f" {counted(len(without) - 1, 'more group')} like it." if len(without) > 1 else ""
        raise DataError(
            f"{rows.place(first[without[0]])}: the group of {shortened(rows.texts[first[without[0]]])!r} has no "
            "relevant row: each has the relevance 0, so no order is better than another. Add a relevant candidate, or "
            f"remove the group.{more}"
        )
