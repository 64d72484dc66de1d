"""Dual training: teacher and small-vocabulary student learn together, the teacher from both vocabularies."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedModel

from compress.distill.dual_objective import DualObjective
from compress.distill.language_teacher import LanguageTraining
from compress.distill.mixing import SharedWords, words_of
from compress.errors import Fault
from compress.families.language_head import LanguageHead, fills_masks
from compress.families.registry import UNEVEN, family_of, layer_count
from compress.known import NOTHING, Known
from compress.models.device import device
from compress.models.loading import load_config, load_model, load_tokenizer, save_model
from compress.models.positions import longest_row
from compress.models.tokens import Tokens, tokenize
from compress.pipeline.plan import Plan, Rehearsal
from compress.pipeline.state import State
from compress.pipeline.workshop import SCRATCH, Kind
from compress.settings import at_least, between
from compress.student.layer_map import layer_map, layer_map_faults
from compress.tasks.heads import IDLE_HEAD, with_head
from compress.train import fit, planned, same_randomness
from compress.train.word_prediction import encoder_of


class ProjectedSide(Enum):
    """up: student's parameters to the teacher's shapes; down: the other way; none: no projection loss."""

    up = "up"
    down = "down"
    none = "none"


@dataclass(kw_only=True)
class Dual(LanguageTraining):
    """Word pieces of the student's own, learned inside the teacher (Zhao et al., arXiv:1909.11687, version 1).

    The teacher reads each word in the student's pieces with a probability, else in its own, and both models do
    masked language modelling; shared projections bring their parameters together. Both learn. The teacher and
    both heads are thrown away with the stage.
    """

    learning_rate: float = 1e-4  # AdamW's, at its highest
    student_words: float = 0.5  # p_DT, the probability that the teacher reads a word in the student's pieces
    projected: ProjectedSide = ProjectedSide.up  # parameters that are projected in the loss on them: up, down, none
    masked_lm_weight: float = 100.0  # epsilon, of both masked-LM losses; the projection loss sums over all parameters
    layer_map: Any = None  # uniform, skip, first, last, or teacher layers as [2,4,6]; default: the student's own

    def faults(self, known: Known = NOTHING) -> Iterator[Fault]:
        """Probabilities are probabilities, the layer map is known, and the student has word pieces of its own."""
        yield from super().faults(known)
        yield from between(self, "student_words", 0, 1)
        yield from at_least(self, "masked_lm_weight", 0)
        if self.layer_map is not None:
            yield from layer_map_faults("layer_map", self.layer_map)
        if self.masked_lm_weight == 0 and self.projected is ProjectedSide.none:
            yield Fault("masked_lm_weight", 0, "leaves no loss with a weight above 0", "Set it to 1.")
        student = None if known.only_answers else known.student
        if student is not None and fills_masks(student, UNEVEN) and not getattr(student, "own_tokens", False):
            rule = "mixes two vocabularies, and the student has the teacher's"
            yield Fault("student_words", self.student_words, rule, "Set student.vocabulary, for example to 4928.")

    def _cannot_teach(self, source: str, config: Any, student: Any) -> Iterator[Fault]:
        """Yield a pretrained model whose layers or positions do not fit the student's."""
        yield from super()._cannot_teach(source, config, student)
        if family_of(config) != family_of(student):
            yield Fault("teacher", self.teacher, f"is of type {config.model_type}, the student {student.model_type}")
        elif self.projected is not ProjectedSide.none and any(p.holds > 1 for p in family_of(student).projections()):
            rule = f"cannot bring the fused layers of a {student.model_type} to another width"
            yield Fault("projected", self.projected.value, rule, "Set it to none.")
        elif longest_row(config) != longest_row(student):
            yield Fault("teacher", self.teacher, "has another number of positions than the student")
        else:
            try:
                self.layers(student, config)
            except ValueError as error:
                yield Fault("layer_map", self.layer_map, str(error))

    def layers(self, student: Any, teacher: Any) -> tuple[int, ...]:
        """Return the teacher's layer, counted from 1, for each of the student's."""
        choice = self.layer_map or getattr(student, "teacher_layers", None) or "uniform"
        return layer_map(choice, layer_count(student), layer_count(teacher))

    def plan(self, plan: Plan) -> Plan:
        """A head for a teacher that has none, then one training of both models on the texts."""
        rows, source = self.texts(plan), self.source(plan.pretrained)
        most = self.max_tokens or plan.max_tokens
        theirs, ours = load_tokenizer(source), plan.tokenizer
        words, teacher = words_of(rows, theirs, ours, most), with_head(load_config(source), IDLE_HEAD)

        def objective(student: PreTrainedModel, taught_by: PreTrainedModel | None, _: Tokens) -> DualObjective:
            assert taught_by is not None
            head = LanguageHead(teacher).to(student.device)
            return self._objective(student, encoder_of(taught_by), head, words, (theirs, ours), plan.seed)

        return planned(
            self.planned_head(plan, source, plan.tokens(rows, theirs, most)), "dual", rows, self, learner=plan.student,
            teacher=teacher, tokens=words.tokens(ours), more=self.more(plan), rehearsal=Rehearsal(objective=objective),
        )  # fmt: skip

    def _objective(
        self, student: PreTrainedModel, encoder: PreTrainedModel, head: LanguageHead, words: SharedWords,
        tokenizers: tuple[Any, Any], seed: int,
    ) -> DualObjective:  # fmt: skip
        return DualObjective(
            student, encoder, head, words, tokenizers, self.layers(student.config, encoder.config),
            share=self.masked_share, student_words=self.student_words, weight=self.masked_lm_weight,
            projected=self.projected.value, seed=seed,
        )  # fmt: skip

    def __call__(self, state: State) -> State:
        """Return the state with the student's encoder trained."""
        start, source, rows = state.given_student, self.source(state.pretrained), self.texts(state)

        def work(folder: Path) -> dict[str, Any]:
            student, tokenizer = load_model(start.folder, on=device()), load_tokenizer(start.folder)
            theirs, most = load_tokenizer(source), self.max_tokens or tokenizer.model_max_length
            words = words_of(rows, theirs, tokenizer, most)
            notes = [f"{words.cut:,} rows were longer and were cut"] if words.cut else []
            encoder, head = self.language_teacher(state, source, lambda: tokenize(rows, theirs, most), theirs, notes)
            with same_randomness():
                torch.manual_seed(state.seed)  # the student's head and the projections start from it
                objective = self._objective(student, encoder, head, words, (theirs, tokenizer), state.seed)
            curves = fit(
                objective, words.tokens(tokenizer), self, seed=state.seed, folder=folder / SCRATCH,
                title="dual", validate=dict,
            )  # fmt: skip
            save_model(student.cpu(), tokenizer, folder)
            return {"curves": curves, "notes": notes}

        made_with = [self.made_with(), start.key, self.source_key(source), rows.fingerprint, state.seed]
        product = state.workshop.make(Kind("dual", revision=1), made_with, work)
        return self.handed_on(state, product, rows)
