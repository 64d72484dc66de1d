"""Linear layers held in 8 or 4 bits by bitsandbytes: less memory for the PyTorch student, not more speed."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from enum import Enum
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import BitsAndBytesConfig, PreTrainedModel

from compress.errors import Fault, MissingPackageError, ModelError
from compress.families.registry import FAMILIES, family_of, known_family
from compress.files import MIB
from compress.known import NOTHING, Known
from compress.machine import versions
from compress.models.auto import from_pretrained
from compress.models.loading import load_model, load_tokenizer, parameter_shapes, plain_errors, quiet, save_model
from compress.onnx.products import layer_of
from compress.pipeline.artifact import Artifact, Cost
from compress.pipeline.record import Details
from compress.pipeline.stage import Stage
from compress.pipeline.state import State
from compress.pipeline.workshop import Kind
from compress.quantize.costs import ModulesApart, costs_by_part
from compress.settings import at_least

THRESHOLD = 6.0  # LLM.int8's
OUTPUTS, INPUTS = 32, 64  # bitsandbytes' 4-bit product on the CPU takes whole blocks of outputs and inputs


class Bits(Enum):
    """int8: LLM.int8; nf4: QLoRA's 4-bit normal floats."""

    int8 = "int8"
    nf4 = "nf4"


@dataclass(frozen=True)
class Memory(Details):
    """What an artifact's weights take where it runs."""

    memory_mib: float


