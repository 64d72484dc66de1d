"""Activations that are computed again: the same gradients, whatever losses watch, and less that is kept."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path

import pytest
import torch
from torch import Tensor
from transformers import PreTrainedModel

from compress.families.forms.fake_quantization import FakeQuantization
from compress.families.forms.quantization_aware import fake_quantized
from compress.models.attention import is_watched
from compress.models.bilstm import BiLstmConfig
from compress.models.outputs import observe
from compress.models.quantities import HIDDEN, LOGITS, RELATIONS, SCORES
from compress.models.sending import send
from compress.train import Supervised, Training, fit, parameter_faults
from compress.train.recomputing import kept_because, recomputing
from tests.conftest import EVERY_FAMILY, tiny_batch, tiny_model
from tests.test_train import tokens

WITHOUT = ("mpnet",)  # for which transformers has none


def gradients(model: PreTrainedModel, family: str, *, again: bool) -> tuple[dict[str, Tensor], int]:
    """Return the gradients of a loss of all quantities, with dropout, and how many bytes were kept for them."""
    kept = 0

    def count(tensor: Tensor) -> Tensor:
        nonlocal kept
        kept += tensor.nbytes
        return tensor

    model.train().zero_grad()
    torch.manual_seed(3)
    with recomputing(model) if again else nullcontext():
        with torch.autograd.graph.saved_tensors_hooks(count, lambda tensor: tensor):
            outputs = observe(model, tiny_batch(family=family), LOGITS, HIDDEN, SCORES, *RELATIONS)
        sum(value.square().mean() for layers in outputs.values.values() for value in layers.values()).backward()
    assert not is_watched()
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}, kept


@pytest.mark.parametrize("family", EVERY_FAMILY)
def test_gradients_are_the_same_with_all_that_losses_watch(family: str) -> None:
    model = tiny_model(family)
    if family in WITHOUT:
        assert "no gradient checkpointing" in kept_because(model)
        return
    names, implementation = list(model.state_dict()), model.config._attn_implementation
    expected, all_kept = gradients(model, family, again=False)
    found, kept = gradients(model, family, again=True)
    assert expected.keys() == found.keys()
    for name, gradient in expected.items():
        assert torch.equal(gradient, found[name]), name
    assert kept < all_kept
    assert list(model.state_dict()) == names
    assert model.config._attn_implementation == implementation


def test_a_training_has_the_same_weights_and_the_same_place_in_the_cache(tmp_path: Path) -> None:
    found = []
    for again in (False, True):
        model = tiny_model()
        settings = Training(epochs=2, batch_size=7, learning_rate=3e-3, gradient_checkpointing=again)
        fit(Supervised(model), tokens(32), settings, seed=3, folder=tmp_path / str(again), title="t", validate=dict)
        found.append((model.state_dict(), settings.made_with()))
        assert not any(getattr(module, "gradient_checkpointing", False) for module in model.modules())
    with recomputing(model):
        send(model, tmp_path / "sent")  # as to another process
    (expected, key), (weights, other_key) = found
    assert key == other_key
    assert expected.keys() == weights.keys()
    assert all(torch.equal(value, weights[name]) for name, value in expected.items())


def test_models_without_layers_that_can_be_computed_again_are_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = Training(gradient_checkpointing=True)
    (fault,) = parameter_faults(settings, BiLstmConfig(vocab_size=20, pad_token_id=0))
    assert (fault.setting, fault.remedy) == ("gradient_checkpointing", "Leave it out; set micro_batch.")
    assert not list(parameter_faults(settings, tiny_model().config))
    model = fake_quantized(tiny_model(), FakeQuantization())
    fit(Supervised(model), tokens(16), settings, seed=3, folder=tmp_path, title="qat", validate=dict)
    assert "qat: activations are kept, although gradient_checkpointing = true: the ranges" in capsys.readouterr().err
