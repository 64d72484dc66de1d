"""General distillation: the student's layers learn from the pretrained teacher's, on texts without labels."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from compress.distill.layers import LayerTraining
from compress.distill.on_corpus import OnCorpus
from compress.distill.projections import keep
from compress.errors import Fault
from compress.known import Known
from compress.models.device import device
from compress.models.loading import load_config, load_model, load_tokenizer, save_model
from compress.models.tokens import tokenize
from compress.pipeline.model import Model
from compress.pipeline.plan import Plan
from compress.pipeline.state import State
from compress.pipeline.workshop import SCRATCH, Kind
from compress.tasks.heads import IDLE_HEAD, with_head
from compress.train import fit, planned, same_randomness


@dataclass(kw_only=True)
class General(OnCorpus, LayerTraining):
    """Losses inside the models, from the pretrained teacher (TinyBERT's general stage, arXiv:1909.10351).

    No prediction is distilled. Where widths differ, states go through projections that are learned here and
    go on in the next stage. With ``losses=[relations]`` or ``[minilm]`` it is what MiniLM does on its corpus.
    """

    learning_rate: float = 1e-4  # AdamW's, at its highest

    def _cannot_teach(self, source: str, config: Any, student: Any) -> Iterator[Fault]:
        """Yield losses and layer maps that the student and the pretrained model cannot serve."""
        if not any(self.faults()):
            plain = replace(self.distill(), freeze=[], layer_decay=1.0)  # of the student, which are reported already
            yield from plain.faults(Known(student=student, teacher=config))

    def plan(self, plan: Plan) -> Plan:
        """One training on the texts."""
        rows, teacher = self.texts(plan), with_head(load_config(self.source(plan.pretrained)), IDLE_HEAD)
        tokens = plan.tokens(rows, max_tokens=self.max_tokens)
        rehearsal = self.distill().rehearsal(plan, teacher, self.epochs)
        return planned(
            plan, "general", rows, self, learner=plan.student, teacher=teacher, tokens=tokens, more=self.more(plan),
            rehearsal=rehearsal,
        )  # fmt: skip

    def __call__(self, state: State) -> State:
        """Return the state with the student's encoder trained."""
        start, source, rows = state.given_student, self.source(state.pretrained), self.texts(state)
        origin = Model(Path(source), self.source_key(source))

        def work(folder: Path) -> dict[str, Any]:
            student, tokenizer = load_model(start.folder, on=device()), load_tokenizer(start.folder)
            theirs, most = load_tokenizer(source), self.max_tokens or tokenizer.model_max_length
            tokens = tokenize(rows, tokenizer, most)
            notes = [f"{tokens.truncated:,} rows were longer and were cut"] if tokens.truncated else []
            with same_randomness():
                torch.manual_seed(state.seed)  # the projections start from it, and a head that nobody reads
                teacher = load_model(source, head=IDLE_HEAD, on=device())
                words = self.distill().words(student, rows, (tokenizer, theirs), (most, most))
                taught = tokens if words is None else tokenize(rows, theirs, most)
                objective = self.distill().comparison(
                    state.workshop, origin, teacher, taught, student, self.epochs, notes, words=words
                )
            curves = fit(
                objective, tokens, self, seed=state.seed, folder=folder / SCRATCH, title="general", validate=dict
            )
            save_model(student.cpu(), tokenizer, folder)
            keep(objective.projections, folder)
            return {"curves": curves, "notes": notes}

        made_with = [self.made_with(), start.key, origin.key, rows.fingerprint, state.seed]
        product = state.workshop.make(Kind("general", revision=3), made_with, work)
        return self.handed_on(state, product, rows)
