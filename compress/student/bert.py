"""A student of the teacher's family: fewer layers, narrower layers, started from the teacher where shapes allow."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from transformers import AutoModelForSequenceClassification, PreTrainedModel

from compress.errors import Fault
from compress.models.families import family_of
from compress.models.loading import content_of, load_config, load_model, quiet
from compress.settings import at_least
from compress.student.base import Reading, Student
from compress.student.layer_map import layer_map, layer_map_faults
from compress.student.start import NAMED, copy_weights, layers_of, model_faults, name_faults, where

ALL = "all"  # as many layers as the teacher


@dataclass(kw_only=True)
class Bert(Student):
    """A model of the teacher's family, BERT or its like: fewer layers, narrower layers."""

    layers: int | str | None = None  # how many, or all: as many as the teacher; default: half of them
    layer_map: Any = "uniform"  # teacher layers it starts from: uniform, skip, first, last, or a list as [2,4,6]
    hidden_size: int | None = None  # width; default: the teacher's
    heads: int | None = None  # attention heads a layer; default: the teacher's
    intermediate_size: int | None = None  # feed-forward units a layer; default: the teacher's
    start: str = "teacher"  # weights: teacher, pretrained (what it was fine-tuned from), random, or a folder or hub id

    def faults(self) -> Iterator[Fault]:
        """Sizes are at least 1 and the layer map is known."""
        if isinstance(self.layers, str) and self.layers != ALL:
            yield Fault("layers", self.layers, f"must be a whole number, or {ALL}")
        for name in ("layers", "hidden_size", "heads", "intermediate_size"):
            if not isinstance(getattr(self, name), str):
                yield from at_least(self, name, 1)
        if self.hidden_size and self.heads and self.hidden_size % self.heads:
            yield Fault("hidden_size", self.hidden_size, f"must be a multiple of student.heads = {self.heads}")
        yield from layer_map_faults("layer_map", self.layer_map)
        yield from name_faults(self.start)

    def teacher_faults(self, teacher: Any, fine_tuned: bool = True) -> Iterator[Fault]:
        """Yield sizes that do not fit the teacher's configuration, and weights that cannot be started from."""
        faults = list(self._size_faults(teacher))
        yield from faults
        if self.start == "pretrained" and not fine_tuned:
            rule = "is not known: the teacher has its head already and is not fine-tuned here"
            yield Fault("start", self.start, rule, "Name the folder or hub id of the pretrained model.")
        elif self.start not in NAMED and not faults and not any(self.faults()):
            yield from model_faults(self.start, self.layer_map, teacher, self.config(teacher))

    def _size_faults(self, teacher: Any) -> Iterator[Fault]:
        count, most = self._count(teacher), teacher.num_hidden_layers
        if count > most:
            yield Fault("layers", count, f"must be at most the teacher's {most}")
        else:
            try:
                layer_map(self.layer_map, count, most)
            except ValueError as error:
                yield Fault("layer_map", self.layer_map, str(error))
        width, heads = self.hidden_size or teacher.hidden_size, self.heads or teacher.num_attention_heads
        if width % heads:
            yield Fault("hidden_size", width, f"must be a multiple of the {heads} heads", "Set student.heads too.")

    def made_with(self) -> Any:
        """A model that weights start from counts by its content, not by its name."""
        return super().made_with() | {"start": self.start if self.start in NAMED else "model"}

    def started_from(self, pretrained: str | None) -> str | None:
        """Return the content of the model that weights start from, where that is not the teacher."""
        source = self._source(pretrained)
        return None if source is None else content_of(source, load_config(source))

    def _source(self, pretrained: str | None) -> str | None:
        return pretrained if self.start == "pretrained" else None if self.start in NAMED else where(self.start)

    def config(self, teacher: Any) -> Any:
        """Return the student's configuration; ``teacher`` is left as it was."""
        family = family_of(teacher)
        count = self._count(teacher)
        sizes = {
            family.layers_key: count,
            family.hidden_key: self.hidden_size or teacher.hidden_size,
            family.heads_key: self.heads or teacher.num_attention_heads,
            family.neurons_key: self.intermediate_size or getattr(teacher, family.neurons_key),
        }
        layers = layer_map(self.layer_map, count, teacher.num_hidden_layers)
        origin: dict[str, Any] = {"teacher_layers": list(layers)}
        for shape in ("kept_heads", "neurons"):
            if getattr(teacher, shape, None):
                origin[shape] = [getattr(teacher, shape)[layer - 1] for layer in layers]
        return type(teacher)(**(teacher.to_dict() | sizes | origin))

    def build(self, teacher: PreTrainedModel, reading: Reading | None = None) -> PreTrainedModel:
        """Return a new student; every tensor whose twin in the model that it starts from has its shape is that one's.

        A layer's twin is the mapped one; in a model other than the teacher that has as many layers as the student,
        the one in its place. A head is taken over only where it is for the same labels, in their order.
        """
        config = self.config(teacher.config)
        with quiet():
            student: PreTrainedModel = AutoModelForSequenceClassification.from_config(config)
        student.eval()
        source = self._source(None if reading is None else reading.pretrained)
        if self.start == "teacher":
            copy_weights(teacher, student, config.teacher_layers)
        elif source is not None:
            known, given = load_config(source), load_model(source, head={"num_labels": config.num_labels})
            mapped = self.start == "pretrained"
            layers = config.teacher_layers if mapped else layers_of(known, config, self.layer_map)
            copy_weights(given, student, layers, head=known.id2label == config.id2label)
        return student

    def _count(self, teacher: Any) -> int:
        if isinstance(self.layers, int):
            return self.layers
        return int(teacher.num_hidden_layers) if self.layers == ALL else max(1, int(teacher.num_hidden_layers) // 2)
