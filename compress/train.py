"""The one training engine: transformers' Trainer, with length-grouped batches and exact resumption.

Fine-tuning a teacher, distillation and recovery after pruning all go through `fit`; they differ in the
objective, a module that turns a batch into a loss and its named parts.
"""

from __future__ import annotations

import json
import math
import random
import shutil
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import Sampler
from transformers import PreTrainedModel, Trainer, TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from compress.errors import CompressError, Fault
from compress.files import write_json
from compress.models.loading import quiet
from compress.models.outputs import INPUTS
from compress.models.tokens import Tokens
from compress.progress import progress
from compress.settings import at_least, between, positive
from compress.state import Stage

WHOLE = "whole"  # marks a checkpoint that was written to its end
CURVE_POINTS = 40  # points of a training curve


class Decay(Enum):
    """How the learning rate goes on after the warm-up."""

    linear = "linear"
    cosine = "cosine"
    constant = "constant_with_warmup"


class Precision(Enum):
    """Arithmetic of training."""

    fp32 = "fp32"
    bf16 = "bf16"
    fp16 = "fp16"


@dataclass(kw_only=True)
class Training(Stage):
    """Settings of a stage that trains."""

    epochs: float = 3.0  # passes over the rows
    batch_size: int = 32  # rows a step
    learning_rate: float = 5e-5  # AdamW's, at its highest
    decay: Decay = Decay.linear  # linear, cosine or constant, after the warm-up
    warmup: float = 0.1  # share of steps during which the learning rate rises
    weight_decay: float = 0.01  # AdamW's
    gradient_clip: float = 1.0  # largest norm of the gradient
    precision: Precision = Precision.fp32  # fp32, bf16 or fp16 (mixed)
    early_stopping: int = 0  # epochs without a better validation metric before it stops; 0: never, last epoch kept
    checkpoint_seconds: float = 60.0  # time between checkpoints

    def faults(self) -> Iterator[Fault]:
        """All are in their natural ranges."""
        yield from positive(self, "epochs")
        yield from at_least(self, "batch_size", 1)
        yield from positive(self, "learning_rate")
        yield from between(self, "warmup", 0, 1)
        yield from at_least(self, "weight_decay", 0)
        yield from positive(self, "gradient_clip")
        yield from at_least(self, "early_stopping", 0)
        yield from positive(self, "checkpoint_seconds")
        if self.precision is Precision.fp16 and not torch.cuda.is_available():
            yield Fault("precision", "fp16", "needs a GPU", "Use fp32, or bf16 where the processor has it.")

    def made_with(self) -> Any:
        """Leave out what does not change the result."""
        return {name: value for name, value in super().made_with().items() if name != "checkpoint_seconds"}


class LengthGrouped(Sampler[int]):
    """All rows once an epoch: shuffled, then sorted by length within groups of 50 batches, batches shuffled.

    The order depends on the seed and the epoch alone, so a resumed run sees the same batches.
    """

    def __init__(self, lengths: np.ndarray[Any, Any], batch_size: int, seed: int) -> None:
        self.lengths, self.batch_size, self.seed, self.epoch = lengths, batch_size, seed, 0

    def __len__(self) -> int:
        return len(self.lengths)

    def __iter__(self) -> Iterator[int]:
        generator = np.random.default_rng([self.seed, self.epoch])
        order = generator.permutation(len(self.lengths))
        group = 50 * self.batch_size
        batches: list[Any] = []
        for start in range(0, len(order), group):
            part = order[start : start + group]
            part = part[np.argsort(-self.lengths[part], kind="stable")]
            batches += [part[i : i + self.batch_size] for i in range(0, len(part), self.batch_size)]
        short = [batch for batch in batches if len(batch) < self.batch_size]  # at most one; it comes last
        full = [batch for batch in batches if len(batch) == self.batch_size]
        generator.shuffle(full)
        for batch in full + short:
            yield from (int(row) for row in batch)


Objective = nn.Module
"""A module whose call ``(batch, progress)`` returns (loss, {part: loss}); progress is 0 to 1."""


