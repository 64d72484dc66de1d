"""MobileBERT (Sun et al., arXiv:2004.02984): layers with bottlenecks, which are known but not taken apart."""

from __future__ import annotations

from transformers import MobileBertConfig

from compress.families.layered import Layered
from compress.families.registry import register


class MobileBertLayers(Layered):
    """MobileBERT."""

    config_class = MobileBertConfig
    encoder = "mobilebert"
    stack = "encoder.layer"


register(MobileBertLayers())
