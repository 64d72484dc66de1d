"""A convolutional classifier, tagger and reader of spans that transformers saves and loads (Kim, arXiv:1408.5882)."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from transformers import PretrainedConfig

from compress.models.segments import OfEmbeddings, ReaderForVectors, ReaderOfSpans, ReaderOfTexts, ReaderOfTokens


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


class CnnModel(OfEmbeddings):
    """Embeddings, filters of several widths with ReLU, the output.

    A filter is applied at every real token; zeros are beyond the ends, so a row may be shorter than a filter and
    padding is never read.
    """

    config: CnnConfig
    config_class = CnnConfig
    base_model_prefix = "cnn"

    def __init__(self, config: CnnConfig) -> None:
        super().__init__(config)
        self.embeddings = nn.Embedding(config.vocab_size, config.embedding_size, padding_idx=config.pad_token_id)
        # a convolution as a product of each window with the filters: the form that int8 runtimes are fast in
        self.filters = nn.ModuleList(
            nn.Linear(width * self.side_by_side * config.embedding_size, config.filters) for width in config.widths
        )
        self.dropout = nn.Dropout(config.dropout)
        width = config.filters * len(config.widths) * (4 if config.pairs or self.compares else 1)
        self.classifier = nn.Linear(width, int(config.num_labels or 1))
        self.post_init()  # type: ignore[no-untyped-call]

    def answer(self, features: Tensor) -> Tensor:
        """Return the logits (…, outputs)."""
        logits: Tensor = self.classifier(self.dropout(features))
        return logits

    def filtered(self, states: Tensor, length: Tensor, *, centred: bool) -> list[Tensor]:
        """Return the answers of each width's filters (batch, tokens, filters), 0 on padding.

        ``states`` are embeddings of texts that lie at the front. A window begins at its token, or has it in the middle.
        """
        real = torch.arange(states.shape[1], device=states.device)[None] < length[:, None]
        states = torch.where(real[:, :, None], states, 0.0)
        answers = []
        for convolution, width in zip(self.filters, self.config.widths, strict=True):
            before = (width - 1) // 2 if centred else 0
            padded = nn.functional.pad(states, (0, 0, before, width - 1 - before))
            windows = torch.cat([padded[:, step : step + states.shape[1]] for step in range(width)], dim=-1)
            answers.append(convolution(windows).relu() * real[:, :, None])
        return answers


class CnnForSequenceClassification(CnnModel, ReaderOfTexts):
    """Answers from the filters' answers, pooled over time; of pairs, each text is read by itself."""

    def read(self, states: Tensor, length: Tensor) -> Tensor:
        """Return the pooled answers of all filters (batch, filters * widths) to texts that lie at the front."""
        answers = self.filtered(states, length, centred=False)
        mean = self.config.pooling == "mean"
        return torch.cat([answer.sum(1) / length[:, None] if mean else answer.amax(1) for answer in answers], dim=-1)


class _OfWindows(CnnModel):
    def read_tokens(self, states: Tensor, length: Tensor) -> Tensor:
        """Return the filters' answers (batch, tokens, filters * widths) to the windows around each token."""
        return torch.cat(self.filtered(states, length, centred=True), dim=-1)


class CnnForTokenClassification(_OfWindows, ReaderOfTokens):
    """Answers for each token from the windows around it; nothing is pooled."""


class CnnForQuestionAnswering(_OfWindows, ReaderOfSpans):
    """Answers for each token from the windows around it, compared with those of the question."""

    def __init__(self, config: CnnConfig) -> None:
        super().__init__(config)
        self.weighing(config.filters * len(config.widths))


class CnnForSentenceVectors(ReaderForVectors, CnnForSequenceClassification):
    """Answers with one vector per text."""
