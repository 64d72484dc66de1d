"""Module replacement: the teacher's layers are replaced, one run at a time, by the student's (BERT-of-Theseus)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from compress.errors import Fault
from compress.families.registry import family_of, known_family, layer_count, layers_share_weights, type_in_words
from compress.known import NEEDS_WEIGHTS, NOTHING, Known
from compress.models.device import device
from compress.models.ensemble import principal
from compress.models.evaluate import main_metric
from compress.models.loading import load_model, load_tokenizer, parameter_shapes, save_model
from compress.models.outputs import observe
from compress.models.tokens import Tokens, tokenize
from compress.pipeline.plan import Plan, Rehearsal
from compress.pipeline.state import State
from compress.pipeline.workshop import SCRATCH, Kind
from compress.settings import between
from compress.tasks.base import Task
from compress.train import Objective, Training, Whole, fit, freeze_faults, planned


@dataclass(kw_only=True)
class Theseus(Training):
    """Replace runs of the teacher's layers by the student's at random (BERT-of-Theseus, arXiv:2002.02925)."""

    rate: float = 0.5  # probability of a replacement at the start: b in p = min(1, k t + b)
    rate_end: float = 1.0  # at the share of training that `full_at` says; the same as rate: constant
    full_at: float = 0.5  # share of training after which the probability stays at rate_end

    def faults(self, known: Known = NOTHING) -> Iterator[Fault]:
        """Rates are probabilities, and the student's layers have their places among the teacher's."""
        yield from super().faults(known)
        yield from between(self, "rate", 0, 1)
        yield from between(self, "rate_end", 0, 1)
        yield from between(self, "full_at", 0, 1, open_low=True)
        if self.rate == self.rate_end == 0:
            yield Fault("rate", self.rate, "never replaces anything", "Set rate_end above 0.")
        elif self.rate_end < self.rate:
            yield Fault("rate_end", self.rate_end, f"must be at least rate = {self.rate:g}")
        if known.only_answers:
            yield Fault("rate", self.rate, NEEDS_WEIGHTS, "Leave theseus out of prepare.")
        elif known.student is not None and known.teacher is not None:
            yield from self._unfit(known.student, known.teacher)

    def _unfit(self, student: Any, teacher: Any) -> Iterator[Fault]:
        """The student's layers must fit into the teacher, as many teacher layers for each."""
        families = known_family(student), known_family(teacher)
        if layers_share_weights(student) or None in families or families[0] != families[1]:
            rule = f"cannot put layers of a {type_in_words(student)} into a {teacher.model_type}"
            yield Fault("rate", self.rate, rule, "Leave theseus out of prepare.")
            return
        if getattr(student, "own_tokens", False):
            rule = "shares the teacher's embeddings, and the student has a tokenizer of its own"
            yield Fault("rate", self.rate, rule, "Leave theseus out of prepare.")
            return
        shapes, known, place = parameter_shapes(student), parameter_shapes(teacher), family_of(student).place
        yield from freeze_faults(self, [name for name in shapes if place(name) is not None])
        ours, theirs = layer_count(student), layer_count(teacher)
        if theirs % ours:
            rule = f"needs a student whose layers divide the teacher's {theirs}; it has {ours}"
            yield Fault("rate", self.rate, rule, "Set student.layers.")
        elif ours == theirs:
            yield Fault("rate", self.rate, "needs a student with fewer layers than the teacher", "Set student.layers.")
        if student.hidden_size != teacher.hidden_size:
            rule = f"needs equal widths; student {student.hidden_size}, teacher {teacher.hidden_size}"
            yield Fault("rate", self.rate, rule, "Leave student.hidden_size out.")
        elif other := [n for n, shape in shapes.items() if place(n) is None and known.get(n) != shape]:
            rule = f"shares the teacher's embeddings and head, and the student's {other[0]} has another shape"
            yield Fault("rate", self.rate, rule)

    def rate_at(self, progress: float) -> float:
        """Return the probability of a replacement when a share ``progress`` of training is done."""
        return self.rate + (self.rate_end - self.rate) * min(1.0, progress / self.full_at)

    def plan(self, plan: Plan) -> Plan:
        """One training on labels, in which the teacher's layers run too."""
        task = plan.data.task

        def objective(student: PreTrainedModel, teacher: PreTrainedModel | None, _: Tokens) -> Replacement:
            assert teacher is not None
            return Replacement(student, teacher, self, task)

        return planned(
            plan, "theseus", plan.data.train, self, learner=plan.student, teacher=plan.teacher,
            rehearsal=Rehearsal(objective=objective),
        )  # fmt: skip

    def __call__(self, state: State) -> State:
        """Return the state with a student whose layers have worked among the teacher's."""
        start, teacher, rows = state.given_student, state.given_teacher, state.data.train

        def work(folder: Path) -> dict[str, Any]:
            student, tokenizer = load_model(start.folder, on=device()), load_tokenizer(start.folder)
            tokens = tokenize(rows, tokenizer, tokenizer.model_max_length)
            validation = tokenize(state.data.validation, tokenizer, tokenizer.model_max_length)
            objective = Replacement(student, principal(load_model(teacher.folder, on=device())), self, state.data.task)
            curves = fit(
                objective, tokens, self, seed=state.seed, folder=folder / SCRATCH, title="theseus",
                validate=lambda: main_metric(student, validation, state.data.task),
            )  # fmt: skip
            save_model(student.cpu(), tokenizer, folder)
            return {"curves": curves}

        made_with = [
            self.made_with(), start.key, teacher.key, rows.fingerprint, state.data.validation.fingerprint,
            state.data.task.decides, state.seed,
        ]  # fmt: skip
        product = state.workshop.make(Kind("theseus", revision=2), made_with, work)
        notes = (f"replaced with probability {self.rate:g}, rising to {self.rate_end:g}; only layers were trained",)
        record = self.record("theseus", [product], notes=notes, curves=product.record["curves"])
        return state.with_student(record)


