"""A teacher's answers, apart from its weights: a student needs only logits to learn from it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np

from compress.data.dataset import Split
from compress.models.device import device
from compress.models.evaluate import predict_rows
from compress.models.loading import load_model, load_tokenizer
from compress.models.tokens import Tokens, tokenize
from compress.pipeline.model import Model
from compress.pipeline.workshop import Kind, Workshop
from compress.tasks.base import Array

LOGITS = Kind("logits", revision=2)


class Answers(Protocol):
    """A teacher's answers to any row of the data, those that augmentations added included."""

    @property
    def key(self) -> str:
        """What tells these answers from others."""
        ...

    def logits(self, rows: Split, workshop: Workshop) -> Array:
        """Return the logits (rows, outputs), fp32, in the order of the rows.

        Outputs are numbered as the labels of the data. Raises ModelError where a row has no answer, unless `weights`
        says so.
        """
        ...

    def weights(self, rows: Split) -> Array | None:
        """Return how much each answer counts (rows,), fp32, at most 1; 0: the row has none. None: all the same."""
        ...


@dataclass(frozen=True)
class OfModel:
    """The answers of a saved classifier."""

    model: Model

    @property
    def key(self) -> str:
        """That of the model."""
        return self.model.key

    def logits(self, rows: Split, workshop: Workshop) -> Array:
        """Return the logits, which the workshop keeps."""
        tokenizer = load_tokenizer(self.model.folder)
        return self.of_tokens(tokenize(rows, tokenizer, tokenizer.model_max_length), workshop)

    def weights(self, rows: Split) -> Array | None:
        """Return None: it answers every row."""
        return None

    def of_tokens(self, tokens: Tokens, workshop: Workshop) -> Array:
        """Return the logits of rows that are cut into the model's tokens already."""

        def predict() -> Array:
            return predict_rows(load_model(self.model.folder, on=device()), tokens, "accuracy")

        return kept_logits(workshop, "torch", self.model.key, tokens, predict)


def kept_logits(workshop: Workshop, how: str, key: str, tokens: Tokens, predict: Callable[[], Array]) -> Array:
    """Return the logits of rows from the workshop, predicted where it has none; ``how`` says what runs the model."""

    def work(folder: Path) -> None:
        np.save(folder / "logits.npy", predict())

    product = workshop.make(LOGITS, [how, key, tokens.fingerprint], work)
    logits: Array = np.load(product.folder / "logits.npy", allow_pickle=False)
    return logits
