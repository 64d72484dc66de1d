"""Distillation losses, one file each: a pure function of tensors, and the settings that recipes name it by.

Every module of this folder is imported, so that a new file is a new loss.
"""

from importlib import import_module
from pkgutil import iter_modules

from compress.distill.losses.attention import AttentionScores, attention_loss
from compress.distill.losses.attention_probabilities import AttentionProbabilities
from compress.distill.losses.attention_transfer import AttentionTransfer, minilm_attention_loss
from compress.distill.losses.base import LOSSES, Comparison, Loss, Pairs, register, wanted
from compress.distill.losses.cosine import Cosine, cosine_loss
from compress.distill.losses.embeddings import Embeddings
from compress.distill.losses.hard import HardLabels
from compress.distill.losses.hidden import HiddenStates, hidden_state_loss
from compress.distill.losses.margin_mse import MarginMSE, margin_mse_loss
from compress.distill.losses.mean_over import Given, MeanOver
from compress.distill.losses.minilm import MiniLM
from compress.distill.losses.mse import LogitsMSE, logits_mse_loss
from compress.distill.losses.pairwise import PairwiseSoftTargets, pairwise_soft_target_loss
from compress.distill.losses.patient import Patient, patient_loss
from compress.distill.losses.relations import Relations, relation_loss
from compress.distill.losses.soft import SoftTargets

for _module in iter_modules(__path__):
    import_module(f"{__name__}.{_module.name}")

__all__ = [
    "LOSSES",
    "AttentionProbabilities",
    "AttentionScores",
    "AttentionTransfer",
    "Comparison",
    "Cosine",
    "Embeddings",
    "Given",
    "HardLabels",
    "HiddenStates",
    "LogitsMSE",
    "Loss",
    "MarginMSE",
    "MeanOver",
    "MiniLM",
    "Pairs",
    "PairwiseSoftTargets",
    "Patient",
    "Relations",
    "SoftTargets",
    "attention_loss",
    "cosine_loss",
    "hidden_state_loss",
    "logits_mse_loss",
    "margin_mse_loss",
    "minilm_attention_loss",
    "pairwise_soft_target_loss",
    "patient_loss",
    "register",
    "relation_loss",
    "wanted",
]
