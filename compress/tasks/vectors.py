"""One vector per text, whose cosines say how alike texts are."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Self

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from compress.errors import DataError
from compress.tasks import paired
from compress.tasks.adoption import Adoption, Refusal, is_trained
from compress.tasks.base import Array, Baseline, Features, Labelled, Task
from compress.tasks.doubts import is_score, refuse_doubtful_labels
from compress.tasks.functions import pairs_within
from compress.tasks.heads import MARK, NORMALIZED, POOLING
from compress.tasks.judging import Head
from compress.tasks.paired import Difference
from compress.tasks.retrieval import RETRIEVAL, retrieval
from compress.tasks.scored import Scored, correlations
from compress.tasks.sentence_vectors import POOLINGS, AutoModelForSentenceVectors
from compress.tasks.statistics import bootstrap
from compress.tasks.vector_pairs import Pairs, cosines, pairs_of, same_nearest, unit
from compress.tensors import alike
from compress.wording import shortened

MODULES = "vector_modules"
"""Entry of a configuration with what the files of sentence-transformers say of a folder.

``pooling``, ``width``, ``normalized``, the folder of a ``dense`` layer, ``notes`` for the user, and ``refused``: what
cannot be followed, as a clause."""


WIDTHS = (256, 128, 64)
"""Numbers of dimensions that wider vectors are cut to, and measured with."""

ROUNDED = 0.01
"""How far from 1 rounding may bring the length of vectors in a file."""

NEAREST = 3
"""How many of the other texts an answer names."""


@dataclass(frozen=True)
class VectorAdoption(Adoption):
    """How an encoder's states become vectors; the names are those of its outputs, numbers."""

    pooling: str = "mean"
    normalized: bool = True


