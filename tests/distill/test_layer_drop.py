"""LayerDrop: which layers are skipped and how often, what the losses then are, and that training goes on exactly."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from transformers import PreTrainedModel

from compress.data.dataset import Split
from compress.distill import objective as objective_file
from compress.distill.general import General
from compress.distill.layer_drop import draw
from compress.distill.layers import Layers
from compress.distill.losses import (
    AttentionScores,
    Cosine,
    Embeddings,
    HardLabels,
    HiddenStates,
    Loss,
    MiniLM,
    Patient,
    Relations,
    SoftTargets,
    attention_loss,
    hidden_state_loss,
)
from compress.distill.objective import Distillation
from compress.distill.stage import Distill, labels_only
from compress.distill.teacher_outputs import FromModel
from compress.families.forms.uneven import shrink
from compress.families.registry import FAMILIES, family_of
from compress.known import Known
from compress.models.evaluate import main_metric
from compress.models.outputs import observe
from compress.models.quantities import HIDDEN, RELATIONS, SCORES
from compress.models.tokens import Tokens, tokenize
from compress.student.bert import Bert
from compress.student.bilstm import BiLstm
from compress.student.cnn import Cnn
from compress.student.mobile import Mobile
from compress.student.shared import Shared
from compress.tasks.classification import Classification
from compress.tasks.functions import hard_label_loss, soft_target_loss
from compress.train import Objective, fit, same_randomness
from tests.conftest import CONFIGS, EVERY_FAMILY, LIKE_BERT, reviews, tiny_batch, tiny_model, tiny_tokenizer

TASK = Classification(("bad", "good"))
WANTED = {HIDDEN: (0, 1, 2, 3, 4), SCORES: (1, 2, 3, 4), **dict.fromkeys(RELATIONS, (1, 2, 3, 4))}
PAIRS = ((1, 1), (2, 2), (3, 3), (4, 4))
QUIET = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}


def still(family: str) -> dict[str, float]:
    """Return the settings of a family's model without dropout."""
    return {"dropout": 0.0, "attention_dropout": 0.0, "seq_classif_dropout": 0.0} if family == "distilbert" else QUIET


