"""Folders of runs: what makes a folder a run, and where a folder of runs leads."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

LATEST = "latest"
MARKER = ".compress-run.json"  # in the folder of every run; see `compress.run.marker`
REPORT = "report.json"


def is_unfinished(path: Path) -> bool:
    """Return whether a folder was reserved for a run that has not written its report."""
    return path.is_dir() and not (path / REPORT).exists() and ((path / MARKER).exists() or not any(path.iterdir()))


def run_in(path: Path) -> str:
    """Return a sentence that names a run where ``path`` is the folder of a recipe's runs; empty where it is none."""
    if not path.is_dir() or any((path / name).is_file() for name in (REPORT, "recipe.yaml", "config.json")):
        return ""
    runs: Iterable[Path] = (path / LATEST, *sorted(path.iterdir()))
    run = next((run for run in runs if (run / REPORT).is_file()), None)
    return f"It holds runs: name one of them, for example {run}." if run else ""
