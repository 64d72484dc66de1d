"""A convolutional student (Kim 2014, arXiv:1408.5882)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

from transformers import PreTrainedModel

from compress.errors import Fault
from compress.known import NOTHING, Known
from compress.models.auto import from_config
from compress.models.cnn import CnnConfig
from compress.settings import at_least
from compress.student.base import Material
from compress.student.words import EmbeddingStudent


class Pooling(Enum):
    """max: the strongest response of a filter (Kim); mean: their mean, as spaCy's text classifier pools."""

    max = "max"
    mean = "mean"


@dataclass(kw_only=True)
class Cnn(EmbeddingStudent):
    """Convolutions over word embeddings, TextCNN (Kim 2014, arXiv:1408.5882)."""

    widths: list[int] = field(default_factory=lambda: [3, 4, 5])  # tokens per filter
    filters: int = 100  # filters of each width
    pooling: Pooling = Pooling.max  # over time: max (Kim) or mean (spaCy's classifier; with widths=[3])
    dropout: float = 0.5  # share of pooled features dropped in training

    def faults(self, known: Known = NOTHING) -> Iterator[Fault]:
        """Check ranges."""
        yield from super().faults(known)
        yield from at_least(self, "filters", 1)
        if not self.widths or any(width < 1 for width in self.widths):
            yield Fault("widths", list(self.widths), "must list whole numbers from 1", "For example [3,4,5].")

    def config(self, teacher: Any, material: Material | None = None) -> CnnConfig:
        """Return the student's configuration."""
        return CnnConfig(
            **self.sizes(teacher, material), widths=list(self.widths), filters=self.filters, pooling=self.pooling.value
        )

    def untrained(self, teacher: Any, material: Material | None = None) -> PreTrainedModel:
        """Return a convolutional classifier with random weights."""
        return from_config(self.config(teacher, material))
