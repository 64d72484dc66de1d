"""Quantization-aware training: the student is distilled once more while it computes as the int8 graph will."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import torch
from transformers import PreTrainedModel

from compress.distill.stage import planned_recovery
from compress.errors import Fault
from compress.families.forms.fake_quantization import FAKE, FakeQuantization, only, ranges
from compress.families.forms.quantization_aware import fake_quantized
from compress.families.registry import FAMILIES, can_be_taken_apart, family_of, type_in_words
from compress.known import NOTHING, Known
from compress.machine import int8_dot_product
from compress.models.device import device
from compress.models.int8_modules import as_integers
from compress.models.loading import load_model, load_tokenizer
from compress.models.outputs import observe
from compress.models.tokens import Tokens, tokenize
from compress.onnx.folder import write_folder
from compress.onnx.graph import exported, input_names
from compress.onnx.products import layer_of
from compress.pipeline.artifact import Artifact, Cost, Trained
from compress.pipeline.model import Model
from compress.pipeline.plan import Plan
from compress.pipeline.rewrite import Rewritten, rewrite
from compress.pipeline.stage import Stage
from compress.pipeline.state import State
from compress.pipeline.workshop import Kind, Product
from compress.quantize.calibrated import drawn
from compress.quantize.calibration import even_batches
from compress.quantize.costs import ModulesApart, costs_by_part
from compress.quantize.int8 import WeightBits, reduced
from compress.settings import between, positive

SHARE = 0.25  # of the distillation's learning rate: with the whole of it a trained student loses (benchmarks/README.md)

CALIBRATED = 2048  # training rows that move the control's ranges


@dataclass(kw_only=True)
class QuantizationAware(Stage):
    """Int8 weights and activations, learned (Q8BERT, arXiv:1910.06188); Q/DQ form, for the CPU.

    The student is trained as it was distilled, by the same losses from the unquantized teacher, with
    fake-quantized linear layers and embeddings; the ranges of activations move with the batches and stay as the
    last one leaves them. The student itself is left as it is. Beside it stands a control: the same steps in fp32, then
    the same integers, over ranges that training rows move in the same way. What is ahead of the control is what
    training with fake quantization adds to training longer.
    """

    recovers: ClassVar[bool] = True

    epochs: float = 1.0  # of distillation with fake quantization
    learning_rate: float | None = None  # AdamW's, at its highest; default: a quarter of the distillation's
    decay: float = 0.99  # share of an activation's range that a batch leaves as it was
    weight_bits: WeightBits = WeightBits.auto  # auto: 8 with VNNI or similar, else 7; or 7, 8
    per_channel: bool = True  # a scale for each output of a weight matrix and each embedding; false: one per matrix
    embeddings: bool = True  # quantize embedding tables too
    classifier: bool = True  # quantize the last linear layer too
    control: bool = True  # also make the control: as many steps in fp32, then the same int8
    agreement: float = 0.995  # share of test rows on which the file must agree with the trained model; less is an error

    def faults(self, known: Known = NOTHING) -> Iterator[Fault]:
        """All are in their natural ranges, and the student is of a family that can be fake-quantized."""
        yield from positive(self, "epochs")
        yield from positive(self, "learning_rate")
        yield from between(self, "decay", 0, 1, open_high=True)
        yield from between(self, "agreement", 0, 1)
        student = known.student
        if student is not None and not (can_be_taken_apart(student) and family_of(student).projects_tokens_alone):
            rule = f"cannot train a student of type {type_in_words(student)} with fake quantization"
            supported = [name for name, family in FAMILIES.items() if family.projects_tokens_alone]
            remedy = f"Supported: {', '.join(supported)}. Use dynamic or static instead."
            yield Fault("epochs", self.epochs, rule, remedy)

    def plan(self, plan: Plan) -> Plan:
        """One training with fake quantization, and one without for the control."""
        plan = planned_recovery(plan, self.epochs, "qat_training")
        return planned_recovery(plan, self.epochs, "qat_control") if self.control else plan

    def __call__(self, state: State) -> State:
        """Return the state with the artifacts ``qat`` and ``qat-control``; ValueError where nothing was distilled."""
        student, recovery = state.given_student, state.given_recovery
        scheme = FakeQuantization(
            weight_bits=7 if reduced(self.weight_bits) else 8,
            per_channel=self.per_channel,
            embeddings=self.embeddings,
            classifier=self.classifier,
            decay=self.decay,
        )

        def change(model: PreTrainedModel, tokenizer: Any) -> Rewritten:
            return Rewritten(fake_quantized(model, scheme), tokenizer)

        start = rewrite(state.workshop, Kind("qat_start", revision=1), student, [asdict(scheme)], change)
        training = recovery.train(
            state, Model.of(start), self.epochs, name="qat_training", learning_rate=self.learning_rate, share=SHARE,
            comparable=False,
        )  # fmt: skip
        state = state.with_artifacts(self._artifact(state, Model.of(training), scheme, training))
        return self._control(state, scheme) if self.control else state

    def costs(self, state: State, artifact: Artifact) -> tuple[Cost, ...]:
        """Return what each part of the trained model loses alone in int8."""
        assert artifact.trained is not None
        folder = artifact.trained.model.folder

        def made(names: Collection[str]) -> PreTrainedModel:
            model = load_model(folder)
            only(model, names)
            return model

        def prepared() -> ModulesApart:
            parts: dict[str, list[str]] = {}
            for name, module in load_model(folder).named_modules():
                if isinstance(module, FAKE):
                    parts.setdefault(layer_of(name), []).append(name)
            return ModulesApart(parts, made)

        return costs_by_part(state, artifact, load_tokenizer(folder), prepared)

    def _control(self, state: State, scheme: FakeQuantization) -> State:
        """Return the state with the student trained on in fp32, then in integers."""
        student, rows = state.given_student, drawn(state, CALIBRATED)
        training = state.given_recovery.train(
            state, student, self.epochs, name="qat_control", learning_rate=self.learning_rate, share=SHARE,
            comparable=False,
        )  # fmt: skip

        def change(model: PreTrainedModel, tokenizer: Any) -> Rewritten:
            calibrated = fake_quantized(model, scheme)
            move_ranges(calibrated, tokenize(rows, tokenizer, tokenizer.model_max_length), state.seed)
            return Rewritten(calibrated, tokenizer)

        made_with = [asdict(scheme), rows.fingerprint, state.seed]
        kind = Kind("qat_calibrated", revision=1)
        calibrated = rewrite(state.workshop, kind, Model.of(training), made_with, change, on=device())
        note = f"trained in fp32 for as many steps, then int8 over the ranges of {len(rows):,} training rows"
        artifact = self._artifact(state, Model.of(calibrated), scheme, training, note)
        return state.with_artifacts(replace(artifact, name="qat-control", variant="control"))

    def _artifact(
        self, state: State, trained: Model, scheme: FakeQuantization, training: Product, *notes: str
    ) -> Artifact:
        """Return the int8 graph of a fake-quantized model."""

        def export(folder: Path) -> None:
            names = input_names(load_tokenizer(trained.folder))
            graph = exported(as_integers(load_model(trained.folder)), names)
            write_folder(graph, state.given_student.folder, folder, pairs=state.data.pairs)

        product = state.workshop.make(Kind("qat", revision=2), [trained.key, state.data.pairs], export)
        arithmetic = "sums int8 products in 32 bits" if int8_dot_product() else "sums int8 products in 16 bits"
        bits = f"weights in {scheme.weight_bits} bits; this processor {arithmetic}"
        return Artifact(
            name="qat", runtime="onnxruntime", precision="int8", folder=product.folder, key=product.key,
            seconds=training.seconds + product.seconds, notes=(*notes, *training.record["notes"], bits),
            trained=Trained(trained, self.agreement),
        )  # fmt: skip


@torch.no_grad()
def move_ranges(model: PreTrainedModel, tokens: Tokens, seed: int) -> None:
    """Let rows move the ranges of a fake-quantized model, in place, batch by batch as in training."""
    model.eval()
    for moving in ranges(model):
        moving.train()
    for rows in even_batches(tokens, seed):
        batch = {name: value.to(model.device) for name, value in tokens.batch(rows).items()}
        observe(model, batch)
    model.eval()
