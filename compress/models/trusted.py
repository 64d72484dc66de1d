"""Code of models that the user trusted in this process: a copy beside a saved model is the same code.

A run saves its teacher with the code that it came with and loads that folder many times; only the first is asked for.
"""

from __future__ import annotations

import hashlib
import inspect
from pathlib import Path
from typing import Any

from compress.models.architecture import ships_code

_trusted: set[str] = set()


def remember(*loaded: Any) -> None:
    """Trust the code of configurations, models or tokenizers that were loaded with the user's trust."""
    for part in loaded:
        if ships_code(part):
            _trusted.update(map(_digest, Path(inspect.getfile(type(part))).parent.glob("*.py")))


def is_trusted(folder: Path) -> bool:
    """Return whether a folder holds code, and none but what was trusted in this process."""
    files = list(folder.glob("*.py")) if folder.is_dir() else []
    return bool(files) and all(_digest(path) in _trusted for path in files)


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