@dataclass(kw_only=True)
class BitsAndBytes(Stage):
    """Int8 (LLM.int8, arXiv:2208.07339) or nf4 weights (QLoRA, arXiv:2305.14314) in PyTorch: a memory option.

    The linear layers of the encoder are quantized; embeddings and head stay fp32. A feature of LLM.int8's input
    counts as an outlier where it is one for any token of the batch, so other rows and padding can change logits
    in their last digits.
    """

    bits: Bits = Bits.int8  # int8 or nf4
    threshold: float = THRESHOLD  # int8: features of an input above it are multiplied in 16 bits; 0: none
    double_quantization: bool = True  # nf4: the scales of its blocks are quantized too

    def faults(self, known: Known = NOTHING) -> Iterator[Fault]:
        """Each setting belongs to the bits, the package is there, and the student has layers that can be quantized."""
        yield from at_least(self, "threshold", 0)
        if self.bits is Bits.nf4 and self.threshold != THRESHOLD:
            yield Fault("threshold", self.threshold, "has no effect on nf4", "Leave it out, or set bits=int8.")
        if self.bits is Bits.int8 and not self.double_quantization:
            yield Fault("double_quantization", False, "has no effect on int8", "Leave it out, or set bits=nf4.")
        student = known.student
        if student is None:
            return
        if find_spec("bitsandbytes") is None:
            remedy = "Install it: pip install 'compress-encoders[bitsandbytes]'."
            yield Fault("bits", self.bits.value, "needs the package bitsandbytes", remedy)
        if known_family(student) is None:
            rule = f"cannot quantize a student of type {student.model_type}"
            yield Fault("bits", self.bits.value, rule, f"Supported: {', '.join(FAMILIES)}. Use dynamic instead.")
        elif self.bits is Bits.nf4:
            place = family_of(student).place
            shapes = [shape for name, shape in parameter_shapes(student).items() if place(name) is not None]
            if not any(_whole_blocks(shape[0], shape[1]) for shape in shapes if len(shape) == 2):
                rule = f"needs linear layers of {OUTPUTS}·i outputs and {INPUTS}·j inputs, and the student has none"
                yield Fault("bits", "nf4", rule, "Use int8.")

    def __call__(self, state: State) -> State:
        """Return the state with the artifact ``bitsandbytes``."""
        student = state.given_student

        def work(folder: Path) -> dict[str, Any]:
            whole = load_model(student.folder)
            layers, left = self._layers(whole)
            model = self._quantized(whole, student.folder, layers)
            save_model(model, load_tokenizer(student.folder), folder)
            return {"memory_mib": _mib(model), "fp32_mib": _mib(whole), "quantized": len(layers), "left": left}

        made_with = [self.made_with(), student.key, versions().get("bitsandbytes")]
        product = state.workshop.make(Kind("bitsandbytes", revision=1), made_with, work)
        record = product.record
        notes = [
            f"{record['quantized']} linear layers in {self.bits.value}, embeddings and head in fp32",
            f"weights take {record['memory_mib']:.1f} MiB of memory, {record['fp32_mib']:.1f} in fp32",
        ]
        if record["left"]:
            notes.append(f"{record['left']} linear layers of no {OUTPUTS}·i outputs and {INPUTS}·j inputs stay fp32")
        artifact = Artifact(
            name="bitsandbytes", runtime="pytorch", precision=self.bits.value, folder=product.folder, key=product.key,
            seconds=product.seconds, notes=tuple(notes), details=Memory(record["memory_mib"]),
        )  # fmt: skip
        return state.with_artifacts(artifact)

    def costs(self, state: State, artifact: Artifact) -> tuple[Cost, ...]:
        """Return what each layer loses with its linear layers alone quantized."""
        folder = state.given_student.folder

        def prepared() -> ModulesApart:
            whole = load_model(folder)
            layers: dict[str, list[str]] = {}
            for name in self._layers(whole)[0]:
                layers.setdefault(layer_of(name), []).append(name)
            return ModulesApart(layers, lambda names: self._quantized(whole, folder, names) if names else whole)

        return costs_by_part(state, artifact, load_tokenizer(folder), prepared)

    def _layers(self, whole: PreTrainedModel) -> tuple[list[str], int]:
        """Return the linear layers that are quantized, and how many of the encoder's are not for their shape's sake."""
        family = family_of(whole.config)
        linears = {name: module for name, module in whole.named_modules() if isinstance(module, nn.Linear)}
        inner = {name: module for name, module in linears.items() if family.in_encoder(name)}
        fits = [n for n, module in inner.items() if self.bits is Bits.int8 or _whole_blocks(*module.weight.shape)]
        if not fits:
            raise ModelError(f"nf4: no linear layer has {OUTPUTS}·i outputs and {INPUTS}·j inputs. Use bits=int8.")
        return fits, len(inner) - len(fits)

    def _quantized(self, whole: PreTrainedModel, folder: Path, layers: Collection[str]) -> PreTrainedModel:
        """Return the model in a folder with these of its linear layers quantized; ``whole`` is as it is."""
        try:
            import bitsandbytes  # noqa: F401  # transformers uses it
        except ImportError as error:
            raise MissingPackageError("bitsandbytes", "bitsandbytes", "Quantizing to int8 or nf4 in PyTorch") from error
        linears = [name for name, module in whole.named_modules() if isinstance(module, nn.Linear)]
        settings = BitsAndBytesConfig(
            load_in_8bit=self.bits is Bits.int8,
            load_in_4bit=self.bits is Bits.nf4,
            llm_int8_threshold=float(self.threshold),
            llm_int8_skip_modules=[name for name in linears if name not in layers],
            bnb_4bit_quant_type="nf4",
            bnb_4bit_use_double_quant=self.double_quantization,
            bnb_4bit_compute_dtype=torch.float32,
        )
        with plain_errors(folder), quiet():
            # on the CPU everywhere, so that the same files come of it
            model: PreTrainedModel = from_pretrained(
                folder,
                whole.config,
                quantization_config=settings,
                dtype=torch.float32,
                device_map="cpu",
                use_safetensors=True,
            )  # fmt: skip
        model.eval()
        return model


def _whole_blocks(outputs: int, inputs: int) -> bool:
    return outputs % OUTPUTS == 0 and inputs % INPUTS == 0


def _mib(model: nn.Module) -> float:
    """Return what a model's weights take in memory, the scales of quantized ones included."""
    return float(sum(value.nbytes for value in model.state_dict().values()) / MIB)
