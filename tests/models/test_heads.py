"""Outputs of a head: copied, reordered and added without touching what the model computes below them."""

from __future__ import annotations

import pytest
import torch

from compress.models.heads import output_parameters, with_outputs
from compress.models.outputs import observe
from tests.conftest import EVERY_FAMILY, tiny_batch, tiny_model

HEAD = {"id2label": {0: "c", 1: "a", 2: "new"}, "label2id": {"c": 0, "a": 1, "new": 2}, "num_labels": 3}


@pytest.mark.parametrize("family", EVERY_FAMILY)
@torch.no_grad()
def test_outputs_are_taken_over_by_number(family: str) -> None:
    model = tiny_model(family, num_labels=3)
    batch = tiny_batch(family=family)
    before = observe(model, batch).logits
    after = observe(with_outputs(model, HEAD, [2, 0, None]), batch).logits
    torch.testing.assert_close(after[:, :2], before[:, [2, 0]], rtol=0, atol=0)
    assert not torch.allclose(after[:, 2], before[:, 1])
    torch.testing.assert_close(observe(model, batch).logits, before, rtol=0, atol=0)


@pytest.mark.parametrize("family", EVERY_FAMILY)
@torch.no_grad()
def test_one_logit_and_a_zero_give_the_sigmoid_as_probability(family: str) -> None:
    model = tiny_model(family, num_labels=1)
    batch = tiny_batch(family=family)
    two = with_outputs(model, {"num_labels": 2, "problem_type": "single_label_classification"}, [None, 0], zero=True)
    expected = observe(model, batch).logits[:, 0].sigmoid()
    torch.testing.assert_close(observe(two, batch).logits.softmax(-1)[:, 1], expected)
    assert not observe(two, batch).logits[:, 0].any()


def test_only_the_last_layer_grows_with_the_outputs() -> None:
    assert output_parameters(tiny_model("bert", num_labels=2)) == {"classifier.weight": 0, "classifier.bias": 0}
