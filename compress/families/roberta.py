"""RoBERTa (Liu et al., arXiv:1907.11692): BERT's layers, another head, positions counted from the padding's number."""

from __future__ import annotations

from typing import Any, ClassVar

from torch import nn
from transformers import PretrainedConfig, RobertaConfig

from compress.families.base import LanguageHeadNames, has_submodule
from compress.families.bert import BertFamily
from compress.families.registry import register


class RobertaFamily(BertFamily):
    """RoBERTa."""

    config_class: ClassVar[type[PretrainedConfig]] = RobertaConfig
    encoder = "roberta"

    def head(self, model: nn.Module) -> tuple[str, str] | None:
        """Return the two layers of the head."""
        return ("classifier.dense", "classifier.out_proj") if has_submodule(model, "classifier.dense") else None

    def language_head(self) -> LanguageHeadNames | None:
        """Return the two parts before the decoder."""
        return LanguageHeadNames("lm_head.dense", "lm_head.layer_norm")

    def language_activation(self, config: Any) -> str:
        """Return gelu, whatever the encoder's activation."""
        return "gelu"


register(RobertaFamily())
