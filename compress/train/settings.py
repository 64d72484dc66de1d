"""Settings that all training stages share."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from difflib import get_close_matches
from enum import Enum
from fnmatch import fnmatchcase
from typing import Any

import torch

from compress.errors import Fault
from compress.families.registry import can_be_taken_apart, family_of, type_in_words
from compress.known import NOTHING, Known
from compress.models.loading import parameter_shapes, without_values
from compress.pipeline.stage import Stage
from compress.settings import at_least, between, positive
from compress.train.recomputing import kept_because


class Decay(Enum):
    """How the learning rate changes after the warm-up."""

    linear = "linear"
    quadratic = "polynomial"
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
    batch_size: int = 32  # rows per step, over all processes
    group_by_length: bool = True  # rows of similar length in a batch, to save padding; false: rows in random order
    micro_batch: int | None = None  # rows at a time; default: all of a step, and half as many when memory runs out
    gradient_checkpointing: bool = False  # compute activations again in the backward pass: less memory, more time
    learning_rate: float = 5e-5  # AdamW's peak learning rate
    decay: Decay = Decay.linear  # linear, quadratic, cosine or constant, after the warm-up
    warmup: float = 0.1  # share of steps with a rising learning rate
    weight_decay: float = 0.01  # AdamW's
    gradient_clip: float = 1.0  # largest norm of the gradient
    layer_decay: float = 1.0  # factor on the learning rate for each layer below the top; 1: no decay
    freeze: list[str] = field(
        default_factory=list
    )  # parameters that stay fixed, by name or pattern: ["*.embeddings.*"]
    precision: Precision = Precision.fp32  # fp32, bf16 or fp16 (mixed)
    early_stopping: int = 0  # stop after this many validations without improvement; 0: never, and keep the last weights
    checkpoint_seconds: float = 60.0  # time between checkpoints

    def faults(self, known: Known = NOTHING) -> Iterator[Fault]:
        """Check ranges."""
        yield from positive(self, "epochs")
        yield from at_least(self, "batch_size", 1)
        yield from at_least(self, "micro_batch", 1)
        yield from positive(self, "learning_rate")
        yield from between(self, "warmup", 0, 1)
        yield from at_least(self, "weight_decay", 0)
        yield from positive(self, "gradient_clip")
        yield from between(self, "layer_decay", 0, 1, open_low=True)
        yield from at_least(self, "early_stopping", 0)
        yield from positive(self, "checkpoint_seconds")
        if self.precision is Precision.fp16 and not torch.cuda.is_available():
            yield Fault("precision", "fp16", "needs a GPU", "Use fp32, or bf16 if the processor supports it.")

    def steps(self, drawn: int, least: int = 0) -> int:
        """Return the steps of a training whose epochs draw ``drawn`` rows, windows or groups; ``least``: fewest."""
        return max(1, least, round(self.epochs * -(-drawn // self.batch_size)))

    def made_with(self) -> Any:
        """Leave out what does not change the result, or only the order of sums and what dropout draws."""
        left_out = ("checkpoint_seconds", "micro_batch", "gradient_checkpointing")
        return {name: value for name, value in super().made_with().items() if name not in left_out}


def whole_batch(training: Training, reason: str) -> Iterator[Fault]:
    """Yield ``micro_batch`` where it would divide a batch that must stay whole for a reason, given as a clause."""
    if training.micro_batch is not None and training.micro_batch < training.batch_size:
        rule = f"cannot divide batches of {training.batch_size}: {reason}"
        yield Fault("micro_batch", training.micro_batch, rule, "Leave it out; lower batch_size if memory runs out.")


def parameter_faults(training: Training, config: Any) -> Iterator[Fault]:
    """Yield settings that do not fit a classifier with this configuration."""
    if training.gradient_checkpointing and (reason := kept_because(without_values(config))):
        yield Fault("gradient_checkpointing", True, f"cannot be had here: {reason}", "Leave it out; set micro_batch.")
    if training.layer_decay != 1 and not can_be_taken_apart(config):
        rule = f"needs known layers with weights of their own, which {type_in_words(config)} does not have"
        yield Fault("layer_decay", training.layer_decay, rule, "Leave it at 1.")
    if training.freeze:
        yield from freeze_faults(training, list(parameter_shapes(config)))


def encoder_faults(training: Training, config: Any) -> Iterator[Fault]:
    """Yield ``freeze`` if it leaves nothing to train below the head, which this stage does not train."""
    if not training.freeze or not can_be_taken_apart(config):
        return
    family = family_of(config)
    names = [name for name in parameter_shapes(config) if family.in_encoder(name) and not family.in_pooler(name)]
    if all(any(fnmatchcase(name, pattern) for pattern in training.freeze) for name in names):
        yield Fault("freeze", list(training.freeze), "leaves nothing to train: this stage does not train the head")


def freeze_faults(training: Training, names: list[str]) -> Iterator[Fault]:
    """Yield patterns that match none of the trainable parameters ``names``, or that together match all."""
    modules = {f"{name[:end]}.*" for name in names for end, sign in enumerate(name) if sign == "."}
    for pattern in training.freeze:
        if not any(fnmatchcase(name, pattern) for name in names):
            close = get_close_matches(pattern, sorted(modules) if "*" in pattern else names, n=3, cutoff=0)
            yield Fault("freeze", pattern, "matches no trainable parameter", f"Nearest: {', '.join(close)}.")
    if training.freeze and all(any(fnmatchcase(name, pattern) for pattern in training.freeze) for name in names):
        yield Fault("freeze", list(training.freeze), "leaves nothing to train")
