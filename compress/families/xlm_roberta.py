"""XLM-R (Conneau et al., arXiv:1911.02116): RoBERTa with a vocabulary of a hundred languages."""

from __future__ import annotations

from transformers import XLMRobertaConfig

from compress.families.registry import register
from compress.families.roberta import RobertaFamily


class XlmRobertaFamily(RobertaFamily):
    """XLM-R, which keeps RoBERTa's names."""

    config_class = XLMRobertaConfig


register(XlmRobertaFamily())
