"""Distillation losses: pure functions, and the settings that recipes name them by."""

from compress.distill.losses.functions import (
    attention_loss,
    cosine_loss,
    hard_label_loss,
    hidden_state_loss,
    logits_mse_loss,
    soft_target_loss,
)
from compress.distill.losses.settings import (
    LOSSES,
    AttentionProbabilities,
    AttentionScores,
    Comparison,
    Cosine,
    Embeddings,
    HardLabels,
    HiddenStates,
    LogitsMSE,
    Loss,
    SoftTargets,
)

__all__ = [
    "LOSSES",
    "AttentionProbabilities",
    "AttentionScores",
    "Comparison",
    "Cosine",
    "Embeddings",
    "HardLabels",
    "HiddenStates",
    "LogitsMSE",
    "Loss",
    "SoftTargets",
    "attention_loss",
    "cosine_loss",
    "hard_label_loss",
    "hidden_state_loss",
    "logits_mse_loss",
    "soft_target_loss",
]
