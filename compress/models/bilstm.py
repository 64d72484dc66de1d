"""A BiLSTM classifier, tagger and reader of spans that transformers saves and loads (Tang et al., arXiv:1903.12136)."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from transformers import PretrainedConfig

from compress.models.lstm import Lstm
from compress.models.segments import (
    OfEmbeddings,
    ReaderForVectors,
    ReaderOfSpans,
    ReaderOfTexts,
    ReaderOfTokens,
    taken,
)


class BiLstmConfig(PretrainedConfig):
    """Sizes of a BiLSTM classifier; ``hidden_size`` is that of one direction."""

    model_type = "compress_bilstm"
    vocab_size: int = 30522
    embedding_size: int = 300
    hidden_size: int = 150
    lstm_layers: int = 1
    fully_connected_size: int = 200
    dropout: float = 0.1
    pairs: bool = False
    sep_token_id: int | None = None
    max_position_embeddings: int = 512


class BiLstmModel(OfEmbeddings):
    """Embeddings, BiLSTM, a layer with ReLU, the output.

    The backward direction is a second LSTM over the row's own tokens in reverse, so padding is never read and
    the graph needs no packing.
    """

    config: BiLstmConfig
    config_class = BiLstmConfig
    base_model_prefix = "bilstm"

    def __init__(self, config: BiLstmConfig) -> None:
        super().__init__(config)
        self.embeddings = nn.Embedding(config.vocab_size, config.embedding_size, padding_idx=config.pad_token_id)
        sizes = [self.side_by_side * config.embedding_size, *[2 * config.hidden_size] * (config.lstm_layers - 1)]
        self.forwards, self.backwards = (
            nn.ModuleList(Lstm(size, config.hidden_size) for size in sizes) for _ in range(2)
        )
        width = 2 * config.hidden_size * (4 if config.pairs or self.compares else 1)
        self.fully_connected = nn.Linear(width, config.fully_connected_size)
        self.dropout = nn.Dropout(config.dropout)
        self.classifier = nn.Linear(config.fully_connected_size, int(config.num_labels or 1))
        self.post_init()  # type: ignore[no-untyped-call]

    def answer(self, features: Tensor) -> Tensor:
        """Return the logits (…, outputs)."""
        hidden = self.dropout(self.fully_connected(features).relu())
        logits: Tensor = self.classifier(hidden)
        return logits

    def walked(self, states: Tensor, length: Tensor) -> tuple[Tensor, Tensor]:
        """Return the last layer's states (batch, tokens, hidden), the backward ones from the last token to the first.

        ``states`` are embeddings of texts that lie at the front.
        """
        start = torch.zeros_like(length)
        onward = back = states
        for number, (forwards, backwards) in enumerate(zip(self.forwards, self.backwards, strict=True)):
            if number:
                states = torch.cat([onward, taken(back, start, length, backwards=True)], dim=-1)
            states = self.dropout(states)
            onward = forwards(states.transpose(0, 1)).transpose(0, 1)
            back = backwards(taken(states, start, length, backwards=True).transpose(0, 1)).transpose(0, 1)
        return onward, back


class BiLstmForSequenceClassification(BiLstmModel, ReaderOfTexts):
    """Answers from the last states of both directions; of pairs each text is read by itself and the two compared."""

    def read(self, states: Tensor, length: Tensor) -> Tensor:
        """Return the last states of both directions (batch, 2 * hidden) of texts that lie at the front."""
        rows = torch.arange(length.shape[0], device=length.device)
        return torch.cat([side[rows, length - 1] for side in self.walked(states, length)], dim=-1)


class _OfBothSides(BiLstmModel):
    def read_tokens(self, states: Tensor, length: Tensor) -> Tensor:
        """Return the states of both directions (batch, tokens, 2 * hidden) at each token."""
        onward, back = self.walked(states, length)
        there = taken(back, torch.zeros_like(length), length, backwards=True)
        features: Tensor = self.dropout(torch.cat([onward, there], dim=-1))
        return features


class BiLstmForTokenClassification(_OfBothSides, ReaderOfTokens):
    """Answers for each token from the states of both directions there."""


class BiLstmForQuestionAnswering(_OfBothSides, ReaderOfSpans):
    """Answers for each token from the states of both directions there, compared with those of the question."""

    def __init__(self, config: BiLstmConfig) -> None:
        super().__init__(config)
        self.weighing(2 * config.hidden_size)


class BiLstmForSentenceVectors(ReaderForVectors, BiLstmForSequenceClassification):
    """Answers with one vector per text."""
