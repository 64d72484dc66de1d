"""A student of the teacher's family: fewer layers, narrower layers, started from the teacher where shapes allow."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from transformers import AutoModelForSequenceClassification, PreTrainedModel

from compress.errors import Fault
from compress.models.families import family_of
from compress.models.loading import quiet
from compress.settings import at_least
from compress.student.base import Reading, Student
from compress.student.layer_map import layer_map, layer_map_faults


@dataclass(kw_only=True)
class Bert(Student):
    """A model of the teacher's family, BERT or its like: fewer layers, narrower layers."""

    layers: int | None = None  # how many; default: half of the teacher's
    layer_map: Any = "uniform"  # teacher layers it starts from: uniform, skip, first, last, or a list as [2,4,6]
    hidden_size: int | None = None  # width; default: the teacher's
    heads: int | None = None  # attention heads a layer; default: the teacher's
    intermediate_size: int | None = None  # feed-forward units a layer; default: the teacher's
    copy_weights: bool = True  # start from the teacher's weights where shapes allow; else at random

    def faults(self) -> Iterator[Fault]:
        """Sizes are at least 1 and the layer map is known."""
        for name in ("layers", "hidden_size", "heads", "intermediate_size"):
            yield from at_least(self, name, 1)
        if self.hidden_size and self.heads and self.hidden_size % self.heads:
            yield Fault("hidden_size", self.hidden_size, f"must be a multiple of student.heads = {self.heads}")
        yield from layer_map_faults("layer_map", self.layer_map)

    def teacher_faults(self, teacher: Any) -> Iterator[Fault]:
        """Yield sizes that do not fit the teacher's configuration."""
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
        """Return a new student; every tensor whose mapped twin in the teacher has its shape starts from it."""
        family, config = family_of(teacher.config), self.config(teacher.config)
        with quiet():
            student: PreTrainedModel = AutoModelForSequenceClassification.from_config(config)
        if not self.copy_weights:
            student.eval()
            return student
        prefix = f"{family.base}.{family.layers}."
        weights = teacher.state_dict()
        own = student.state_dict()
        for name in own:
            twin = name
            if name.startswith(prefix):
                index, _, rest = name.removeprefix(prefix).partition(".")
                twin = f"{prefix}{config.teacher_layers[int(index)] - 1}.{rest}"
            if twin in weights and weights[twin].shape == own[name].shape:
                own[name] = weights[twin].clone()
        student.load_state_dict(own)
        student.eval()
        return student

    def _count(self, teacher: Any) -> int:
        return self.layers or max(1, int(teacher.num_hidden_layers) // 2)