class Replacement(Objective):
    """The teacher with some runs of its layers replaced by the student's, and the loss on labels.

    Which runs is drawn again for every batch, each with the same probability. The teacher is frozen but works as in
    training, dropout included, as in the authors' code. Its embeddings and head serve both: the student takes them
    over at once, and of the student only the layers learn. A layer that was not drawn has a gradient of zero.
    """

    def __init__(self, student: PreTrainedModel, teacher: PreTrainedModel, settings: Theseus, task: Task) -> None:
        super().__init__()
        self.student, self.settings, self.task = student, settings, task
        self.frozen = (teacher.requires_grad_(False),)  # in a tuple: no part of this module, not trained, not saved
        family = family_of(student.config)
        shared = {name: value for name, value in teacher.state_dict().items() if family.place(name) is None}
        student.load_state_dict(student.state_dict() | shared)
        student.requires_grad_(False)
        family.layers(student).requires_grad_(True)

    @property
    def trained(self) -> PreTrainedModel:
        """The student."""
        return self.student

    @property
    def indivisible(self) -> str:
        """Empty: the parts of a batch share what was drawn."""
        return ""

    def draw(self, progress: float) -> Tensor:
        """Return which of the student's layers work (layers,)."""
        layers = family_of(self.student.config).layers(self.student)
        return torch.rand(len(layers)) < self.settings.rate_at(progress)

    def sizes(self, batch: Mapping[str, Tensor], progress: float) -> Mapping[str, int]:
        """Return the number of labels."""
        return {"hard": self.task.labels_in(batch["labels"])}

    def forward(
        self, batch: Mapping[str, Tensor], progress: float, whole: Whole | None = None
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the loss on labels of a mixture of both."""
        layers = family_of(self.student.config).layers(self.student)
        replaced = self.draw(progress) if whole is None else whole.drawn
        share = 1.0 if whole is None else whole.share("hard", self.sizes(batch, progress)["hard"])
        loss = share * self.task.mean_loss(self.mixed(batch, replaced.tolist()), batch["labels"])
        for layer, drawn in zip(layers, replaced, strict=True):
            if not drawn:  # nothing at all may have been drawn; the loss has a gradient then too
                loss = loss + 0 * torch.stack([p.sum() for p in layer.parameters()]).sum()
        return loss, {"hard": loss, "replaced": share * replaced.float().mean()}

    def mixed(self, batch: Mapping[str, Tensor], replaced: list[bool]) -> Tensor:
        """Return the logits (batch, outputs) of the teacher with these of its runs replaced."""
        (teacher,) = self.frozen
        teacher.train(self.training)
        ours, theirs = (family_of(model.config).layers(model) for model in (self.student, teacher))
        run = len(theirs) // len(ours)
        layers: list[nn.Module] = []
        for index, layer in enumerate(ours):
            layers += [layer] if replaced[index] else list(theirs[index * run : (index + 1) * run])
        with family_of(teacher.config).running(teacher, layers):
            return observe(teacher, batch).logits
