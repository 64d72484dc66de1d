"""What forms of an encoder have in common: classes derived from transformers' own, one per family and kind of head."""

from __future__ import annotations

import sys
from typing import Any, ClassVar

from transformers import PretrainedConfig, PreTrainedModel

from compress.families.base import Family

made_classes: dict[tuple[type, type], type] = {}
"""Every class that was made in this process, by its form and by what it is derived from."""


class Form(PreTrainedModel):
    """A form of an encoder that no family has.

    ``Form.model_of(family, stock)`` is a class of models that save and reload, with the head of ``stock`` and a model
    type of its own: `prefix` and the family's.
    """

    prefix: ClassVar[str]
    word: ClassVar[str]
    """How the names of its classes begin."""
    family: ClassVar[Family]
    stock: ClassVar[type[PreTrainedModel]]
    """The class of transformers, or of a family's package, that a class is derived from."""

    @classmethod
    def extended(cls, family: Family) -> type[PretrainedConfig]:
        """Return a new subclass of the family's configuration, with the form's entries and model type."""
        raise NotImplementedError

    @classmethod
    def config_of(cls, family: Family) -> type[PretrainedConfig]:
        """Return the class of a family's configurations in this form; the same one every time."""
        key = cls, family.config_class
        if key not in made_classes:
            config_class: Any = cls.extended(family)
            config_class.__name__ = config_class.__qualname__ = f"{cls.word}{family.config_class.__name__}"
            made_classes[key] = _found_by_name(config_class)
        return made_classes[key]

    @classmethod
    def model_of(cls, family: Family, stock: type[PreTrainedModel]) -> type[PreTrainedModel]:
        """Return the class of a family's models in this form with the head of ``stock``; the same one every time."""
        key = cls, stock
        if key not in made_classes:
            own = {
                "config_class": cls.config_of(family),
                "family": family,
                "stock": stock,
                "__module__": cls.__module__,
            }
            made_classes[key] = _found_by_name(type(f"{cls.word}{stock.__name__}", (cls, stock), own))
        return made_classes[key]


def stock_of(model: PreTrainedModel) -> type[PreTrainedModel]:
    """Return the class that a model's own is derived from; its own where it has no form."""
    return model.stock if isinstance(model, Form) else type(model)


def _found_by_name(made: type) -> type:
    """Make a class an attribute of the module that it says it is from, as pickle and transformers expect."""
    setattr(sys.modules[made.__module__], made.__name__, made)
    return made
