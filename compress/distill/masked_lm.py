"""DistilBERT's distillation: masked language modelling with the pretrained teacher's word probabilities."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from compress.distill.language_teacher import LanguageTraining
from compress.distill.losses import cosine_loss
from compress.errors import Fault
from compress.families.language_head import LanguageHead, word_embeddings
from compress.known import NOTHING, Known
from compress.models.device import device
from compress.models.loading import load_config, load_model, load_tokenizer, save_model
from compress.models.tokens import Tokens, tokenize
from compress.pipeline.plan import Plan, Rehearsal
from compress.pipeline.state import State
from compress.pipeline.workshop import SCRATCH, Kind
from compress.settings import at_least, between, positive
from compress.tasks.functions import hard_label_loss, soft_target_loss
from compress.tasks.heads import IDLE_HEAD, with_head
from compress.train import Objective, Whole, fit, planned, same_randomness
from compress.train.masking import HIDDEN, Masking, masking_of
from compress.train.word_prediction import encoder_of, states_of


class Positions(Enum):
    """real: every token that is not padding; masked: those that were chosen to be predicted."""

    real = "real"
    masked = "masked"


@dataclass(kw_only=True)
class MaskedLM(LanguageTraining):
    """Masked language modelling with soft targets and aligned last states (DistilBERT, arXiv:1910.01108).

    The pretrained teacher reads the same masked rows. Weights, temperature and the positions of the soft targets
    are those of the authors' code, and so is that rare words are hidden more often; each token is chosen on its
    own, where theirs chooses the same number in every batch. The student's head starts from the teacher's, is tied
    to the student's word embeddings and is thrown away with the stage.
    """

    learning_rate: float = 5e-4  # AdamW's, at its highest
    soft_weight: float = 5.0  # of T² KL(teacher || student) over the vocabulary
    labels_weight: float = 2.0  # of cross-entropy with the hidden words
    cosine_weight: float = 1.0  # of one minus the cosine of the last hidden states
    temperature: float = 2.0  # T of the soft targets
    smoothing: float = 0.7  # s: a word piece is hidden with probability ~ count^-s in the corpus; 0: all equal (BERT)
    soft_on: Positions = Positions.real  # positions of the soft targets: real (all tokens) or masked, which is cheaper

    def faults(self, known: Known = NOTHING) -> Iterator[Fault]:
        """Weights are weights, one of them counts, and the student has the teacher's word pieces."""
        yield from super().faults(known)
        weights = ("soft_weight", "labels_weight", "cosine_weight")
        for name in weights:
            yield from at_least(self, name, 0)
        if not any(getattr(self, name) > 0 for name in weights):
            yield Fault("soft_weight", self.soft_weight, "leaves no loss with a weight above 0", "Set it to 5.")
        yield from positive(self, "temperature")
        yield from between(self, "smoothing", 0, 1)
        if getattr(known.student, "own_tokens", False) and not known.only_answers:
            rule = "predicts the teacher's word pieces, and the student has its own"
            yield Fault("soft_weight", self.soft_weight, rule, "Use prepare=[dual], or leave out student.vocabulary.")

    def plan(self, plan: Plan) -> Plan:
        """A head for a teacher that has none, then one training on the texts."""
        rows, source = self.texts(plan), self.source(plan.pretrained)
        tokens = plan.tokens(rows, max_tokens=self.max_tokens)
        teacher, masking = with_head(load_config(source), IDLE_HEAD), self._masking(tokens, plan.tokenizer, plan.seed)

        def objective(student: PreTrainedModel, taught_by: PreTrainedModel | None, _: Tokens) -> MaskedDistillation:
            assert taught_by is not None
            head = LanguageHead(teacher).to(student.device)
            return MaskedDistillation(student, encoder_of(taught_by), head, masking, self)

        return planned(
            self.planned_head(plan, source, tokens), "masked LM", rows, self, learner=plan.student, teacher=teacher,
            tokens=tokens, more=self.more(plan), rehearsal=Rehearsal(objective=objective),
        )  # fmt: skip

    def _masking(self, tokens: Tokens, tokenizer: Any, seed: int) -> Masking:
        counts = np.bincount(tokens.columns["input_ids"], minlength=len(tokenizer))
        return masking_of(tokenizer, self.masked_share, seed, counts, self.smoothing)

    def __call__(self, state: State) -> State:
        """Return the state with the student's encoder trained."""
        start, source, rows = state.given_student, self.source(state.pretrained), self.texts(state)

        def work(folder: Path) -> dict[str, Any]:
            student, tokenizer = load_model(start.folder, on=device()), load_tokenizer(start.folder)
            tokens = tokenize(rows, tokenizer, self.max_tokens or tokenizer.model_max_length)
            notes = [f"{tokens.truncated:,} rows were longer and were cut"] if tokens.truncated else []
            encoder, head = self.language_teacher(state, source, lambda: tokens, tokenizer, notes)
            masking = self._masking(tokens, tokenizer, state.seed)
            with same_randomness():
                torch.manual_seed(state.seed)  # what the head does not have from the teacher's, and the projection
                objective = MaskedDistillation(student, encoder, head, masking, self)
            curves = fit(
                objective, tokens, self, seed=state.seed, folder=folder / SCRATCH, title="masked LM", validate=dict
            )
            save_model(student.cpu(), tokenizer, folder)
            return {"curves": curves, "notes": notes}

        made_with = [self.made_with(), start.key, self.source_key(source), rows.fingerprint, state.seed]
        product = state.workshop.make(Kind("masked_lm", revision=3), made_with, work)
        return self.handed_on(state, product, rows)