def training(
    family: str = "bert", losses: Mapping[str, Loss] | None = None, layer_drop: float = 0.5, student: Any = None
) -> tuple[Distillation, PreTrainedModel, PreTrainedModel]:
    """Return an objective in training mode, its student of four layers and its teacher, all without dropout."""
    teacher, student = tiny_model(family), student or tiny_model(family, seed=3, **still(family))
    losses = losses or {"soft": SoftTargets(), "hard": HardLabels()}
    made = Distillation(student, losses, FromModel(teacher, WANTED), teacher.config, PAIRS, layer_drop)
    made.train()
    return made, student, teacher


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Let these layers be drawn, whatever chance says."""

    def set_to(*layers: int) -> None:
        monkeypatch.setattr(objective_file, "draw", lambda *_: frozenset(layers))

    return set_to


@pytest.mark.parametrize("rate", [0.2, 0.7])
def test_each_layer_is_skipped_as_often_as_asked_for_and_independently_of_the_others(rate: float) -> None:
    times = 4000
    with same_randomness():
        torch.manual_seed(1)
        seen = np.array([[layer in (skipped := draw(4, rate)) for layer in (1, 2, 3, 4)] for _ in range(times)])
        assert skipped <= {1, 2, 3, 4}
    rows = np.array([[float(value) for value in row] for row in seen])
    assert np.allclose(rows.mean(0), rate, atol=4 * np.sqrt(rate * (1 - rate) / times))


def test_draws_are_independent_of_each_other() -> None:
    times = 4000
    with same_randomness():
        torch.manual_seed(2)
        draws = [draw(4, 0.4) for _ in range(times)]
    seen = np.array([[float(layer in skipped) for layer in (1, 2, 3, 4)] for skipped in draws])
    assert np.allclose(seen.mean(0), 0.4, atol=4 * np.sqrt(0.24 / times))
    assert np.abs(np.corrcoef(seen.T)[~np.eye(4, dtype=bool)]).max() < 4 / np.sqrt(times)
    assert np.abs(np.corrcoef(seen[1:, 0], seen[:-1, 0])[0, 1]) < 4 / np.sqrt(times)


def test_a_rate_of_zero_asks_nothing_of_chance() -> None:
    before = torch.get_rng_state()
    assert draw(4, 0.0) == frozenset()
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("family", LIKE_BERT)
@pytest.mark.parametrize("skipped", [{2}, {4}, {1, 3}, {1, 2, 3}])
def test_losses_and_gradients_are_those_of_a_loop_over_the_layers_that_ran(
    family: str, skipped: set[int], drawn: Callable[..., None]
) -> None:
    losses = {
        "soft": SoftTargets(), "hard": HardLabels(weight=0.5), "hidden": HiddenStates(), "embeddings": Embeddings(),
        "attention": AttentionScores(weight=0.1),
    }  # fmt: skip
    made, student, teacher = training(family, losses)
    batch, mask = tiny_batch(family=family), tiny_batch(family=family)["attention_mask"]
    drawn(*skipped)
    loss, parts = made(batch, 0.0)
    loss.backward()
    ours = {name: parameter.grad for name, parameter in student.named_parameters()}

    ran = [layer for layer in (1, 2, 3, 4) if layer not in skipped]
    cut = shrink(student, layers=[layer - 1 for layer in ran])  # another model, with the same weights in those layers
    outputs = observe(cut, batch, HIDDEN, SCORES)
    with torch.no_grad():
        theirs = observe(teacher, batch, HIDDEN, SCORES)
    states = [outputs[HIDDEN][sum(layer <= number for layer in ran)] for number in range(5)]
    expected = {
        "soft": soft_target_loss(outputs.logits, theirs.logits, 2.0),
        "hard": hard_label_loss(outputs.logits, batch["labels"]),
        "hidden": sum(hidden_state_loss(states[layer], theirs[HIDDEN][layer], mask) for layer in (1, 2, 3, 4)),
        "embeddings": hidden_state_loss(states[0], theirs[HIDDEN][0], mask),
        "attention": sum(
            attention_loss(outputs[SCORES][turn], theirs[SCORES][layer], mask) for turn, layer in enumerate(ran, 1)
        ),
    }  # fmt: skip
    assert set(parts) == set(expected)
    for name, value in expected.items():
        torch.testing.assert_close(parts[name], value, rtol=1e-5, atol=1e-6)
    total = sum(losses[name].weight * value for name, value in expected.items())
    torch.testing.assert_close(loss, total, rtol=1e-5, atol=1e-6)
    total.backward()
    prefix = f"{FAMILIES[family].encoder}.{FAMILIES[family].stack}."
    for name, parameter in cut.named_parameters():
        place = name
        if name.startswith(prefix):
            turn, _, rest = name.removeprefix(prefix).partition(".")
            place = f"{prefix}{ran[int(turn)] - 1}.{rest}"
        torch.testing.assert_close(ours[place], parameter.grad, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("family", EVERY_FAMILY)
def test_the_gradient_of_skipped_layers_is_zero_and_not_missing(family: str, drawn: Callable[..., None]) -> None:
    made, student, _ = training(family, {"soft": SoftTargets(), "hidden": HiddenStates()})
    drawn(1, 4)
    made(tiny_batch(family=family), 0.0)[0].backward()
    layers = family_of(student.config).layers(student)
    for number, layer in enumerate(layers, start=1):
        for parameter in layer.parameters():
            assert parameter.grad is not None
            assert number not in (1, 4) or not parameter.grad.any()
    assert all(any(p.grad.any() for p in layers[number].parameters()) for number in (1, 2))


@pytest.mark.parametrize("name", ["minilm", "relations", "attention"])
def test_terms_inside_attention_are_left_out_where_the_layer_was_skipped(name: str, drawn: Callable[..., None]) -> None:
    loss = {"minilm": MiniLM(), "relations": Relations(), "attention": AttentionScores()}[name]
    made, student, _ = training("bert", {name: loss, "soft": SoftTargets()})
    batch = tiny_batch()
    drawn(*((1, 2, 3, 4) if name == "attention" else (4,)))
    _, without = made(batch, 0.0)
    assert without[name].item() == 0
    drawn(1, 2, 3)
    _, parts = made(batch, 0.0)
    assert parts[name].item() > 0
    parts[name].backward()
    assert all(
        p.grad is None or not p.grad.any() for layer in student.bert.encoder.layer[:3] for p in layer.parameters()
    )


def test_a_step_in_which_every_layer_is_skipped_still_teaches_embeddings_and_head(drawn: Callable[..., None]) -> None:
    losses: dict[str, Loss] = {
        "soft": SoftTargets(), "hidden": HiddenStates(), "cosine": Cosine(), "patient": Patient(),
        "attention": AttentionScores(), "relations": Relations(),
    }  # fmt: skip
    made, student, _ = training("bert", losses)
    drawn(1, 2, 3, 4)
    loss, parts = made(tiny_batch(), 0.0)
    loss.backward()
    assert torch.isfinite(loss)
    assert parts["attention"].item() == parts["relations"].item() == 0
    assert student.bert.embeddings.word_embeddings.weight.grad.any()
    assert student.classifier.weight.grad.any()


@pytest.mark.parametrize("frozen", [False, True])
@pytest.mark.parametrize("loss", [AttentionScores(), MiniLM(), Relations()])
def test_a_step_without_any_term_left_reaches_no_head_and_can_still_be_trained_on(
    loss: Loss, frozen: bool, drawn: Callable[..., None]
) -> None:
    made, student, _ = training("bert", {"inside": loss})
    student.bert.encoder.requires_grad_(not frozen)
    drawn(1, 2, 3, 4)
    total, _ = made(tiny_batch(), 0.0)
    total.backward()
    assert total.item() == 0
    grads = {name: parameter.grad for name, parameter in student.named_parameters()}
    assert any(grad is not None for grad in grads.values())
    assert all(grad is None or not grad.any() for grad in grads.values())
    assert grads["classifier.weight"] is None  # else weight decay would shrink what no loss reaches
    assert grads["bert.pooler.dense.weight"] is None


def test_the_gradient_is_the_slope_of_the_loss(drawn: Callable[..., None]) -> None:
    losses: dict[str, Loss] = {"soft": SoftTargets(), "hidden": HiddenStates(), "attention": AttentionScores()}
    made, _, _ = training("bert", losses)
    made.double()
    made.teacher.teacher.double()  # type: ignore[union-attr]
    drawn(2)
    names = [f"student.bert.encoder.layer.{place}.output.LayerNorm.bias" for place in (0, 1, 2)]
    given = tuple(made.get_parameter(name).detach().clone().requires_grad_() for name in names)

    def loss(*values: Tensor) -> Tensor:
        swapped = dict(zip(names, values, strict=True))
        found: Tensor = torch.func.functional_call(made, swapped, (tiny_batch(), 0.0))[0]
        return found

    assert torch.autograd.gradcheck(loss, given, eps=1e-6, atol=1e-4)


def test_an_uneven_student_is_compared_with_the_heads_of_the_layers_that_ran(drawn: Callable[..., None]) -> None:
    keep = [[0], [1, 2], [0, 1, 3], [2]]
    student = shrink(tiny_model("bert", seed=3, **QUIET), heads=keep)
    made, _, teacher = training("bert", {"attention": AttentionScores()}, student=student)
    batch = tiny_batch()
    drawn(2, 4)
    _, parts = made(batch, 0.0)
    with torch.no_grad():
        ours = observe(shrink(student, layers=[0, 2]), batch, SCORES)[SCORES]
        theirs = observe(teacher, batch, SCORES)[SCORES]
    mask = batch["attention_mask"]
    expected = attention_loss(ours[1], theirs[1][:, keep[0]], mask)
    expected = expected + attention_loss(ours[2], theirs[3][:, keep[2]], mask)
    torch.testing.assert_close(parts["attention"], expected)


def test_nothing_is_skipped_outside_training_and_never_in_the_teacher(drawn: Callable[..., None]) -> None:
    made, student, teacher = training("bert", {"hidden": HiddenStates()})
    batch = tiny_batch()
    drawn(1, 2, 3, 4)
    made.eval()
    loss, _ = made(batch, 0.0)
    whole = [observe(model, batch, HIDDEN)[HIDDEN] for model in (student, teacher)]
    torch.testing.assert_close(
        loss, sum(hidden_state_loss(whole[0][k], whole[1][k], batch["attention_mask"]) for k in (1, 2, 3, 4))
    )
    made.train()
    loss, _ = made(batch, 0.0)
    expected = sum(hidden_state_loss(whole[0][0], whole[1][k], batch["attention_mask"]) for k in (1, 2, 3, 4))
    torch.testing.assert_close(loss, expected)


class Plain(Objective):
    """Soft targets, hidden states and labels as if nobody had ever thought of skipping a layer."""

    reads_rows_alone = True

    def __init__(self, student: PreTrainedModel, teacher: PreTrainedModel) -> None:
        super().__init__()
        self.student, self.teacher = student, FromModel(teacher, WANTED)

    @property
    def trained(self) -> PreTrainedModel:
        """The student."""
        return self.student

    def forward(self, batch: Mapping[str, Tensor], progress: float) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the sum of the three losses."""
        ours, theirs = observe(self.student, batch, HIDDEN), self.teacher.batch(batch)
        states = [hidden_state_loss(ours[HIDDEN][s], theirs[HIDDEN][t], ours.mask) for s, t in ((1, 2), (2, 4))]
        parts = {
            "soft": soft_target_loss(ours.logits, theirs.logits, 2.0),
            "hidden": torch.stack(states).sum(),
            "hard": hard_label_loss(ours.logits, batch["labels"]),
        }
        return torch.stack(list(parts.values())).sum(), parts


