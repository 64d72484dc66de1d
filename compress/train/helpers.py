"""A step of training divided over processes: the first has the Trainer, and the others compute gradients for it.

Every step the first tells the others which rows are theirs, and gives them its parameters; all compute the gradients
of their rows, each counted by its share of the whole batch, and the first adds them up and moves the parameters. So
schedule, clipping, validation, checkpoints and random choices are in one place, and nothing can come to differ.
"""

from __future__ import annotations

import shutil
import signal
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate.utils.memory import clear_device_cache, should_reduce_batch_size
from torch import Tensor

from compress.errors import CompressError
from compress.models.device import device
from compress.models.sending import receive, send
from compress.team import LostError, Team, team
from compress.telling import warn
from compress.train.objective import Objective, TrainingRows, Whole

SENT = "for-helpers"  # the folder in which a training is given to other processes


@dataclass(frozen=True)
class SharedStep:
    """What all processes know of a step."""

    rows: list[int]
    progress: float
    at_once: int | None  # rows that a process computes at a time; None: all
    drawn: Any  # as `Objective.draw`
    number: int  # of the step, from which helpers draw dropout
    scale: float = 1.0  # of the loss in fp16


@dataclass
class Sums:
    """The loss of rows and its parts, detached, and why they could not be computed."""

    loss: float = 0.0
    parts: dict[str, float] = field(default_factory=dict)
    short_of_memory: bool = False
    failure: str = ""


Move = Callable[[dict[str, Tensor]], Mapping[str, Tensor]]
Backward = Callable[[Tensor], None]


