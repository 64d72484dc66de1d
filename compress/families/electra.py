"""ELECTRA (Clark et al., arXiv:2003.10555): BERT's layers; embeddings may be narrower than states and projected."""

from __future__ import annotations

from typing import Any

from torch import nn
from transformers import ElectraConfig, PreTrainedModel

from compress.families.base import LanguageHeadNames, SummedEmbeddings, has_submodule, summed
from compress.families.bert import BertFamily
from compress.families.registry import register


class ElectraFamily(BertFamily):
    """ELECTRA, its discriminators and generators."""

    config_class = ElectraConfig
    encoder = "electra"
    reads_first_token_with_tanh = False  # gelu

    def embedders(self, model: PreTrainedModel) -> list[nn.Module]:
        """Return the embeddings, and their projection where there is one."""
        project = self._project(model)
        return super().embedders(model) + ([] if project is None else [project])

    def embeddings(self, model: PreTrainedModel) -> SummedEmbeddings:
        """Return the sum of words, positions and types, with its projection."""
        return summed(self.embedders(model)[0], self._project(model))

    def _project(self, model: PreTrainedModel) -> nn.Linear | None:
        project: nn.Linear | None = getattr(model.base_model, "embeddings_project", None)
        return project

    def head(self, model: nn.Module) -> tuple[str, str] | None:
        """Return the two layers of the head."""
        return ("classifier.dense", "classifier.out_proj") if has_submodule(model, "classifier.dense") else None

    def narrowed(self, model: PreTrainedModel) -> dict[str, Any]:
        """Return the embeddings' own width, and whether they are projected: transformers compares widths to know."""
        projected = self._project(model) is not None
        return {"embedding_size": summed(self.embedders(model)[0]).words.shape[1], "embeddings_projected": projected}

    def widen(self, model: PreTrainedModel, config: Any) -> None:
        """Project embeddings whose width the states happen to have, too."""
        super().widen(model, config)
        if config.embeddings_projected:
            model.base_model.embeddings_project = nn.Linear(config.embedding_size, config.hidden_size)

    def language_head(self) -> LanguageHeadNames | None:
        """Return the generator's two parts before the decoder."""
        return LanguageHeadNames("generator_predictions.dense", "generator_predictions.LayerNorm")

    def language_activation(self, config: Any) -> str:
        """Return gelu, whatever the encoder's activation."""
        return "gelu"


register(ElectraFamily())