def tokens(rows: int = 120, seed: int = 1) -> Tokens:
    written = reviews(rows, seed)
    labels = np.array([TASK.encode(label) for label, _ in written], dtype=np.int64)
    return tokenize(Split(tuple(text for _, text in written), None, labels), tiny_tokenizer(), 32)


def trained(folder: Path, layer_drop: float | None, stop_at: int | None = None) -> dict[str, Tensor]:
    """Distil a student of two layers; None: by an objective that knows no LayerDrop. ``stop_at`` interrupts it."""
    teacher = tiny_model()
    with same_randomness():
        torch.manual_seed(5)
        student = Bert(layers=2).build(teacher)
    losses: dict[str, Loss] = {"soft": SoftTargets(), "hidden": HiddenStates(), "hard": HardLabels()}
    settings = Distill(losses=losses, epochs=3, batch_size=16, learning_rate=3e-3, checkpoint_seconds=1e-9)
    made: Objective = Plain(student, teacher)
    if layer_drop is not None:
        source = FromModel(teacher, WANTED)
        made = Distillation(student, losses, source, teacher.config, ((1, 2), (2, 4)), layer_drop)
    if stop_at is not None:
        steps = iter(range(10**6))

        def interrupted(*arguments: Any, forward: Callable[..., Any] = made.forward) -> Any:
            if next(steps) == stop_at:
                raise KeyboardInterrupt
            return forward(*arguments)

        made.forward = interrupted  # type: ignore[method-assign]
    validation = tokens(40, 2)
    fit(
        made, tokens(), settings, seed=3, folder=folder, title="test",
        validate=lambda: main_metric(student, validation, TASK),
    )  # fmt: skip
    return student.state_dict()


