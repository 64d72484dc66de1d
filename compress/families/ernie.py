"""ERNIE (Sun et al., arXiv:1904.09223; 2.0: arXiv:1907.12412): BERT's layers, perhaps an embedding of the task."""

from __future__ import annotations

from dataclasses import replace

from torch import nn
from transformers import ErnieConfig, PreTrainedModel

from compress.families.base import SummedEmbeddings
from compress.families.bert import BertFamily
from compress.families.registry import register


class ErnieFamily(BertFamily):
    """ERNIE."""

    config_class = ErnieConfig
    encoder = "ernie"
    known_to_transformers_js = False

    def embeddings(self, model: PreTrainedModel) -> SummedEmbeddings:
        """Return the sum of words, positions and types; to each type the embedding of task 0, if any, is added."""
        summed = super().embeddings(model)
        tasks = getattr(self.embedders(model)[0], "task_type_embeddings", None)
        if not isinstance(tasks, nn.Embedding) or summed.types is None:
            return summed
        return replace(summed, types=summed.types + tasks.weight[0])


register(ErnieFamily())
