"""Fake quantization is ONNX's arithmetic to the bit, its gradient is straight, its ranges move as they should."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import nn

from compress.families.forms.fake_quantization import (
    FakeQuantization,
    FakeQuantizedEmbedding,
    FakeQuantizedLinear,
    MovingRange,
    activation_grid,
    fake_quantize,
    insert,
    ranges,
    weight_scale,
)
from tests.conftest import tiny_batch, tiny_model


def naive(value: float, scale: float, zero: int, lowest: int, highest: int) -> float:
    """One number, in fp32 as numpy has it; Python's `round` takes the even neighbour of a half."""
    scaled = np.float32(value) / np.float32(scale)
    whole = min(max(round(float(scaled)) + zero, lowest), highest)
    return float(np.float32(whole - zero) * np.float32(scale))


@pytest.mark.parametrize(("scale", "zero"), [(0.5, 0), (0.0307, 119), (0.25, 255)])
def test_values_are_rounded_half_to_even_and_saturated(scale: float, zero: int) -> None:
    halves = (torch.arange(-300, 300) + 0.5) * scale
    values = torch.cat([halves, torch.randn(500, generator=torch.Generator().manual_seed(0)) * 40 * scale])
    found = fake_quantize(values, torch.tensor(scale), torch.tensor(float(zero)), 0, 255)
    assert found.tolist() == [naive(v, scale, zero, 0, 255) for v in values.tolist()]


def test_halves_go_to_the_even_integer() -> None:
    values = torch.tensor([0.5, 1.5, 2.5, -0.5, -1.5, 127.5, 200.0, -200.0])
    found = fake_quantize(values, torch.tensor(1.0), torch.tensor(0.0), -127, 127)
    assert found.tolist() == [0, 2, 2, 0, -2, 127, 127, -127]