def test_a_rate_of_zero_trains_the_same_weights_to_the_bit_as_without_it(tmp_path: Path) -> None:
    without, zero, dropped = (trained(tmp_path / str(rate), rate) for rate in (None, 0.0, 0.3))
    assert all(torch.equal(without[name], zero[name]) for name in without)
    assert any(not torch.equal(without[name], dropped[name]) for name in without)


@pytest.mark.parametrize("stop_at", [8, *(pytest.param(at, marks=pytest.mark.slow) for at in (3, 17))])
def test_an_interrupted_training_draws_on_and_ends_with_the_same_weights(stop_at: int, tmp_path: Path) -> None:
    whole = trained(tmp_path / "whole", 0.4)
    with pytest.raises(KeyboardInterrupt):
        trained(tmp_path / "parts", 0.4, stop_at)
    assert list((tmp_path / "parts").rglob("whole"))
    resumed = trained(tmp_path / "parts", 0.4)
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)


@pytest.mark.parametrize("family", EVERY_FAMILY)
def test_students_whose_layers_are_known_are_accepted(family: str) -> None:
    teacher = tiny_model(family)
    student = Bert(layers=2).build(teacher)
    for config in (student.config, shrink(student, heads=[[0], [1, 2]]).config):
        assert not list(
            Distill(layer_drop=0.2, losses={"soft": SoftTargets()}).faults(
                Known(student=config, teacher=teacher.config)
            )
        )


@pytest.mark.parametrize("student", [BiLstm(), Cnn(), Shared(), Mobile(layers=2)])
def test_other_students_are_refused_and_accepted_without_it(student: Any) -> None:
    teacher = CONFIGS["bert"]()
    config = student.config(teacher)
    losses: dict[str, Loss] = {"soft": SoftTargets()}
    (fault,) = Distill(layer_drop=0.2, losses=losses).faults(Known(student=config, teacher=teacher))
    assert fault.setting == "layer_drop"
    assert f"cannot skip layers of a student of type {config.model_type}" in str(fault)
    assert not list(Distill(losses=losses).faults(Known(student=config, teacher=teacher)))


def test_a_single_layer_is_refused() -> None:
    teacher = CONFIGS["bert"]()
    (fault,) = Distill(layer_drop=0.2).faults(Known(student=Bert(layers=1).config(teacher), teacher=teacher))
    assert "at least two layers" in str(fault)


@pytest.mark.parametrize("rate", [-0.1, 1.0, float("nan")])
@pytest.mark.parametrize("stage", [Distill, Layers, General])
def test_rates_that_are_no_probabilities_are_refused(stage: Any, rate: float) -> None:
    assert "layer_drop" in [fault.setting for fault in stage(layer_drop=rate).faults()]


def test_preparations_and_the_twin_trained_on_labels_drop_layers_too() -> None:
    assert Layers(layer_drop=0.3).distill().layer_drop == 0.3
    assert General(layer_drop=0.3).distill().layer_drop == 0.3
    assert labels_only(Distill(layer_drop=0.3), 1).layer_drop == 0.3
