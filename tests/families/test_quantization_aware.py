"""A fake-quantized model trains, resumes, reloads, and becomes integers that say the same."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from transformers import PreTrainedModel

from compress.errors import ModelError
from compress.families.forms.fake_quantization import FakeQuantization, FakeQuantizedLinear, ranges
from compress.families.forms.quantization_aware import fake_quantized
from compress.families.forms.uneven import kept_heads, neurons, shrink
from compress.families.registry import can_be_taken_apart, family_of
from compress.models.bilstm import BiLstmConfig, BiLstmForSequenceClassification
from compress.models.evaluate import main_metric
from compress.models.int8_modules import as_integers
from compress.models.outputs import INPUTS, observe
from compress.onnx.graph import write_onnx
from compress.runtimes.devices import CPU
from compress.runtimes.onnxruntime import OnnxRuntime
from compress.train import Supervised, Training, fit
from tests.conftest import EVERY_FAMILY, FAMILY_NAMES, tiny_batch, tiny_model
from tests.student.reloading import check_reloading
from tests.test_train import TASK, tokens


def pruned(family: str) -> PreTrainedModel:
    """Return a model of two layers that differ in shape."""
    return shrink(
        tiny_model(family), layers=[0, 2], heads=[[0, 3], [0, 1, 2, 3], [1], [0]], units=[[*range(5, 25)]] * 4
    )


def trained(model: PreTrainedModel, family: str, scheme: FakeQuantization) -> PreTrainedModel:
    """Return ``model`` fake-quantized, its ranges set by random batches."""
    fake = fake_quantized(model, scheme).train()
    with torch.no_grad():
        for seed in range(20):
            observe(fake, tiny_batch(8, 17, seed, family))
    return fake.eval()


@pytest.mark.parametrize("family", EVERY_FAMILY)
def test_what_is_made_fake_keeps_family_shape_and_weights(family: str) -> None:
    model = pruned(family)
    fake = fake_quantized(model, FakeQuantization())
    assert can_be_taken_apart(fake.config)
    assert family_of(fake.config) is family_of(model.config)
    assert (kept_heads(fake.config), neurons(fake.config)) == (kept_heads(model.config), neurons(model.config))
    assert len(family_of(fake.config).layers(fake)) == 2
    weights = fake.state_dict()
    assert all(torch.equal(weights[name], value) for name, value in model.state_dict().items())
    assert {name for name in weights if ".inputs." not in name} == set(model.state_dict())


def test_it_reloads_in_a_fresh_process_to_the_bit(tmp_path: Path) -> None:
    schemes = [
        FakeQuantization(),
        FakeQuantization(weight_bits=7),
        FakeQuantization(per_channel=False),
        FakeQuantization(embeddings=False, classifier=False),
    ]
    models = {
        family: trained(pruned(family), family, scheme) for family, scheme in zip(FAMILY_NAMES, schemes, strict=True)
    }
    check_reloading(models, tmp_path)


def test_padding_never_changes_logits() -> None:
    fake = trained(pruned("bert"), "bert", FakeQuantization())
    batch = tiny_batch(4, 7)
    wider = {name: torch.nn.functional.pad(batch[name], (0, 5)) for name in INPUTS}
    with torch.no_grad():
        torch.testing.assert_close(observe(fake, wider).logits, observe(fake, batch).logits, atol=1e-5, rtol=1e-5)


def train(folder: Path, stop_at: int | None = None) -> dict[str, torch.Tensor]:
    model, validation = fake_quantized(tiny_model(), FakeQuantization()), tokens(40, 2)
    objective = Supervised(model)
    if stop_at is not None:
        steps = iter(range(10**6))

        def interrupted(*arguments: Any, forward: Callable[..., Any] = objective.forward) -> Any:
            if next(steps) == stop_at:
                raise KeyboardInterrupt
            return forward(*arguments)

        objective.forward = interrupted  # type: ignore[method-assign]
    settings = Training(epochs=2, batch_size=16, learning_rate=3e-3, checkpoint_seconds=1e-9)
    fit(
        objective, tokens(), settings, seed=3, folder=folder, title="test",
        validate=lambda: main_metric(model, validation, TASK),
    )  # fmt: skip
    assert all(observer.batches == 16 for observer in ranges(model))
    return model.state_dict()


@pytest.mark.parametrize("stop_at", [3, 11])
def test_an_interrupted_training_ends_with_the_same_weights_and_ranges_to_the_bit(stop_at: int, tmp_path: Path) -> None:
    whole = train(tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path / "parts", stop_at)
    assert list((tmp_path / "parts").rglob("whole"))
    resumed = train(tmp_path / "parts")
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)
    assert any(name.endswith(".inputs.low") for name in whole)


@pytest.mark.parametrize(
    ("family", "scheme"),
    [
        ("bert", FakeQuantization()),
        ("roberta", FakeQuantization(weight_bits=7)),
        pytest.param("distilbert", FakeQuantization(per_channel=False), marks=pytest.mark.slow),
        pytest.param("electra", FakeQuantization(embeddings=False, classifier=False), marks=pytest.mark.slow),
    ],
)
def test_the_integers_in_onnx_runtime_say_what_was_trained(
    family: str, scheme: FakeQuantization, tmp_path: Path
) -> None:
    fake = trained(pruned(family), family, scheme)
    names = [name for name in INPUTS if name in tiny_batch(family=family)]
    write_onnx(as_integers(fake), names, tmp_path / "model.onnx")
    session = onnxruntime.InferenceSession(tmp_path / "model.onnx", providers=["CPUExecutionProvider"])
    batches = [tiny_batch(8, 9 + seed % 20, 100 + seed, family) for seed in range(50)]
    with torch.no_grad():
        ours = np.concatenate([observe(fake, batch).logits.numpy() for batch in batches])
    theirs = np.concatenate([session.run(None, {k: b[k].numpy() for k in names})[0] for b in batches])
    assert (ours.argmax(1) == theirs.argmax(1)).mean() >= 0.995
    # one activation on the other side of a half may move its row by a step; most rows are the same
    assert np.median(np.abs(ours - theirs)) < 1e-5
    linears = sum(isinstance(module, FakeQuantizedLinear) for module in fake.modules())
    products = 2 * 2 + linears + (not scheme.classifier)  # Q·Kᵀ and P·V of two layers
    executed = OnnxRuntime().executed(tmp_path, CPU)
    assert executed is not None
    assert (executed.int8, executed.products) == (linears, products)
    weights = [tensor for tensor in onnx.load(tmp_path / "model.onnx").graph.initializer if len(tensor.dims) == 2]
    kinds = {tensor.data_type for tensor in weights if min(tensor.dims) > 2}
    assert (onnx.TensorProto.FLOAT in kinds) == (not scheme.embeddings)


def test_other_families_are_refused() -> None:
    model = BiLstmForSequenceClassification(BiLstmConfig(vocab_size=9, pad_token_id=0, num_labels=2))
    with pytest.raises(ModelError, match="cannot be taken apart"):
        fake_quantized(model, FakeQuantization())
