"""Layer-wise learning rates, frozen parameters, generations, and where students start."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from compress.augment.perturb import Perturb
from compress.distill.general import General
from compress.distill.layers import Layers
from compress.distill.losses import HardLabels, HiddenStates, SoftTargets
from compress.distill.progressive import Progressive
from compress.distill.stage import Distill
from compress.distill.theseus import Theseus
from compress.families.registry import layers_below_top
from compress.known import Known
from compress.models.loading import load_model, parameter_shapes
from compress.run.recipe import Recipe
from compress.student.base import Material
from compress.student.bert import Bert
from compress.train import Supervised, Training, fit, parameter_faults
from tests.conftest import EVERY_FAMILY, save_tiny, tiny_model
from tests.run.test_recipe import recipe
from tests.test_train import tokens


def trained(folder: Path, **settings: object) -> tuple[torch.nn.Module, dict[str, torch.Tensor]]:
    model = tiny_model()
    before = {name: value.detach().clone() for name, value in model.named_parameters()}
    training = Training(epochs=1, batch_size=16, learning_rate=1e-3, **settings)  # type: ignore[arg-type]
    fit(Supervised(model), tokens(16), training, seed=1, folder=folder, title="t", validate=dict)
    return model, before


def test_depths_count_from_the_head_down() -> None:
    config = tiny_model().config
    depths = {
        "classifier.weight": 0, "bert.pooler.dense.bias": 0, "bert.encoder.layer.3.output.dense.weight": 1,
        "bert.encoder.layer.0.attention.self.key.bias": 4, "bert.embeddings.word_embeddings.weight": 5,
    }  # fmt: skip
    assert {name: layers_below_top(name, config) for name in depths} == depths


@pytest.mark.parametrize("family", EVERY_FAMILY)
def test_every_family_has_embeddings_below_four_layers(family: str) -> None:
    config = tiny_model(family).config
    found = {layers_below_top(name, config) for name in parameter_shapes(config)}
    assert found == {0, 1, 2, 3, 4, 5}


def test_one_step_of_adam_moves_each_layer_by_its_own_learning_rate(tmp_path: Path) -> None:
    """Adam's first step is the learning rate times the sign of the gradient, where there is no weight decay."""
    model, before = trained(tmp_path, layer_decay=0.5, weight_decay=0.0, warmup=0.0, gradient_clip=1e9)
    for name, value in model.named_parameters():
        moved = (value.detach() - before[name]).abs().max().item()
        if moved and not name.endswith("key.bias"):  # the softmax cancels a key's bias: its gradient is rounding
            expected = 1e-3 * 0.5 ** layers_below_top(name, model.config)
            assert moved == pytest.approx(expected, rel=0.02), name


@pytest.mark.parametrize(
    "stage",
    [
        Layers(freeze=["bert.*"]),
        General(freeze=["bert.embeddings.*", "bert.encoder.*"]),
        Distill(losses={"hidden": HiddenStates()}, freeze=["bert.*"]),
    ],
)
def test_freezing_all_that_layer_losses_reach_is_refused(stage: Training) -> None:
    config = tiny_model().config
    (fault,) = stage.faults(Known(student=config, teacher=config))
    assert (fault.setting, "does not train the head" in fault.rule) == ("freeze", True)


def test_freezing_the_encoder_is_allowed_where_the_head_learns() -> None:
    config = tiny_model().config
    assert not list(
        Distill(losses={"soft": SoftTargets()}, freeze=["bert.*"]).faults(Known(student=config, teacher=config))
    )


def test_preparations_that_learn_from_unlabelled_rows_can_have_them_augmented() -> None:
    def faults(**prepare: Training) -> list[str]:
        hard = Distill(losses={"hard": HardLabels()})
        recipe = Recipe(distill=hard, augment={"perturb": Perturb()}, prepare={**prepare})
        return [fault.setting for fault in recipe.faults()]

    assert faults() == faults(theseus=Theseus()) == ["augment"]
    assert faults(layers=Layers()) == faults(progressive=Progressive()) == faults(general=General()) == []


