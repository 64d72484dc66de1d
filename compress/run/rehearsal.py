"""What the trainings of a plan cost on this machine: each is tried on a few real batches, with random weights."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from compress.distill.teacher_outputs import ROWS, gib, layout
from compress.files import MIB
from compress.models.auto import from_config
from compress.models.device import device
from compress.models.loading import parameter_shapes
from compress.models.outputs import observe
from compress.models.quiet import quiet
from compress.pipeline.plan import Plan, PlannedTraining, Rehearsal, lengths
from compress.tasks.base import Array
from compress.train import Precision, order_of, same_randomness, words_in_use

Batch = Mapping[str, Tensor]

TRIED = 4  # batches that are timed, from short ones to long ones
WEIGHT = 4  # bytes of a number in fp32


@dataclass(frozen=True)
class TrainingCost:
    """What a training takes."""

    seconds: float  # of its steps and of the validations between them
    outputs_seconds: float = 0.0  # to compute the teacher's outputs once, where they are kept on disk
    outputs_mib: float = 0.0
    outputs: Any = None  # what tells these outputs from others


def costs(plan: Plan) -> list[TrainingCost | None]:
    """Return what each step of a plan takes; None for one that is not tried. Nothing is written.

    Outputs of the teacher count where they are first needed.
    """
    known: dict[Any, TrainingCost] = {}
    kept: set[Any] = set()
    found: list[TrainingCost | None] = []
    for step in plan.steps:
        training = step.training
        if training is None or training.rehearsal is None:
            found.append(None)
            continue
        key = (
            step.stage, training.title, str(training.learner), str(training.teacher), training.tokens.fingerprint,
            training.settings.batch_size, training.steps,
        )  # fmt: skip
        if key not in known:
            with same_randomness(), quiet():
                torch.manual_seed(plan.seed)
                known[key] = _cost(training, training.rehearsal, plan)
        cost = known[key]
        if cost.outputs in kept:
            cost = TrainingCost(cost.seconds)
        elif cost.outputs is not None:
            kept.add(cost.outputs)
        found.append(cost)
    return found


def parameter_mib(config: Any) -> float:
    """Return the size of a model's weights in fp32, MiB."""
    return sum(shape.numel() for shape in parameter_shapes(config).values()) * WEIGHT / MIB


def _cost(training: PlannedTraining, rehearsal: Rehearsal, plan: Plan) -> TrainingCost:
    settings, tokens = training.settings, training.tokens
    learner = nn.Module.to(from_config(training.learner), device()).train()
    teacher = None if training.teacher is None else nn.Module.to(from_config(training.teacher), device()).eval()
    theirs = training.teacher_tokens or tokens
    objective = rehearsal.objective(learner, teacher, theirs).train()
    rows: Any = tokens if tokens.groups is None else tokens.whole
    order = list(order_of(settings, lengths(tokens), plan.seed, tokens.classes(plan.data.task)))
    epoch = [order[start : start + settings.batch_size] for start in range(0, len(order), settings.batch_size)]
    sizes = [_padded(lengths(tokens), batch) for batch in epoch]
    chosen = _spread(sizes)
    batches = [_placed(rows.batch(epoch[place])) for place in chosen]
    tried = sum(sizes[place] for place in chosen)
    with words_in_use(objective, rows):
        optimizer = torch.optim.AdamW([p for p in objective.parameters() if p.requires_grad], lr=1e-9)

        def step(batch: Batch) -> None:
            with torch.autocast(device().type, torch.bfloat16, enabled=settings.precision is Precision.bf16):
                loss, _ = objective(batch, 0.5)
            loss.backward()
            nn.utils.clip_grad_norm_(objective.parameters(), settings.gradient_clip)
            optimizer.step()
            optimizer.zero_grad()

        each = _seconds(step, batches) / tried  # seconds per token, padding included
    outputs_seconds, outputs_mib, outputs = 0.0, 0.0, None
    share = training.count / max(1, len(order))  # with the rows that are not there yet
    if teacher is not None and rehearsal.wanted is not None:
        size = share * gib(layout(teacher, theirs, rehearsal.wanted), theirs)
        if rehearsal.keeps(size):
            answer = partial(_answer, teacher, tuple(rehearsal.wanted))
            taught = [_placed(theirs.batch(batch["rows"].cpu().numpy())) for batch in batches]
            answering = _seconds(answer, taught)
            each -= answering / tried
            widths = [_padded(theirs.lengths, batch) for batch in theirs.batches(ROWS)]
            per_token = answering / sum(batch["attention_mask"].numel() for batch in taught)
            outputs_seconds, outputs_mib = share * per_token * sum(widths), size * 1024
            outputs = str(training.teacher), theirs.fingerprint, str(sorted(map(str, rehearsal.wanted.items())))
    steps = training.steps * max(each, 0.0) * sum(sizes) / len(epoch)
    return TrainingCost(steps + _validations(training, learner, plan), outputs_seconds, outputs_mib, outputs)


def _validations(training: PlannedTraining, learner: PreTrainedModel, plan: Plan) -> float:
    """Return the seconds of answering as many rows as validation has, before a training and after each epoch."""
    tokens = training.tokens
    every = list(tokens.batches(ROWS))
    sizes = [_padded(tokens.lengths, batch) for batch in every]
    chosen = _spread(sizes)
    learner.eval()
    batches = [_placed(tokens.batch(every[place])) for place in chosen]
    each = _seconds(partial(_answer, learner, ()), batches) / sum(sizes[place] for place in chosen)
    once = each * sum(sizes) * len(plan.data.validation) / max(1, tokens.rows)
    return once * (1 + math.ceil(training.settings.epochs))


@torch.inference_mode()
def _answer(model: PreTrainedModel, quantities: Sequence[Any], batch: Batch) -> None:
    observe(model, batch, *quantities)


def _placed(batch: Batch) -> Batch:
    return {name: value.to(device()) for name, value in batch.items()}


def _padded(widths: Array, batch: Sequence[int] | Array) -> int:
    """Return the tokens of a batch, padding included."""
    return int(widths[batch].max()) * len(batch)


def _spread(sizes: Sequence[int]) -> list[int]:
    """Return the places of some of them, from the smallest to the largest."""
    by_size = np.argsort(sizes, kind="stable")
    return [int(by_size[int(share * len(by_size))]) for share in (np.arange(TRIED) + 0.5) / TRIED]


def _seconds(work: Callable[[Batch], None], batches: Sequence[Batch]) -> float:
    """Return the time that work takes on all batches, after a first that does not count."""
    work(batches[-1])
    _synchronize()
    start = time.perf_counter()
    for batch in batches:
        work(batch)
    _synchronize()
    return time.perf_counter() - start


def _synchronize() -> None:
    """Wait until the device has done what it was given."""
    if device().type == "cuda":
        torch.cuda.synchronize()
