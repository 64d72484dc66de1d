"""Hidden width: what torch-pruning removes, what is left, how it is measured, and the whole chain with it."""

from __future__ import annotations

import copy
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from transformers import AutoConfig, PreTrainedModel

from compress.distill.losses import (
    AttentionScores,
    Embeddings,
    HiddenStates,
    SoftTargets,
)
from compress.distill.objective import Distillation
from compress.distill.source import Keep
from compress.distill.stage import Distill
from compress.errors import Fault, MissingPackageError
from compress.families.forms.uneven import UnevenForm, head_size, kept_channels, shrink
from compress.families.registry import FAMILIES, family_of
from compress.families.shipped import CODE
from compress.known import Known
from compress.models.loading import load_model, quiet, save_model
from compress.models.outputs import observe, parameters
from compress.models.quantities import HIDDEN, SCORES
from compress.onnx.graph import input_names, write_onnx
from compress.prune.criteria import importance_of
from compress.prune.gradual import Curve
from compress.prune.heads import PruneHeads
from compress.prune.parts import CHANNELS
from compress.prune.width import PruneWidth, channel_magnitude, narrow
from compress.run.predict import predict
from compress.student.bert import Bert
from compress.student.bilstm import BiLstm
from compress.student.mobile import Mobile
from compress.student.shared import Shared
from compress.tasks.functions import hard_label_loss
from tests.conftest import (
    BUT_DEBERTA,
    CUT_EVERYWHERE_NOW,
    FAMILY_NAMES,
    LIKE_BERT,
    save_tiny,
    tiny_batch,
    tiny_model,
    tiny_tokenizer,
)
from tests.run.test_recipe import made, recipe
from tests.student.reloading import check_reloading

Batch = dict[str, Tensor]
KEEP = [0, 1, 2, 5, 7, 11, 15]
UNEVEN = {"heads": [[0, 2], [1], [0, 1, 2], [3]], "units": [[0, 5, 31], list(range(31)), [7], [1, 2, 3, 30]]}


def uneven(family: str) -> PreTrainedModel:
    """A model in which nothing but the states, and the head's hidden layer, is 16 wide."""
    return shrink(tiny_model(family), **UNEVEN)


@pytest.mark.parametrize("keep", [KEEP, [1, 5, 7, 15], [14, 15]])  # of the last two torch-pruning loses the order
@pytest.mark.parametrize("family", LIKE_BERT)
def test_every_tensor_loses_these_channels_where_it_reads_or_writes_states_and_nothing_else(
    family: str, keep: list[int]
) -> None:
    model, names = uneven(family), FAMILIES[family]
    hidden, output = names.head(model) or ("", "")
    before, after = model.state_dict(), narrow(model, keep).state_dict()
    assert set(before) == set(after)
    for name, tensor in before.items():
        kept = tensor
        path, _, part = name.rpartition(".")
        axes = [axis for axis, size in enumerate(tensor.shape) if size == 16]
        if path == hidden:
            axes = [1] if part == "weight" else []  # its own units stay
        elif path == output:
            axes = []
        for axis in axes:
            kept = torch.stack([kept.select(axis, channel) for channel in keep], dim=axis)
        assert torch.equal(after[name], kept), name


