"""Progressive transfer: which layer learns when, against a naive loop; its loss; its resumption; the whole chain."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from transformers import PreTrainedModel

from compress.data.dataset import Split
from compress.distill.losses import HardLabels, HiddenStates, SoftTargets
from compress.distill.objective import Distillation
from compress.distill.progressive import Progressive
from compress.distill.source import Keep
from compress.distill.stage import Distill
from compress.distill.teacher_outputs import FromModel
from compress.errors import DamagedError, RecipeError
from compress.known import Known
from compress.models.outputs import observe
from compress.models.quantities import HIDDEN, SCORES
from compress.models.tokens import Tokens, tokenize
from compress.prune.heads import PruneHeads
from compress.quantize.int8 import DynamicInt8, StaticInt8
from compress.settings import all_faults
from compress.student.base import Student
from compress.student.bert import Bert
from compress.student.layer_map import layer_pairs
from compress.student.mobile import Mobile
from compress.student.shared import Shared
from compress.train import Decay
from tests.conftest import reviews, save_tiny, tiny_model, tiny_tokenizer
from tests.run.test_recipe import made, recipe, report


def naive_attention(student: Tensor, teacher: Tensor, mask: Tensor) -> Tensor:
    """Equation 3, position by position: the divergence over real keys, mean over heads and real positions."""
    terms = []
    for row, length in enumerate(mask.sum(-1).tolist()):
        for head in range(student.shape[1]):
            for position in range(length):
                p, q = (scores[row, head, position, :length].softmax(-1) for scores in (teacher, student))
                terms.append(sum(p[k] * (p[k] / q[k]).log() for k in range(length)))
    return torch.stack(terms).mean()


def naive_hidden(student: Tensor, teacher: Tensor, mask: Tensor) -> Tensor:
    """Equation 2, position by position: squared errors, mean over units and real positions."""
    terms = [
        ((student[row, position] - teacher[row, position]) ** 2).mean()
        for row, length in enumerate(mask.sum(-1).tolist())
        for position in range(length)
    ]
    return torch.stack(terms).mean()


def rows(count: int) -> Tokens:
    texts = tuple(text for _, text in reviews(count, 1))
    return tokenize(Split(texts, None, np.zeros(count, dtype=np.int64)), tiny_tokenizer(), 32)


def still(student: Student, *, exact: bool = True) -> tuple[PreTrainedModel, PreTrainedModel]:
    """Return a teacher and its student without dropout; ``exact``: float64, where rounding cannot turn AdamW."""
    teacher = tiny_model(hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0)
    with torch.random.fork_rng():
        torch.manual_seed(1)
        made = student.build(teacher)
    for module in made.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    return (teacher.double(), made.double()) if exact else (teacher, made)


PLAIN = {"warmup": 0.0, "weight_decay": 0.0, "decay": Decay.constant, "gradient_clip": 1e9, "learning_rate": 1e-2}


def transfer(settings: Progressive, teacher: PreTrainedModel, student: PreTrainedModel, folder: Path) -> None:
    wanted = {HIDDEN: (1, 2, 3, 4), SCORES: (1, 2, 3, 4)}
    pairs = layer_pairs(settings.layer_map, student.config, teacher.config)
    settings.train(student, FromModel(teacher, wanted), teacher.config, pairs, rows(5), 3, folder)


@pytest.mark.parametrize(
    ("student", "lower", "embeddings"),
    [(Mobile(layers=2), 0.0, True), (Mobile(layers=2), 0.3, False), (Bert(layers=2), 0.3, True)],
)
def test_each_layer_moves_in_its_turn_as_a_naive_loop_moves_it(
    student: Student, lower: float, embeddings: bool, tmp_path: Path
) -> None:
    teacher, learned = still(student)
    naive = still(student)[1]
    settings = Progressive(
        epochs=4, batch_size=5, lower_learning_rate=lower, embeddings=embeddings, hidden_weight=2.0, **PLAIN
    )  # a step an epoch, two a layer
    transfer(settings, teacher, learned, tmp_path)

    inside = naive.base_model
    stages = [
        [*inside.encoder.layer[0].parameters(), *(inside.embeddings.parameters() if embeddings else ())],
        [*inside.encoder.layer[1].parameters()],
    ]
    batch = rows(5).batch(list(range(5)))
    known = observe(teacher, batch, HIDDEN, SCORES)
    for turn, theirs in ((0, 2), (1, 4)):
        groups = [{"params": stages[turn], "lr": 1e-2}]
        if turn and lower:
            groups.append({"params": stages[0], "lr": lower * 1e-2})
        optimizer = torch.optim.AdamW(groups, weight_decay=0.0)
        for _ in range(2):
            seen = observe(naive, batch, HIDDEN, SCORES)
            hidden = naive_hidden(seen[HIDDEN][turn + 1], known[HIDDEN][theirs].detach(), batch["attention_mask"])
            attention = naive_attention(seen[SCORES][turn + 1], known[SCORES][theirs].detach(), batch["attention_mask"])
            naive.zero_grad()
            (2 * hidden + attention).backward()
            optimizer.step()
    before, expected = still(student)[1].state_dict(), naive.state_dict()
    for name, value in learned.state_dict().items():
        torch.testing.assert_close(value, expected[name], rtol=1e-4, atol=1e-6, msg=lambda text, n=name: f"{n}: {text}")
        if "classifier" in name or "pooler" in name or ("embeddings" in name and not embeddings):
            assert torch.equal(value, before[name]), name


def test_only_the_layer_in_turn_changes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Weights are compared at the end of each turn, where the next one begins."""
    teacher, student = still(Mobile())
    seen: list[dict[str, Tensor]] = []
    choose = Progressive.choose

    def noting(settings: Progressive, model: PreTrainedModel, layer: int) -> Any:
        seen.append({name: value.clone() for name, value in model.state_dict().items()})
        return choose(settings, model, layer)

    monkeypatch.setattr(Progressive, "choose", noting)
    transfer(Progressive(epochs=8, batch_size=3, **PLAIN), teacher, student, tmp_path)
    seen.append(student.state_dict())
    for layer, (before, after) in enumerate(pairwise(seen)):
        moved = {name for name in after if not torch.equal(before[name], after[name])}
        assert moved
        assert all(name.startswith(f"mobilebert.encoder.layer.{layer}.") for name in moved), moved
    assert len(seen) == 5


