"""The losses of dual training: two masked language models, and their parameters under shared projections."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from compress.distill.mixing import SharedWords
from compress.families.language_head import LanguageHead, word_embeddings
from compress.families.registry import family_of
from compress.models.outputs import INPUTS
from compress.models.word_pieces import started_pieces
from compress.tasks.functions import hard_label_loss
from compress.train import Objective, Whole
from compress.train.masking import HIDDEN, generator_of, masked, masking_of
from compress.train.word_prediction import states_of

WORDS, PIECES = 1, 2  # purposes of random numbers: which words are the student's, which pieces are hidden


class DualTeacher(nn.Module):
    """A masked language model that reads and predicts the pieces of two vocabularies.

    Numbers from ``own`` on are the student's pieces; their embeddings start as the mean of the teacher's for the
    same characters. Each vocabulary has its own softmax: a hidden piece is predicted among those of its kind.
    """

    def __init__(self, encoder: PreTrainedModel, head: LanguageHead, teacher: Any, student: Any) -> None:
        super().__init__()
        known = encoder.get_input_embeddings()
        assert isinstance(known, nn.Embedding)
        self.own = known.num_embeddings
        joint = nn.Embedding(self.own + len(student), known.embedding_dim, padding_idx=known.padding_idx)
        with torch.no_grad():
            start = started_pieces(known.weight, teacher, student)
            joint.weight.copy_(torch.cat([known.weight, start]))
        encoder.set_input_embeddings(joint.to(known.weight.device))
        self.encoder, self.head = encoder, head
        self.student_bias = nn.Parameter(torch.zeros(len(student), device=known.weight.device))

    @property
    def student_embeddings(self) -> Tensor:
        """The embeddings of the student's pieces (pieces, width)."""
        return word_embeddings(self.encoder)[self.own :]

    def forward(self, batch: Mapping[str, Tensor], labels: Tensor) -> Tensor:
        """Return cross-entropy of the hidden pieces, mean over both vocabularies; labels (batch, tokens)."""
        states = states_of(self.encoder, batch, batch["input_ids"])
        theirs = (labels != HIDDEN) & (labels < self.own)
        ours = labels >= self.own
        logits = self.head(states[theirs], word_embeddings(self.encoder)[: self.own])
        own = nn.functional.linear(self.head.features(states[ours]), self.student_embeddings, self.student_bias)
        counts = [int(theirs.sum()), int(ours.sum())]
        total = hard_label_loss(logits, labels[theirs]) * counts[0]
        total = total + hard_label_loss(own, labels[ours] - self.own) * counts[1]
        mean: Tensor = total / max(1, sum(counts))
        return mean


class Projections(nn.Module):
    """Sum of squared differences between student's and teacher's parameters, brought to one shape.

    down: ||U θ_t V - θ_s||²; up: ||U θ_s V - θ_t||², vectors with U alone (Zhao et al., arXiv:1909.11687, section
    3.2). There is one U and one V for each pair of sizes, shared by all layers and parameters; a size that both
    models share is not projected. They start orthogonal.
    """

    def __init__(self, pairs: Sequence[tuple[Tensor, Tensor]], sizes: set[tuple[int, int]], *, up: bool) -> None:
        super().__init__()
        self.up = up
        self.matrices = nn.ParameterDict()
        device = pairs[0][0].device
        for student, teacher in pairs:
            for side, size in zip(("left", "right"), zip(student.shape, teacher.shape, strict=True), strict=False):
                if size[0] != size[1] and size not in sizes:
                    raise ValueError(f"parameters of shapes {tuple(student.shape)} and {tuple(teacher.shape)}")
                name = self._name(side, *size)
                if size[0] != size[1] and name not in self.matrices:
                    matrix = nn.init.orthogonal_(torch.empty(*size))  # (student, teacher)
                    self.matrices[name] = nn.Parameter(matrix.to(device))

    @staticmethod
    def _name(side: str, student: int, teacher: int) -> str:
        return f"{side}_{student}_{teacher}"

    def forward(self, pairs: Sequence[tuple[Tensor, Tensor]]) -> Tensor:
        """Return the loss of (student's, teacher's) parameters."""
        return torch.stack([self._difference(*pair).square().sum() for pair in pairs]).sum()

    def _difference(self, student: Tensor, teacher: Tensor) -> Tensor:
        moved, goal = (student, teacher) if self.up else (teacher, student)
        for axis, side in zip(range(moved.dim()), ("left", "right"), strict=False):
            name = self._name(side, student.shape[axis], teacher.shape[axis])
            if student.shape[axis] != teacher.shape[axis]:
                matrix = self.matrices[name].T if self.up else self.matrices[name]  # (to, from)
                moved = torch.tensordot(matrix, moved, dims=([1], [axis]))
                moved = moved if axis == 0 else moved.transpose(0, 1)
        return moved - goal


