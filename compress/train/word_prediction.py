"""Masked language modelling by itself: hidden words are predicted from an encoder's states."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from compress.families.language_head import LanguageHead, word_embeddings
from compress.models.outputs import INPUTS
from compress.tasks.functions import hard_label_loss
from compress.train.masking import HIDDEN, Masking
from compress.train.objective import Objective, Whole


class WordPrediction(Objective):
    """An encoder and its head learn masked language modelling; or the ``head_alone`` does, on the encoder's states."""

    def __init__(
        self, encoder: PreTrainedModel, head: LanguageHead, masking: Masking, *, head_alone: bool = False
    ) -> None:
        super().__init__()
        self.frozen = (encoder,)  # in a tuple: no part of this module, not trained, not saved
        self.encoder = None if head_alone else encoder
        self.head, self.masking = head, masking

    @property
    def trained(self) -> PreTrainedModel:
        """The encoder that the head belongs to."""
        return self.frozen[0]

    @property
    def indivisible(self) -> str:
        """Empty: tokens are predicted one by one."""
        return ""

    def sizes(self, batch: Mapping[str, Tensor], progress: float) -> Mapping[str, int]:
        """Return the number of hidden tokens."""
        return {"masked_lm": int((self.masking(batch, progress)[1] != HIDDEN).sum())}

    def forward(
        self, batch: Mapping[str, Tensor], progress: float, whole: Whole | None = None
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Return cross-entropy of the hidden tokens."""
        ids, labels = self.masking(batch, progress)
        if self.encoder is None:
            (encoder,) = self.frozen
            with torch.no_grad(), torch.autocast(ids.device.type, enabled=False):
                states = states_of(encoder, batch, ids)
            embeddings = word_embeddings(encoder).detach()
        else:
            states, embeddings = states_of(self.encoder, batch, ids), word_embeddings(self.encoder)
        chosen = labels != HIDDEN
        loss = hard_label_loss(self.head(states[chosen], embeddings), labels[chosen])
        if whole is not None:
            loss = loss * whole.share("masked_lm", int(chosen.sum()))
        return loss, {"masked_lm": loss}


def encoder_of(model: PreTrainedModel) -> PreTrainedModel:
    """Return the encoder of a model with a head."""
    encoder = model.base_model
    assert isinstance(encoder, PreTrainedModel)
    return encoder


def states_of(encoder: nn.Module, batch: Mapping[str, Tensor], ids: Tensor) -> Tensor:
    """Return an encoder's last hidden states (batch, tokens, hidden) for a batch with other ``ids``."""
    inputs = {name: batch[name] for name in INPUTS if name in batch}
    states: Tensor = encoder(**(inputs | {"input_ids": ids})).last_hidden_state
    return states
