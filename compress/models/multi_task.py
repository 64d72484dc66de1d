"""One encoder with a head for each of several tasks, as a transformers model that saves and reloads.

The student of a multi-task distillation (BAM, Clark et al., arXiv:1907.04829). One head answers at a time:
``AutoModelForSequenceClassification.from_pretrained(folder, task="rte")`` takes that task's. Heads may be of several
kinds, as one for texts and one for the words of a text.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import transformers
from torch import Tensor, nn
from transformers import AutoConfig, PretrainedConfig, PreTrainedModel

from compress.families.registry import Principal
from compress.models.quiet import quiet
from compress.tasks.heads import HEAD, TUNED
from compress.tasks.sentence_vectors import AutoModelForSentenceVectors

AUTO_CLASS = "auto_class"
"""Entry of a head with the name of the ``Auto`` class that builds it; the usual one: `CLASSIFIER`."""
CLASSIFIER = "AutoModelForSequenceClassification"
SIZE = "num_labels"
"""Entry of a head whose outputs have no names."""


class MultiTaskConfig(Principal, PretrainedConfig):
    """The student's configuration without a head, the heads' by task, and the task whose head answers.

    The entries of `HEAD` and ``num_labels`` are those of ``task``. Setting it to a task without a head raises
    ValueError.
    """

    model_type = "compress_multi_task"
    student: dict[str, Any] | None = None
    heads: dict[str, dict[str, Any]] | None = None
    task: str | None = None

    def __setattr__(self, name: str, value: Any) -> None:
        if name == "task" and value is not None:
            heads = self.heads or {}
            if value not in heads:
                raise ValueError(f"task = {value!r}: this model has heads for {', '.join(sorted(heads))}")
            left = {key: None for key in HEAD if getattr(self, key, None) is not None}  # of the head before
            for key, entry in (left | _head(heads[value])).items():
                super().__setattr__(key, entry)  # type: ignore[no-untyped-call]
        super().__setattr__(name, value)  # type: ignore[no-untyped-call]

    def classifier(self, task: str) -> Any:
        """Return the configuration of one task's model."""
        settings = dict(self.student or {}) | _head((self.heads or {})[task])
        return AutoConfig.for_model(settings.pop("model_type"), **settings)

    def auto(self, task: str) -> Any:
        """Return the ``Auto`` class that builds one task's model."""
        return auto_named((self.heads or {})[task].get(AUTO_CLASS, CLASSIFIER))

    @property
    def principal(self) -> Any:
        """The configuration of the answering task's classifier."""
        return self.classifier(str(self.task))

    @property
    def max_position_embeddings(self) -> int:
        """Positions of the encoder."""
        return int(self.principal.max_position_embeddings)


class MultiTaskForSequenceClassification(PreTrainedModel):
    """A stock model for each task, all with the same encoder.

    The encoder is a module of this model, under the name that a classifier has for it (``bert``, …); the
    classifiers in ``heads`` use it without holding it, so that its weights are there once.
    """

    config: MultiTaskConfig
    config_class = MultiTaskConfig
    _supports_sdpa = True

    def __init__(self, config: MultiTaskConfig) -> None:
        super().__init__(config)
        self.heads = nn.ModuleDict()
        self.encoder_name = ""
        made = {task: config.auto(task).from_config(config.classifier(task)) for task in config.heads or {}}
        if made:  # a model for words may have less of an encoder, without a pooler
            whole = max(made.values(), key=lambda model: sum(part.numel() for part in model.base_model.parameters()))
            self.encoder_name = whole.base_model_prefix
            setattr(self, self.encoder_name, whole.base_model)
        for task, classifier in made.items():
            del classifier._modules[self.encoder_name]
            classifier.__dict__[self.encoder_name] = self.encoder  # an attribute, not a module of the classifier's
            self.heads[_key(task)] = classifier
        self.post_init()  # type: ignore[no-untyped-call]

    @classmethod
    def _can_set_attn_implementation(cls) -> bool:
        return True  # of the encoder, which asks transformers for its attention

    @property
    def encoder(self) -> PreTrainedModel:
        """What all tasks share."""
        found = self.get_submodule(self.encoder_name)
        assert isinstance(found, PreTrainedModel)
        return found

    def head(self, task: str) -> PreTrainedModel:
        """Return the classifier of a task: it answers with the shared encoder, but holds only its own weights."""
        found = self.heads[_key(task)]
        assert isinstance(found, PreTrainedModel)
        return found

    @contextmanager
    def answering(self, task: str) -> Iterator[None]:
        """Let a task's head answer for a while."""
        before, self.config.task = self.config.task, task
        try:
            yield
        finally:
            self.config.task = before

    def keep_head(self) -> None:
        """Keep the entries of the answering task's head as they are now, as after its thresholds were tuned."""
        task, heads = str(self.config.task), dict(self.config.heads or {})
        tuned = {name: entry for name in TUNED if (entry := getattr(self.config, name, None)) is not None}
        self.config.heads = heads | {task: heads[task] | tuned}

    def forward(self, input_ids: Tensor, attention_mask: Tensor | None = None, **inputs: Any) -> Any:
        """Return what the classifier of ``config.task`` says, logits (batch, outputs) of that task."""
        return self.head(str(self.config.task))(input_ids=input_ids, attention_mask=attention_mask, **inputs)


