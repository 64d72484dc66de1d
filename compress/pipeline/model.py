"""A model on disk, as the stages of a run hand it on."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from compress.pipeline.workshop import Product


@dataclass(frozen=True)
class Model:
    """A model on disk, as transformers saves it, with its tokenizer; ``key`` says how it was made."""

    folder: Path
    key: str

    @classmethod
    def of(cls, product: Product) -> Model:
        """Return the model that a product of the workshop holds."""
        return cls(product.folder, product.key)
