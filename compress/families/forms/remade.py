"""Classes of forms in another process, where none has been made yet."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from transformers import PretrainedConfig, PreTrainedModel

from compress.families.forms.form import Form, made_classes
from compress.families.registry import FAMILIES


def remade(kind: type) -> tuple[Callable[..., type], tuple[Any, ...]] | None:
    """Return a function and its arguments that give this class in any process; None where an import does."""
    for (form, stock), made in made_classes.items():
        if made is kind:
            if issubclass(stock, PretrainedConfig):
                return _made_again, (form, stock.model_type, None)
            assert issubclass(made, Form)
            return _made_again, (form, made.family.config_class.model_type, stock)
    return None


def _made_again(form: type[Form], model_type: str, stock: type[PreTrainedModel] | None) -> type:
    family = next(family for family in FAMILIES.values() if family.config_class.model_type == model_type)
    return form.config_of(family) if stock is None else form.model_of(family, stock)
