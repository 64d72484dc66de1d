"""Folders and hub ids whose family the user stated, in this process: their own files do not say it, or say it wrongly.

A folder is loaded many times; only the teacher that names it knows what the user said of it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from transformers import PretrainedConfig

from compress.families.registry import FAMILIES

_families: dict[str, str] = {}


def state_family(model: str | Path, family: str | None) -> None:
    """Load a folder or hub id as a model of this family from now on; None: as its own files say."""
    if family is None:
        _families.pop(str(model), None)
    else:
        _families[str(model)] = family


def stated_family(model: str | Path) -> str | None:
    """Return the family that was stated for a folder or hub id."""
    return _families.get(str(model))


def stated_config(model: str | Path, family: str) -> Any:
    """Return the configuration of a folder or hub id as one of this family, whatever type it names."""
    settings, _ = PretrainedConfig.get_config_dict(str(model))
    settings.pop("model_type", None)
    config = FAMILIES[family].config_class.from_dict(settings)
    config.name_or_path = str(model)
    return config
