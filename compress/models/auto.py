"""The one place where transformers builds and loads models with a head: by the task of their configuration."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from transformers import PreTrainedModel

from compress.tasks.registry import TASKS, kind_of_config

PREFIX = "AutoModel"


def auto_of(config: Any) -> Any:
    """Return the ``Auto`` class of transformers for a configuration's task."""
    return kind_of_config(config).auto


def autos() -> dict[str, Any]:
    """Return the ``Auto`` classes of all tasks by their names."""
    return {task.auto.__name__: task.auto for task in TASKS.values()}


def purpose(auto: Any) -> str:
    """Return what an ``Auto`` class is for, in words: "sequence classification"."""
    words: list[str] = re.findall(r"[A-Z][a-z]*", auto.__name__.removeprefix(PREFIX))[1:]  # without For
    return " ".join(words).lower()


def model_class(config: Any, auto: Any = None) -> Any:
    """Return the class of transformers' or this package's models of a configuration for its task; None without one."""
    mapping = (auto or auto_of(config))._model_mapping
    return mapping.get(type(config), None)


def knows(auto: Any, config_class: type) -> bool:
    """Return whether an ``Auto`` class builds models of a configuration's class."""
    return config_class in auto._model_mapping


def auto_that_knows(config_class: Any) -> str:
    """Return the name of the ``Auto`` class that builds models of a configuration's class; the first without one."""
    return next(
        (name for name, auto in autos().items() if config_class and knows(auto, config_class)), next(iter(autos()))
    )


def from_config(config: Any) -> PreTrainedModel:
    """Return a new model of a configuration, with random weights."""
    model: PreTrainedModel = auto_of(config).from_config(config)
    return model


def from_pretrained(folder: str | Path, config: Any, **settings: Any) -> Any:
    """Return what transformers loads for a configuration's task from a folder or hub id."""
    return auto_of(config).from_pretrained(str(folder), config=config, **settings)
