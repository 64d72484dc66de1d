"""The pretrained teacher as a masked language model; where it has no head, one is trained on the texts first."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from transformers import PreTrainedModel

from compress.distill.on_corpus import OnCorpus
from compress.errors import CompressError, Fault, ModelError
from compress.families.language_head import (
    LanguageHead,
    fills_masks,
    has_language_head,
    load_language_model,
    types_that_fill_masks,
)
from compress.known import NOTHING, Known
from compress.models.device import device
from compress.models.loading import load_config, load_tokenizer
from compress.models.tokens import Tokens
from compress.pipeline.plan import Plan
from compress.pipeline.state import State
from compress.pipeline.workshop import SCRATCH, Kind
from compress.settings import at_least, between
from compress.train import fit, planned, same_randomness
from compress.train.masking import masking_of
from compress.train.word_prediction import WordPrediction

HEAD = "head.safetensors"


@dataclass(kw_only=True)
class LanguageTraining(OnCorpus):
    """Settings of a preparation with masked language modelling."""

    masked_share: float = 0.15  # share of tokens that are hidden and predicted
    head_epochs: float = 0.0  # epochs to train a head for a teacher without one; 0: such a teacher is refused

    def faults(self, known: Known = NOTHING) -> Iterator[Fault]:
        """Shares are shares."""
        yield from super().faults(known)
        yield from between(self, "masked_share", 0, 1, open_low=True, open_high=True)
        yield from at_least(self, "head_epochs", 0)

    def trains(self, config: Any, *forms: str) -> bool:
        """Return whether the family has masked language models."""
        return fills_masks(config, *forms)

    def types(self) -> list[str]:
        """Return the families with masked language models."""
        return types_that_fill_masks()

    def _cannot_teach(self, source: str, config: Any, student: Any) -> Iterator[Fault]:
        """Yield a pretrained model without a masked-language-model head, where none is to be trained."""
        try:
            if load_tokenizer(source).mask_token_id is None:
                yield Fault("teacher", self.teacher, f"{source} has no mask token", "Name another pretrained model.")
            if self.head_epochs == 0 and not has_language_head(source, config):
                rule = f"{source} has no masked-language-model head (architectures: {config.architectures})"
                remedy = (
                    "Name one that has one, or train a head on the corpus first: set head_epochs, for example to 1."
                )
                yield Fault("teacher", self.teacher, rule, remedy)
        except CompressError as error:
            yield Fault("teacher", self.teacher, str(error).rstrip("."))

    def planned_head(self, plan: Plan, source: str, tokens: Tokens) -> Plan:
        """Return the plan with the training of a head, where the pretrained teacher has none."""
        config = load_config(source)
        if self.head_epochs == 0 or has_language_head(source, config):
            return plan
        settings = replace(self, epochs=self.head_epochs)
        return planned(
            plan, "masked LM head", self.texts(plan), settings, learner=config, tokens=tokens, more=self.more(plan)
        )

    def language_teacher(
        self, state: State, source: str, texts: Callable[[], Tokens], tokenizer: Any, notes: list[str]
    ) -> tuple[PreTrainedModel, LanguageHead]:
        """Return the pretrained encoder and its head, on the device; where it has none, one that is trained now.

        ``texts`` gives them as ``tokenizer``, the teacher's, cuts them. Raises ModelError where there is no
        head and none is to be trained.
        """
        with same_randomness():
            torch.manual_seed(state.seed)  # a missing head starts from it
            encoder, head = load_language_model(source, on=device())
        if has_language_head(source, encoder.config):
            return encoder, head
        if self.head_epochs == 0:
            raise ModelError(f"{source} has no masked-language-model head. Set head_epochs to train one first.")

        tokens = texts()

        def work(folder: Path) -> dict[str, Any]:
            objective = WordPrediction(
                encoder, head, masking_of(tokenizer, self.masked_share, state.seed), head_alone=True
            )
            settings = replace(self, epochs=self.head_epochs, freeze=[], layer_decay=1.0)
            curves = fit(
                objective, tokens, settings, seed=state.seed, folder=folder / SCRATCH, title="masked LM head",
                validate=dict,
            )  # fmt: skip
            save_file({name: value.cpu().contiguous() for name, value in head.state_dict().items()}, folder / HEAD)
            return {"losses": [point["loss"] for point in curves if "loss" in point]}

        own = {setting.name for setting in fields(LanguageTraining)}
        trained_with = {name: value for name, value in self.made_with().items() if name in own - {"epochs"}}
        made_with = [trained_with, self.source_key(source), tokens.fingerprint, state.seed]
        product = state.workshop.make(Kind("language_head", revision=3), made_with, work)
        head.load_state_dict(load_file(product.folder / HEAD, device=str(device())))
        first, last = product.record["losses"][0], product.record["losses"][-1]
        notes.append(
            f"the pretrained teacher had no masked-language-model head; one was trained on the texts, the encoder "
            f"frozen, for {self.head_epochs:g} epochs: loss {first:.2f} at first, {last:.2f} at last"
        )
        return encoder, head.eval()
