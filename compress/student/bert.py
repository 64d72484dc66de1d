"""A student of the teacher's family: fewer layers, narrower layers, started from the teacher where shapes allow."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from transformers import AutoModelForSequenceClassification, PreTrainedModel

from compress.errors import Fault, ModelError
from compress.models.families import UNEVEN, family_of, layer_count
from compress.models.loading import content_of, load_config, load_model, quiet
from compress.settings import at_least
from compress.student.base import Reading, Student
from compress.student.layer_map import layer_map, layer_map_faults

NAMED_STARTS = ("teacher", "pretrained", "random")


@dataclass(kw_only=True)
class Bert(Student):
    """A model of the teacher's family, BERT or its like: fewer layers, narrower layers."""

    layers: int | None = None  # how many; default: half of the teacher's
    layer_map: Any = "uniform"  # teacher layers it starts from: uniform, skip, first, last, or a list as [2,4,6]
    hidden_size: int | None = None  # width; default: the teacher's
    heads: int | None = None  # attention heads a layer; default: the teacher's
    intermediate_size: int | None = None  # feed-forward units a layer; default: the teacher's
    start: str = (
        "teacher"  # weights, where shapes allow: teacher, pretrained (what it was fine-tuned from), random, or a model
    )

    def faults(self) -> Iterator[Fault]:
        """Sizes are at least 1 and the layer map is known."""
        for name in ("layers", "hidden_size", "heads", "intermediate_size"):
            yield from at_least(self, name, 1)
        if self.hidden_size and self.heads and self.hidden_size % self.heads:
            yield Fault("hidden_size", self.hidden_size, f"must be a multiple of student.heads = {self.heads}")
        yield from layer_map_faults("layer_map", self.layer_map)

    def teacher_faults(self, teacher: Any, fine_tuned: bool = True) -> Iterator[Fault]:
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
        if self.start == "pretrained" and not fine_tuned:
            rule = "is not known: the teacher has its head already and is not fine-tuned here"
            yield Fault("start", self.start, rule, "Name the folder or hub id of the pretrained model.")
        elif self.start not in NAMED_STARTS:
            try:
                kind = load_config(self.start).model_type
            except ModelError as error:
                yield Fault("start", self.start, str(error), f"Or use one of {', '.join(NAMED_STARTS)}.")
                return
            if kind.removeprefix(UNEVEN) != teacher.model_type.removeprefix(UNEVEN):
                yield Fault("start", self.start, f"is a {kind} where the teacher is a {teacher.model_type}")

    def started_from(self, pretrained: str | None) -> str | None:
        """Return the content of the model that weights start from, where that is not the teacher."""
        source = self._source(pretrained)
        return None if source is None else content_of(source, load_config(source))

    def _source(self, pretrained: str | None) -> str | None:
        return pretrained if self.start == "pretrained" else None if self.start in NAMED_STARTS else self.start

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

        A layer's twin is the mapped one, or, where both have as many layers, the one in its place.
        """
        family, config = family_of(teacher.config), self.config(teacher.config)
        with quiet():
            student: PreTrainedModel = AutoModelForSequenceClassification.from_config(config)
        student.eval()
        if self.start == "random":
            return student
        source = self._source(None if reading is None else reading.pretrained)
        given = teacher if source is None else load_model(source, head={"num_labels": config.num_labels})
        mapped = config.teacher_layers
        if source is not None and layer_count(given.config) != layer_count(teacher.config):
            mapped = range(1, layer_count(given.config) + 1)
        prefix = f"{family.base}.{family.layers}."
        weights = given.state_dict()
        own = student.state_dict()
        for name in own:
            twin = name
            if name.startswith(prefix):
                index, _, rest = name.removeprefix(prefix).partition(".")
                twin = f"{prefix}{mapped[int(index)] - 1}.{rest}" if int(index) < len(mapped) else ""
            if twin in weights and weights[twin].shape == own[name].shape:
                own[name] = weights[twin].clone()
        student.load_state_dict(own)
        return student

    def _count(self, teacher: Any) -> int:
        return self.layers or max(1, int(teacher.num_hidden_layers) // 2)