def auto_named(name: str) -> Any:
    """Return the ``Auto`` class of this name, transformers' or of sentence vectors; None where there is none."""
    own = {AutoModelForSentenceVectors.__name__: AutoModelForSentenceVectors}
    return own.get(name) or getattr(transformers, name, None)


def config_with_heads(student: Any, heads: Mapping[str, Mapping[str, Any]], task: str) -> MultiTaskConfig:
    """Return the configuration of a student, given as one, with these heads; see `with_heads`."""
    body = {name: value for name, value in student.to_dict().items() if name not in HEAD}
    kept = (*HEAD, AUTO_CLASS, SIZE)
    made = {name: {key: head[key] for key in kept if key in head} for name, head in heads.items()}
    return MultiTaskConfig(student=body, heads=made, task=task)


def with_heads(
    student: PreTrainedModel, heads: Mapping[str, Mapping[str, Any]], task: str
) -> MultiTaskForSequenceClassification:
    """Return a model with the student's encoder and a head for each task; ``student`` is left as it was.

    ``heads`` gives the entries of a configuration that make each head, and `AUTO_CLASS`; ``task`` names the student's
    own, whose weights are kept. The others start at random, and so does a pooler that only they need.
    """
    with quiet():
        model = MultiTaskForSequenceClassification(config_with_heads(student.config, heads, task))
    prefix = f"{model.encoder_name}."
    weights = student.state_dict()
    model.encoder.load_state_dict(model.encoder.state_dict() | student.base_model.state_dict())
    model.head(task).load_state_dict({k: value for k, value in weights.items() if not k.startswith(prefix)})
    model.train(False)
    return model


def classifier_of(model: MultiTaskForSequenceClassification, task: str) -> PreTrainedModel:
    """Return one task's model with a copy of the encoder, as a stock model of the student's family."""
    with quiet():
        alone: PreTrainedModel = model.config.auto(task).from_config(model.config.classifier(task))
    shared = {f"{model.encoder_name}.{name}": value for name, value in model.encoder.state_dict().items()}
    needed = alone.state_dict().keys()  # perhaps not the pooler
    alone.load_state_dict({name: own for name, own in shared.items() if name in needed} | model.head(task).state_dict())
    alone.eval()
    return alone


def _key(task: str) -> str:
    """Return a name that no attribute of a module dictionary has."""
    return f"{task}_head"


def _head(entries: Mapping[str, Any]) -> dict[str, Any]:
    """Return a head's entries with numbers as keys, which JSON makes text, and a name for every output."""
    unnamed = {number: f"LABEL_{number}" for number in range(entries.get(SIZE, 0))}
    labels = {int(number): label for number, label in (entries.get("id2label") or unnamed).items()}
    return {name: entry for name, entry in entries.items() if name not in (AUTO_CLASS, SIZE)} | {"id2label": labels}
