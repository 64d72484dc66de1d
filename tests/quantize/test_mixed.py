"""Which parts stay in fp32: the Hessian's trace, the order, and that the stated drop holds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from compress.data.dataset import Dataset, Split
from compress.distill.losses import SoftTargets
from compress.distill.stage import Distill
from compress.errors import RecipeError
from compress.families.forms.fake_quantization import WEIGHTS, weight_scale
from compress.models.tokens import tokenize
from compress.pipeline.model import Model
from compress.pipeline.state import State
from compress.pipeline.workshop import Workshop
from compress.quantize.hessian import hessian_traces, omegas, squared_error
from compress.quantize.int8 import StaticInt8
from compress.quantize.mixed import Grain, Mixed, MixedSearch, Precisions, RankedBy
from compress.quantize.qdq import IntegerScheme
from compress.settings import all_faults
from compress.student.bilstm import BiLstm
from compress.tasks.base import Array
from compress.tasks.classification import Classification
from compress.tasks.functions import hard_label_loss
from tests.conftest import reviews, save_tiny, tiny_model, tiny_tokenizer, write_tsv
from tests.quantize.test_static import tiny
from tests.run.test_recipe import made, report


def test_the_trace_of_a_diagonal_hessian_is_exact_with_one_probe() -> None:
    weights = {
        "a": nn.Parameter(torch.randn(3, 2)),
        "b": nn.Parameter(torch.randn(4)),
        "unused": nn.Parameter(torch.ones(2)),
    }
    curved = {"a": torch.rand(3, 2), "b": torch.rand(4)}
    loss = sum((curved[name] * weights[name] ** 2).sum() for name in curved)
    found = hessian_traces([loss], weights, 1, torch.Generator().manual_seed(0))
    assert found["a"] == pytest.approx(2 * float(curved["a"].sum()), rel=1e-5)
    assert found["b"] == pytest.approx(2 * float(curved["b"].sum()), rel=1e-5)
    assert found["unused"] == 0


def test_omega_is_that_of_the_whole_hessian_of_a_model() -> None:
    """Against the second derivatives, one weight after the other, of one matrix of a real encoder."""
    model = tiny_model(hidden_dropout_prob=0.0)
    labels, texts = zip(*reviews(6, 0), strict=True)
    split = Split(texts, labels=np.array([label == "good" for label in labels], np.int64))
    tokens = tokenize(split, tiny_tokenizer(), 32)
    model.set_attn_implementation("eager")
    batch = tokens.batch(list(range(6)))
    inputs = {name: batch[name] for name in ("input_ids", "attention_mask", "token_type_ids")}
    names = ("bert.pooler.dense", "classifier")
    trace, weight_count, error = 0.0, 0, 0.0
    omega = 0.0
    for name in names:
        weight = model.get_submodule(name).weight
        (slope,) = torch.autograd.grad(
            hard_label_loss(model(**inputs).logits, batch["labels"]), [weight], create_graph=True
        )
        trace = sum(
            float(torch.autograd.grad(item, weight, retain_graph=True)[0].flatten()[place])
            for place, item in enumerate(slope.flatten())
        )
        weight_count, error = weight.numel(), squared_error(weight, True, 127)
        omega += trace / weight_count * error
    found = omegas(model, tokens, IntegerScheme(), probes=400, seed=0)
    assert found["head"] == pytest.approx(omega, rel=0.25)
    assert set(found) == {
        "embeddings",
        "head",
        *(f"layer {i} {half}" for i in range(1, 5) for half in ("attention", "ffn")),
    }
    assert model.config._attn_implementation == "eager"
    assert all(parameter.grad is None for parameter in model.parameters())


def test_the_error_of_a_weight_is_that_of_its_integers() -> None:
    weight = torch.randn(5, 7)
    expected = 0.0
    for row in weight:
        step = float(row.abs().max()) / WEIGHTS[8]
        expected += sum((float(value) - round(float(value) / step) * step) ** 2 for value in row)
    assert squared_error(weight, True, 127) == pytest.approx(expected, rel=1e-4)
    assert squared_error(weight_scale(weight, True, 127) * torch.arange(-127, 128.0)[:5], True, 127) < 1e-9


class Told(Precisions):
    """Precisions of a made-up model whose int8 parts each spoil a known number of rows."""

    spoilt = {"a": 1, "b": 6, "c": 3, "d": 0}  # noqa: RUF012

    def logits(self, nodes: Sequence[str], tokens: Any) -> Array:
        wrong = sum(self.spoilt[node] for node in nodes)
        truth = np.eye(2, dtype=np.float32)[tokens.labels] * 4
        truth[:wrong] = truth[:wrong, ::-1]
        return truth


@pytest.mark.parametrize(("max_drop", "spared"), [(1.0, []), (0.2, ["b"]), (0.05, ["b", "c"]), (0.0, ["b", "c", "a"])])
def test_the_most_sensitive_go_back_first_and_no_more_than_needed(
    tmp_path: Path, max_drop: float, spared: list[str]
) -> None:
    _, texts = zip(*reviews(20, 0), strict=True)
    split = Split(texts, labels=np.arange(20, dtype=np.int64) % 2)
    data = Dataset("made up", Classification(("bad", "good")), split, split, split.take(np.array([0])))
    state = replace(State.begin(data, Workshop(tmp_path), 0), student=Model(save_tiny(tmp_path / "student"), "student"))
    told = Told(None, {name: [name] for name in Told.spoilt}, {}, IntegerScheme())
    mixed = Mixed(max_drop=max_drop)
    nodes, sensitivity = mixed.choose(state, told, tiny_tokenizer(), tokenize(split, tiny_tokenizer(), 32))
    assert nodes == [name for name in Told.spoilt if name not in spared]
    drops = [step.drop for step in sensitivity.steps]
    assert sensitivity.steps[-1].fp32 == tuple(spared)
    assert drops == sorted(drops, reverse=True)
    assert drops[-1] <= max_drop + 1e-9
    by_name = {part.part: part for part in sensitivity.parts}
    assert by_name["b"].drop == pytest.approx(0.3)
    assert by_name["d"].sensitivity == 0
    assert {name for name, part in by_name.items() if part.precision == "fp32"} == set(spared)
    assert MixedSearch.of(sensitivity.report()["sensitivity"]) == sensitivity


def test_a_bound_of_the_fall_spares_more_than_the_fall_itself(tmp_path: Path) -> None:
    _, texts = zip(*reviews(20, 0), strict=True)
    split = Split(texts, labels=np.arange(20, dtype=np.int64) % 2)
    data = Dataset("made up", Classification(("bad", "good")), split, split, split.take(np.array([0])))
    state = replace(State.begin(data, Workshop(tmp_path), 0), student=Model(save_tiny(tmp_path / "student"), "student"))
    told = Told(None, {name: [name] for name in Told.spoilt}, {}, IntegerScheme())
    tokens = tokenize(split, tiny_tokenizer(), 32)
    spared = [
        Mixed(max_drop=0.5, bound=bound).choose(state, told, tiny_tokenizer(), tokens)[1] for bound in (False, True)
    ]
    assert [sensitivity.steps[-1].fp32 for sensitivity in spared] == [(), ("b",)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("mixed")
    for name, count, seed in (("train", 160, 1), ("validation", 40, 2), ("test", 60, 3)):
        write_tsv(made / f"{name}.tsv", reviews(count, seed))
    save_tiny(made / "teacher")
    return made


BY_LOSS = StaticInt8(rows=16, mixed=Mixed(max_drop=0.0, grain=Grain.half))
BY_CURVATURE = StaticInt8(rows=16, mixed=Mixed(max_drop=0.0, order=RankedBy.hessian, probes=2))


def test_the_choice_stands_in_the_report_and_holds_on_validation_rows(folder: Path) -> None:
    candidates = {"loss": BY_LOSS, "curvature": BY_CURVATURE, "plain": StaticInt8(rows=16)}
    tiny(folder, quantize=candidates).run()
    found = {artifact["name"]: artifact for artifact in report(folder)["artifacts"]}
    halves = [f"layer {i} {half}" for i in (1, 2) for half in ("attention", "ffn")]
    assert [item["part"] for item in found["loss"]["details"]["sensitivity"]["parts"]] == [
        "embeddings",
        *halves,
        "head",
    ]
    assert [item["part"] for item in found["curvature"]["details"]["sensitivity"]["parts"]] == [
        "embeddings", "layer 1", "layer 2", "head",
    ]  # fmt: skip
    assert "sensitivity" not in found["plain"]
    for name in ("loss", "curvature"):
        result = found[name]["details"]["sensitivity"]
        assert result["rows"] == 40
        assert result["steps"][-1]["drop"] <= 0
        kept = result["steps"][-1]["fp32"]
        for part in found[name]["int8_parts"]:
            spared = part["part"] in kept or part["part"].rpartition(" ")[0] in kept
            assert "int8" not in part if spared else "floats" not in part
    html = (folder / "run" / "report.html").read_text()
    assert "What int8 costs in each part" in html
    assert 'id="sensitivity-loss' in html or "loss: sensitivity of each part" in html
    assert "What int8 costs in each part" in (folder / "run" / "report.md").read_text()
    before = made(folder)
    tiny(folder, quantize=candidates).run()
    assert made(folder) == before


def test_settings_without_effect_and_students_without_layers_are_refused(folder: Path) -> None:
    assert [fault.setting for fault in all_faults(StaticInt8(mixed=Mixed(grain=Grain.half)))] == ["mixed.max_drop"]
    assert [fault.setting for fault in all_faults(StaticInt8(mixed=Mixed(max_drop=2, rows=0)))] == [
        "mixed.max_drop", "mixed.rows",
    ]  # fmt: skip
    other = tiny(
        folder, student=BiLstm(), distill=Distill(losses={"soft": SoftTargets()}), quantize={"static": BY_LOSS}
    )
    with pytest.raises(RecipeError, match="cannot find the layers of a student of type compress_bilstm"):
        replace(other).run()