def batches_of(rows: TrainingRows, chosen: Sequence[int], at_once: int | None) -> list[dict[str, Tensor]]:
    """Return the batches in which rows are computed, of as equal sizes as can be."""
    if not len(chosen):
        return []
    count = 1 if at_once is None else -(-len(chosen) // at_once)
    return [rows.batch(part.tolist()) for part in np.array_split(np.asarray(chosen), count)]


def sizes_of(objective: Objective, batches: Sequence[Mapping[str, Tensor]], progress: float) -> Counter[str]:
    """Return `Objective.sizes` of batches together."""
    sizes: Counter[str] = Counter()
    for batch in batches:
        sizes.update(objective.sizes(batch, progress))
    return sizes


def add_gradients(
    call: Callable[..., Any], move: Move, backward: Backward, batches: Sequence[dict[str, Tensor]], progress: float,
    whole: Whole,
) -> tuple[Tensor, dict[str, Tensor]]:  # fmt: skip
    """Add the gradients of parts of a batch, one after the other; return their loss and its parts, detached."""
    losses: list[Tensor] = []
    sums: dict[str, list[Tensor]] = {}
    for batch in batches:
        loss, parts = call(move(batch), progress, whole)
        backward(loss)
        losses.append(loss.detach())
        for name, part in parts.items():
            sums.setdefault(name, []).append(part.detach())
    return torch.stack(losses).sum(), {name: torch.stack(values).sum() for name, values in sums.items()}


class Participant:
    """One process in the training of an objective."""

    def __init__(self, mine: Team, objective: Objective, rows: TrainingRows) -> None:
        self.team, self.objective, self.rows = mine, objective, rows
        self.between_steps = True  # all processes are known to wait for the next

    def take(self, step: SharedStep, call: Callable[..., Any], move: Move, backward: Backward) -> list[Sums]:
        """Add, in the first process, the gradients of a step; return what each process found.

        Where one of them failed, no process has gradients.
        """
        self.between_steps = False
        learning = [parameter for parameter in self.objective.parameters() if parameter.requires_grad]
        self.team.spread([*learning, *self.objective.buffers()])
        own, error = Sums(), None
        batches: list[dict[str, Tensor]] = []
        sizes: Counter[str] = Counter()
        try:
            batches = batches_of(self.rows, step.rows[self.team.rank :: self.team.size], step.at_once)
            sizes = sizes_of(self.objective, batches, step.progress)
        except Exception as raised:
            error = raised
        whole = Whole(sum(self.team.gather(sizes), Counter[str]()), step.drawn)
        if error is None and batches:
            try:
                loss, parts = add_gradients(call, move, backward, batches, step.progress, whole)
                own = Sums(float(loss), {name: float(part) for name, part in parts.items()})
            except Exception as raised:
                error = raised
        if error is not None:
            own = Sums(short_of_memory=should_reduce_batch_size(error), failure=f"{type(error).__name__}: {error}")
        found: list[Sums] = self.team.gather(own)
        if any(sums.failure for sums in found):
            self.objective.zero_grad()
            self.between_steps = True
            if error is not None and self.team.leads and not own.short_of_memory:
                raise error
            del error
            clear_device_cache(garbage_collection=True)
            return found
        reached = self.team.gather([parameter.grad is not None for parameter in learning])
        used = [p for p, anywhere in zip(learning, map(any, zip(*reached, strict=True)), strict=True) if anywhere]
        for parameter in used:
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
        self.team.add_up([parameter.grad for parameter in used if parameter.grad is not None])
        self.between_steps = True
        return found


class Helpers(Participant):
    """The other processes, as the first one sees them."""

    def gradients(
        self, step: SharedStep, call: Callable[..., Any], move: Move, backward: Backward
    ) -> tuple[Tensor, dict[str, Tensor]] | None:
        """Add the gradients of a step; return loss and parts, None where memory did not suffice.

        Raises CompressError where a helper failed otherwise.
        """
        self.team.tell(step)
        found = self.take(step, call, move, backward)
        for rank, sums in enumerate(found):
            if sums.failure and not sums.short_of_memory:
                raise CompressError(f"Process {rank} of {self.team.size} failed: {sums.failure}")
        if any(sums.short_of_memory for sums in found):
            return None
        parts: dict[str, float] = {}
        for sums in found:
            for name, value in sums.parts.items():
                parts[name] = parts.get(name, 0.0) + value
        loss = torch.tensor(sum(sums.loss for sums in found))
        return loss, {name: torch.tensor(value) for name, value in parts.items()}


@contextmanager
def helped(
    objective: Objective, rows: TrainingRows, folder: Path, title: str, seed: int, arithmetic: torch.dtype | None
) -> Iterator[Helpers | None]:
    """Give a training to the other processes, where there are any, within the block; None where it is not divided.

    ``arithmetic`` is that of mixed precision. That a training is not divided is told.
    """
    mine = team()
    if mine is None:
        yield None
        return
    place = folder / SENT
    shutil.rmtree(place, ignore_errors=True)
    reason = objective.indivisible
    if not reason:
        try:
            digest = send((objective, rows), place)
        except Exception as error:  # pickle raises anything
            reason = f"it cannot be handed to another process ({error})"
    if reason:
        shutil.rmtree(place, ignore_errors=True)
        warn(f"{title}: trained by one of {mine.size} processes: {reason}")
        yield None
        return
    try:
        mine.tell(Assignment(place.absolute(), digest, seed, arithmetic))
        mine.gather(None)  # all have read it
    finally:
        shutil.rmtree(place, ignore_errors=True)
    helpers = Helpers(mine, objective, rows)
    try:
        yield helpers
    finally:
        if helpers.between_steps:
            mine.tell(None)
        else:  # interrupted inside a step: the others may wait for anything
            mine.dismiss()


@dataclass(frozen=True)
class Assignment:
    """A training, as helpers get it."""

    folder: Path
    digest: str
    seed: int
    arithmetic: torch.dtype | None


def serve(mine: Team) -> int:
    """Help the first process until it ends; return the exit code.

    Signals are for the first: it finishes a step, for which it needs the others, and then ends.
    """
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    try:
        while (assignment := mine.tell()) is not None:
            _help(mine, assignment)
    except LostError:
        return 1  # the first process said why, or was killed
    return 0


def _help(mine: Team, training: Assignment) -> None:
    """Compute gradients until the training ends."""
    objective, rows = receive(training.folder, training.digest, device())
    mine.gather(None)
    objective.train()
    member, kind = Participant(mine, objective, rows), device().type

    def call(*arguments: Any) -> Any:
        with torch.autocast(kind, training.arithmetic, enabled=training.arithmetic is not None):
            return objective(*arguments)

    def move(batch: dict[str, Tensor]) -> Mapping[str, Tensor]:
        return {name: value.to(device()) for name, value in batch.items()}

    while (step := mine.tell()) is not None:
        assert isinstance(step, SharedStep)
        torch.manual_seed(int(np.random.SeedSequence([training.seed, step.number, mine.rank]).generate_state(1)[0]))
        objective.zero_grad()
        scale = step.scale
        member.take(step, call, move, lambda loss, scale=scale: (loss * scale).backward())  # type: ignore[misc]
