"""What is predicted: the interface of a task. Everything that knows about labels and heads is behind it.

Losses, pruning, quantization, export and reports see only logits and this interface.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, ClassVar, Protocol, Self

import numpy as np
from numpy.typing import NDArray

from compress.tasks.functions import mean_of_softened
from compress.tasks.paired import SAMPLES, Difference, of_seeds

if TYPE_CHECKING:
    from torch import Tensor

    from compress.tasks.adoption import Adoption
    from compress.tasks.judging import Head

Array = NDArray[Any]

LEAST = 1e-6  # a probability is taken to be at least this, so that its logarithm is finite
SUMS = 0.01  # how far from 1 rounding may bring the sum of probabilities


class Labelled(Protocol):
    """Rows of a split with their labels as they were read."""

    @property
    def source(self) -> str:
        """The file or split that messages name."""
        ...

    @property
    def texts(self) -> Sequence[str]:
        """The texts."""
        ...

    @property
    def pairs(self) -> Sequence[str] | None:
        """The second texts, where rows have two."""
        ...

    @property
    def words(self) -> Sequence[str]:
        """The labels, a text per row."""
        ...

    def place(self, index: int) -> str:
        """Return where a row came from, for a message."""
        ...


class Features(Protocol):
    """What a cheap baseline knows of texts: a vector for each."""

    kind: str  # in words: "TF-IDF of words (1–2)"

    def __call__(self, texts: Sequence[str]) -> Any:
        """Return a matrix (texts, features), sparse."""
        ...


@dataclass(frozen=True, kw_only=True)
class Baseline:
    """The cheap thing that a student must beat, trained."""

    kind: str  # what it is, in words
    parameters: int
    logits: Callable[[Sequence[str]], Array]  # of texts, in the form of a model's


@dataclass(frozen=True, kw_only=True)
class ByClass:
    """How well one class is found: what the answers say of it, on rows with labels."""

    label: str
    rows: int  # that have the label
    answered: int  # to which the model gives it
    precision: float  # share of those answers that are right; 0 where there are none
    recall: float  # share of the rows with the label that are found; 0 where there are none
    f1: float


@dataclass(frozen=True)
class Task(ABC):
    """What is predicted from a text or a pair of texts.

    Instances know what the labels of a data set are; they are dataclasses whose ``repr`` tells one data set's task
    from another's. Logits are (rows, outputs), labels (rows,) or (rows, …), predictions (rows,) or (rows, …).
    """

    name: ClassVar[str]
    """What recipes call it."""
    auto: ClassVar[Any]
    """The ``Auto`` class of transformers that builds its models."""
    loading: ClassVar[str] = "from transformers import {auto}, AutoTokenizer"
    """The lines that import `auto` and transformers' tokenizers, for model cards."""
    alone: ClassVar[str] = ""
    """The ``Auto`` class that loads its models by the code in their folders, without this package; empty: `auto`."""
    head: ClassVar[str]
    """What its models have in messages: "classification head"."""
    pipeline: ClassVar[str]
    """The hub's name for it, as model cards give it."""
    predicts: ClassVar[str]
    """What its labels are, in messages: "classes", "scores"."""
    distributes: ClassVar[bool]
    """Whether logits stand for probabilities, of classes or of each label, which a temperature can soften."""
    missing: ClassVar[float]
    """What stands for the label of a row, or of a word, that has none."""
    several: ClassVar[bool] = False
    """Whether a row may have any number of labels, read as a list of names (`compress.tasks.label_lists`)."""
    by_token: ClassVar[bool] = False
    """Whether a model answers for every token, logits (batch, tokens, outputs), and the task reads some of the answers.

    Labels are then (rows, answers), filled with `missing`, and so are answers (rows, answers, outputs), filled with 0,
    wherever rows are evaluated. In training both are by token.
    """
    grouped: ClassVar[bool] = False
    """Whether rows belong to groups, such as the candidates of a query, within which they are compared.

    A label is then read with its group's number behind it ("2 17"), and labels are (rows, 2), the number first.
    Fine-tuning uses `mean_loss`, for a head of transformers knows no such labels.
    """
    windows: ClassVar[bool] = False
    """Whether a row whose second text is longer than a model takes is read in windows of it.

    See `compress.models.windows`. Of a task `by_token` whose answers are parts of the second text. Where rows are
    evaluated, logits are then (rows, positions, 4): see `compress.tasks.span_decoding`.
    """
    apart: ClassVar[bool] = False
    """Whether a model answers each text of a row by itself: the rows of splits are then single texts; see `parted`."""
    any_encoder: ClassVar[bool] = False
    """Whether any encoder can answer: what it lacks of a head need not be trained."""
    decodings: ClassVar[tuple[str, ...]] = ()
    """The ways of reading an answer from logits, the usual one first; none where there is but one."""
    graph_outputs: ClassVar[tuple[str, ...]] = ("logits",)
    """What an ONNX graph calls the logits, as transformers does: one name, or one for each output."""
    rule: ClassVar[str] = ""
    """What `repaired` labels keep to, as a clause."""

    metric: str = field(default="", kw_only=True)
    """The metric that decides, one of `metric_names`; empty: the first of them."""
    weights: tuple[float, ...] = field(default=(), kw_only=True)
    """What the classes weigh in the loss on labels, in the order of the outputs; empty: all the same."""

    # labels as they are read

    @classmethod
    @abstractmethod
    def fits(cls, labels: Sequence[str]) -> bool:
        """Return whether labels, as they are read, look like this task's own."""

    @classmethod  # noqa: B027  # any labels may do
    def check(cls, splits: Sequence[Labelled], *, asked: bool) -> None:  # any labels may do
        """Raise DataError where labels of these splits, the training rows first, can hardly be this task's.

        ``asked`` says that the recipe names the task; otherwise it was chosen because it `fits`.
        """

    @classmethod
    @abstractmethod
    def of_labels(cls, labels: Sequence[str]) -> Self:
        """Return the task that the labels of the training split stand for; raises ValueError for another's."""

    @classmethod
    def of_names(cls, names: Sequence[str]) -> Self:
        """Return the task with these labels, where no row has one; raises ValueError where names say too little."""
        raise ValueError(f"the task {cls.name} needs labelled rows: its labels are {cls.predicts}")

    @classmethod
    @abstractmethod
    def refusal(cls, label: str) -> tuple[str, str] | None:
        """Return what is wrong with a label, as "the label '…' is …", and the remedy; None for one that can be used."""

    @classmethod
    def repaired(cls, labels: Sequence[str]) -> Sequence[str]:
        """Return the labels of all splits with what breaks the task's `rule` put right."""
        return labels

    @classmethod
    def read(cls, text: str) -> str:
        """Return a text, as people write it, as the rows of this task have it."""
        return text

    def names(self, label: str) -> Sequence[str]:
        """Return the names in the label of a row, by which rows are counted; none where labels have no names."""
        return ()

    def unknown(self, label: str) -> bool:
        """Return whether a name is one that the training rows do not have, and that a model must have learned."""
        return False

    def can_do_without(self, name: str, known: Sequence[str]) -> bool:
        """Return whether a model may be trained without a row for a name, beside rows for the ``known`` ones."""
        return False

    def extended(self, names: Iterable[str]) -> Self:
        """Return the task that has these too, which were `unknown`."""
        return self

    def classes(self, labels: Sequence[str]) -> Sequence[Hashable] | None:
        """Return the class of each row, by which splits are stratified; None where there are none."""
        return None

    def classes_of(self, labels: Array) -> Array | None:
        """Return the class of each row as a number (rows,), from its encoded label; None where rows have none."""
        return None

    @classmethod
    def cut_by(cls, rows: Labelled) -> Sequence[str] | None:
        """Return a text for each row: rows with the same stay together where a split is cut; None: equal texts do."""
        return None

    @abstractmethod
    def encode(self, label: str) -> Any:
        """Return a label as a number, or as several; raises ValueError for an unknown one."""

    @abstractmethod
    def encoded(self, codes: Sequence[Any]) -> Array:
        """Return what `encode` gave for rows as an array (rows, …)."""

    @classmethod
    def parted(cls, labels: Array, groups: Array, texts: Array) -> Array:
        """Return the labels of single texts (rows * texts, …) for `encoded` labels of rows, of a task `apart`.

        ``texts`` (rows, texts) are numbers that equal texts share.

        The texts of a row follow each other. The first column is what tells its row from others, of ``groups``
        (rows,): rows with the same number belong together.
        """
        raise NotImplementedError(f"{cls.name} has one answer per row")

    @classmethod
    def answering(cls, text: str, pair: str | None, encoding: Any) -> Sequence[int]:
        """Return the tokens of a row whose answers are read, in the order of its labels; of a task `by_token`.

        ``encoding`` is that of the ``tokenizers`` package, which may have cut the row; -1 stands for an answer that
        no token gives.
        """
        raise NotImplementedError(f"{cls.name} has one answer per row")

    @classmethod
    def marks(cls, label: Array, extents: Array) -> Array:
        """Return the labels by token of a window, (tokens,), from an encoded label; of a task with `windows`.

        ``extents`` (tokens, 2) are each token's characters in the second text, -1 for tokens that are not read.
        """
        raise NotImplementedError(f"{cls.name} has no windows")

    @property
    def overlap(self) -> int | None:
        """Tokens that neighbouring windows of a row share, of a task with `windows`; None: a third of a window."""
        return None

    def overlapping(self, tokens: int) -> Self:
        """Return the task whose windows share that many tokens; raises ValueError where it reads rows whole."""
        raise ValueError(f"is for long texts that are read in windows, which the task {self.name} does not do")

    def answered_by(self, vectors: Array) -> Self:
        """Return the task as a teacher that is a file answers it, (rows, outputs): of another width, where any will do.

        Raises ValueError, as a clause, where the answers are not of this task.
        """
        return self

    def labels_from(self, logits: Array, labels: Array) -> Array:
        """Return a teacher's answers as the labels of rows without; ``labels`` take their place until then."""
        return self.predictions(logits)

    def too_few(self, labels: Array) -> str:
        """Return why nothing can be learned from encoded labels, as a clause; empty where something can."""
        return ""

    @classmethod
    def without_labels(cls, labels: Array) -> Array:
        """Return encoded labels that only tell the rows' groups; of a task that is `grouped`."""
        raise NotImplementedError(f"{cls.name} compares no rows")

    # the head of a model

    @classmethod
    @abstractmethod
    def owns(cls, config: Any) -> bool:
        """Return whether the head of a saved model's configuration is one of this task."""

    @classmethod
    @abstractmethod
    def of_config(cls, config: Any) -> Self:
        """Return the task of a saved model's configuration, which this task `owns`."""

    @property
    @abstractmethod
    def output_names(self) -> tuple[str, ...]:
        """The names of the outputs, in order."""

    @property
    def outputs(self) -> int:
        """Number of logits per answer."""
        return len(self.output_names)

    @property
    def label_names(self) -> tuple[str, ...]:
        """The labels that it tells apart; none where its outputs are not those of labels."""
        return self.output_names if self.distributes else ()

    @property
    def cut_at(self) -> tuple[float, ...]:
        """The probability from which each label is answered, where a row may have `several`; else none."""
        return ()

    @abstractmethod
    def head_config(self) -> dict[str, Any]:
        """Entries of a transformers configuration that give the model its head."""

    @abstractmethod
    def adopt(self, config: Any, mapping: Mapping[str, str]) -> Adoption:
        """Return how the outputs of a finished model's head are read as labels; raises Refusal where they cannot be.

        ``mapping`` gives names of the model's labels the data's labels that they stand for (``data.labels``).
        """

    def renumbered(self, adoption: Adoption, labels: Sequence[Array]) -> tuple[Task, list[Array]]:
        """Return the task and encoded labels as a model's head numbers them."""
        return self, list(labels)

    # what decides

    @property
    @abstractmethod
    def metric_names(self) -> tuple[str, ...]:
        """The metrics that a recipe can choose to decide, the default first; in all of them higher is better."""

    @property
    def main_metric(self) -> str:
        """The metric that decides: early stopping, what is kept, compared, recommended and quoted first."""
        return self.metric or self.metric_names[0]

    @property
    def test(self) -> str:
        """What `difference` tests with, in words: "McNemar's exact test"."""
        return f"a paired bootstrap of {SAMPLES:,} samples"

    @property
    def decides(self) -> list[Any]:
        """What training and choosing depend on beside rows: the metric and the weights of classes, JSON-ready."""
        return [self.main_metric, list(self.weights)]

    def judged_by(self, metric: str) -> Self:
        """Return the task with one of `metric_names` as the metric that decides."""
        return replace(self, metric=metric)

    def weighted(self, given: Mapping[str, float] | None, labels: Array) -> Self:
        """Return the task with weights of classes in `loss`; None for the same total weight of every class.

        ``given`` are weights by class, 1 for the others. They are scaled so that the mean over the rows of
        ``labels``, those of the training split, is 1: learning rates keep their meaning. Raises ValueError where
        the task's loss knows no weights of classes.
        """
        raise ValueError(f"has no effect: the labels are {self.predicts}")

    def pooled_by(self, pooling: str) -> Self:
        """Return the task with vectors that are pooled so; raises ValueError where it has none."""
        raise ValueError("has no effect: the task has no sentence vectors")

    def doubts(self, labels: Array) -> Iterator[str]:
        """Yield sentences on why the metric that decides misleads on training rows with these labels."""
        yield from ()

    # losses

    @abstractmethod
    def labelled(self, labels: Tensor) -> Tensor:
        """Return which rows have a label (batch,)."""

    @abstractmethod
    def loss(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Return the loss of each row (batch,), times its class's weight; all rows have labels."""

    def mean_loss(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Return the mean of `loss` over the rows with labels; 0 where none has one."""
        known = self.labelled(labels)
        return self.loss(logits[known], labels[known]).sum() / known.sum().clamp(min=1)

    def head_loss(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Return the mean loss as transformers' own head sums it up; all rows have labels."""
        return self.mean_loss(logits, labels)

    def labels_in(self, labels: Tensor) -> int:
        """Return how many things `mean_loss` of rows with these labels is a mean over."""
        return int(self.labelled(labels).sum())

    @abstractmethod
    def distance(self, logits: Tensor, others: Tensor, mask: Tensor, temperature: float) -> Tensor:
        """Return how far a model's answers lie from ``others``, mean over answers: 0 where they are the same.

        ``mask`` (batch, tokens) is nonzero on real tokens, of a task `by_token` on those that are read;
        ``temperature`` softens both sides where `distributes`.
        """

    def answers_in(self, mask: Tensor) -> int:
        """Return how many answers `distance` of a batch with this mask is a mean over."""
        return len(mask)

    def margins(self, logits: Tensor, labels: Tensor, *, differing: bool) -> Tensor:
        """Return how much higher a row scores than another of its group, (pairs,), each pair once.

        Of a `grouped` task, or of one `apart`, where documents of the same query are compared. ``differing`` leaves
        out pairs with equal labels; a label that is not known differs from every other.
        """
        raise NotImplementedError(f"{self.name} compares no rows")

    def relevant(self, labels: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return where the queries and the documents of a batch stand, and which are relevant; of a task `apart`.

        Places (queries,) and (documents,), equal texts once, and (queries, documents), true where a document is.
        """
        raise NotImplementedError(f"{self.name} has no documents")

    def softened(self, members: Tensor, temperature: float) -> Tensor:
        """Return the logits of an ensemble whose answer at a temperature is the mean of its members' own at it.

        ``members`` (batch, members, 2, outputs) are the logarithms of their shares in the mean, and their logits.
        """
        return mean_of_softened(members[:, :, 0], members[:, :, 1], temperature)

    # answers

    def probabilities(self, logits: Array) -> Array:
        """Return the probability that logits (…, outputs) give each output, where the task `distributes`."""
        raise NotImplementedError(f"{self.name} has no probabilities")

    def of_probabilities(self, shares: Array) -> Array:
        """Return logits (…, outputs), fp64, that stand for these probabilities, none further out than `LEAST` allows.

        Where the task `distributes`.
        """
        raise NotImplementedError(f"{self.name} has no probabilities")

    def improper(self, shares: Array) -> Array:
        """Return which rows (rows,) of values between 0 and 1 (rows, outputs) cannot be probabilities of an answer."""
        return np.zeros(len(shares), dtype=bool)

    def mislabelled(self, logits: Array, labels: Array) -> Array:
        """Return the rows whose label looks wrong beside answers that did not learn from it, the surest first."""
        return np.zeros(0, dtype=np.int64)

    def tuned(self, answers: Callable[[], Array], labels: Array) -> dict[str, Any]:
        """Return entries of a model's configuration that say how its answers are read, chosen on validation rows.

        ``answers`` computes its logits on rows with these labels.
        """
        return {}

    def aligned(self, logits: Array, config: Any) -> Array:
        """Return the logits of a model of this configuration as this task reads them, where the two differ in that."""
        return logits

    @abstractmethod
    def predictions(self, logits: Array) -> Array:
        """Logits (rows, outputs) to predictions (rows, …)."""

    @abstractmethod
    def describe(self, logits: Array) -> list[dict[str, Any]]:
        """Logits (rows, outputs) to one readable prediction per row, JSON-ready."""

    def answers(
        self, logits: Array, texts: Sequence[str], decoding: str = "", pairs: Sequence[str] | None = None
    ) -> list[dict[str, Any]]:
        """Return one readable answer per text as people wrote it, JSON-ready; ``decoding``: one of `decodings`.

        ``pairs`` are the second texts, where there are some.
        """
        return self.describe(logits)

    @abstractmethod
    def shown(self, logits: Array, labels: Array) -> list[str]:
        """Logits (rows, outputs) to one prediction per row in a few words; ``labels`` are those of the same rows."""

    @abstractmethod
    def shown_label(self, label: Any) -> str:
        """Return an encoded label in a few words."""

    @abstractmethod
    def metrics(self, logits: Array, labels: Array) -> dict[str, float]:
        """Compare logits (rows, outputs) with labels (rows, …)."""

    @abstractmethod
    def intervals(self, logits: Array, labels: Array) -> dict[str, tuple[float, float]]:
        """95 % intervals of `metrics`, by metric."""

    @abstractmethod
    def agreement(self, logits: Array, others: Array) -> float:
        """Share of rows on which two models predict the same."""

    def by_class(self, logits: Array, labels: Array) -> list[ByClass]:
        """Return how well each class is found, in the order of the classes; nothing where there are none."""
        return []

    @abstractmethod
    def difference(self, logits: Array, others: Array, labels: Array) -> Difference:
        """Compare the metric that decides of a model with that of another one on the same rows, by `test`."""

    def guarded(self, logits: Array, others: Array, labels: Array) -> list[Difference]:
        """Return what must not fall beside the main metric, such as the recall of each label: paired differences."""
        return []

    def difference_over_seeds(self, logits: Sequence[Array], others: Sequence[Array], labels: Array) -> Difference:
        """Compare the metric that decides of two ways to train, over seeds and rows: `compress.tasks.paired.of_seeds`.

        ``logits`` and ``others`` hold, seed by seed in the same order, what each way's model answers to the same rows.
        """

        def value(answers: Array, rows: Array) -> float:
            return self.metrics(answers[rows], labels[rows])[self.main_metric]

        def by_seed(rows: Array) -> Array:
            pairs = zip(logits, others, strict=True)
            return np.array([value(ours, rows) - value(theirs, rows) for ours, theirs in pairs])

        return of_seeds(self.main_metric, by_seed, len(labels))

    def judge(self, head: Head, logits: Array, labels: Array) -> Iterator[str]:
        """Yield what a finished model answers on some rows; raises ModelError where its head is read wrongly."""
        yield f"{self.main_metric} {self.metrics(logits, labels)[self.main_metric]:.3f} on {len(labels):,} sampled rows"

    @classmethod
    def joined(cls, text: str, pair: str) -> str:
        """Return both texts of a row as one, as the cheap baseline takes them."""
        return f"{text} {pair}"

    def constant(self, labels: Array) -> Baseline | None:
        """Return what answers every text alike, as well as can be on rows with these labels; None where nothing does.

        Whoever cannot beat it has learned nothing.
        """
        return None

    @abstractmethod
    def baseline(self, texts: Sequence[str], labels: Array, features: Features) -> Baseline:
        """Return the cheap baseline, trained on texts with labels; ``features`` knows the same texts."""