class Supervised(nn.Module):
    """The objective of fine-tuning: the loss that the model's own head defines for labels."""

    def __init__(self, model: PreTrainedModel) -> None:
        super().__init__()
        self.model = model

    def forward(self, batch: Mapping[str, Tensor], progress: float) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the loss; it has no parts."""
        inputs = {name: batch[name] for name in (*INPUTS, "labels") if name in batch}
        return self.model(**inputs).loss, {}


def fit(
    objective: Objective,
    tokens: Tokens,
    settings: Training,
    *,
    seed: int,
    folder: Path,
    title: str,
    validate: Callable[[], Mapping[str, float]],
    shares: Mapping[Tensor, float] | None = None,
) -> list[dict[str, float]]:
    """Train ``objective`` in place on all rows of ``tokens``; return the training curve.

    Checkpoints go to ``folder``; whole ones that lie there are resumed from, and the result is then the
    one an uninterrupted run gives (one process, CPU). ``validate`` is called after each epoch; the first
    metric it returns decides early stopping. ``shares`` gives parameters a share of the learning rate, where
    it is not 1; those that require no gradient stay as they are. Random state and global settings are left
    as they were.
    """
    steps = max(1, round(settings.epochs * -(-len(tokens) // settings.batch_size)))
    arguments = TrainingArguments(
        output_dir=str(folder / "checkpoints"),
        max_steps=steps,
        per_device_train_batch_size=settings.batch_size,
        learning_rate=settings.learning_rate,
        lr_scheduler_type=settings.decay.value,
        warmup_steps=round(settings.warmup * steps),
        weight_decay=settings.weight_decay,
        max_grad_norm=settings.gradient_clip,
        bf16=settings.precision is Precision.bf16,
        fp16=settings.precision is Precision.fp16,
        eval_strategy="no",
        save_strategy="no",  # our callback saves by time
        save_total_limit=2,
        logging_steps=max(1, steps // CURVE_POINTS),
        report_to="none",
        use_cpu=not torch.cuda.is_available(),
        disable_tqdm=True,
        remove_unused_columns=False,
        seed=seed,
    )
    folder.mkdir(parents=True, exist_ok=True)
    checkpoint = _last_whole(folder / "checkpoints")
    with same_randomness(), quiet(), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*pin_memory.*")
        trainer = _Trainer(
            model=objective,
            args=arguments,
            train_dataset=tokens,
            data_collator=tokens.batch,
        )
        trainer.order = LengthGrouped(tokens.lengths, settings.batch_size, seed)
        trainer.shares = shares or {}
        keeper = _Keeper(objective, settings, folder, validate, trainer)
        trainer.callback_handler.callbacks = [*_stock_callbacks(trainer), keeper, _Bar(title)]
        trainer.train(resume_from_checkpoint=checkpoint)
        keeper.restore_best()
    objective.eval()
    history = trainer.state.log_history[:-1]  # the last entry is the Trainer's own summary
    return [{name: float(value) for name, value in entry.items() if math.isfinite(value)} for entry in history]


class _Trainer(Trainer):
    """Trainer with our batch order, learning rates by parameter, and the parts of the loss in its log."""

    order: LengthGrouped
    shares: Mapping[Tensor, float]

    def __init__(self, **arguments: Any) -> None:
        super().__init__(**arguments)
        self.parts: dict[str, list[float]] = {}

    def _get_train_sampler(self, train_dataset: Any = None) -> Sampler[int]:
        return self.order

    def create_optimizer(self, *arguments: Any, **named: Any) -> Any:
        optimizer = super().create_optimizer(*arguments, **named)
        for group in list(optimizer.param_groups) if self.shares else ():
            slow = [p for p in group["params"] if p in self.shares]
            group["params"] = [p for p in group["params"] if p not in self.shares]
            for share in sorted({self.shares[p] for p in slow}):
                part = [p for p in slow if self.shares[p] == share]
                optimizer.add_param_group({**group, "params": part, "lr": group["lr"] * share})
        return optimizer

    def compute_loss(self, model: nn.Module, inputs: Any, *_: Any, **__: Any) -> Tensor:
        loss, parts = model(inputs, self.state.global_step / self.state.max_steps)
        for name, part in parts.items():
            self.parts.setdefault(name, []).append(float(part.detach()))
        assert isinstance(loss, Tensor)
        if not bool(torch.isfinite(loss)):
            raise CompressError(
                f"Training diverged: the loss is {loss.item()} at step {self.state.global_step}. "
                "Lower the stage's learning_rate, or its gradient_clip."
            )
        return loss

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        logs |= {name: float(np.mean(values)) for name, values in self.parts.items()}
        self.parts.clear()
        super().log(logs, start_time)


class _Keeper(TrainerCallback):
    """Orders checkpoints by time, validates after each epoch, stops early and keeps the best weights."""

    def __init__(
        self,
        objective: nn.Module,
        settings: Training,
        folder: Path,
        validate: Callable[[], Mapping[str, float]],
        trainer: _Trainer,
    ) -> None:
        self.objective, self.settings, self.validate, self.trainer = objective, settings, validate, trainer
        self.best_weights, self.best_state = folder / "best.safetensors", folder / "best.json"
        self.saved_at = time.monotonic()
        self.steps_an_epoch = -(-len(trainer.order) // settings.batch_size)

    def on_epoch_begin(self, args: Any, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        self.trainer.order.epoch = int(state.epoch or 0)

    def on_step_end(self, args: Any, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        if state.global_step % self.steps_an_epoch:  # the last step of an epoch is kept after its validation
            control.should_save = self.due and state.global_step < state.max_steps

    @property
    def due(self) -> bool:
        """Whether it is time for a checkpoint."""
        return time.monotonic() - self.saved_at >= self.settings.checkpoint_seconds

    def on_save(self, args: Any, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        (Path(args.output_dir) / f"checkpoint-{state.global_step}" / WHOLE).touch()
        self.saved_at = time.monotonic()

    def on_epoch_end(self, args: Any, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        with same_randomness():
            metrics = self.validate()
        self.objective.train()
        state.log_history.append(
            {"step": state.global_step, "epoch": state.epoch or 0.0}
            | {f"validation_{name}": value for name, value in metrics.items()}
        )
        if self.settings.early_stopping and metrics:
            self._keep_if_best(next(iter(metrics.values())), state, control)
        control.should_save = self.due and state.global_step < state.max_steps

    def _keep_if_best(self, metric: float, state: TrainerState, control: TrainerControl) -> None:
        from safetensors.torch import save_file

        best = json.loads(self.best_state.read_text()) if self.best_state.exists() else None
        if best is None or metric > best["metric"] or state.global_step <= best["step"]:
            weights = {name: value.contiguous() for name, value in self.objective.state_dict().items()}
            aside = self.best_weights.with_suffix(".new")
            save_file(weights, aside)
            aside.replace(self.best_weights)
            write_json(self.best_state, {"metric": metric, "step": state.global_step, "epoch": state.epoch})
        elif (state.epoch or 0) - best["epoch"] >= self.settings.early_stopping:
            control.should_training_stop = True

    def restore_best(self) -> None:
        """Put the best epoch's weights back, where early stopping kept any."""
        from safetensors.torch import load_file

        if self.best_weights.exists():
            self.objective.load_state_dict(load_file(self.best_weights))