@pytest.mark.parametrize("stop_at", [4, *(pytest.param(at, marks=pytest.mark.slow) for at in (1, 6))])
def test_an_interrupted_layer_goes_on_and_ends_with_the_same_weights(
    stop_at: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = Progressive(
        epochs=4, batch_size=3, lower_learning_rate=0.5, learning_rate=1e-2, checkpoint_seconds=1e-9
    )  # four steps a layer
    student = Bert(layers=2, hidden_size=8, heads=4)  # with a projection, which is resumed too
    teacher, whole = still(student, exact=False)
    transfer(settings, teacher, whole, tmp_path / "whole")
    forward: Callable[..., Any] = Distillation.forward
    steps = iter(range(10**6))

    def interrupted(*arguments: Any) -> Any:
        if next(steps) == stop_at:
            raise KeyboardInterrupt
        return forward(*arguments)

    monkeypatch.setattr(Distillation, "forward", interrupted)
    resumed = still(student, exact=False)[1]
    with pytest.raises(KeyboardInterrupt):
        transfer(settings, teacher, resumed, tmp_path / "parts")
    resumed = still(student, exact=False)[1]
    transfer(settings, teacher, resumed, tmp_path / "parts")
    assert next(steps) <= 9  # nothing was done twice but the step that was cut
    for name, value in whole.state_dict().items():
        assert torch.equal(resumed.state_dict()[name], value), name
    assert sorted(path.name for path in (tmp_path / "parts").iterdir()) == ["layer-2.safetensors", "layers.json"]


@pytest.mark.parametrize("name", ["layer-2.safetensors", "layers.json"])
def test_damaged_layers_are_not_resumed_from(name: str, tmp_path: Path) -> None:
    student = Bert(layers=2, hidden_size=8, heads=4)
    teacher, trained = still(student, exact=False)
    transfer(Progressive(epochs=1, batch_size=16), teacher, trained, tmp_path)
    content = bytearray((tmp_path / name).read_bytes())
    content[len(content) // 2] ^= 1
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DamagedError, match=name):
        transfer(Progressive(epochs=1, batch_size=16), teacher, trained, tmp_path)


def test_transfer_brings_a_student_nearer_to_its_teacher(tmp_path: Path) -> None:
    teacher, student = still(Mobile())
    batch = rows(5).batch(list(range(5)))
    known = observe(teacher, batch, HIDDEN)[HIDDEN][4].detach()

    @torch.no_grad()
    def distance() -> float:
        return float(naive_hidden(observe(student, batch, HIDDEN)[HIDDEN][4], known, batch["attention_mask"]))

    before = distance()
    transfer(Progressive(epochs=80, batch_size=5, learning_rate=1e-2, embeddings=True), teacher, student, tmp_path)
    assert distance() < 0.7 * before


@pytest.mark.parametrize(
    ("settings", "student", "setting"),
    [
        (Progressive(), Shared().config(tiny_model().config), "epochs"),
        (Progressive(), Mobile(heads=2, bottleneck=4).config(tiny_model().config), "attention_weight"),
        (Progressive(layer_map=[1, 2]), Mobile().config(tiny_model().config), "layer_map"),
        (Progressive(freeze=["nonsense.*"]), tiny_model().config, "freeze"),
        (Progressive(freeze=["bert.encoder.layer.0.*"]), tiny_model().config, "freeze"),
        (Progressive(layer_decay=0.9), Mobile().config(tiny_model().config), "layer_decay"),
    ],
)
def test_what_cannot_be_trained_layer_by_layer_is_refused(settings: Progressive, student: Any, setting: str) -> None:
    assert [fault.setting for fault in settings.faults(Known(student=student, teacher=tiny_model().config))] == [
        setting
    ]


def test_without_attention_heads_may_differ() -> None:
    student = Mobile(heads=2, bottleneck=4).config(tiny_model().config)
    assert not list(Progressive(attention_weight=0.0).faults(Known(student=student, teacher=tiny_model().config)))


@pytest.mark.parametrize(
    ("changes", "setting"),
    [
        ({"hidden_weight": 0.0, "attention_weight": 0.0}, "hidden_weight"),
        ({"lower_learning_rate": 1.5}, "lower_learning_rate"),
        ({"early_stopping": 1}, "early_stopping"),
        ({"epochs": 0}, "epochs"),
    ],
)
def test_settings_that_make_no_sense_are_refused(changes: dict[str, Any], setting: str) -> None:
    assert [fault.setting for fault in all_faults(replace(Progressive(), **changes))] == [setting]


def distill() -> Distill:
    losses = {"soft": SoftTargets(), "hard": HardLabels(), "hidden": HiddenStates()}
    return Distill(losses=losses, epochs=4, learning_rate=5e-3, batch_size=16)


@pytest.mark.slow
def test_a_mobile_student_goes_through_the_whole_chain_once(files: dict[str, Path], tmp_path: Path) -> None:
    prepare = Progressive(epochs=4, learning_rate=5e-3, batch_size=16, embeddings=True, teacher_outputs=Keep.disk)
    mine = recipe(
        files, save_tiny(tmp_path / "teacher"), tmp_path, student=Mobile(layers=2), distill=distill(), prune={},
        prepare={"progressive": prepare}, quantize={"dynamic": DynamicInt8(), "static": StaticInt8(rows=16)},
    )  # fmt: skip
    mine.run()
    facts, before = report(tmp_path), made(tmp_path)
    assert [stage["name"] for stage in facts["stages"]] == ["teacher", "progressive", "distill"]
    assert any("2 layers trained in turn, those below frozen" in note for note in facts["stages"][1]["notes"])
    assert {"hidden", "attention"} <= set(facts["stages"][1]["curves"][0])
    assert [artifact["name"] for artifact in facts["artifacts"]] == ["student", "onnx", "dynamic", "static"]
    assert all(artifact["agreement"] > 0.9 for artifact in facts["artifacts"])
    mine.run()
    assert made(tmp_path) == before
    assert all(stage["reused"] for stage in report(tmp_path)["stages"])
    with pytest.raises(RecipeError, match="cannot remove heads from a student of type mobilebert"):
        replace(mine, prune={"heads": PruneHeads()}).run()


@pytest.mark.slow
def test_a_student_with_shared_layers_goes_through_the_whole_chain_and_says_what_it_does_not_give(
    files: dict[str, Path], tmp_path: Path
) -> None:
    mine = recipe(
        files, save_tiny(tmp_path / "teacher"), tmp_path, student=Shared(), distill=distill(), prune={},
        quantize={"dynamic": DynamicInt8(), "static": StaticInt8(rows=16)},
    )  # fmt: skip
    mine.run()
    facts, before = report(tmp_path), made(tmp_path)
    assert [stage["name"] for stage in facts["stages"]] == ["teacher", "distill"]
    assert any("latency does not" in note for note in facts["stages"][1]["notes"])
    assert not any("latency does not" in note for note in facts["stages"][0]["notes"])
    assert all(artifact["agreement"] > 0.9 for artifact in facts["artifacts"])
    mine.run()
    assert made(tmp_path) == before
    wrong = replace(mine, prune={"heads": PruneHeads()}, prepare={"progressive": Progressive()})
    with pytest.raises(RecipeError) as caught:
        replace(wrong, output=str(tmp_path / "other")).run()
    assert {fault.setting for fault in caught.value.faults} == {"prepare.progressive.epochs", "prune.heads.ratio"}