class DualObjective(Objective):
    """Projection loss + weight x (masked-LM loss of the teacher on mixed rows + that of the student on its own)."""

    def __init__(
        self,
        student: PreTrainedModel,
        encoder: PreTrainedModel,
        head: LanguageHead,
        words: SharedWords,
        tokenizers: tuple[Any, Any],
        layers: Sequence[int],
        *,
        share: float,
        student_words: float,
        weight: float,
        projected: str,
        seed: int,
    ) -> None:
        super().__init__()
        theirs, ours = tokenizers
        self.student, self.teacher = student, DualTeacher(encoder, head, theirs, ours)
        self.head = LanguageHead(student.config)
        self.head.to(student.device)
        self.words, self.layers, self.share, self.weight = words, layers, share, weight
        self.student_words, self.seed = student_words, seed
        self.masking = masking_of(ours, share, seed)
        self.mask, self.pad = theirs.mask_token_id, theirs.pad_token_id
        own = self.teacher.own
        self.special = np.array([*theirs.all_special_ids, *(own + number for number in ours.all_special_ids)])
        self.ends = (np.array([0, own]), np.array([len(theirs), own + len(ours)]))  # by whose piece it is
        self.projections: Projections | None = None
        if projected != "none":
            sizes = set(zip(_widths(student.config), _widths(encoder.config), strict=True))
            self.projections = Projections(self.pairs(), sizes, up=projected == "up")

    @property
    def trained(self) -> PreTrainedModel:
        """The student."""
        return self.student

    def pairs(self) -> list[tuple[Tensor, Tensor]]:
        """Return (student's, teacher's) parameters of both encoders, layers as they are mapped.

        The pooler and what has a column for each head are left out.
        """
        family = family_of(self.student.config)
        encoder = self.teacher.encoder
        known = family.by_layer(encoder.config, dict(encoder.named_parameters()))
        found: list[tuple[Tensor, Tensor]] = []
        for name, own in self.student.base_model.named_parameters():
            place = family.place(name)
            twin = name if place is None else family.moved(name, self.layers[place[0]] - 1)
            if own is word_embeddings(self.student):
                found.append((own, self.teacher.student_embeddings))
            elif twin in known and not family.in_pooler(name) and not twin.endswith(family.tables_by_head()):
                found.append((own, known[twin]))
        return found

    def mixed(self, batch: Mapping[str, Tensor], progress: float) -> tuple[dict[str, Tensor], Tensor]:
        """Return the teacher's batch, words in either vocabulary and pieces hidden, and its labels."""
        rows = []
        for row in batch["rows"].tolist():
            chance = generator_of(self.seed, row, progress, WORDS).random(self.words.count(row))
            ids, own = self.words.mixed(row, chance < self.student_words, self.teacher.own)
            low, high = (ends[own.astype(int)] for ends in self.ends)
            generator = generator_of(self.seed, row, progress, PIECES)
            rows.append(masked(ids, low, high, self.mask, self.share * ~np.isin(ids, self.special), generator))
        width = max(len(ids) for ids, _ in rows)
        ids, labels = np.full((len(rows), width), self.pad), np.full((len(rows), width), HIDDEN)
        mask = np.zeros((len(rows), width), dtype=np.int64)
        for place, (seen, hidden) in enumerate(rows):
            ids[place, : len(seen)], labels[place, : len(seen)], mask[place, : len(seen)] = seen, hidden, 1
        device = batch["input_ids"].device
        made = {name: np.zeros_like(ids) for name in INPUTS if name in batch} | {
            "input_ids": ids, "attention_mask": mask,
        }  # fmt: skip
        return {name: torch.from_numpy(value).to(device) for name, value in made.items()}, torch.from_numpy(labels).to(
            device
        )

    @property
    def indivisible(self) -> str:
        """Empty: pieces are predicted one by one, and every part of a batch has its share of the projection loss."""
        return ""

    def sizes(self, batch: Mapping[str, Tensor], progress: float) -> Mapping[str, int]:
        """Return how many pieces either model predicts, and the number of rows."""
        return self._sizes(self.masking(batch, progress)[1], self.mixed(batch, progress)[1])

    def _sizes(self, labels: Tensor, mixed: Tensor) -> dict[str, int]:
        hidden = {"student_masked_lm": labels, "teacher_masked_lm": mixed}
        sizes = {name: int((values != HIDDEN).sum()) for name, values in hidden.items()}
        return sizes | {"projection": len(labels)}

    def forward(
        self, batch: Mapping[str, Tensor], progress: float, whole: Whole | None = None
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the whole loss and each part's own value."""
        ids, labels = self.masking(batch, progress)
        states, chosen = states_of(self.student.base_model, batch, ids), labels != HIDDEN
        logits = self.head(states[chosen], word_embeddings(self.student))
        own = hard_label_loss(logits, labels[chosen])
        mixed = self.mixed(batch, progress)
        parts = {"student_masked_lm": own, "teacher_masked_lm": self.teacher(*mixed)}
        if self.projections is not None:
            parts["projection"] = self.projections(self.pairs())
        if whole is not None:
            sizes = self._sizes(labels, mixed[1])
            parts = {name: part * whole.share(name, sizes[name]) for name, part in parts.items()}
        loss = self.weight * (parts["student_masked_lm"] + parts["teacher_masked_lm"])
        if "projection" in parts:
            loss = loss + parts["projection"]
        return loss, parts


def _widths(config: Any) -> tuple[int, int, int]:
    """Return the widths of states, of feed-forward networks, and of embeddings that are projected (else 0)."""
    return int(config.hidden_size), family_of(config).unit_count(config), int(getattr(config, "embedding_size", 0))
