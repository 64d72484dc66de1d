"""The base of all students: an architecture, and the start of its weights."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import torch
from transformers import PreTrainedModel

from compress.data.dataset import Split
from compress.data.scripts import Segmentation
from compress.errors import Fault
from compress.families.registry import remarks
from compress.known import NOTHING, Known
from compress.models.auto import knows
from compress.models.ensemble import principal
from compress.models.loading import load_config, load_model, load_tokenizer, save_model
from compress.pipeline.model import Model
from compress.pipeline.plan import Plan
from compress.pipeline.record import Role
from compress.pipeline.stage import Stage
from compress.pipeline.state import State
from compress.pipeline.workshop import Kind
from compress.tasks.base import Task
from compress.train import same_randomness


@dataclass(frozen=True)
class Material:
    """What a student is built with besides the teacher: both tokenizers, whether rows are pairs, training texts."""

    teacher: Any
    student: Any
    pairs: bool
    pretrained: str | None = None  # the model that the teacher was fine-tuned from
    rows: Split | None = None  # the training rows


@dataclass(frozen=True)
class Origin:
    """What a student is built from."""

    key: Any  # what tells one from another
    tokenizer: Callable[[], Any]
    build: Callable[[Material], PreTrainedModel]


APART = {"own_tokens": True, "own_basis": True}
"""Noted in the configuration of a student whose weights are of another pretraining, with another tokenizer."""


@dataclass(kw_only=True)
class Student(Stage):
    """Create a smaller, untrained model."""

    role: ClassVar[Role] = Role.student
    trained: ClassVar[bool] = False  # it knows the task before it is distilled
    remedy: ClassVar[str] = "Choose student=saved with student.model=FOLDER."  # for a teacher that only answers

    @property
    def own_tokens(self) -> bool:
        """Whether the student tokenizes texts differently from the teacher."""
        return False

    @property
    def reads_texts(self) -> bool:
        """Whether the training texts decide what is built."""
        return self.own_tokens

    @property
    def needs_weights(self) -> bool:
        """Whether it has the teacher's tokenizer, or shapes or weights that are the teacher's."""
        return True

    def built_from(self, known: Known) -> Any:
        """Return the configuration that its own is made from: the teacher's, or what stands in for it."""
        if known.only_answers and known.task is not None:
            return self.stem(known.task)
        return known.teacher

    def stem(self, task: Task) -> Any:
        """Return what stands in for the configuration of a teacher that only answers; `needs_weights` says if any can.

        None for a student that needs none at all. Raises ModelError.
        """
        return None

    def origin(self, state: State) -> Origin:
        """Return what this is built from: the teacher's model, unless a student needs none."""
        teacher = state.given_teacher
        return Origin(
            teacher.key,
            partial(load_tokenizer, teacher.folder),
            lambda material: self.build(principal(load_model(teacher.folder)), material),
        )

    def faults(self, known: Known = NOTHING) -> Iterator[Fault]:
        """The teacher has what this is made from, and the student can answer the task's question."""
        if known.only_answers and self.needs_weights:
            rule = "is built from the teacher's model, and the teacher has no weights: it only answers"
            yield Fault("", None, rule, self.remedy)
        student, task = known.student, known.task
        if student is None or task is None:
            return
        if not knows(task.auto, type(student)):
            rule = f"has no {task.head}, which the task {task.name} needs"
            yield Fault("", student.model_type, rule, "Choose student=bert.")
        elif task.by_token and ((self.own_tokens and not self.trained) or getattr(student, "own_tokens", False)):
            rule = (
                f"does not share the teacher's tokens, and the task {task.name} needs an answer of both for every token"
            )
            yield Fault("", student.model_type, rule, "Choose a student with the teacher's tokens.")

    def config(self, teacher: Any) -> Any:
        """Return the student's configuration; ``teacher``, a configuration, is not changed."""
        raise NotImplementedError

    def tokenizer(self, teacher: Any, texts: Split, words: Segmentation = Segmentation.letters) -> Any:
        """Return the student's tokenizer: the teacher's, or one made from training texts.

        ``words`` says what is a word of them where no space divides words.
        """
        return teacher

    def started_from(self, pretrained: str | None) -> str | None:
        """Return what identifies the version of a model, other than the teacher, that weights start from."""
        return None

    def build(self, teacher: PreTrainedModel, material: Material | None = None) -> PreTrainedModel:
        """Return a new student in evaluation mode, with random weights or the teacher's."""
        raise NotImplementedError

    def plan(self, plan: Plan) -> Plan:
        """From here on the student's tokens count, and what is trained is the student."""
        stem = self.stem(plan.data.task) if plan.teacher is None else plan.teacher
        tokenizer = self.tokenizer(plan.teacher_tokenizer, plan.data.train, plan.data.words)
        config = self.config(stem)
        if self.own_tokens and not self.trained:  # a small corpus may not have as many pieces as are asked for
            config.vocab_size, config.pad_token_id = len(tokenizer), tokenizer.pad_token_id
        return replace(plan, student=config, tokenizer=tokenizer)

    def notes(self) -> tuple[str, ...]:
        """Return notes about this architecture for the report; the first stage that trains it adds them."""
        return ()

    def __call__(self, state: State) -> State:
        """Return the state with an untrained student."""
        origin = self.origin(state)
        made_with = [self.made_with(), origin.key, state.data.pairs, state.seed]
        made_with.append(self.started_from(state.pretrained))

        def work(folder: Path) -> None:
            theirs = origin.tokenizer()
            with same_randomness():
                torch.manual_seed(state.seed)
                ours = self.tokenizer(theirs, state.data.train, state.data.words)
                material = Material(theirs, ours, state.data.pairs, state.pretrained, state.data.train)
                student = origin.build(material)
            save_model(student, ours, folder)

        if self.reads_texts:
            made_with += [state.data.train.fingerprint, *state.data.words.key]
        product = state.workshop.make(Kind("student", revision=3), made_with, work)
        student = Model.of(product)
        return replace(state, student=student, notes=(*self.notes(), *remarks(load_config(student.folder))))
