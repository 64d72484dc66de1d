"""Several teachers as one: what must hold of the members, and the ensemble that they become."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Any

from torch import nn

from compress.data.dataset import Dataset
from compress.errors import Fault, ModelError
from compress.models.architecture import ships_code
from compress.models.auto import knows
from compress.models.device import device
from compress.models.ensemble import EnsembleConfig
from compress.models.ensemble import ensemble as joined
from compress.models.evaluate import main_metric, tune
from compress.models.loading import load_model, load_tokenizer, save_model
from compress.models.tokens import tokenize
from compress.pipeline.state import State
from compress.pipeline.workshop import Kind, Product
from compress.tasks.adoption import Adoption, Refusal, named_as
from compress.tasks.base import Task


class Combine(Enum):
    """Mean of the probabilities, of the logits, or of the probabilities by how sure each member is of the row."""

    probabilities = "probabilities"
    logits = "logits"
    confidence = "confidence"


@dataclass(frozen=True, kw_only=True)
class Ensemble:
    """Which models are one teacher, and how: settings of `compress.teachers.model.Teacher` by the same names."""

    model: str
    members: Sequence[str]
    copies: int
    combine: Combine
    weights: Sequence[float] | None
    chosen: int
    max_tokens: int


@dataclass(frozen=True)
class Member:
    """What is known of one model of a teacher before any work."""

    name: str
    config: Any
    tokenizer: Any
    adoption: Adoption | None  # how its head is read; None: it is trained in this run
    why: str  # it is trained, as a clause; empty where it is used as it is

    @property
    def must_train(self) -> bool:
        """Whether it is trained in this run."""
        return self.adoption is None

    @property
    def line(self) -> str:
        """Whether it is used as it is, or trained, and why."""
        if self.adoption is None:
            return f"{self.name} is trained, because {self.why}"
        return f"{self.name} is used as it is" + (f": {self.adoption.note}" if self.adoption.note else "")

    @property
    def notes(self) -> tuple[str, ...]:
        """The line, and the classes that only the model knows."""
        absent = self.adoption.absent if self.adoption is not None and self.adoption.outputs else ()
        return (self.line, *([f"classes without rows, kept: {', '.join(absent)}"] if absent else ()))


def member_faults(ensemble: Ensemble) -> Iterator[Fault]:
    """Yield settings that do not fit the number of members."""
    count = max(ensemble.copies, 1 + len(ensemble.members))
    if ensemble.members and ensemble.copies > 1:
        yield Fault("copies", ensemble.copies, "cannot be combined with members", "Set copies=1, or members=[].")
        return
    if len({ensemble.model, *ensemble.members}) <= len(ensemble.members):
        yield Fault("members", list(ensemble.members), "names a model twice", "Use weights, or copies.")
    if count == 1:
        remedy = "Set members or copies too, or leave it out."
        if ensemble.weights is not None:
            yield Fault("weights", list(ensemble.weights), "needs more than one member", remedy)
        if ensemble.combine is not Combine.probabilities:
            yield Fault("combine", ensemble.combine.value, "needs more than one member", remedy)
    elif ensemble.weights is not None:
        if len(ensemble.weights) != count:
            rule = f"must list one weight for each of the {count} members"
            yield Fault("weights", list(ensemble.weights), rule, "The first is that of teacher.model.")
        if not all(0 < weight < math.inf for weight in ensemble.weights):
            yield Fault("weights", list(ensemble.weights), "must list finite numbers above 0")
    if not 1 <= ensemble.chosen <= count:
        rule = f"must be a member's number, from 1 to {count}" if count > 1 else "must be 1, the only member"
        yield Fault("chosen", ensemble.chosen, rule)


def check_together(ensemble: Ensemble, members: Sequence[Member], task: Task) -> None:
    """Raise ModelError where members cannot answer as one."""
    if not knows(task.auto, EnsembleConfig):
        raise ModelError(f"teacher.members: an ensemble has no head for the task {task.name}. Name one model.")
    if not task.distributes and ensemble.combine is Combine.confidence:
        raise ModelError(
            f"teacher.combine = confidence: the labels are {task.predicts}, which carry no "
            f"confidence. Leave it out: {task.predicts} are averaged."
        )
    if ensemble.copies > 1 and not members[0].must_train:
        raise ModelError(
            f"teacher.copies = {ensemble.copies}: {ensemble.model} knows the task already, so all copies would be the "
            "same. Set teacher.fine_tune=always, or name other models as teacher.members."
        )
    for member in members:
        if ships_code(member.config):
            raise ModelError(
                f"teacher.members: {member.name} ships its own code (type {member.config.model_type}), and an "
                "ensemble reloads without it. Name models that transformers knows."
            )
        if reading(member.tokenizer) != reading(members[0].tokenizer):
            raise ModelError(
                f"teacher.members: {member.name} has a different tokenizer from {members[0].name}, and an ensemble "
                "reads a row once. Name members with the same tokenizer."
            )


def orders(ensemble: Ensemble, members: Sequence[Member], data: Dataset) -> list[list[int]]:
    """Return each member's outputs in the order of the chosen one's; raises ModelError where one lacks a class."""
    chosen, first = members[ensemble.chosen - 1], named_as(data.task)
    leading = chosen.adoption or first
    found = []
    for member in members:
        own = leading if member.adoption is None else member.adoption
        try:
            found.append(own.order_of(leading))
        except Refusal as refusal:
            raise ModelError(
                f"teacher.members: {member.name} {refusal}, which {chosen.name} knows; members must know the same "
                "labels. Leave it out, or set teacher.fine_tune=always to train all of them again."
            ) from refusal
    return found


def together(
    ensemble: Ensemble, state: State, made: Sequence[State], names: Sequence[str], orders: Sequence[Sequence[int]]
) -> tuple[Product, list[str]]:
    """Return the ensemble of members, each the teacher of a state whose task is as it numbers labels, and notes.

    ``orders`` are each member's outputs in the order of the chosen one's.
    """
    chosen, tasks = made[ensemble.chosen - 1], [after.data.task for after in made]
    weights = list(ensemble.weights or [1.0] * len(made))
    folders = [after.given_teacher.folder for after in made]
    metric = chosen.data.task.main_metric

    def work(folder: Path) -> dict[str, Any]:
        tokenizer = load_tokenizer(folders[ensemble.chosen - 1])
        models = [load_model(folder) for folder in folders]
        head = chosen.data.task.head_config()
        whole = joined(
            models, orders, head, combine=ensemble.combine.value, weights=weights, chosen=ensemble.chosen
        )  # fmt: skip
        validation = [tokenize(after.data.validation, tokenizer, ensemble.max_tokens) for after in (*made, chosen)]
        found = []
        for model, tokens, task in zip([*models, whole], validation, [*tasks, chosen.data.task], strict=True):
            nn.Module.to(model, device())
            found.append(main_metric(model, tokens, task).get(metric))
            model.cpu()
        tune(whole, validation[-1], chosen.data.task)
        save_model(whole, tokenizer, folder)
        return {"validation": found}

    product = state.workshop.make(Kind("ensemble", revision=2),
        [
            [after.given_teacher.key for after in made], list(map(list, orders)), ensemble.combine.value, weights,
            ensemble.chosen, state.data.validation.fingerprint, metric,
        ],
        work,
    )  # fmt: skip
    *alone, whole = product.record["validation"]
    own = [after.records[-1] for after in made]
    task = chosen.data.task
    what = ensemble.combine.value if task.distributes else task.predicts
    notes = [
        f"the mean of {len(made)} members ({what}){_measured(whole, metric)}; "
        f"losses on layers compare member {ensemble.chosen}",
        *(f"member {n}: {name}{_measured(m, metric)}" for n, (name, m) in enumerate(zip(names, alone, strict=True), 1)),
        *dict.fromkeys(note for record in own for note in record.notes),
    ]
    return product, notes


def _measured(value: float | None, metric: str) -> str:
    return "" if value is None else f", {value:.4f} validation {metric}"


def reading(tokenizer: Any) -> tuple[Any, ...]:
    """Return all that decides which inputs a text becomes."""
    whole = json.loads(tokenizer.backend_tokenizer.to_str())
    parts = {name: part for name, part in whole.items() if name not in ("version", "truncation", "padding", "decoder")}
    return parts, tokenizer.model_input_names, tokenizer.pad_token_id