@pytest.mark.parametrize("family", FAMILY_NAMES)
@torch.no_grad()
def test_what_is_left_computes_as_a_model_that_was_always_so_narrow_with_heads_of_the_same_size(family: str) -> None:
    names, keep = FAMILIES[family], [0, 1, 2, 5, 7, 11, 13, 15]
    model, batch = narrow(tiny_model(family), keep), tiny_batch(family=family)
    assert head_size(model.config) == 4
    # two heads of width 4 are 8 wide; that each layer has four of them is what uneven shapes can say
    sizes: dict[str, Any] = names.sizes(hidden=8, heads=2) | {"kept_heads": [[0, 1, 2, 3]] * 4}
    sizes |= dict.fromkeys(("kept_channels", "unpruned_size"))
    plain = UnevenForm.config_of(names)(
        **{k: v for k, v in (model.config.to_dict() | sizes).items() if k != "model_type"}
    )
    with quiet():
        twin = type(model)(plain).eval()
    if family == "electra" and not hasattr(twin.base_model, "embeddings_project"):
        twin.base_model.embeddings_project = nn.Linear(8, 8)
    own = {name: value for name, value in model.base_model.state_dict().items() if "pooler" not in name}
    missing, unexpected = twin.base_model.load_state_dict(own, strict=False)
    assert not unexpected
    assert all("pooler" in name for name in missing)
    ours, theirs = observe(model, batch, HIDDEN, SCORES), observe(twin, batch, HIDDEN, SCORES)
    for layer in range(5):
        assert torch.equal(ours[HIDDEN][layer], theirs[HIDDEN][layer])
    for layer in range(1, 5):
        assert torch.equal(ours[SCORES][layer], theirs[SCORES][layer])