class MaskedDistillation(Objective):
    """The student's encoder under a masked-language-model head, beside the teacher that reads the same rows.

    Only the classifier's encoder is run, so its own head is not reached by any loss. Where widths differ, the
    student's states go through a learned projection before they are compared.
    """

    def __init__(
        self,
        student: PreTrainedModel,
        teacher: PreTrainedModel,
        teacher_head: LanguageHead,
        masking: Masking,
        settings: MaskedLM,
    ) -> None:
        super().__init__()
        self.student, self.masking, self.settings = student, masking, settings
        self.frozen = (teacher, teacher_head)  # in a tuple: no part of this module, not trained, not saved
        self.head = LanguageHead(student.config)
        self.head.start_from(teacher_head)
        self.head.to(student.device)
        self.projection: nn.Linear | None = None
        if student.config.hidden_size != teacher.config.hidden_size:
            projection = nn.Linear(student.config.hidden_size, teacher.config.hidden_size, bias=False)
            self.projection = projection.to(student.device)

    @property
    def trained(self) -> PreTrainedModel:
        """The student."""
        return self.student

    @property
    def indivisible(self) -> str:
        """Empty: tokens are compared one by one."""
        return ""

    def sizes(self, batch: Mapping[str, Tensor], progress: float) -> Mapping[str, int]:
        """Return the number of tokens that each loss compares."""
        return self._sizes(batch["attention_mask"], self.masking(batch, progress)[1])

    def _sizes(self, mask: Tensor, labels: Tensor) -> dict[str, int]:
        hidden, real = int((labels != HIDDEN).sum()), int(mask.bool().sum())
        return {"soft": real if self.settings.soft_on is Positions.real else hidden, "labels": hidden, "cosine": real}

    def forward(
        self, batch: Mapping[str, Tensor], progress: float, whole: Whole | None = None
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the weighted sum of the three losses and the value of each."""
        teacher, teacher_head = self.frozen
        ids, labels = self.masking(batch, progress)
        mask = batch["attention_mask"]
        where = mask.bool() if self.settings.soft_on is Positions.real else labels != HIDDEN
        ours = states_of(self.student.base_model, batch, ids)
        with torch.no_grad(), torch.autocast(mask.device.type, enabled=False):
            theirs = states_of(teacher, batch, ids)
            targets = teacher_head(theirs[where], word_embeddings(teacher))
        logits = self.head(ours[where], word_embeddings(self.student))
        found = bool(where.any())
        projected = ours if self.projection is None else self.projection(ours)
        parts = {
            "soft": soft_target_loss(logits, targets, self.settings.temperature) if found else ours.sum() * 0,
            "labels": hard_label_loss(logits, labels[where]),
            "cosine": cosine_loss(projected, theirs, mask),
        }
        if whole is not None:
            sizes = self._sizes(mask, labels)
            parts = {name: part * whole.share(name, sizes[name]) for name, part in parts.items()}
        weights = {name: getattr(self.settings, f"{name}_weight") for name in parts}
        return torch.stack([weights[name] * part for name, part in parts.items()]).sum(), parts
