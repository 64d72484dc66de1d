"""Fake-quantized encoders as transformers models that save and reload: a model type per family, ``compress_qat_bert``.

The scheme is part of the configuration and the moving ranges are buffers, so checkpoints hold them, training resumes
exactly, and a reloaded model answers as the trained one did. Layers may be uneven, as after pruning.
"""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from torch import nn
from transformers import PretrainedConfig, PreTrainedModel

from compress.families.base import Family
from compress.families.forms.fake_quantization import FakeQuantization, insert
from compress.families.forms.form import stock_of
from compress.families.forms.uneven import UnevenForm
from compress.families.registry import FAKE_QUANTIZED, family_of
from compress.models.quiet import quiet


class FakeQuantizedForm(UnevenForm):
    """A family's model, perhaps uneven, with fake-quantized linear layers and embeddings."""

    prefix = FAKE_QUANTIZED
    word = "FakeQuantized"

    @classmethod
    def extended(cls, family: Family) -> type[PretrainedConfig]:
        """Return the class of configurations."""

        class Config(UnevenForm.config_of(family)):  # type: ignore[misc]
            """The uneven form's configuration, with the fields of `FakeQuantization`."""

            model_type = cls.prefix + family.model_type
            fake_quantization: dict[str, Any] | None = None

        return Config

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        insert(self, FakeQuantization(**config.fake_quantization or {}))


def fake_quantized(model: PreTrainedModel, scheme: FakeQuantization) -> PreTrainedModel:
    """Return a copy of ``model`` with fake quantization, whose ranges have seen nothing yet.

    Raises ModelError for an unsupported family.
    """
    family = family_of(model.config)
    settings = model.config.to_dict() | {"fake_quantization": asdict(scheme)}
    settings.pop("model_type")
    with quiet():
        copy = FakeQuantizedForm.model_of(family, stock_of(model))(FakeQuantizedForm.config_of(family)(**settings))
    missing, unexpected = copy.load_state_dict(model.state_dict(), strict=False)
    assert not unexpected
    assert all(".inputs." in name for name in missing)  # the ranges
    copy.set_attn_implementation(model.config._attn_implementation)
    nn.Module.to(copy, model.device)
    copy.train(model.training)
    return copy
