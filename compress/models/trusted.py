"""Code of models that the user trusted in this process: a copy beside a saved model is the same code.

A run saves its teacher with the code that it came with and loads that folder many times; only the first is asked for.
"""

from __future__ import annotations

import hashlib
import inspect
from pathlib import Path
from typing import Any

from compress.models.architecture import ships_code
from compress.models.auto import autos
from compress.models.folder import CONFIG, TOKENIZER_CONFIG, read_object

_trusted: set[str] = set()


def remember(*loaded: Any) -> None:
    """Trust the code of configurations, models or tokenizers that were loaded with the user's trust."""
    for part in loaded:
        if ships_code(part):
            _trusted.update(map(_digest, Path(inspect.getfile(type(part))).parent.glob("*.py")))


def is_trusted(folder: Path) -> bool:
    """Return whether a folder holds code, and neither holds nor names any but what was trusted in this process."""
    files = list(folder.rglob("*.py")) if _trusted and folder.is_dir() else []
    return bool(files) and all(_digest(path) in _trusted for path in files) and not _names_others(folder)


def _names_others(folder: Path) -> bool:
    """Return whether what would be loaded from the folder takes its code from a repository of the hub (``--``)."""
    maps = [
        read_object(folder / name).get("auto_map") for name in (CONFIG, TOKENIZER_CONFIG) if (folder / name).is_file()
    ]
    loaded = ("AutoConfig", *autos(), "AutoTokenizer")
    return any("--" in str(code.get(auto)) for code in maps if isinstance(code, dict) for auto in loaded)


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