@pytest.mark.parametrize("family", BUT_DEBERTA)
@torch.no_grad()
def test_padding_and_batches_change_nothing_in_a_narrow_model(family: str) -> None:
    model, batch = narrow(uneven(family), KEEP), tiny_batch(family=family)
    together = observe(model, batch).logits
    for row in range(3):
        length = int(batch["attention_mask"][row].sum())
        alone = {name: value[row : row + 1, :length] for name, value in batch.items() if name != "labels"}
        torch.testing.assert_close(observe(model, alone).logits[0], together[row], rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_all_channels_kept_give_the_same_logits_to_the_bit_and_the_model_is_left_alone() -> None:
    for family in FAMILY_NAMES:
        model, batch = tiny_model(family).train(), tiny_batch(family=family)
        weights = {name: value.clone() for name, value in model.state_dict().items()}
        same, narrower = narrow(model, range(16)), narrow(model, KEEP)
        assert model.training
        assert same.training
        assert narrower.training
        assert torch.equal(observe(same.eval(), batch).logits, observe(model.eval(), batch).logits)
        assert all(torch.equal(weights[name], value) for name, value in model.state_dict().items())
        assert parameters(narrower) < parameters(model)


@torch.no_grad()
def test_one_model_after_another_gives_what_each_gives_alone() -> None:
    first = narrow(tiny_model("bert"), KEEP).state_dict()
    narrow(uneven("electra"), [3, 4])
    channel_magnitude(tiny_model("roberta"))
    again = narrow(tiny_model("bert"), KEEP).state_dict()
    assert all(torch.equal(first[name], again[name]) for name in first)


@pytest.mark.parametrize("family", BUT_DEBERTA)
@torch.no_grad()
def test_channels_are_named_by_their_first_numbers_and_the_order_of_prunings_does_not_matter(family: str) -> None:
    model, batch = tiny_model(family), tiny_batch(family=family)
    twice = narrow(narrow(model, KEEP), [1, 3, 4, 6])
    assert kept_channels(twice.config) == [1, 5, 7, 15]
    assert torch.equal(observe(twice, batch).logits, observe(narrow(model, [1, 5, 7, 15]), batch).logits)
    first, second = narrow(shrink(model, **UNEVEN), KEEP), shrink(narrow(model, KEEP), **UNEVEN)
    assert torch.equal(observe(first, batch).logits, observe(second, batch).logits)


@torch.no_grad()
def test_embeddings_that_reach_the_states_directly_become_narrow_with_them() -> None:
    wide = tiny_model("electra")
    for width in (8, 16):  # 8: through a projection
        settings = wide.config.to_dict() | {"embedding_size": width}
        settings.pop("model_type")
        model = type(wide)(type(wide.config)(**settings)).eval()
        for keep in (KEEP, list(range(8))):  # 8: as wide as the embeddings, and still projected
            narrower = narrow(model, keep)
            assert narrower.get_input_embeddings().weight.shape[1] == (8 if width == 8 else len(keep))
            assert hasattr(narrower.base_model, "embeddings_project") == (width == 8)
            copied = type(narrower)(AutoConfig.for_model(**narrower.config.to_dict())).eval()
            copied.load_state_dict(narrower.state_dict())
            batch = tiny_batch(family="electra")
            assert torch.equal(observe(copied, batch).logits, observe(narrower, batch).logits)


def test_narrow_models_reload_to_the_bit_in_a_fresh_process(tmp_path: Path) -> None:
    check_reloading({family: narrow(uneven(family), KEEP) for family in FAMILY_NAMES}, tmp_path)


@settings(max_examples=25, deadline=None)
@given(
    keep=st.lists(st.integers(0, 15), min_size=2, max_size=16, unique=True),
    heads=st.lists(st.lists(st.integers(0, 3), min_size=1, unique=True).map(sorted), min_size=4, max_size=4),
    family=st.sampled_from(FAMILY_NAMES),
)
@torch.no_grad()
def test_any_width_runs_and_reloads_to_the_bit(
    keep: list[int], heads: list[list[int]], family: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder, batch = tmp_path_factory.mktemp("narrow"), tiny_batch(family=family)
    model = narrow(shrink(tiny_model(family), heads=heads), keep)
    assert kept_channels(model.config) == sorted(keep)
    for ours, theirs in zip(norms(model), norms(tiny_model(family)), strict=True):
        assert ours.weight.tolist() == [theirs.weight[channel].item() for channel in sorted(keep)]
    save_model(model, tiny_tokenizer(family), folder)
    outputs = observe(model, batch).logits
    assert outputs.isfinite().all()
    assert torch.equal(observe(load_model(folder), batch).logits, outputs)


@pytest.mark.parametrize("keep", [[], [3], [0, 16], [-1, 2]])
def test_channels_that_cannot_be_kept_are_refused(keep: list[int]) -> None:
    with pytest.raises(ValueError, match="two or more"):
        narrow(tiny_model(), keep)


def norms(model: PreTrainedModel) -> list[nn.LayerNorm]:
    """Return the layers' normalisations."""
    layers = family_of(model.config).layers(model)
    return [part for layer in layers for part in layer.modules() if isinstance(part, nn.LayerNorm)]


def entering(model: PreTrainedModel) -> nn.Module:
    """Return what gives the states that enter the first layer: a projection, or the embeddings' normalisation."""
    last = family_of(model.config).embedders(model)[-1]
    return last if isinstance(last, nn.Linear) else last.get_submodule("LayerNorm")


def scaled(model: PreTrainedModel, channel: int, factor: float) -> PreTrainedModel:
    """Return a copy in which the channel is ``factor`` times as large wherever something is written to the states."""
    copied = copy.deepcopy(model)
    with torch.no_grad():
        for part in [entering(copied), *norms(copied)]:
            part.weight[channel] *= factor
            part.bias[channel] *= factor
    return copied


@pytest.mark.parametrize("family", LIKE_BERT)
@torch.no_grad()
def test_a_channels_importance_is_the_slope_of_each_rows_loss_when_it_is_scaled_everywhere(family: str) -> None:
    model, batch = tiny_model(family).double(), tiny_batch(family=family)
    with torch.enable_grad():
        slopes = importance_of(model, CHANNELS, [batch], "gradient")[0]
        squares = importance_of(model, CHANNELS, [batch], "fisher")[0]
    step = 1e-5
    for channel in (0, 7, 15):
        found = []
        for row in range(3):
            alone = {name: value[row : row + 1] for name, value in batch.items()}
            more, less = (
                float(hard_label_loss(observe(scaled(model, channel, 1 + s), alone).logits, alone["labels"]))
                for s in (step, -step)
            )
            found.append((more - less) / (2 * step))
        assert slopes[channel].item() == pytest.approx(sum(map(abs, found)) / 3, rel=1e-3, abs=1e-6)
        assert squares[channel].item() == pytest.approx(sum(x * x for x in found) / 3, rel=1e-3, abs=1e-8)


@pytest.mark.parametrize("family", LIKE_BERT)
@torch.no_grad()
def test_activation_is_the_mean_absolute_state_over_real_tokens_and_places(family: str) -> None:
    model, batch = tiny_model(family), tiny_batch(family=family)
    importance = importance_of(model, CHANNELS, [batch], "activation")[0]
    seen: list[Tensor] = []
    stream = family_of(model.config).stream(model)
    handles = [part.register_forward_hook(lambda _, given, value: seen.append(value)) for part in stream]
    states = observe(model, batch, HIDDEN)[HIDDEN]
    for handle in handles:
        handle.remove()
    assert len(seen) == 9  # what is embedded, and two sums in each of four layers
    assert all(torch.equal(seen[2 * layer], states[layer]) for layer in range(5))
    for channel in (0, 9):
        values = [
            abs(state[row, token, channel].item())
            for state in seen
            for row in range(3)
            for token in range(9)
            if batch["attention_mask"][row, token]
        ]
        assert importance[channel].item() == pytest.approx(sum(values) / len(values), rel=1e-5)


@pytest.mark.parametrize("family", LIKE_BERT)
@torch.no_grad()
def test_magnitude_is_the_mean_squared_weight_of_a_channel_over_all_that_reads_or_writes_it(family: str) -> None:
    model, names = uneven(family), FAMILIES[family]
    hidden, _ = names.head(model) or ("", "")
    totals = [0.0] * 16
    modules: list[tuple[nn.Module, str]] = [(model.get_submodule(hidden), "in")]
    for layer in names.layers(model):
        outputs = names.attention_output(layer), names.feed_forward_output(layer)
        modules += [(part, "out" if part in outputs else "in") for part in names.matrices(layer).values()]
        modules += [(part, "norm") for part in layer.modules() if isinstance(part, nn.LayerNorm)]
    first = entering(model)
    modules.append((first, "out" if isinstance(first, nn.Linear) else "norm"))
    for module, side in modules:
        weight = module.weight
        for channel in range(16):
            part = weight[:, channel] if side == "in" else weight[channel]
            totals[channel] += sum(value * value for value in part.flatten().tolist())
    mean = sum(totals) / 16
    for channel, found in enumerate(channel_magnitude(model).tolist()):
        assert found == pytest.approx(totals[channel] / mean, rel=1e-4)


def test_other_importances_are_not_defined() -> None:
    with pytest.raises(ValueError, match="loss"):
        importance_of(tiny_model(), CHANNELS, [tiny_batch()], "loss")


def test_importance_does_not_depend_on_how_rows_are_batched_and_leaves_no_gradient() -> None:
    model, batch = tiny_model().train(), tiny_batch()
    rows = [{name: value[row : row + 1] for name, value in batch.items()} for row in range(3)]
    for how in ("gradient", "activation"):
        whole, single = (importance_of(model, CHANNELS, batches, how)[0] for batches in ([batch], rows))
        torch.testing.assert_close(whole, single)
    assert model.training
    assert all(parameter.grad is None for parameter in model.parameters())


def projected(student: PreTrainedModel, teacher: PreTrainedModel) -> tuple[Distillation, list[Tensor]]:
    torch.manual_seed(3)
    losses = {"hidden": HiddenStates(), "embeddings": Embeddings()}
    objective = Distillation(student, losses, None, teacher.config, ((1, 1),))
    return objective, [projection.weight for projection in objective.projections.values()]


@torch.no_grad()
def test_the_states_of_a_narrowed_student_are_compared_where_they_were() -> None:
    teacher = tiny_model("electra")
    _, weights = projected(narrow(teacher, KEEP), teacher)
    states = torch.randn(2, 3, 7)
    for weight in weights:
        put = nn.functional.linear(states, weight)
        assert torch.equal(put[..., KEEP], states)
        assert put.abs().sum() == states.abs().sum()
    narrowed_teacher = narrow(teacher, [0, 1, 2, 5, 7, 11, 12, 15])
    _, weights = projected(narrow(teacher, KEEP), narrowed_teacher)
    assert torch.equal(weights[0].argmax(0), torch.tensor([0, 1, 2, 3, 4, 5, 7]))


def test_projections_start_at_random_where_channels_do_not_correspond() -> None:
    teacher = tiny_model()
    unrelated = Bert(layers=2, hidden_size=12, heads=4).build(teacher)  # never was as wide
    lost = narrow(teacher, [2, 3, 4, 5])  # a teacher without some of the student's channels
    for student, against in ((narrow(unrelated, [0, 1, 2]), teacher), (narrow(teacher, KEEP), lost)):
        _, weights = projected(student, against)
        for weight in weights:
            assert len(set(weight.flatten().tolist())) > 2


@torch.no_grad()
def test_students_of_a_narrow_teacher_are_built_or_refused() -> None:
    teacher, batch = narrow(tiny_model(), KEEP), tiny_batch()
    halved = Bert(layers=2)
    assert not list(halved.faults(Known(teacher=teacher.config)))
    assert observe(halved.build(teacher), batch, HIDDEN)[HIDDEN][2].shape == (3, 9, 7)
    sized = Bert(layers=2, hidden_size=8, heads=4)
    assert not list(sized.faults(Known(teacher=teacher.config)))
    assert head_size(sized.build(teacher).config) == 2
    assert [fault.setting for fault in Bert(heads=2).faults(Known(teacher=teacher.config))] == ["hidden_size"]
    assert [fault.setting for fault in Shared().faults(Known(teacher=teacher.config))] == ["share"]
    mobile = Mobile(layers=2, bottleneck=4, heads=2, embedding_size=4)
    assert observe(mobile.build(teacher), batch).logits.shape == (3, 2)


def faults(stage: PruneWidth, student: object = None) -> list[Fault]:
    return list(stage.faults(Known(student=student or tiny_model().config)))


@pytest.mark.parametrize(
    ("stage", "wrong"),
    [
        (PruneWidth(ratio=1.0), ["ratio"]),
        (PruneWidth(importance="loss"), ["importance"]),
        (PruneWidth(schedule=Curve.cubic), ["schedule"]),
        (PruneWidth(multiple_of=0), ["multiple_of"]),
        (PruneWidth(ratio=0.95, multiple_of=1), ["ratio"]),
        (PruneWidth(ratio=0.95), []),
        (PruneWidth(ratio=0.0), []),
    ],
)
def test_what_makes_no_sense_is_refused(stage: PruneWidth, wrong: list[str]) -> None:
    assert [fault.setting for fault in faults(stage)] == wrong


def test_students_without_layers_and_machines_without_the_package_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    bilstm = BiLstm().config(tiny_model().config)
    assert ["bilstm" in str(fault) for fault in faults(PruneWidth(), bilstm)] == [True]
    monkeypatch.setitem(sys.modules, "torch_pruning", None)
    assert ["torch-pruning" in str(fault) for fault in faults(PruneWidth())] == [True]
    with pytest.raises(MissingPackageError, match=r"compress-encoders\[prune\]"):
        narrow(tiny_model(), KEEP)


@given(ratio=st.floats(0, 0.999), multiple=st.integers(1, 64), before=st.integers(2, 1024), steps=st.integers(1, 5))
def test_what_is_left_is_a_multiple_and_never_grows(ratio: float, multiple: int, before: int, steps: int) -> None:
    stage = PruneWidth(ratio=ratio, multiple_of=multiple, rounds=steps)
    left = [stage.remaining(before, step / steps) for step in range(steps + 1)]
    assert left[0] == before
    assert left == sorted(left, reverse=True)
    exact = before - round(ratio * before)
    assert exact <= left[-1] < exact + multiple
    assert left[-1] == before or left[-1] % multiple == 0


@pytest.mark.parametrize("family", CUT_EVERYWHERE_NOW)
@torch.no_grad()
def test_onnx_says_the_same_as_a_narrow_model(family: str, tmp_path: Path) -> None:
    import onnxruntime

    model, batch = narrow(uneven(family), KEEP), tiny_batch(family=family)
    names = input_names(tiny_tokenizer(family))
    write_onnx(model, names, tmp_path / "model.onnx")
    session = onnxruntime.InferenceSession(tmp_path / "model.onnx", providers=["CPUExecutionProvider"])
    (outputs,) = session.run(None, {name: batch[name].numpy() for name in names})
    torch.testing.assert_close(torch.from_numpy(outputs), observe(model, batch).logits, rtol=0, atol=1e-4)


@pytest.mark.slow
def test_the_whole_chain_narrows_recovers_exports_and_reuses(tmp_path: Path, files: dict[str, Path]) -> None:
    losses = {
        "soft": SoftTargets(),
        "hidden": HiddenStates(),
        "embeddings": Embeddings(),
        "attention": AttentionScores(),
    }
    prune = {
        "width": PruneWidth(ratio=0.4, rounds=2, multiple_of=2, rows=40),
        "heads": PruneHeads(ratio=0.4, rows=40, recovery_epochs=0),
    }
    save_tiny(tmp_path / "teacher")
    distill = Distill(losses=losses, epochs=2, learning_rate=5e-3, batch_size=16, teacher_outputs=Keep.disk)
    given = recipe(files, tmp_path / "teacher", tmp_path, distill=distill, prune=prune)
    given.run()
    facts = json.loads((tmp_path / "run" / "report.json").read_text())
    width = next(stage for stage in facts["stages"] if stage["name"] == "width")
    assert "6 of 16 hidden channels removed" in width["notes"][0]
    assert "layer normalisations now average over fewer channels" in width["notes"][1]
    assert width["curves"]
    model = load_model(tmp_path / "run" / "student")
    assert model.config.hidden_size == 10
    assert head_size(model.config) == 4
    fp32 = [artifact for artifact in facts["artifacts"] if artifact["precision"] == "fp32"]
    assert all(artifact["agreement"] == 1 and artifact["max_abs_difference"] < 1e-4 for artifact in fp32)
    assert {artifact["precision"] for artifact in facts["artifacts"]} == {"fp32", "int8"}
    assert (tmp_path / "run" / "student" / CODE).is_file()
    assert "trust_remote_code=True" in (tmp_path / "run" / "student" / "README.md").read_text()
    for folder in (tmp_path / "run" / "artifacts").iterdir():
        assert "auto_map" not in json.loads((folder / "config.json").read_text())
        if (folder / "model.onnx").is_file():
            assert predict(folder, "good film")[0]["label"] in ("bad", "good")
    known = made(tmp_path)
    given.run()
    assert made(tmp_path) == known
    # with nothing to remove the student is the distilled one, of the type that it had
    prune = {"width": PruneWidth(ratio=0.0)}
    recipe(files, tmp_path / "teacher", tmp_path, distill=distill, prune=prune, output=str(tmp_path / "whole")).run()
    stages = tmp_path / "whole" / "stages"
    for name in ("model.safetensors", "config.json"):
        assert (stages / "01-distill" / name).read_bytes() == (stages / "02-width" / name).read_bytes()
    card = (tmp_path / "whole" / "student" / "README.md").read_text()
    assert "trust_remote_code" not in card


@pytest.mark.slow
@pytest.mark.parametrize("family", BUT_DEBERTA)
@torch.no_grad()
def test_models_of_real_size_are_traced_and_narrowed(family: str) -> None:
    with quiet():
        config: Callable[..., object] = AutoConfig.for_model
        sizes = {"electra": {"embedding_size": 128, "hidden_size": 256, "num_attention_heads": 4}}.get(family, {})
        model = type(tiny_model(family))(config(family, **sizes)).eval()
    for norm in norms(model):
        norm.weight.normal_()
    hidden = model.config.hidden_size
    keep = torch.randperm(hidden, generator=torch.Generator().manual_seed(0))[: hidden * 3 // 4].tolist()
    narrower = narrow(model, keep)
    assert narrower.config.hidden_size == hidden * 3 // 4
    few = narrow(model, keep[:40])  # few of many: the order of a set is not theirs
    for ours, theirs in zip(norms(few), norms(model), strict=True):
        assert torch.equal(ours.weight, theirs.weight[sorted(keep[:40])])
    ids = torch.arange(10, 30)[None]
    assert narrower(input_ids=ids, attention_mask=torch.ones_like(ids)).logits.isfinite().all()
