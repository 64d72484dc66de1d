"""What the small students share: embeddings, the two texts of a row told apart, sequences read from either end."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.modeling_outputs import (
    QuestionAnsweringModelOutput,
    SequenceClassifierOutput,
    TokenClassifierOutput,
)


class OfEmbeddings(PreTrainedModel):
    """A small network over word embeddings."""

    embeddings: nn.Embedding
    side_by_side: ClassVar[int] = 1  # vectors of an embedding's width that are read of each token
    compares: ClassVar[bool] = False  # whether answers are read from two representations even without pairs

    def answer(self, features: Tensor) -> Tensor:
        """Features (…, features) of a text, of two compared, or of a token, to logits (…, outputs)."""
        raise NotImplementedError

    def states(self, ids: Tensor) -> Tensor:
        """Token numbers (batch, tokens) to what is read of them (batch, tokens, width): their embeddings."""
        states: Tensor = self.embeddings(ids)
        return states

    def keep_tokens(self, keep: Tensor) -> None:
        """Leave what there is for each of these tokens, in this order, beside the embeddings: here nothing."""

    def get_input_embeddings(self) -> nn.Module:
        """Return the word embeddings."""
        return self.embeddings

    def set_input_embeddings(self, value: nn.Module) -> None:
        """Replace the word embeddings."""
        assert isinstance(value, nn.Embedding)
        self.embeddings = value

    def _init_weights(self, module: nn.Module) -> None:
        """Leave every part as PyTorch starts it."""


class ReaderOfTexts(OfEmbeddings):
    """A classifier that reads each text of a row by itself and compares the two of a pair.

    Its configuration has ``pairs`` and ``sep_token_id``. Padding is never read.
    """

    def read(self, states: Tensor, length: Tensor) -> Tensor:
        """States (batch, tokens, width) of texts that lie at the front, and their lengths, to (batch, features)."""
        raise NotImplementedError

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        labels: Tensor | None = None,
        **_: Any,
    ) -> SequenceClassifierOutput:
        """Token numbers (batch, tokens) to logits (batch, outputs)."""
        mask = torch.ones_like(input_ids) if attention_mask is None else attention_mask
        states = self.states(input_ids)
        separator = -1 if self.config.sep_token_id is None else self.config.sep_token_id
        parts = segments(input_ids, mask, token_type_ids, separator, self.config.pairs)
        texts = [self.read(taken(states, start, length), length) for start, length in parts]
        logits = self.answer(compared(texts))
        return SequenceClassifierOutput(loss=classification_loss(logits, labels, self.config), logits=logits)


class ReaderOfTokens(OfEmbeddings):
    """A tagger that reads a row from its first token to its last. Padding, which follows it, is never read."""

    def read_tokens(self, states: Tensor, length: Tensor) -> Tensor:
        """Embeddings (batch, tokens, width) of rows that lie at the front, and their lengths, to features by token."""
        raise NotImplementedError

    def forward(
        self, input_ids: Tensor, attention_mask: Tensor | None = None, labels: Tensor | None = None, **_: Any
    ) -> TokenClassifierOutput:
        """Token numbers (batch, tokens) to logits (batch, tokens, outputs)."""
        mask = torch.ones_like(input_ids) if attention_mask is None else attention_mask
        logits = self.answer(self.read_tokens(self.states(input_ids), mask.sum(1).clamp(min=1)))
        loss = None if labels is None else nn.functional.cross_entropy(logits.flatten(0, 1), labels.flatten())
        return TokenClassifierOutput(loss=loss, logits=logits)


class ReaderOfSpans(OfEmbeddings):
    """A reader of a question and a context, after DrQA's document reader (Chen et al., arXiv:1704.00051).

    Beside its embedding each token has the question's, aligned with it: their mean, weighted by the softmax of scaled
    dot products. What is read of a token is compared with the question's own: the mean over its tokens with learned
    weights. Padding is never read. The paper projects embeddings before it aligns them, reads the question by itself,
    and has a bilinear form in place of the comparison.
    """

    side_by_side = 2
    compares = True

    def read_tokens(self, states: Tensor, length: Tensor) -> Tensor:
        """Vectors (batch, tokens, 2 * width) of rows that lie at the front, and their lengths, to features by token."""
        raise NotImplementedError

    def weighing(self, features: int) -> None:
        """Make what weighs a question's tokens by their features."""
        self.weight_in_question = nn.Linear(features, 1)

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        start_positions: Tensor | None = None,
        end_positions: Tensor | None = None,
        **_: Any,
    ) -> QuestionAnsweringModelOutput:
        """Token numbers (batch, tokens) to logits of starts and of ends (batch, tokens)."""
        mask = torch.ones_like(input_ids) if attention_mask is None else attention_mask
        separator = -1 if self.config.sep_token_id is None else self.config.sep_token_id
        asked = segments(input_ids, mask, token_type_ids, separator, pairs=True)[0][1]
        of_question = torch.arange(input_ids.shape[1], device=input_ids.device)[None] < asked[:, None]
        states = self.states(input_ids)
        features = self.read_tokens(torch.cat([states, aligned(states, of_question)], dim=-1), mask.sum(1).clamp(min=1))
        weights = self.weight_in_question(features)[..., 0].masked_fill(~of_question, -torch.inf).softmax(-1)
        question = weights[:, None] @ features
        start, end = self.answer(compared([features, question.expand_as(features)])).unbind(-1)
        loss = None
        if start_positions is not None and end_positions is not None:
            sides = ((start, start_positions), (end, end_positions))
            loss = torch.stack([nn.functional.cross_entropy(*side) for side in sides]).mean()
        return QuestionAnsweringModelOutput(loss=loss, start_logits=start, end_logits=end)


