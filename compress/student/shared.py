"""A student whose layers share weights, as ALBERT's do: a small file, not a faster model."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

from compress.errors import Fault
from compress.families.forms.shared import FactorisedEmbedding, SharedForm, shared_parts
from compress.families.language_head import embedding_width, word_embeddings
from compress.families.registry import FAMILIES, family_of, known_family
from compress.known import NOTHING, Known
from compress.models.auto import from_config
from compress.models.loading import quiet
from compress.models.low_rank import low_rank
from compress.settings import at_least
from compress.student.base import Material
from compress.student.layer_map import depth_faults, layer_map, layer_map_faults
from compress.student.stand_in import BuiltFromModel


class Share(Enum):
    """What all layers have in common."""

    all = "all"
    attention = "attention"
    feed_forward = "feed_forward"


class LayerStart(Enum):
    """first: the first mapped layer of the teacher; mean: the mean of all mapped layers."""

    first = "first"
    mean = "mean"


@dataclass(kw_only=True)
class Shared(BuiltFromModel):
    """Layers that share weights, factorised word embeddings (ALBERT, arXiv:1909.11942): smaller, not faster."""

    share: Share = Share.all  # what all layers share: all, attention or feed_forward
    layers: int | None = None  # how often the shared layer is applied; default: the teacher's layers
    layer_map: Any = "uniform"  # which teacher layers they start from: uniform, first, last, or a list as [2,4,6]
    start: LayerStart = LayerStart.first  # what is shared starts from the first of those layers, or from their mean
    embedding_size: int | None = None  # rank of word embeddings; default: a third of the width, 0: not factorised

    def faults(self, known: Known = NOTHING) -> Iterator[Fault]:
        """Sizes are sizes and fit the teacher, and the layer map is known."""
        yield from at_least(self, "layers", 1)
        yield from at_least(self, "embedding_size", 0)
        yield from layer_map_faults("layer_map", self.layer_map)
        yield from super().faults(known)

    def against(self, teacher: Any) -> Iterator[Fault]:
        """Sizes fit the model that this is built from, and its family is known."""
        if getattr(teacher, "kept_heads", None) or not _shares(teacher):
            rule = f"cannot start from a teacher of type {teacher.model_type}"
            remedy = f"Name an unpruned teacher of a type in {', '.join(_sharing())}."
            yield Fault("share", self.share.value, rule, remedy)
            return
        count, most = self.layers or teacher.num_hidden_layers, teacher.num_hidden_layers
        yield from depth_faults(self.layer_map, count, most)
        width = embedding_width(teacher)
        if (self.embedding_size or 0) >= width:
            rule = f"must be below the teacher's {width}; a product of that rank saves nothing"
            yield Fault("embedding_size", self.embedding_size, rule, "0 leaves word embeddings as they are.")

    def notes(self) -> tuple[str, ...]:
        """Say what sharing does not give."""
        return (
            "layers share weights: parameters and file shrink, latency does not, since every layer is still computed",
        )

    def config(self, teacher: Any) -> Any:
        """Return the student's configuration, of the family's own type where that has such layers."""
        family, rank = family_of(teacher), self._rank(teacher)
        count = self.layers or teacher.num_hidden_layers
        layers = {"teacher_layers": list(layer_map(self.layer_map, count, teacher.num_hidden_layers))}
        settings = teacher.to_dict() | layers
        settings.pop("model_type")
        own = family.sharing(count) if self.share is Share.all and not rank else None
        if own is not None:
            return family.config_class(**settings | own)
        form = {"share": self.share.value, "word_embedding_size": rank}
        return SharedForm.config_of(family)(**settings | family.sizes(layers=count) | form)

    def build(self, teacher: PreTrainedModel, material: Material | None = None) -> PreTrainedModel:
        """Return a new student; what its layers share starts as ``start`` says, all else from the teacher's twin.

        Factorised word embeddings start from the truncated singular value decomposition of the teacher's.
        """
        config, family = self.config(teacher.config), family_of(teacher.config)
        with quiet():
            student = from_config(config)
        shared = shared_parts(family, self.share.value)
        mapped = [layer - 1 for layer in config.teacher_layers]
        weights, own = family.by_layer(teacher.config, teacher.state_dict()), student.state_dict()
        for name in own:
            place = family.place(name)
            if place is not None and place[1].partition(".")[0] in shared:
                own[name] = self._start([weights[family.moved(name, layer)] for layer in mapped])
            elif place is not None:
                own[name] = weights[family.moved(name, mapped[place[0]])].clone()
            elif name in weights:
                own[name] = weights[name].clone()
        if getattr(config, "word_embedding_size", 0):
            left, right = low_rank(word_embeddings(teacher).detach(), config.word_embedding_size)
            words = next(name for name, part in student.named_modules() if isinstance(part, FactorisedEmbedding))
            own[f"{words}.table.weight"], own[f"{words}.project.weight"] = left, right.T.contiguous()
        student.load_state_dict(own)
        student.eval()
        return student

    def _start(self, layers: list[Tensor]) -> Tensor:
        return layers[0].clone() if self.start is LayerStart.first else torch.stack(layers).mean(0)

    def _rank(self, teacher: Any) -> int:
        """Return the rank of the word embeddings; an ELECTRA's that are factorised already stay as they are."""
        if self.embedding_size is not None:
            return self.embedding_size
        width = embedding_width(teacher)
        return max(8 * round(width / 24), 1) if width == teacher.hidden_size and width > 1 else 0


def _shares(teacher: Any) -> bool:
    family = known_family(teacher)
    return family is not None and family.shares_layers


def _sharing() -> list[str]:
    return [name for name, family in FAMILIES.items() if family.shares_layers]
