"""Encoders that answer with one vector per text, for every type that transformers has a head by token for.

The vector is pooled from the last layer's states, goes through one linear layer and has length 1 where the
configuration says so. The linear layer holds what is learned or computed after pooling: a projection to another
width, a whitening.
"""

from __future__ import annotations

import sys
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import MODEL_FOR_TOKEN_CLASSIFICATION_MAPPING, PreTrainedModel
from transformers import initialization as start
from transformers.modeling_outputs import SequenceClassifierOutput
from transformers.models.auto.auto_factory import _BaseAutoModelClass

POOLINGS = ("mean", "cls", "max")
_TAIL, _STOCK_TAIL = "ForSentenceVectors", "ForTokenClassification"
_vector_classes: dict[type, type[PreTrainedModel]] = {}


class OfSentenceVectors(PreTrainedModel):
    """An encoder, a pooling and a linear layer.

    Its configuration has ``vector_pooling``, one of `POOLINGS`, and ``vector_normalized``: whether vectors have length
    1. The linear layer of a model that comes without starts as the identity where widths allow it.
    """

    derived_from: ClassVar[type[PreTrainedModel]]
    """transformers' class with a head by token, of which this is made."""
    classifier: nn.Linear

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        for name, _ in list(self.named_children()):
            if name not in (self.base_model_prefix, "classifier"):
                delattr(self, name)  # dropout, layers of another head

    def _init_weights(self, module: nn.Module) -> None:
        super()._init_weights(module)  # type: ignore[no-untyped-call]
        linear = self._modules.get("classifier")
        if module is linear and isinstance(linear, nn.Linear) and linear.in_features == linear.out_features:
            start.eye_(linear.weight)
            start.zeros_(linear.bias)

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        output_hidden_states: bool = False,
        output_attentions: bool = False,
        **_: Any,
    ) -> SequenceClassifierOutput:
        """Token numbers (batch, tokens) to vectors (batch, width), as logits."""
        mask = torch.ones_like(input_ids) if attention_mask is None else attention_mask
        given: dict[str, Any] = {"input_ids": input_ids, "attention_mask": mask}
        if token_type_ids is not None:
            given["token_type_ids"] = token_type_ids
        for name, asked in (("hidden_states", output_hidden_states), ("attentions", output_attentions)):
            given |= {f"output_{name}": True} if asked else {}
        outputs = self.base_model(**given)
        vectors = self.classifier(pooled(outputs[0], mask, self.config.vector_pooling))
        return SequenceClassifierOutput(
            logits=functional.normalize(vectors, dim=-1) if self.config.vector_normalized else vectors,
            hidden_states=getattr(outputs, "hidden_states", None),
            attentions=getattr(outputs, "attentions", None),
        )


def pooled(states: Tensor, mask: Tensor, pooling: str) -> Tensor:
    """Return the states (batch, tokens, hidden) of each row's real tokens as one: (batch, hidden).

    ``mean`` and ``max`` over the tokens where the mask (batch, tokens) is 1, or the first token's (``cls``): the
    poolings of Sentence-BERT (Reimers and Gurevych, arXiv:1908.10084).
    """
    if pooling == "cls":
        return states[:, 0]
    real = mask[:, :, None].bool()
    if pooling == "max":
        return states.masked_fill(~real, torch.finfo(states.dtype).min).amax(1)
    share = real.to(states.dtype) / mask.sum(1).clamp(min=1)[:, None, None].to(states.dtype)
    return (states * share).sum(1)


def vectors_of(stock: type[PreTrainedModel]) -> type[PreTrainedModel]:
    """Return the class of sentence vectors that is made of one of transformers' with a head by token; always the same.

    It is an attribute of this module, as pickle and transformers expect.
    """
    if stock not in _vector_classes:
        name = stock.__name__.removesuffix(_STOCK_TAIL) + _TAIL
        own = {"__module__": __name__, "config_class": stock.config_class, "derived_from": stock}
        _vector_classes[stock] = type(name, (OfSentenceVectors, stock), own)
        setattr(sys.modules[__name__], name, _vector_classes[stock])
    return _vector_classes[stock]


class _Classes:
    """The model classes by the class of their configuration: those registered, and those made of transformers'."""

    def __init__(self) -> None:
        self.registered: dict[type, type[PreTrainedModel]] = {}

    def get(self, config_class: type, default: Any = None) -> Any:
        """Return the class of models; ``default`` where there is none."""
        if config_class in self.registered:
            return self.registered[config_class]
        stock: Any = MODEL_FOR_TOKEN_CLASSIFICATION_MAPPING.get(config_class, None)
        return default if stock is None else vectors_of(stock)

    def __contains__(self, config_class: type) -> bool:
        return self.get(config_class) is not None

    def __getitem__(self, config_class: type) -> type[PreTrainedModel]:
        found: type[PreTrainedModel] | None = self.get(config_class)
        if found is None:
            raise KeyError(config_class)
        return found

    def keys(self) -> list[type]:
        """Return the classes of configurations."""
        return [*self.registered, *MODEL_FOR_TOKEN_CLASSIFICATION_MAPPING.keys()]

    def __iter__(self) -> Any:
        return iter(self.keys())

    def register(self, config_class: type, model_class: type[PreTrainedModel], exist_ok: bool = False) -> None:
        """Make a class known."""
        if not exist_ok and config_class in self.registered:
            raise ValueError(f"{config_class.__name__} has a class of sentence vectors already")
        self.registered[config_class] = model_class


class AutoModelForSentenceVectors(_BaseAutoModelClass):
    """Builds and loads encoders with one vector per text, by their configurations, as transformers' own classes do."""

    _model_mapping: Any = _Classes()
