"""SimCSE: vectors learned from texts alone, each text its own positive under another dropout (arXiv:2104.08821)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional
from transformers import PreTrainedModel

from compress.data.dataset import Split
from compress.errors import Fault
from compress.known import NOTHING, Known
from compress.models.device import device
from compress.models.evaluate import main_metric
from compress.models.loading import load_model, load_tokenizer, save_model
from compress.models.outputs import observe
from compress.models.tokens import tokenize
from compress.pipeline.plan import Plan, Rehearsal
from compress.pipeline.state import State
from compress.pipeline.workshop import SCRATCH, Kind
from compress.settings import at_least, positive
from compress.train import Objective, Training, fit, planned, whole_batch

IN_BATCH = "every text of a batch is compared with all others"


def contrastive_loss(first: Tensor, second: Tensor, temperature: float) -> Tensor:
    """Return the cross-entropy in nats of finding each text's second vector among those of the batch, mean over texts.

    Vectors (batch, width); their cosines are divided by ``temperature`` (SimCSE, Gao et al., arXiv:2104.08821, eq. 1).
    """
    ours, theirs = functional.normalize(first, dim=-1), functional.normalize(second, dim=-1)
    scores = ours @ theirs.T / temperature
    return functional.cross_entropy(scores, torch.arange(len(scores), device=scores.device))


@dataclass(kw_only=True)
class SimCse(Training):
    """Unsupervised SimCSE (Gao et al., arXiv:2104.08821) on the training and unlabelled texts.

    Every text of a batch is read twice with different dropout; the other texts are the negatives. The projection that
    the authors' code trains on top of [CLS] and leaves out afterwards is not there.
    """

    epochs: float = 1.0  # passes over the texts
    batch_size: int = 64  # texts per step, each with the others as negatives
    learning_rate: float = 3e-5  # AdamW's, at its highest
    temperature: float = 0.05  # that cosines are divided by

    def faults(self, known: Known = NOTHING) -> Iterator[Fault]:
        """There are negatives, and the task has vectors."""
        yield from super().faults(known)
        yield from at_least(self, "batch_size", 2)
        yield from positive(self, "temperature")
        yield from whole_batch(self, IN_BATCH)
        if known.task is not None and not known.task.apart:
            rule = f"learns vectors of texts, and the labels are {known.task.predicts}"
            yield Fault("", None, rule, "Leave simcse out of prepare.")

    def plan(self, plan: Plan) -> Plan:
        """One training, which reads every text twice."""
        return planned(
            plan, "SimCSE", Split(plan.data.transfer.texts), self, learner=plan.student, more=plan.added,
            rehearsal=Rehearsal(objective=lambda student, *_: Contrast(student, self.temperature)),
        )  # fmt: skip

    def __call__(self, state: State) -> State:
        """Return the state with a student whose vectors tell texts apart."""
        start, texts, validation = state.given_student, Split(state.data.transfer.texts), state.data.validation

        def work(folder: Path) -> dict[str, Any]:
            student, tokenizer = load_model(start.folder, on=device()), load_tokenizer(start.folder)
            tokens, measured = (tokenize(rows, tokenizer, tokenizer.model_max_length) for rows in (texts, validation))
            curves = fit(
                Contrast(student, self.temperature), tokens, self, seed=state.seed, folder=folder / SCRATCH,
                title="SimCSE", validate=lambda: main_metric(student, measured, state.data.task),
            )  # fmt: skip
            save_model(student.cpu(), tokenizer, folder)
            return {"curves": curves}

        made_with = [
            self.made_with(), start.key, texts.fingerprint, validation.fingerprint, state.data.task.decides, state.seed
        ]  # fmt: skip
        product = state.workshop.make(Kind("simcse", revision=2), made_with, work)
        return state.with_student(self.record("simcse", [product], curves=product.record["curves"]))


class Contrast(Objective):
    """A model that reads each batch twice."""

    reads_rows_alone = True

    def __init__(self, model: PreTrainedModel, temperature: float) -> None:
        super().__init__()
        self.model, self.temperature = model, temperature

    @property
    def trained(self) -> PreTrainedModel:
        """The model that learns."""
        return self.model

    @property
    def indivisible(self) -> str:
        """Why a batch must stay whole."""
        return IN_BATCH

    def forward(self, batch: Mapping[str, Tensor], progress: float) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the loss; it has no parts."""
        first, second = (observe(self.model, batch).logits for _ in range(2))
        return contrastive_loss(first, second, self.temperature), {}
