from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn import functional

from compress.data.dataset import Split
from compress.errors import ModelError
from compress.known import Known
from compress.models.encoders import load_encoder
from compress.models.evaluate import predict_rows
from compress.models.loading import load_config, load_model, load_tokenizer, save_model
from compress.models.tokens import tokenize
from compress.prune.heads import PruneHeads
from compress.prune.whitening import Whitening, folded, unnormalized, whitening
from compress.student.cnn import Cnn
from compress.tasks.classification import Classification
from compress.tasks.vectors import SentenceVectors
from tests.conftest import reviews, save_tiny

TASK = SentenceVectors(0, 5, 16, "mean")


def correlated(rows: int = 200, width: int = 6) -> np.ndarray:
    generator = np.random.default_rng(0)
    return generator.normal(size=(rows, width)) @ generator.normal(size=(width, width)) + 3.0


def test_whitened_vectors_have_mean_zero_and_the_identity_as_covariance() -> None:
    vectors = correlated()
    mean, kernel, kept = whitening(vectors, 6)
    white = (vectors - mean) @ kernel
    np.testing.assert_allclose(white.mean(0), 0, atol=1e-9)
    np.testing.assert_allclose(white.T @ white / len(white), np.eye(6), atol=1e-9)
    assert kept == pytest.approx(1.0)
    _, fewer, _ = whitening(vectors, 2)
    np.testing.assert_array_equal(fewer, kernel[:, :2])


def test_principal_components_keep_distances_and_most_of_the_variance() -> None:
    vectors = correlated()
    mean, kernel, _ = whitening(vectors, 6, scale=False)
    turned = (vectors - mean) @ kernel
    np.testing.assert_allclose(
        np.linalg.norm(turned[1:] - turned[:-1], axis=1), np.linalg.norm(np.diff(vectors, axis=0), axis=1)
    )
    variances = turned.var(0)
    assert (np.diff(variances) < 0).all()
    *_, kept = whitening(vectors, 2, scale=False)
    assert kept == pytest.approx(variances[:2].sum() / vectors.var(0).sum())


def test_more_dimensions_than_texts_vary_in_are_refused() -> None:
    with pytest.raises(ModelError, match=r"whitening\.dimensions = 6: 4 texts vary in only 3 directions"):
        whitening(correlated(rows=4), 6)


@pytest.mark.parametrize("kind", ["bert", "cnn"])
def test_the_map_is_folded_into_the_model_which_saves_and_reloads(tmp_path: Path, kind: str) -> None:
    folder = save_tiny(tmp_path / "encoder")
    model, tokenizer = (
        load_encoder(folder, load_config(folder), TASK.head_config(), trained=False),
        load_tokenizer(folder),
    )
    if kind == "cnn":
        model = Cnn(filters=6, widths=[1, 2]).build(model)
    tokens = tokenize(Split([text for _, text in reviews(60, 1)]), tokenizer, 16)
    before = predict_rows(model, tokens)
    vectors = unnormalized(model, tokens)
    assert (predict_rows(model, tokens) == before).all()
    np.testing.assert_allclose(before, vectors / np.linalg.norm(vectors, axis=1, keepdims=True), atol=1e-6)
    mean, kernel, _ = whitening(vectors, 3, scale=kind == "bert")
    (tmp_path / "white").mkdir()
    save_model(folded(model, mean, kernel), tokenizer, tmp_path / "white")
    expected = functional.normalize(torch.from_numpy((vectors.astype(np.float64) - mean) @ kernel), dim=-1)
    np.testing.assert_allclose(predict_rows(load_model(tmp_path / "white"), tokens), expected, atol=2e-4)
    assert (predict_rows(model, tokens) == before).all()
    if kind == "bert":  # for sentence-transformers
        assert (tmp_path / "white" / "2_Dense" / "model.safetensors").is_file()


def test_whitening_comes_last_and_is_for_vectors_that_are_wide_enough() -> None:
    stage = Whitening(dimensions=8)
    assert not list(stage.faults(Known(task=TASK, stages={"heads": PruneHeads(), "whitening": stage})))
    (fault,) = stage.faults(Known(task=TASK, stages={"whitening": stage, "heads": PruneHeads()}))
    assert "a later stage trains the student" in str(fault)
    (fault,) = Whitening(dimensions=17).faults(Known(task=TASK))
    assert "more than the 16 dimensions" in str(fault)
    (fault,) = stage.faults(Known(task=Classification(("a", "b"))))
    assert "is for vectors of texts" in str(fault)
