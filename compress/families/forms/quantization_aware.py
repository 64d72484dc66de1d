"""Fake-quantized encoders as transformers models that save and reload: a model type ``compress_qat_bert`` a family.

The scheme is part of the configuration and the moving ranges are buffers, so checkpoints hold them, training resumes
exactly, and a reloaded model says what the trained one said. Layers may be uneven, as after pruning.
"""

from __future__ import annotations

from dataclasses import asdict
from typing import Any, ClassVar

from torch import nn
from transformers import PreTrainedConfig, PreTrainedModel

from compress.families.base import FAKE_QUANTIZED, UNEVEN, family_of
from compress.families.forms.fake_quantization import Scheme, insert
from compress.families.forms.uneven import UNEVEN_CLASSES
from compress.models.quiet import quiet


def _fake_quantized(
    name: str, config_class: type[PreTrainedConfig], model_class: type[PreTrainedModel]
) -> tuple[type[PreTrainedConfig], type[PreTrainedModel]]:
    """Return the configuration and model classes of one family's fake-quantized form."""

    class Config(config_class):  # type: ignore[misc,valid-type]
        """The uneven family's configuration, with the fields of `Scheme`."""

        model_type = UNEVEN + FAKE_QUANTIZED + name
        fake_quantization: dict[str, Any] | None = None

    class Model(model_class):  # type: ignore[misc,valid-type]
        """The family's classifier with fake-quantized linear layers and embeddings."""

        config_class: ClassVar[type] = Config

        def __init__(self, config: Any) -> None:
            super().__init__(config)
            insert(self, Scheme(**config.fake_quantization or {}))

    stock = config_class.__name__.removeprefix("Uneven"), model_class.__name__.removeprefix("Uneven")
    Config.__name__ = Config.__qualname__ = f"FakeQuantized{stock[0]}"
    Model.__name__ = Model.__qualname__ = f"FakeQuantized{stock[1]}"
    return Config, Model


FAKE_QUANTIZED_CLASSES = {name: _fake_quantized(name, *classes) for name, classes in UNEVEN_CLASSES.items()}
globals().update({one.__name__: one for classes in FAKE_QUANTIZED_CLASSES.values() for one in classes})  # by name too


def fake_quantized(model: PreTrainedModel, scheme: Scheme) -> PreTrainedModel:
    """Return a copy of ``model`` with fake quantization, whose ranges have seen nothing yet.

    Raises ModelError for a family that is not in the table.
    """
    config_class, model_class = FAKE_QUANTIZED_CLASSES[family_of(model.config).model_type]
    settings = model.config.to_dict() | {"fake_quantization": asdict(scheme)}
    settings.pop("model_type")
    with quiet():
        copy = model_class(config_class(**settings))
    said = copy.load_state_dict(model.state_dict(), strict=False)
    assert not said.unexpected_keys
    assert all(".inputs." in name for name in said.missing_keys)  # the ranges
    copy.set_attn_implementation(model.config._attn_implementation)
    nn.Module.to(copy, model.device)
    copy.train(model.training)
    return copy
