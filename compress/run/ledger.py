"""What the parts of a run took, noted and told as they begin and end."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from compress.pipeline.workshop import noted
from compress.report.schema import StageCost
from compress.telling import StageBegan, StageEnded, tell
from compress.usage import together


class Ledger:
    """The costs of a run's parts, in their order; each product counts where it was asked for first."""

    def __init__(self) -> None:
        self.costs: list[StageCost] = []
        self._known: set[Path] = set()

    @contextmanager
    def part(self, title: str) -> Iterator[list[str]]:
        """Tell that a part begins, and when it has ended what it took; the body adds notes to the list."""
        tell(StageBegan(stage=title))
        notes: list[str] = []
        with noted() as products:
            yield notes
        new = {product.folder: product for product in products if product.folder not in self._known}
        self._known |= set(new)
        usage = together(product.usage for product in new.values())
        reused = sum(product.reused for product in new.values())
        self.costs.append(StageCost(stage=title, products=len(new), reused=reused, usage=usage))
        tell(StageEnded(stage=title, reused=reused == len(new), usage=usage.report(), notes=notes))
