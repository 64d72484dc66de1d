"""What each part of a student costs in a form of fewer bits: how much it loses with that part alone in that form.

Validation rows decide; test rows are never seen.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from transformers import PreTrainedModel

from compress.models.evaluate import predict_rows
from compress.models.loading import load_config
from compress.models.tokens import Tokens, tokenize
from compress.pipeline.artifact import Artifact, Cost
from compress.pipeline.state import State
from compress.pipeline.workshop import Kind
from compress.progress import progress
from compress.tasks.base import Array

ROWS = 2000  # validation rows at most


class Apart(Protocol):
    """A model of which any choice of parts can be had in fewer bits."""

    @property
    def names(self) -> Sequence[str]:
        """The parts, in the order of the model."""

    def answers(self, parts: Collection[str], tokens: Tokens) -> Array:
        """Return the logits, as `Tokens.gathered`, with these parts in fewer bits and all others in fp32."""


@dataclass(frozen=True)
class ModulesApart:
    """A PyTorch model whose modules are quantized."""

    modules: Mapping[str, Sequence[str]]  # by part
    made: Callable[[Collection[str]], PreTrainedModel]  # the model with these modules quantized

    @property
    def names(self) -> Sequence[str]:
        """The parts."""
        return list(self.modules)

    def answers(self, parts: Collection[str], tokens: Tokens) -> Array:
        """Return the logits with the modules of these parts quantized."""
        return predict_rows(self.made([module for part in parts for module in self.modules[part]]), tokens)


@dataclass(frozen=True)
class Worth:
    """What logits are worth on validation rows."""

    loss: float
    metric: float
    logits: Array  # in the order of the task's labels


class Validation:
    """Validation rows on which forms of the student are compared."""

    def __init__(self, state: State, tokenizer: Any, rows: int = ROWS) -> None:
        self.task, self.config = state.data.task, load_config(state.given_student.folder)
        split = state.data.validation
        self.rows = split.take(np.random.default_rng(state.seed).permutation(len(split))[:rows])
        self.tokens = tokenize(self.rows, tokenizer, tokenizer.model_max_length)

    def worth(self, logits: Array) -> Worth:
        """Return what logits for these rows are worth."""
        loss = self.task.mean_loss(torch.from_numpy(logits), torch.from_numpy(self.rows.known_labels))
        read = self.task.aligned(logits, self.config)
        return Worth(float(loss), self.task.metrics(read, self.rows.known_labels)[self.task.main_metric], read)

    def costs(self, form: Apart, whole: Worth) -> dict[str, Cost]:
        """Return what each part loses alone, in the order of the model; ``whole`` is the model with all in fp32."""
        found = {}
        for part in progress(list(form.names), title="sensitivity", unit="part"):
            alone = self.worth(form.answers([part], self.tokens))
            found[part] = Cost(part, alone.loss - whole.loss, whole.metric - alone.metric)
        return found


def costs_by_part(state: State, artifact: Artifact, tokenizer: Any, prepared: Callable[[], Apart]) -> tuple[Cost, ...]:
    """Return what each part of an artifact's form costs, the costliest first; ``prepared`` gives the form apart."""

    def work(_: Path) -> Mapping[str, Any]:
        validation, form = Validation(state, tokenizer), prepared()
        found = validation.costs(form, validation.worth(form.answers([], validation.tokens)))
        return {"costs": [asdict(cost) for cost in found.values()]}

    made_with = [artifact.key, state.data.validation.fingerprint, state.data.task.decides, state.seed]
    product = state.workshop.make(Kind("costs", revision=1), made_with, work)
    return tuple(sorted((Cost(**cost) for cost in product.record["costs"]), key=lambda cost: -cost.loss))
