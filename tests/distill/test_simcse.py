from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from compress.data.dataset import Dataset, Split
from compress.distill.simcse import Contrast, SimCse, contrastive_loss
from compress.known import Known
from compress.models.encoders import load_encoder
from compress.models.evaluate import predict_rows
from compress.models.loading import load_config, load_model, save_model
from compress.models.tokens import tokenize
from compress.pipeline.model import Model
from compress.pipeline.state import State
from compress.pipeline.workshop import Workshop
from compress.tasks.classification import Classification
from compress.tasks.vectors import SentenceVectors
from tests.conftest import reviews, save_tiny, tiny_batch, tiny_tokenizer

TASK = SentenceVectors(0, 5, 16, "mean")


def test_the_loss_is_that_of_a_loop_over_texts() -> None:
    generator = torch.Generator().manual_seed(0)
    first, second = (torch.randn(5, 4, generator=generator) for _ in range(2))
    by_hand = []
    for row in range(5):
        cosines = torch.stack([torch.cosine_similarity(first[row], other, dim=0) for other in second])
        by_hand.append(-(cosines[row] / 0.05 - torch.logsumexp(cosines / 0.05, 0)))
    torch.testing.assert_close(contrastive_loss(first, second, 0.05), torch.stack(by_hand).mean())


def test_both_readings_differ_by_dropout_alone(tmp_path: Path) -> None:
    folder = save_tiny(tmp_path / "encoder")
    model = load_encoder(folder, load_config(folder), TASK.head_config(), trained=False)
    objective, batch = Contrast(model, 0.05), tiny_batch()
    objective.eval()
    once = model(**{name: batch[name] for name in ("input_ids", "attention_mask")}).logits
    torch.testing.assert_close(objective(batch, 0.0)[0], contrastive_loss(once, once, 0.05))
    objective.train()
    torch.manual_seed(0)
    assert abs(objective(batch, 0.0)[0].item() - contrastive_loss(once, once, 0.05).item()) > 1e-3


def test_texts_are_told_apart_afterwards(tmp_path: Path) -> None:
    folder = save_tiny(tmp_path / "encoder")
    model = load_encoder(folder, load_config(folder), TASK.head_config(), trained=False)
    (tmp_path / "student").mkdir()
    save_model(model, tiny_tokenizer(), tmp_path / "student")
    texts = [text for _, text in reviews(120, 1)]
    labels = TASK.parted(np.linspace(0, 5, 60), np.arange(60.0), np.arange(120.0).reshape(60, 2))
    split = Split(texts, labels=labels, grouped=True)
    workshop = Workshop(tmp_path / "cache")
    data = Dataset("pairs", TASK, split, split.take(np.arange(20)), split)
    state = State.begin(data, workshop, 0, student=Model(tmp_path / "student", "s"))
    after = SimCse(epochs=4, batch_size=16, learning_rate=1e-3)(state)

    def spread(folder: Path) -> float:
        vectors = predict_rows(load_model(folder), tokenize(split, tiny_tokenizer(), 32))
        return float((vectors @ vectors.T).mean())

    assert spread(after.given_student.folder) < spread(tmp_path / "student") - 0.05  # uniformity
    assert "validation_spearman" in after.records[-1].curves[-1] or len(after.records[-1].curves) > 1


def test_it_needs_vectors_and_negatives() -> None:
    (fault,) = SimCse().faults(Known(task=Classification(("a", "b"))))
    assert "learns vectors of texts" in str(fault)
    (fault,) = SimCse(batch_size=1).faults(Known(task=TASK))
    assert "batch_size" in str(fault)