@dataclass(frozen=True)
class SentenceVectors(Scored):
    """One vector per text. Rows of data are two texts and a score of how alike they are.

    A model reads single texts, so the rows of a split are texts. Labels are (texts, 4): the number of the row that a
    text is from, its place in it, 0 or 1, the score, and a number that equal texts share; all NaN for a text alone.
    Rows of a group with the same first text are one: that text once, and every second text with its own score.
    Judged by one of `RETRIEVAL`, first texts are queries, second ones documents, and scores their relevance.
    """

    width: int = 0  # of the vectors; 0: the model is not known yet
    pooling: str = ""  # one of POOLINGS; empty: the model's own
    normalized: bool = True  # whether vectors have length 1

    name = "vectors"
    auto = AutoModelForSentenceVectors
    loading = "from compress.tasks.sentence_vectors import {auto}\nfrom transformers import AutoTokenizer"
    alone = "AutoModel"
    head = "sentence vectors"
    pipeline = "feature-extraction"
    predicts = "scores of pairs"
    distributes = False
    metric_names = ("spearman", "pearson", *RETRIEVAL)
    missing = math.nan
    apart = True
    any_encoder = True
    same_within: ClassVar[float] = 0.98  # two vectors of a text agree when their cosine is at least this

    # rows

    @classmethod
    def fits(cls, labels: Sequence[str]) -> bool:
        """Return False: scores of pairs look the same where one number per pair is asked for."""
        return False

    @classmethod
    def check(cls, splits: Sequence[Labelled], *, asked: bool) -> None:
        """Raise DataError for labels that are not scores, and for rows with one text."""
        refuse_doubtful_labels(splits, asked=True)
        for rows in splits:
            if rows.pairs is None:
                raise DataError(
                    f"{rows.source}: each row has one text and a label, and task=vectors needs two texts and a score "
                    "of how alike they are. Name the column of second texts: data.text_pair; texts without scores "
                    "are given as data.unlabelled."
                )

    @classmethod
    def refusal(cls, label: str) -> tuple[str, str] | None:
        """Return what is wrong with a score that is not a finite number."""
        if is_score(label):
            return None
        return f"the score {shortened(label)!r} is not a finite number.", "Correct it, or remove the row."

    def encoded(self, codes: Sequence[float]) -> Array:
        """Return the scores (rows,)."""
        return np.asarray(codes, dtype=np.float64)

    @classmethod
    def parted(cls, labels: Array, groups: Array, texts: Array) -> Array:
        """Return (number of the row, place, score, number of the text) for each text (rows * texts, 4)."""
        rows, count = texts.shape
        places = np.tile(np.arange(count, dtype=np.float64), rows)
        return np.stack([np.repeat(groups, count), places, np.repeat(labels, count), texts.ravel()], axis=1)

    @classmethod
    def of_names(cls, names: Sequence[str]) -> Self:
        """Return the task of texts alone, whose scores are a teacher's cosines."""
        return cls(0.0, 1.0)

    def labels_from(self, logits: Array, labels: Array) -> Array:
        """Return the labels with the cosine of a row's two texts as its score."""
        found = labels.copy()
        found[:, 2] = 0  # so that each row is a pair
        pairs = pairs_of(found)
        found[:, 2] = np.nan
        for places in (pairs.first, pairs.second):
            found[places, 2] = cosines(logits, pairs)
        return found

    # models

    @classmethod
    def owns(cls, config: Any) -> bool:
        """Return False: only the mark tells that a model answers with vectors."""
        return False

    @classmethod
    def of_config(cls, config: Any) -> Self:
        """Return the task with what the configuration keeps."""
        low, high = getattr(config, "label_range", (0.0, 1.0))
        return cls(low, high, int(config.num_labels), getattr(config, POOLING), getattr(config, NORMALIZED))

    @property
    def output_names(self) -> tuple[str, ...]:
        """The numbers of the dimensions."""
        return tuple(map(str, range(self.width)))

    def head_config(self) -> dict[str, Any]:
        """Return the width, the pooling and whether vectors have length 1; the range of scores is kept too."""
        return {
            MARK: self.name, "num_labels": self.width or 1, "problem_type": None, "label_range": [self.low, self.high],
            POOLING: self.pooling or POOLINGS[0], NORMALIZED: self.normalized,
        }  # fmt: skip

    def adopt(self, config: Any, mapping: Mapping[str, str]) -> Adoption:
        """Return how a model's states become vectors, as it says itself or the recipe; raises Refusal.

        Where neither says it, the mean of the tokens is taken.
        """
        if mapping:
            raise Refusal("gives vectors, which have no labels: leave out data.labels")
        if is_trained(config, self):
            own = type(self).of_config(config)
            return self._adoption(own.width, own.pooling, own.normalized, "")
        told = getattr(config, MODULES, None)
        if told is not None and told["refused"]:
            raise Refusal(told["refused"])
        if told is None:
            pooling = self.pooling or POOLINGS[0]
            why = "as task.pooling says" if self.pooling else "which nothing in its folder says (task.pooling)"
            return self._adoption(int(config.hidden_size), pooling, True, f"its vectors are pooled by {pooling}, {why}")
        length = "length 1" if told["normalized"] else "their own length"
        note = f"by its modules.json, vectors are pooled by {told['pooling']} and have {length}"
        return self._adoption(told["width"], told["pooling"], told["normalized"], "; ".join([note, *told["notes"]]))

    def _adoption(self, width: int, pooling: str, normalized: bool, note: str) -> VectorAdoption:
        if self.pooling and self.pooling != pooling:
            raise Refusal(f"was trained with pooling {pooling}, and task.pooling is {self.pooling}: leave that out")
        names = tuple(map(str, range(width)))
        outputs = {name: index for index, name in enumerate(names)}
        return VectorAdoption(names, outputs, note, pooling=pooling, normalized=normalized)

    def renumbered(self, adoption: Adoption, labels: Sequence[Array]) -> tuple[Task, list[Array]]:
        """Return the task with the model's vectors."""
        assert isinstance(adoption, VectorAdoption)
        own = {"width": len(adoption.names), "pooling": adoption.pooling, "normalized": adoption.normalized}
        return replace(self, **own), list(labels)  # type: ignore[arg-type]

    def answered_by(self, vectors: Array) -> Self:
        """Return the task with vectors of that width, whose length is 1 if that of all these is."""
        lengths = np.linalg.norm(vectors, axis=1)
        if (lengths == 0).any():
            raise ValueError("holds a vector of zeros, which has no direction")
        normalized = bool((np.abs(lengths - 1) <= ROUNDED).all())
        return replace(self, width=vectors.shape[1], pooling=self.pooling or POOLINGS[0], normalized=normalized)

    def pooled_by(self, pooling: str) -> Self:
        """Return the task with vectors that are pooled so; raises ValueError for an unknown pooling."""
        if pooling not in POOLINGS:
            raise ValueError(f"must be one of {', '.join(POOLINGS)}")
        return replace(self, pooling=pooling)

    # losses

    def labelled(self, labels: Tensor) -> Tensor:
        """Return which texts are from a row with a score (batch,)."""
        return ~labels[:, 2].isnan()

    def loss(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Squared error of the cosine of each text's pair from its score (batch,), 0 where the other is not there.

        Scores are brought to the range 0 to 1 (Reimers and Gurevych, arXiv:1908.10084).
        """
        pairs = pairs_of(labels)
        errors = self._errors(logits, pairs)
        spread: Tensor = logits.new_zeros(len(logits)).index_add(0, pairs.first, errors)
        return spread.index_add(0, pairs.second, errors)

    def mean_loss(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Return the mean squared error over the pairs of a batch; 0 where there is none."""
        pairs = pairs_of(labels)
        return self._errors(logits, pairs).sum() / max(len(pairs.first), 1)

    def labels_in(self, labels: Tensor) -> int:
        """Return the number of pairs."""
        return len(pairs_of(labels).first)

    def _errors(self, logits: Tensor, pairs: Pairs[Tensor]) -> Tensor:
        low = self.low if self.low < self.high else min(self.low, 0.0)  # documents that are all relevant
        span = (self.high - low) or 1.0
        targets = ((pairs.scores - low) / span).clamp(0, 1).to(logits.dtype)
        return (functional.cosine_similarity(logits[pairs.first], logits[pairs.second], dim=-1) - targets) ** 2

    def margins(self, logits: Tensor, labels: Tensor, *, differing: bool) -> Tensor:
        """Return how much larger the inner product of a query with one of its documents is than with another."""
        pairs = pairs_of(labels)
        products = (logits[pairs.first] * logits[pairs.second]).sum(-1)
        first, second = pairs_within(labels[pairs.second, 0])
        if differing:
            kept = pairs.scores[first] != pairs.scores[second]
            first, second = first[kept], second[kept]
        return products[first] - products[second]

    def relevant(self, labels: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return queries, documents, and which of these score above 0 for which; equal texts are one."""
        pairs = pairs_of(labels)
        (queries, asked), (documents, there) = (
            np.unique(labels[places, 3].cpu().numpy(), return_inverse=True) for places in (pairs.first, pairs.second)
        )
        found = torch.zeros(len(queries), len(documents), dtype=torch.bool, device=labels.device)
        positive = pairs.scores > 0
        rows, columns = (torch.from_numpy(side).to(labels.device) for side in (asked, there))
        found[rows[positive], columns[positive]] = True
        places = [
            torch.zeros(len(names), dtype=torch.long, device=labels.device).scatter_(0, numbers, own)
            for names, numbers, own in ((queries, rows, pairs.first), (documents, columns, pairs.second))
        ]
        return places[0], places[1], found

    def distance(self, logits: Tensor, others: Tensor, mask: Tensor, temperature: float) -> Tensor:
        """One minus the cosine of both vectors of a text, mean over texts; a temperature has no effect."""
        return (1 - functional.cosine_similarity(*alike(logits, others), dim=-1)).mean()

    # answers

    def predictions(self, logits: Array) -> Array:
        """Return the vectors."""
        return logits

    def describe(self, logits: Array) -> list[dict[str, Any]]:
        """Return the vector of each text."""
        return [{"vector": [float(value) for value in vector]} for vector in logits]

    def answers(
        self, logits: Array, texts: Sequence[str], decoding: str = "", pairs: Sequence[str] | None = None
    ) -> list[dict[str, Any]]:
        """Return for each text the nearest of the others, a ranking of at most `NEAREST` of them, and its vector."""
        sides = unit(logits.astype(np.float64))
        found = []
        for row, answer in enumerate(self.describe(logits)):
            alike = sides @ sides[row]
            order = [int(other) for other in np.argsort(-alike, kind="stable") if other != row][:NEAREST]
            ranking = [{"text": texts[other], "cosine": float(alike[other])} for other in order]
            first = {"nearest": ranking[0]["text"], "cosine": ranking[0]["cosine"]} if ranking else {}
            found.append({"text": texts[row], **first, "ranking": ranking, **answer})
        return found

    def shown(self, logits: Array, labels: Array) -> list[str]:
        """Return the first numbers of the vectors."""
        return [f"({', '.join(f'{value:.3f}' for value in vector[:3])}, …)" for vector in logits]

    def shown_label(self, label: Any) -> str:
        """Return the score of the text's row."""
        return f"{float(label[2]):.4g}"

    def metrics(self, logits: Array, labels: Array) -> dict[str, float]:
        """Return Spearman's and Pearson's correlation of pairs' cosines with their scores; 0 where one is constant.

        ``spearman@256``, ``@128`` and ``@64`` are of vectors cut to that many dimensions, where they are wider.
        """
        found = self._measured(logits, labels)(None)
        return retrieval(logits, labels).metrics() | found if self.retrieves else found

    @property
    def retrieves(self) -> bool:
        """Whether rows are queries and documents."""
        return self.main_metric in RETRIEVAL

    def intervals(self, logits: Array, labels: Array) -> dict[str, tuple[float, float]]:
        """Return bootstrap intervals over pairs."""
        found = bootstrap(self._measured(logits, labels), len(pairs_of(labels).scores))
        return retrieval(logits, labels).intervals() | found if self.retrieves else found

    @staticmethod
    def _measured(logits: Array, labels: Array) -> Callable[[Array | None], dict[str, float]]:
        """Return what gives `metrics` for pairs by number, which may recur; None: for all."""
        pairs = pairs_of(labels)
        whole = cosines(logits, pairs)
        cut = {width: cosines(logits[:, :width], pairs) for width in WIDTHS if width < logits.shape[1]}

        def metrics(rows: Array | None) -> dict[str, float]:
            chosen = slice(None) if rows is None else rows
            found = correlations(whole[chosen], pairs.scores[chosen])
            cuts = {width: correlations(alike[chosen], pairs.scores[chosen]) for width, alike in cut.items()}
            return found | {f"spearman@{width}": values["spearman"] for width, values in cuts.items()}

        return metrics

    def agreement(self, logits: Array, others: Array) -> float:
        """Return the share of texts whose two vectors have a cosine of at least `same_within`.

        Where widths differ, the share of texts for which both find the same nearest text among the others.
        """
        if logits.shape != others.shape:
            return same_nearest(logits, others)
        lengths = np.linalg.norm(logits, axis=1) * np.linalg.norm(others, axis=1)
        same = (logits * others).sum(1) >= self.same_within * lengths
        return float(same.mean())

    def difference(self, logits: Array, others: Array, labels: Array) -> Difference:
        """Compare the metric that decides by a paired bootstrap over pairs of texts."""
        if self.retrieves:
            return retrieval(logits, labels).difference(retrieval(others, labels), self.main_metric)
        pairs = pairs_of(labels)
        compare = {"spearman": paired.of_ranks, "pearson": paired.of_scores}[self.main_metric]
        return compare(self.main_metric, pairs.scores, cosines(logits, pairs), cosines(others, pairs))

    def difference_over_seeds(self, logits: Sequence[Array], others: Sequence[Array], labels: Array) -> Difference:
        """Compare two ways to train, over seeds and pairs of texts: `compress.tasks.paired.of_seeds`."""
        if self.retrieves:
            found = [
                retrieval(ours, labels).values[self.main_metric] - retrieval(theirs, labels).values[self.main_metric]
                for ours, theirs in zip(logits, others, strict=True)
            ]
            return paired.of_seeds(
                self.main_metric, lambda rows: np.array([d[rows].mean() for d in found]), len(found[0])
            )
        pairs = pairs_of(labels)
        sides = [(cosines(ours, pairs), cosines(theirs, pairs)) for ours, theirs in zip(logits, others, strict=True)]

        def value(found: Array, rows: Array) -> float:
            return correlations(found[rows], pairs.scores[rows])[self.main_metric]

        def by_seed(rows: Array) -> Array:
            return np.array([value(ours, rows) - value(theirs, rows) for ours, theirs in sides])

        return paired.of_seeds(self.main_metric, by_seed, len(pairs.scores))

    def judge(self, head: Head, logits: Array, labels: Array) -> Iterator[str]:
        """Yield how well cosines go with scores."""
        pairs = len(pairs_of(labels).scores)
        yield f"{self.main_metric} {self.metrics(logits, labels)[self.main_metric]:.3f} on {pairs:,} sampled pairs"

    def baseline(self, texts: Sequence[str], labels: Array, features: Features) -> Baseline:
        """Return the features of a text as its vector, of length 1: nothing is trained."""

        def logits(given: Sequence[str]) -> Array:
            return unit(features(given).toarray())

        return Baseline(kind=f"cosine of {features.kind}", parameters=0, logits=logits)
