"""A pretrained model that reads the domain's texts before it is fine-tuned: masked language modelling, whole words."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from compress.data.corpus import corpus_faults, read_corpus
from compress.data.dataset import Dataset, Split
from compress.errors import DataError, Fault, ModelError
from compress.families.base import has_submodule
from compress.families.language_head import (
    LanguageHead,
    fills_masks,
    has_language_head,
    head_of_model,
    put_head,
    types_that_fill_masks,
)
from compress.families.registry import family_of
from compress.known import NOTHING, Known
from compress.models.device import device
from compress.models.loading import content_of, load_any_masked_lm, load_config, load_model, load_tokenizer, save_model
from compress.models.shared_words import first_tokens
from compress.models.tokens import Tokens, tokenize
from compress.pipeline.plan import Plan
from compress.pipeline.state import State
from compress.pipeline.workshop import SCRATCH, Kind, Product
from compress.settings import at_least, between
from compress.tasks.heads import IDLE_HEAD
from compress.train import Training, fit, planned, same_randomness
from compress.train.masking import Masking, masking_of
from compress.train.word_prediction import WordPrediction, encoder_of

MASKED_LM = "masked_lm"
WAYS = (MASKED_LM,)
"""How a teacher can be adapted to a domain."""


@dataclass(kw_only=True)
class MaskedWords(Training):
    """Masked language modelling of the domain's texts, all weights trained (Gururangan et al., arXiv:2004.10964)."""

    epochs: float = 1.0  # passes over the texts
    corpus: str | None = None  # a text file, one row per line; default: the run's training and unlabelled rows
    rows: int | None = None  # a seeded sample of the texts; default: all
    masked_share: float = 0.15  # share of words that are hidden and predicted
    whole_words: bool = True  # hide all pieces of a word together; without spaces, data.words says what a word is
    head_epochs: float = 0.0  # epochs to train a head for a model without one; 0: such a model is refused

    def faults(self, known: Known = NOTHING) -> Iterator[Fault]:
        """Check ranges, and that a corpus is a text file."""
        yield from super().faults()
        if self.corpus is not None:
            yield from corpus_faults("corpus", self.corpus)
            if known.reading and not any(corpus_faults("corpus", self.corpus)):
                try:
                    read_corpus(self.corpus)
                except DataError as error:
                    yield Fault("corpus", self.corpus, str(error).rstrip("."))
        yield from at_least(self, "rows", 1)
        yield from between(self, "masked_share", 0, 1, open_low=True, open_high=True)
        yield from at_least(self, "head_epochs", 0)
        if self.early_stopping:
            rule = "has no metric here, for texts without labels"
            yield Fault("early_stopping", self.early_stopping, rule, "Set it to 0.")

    def without_texts(self, data: Dataset) -> Iterator[Fault]:
        """Yield that there is nothing to adapt to, where there are only rows that fine-tuning reads anyway."""
        if self.corpus is None and data.unlabelled is None:
            rule = "needs texts of the domain, and the run has no unlabelled rows"
            yield Fault("adapt", [MASKED_LM], rule, "Give data.unlabelled, or a text file as teacher.masked_lm.corpus.")

    def check(self, name: str, source: str, config: Any, tokenizer: Any) -> None:
        """Raise ModelError for a pretrained model that cannot fill masks."""
        if not fills_masks(config):
            raise ModelError(
                f"teacher.adapt = [{MASKED_LM}]: {name} is of type {config.model_type}, of which no masked language "
                f"model is known. Supported: {', '.join(types_that_fill_masks())}."
            )
        if tokenizer.mask_token_id is None:
            raise ModelError(f"teacher.adapt = [{MASKED_LM}]: the tokenizer of {name} has no mask token. Leave it out.")
        if self.head_epochs == 0 and not has_language_head(source, config):
            raise ModelError(
                f"teacher.adapt = [{MASKED_LM}]: {name} has no masked-language-model head (architectures: "
                f"{config.architectures}). Name a model that has one, or train a head on the texts first: set "
                "teacher.masked_lm.head_epochs, for example to 1."
            )

    def texts(self, state: State | Plan) -> Split:
        """Return the rows to read, without labels."""
        rows = replace(state.data.transfer, labels=None) if self.corpus is None else read_corpus(self.corpus)
        if self.rows is None or self.rows >= len(rows):
            return rows
        return rows.take(np.sort(np.random.default_rng(state.seed).choice(len(rows), self.rows, replace=False)))

    def planned(self, plan: Plan, source: str) -> Plan:
        """Return the plan with the adaptation, and before it the training of a head where there is none."""
        config, rows = load_config(source), self.texts(plan)
        tokens = plan.tokens(rows)
        if not has_language_head(source, config):
            head = replace(self, epochs=self.head_epochs)
            plan = planned(plan, "teacher, masked LM head", rows, head, learner=config, tokens=tokens)
        return planned(plan, "teacher, masked LM", rows, self, learner=config, tokens=tokens)

    def adapted(self, state: State, source: str, max_tokens: int) -> Product:
        """Return the folder of the adapted masked language model, from which a classifier can start."""
        rows = self.texts(state)

        def work(folder: Path) -> dict[str, Any]:
            tokenizer = load_tokenizer(source)
            tokens = tokenize(rows, tokenizer, max_tokens)
            words = first_tokens(rows, tokenizer, max_tokens, state.data.words) if self.whole_words else None
            masking = replace(masking_of(tokenizer, self.masked_share, state.seed), words=words)
            with same_randomness():
                torch.manual_seed(state.seed)  # a missing head and a missing pooler start from it
                model, _ = load_any_masked_lm(source)
                head = head_of_model(model)
                whole = load_model(source, head=IDLE_HEAD)
            for part in (model, head):
                nn.Module.to(part, device())
            before = [] if has_language_head(source, model.config) else self._head(model, head, masking, tokens, folder)
            curves = fit(
                WordPrediction(encoder_of(model), head, masking), tokens, self, seed=state.seed,
                folder=folder / SCRATCH, title="teacher, masked LM", validate=dict,
            )  # fmt: skip
            put_head(head, model)
            family = family_of(model.config)
            if has_submodule(whole, f"{family.encoder}.{family.pooler}"):  # which masked language models leave out
                setattr(model.base_model, family.pooler, whole.base_model.get_submodule(family.pooler))
            save_model(model.cpu(), tokenizer, folder)
            return {"head_curves": before, "curves": curves, "truncated": tokens.truncated}

        made_with = [
            self.made_with(),
            content_of(source, load_config(source)),
            rows.fingerprint,
            max_tokens,
            state.seed,
            *(state.data.words.key if self.whole_words else []),
        ]
        return state.workshop.make(Kind("adapted_teacher", revision=2), made_with, work)

    def _head(
        self, model: Any, head: LanguageHead, masking: Masking, tokens: Tokens, folder: Path
    ) -> list[dict[str, float]]:
        """Train a head that the model lacks, alone."""
        settings = replace(self, epochs=self.head_epochs, freeze=[], layer_decay=1.0)
        return fit(
            WordPrediction(encoder_of(model), head, masking, head_alone=True), tokens, settings, seed=masking.seed,
            folder=folder / SCRATCH / "head", title="teacher, masked LM head", validate=dict,
        )  # fmt: skip

    def note(self, state: State, product: Product) -> str:
        """Return what was done, in words."""
        losses = [point["loss"] for point in product.record["curves"] if "loss" in point]
        rows = self.texts(state)
        cut = product.record["truncated"]
        return (
            f"adapted before by masked language modelling of {len(rows):,} texts"
            + (f", {cut:,} of them cut" if cut else "")
            + (f": loss {losses[0]:.2f} at first, {losses[-1]:.2f} at last" if losses else "")
        )

    def made_with(self) -> Any:
        """Of a corpus the content counts, which is added, not where it lies."""
        return {name: value for name, value in super().made_with().items() if name not in ("corpus", "rows")}