def test_frozen_parameters_stay_to_the_bit_and_can_learn_afterwards(tmp_path: Path) -> None:
    model, before = trained(tmp_path, freeze=["*.embeddings.*", "bert.encoder.layer.0.*"])
    for name, value in model.named_parameters():
        still = ".embeddings." in name or ".layer.0." in name
        if still:
            assert torch.equal(value, before[name]), name
        assert value.requires_grad
    assert not torch.equal(model.get_parameter("classifier.weight"), before["classifier.weight"])


@pytest.mark.parametrize(
    ("settings", "setting", "message"),
    [
        ({"freeze": ["bert.embedings.*"]}, "freeze", "matches no trainable parameter"),
        ({"freeze": ["bert.pooler.dense.weigth"]}, "freeze", "Nearest: bert.pooler.dense.weight,"),
        ({"freeze": ["*"]}, "freeze", "leaves nothing to train"),
    ],
)
def test_patterns_that_make_no_sense_are_refused(settings: dict[str, list[str]], setting: str, message: str) -> None:
    faults = list(parameter_faults(Training(**settings), tiny_model().config))  # type: ignore[arg-type]
    assert [fault.setting for fault in faults] == [setting]
    assert message in str(faults[0])


@pytest.mark.parametrize("value", [0.0, 1.5, float("nan")])
def test_a_decay_outside_its_range_is_refused(value: float) -> None:
    assert [fault.setting for fault in Training(layer_decay=value).faults()] == ["layer_decay"]


def test_generations_follow_each_other_and_the_teacher_stays_the_teacher(
    files: dict[str, Path], tmp_path: Path
) -> None:
    save_tiny(tmp_path / "teacher")
    losses = {"soft": SoftTargets(), "hard": HardLabels(), "hidden": HiddenStates()}
    parts = {
        "student": Bert(layers=2, start="pretrained"),
        "distill": Distill(losses=losses, epochs=4, learning_rate=5e-3, batch_size=16, generations=3),
        "quantize": {},
    }
    state = recipe(files, tmp_path / "teacher", tmp_path, **parts).run().state
    facts = json.loads((tmp_path / "run" / "report.json").read_text())
    names = [stage["name"] for stage in facts["stages"]]
    assert names == ["teacher", "distill", "distill-2", "distill-3", "heads"]
    assert state.given_teacher == state.records[0].model
    folders = [record.model.folder for record in state.records[1:4]]
    first, second, third = (load_model(folder).state_dict() for folder in folders)
    for item, next_one in ((first, second), (second, third)):
        assert not torch.equal(item["classifier.weight"], next_one["classifier.weight"])
    assert list((tmp_path / "run" / "stages").glob("*-distill-3"))


def test_students_start_where_they_are_told(tmp_path: Path) -> None:
    teacher, other = tiny_model(seed=0), tiny_model(seed=5)
    folder = save_tiny(tmp_path / "other", seed=5)
    student = Bert(layers=2, layer_map=[1, 3], start=str(folder)).build(teacher)
    weights = student.state_dict()
    known = other.bert.encoder.layer[2].output.dense.weight
    assert torch.equal(weights["bert.encoder.layer.1.output.dense.weight"], known)
    reading = Material(None, None, False, str(folder))
    twin = Bert(layers=2, layer_map=[1, 3], start="pretrained").build(teacher, reading)
    assert torch.equal(twin.bert.embeddings.word_embeddings.weight, other.bert.embeddings.word_embeddings.weight)


def test_starts_that_cannot_be_are_refused(tmp_path: Path) -> None:
    teacher = tiny_model().config
    assert [fault.setting for fault in Bert(start="pretrained").faults(Known(teacher=teacher, fine_tuned=False))] == [
        "start"
    ]
    assert not list(Bert(start="pretrained").faults(Known(teacher=teacher, fine_tuned=True)))
    assert [fault.setting for fault in Bert(start=str(tmp_path / "none")).faults()] == ["start"]
    electra = save_tiny(tmp_path / "electra", "electra")
    (fault,) = Bert(start=str(electra)).faults(Known(teacher=teacher))
    assert "electra" in str(fault)