def aligned(states: Tensor, of_question: Tensor) -> Tensor:
    """Return the question's embeddings aligned with each token (batch, tokens, width).

    ``states`` are embeddings (batch, tokens, width); ``of_question`` (batch, tokens) says which are the question's.
    """
    scores = states @ states.transpose(1, 2) * states.shape[-1] ** -0.5
    shares: Tensor = scores.masked_fill(~of_question[:, None], -torch.inf).softmax(-1)
    return shares @ states


def segments(
    ids: Tensor, mask: Tensor, types: Tensor | None, separator: int, pairs: bool
) -> list[tuple[Tensor, Tensor]]:
    """Return (start, length), each (batch,), of the texts of each row: one, or two where rows are pairs.

    The first text ends with the first separator. Where the model has token types (batch, tokens), the second
    text is what has type 1; else it is what comes after. A text has at least length 1.
    """
    whole = mask.sum(1)
    if not pairs:
        return [(torch.zeros_like(whole), whole.clamp(min=1))]
    if types is not None:
        second = (types * mask).sum(1)
    else:
        ended = ((ids == separator) & mask.bool()).cumsum(1)
        first = (mask.bool() & ((ended == 0) | ((ended == 1) & (ids == separator)))).sum(1)
        second = whole - first
    first = whole - second
    return [(torch.zeros_like(whole), first.clamp(min=1)), (first, second.clamp(min=1))]


def taken(states: Tensor, start: Tensor, length: Tensor, *, backwards: bool = False) -> Tensor:
    """Return each row's part (batch, tokens, width), moved to the front, first to last or last to first.

    What lies behind a part is arbitrary.
    """
    steps = torch.arange(states.shape[1], device=states.device)[None]
    steps = torch.minimum(steps, length[:, None] - 1)
    places = start[:, None] + (length[:, None] - 1 - steps if backwards else steps)
    places = places.clamp(max=states.shape[1] - 1)
    return states.gather(1, places[:, :, None].expand(-1, -1, states.shape[2]))


def compared(texts: list[Tensor]) -> Tensor:
    """Return one text's representation, or of two [a, b, a * b, |a - b|] (Tang et al., arXiv:1903.12136)."""
    if len(texts) == 1:
        return texts[0]
    a, b = texts
    return torch.cat([a, b, a * b, (a - b).abs()], dim=-1)


def classification_loss(logits: Tensor, labels: Tensor | None, config: Any) -> Tensor | None:
    """Return cross-entropy, of each label for itself where rows may have several, or squared error of scores.

    As transformers' heads do; None without labels.
    """
    if labels is None:
        return None
    if config.problem_type == "regression":
        return nn.functional.mse_loss(logits[:, 0], labels.to(logits.dtype))
    if config.problem_type == "multi_label_classification":
        return nn.functional.binary_cross_entropy_with_logits(logits, labels.to(logits.dtype))
    return nn.functional.cross_entropy(logits, labels)


class ReaderForVectors(ReaderOfTexts):
    """A reader of single texts whose answer is a vector, of length 1 where its configuration says so."""

    def answer(self, features: Tensor) -> Tensor:
        """Return the vector (batch, width) of each text."""
        vectors = super().answer(features)
        normalized = getattr(self.config, "vector_normalized", True)
        return nn.functional.normalize(vectors, dim=-1) if normalized else vectors
