"""A convolutional classifier as a transformers model that saves and reloads (Kim 2014, arXiv:1408.5882)."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from transformers import PretrainedConfig

from compress.models.segments import ReaderOfTexts


class CnnConfig(PretrainedConfig):
    """Sizes of a convolutional classifier; ``pooling`` over time is "max" or "mean"."""

    model_type = "compress_cnn"
    vocab_size: int = 30522
    embedding_size: int = 300
    widths: tuple[int, ...] | list[int] = (3, 4, 5)
    filters: int = 100
    pooling: str = "max"
    dropout: float = 0.5
    pairs: bool = False
    sep_token_id: int | None = None
    max_position_embeddings: int = 512


class CnnForSequenceClassification(ReaderOfTexts):
    """Embeddings, filters of several widths with ReLU, pooling over time, the output.

    A filter is applied at every real token; zeros follow the last one, so a row may be shorter than a filter
    and padding is never read. Of pairs each text is read by itself and the two are compared.
    """

    config: CnnConfig
    config_class = CnnConfig
    base_model_prefix = "cnn"

    def __init__(self, config: CnnConfig) -> None:
        super().__init__(config)
        self.embeddings = nn.Embedding(config.vocab_size, config.embedding_size, padding_idx=config.pad_token_id)
        # a convolution as a product of each window with the filters: the form that int8 runtimes are fast in
        self.filters = nn.ModuleList(
            nn.Linear(width * config.embedding_size, config.filters) for width in config.widths
        )
        self.dropout = nn.Dropout(config.dropout)
        width = config.filters * len(config.widths) * (4 if config.pairs else 1)
        self.classifier = nn.Linear(width, int(config.num_labels or 1))
        self.post_init()  # type: ignore[no-untyped-call]

    def answer(self, features: Tensor) -> Tensor:
        """Return the logits (batch, outputs)."""
        logits: Tensor = self.classifier(self.dropout(features))
        return logits

    def read(self, states: Tensor, length: Tensor) -> Tensor:
        """Return the pooled answers of all filters (batch, filters * widths) to texts that lie at the front."""
        real = torch.arange(states.shape[1], device=states.device)[None] < length[:, None]
        states = torch.where(real[:, :, None], states, 0.0)
        pooled = []
        for one, width in zip(self.filters, self.config.widths, strict=True):
            padded = nn.functional.pad(states, (0, 0, 0, width - 1))
            windows = torch.cat([padded[:, step : step + states.shape[1]] for step in range(width)], dim=-1)
            answers = one(windows).relu() * real[:, :, None]
            pooled.append(answers.amax(1) if self.config.pooling == "max" else answers.sum(1) / length[:, None])
        return torch.cat(pooled, dim=-1)
