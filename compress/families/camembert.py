"""CamemBERT (Martin et al., arXiv:1911.03894): RoBERTa for French."""

from __future__ import annotations

from transformers import CamembertConfig

from compress.families.registry import register
from compress.families.roberta import RobertaFamily


class CamembertFamily(RobertaFamily):
    """CamemBERT, which keeps RoBERTa's names."""

    config_class = CamembertConfig


register(CamembertFamily())