def test_the_integers_are_those_of_onnx_runtime(tmp_path: Path) -> None:
    generator = torch.Generator().manual_seed(1)
    values = torch.cat([torch.randn(20_000, generator=generator) * 3, (torch.arange(-400, 400) + 0.5) * 0.0307])
    scale, zero = activation_grid(torch.tensor(-2.9), torch.tensor(4.93))
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "scale", "zero"], ["q"]),
        helper.make_node("DequantizeLinear", ["q", "scale", "zero"], ["y"]),
    ]
    constants = [
        numpy_helper.from_array(scale.numpy(), "scale"),
        numpy_helper.from_array(zero.numpy().astype(np.uint8), "zero"),
    ]
    ends = [[helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n"])] for name in ("x", "y")]
    model = helper.make_model(
        helper.make_graph(nodes, "g", *ends, constants), opset_imports=[helper.make_opsetid("", 20)], ir_version=10
    )
    onnx.save(model, tmp_path / "model.onnx")
    session = onnxruntime.InferenceSession(tmp_path / "model.onnx", providers=["CPUExecutionProvider"])
    (theirs,) = session.run(None, {"x": values.numpy()})
    ours = fake_quantize(values, scale, zero, 0, 255)
    assert np.array_equal(ours.numpy(), theirs)


@pytest.mark.parametrize(("bits", "highest"), [(8, 127), (7, 64)])
@pytest.mark.parametrize("per_channel", [True, False])
def test_a_linear_layer_is_that_of_quantized_inputs_and_weights(bits: int, highest: int, per_channel: bool) -> None:
    linear = nn.Linear(5, 3)
    fake = FakeQuantizedLinear(linear, FakeQuantization(weight_bits=bits, per_channel=per_channel)).eval()
    fake.inputs.low.fill_(-1.0), fake.inputs.high.fill_(2.0)
    inputs = torch.randn(4, 5)
    step, zero = (float(x) for x in activation_grid(torch.tensor(-1.0), torch.tensor(2.0)))
    largest = [linear.weight[row].abs().max().item() for row in range(3)]
    expected = torch.zeros(4, 3)
    for row in range(4):
        for out in range(3):
            scale = np.float32(largest[out] if per_channel else max(largest)) / np.float32(highest)
            total = linear.bias[out].item()
            for place in range(5):
                x = naive(inputs[row, place].item(), step, int(zero), 0, 255)
                total += x * naive(linear.weight[out, place].item(), float(scale), 0, -highest, highest)
            expected[row, out] = total
    torch.testing.assert_close(fake(inputs), expected)


def test_seven_bits_never_overflow_sixteen() -> None:
    fake = FakeQuantizedLinear(nn.Linear(64, 8), FakeQuantization(weight_bits=7))
    whole = torch.round(fake.weight / fake.scale())
    assert whole.abs().max() == 64
    assert 2 * 255 * 64 <= np.iinfo(np.int16).max < 2 * 255 * 65


@pytest.mark.parametrize("per_channel", [True, False])
def test_an_embedding_has_the_rows_of_its_quantized_table(per_channel: bool) -> None:
    table = nn.Embedding(7, 6, padding_idx=0)
    fake = FakeQuantizedEmbedding(table, FakeQuantization(per_channel=per_channel))
    numbers = torch.tensor([[1, 5, 0], [6, 6, 2]])
    scale = weight_scale(table.weight, per_channel, 127)
    whole = fake_quantize(table.weight, scale, torch.zeros_like(scale), -127, 127)
    assert torch.equal(fake(numbers), whole[numbers])
    assert not torch.equal(whole, table.weight)
    assert torch.equal(fake(numbers)[0, 2], torch.zeros(6))  # a row of zeros has no span


def test_the_gradient_goes_straight_through_even_where_values_saturate() -> None:
    values = torch.tensor([0.3, -7.0, 500.0, 1.49], requires_grad=True)
    factors = torch.tensor([1.0, -2.0, 3.0, 0.5])
    found = fake_quantize(values, torch.tensor(0.1), torch.tensor(3.0), 0, 255)
    assert found[1] != values[1]
    assert found[2] != values[2]
    (found * factors).sum().backward()
    assert torch.equal(values.grad, factors)


def test_weights_and_inputs_of_a_layer_get_the_gradient_of_the_quantized_product() -> None:
    fake = FakeQuantizedLinear(nn.Linear(4, 2), FakeQuantization())
    inputs = torch.randn(3, 4, requires_grad=True)
    fake(inputs).sum().backward()
    fake.eval()
    scale = fake.scale()
    weight = fake_quantize(fake.weight, scale, torch.zeros_like(scale), -127, 127)
    torch.testing.assert_close(inputs.grad, weight.sum(0).detach().expand(3, 4))
    torch.testing.assert_close(fake.weight.grad, fake.inputs(inputs).sum(0).detach().expand(2, 4))


def test_a_range_is_the_first_batch_then_the_moving_average_and_still_in_evaluation() -> None:
    moving = MovingRange(0.9)
    moving(torch.tensor([[-1.0, 3.0]]))
    assert (moving.low.item(), moving.high.item()) == (-1, 3)
    moving(torch.tensor([[-2.0, 5.0]]))
    moving(torch.tensor([[0.5, 4.0]]))
    assert moving.low.item() == pytest.approx(0.9 * (0.9 * -1 + 0.1 * -2) + 0.1 * 0.5)
    assert moving.high.item() == pytest.approx(0.9 * (0.9 * 3 + 0.1 * 5) + 0.1 * 4)
    assert moving.batches == 3
    moving.eval()
    before = {name: value.clone() for name, value in moving.state_dict().items()}
    moving(torch.tensor([[-90.0, 90.0]]))
    assert all(torch.equal(before[name], value) for name, value in moving.state_dict().items())


def test_zero_is_exact_whatever_the_range() -> None:
    for low, high in ((-1.3, 2.2), (0.4, 2.0), (-3.0, -1.0), (0.0, 0.0)):
        scale, zero = activation_grid(torch.tensor(low), torch.tensor(high))
        assert float(zero).is_integer()
        assert 0 <= zero <= 255
        assert fake_quantize(torch.zeros(1), scale, zero, 0, 255).item() == 0
        assert math.isclose(scale, (max(high, 0) - min(low, 0)) / 255 or 1, rel_tol=1e-6)


def test_padding_moves_no_range() -> None:
    short = tiny_batch(1, 5)
    padded = {name: nn.functional.pad(value, (0, 6)) for name, value in short.items() if name != "labels"}
    found = []
    for batch in (short, padded):
        model = tiny_model(hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0)
        insert(model, FakeQuantization())
        with torch.no_grad():
            model.train()(**{name: value for name, value in batch.items() if name != "labels"})
        found.append([(observer.low.item(), observer.high.item()) for observer in ranges(model)])
    assert len(found[0]) == 4 * 6 + 2
    np.testing.assert_allclose(found[0], found[1], rtol=1e-5)


def test_the_scheme_says_what_is_fake_quantized() -> None:
    def kinds(scheme: FakeQuantization) -> list[str]:
        model = tiny_model("roberta")
        insert(model, scheme)
        return [
            name for name, m in model.named_modules() if isinstance(m, FakeQuantizedLinear | FakeQuantizedEmbedding)
        ]

    assert len(kinds(FakeQuantization())) == 3 + 4 * 6 + 2
    assert len(kinds(FakeQuantization(embeddings=False))) == 4 * 6 + 2
    assert "classifier.out_proj" not in kinds(FakeQuantization(classifier=False))
    assert "classifier.dense" in kinds(FakeQuantization(classifier=False))
