"""What a run came to: its folder and report, and the models in it, ready to be used."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from io import StringIO
from pathlib import Path
from typing import Any

from rich.console import Console
from transformers import PreTrainedModel

from compress.errors import CompressError
from compress.files import no_folder
from compress.models.loading import load_model
from compress.pipeline.state import State
from compress.report import load_report
from compress.report.schema import Report
from compress.report.table import print_report
from compress.run.predict import predict

NOTEBOOK = 110  # characters of a line of the notebook view


@dataclass(frozen=True, repr=False, eq=False)
class Run:
    """A finished run, as `Recipe.run` returns it and `load` reads it."""

    folder: Path
    report: Report  # the content of report.json
    state: State | None = field(default=None)  # what its stages made; None for a run that was read from its folder

    @property
    def recommended(self) -> str:
        """The name of the artifact that the report recommends; "student" where it recommends none."""
        return self.report.recommended or "student"

    def student(self) -> PreTrainedModel:
        """Return the student as a transformers model, in evaluation mode."""
        return load_model(self.folder / "student")

    def predict(self, texts: str | Sequence[str], pairs: str | Sequence[str] | None = None) -> list[dict[str, Any]]:
        """Return the recommended artifact's prediction per text; ``pairs`` are second texts. Raises ModelError."""
        return predict(self.folder, texts, pairs)

    def __repr__(self) -> str:
        return f"Run({str(self.folder)!r}, recommended={self.recommended!r})"

    def _repr_html_(self) -> str:
        return self._page

    @cached_property
    def _page(self) -> str:
        console = Console(record=True, file=StringIO(), width=NOTEBOOK)
        print_report(self.report, console)
        return console.export_html(inline_styles=True, code_format='<pre style="line-height: 1.2">{code}</pre>')


def load(folder: str | Path) -> Run:
    """Return the finished run in a folder. Raises CompressError where there is none."""
    path = Path(folder).expanduser()
    if rule := no_folder(path):
        raise CompressError(f"{path}: {rule}. Name the folder of a finished run.")
    return Run(path, load_report(path))