class _Bar(TrainerCallback):
    """A progress bar with the time left and the last logged loss."""

    def __init__(self, title: str) -> None:
        self.title = title
        self.bar: Any = None

    def on_train_begin(self, args: Any, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        self.bar = progress(total=state.max_steps, initial=state.global_step, title=self.title, unit="step")

    def on_step_end(self, args: Any, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        if self.bar is not None:
            self.bar.update()

    def on_log(self, args: Any, state: TrainerState, control: TrainerControl, logs: Any = None, **_: Any) -> None:
        if self.bar is not None and logs and "loss" in logs:
            self.bar.set_postfix(loss=f"{logs['loss']:.3f}", refresh=False)

    def on_train_end(self, args: Any, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        if self.bar is not None:
            self.bar.close()


def _stock_callbacks(trainer: Trainer) -> list[TrainerCallback]:
    """Return the Trainer's own flow control, without its printing."""
    from transformers.trainer_callback import DefaultFlowCallback

    return [c for c in trainer.callback_handler.callbacks if isinstance(c, DefaultFlowCallback)]


def _last_whole(checkpoints: Path) -> str | None:
    """Return the newest checkpoint that was written to its end, and remove those that were not."""
    for path in checkpoints.glob("checkpoint-*"):
        if not (path / WHOLE).exists():
            shutil.rmtree(path)  # cut short; left there, it would count among those that are kept
    found = sorted(checkpoints.glob(f"checkpoint-*/{WHOLE}"), key=lambda p: int(p.parent.name.rpartition("-")[2]))
    return str(found[-1].parent) if found else None


@contextmanager
def same_randomness() -> Iterator[None]:
    """Leave the random state of Python, NumPy and torch (all devices) as it was."""
    states = random.getstate(), np.random.get_state(), torch.get_rng_state()
    devices = torch.cuda.get_rng_state_all() if torch.cuda.is_available() else []
    try:
        yield
    finally:
        random.setstate(states[0])
        np.random.set_state(states[1])
        torch.set_rng_state(states[2])
        if devices:
            torch.cuda.set_rng_state_all(devices)


def device() -> torch.device:
    """Return the device that training and prediction use: the first GPU, else the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")
