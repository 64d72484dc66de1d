"""A BiLSTM student (Tang et al., arXiv:1903.12136)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from transformers import PreTrainedModel

from compress.errors import Fault
from compress.known import NOTHING, Known
from compress.models.auto import from_config
from compress.models.bilstm import BiLstmConfig
from compress.settings import at_least
from compress.student.base import Material
from compress.student.words import EmbeddingStudent


@dataclass(kw_only=True)
class BiLstm(EmbeddingStudent):
    """A bidirectional LSTM over word embeddings (Tang et al., arXiv:1903.12136)."""

    layers: int = 1  # LSTM layers
    hidden_size: int = 150  # units per direction
    fully_connected_size: int = 200  # units between the LSTM and the output

    def faults(self, known: Known = NOTHING) -> Iterator[Fault]:
        """Check ranges."""
        yield from super().faults(known)
        for name in ("layers", "hidden_size", "fully_connected_size"):
            yield from at_least(self, name, 1)

    def config(self, teacher: Any, material: Material | None = None) -> BiLstmConfig:
        """Return the student's configuration."""
        return BiLstmConfig(
            **self.sizes(teacher, material),
            lstm_layers=self.layers,
            hidden_size=self.hidden_size,
            fully_connected_size=self.fully_connected_size,
        )

    def untrained(self, teacher: Any, material: Material | None = None) -> PreTrainedModel:
        """Return a BiLSTM with random weights."""
        return from_config(self.config(teacher, material))
