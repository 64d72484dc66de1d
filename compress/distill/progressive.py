"""Progressive knowledge transfer: the student's layers learn one after the other, from the first to the last."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, ClassVar

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import PreTrainedModel

from compress.distill.keep_best import head_note
from compress.distill.losses import AttentionTransfer, HiddenStates, Loss, wanted
from compress.distill.objective import Distillation, Source
from compress.distill.source import Keep, Taught, decided, source_of
from compress.distill.teacher_outputs import FromModel
from compress.errors import Fault
from compress.families.forms.uneven import kept_heads
from compress.families.registry import known_layers, layer_count, layers_share_weights, type_in_words
from compress.known import NEEDS_WEIGHTS, NOTHING, Known
from compress.models.device import device
from compress.models.loading import load_model, load_tokenizer, parameter_shapes, save_model
from compress.models.tokens import Tokens, tokenize
from compress.pipeline.model import Model
from compress.pipeline.plan import Plan, Rehearsal
from compress.pipeline.state import State
from compress.pipeline.workshop import SCRATCH, Kind
from compress.sealed import check_contents, contents_of, read_sealed, write_sealed
from compress.settings import at_least, between, positive
from compress.student.layer_map import layer_map_faults, layer_pairs
from compress.train import Training, fit, parameter_faults, planned, same_randomness


@dataclass(kw_only=True)
class Progressive(Training):
    """Train layer by layer before distillation (MobileBERT, arXiv:2004.02984, section 3.4).

    While a layer is in turn, its hidden states (eq. 2) and its attention (eq. 3) are brought to those of the
    teacher's layer that it is mapped to; the layers above it wait, those below it are frozen or move slowly.
    """

    reads_unlabelled: ClassVar[bool] = True

    epochs: float = 3.0  # passes over the rows, for all layers together
    hidden_weight: float = 1.0  # factor of the squared error of hidden states
    attention_weight: float = 1.0  # factor of the divergence of attention, teacher from student
    lower_learning_rate: float = (
        0.0  # learning rate of the layers below the one being trained, as a share of its rate; 0: frozen
    )
    embeddings: bool = False  # embeddings learn with the first layer; needed where they are not the teacher's own
    layer_map: Any = None  # uniform, skip, first, last, or teacher layers as [2,4,6]; default: the student's own
    teacher_outputs: Keep = Keep.auto  # auto: disk where they fit into cache_gib, else forward; disk; forward
    cache_gib: float = 8.0  # largest disk space for the teacher's outputs of one data set

    def faults(self, known: Known = NOTHING) -> Iterator[Fault]:
        """Something is compared that both models have, and nothing is asked of validation."""
        yield from super().faults(known)
        yield from at_least(self, "hidden_weight", 0)
        yield from at_least(self, "attention_weight", 0)
        yield from between(self, "lower_learning_rate", 0, 1)
        yield from positive(self, "cache_gib")
        if self.layer_map is not None:
            yield from layer_map_faults("layer_map", self.layer_map)
        if self.hidden_weight == 0 and self.attention_weight == 0:
            rule = "leaves nothing to learn where attention_weight is 0 too"
            yield Fault("hidden_weight", self.hidden_weight, rule, "Set one of them.")
        if self.early_stopping:
            rule = "has nothing to look at: the head is not trained here, so no metric gets better"
            yield Fault("early_stopping", self.early_stopping, rule, "Leave it at 0.")
        if known.only_answers:
            yield Fault("epochs", self.epochs, NEEDS_WEIGHTS, "Leave progressive out of prepare.")
        elif known.student is not None and known.teacher is not None:
            yield from self._unfit(known.student, known.teacher)

    def _unfit(self, student: Any, teacher: Any) -> Iterator[Fault]:
        """Yield what keeps the student's layers from being trained one by one against the teacher's."""
        if layers_share_weights(student):
            rule = f"cannot train one layer after the other of a student of type {type_in_words(student)}"
            yield Fault("epochs", self.epochs, rule, "Leave progressive out of prepare, or choose another student.")
            return
        if getattr(student, "own_tokens", False):
            rule = "compares layers token by token, and the student has a tokenizer of its own"
            yield Fault("epochs", self.epochs, rule, "Leave progressive out of prepare.")
            return
        if not layer_count(student) or known_layers(student) is None:
            rule = f"cannot train a student of type {student.model_type} layer by layer"
            yield Fault("epochs", self.epochs, rule, "Leave progressive out of prepare.")
            return
        yield from parameter_faults(self, student)
        yield from self._frozen_layers(student)
        try:
            layers = layer_pairs(self.layer_map, student, teacher)
        except ValueError as error:
            yield Fault("layer_map", self.layer_map, str(error))
            return
        heads = student.num_attention_heads, teacher.num_attention_heads
        if not self.attention_weight:
            return
        if heads[0] != heads[1]:
            rule = f"needs equal head counts; student {heads[0]}, teacher {heads[1]}"
            remedy = f"Set student.heads={heads[1]}, or attention_weight=0."
            yield Fault("attention_weight", self.attention_weight, rule, remedy)
        elif any(not set(kept_heads(student)[s - 1]) <= set(kept_heads(teacher)[t - 1]) for s, t in layers):
            rule = "needs heads that the teacher no longer has"
            yield Fault("attention_weight", self.attention_weight, rule, "Set it to 0.")

    def _frozen_layers(self, student: Any) -> Iterator[Fault]:
        """Yield patterns that leave nothing to train of a layer when it is its turn."""
        known = known_layers(student)
        names = list(parameter_shapes(student)) if self.freeze and known is not None else []
        for layer in range(layer_count(student)):
            own = [name for name in names if known is not None and (known.place(name) or (None,))[0] == layer]
            if own and all(any(fnmatchcase(name, pattern) for pattern in self.freeze) for name in own):
                yield Fault("freeze", list(self.freeze), f"leaves nothing to train of layer {layer + 1}")
                return

    def plan(self, plan: Plan) -> Plan:
        """A training for each layer."""
        pairs, teacher = layer_pairs(self.layer_map, plan.student, plan.teacher), plan.teacher
        needed = wanted(self.losses().values(), pairs, (layer_count(plan.student), layer_count(teacher)), teacher)
        settings = replace(self, epochs=self.epochs / len(pairs))

        def rehearsal(pair: tuple[int, int]) -> Rehearsal:
            def objective(student: PreTrainedModel, taught_by: PreTrainedModel | None, tokens: Tokens) -> Distillation:
                assert taught_by is not None
                self.choose(student, pair[0])
                return Distillation(student, self.losses(), FromModel(taught_by, needed, tokens), teacher, (pair,))

            def keeps(gib: float) -> bool:
                return decided(self.teacher_outputs, gib, self.cache_gib, self.epochs)[0] is Keep.disk

            return Rehearsal(objective=objective, wanted=needed, keeps=keeps)

        for pair in pairs:
            plan = planned(
                plan, f"layer {pair[0]} of {len(pairs)}", plan.data.transfer, settings, learner=plan.student,
                teacher=teacher, more=plan.added, rehearsal=rehearsal(pair),
            )  # fmt: skip
        return plan

    def __call__(self, state: State) -> State:
        """Return the state with a student whose layers have learned in turn; its head has not."""
        start, teacher, rows = state.given_student, state.given_teacher, state.data.transfer
        product = state.workshop.make(
            Kind("progressive", revision=3),
            [self.made_with(), start.key, teacher.key, rows.fingerprint, state.seed],
            lambda folder: self._work(state, start, folder),
        )
        kept = product.record
        notes = [*kept["notes"], head_note(state, start, Model.of(product))]
        record = self.record("progressive", [product], notes=notes, curves=kept["curves"])
        return state.with_student(record)

    def _work(self, state: State, start: Model, folder: Path) -> dict[str, Any]:
        student, tokenizer = load_model(start.folder, on=device()), load_tokenizer(start.folder)
        origin = state.given_teacher
        teacher, theirs = load_model(origin.folder, on=device()), load_tokenizer(origin.folder)
        tokens = tokenize(state.data.transfer, tokenizer, tokenizer.model_max_length)
        pairs = layer_pairs(self.layer_map, student.config, teacher.config)
        last = layer_count(student.config), layer_count(teacher.config)
        taught_tokens = tokenize(state.data.transfer, theirs, theirs.model_max_length)
        taught = Taught(origin, teacher, taught_tokens, wanted(self.losses().values(), pairs, last, teacher.config))
        keep = self.teacher_outputs, self.cache_gib, self.epochs
        source, note = source_of(taught, *keep, state.workshop)
        curves = self.train(student, source, teacher.config, pairs, tokens, state.seed, folder / SCRATCH)
        save_model(student.cpu(), tokenizer, folder)
        rate = f"at {self.lower_learning_rate:g} of its learning rate" if self.lower_learning_rate else "frozen"
        return {
            "curves": curves,
            "notes": [f"{len(pairs)} layers trained in turn, those below {rate}", note],
        }

    def train(
        self, student: PreTrainedModel, teacher: Source, teacher_config: Any, pairs: tuple[tuple[int, int], ...],
        tokens: Tokens, seed: int, folder: Path,
    ) -> list[dict[str, float]]:  # fmt: skip
        """Train ``student`` in place, layer by layer; return the layers' training curves, one after the other.

        ``pairs`` are (student layer, teacher layer). What is done is kept in ``folder``: a call that finds it
        there goes on at the layer, and within it at the step, where an earlier one was interrupted.
        """
        noted = folder / "layers.json"
        done = read_sealed(noted) or {"layer": 0, "curves": [], "files": {}}
        check_contents(folder, done["files"])
        if done["layer"]:
            student.load_state_dict(load_file(folder / _weights(done["layer"])))
        settings = replace(self, epochs=self.epochs / len(pairs))
        for layer, theirs in pairs[done["layer"] :]:
            slow = self.choose(student, layer)
            with same_randomness():
                torch.manual_seed(seed + layer)  # the projection starts from it
                objective = Distillation(student, self.losses(), teacher, teacher_config, ((layer, theirs),))
            curve = fit(
                objective, tokens, settings, seed=(seed + layer) % 2**32, folder=folder / f"layer-{layer}",
                title=f"layer {layer} of {len(pairs)}", validate=dict, shares=slow,
            )  # fmt: skip
            aside = folder / "layer.new"
            save_file({name: value.contiguous() for name, value in student.state_dict().items()}, aside)
            aside.replace(folder / _weights(layer))
            files = contents_of(folder, only=(_weights(layer),))
            done = {"layer": layer, "curves": done["curves"] + curve, "files": files}
            write_sealed(noted, done)
            _forget(folder, layer)
        for parameter in student.parameters():
            parameter.requires_grad = True
        curves: list[dict[str, float]] = done["curves"]
        return curves

    def losses(self) -> dict[str, Loss]:
        """Return what is compared, with its weight."""
        losses: dict[str, Loss] = {
            "hidden": HiddenStates(weight=self.hidden_weight),
            "attention": AttentionTransfer(weight=self.attention_weight),
        }
        return {name: loss for name, loss in losses.items() if loss.weight}

    def choose(self, student: PreTrainedModel, layer: int) -> dict[Tensor, float]:
        """Let only what moves in a layer's turn take gradients; return, by parameter, the lower layers' share."""
        known = known_layers(student.config)
        assert known is not None
        layers = known.layers(student)
        below = [layers[index] for index in range(layer - 1)]
        now: list[nn.Module] = [layers[layer - 1]]
        if self.embeddings:
            (now if layer == 1 else below).extend(known.embedders(student))
        for parameter in student.parameters():
            parameter.requires_grad = False
        moving = now + (below if self.lower_learning_rate else [])
        for module in moving:
            for parameter in module.parameters():
                parameter.requires_grad = True
        slow = below if self.lower_learning_rate else []
        return {parameter: self.lower_learning_rate for module in slow for parameter in module.parameters()}


def _weights(layer: int) -> str:
    """Return the name of the file with the student's weights as they are when ``layer`` is done."""
    return f"layer-{layer}.safetensors"


def _forget(folder: Path, layer: int) -> None:
    """Remove what resumption no longer needs when ``layer`` is done: checkpoints, and the weights before it."""
    for number in range(1, layer + 1):
        shutil.rmtree(folder / f"layer-{number}", ignore_errors=True)
        if number < layer:
            (folder / _weights(number)).unlink(missing_ok=True)
