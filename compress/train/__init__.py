"""Training: one engine for teachers, distillation and recovery; with its settings, row orders and objectives."""

from compress.train.engine import fit
from compress.train.objective import Objective, Supervised, TrainingRows, Whole
from compress.train.order import LengthGrouped, Order, Shuffled, grouped_by_length, order_of
from compress.train.planned import planned
from compress.train.randomness import same_randomness
from compress.train.settings import (
    Decay,
    Precision,
    Training,
    encoder_faults,
    freeze_faults,
    parameter_faults,
    whole_batch,
)
from compress.train.summary import summary
from compress.train.words import words_in_use

__all__ = [
    "Decay",
    "LengthGrouped",
    "Objective",
    "Order",
    "Precision",
    "Shuffled",
    "Supervised",
    "Training",
    "TrainingRows",
    "Whole",
    "encoder_faults",
    "fit",
    "freeze_faults",
    "grouped_by_length",
    "order_of",
    "parameter_faults",
    "planned",
    "same_randomness",
    "summary",
    "whole_batch",
    "words_in_use",
]  # fmt: skip
