"""A classifier over a weighted mean of static embeddings, as a transformers model that saves and reloads."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from transformers import PretrainedConfig

from compress.models.segments import ReaderForVectors, ReaderOfTexts


class StaticConfig(PretrainedConfig):
    """Sizes of a static classifier; ``bigrams`` is the number of rows of the table of bigrams, 0 for none."""

    model_type = "compress_static"
    vocab_size: int = 30522
    embedding_size: int = 256
    bigrams: int = 0
    hidden_size: int = 256
    dropout: float = 0.1
    pairs: bool = False
    sep_token_id: int | None = None
    max_position_embeddings: int = 512


class StaticForSequenceClassification(ReaderOfTexts):
    """A weighted mean of the embeddings of a text's tokens and bigrams, a layer with ReLU, the output.

    Each token brings its own weight, and a bigram that of its second token. Which row of its table a bigram has is a
    hash of its two tokens (Joulin et al. 2016, arXiv:1607.01759), so that bigrams need no vocabulary.
    """

    config: StaticConfig
    config_class = StaticConfig
    base_model_prefix = "static"
    codes: Tensor

    def __init__(self, config: StaticConfig) -> None:
        super().__init__(config)
        size, width = config.embedding_size, config.hidden_size
        self.embeddings = nn.Embedding(config.vocab_size, size, padding_idx=config.pad_token_id)
        self.weights = nn.Embedding(config.vocab_size, 1)  # logarithms
        nn.init.zeros_(self.weights.weight)
        self.pairs_of_tokens = None
        if config.bigrams:
            self.pairs_of_tokens = nn.Embedding(config.bigrams, size)
            nn.init.zeros_(self.pairs_of_tokens.weight)  # a bigram that no training row has says nothing
            self.register_buffer("codes", torch.arange(1, config.vocab_size + 1))  # a token keeps its own for life
        self.hidden = nn.Linear(size * (4 if config.pairs else 1), width)
        self.dropout = nn.Dropout(config.dropout)
        self.classifier = nn.Linear(width, int(config.num_labels or 1))
        self.post_init()  # type: ignore[no-untyped-call]

    def states(self, ids: Tensor) -> Tensor:
        """Return (batch, tokens, width + 1) of token numbers: each token's weighted embedding, then its weight."""
        states, weights = self.embeddings(ids), self.weights(ids).exp()
        if self.pairs_of_tokens is not None:
            states = states + self.pairs_of_tokens(hashed(self.codes[ids], self.config.bigrams))
        return torch.cat([states * weights, weights], dim=-1)

    def keep_tokens(self, keep: Tensor) -> None:
        """Leave the weights and codes of these tokens, in this order."""
        with torch.no_grad():
            self.weights = nn.Embedding.from_pretrained(self.weights.weight[keep], freeze=False)
        if self.pairs_of_tokens is not None:
            self.codes = self.codes[keep]

    def read(self, states: Tensor, length: Tensor) -> Tensor:
        """Return the weighted mean (batch, width) of the states of texts that lie at the front."""
        real = torch.arange(states.shape[1], device=states.device)[None] < length[:, None]
        total = (states * real[:, :, None]).sum(1)
        return total[:, :-1] / total[:, -1:]

    def answer(self, features: Tensor) -> Tensor:
        """Return the logits (…, outputs)."""
        logits: Tensor = self.classifier(self.dropout(self.hidden(self.dropout(features)).relu()))
        return logits


class StaticForSentenceVectors(ReaderForVectors, StaticForSequenceClassification):
    """Answers with one vector per text."""


def hashed(codes: Tensor, rows: int) -> Tensor:
    """Return for each token of (batch, tokens) the row, below ``rows``, of the bigram that it ends.

    The first token is taken as the end of a bigram that begins with nothing.

    ``codes`` are numbers above 0 and below 2^31 that tell tokens from each other. The hash is a product with odd
    numbers, in whole numbers of 64 bits, which ONNX has too and which do not overflow here.
    """
    before = torch.cat([torch.zeros_like(codes[:, :1]), codes[:, :-1]], dim=1)
    return (before * 1_000_003 + codes * 8_191) % rows
