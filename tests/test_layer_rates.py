"""Which parameters are trained and how fast: by hand, and through the training engine."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import PreTrainedModel

from compress.data import Files
from compress.distill.losses import HiddenStates
from compress.distill.objective import Distillation
from compress.distill.stage import Distill
from compress.distill.teacher_outputs import FromModel
from compress.errors import CompressError, RecipeError
from compress.families.forms.uneven import shrink
from compress.families.registry import layers_below_top
from compress.models.loading import parameter_shapes
from compress.models.quantities import HIDDEN
from compress.run.check import check
from compress.run.recipe import Recipe
from compress.student.bert import Bert
from compress.teachers.model import Teacher
from compress.train import Decay, Supervised, Training, fit, parameter_faults
from tests.conftest import EVERY_FAMILY, FAMILY_NAMES, tiny_model
from tests.test_train import tokens

DEPTHS = {
    "bert": {"bert.embeddings.": 5, "bert.encoder.layer.": None, "bert.pooler.": 0, "classifier.": 0},
    "roberta": {"roberta.embeddings.": 5, "roberta.encoder.layer.": None, "classifier.": 0},
    "electra": {
        "electra.embeddings.": 5, "electra.embeddings_project.": 5, "electra.encoder.layer.": None, "classifier.": 0
    },
    "distilbert": {
        "distilbert.embeddings.": 5, "distilbert.transformer.layer.": None, "pre_classifier.": 0, "classifier.": 0
    },
    "deberta-v2": {
        "deberta.embeddings.": 5, "deberta.encoder.rel_embeddings.": 5, "deberta.encoder.LayerNorm.": 5,
        "deberta.encoder.layer.": None, "pooler.": 0, "classifier.": 0
    },
    "albert": {
        "albert.embeddings.": 5, "albert.encoder.embedding_hidden_mapping_in.": 5,
        "albert.encoder.albert_layer_groups.": None, "albert.pooler.": 0, "classifier.": 0
    },
    "ernie": {"ernie.embeddings.": 5, "ernie.encoder.layer.": None, "ernie.pooler.": 0, "classifier.": 0},
    "modernbert": {
        "model.embeddings.": 5, "model.layers.": None, "model.final_norm.": 0, "head.": 0, "classifier.": 0
    },
    "mpnet": {
        "mpnet.embeddings.": 5, "mpnet.encoder.relative_attention_bias.": 5, "mpnet.encoder.layer.": None,
        "classifier.": 0
    },
}  # fmt: skip
DEPTHS |= dict.fromkeys(("xlm-roberta", "camembert"), DEPTHS["roberta"])
"""Steps below the head by the beginning of a parameter's name; None: 4 less the layer's number, which follows."""
QUIET = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
STILL = dict.fromkeys(DEPTHS, QUIET) | {
    "distilbert": {"dropout": 0.0, "attention_dropout": 0.0, "seq_classif_dropout": 0.0},
}


def steps_below(family: str, name: str) -> int:
    """Return how many steps of decay a parameter takes, by the table."""
    (start,) = (start for start in DEPTHS[family] if name.startswith(start))
    known = DEPTHS[family][start]
    return 4 - int(name.removeprefix(start)[0]) if known is None else known


@pytest.mark.parametrize("family", EVERY_FAMILY)
def test_the_names_and_shapes_of_a_configuration_are_those_of_its_model(family: str) -> None:
    for model in (tiny_model(family), shrink(tiny_model(family), heads=[[0], [1, 2], [3], [0, 1]])):
        shapes = {name: parameter.shape for name, parameter in model.named_parameters()}
        assert parameter_shapes(model.config) == shapes


@pytest.mark.parametrize("family", EVERY_FAMILY)
def test_every_parameter_lies_where_the_table_says(family: str) -> None:
    config = tiny_model(family).config
    for name in parameter_shapes(config):
        assert layers_below_top(name, config) == steps_below(family, name), name


def test_models_without_known_layers_have_no_rates_by_layer() -> None:
    class Other:
        model_type, num_hidden_layers = "mamba", 2

    (fault,) = parameter_faults(Training(layer_decay=0.9), Other())
    assert "needs known layers with weights of their own, which mamba does not have" in str(fault)
    assert not list(parameter_faults(Training(), Other()))


@pytest.mark.parametrize("family", FAMILY_NAMES)
def test_training_goes_as_a_loop_with_rates_written_out_by_hand(family: str, tmp_path: Path) -> None:
    settings = Training(
        epochs=0.5, batch_size=16, learning_rate=1e-2, warmup=0.0, weight_decay=0.3, gradient_clip=1e9, layer_decay=0.5,
        freeze=["*.embeddings.LayerNorm.*", "*.layer.1.*"],
    )  # fmt: skip
    rows, model = tokens(), tiny_model(family, **STILL[family])
    before = {name: value.clone() for name, value in model.state_dict().items()}
    batches: list[dict[str, torch.Tensor]] = []
    objective = Supervised(model)

    def noting(batch: Any, progress: float, forward: Callable[..., Any] = objective.forward) -> Any:
        batches.append(batch)
        return forward(batch, progress)

    objective.forward = noting  # type: ignore[method-assign]
    fit(objective, rows, settings, seed=3, folder=tmp_path, title="test", validate=dict)
    by_hand = naive(family, tiny_model(family, **STILL[family]).train(), batches)
    moved = 0
    for name, value in model.state_dict().items():
        if not name.endswith(("key.bias", "k_lin.bias")):  # whose gradient is rounding only
            torch.testing.assert_close(value, by_hand[name], rtol=1e-4, atol=1e-6, msg=name)
        still = "embeddings.LayerNorm" in name or ".layer.1." in name
        assert not still or torch.equal(value, before[name]), name
        moved += not torch.equal(value, before[name])
    assert len(batches) == 4
    assert moved > 20
    assert all(parameter.requires_grad for parameter in model.parameters())


def naive(family: str, model: PreTrainedModel, batches: list[dict[str, torch.Tensor]]) -> dict[str, torch.Tensor]:
    """Train with AdamW (betas 0.9 and 0.999, eps 1e-8), written out, a linear rate and decay of weights alone."""
    first, second = ({name: torch.zeros_like(p) for name, p in model.named_parameters()} for _ in range(2))
    for step, batch in enumerate(batches, start=1):
        model.zero_grad()
        model(**{name: value for name, value in batch.items() if name != "rows"}).loss.backward()
        with torch.no_grad():
            for name, p in model.named_parameters():
                if "embeddings.LayerNorm" in name or ".layer.1." in name or p.grad is None:
                    continue
                rate = 1e-2 * (1 - (step - 1) / len(batches)) * 0.5 ** steps_below(family, name)
                bare = name.endswith("bias") or "LayerNorm" in name or "layer_norm" in name
                p.mul_(1 - rate * (0.0 if bare else 0.3))
                first[name].lerp_(p.grad, 0.1)
                second[name].lerp_(p.grad**2, 0.001)
                root = (second[name] / (1 - 0.999**step)).sqrt() + 1e-8
                p.sub_(rate * first[name] / (1 - 0.9**step) / root)
    return model.state_dict()


def test_projections_and_a_students_head_learn_at_the_full_rate(tmp_path: Path) -> None:
    teacher = tiny_model()
    student = Bert(layers=2, hidden_size=8, heads=2, start="random").build(teacher)
    objective = Distillation(
        student, {"h": HiddenStates()}, FromModel(teacher, {HIDDEN: (2, 4)}), teacher.config, ((1, 2), (2, 4))
    )
    before = {name: parameter.detach().clone() for name, parameter in objective.named_parameters()}
    settings = Training(
        epochs=0.1, batch_size=16, learning_rate=1e-2, warmup=0.0, decay=Decay.constant, weight_decay=0.0,
        layer_decay=0.5, freeze=["bert.encoder.layer.0.attention.*"],
    )  # fmt: skip
    fit(objective, tokens(), settings, seed=3, folder=tmp_path, title="test", validate=dict)
    change = {n: float((p.detach() - before[n]).abs().max()) for n, p in objective.named_parameters()}
    assert change["projections.states.weight"] == pytest.approx(1e-2, rel=1e-2)
    assert change["student.bert.encoder.layer.1.output.dense.weight"] == pytest.approx(5e-3, rel=1e-2)
    assert change["student.bert.encoder.layer.0.output.dense.weight"] == pytest.approx(2.5e-3, rel=1e-2)
    assert change["student.bert.encoder.layer.0.attention.output.dense.weight"] == 0
    assert change["student.bert.embeddings.word_embeddings.weight"] == pytest.approx(1.25e-3, rel=1e-2)


@pytest.mark.parametrize("stop_at", [8, *(pytest.param(at, marks=pytest.mark.slow) for at in (3, 17))])
def test_an_interrupted_training_with_rates_by_layer_ends_with_the_same_weights(stop_at: int, tmp_path: Path) -> None:
    def train(folder: Path, stop_at: int | None = None) -> dict[str, torch.Tensor]:
        model = tiny_model()
        objective = Supervised(model)
        settings = Training(
            epochs=3, batch_size=16, learning_rate=3e-3, checkpoint_seconds=1e-9, layer_decay=0.8,
            freeze=["*.embeddings.*", "*.layer.0.*"],
        )  # fmt: skip
        steps = iter(range(10**6))

        def interrupted(*arguments: Any, forward: Callable[..., Any] = objective.forward) -> Any:
            if next(steps) == stop_at:
                raise KeyboardInterrupt
            return forward(*arguments)

        objective.forward = interrupted  # type: ignore[method-assign]
        fit(objective, tokens(), settings, seed=3, folder=folder, title="test", validate=dict)
        return model.state_dict()

    whole = train(tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path / "parts", stop_at)
    assert list((tmp_path / "parts").rglob("whole"))
    resumed = train(tmp_path / "parts")
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)


def test_a_pattern_without_a_match_names_the_nearest_and_freezing_all_is_refused() -> None:
    config = tiny_model().config
    (fault,) = parameter_faults(Training(freeze=["bert.encoder.layers.0.*"]), config)
    assert fault.setting == "freeze"
    assert "bert.encoder.layer.0.*" in fault.remedy
    (fault,) = parameter_faults(Training(freeze=["bert.*", "class*"]), config)
    assert fault.rule == "leaves nothing to train"
    assert not list(parameter_faults(Training(freeze=["*.embeddings.*", "*.bias"]), config))


def test_freezing_all_is_refused_also_where_no_configuration_told(tmp_path: Path) -> None:
    with pytest.raises(CompressError, match="leaves nothing to train"):
        fit(Supervised(tiny_model()), tokens(), Training(freeze=["*"]), seed=3, folder=tmp_path, title="t",
            validate=dict)  # fmt: skip


def test_wrong_patterns_of_teacher_and_student_are_told_before_any_work(
    files: dict[str, Path], teacher_folder: Path, tmp_path: Path
) -> None:
    wrong = Recipe(
        data=Files(train=str(files["train"]), test=str(files["test"])),
        teacher=Teacher(model=str(teacher_folder), max_tokens=32, freeze=["bert.embedding.*"]),
        distill=Distill(freeze=["*.layer.3.*"], layer_decay=0.9),
        output=str(tmp_path / "run"), cache=str(tmp_path / "cache"),
    )  # fmt: skip
    wrong.benchmark.tokens = [8]
    with pytest.raises(RecipeError) as told:
        check(wrong)
    assert "distill.freeze" not in str(told.value)
    assert "teacher.freeze = 'bert.embedding.*': matches no trainable parameter" in str(told.value)
    wrong.teacher.freeze = []
    with pytest.raises(RecipeError, match=r"distill\.freeze = '\*\.layer\.3\.\*': matches no trainable parameter"):
        check(wrong)
