"""Several models as one: its logits against loops, its layers against the chosen member's, its folder reloaded."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import PreTrainedModel

from compress.distill.losses import LogitsMSE, SoftTargets, wanted
from compress.distill.objective import Distillation
from compress.distill.teacher_outputs import FromModel, on_disk
from compress.families.forms.uneven import kept_heads, shrink
from compress.families.registry import family_of
from compress.models.ensemble import EnsembleForSequenceClassification, combined, ensemble, principal
from compress.models.loading import load_model, save_model
from compress.models.outputs import observe, parameters
from compress.models.quantities import HIDDEN, KEYS, MEMBERS, RELATIONS, SCORES
from compress.pipeline.model import Model
from compress.pipeline.workshop import Workshop
from compress.tasks.classification import Classification
from compress.tasks.multi_label import MultiLabel
from compress.tasks.regression import Regression
from tests.conftest import tiny_batch, tiny_model, tiny_tokenizer
from tests.fresh import run_fresh
from tests.test_train import tokens

LABELS = Classification(("bad", "good"))
SEVERAL = MultiLabel(("cheap", "near"))
WEIGHTS = [1.0, 3.0, 0.5]


def members() -> list[PreTrainedModel]:
    """Return three members of different families and shapes."""
    pruned = shrink(tiny_model("electra", seed=2), heads=[[0, 2], [1], [0, 1, 2, 3], [3]])
    return [tiny_model("bert", seed=1), pruned, tiny_model("bert", seed=3)]


def joined(how: str = "probabilities", chosen: int = 1, **changes: Any) -> EnsembleForSequenceClassification:
    """Return them as one; the second numbers the labels the other way round."""
    settings = {"orders": [[0, 1], [1, 0], [0, 1]], "head": LABELS.head_config(), "weights": WEIGHTS} | changes
    return ensemble(members(), combine=how, chosen=chosen, **settings)


def softmax(logits: list[float]) -> list[float]:
    return [math.exp(x) / sum(math.exp(y) for y in logits) for x in logits]


def naive(how: str, logits: list[list[float]]) -> list[float]:
    """Return the combined logits of one row, its members' given, by loops."""
    outputs = range(len(logits[0]))
    weights = WEIGHTS
    if how == "logits":
        return [sum(w * own[c] for w, own in zip(weights, logits, strict=True)) / sum(weights) for c in outputs]
    probabilities = [softmax(own) for own in logits]
    if how == "confidence":
        weights = [w * max(own) for w, own in zip(weights, probabilities, strict=True)]
    mean = [sum(w * own[c] for w, own in zip(weights, probabilities, strict=True)) / sum(weights) for c in outputs]
    return [math.log(share) for share in mean]


@pytest.mark.parametrize("how", ["probabilities", "logits", "confidence"])
def test_logits_are_those_of_loops_over_rows_and_members(how: str) -> None:
    logits = torch.randn(3, 7, 4, dtype=torch.float64) * 3
    found = combined(logits, torch.tensor(WEIGHTS), how)
    for row in range(7):
        expected = torch.tensor(naive(how, logits[:, row].tolist()), dtype=torch.float64)
        torch.testing.assert_close(found[row], expected)


def test_the_softmax_of_a_mean_of_probabilities_is_that_mean() -> None:
    logits = torch.randn(3, 5, 4)
    mean = logits.softmax(-1).mean(0)
    torch.testing.assert_close(combined(logits, torch.ones(3), "probabilities").softmax(-1), mean)


def test_equally_sure_members_count_alike_and_a_sure_one_more() -> None:
    alike = torch.tensor([[[2.0, 0.0]], [[0.0, 2.0]]])
    torch.testing.assert_close(combined(alike, torch.ones(2), "confidence").softmax(-1), torch.full((1, 2), 0.5))
    surer = torch.tensor([[[9.0, 0.0]], [[0.0, 1.0]]])
    by_confidence, plain = (combined(surer, torch.ones(2), how).softmax(-1) for how in ("confidence", "probabilities"))
    assert by_confidence[0, 0] > plain[0, 0]


@pytest.mark.parametrize("how", ["probabilities", "confidence"])
@pytest.mark.parametrize("temperature", [1.0, 4.0])
@torch.no_grad()
def test_soft_targets_are_the_mean_of_the_members_answers_at_the_temperature(
    how: str, temperature: float, tmp_path: Path
) -> None:
    save_model(joined(how), tiny_tokenizer(), tmp_path / "one")
    single, rows = load_model(tmp_path / "one"), tokens(8)
    losses = {"soft": SoftTargets(temperature=temperature)}
    wanted_of_it = wanted(losses.values(), (), (0, 0), single.config)
    batch, student = rows.batch([1, 5, 2]), tiny_model(seed=9)
    outputs = torch.stack([observe(model, batch).logits for model in members()])
    outputs[1] = outputs[1].flip(-1)
    weights = torch.tensor(WEIGHTS).view(-1, 1, 1).expand(3, 3, 1)
    if how == "confidence":
        weights = weights * outputs.softmax(-1).amax(-1, keepdim=True)
    mean = (weights / weights.sum(0) * (outputs / temperature).softmax(-1)).sum(0)
    ours = (observe(student, batch).logits / temperature).log_softmax(-1)
    expected = temperature**2 * (mean * (mean.log() - ours)).sum() / 3
    disk = on_disk(Workshop(tmp_path / "cache"), Model(tmp_path / "one", "key"), single, rows, wanted_of_it)
    for source in (FromModel(single, wanted_of_it), disk):
        _, parts = Distillation(student, losses, source, single.config).eval()(batch, 0.0)
        torch.testing.assert_close(parts["soft"], expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("how", ["probabilities", "confidence"])
@torch.no_grad()
def test_soft_targets_of_several_labels_are_the_mean_of_each_labels_answers_at_the_temperature(how: str) -> None:
    """Against loops; an ensemble is among the members."""
    inner = joined(how, head=SEVERAL.head_config())
    settings = ensemble(
        [tiny_model(seed=5), inner], [[0, 1], [1, 0]], SEVERAL.head_config(), combine=how, weights=[1.0, 2.0], chosen=1
    )
    losses, batch, student, temperature = {"soft": SoftTargets(temperature=4.0)}, tiny_batch(), tiny_model(seed=9), 4.0
    wanted_of_it = wanted(losses.values(), (), (0, 0), settings.config)
    assert wanted_of_it == {MEMBERS: (0,)}
    ours = (observe(student, batch).logits / temperature).sigmoid()
    alone = observe(tiny_model(seed=5), batch).logits
    within = observe(inner, batch).logits.flip(-1)
    parts = [observe(member, batch).logits for member in members()]
    parts[1] = parts[1].flip(-1)
    expected = 0.0
    for row in range(len(ours)):
        for label in range(2):
            shares = [
                weight * sure(how, item[row, label]) for weight, item in zip([1, 2], [alone, within], strict=True)
            ]
            own = [item[row, 1 - label] for item in parts]  # the second label of the ensemble is the inner one's first
            inner_shares = [weight * sure(how, logit) for weight, logit in zip(WEIGHTS, own, strict=True)]
            inner_mean = sum(s * torch.sigmoid(o / temperature) for s, o in zip(inner_shares, own, strict=True))
            inner_mean = inner_mean / sum(inner_shares)
            mean = shares[0] * torch.sigmoid(alone[row, label] / temperature) + shares[1] * inner_mean
            mean = mean / sum(shares)
            q = ours[row, label]
            expected += mean * torch.log(mean / q) + (1 - mean) * torch.log((1 - mean) / (1 - q))
    task = SEVERAL
    found = Distillation(student, losses, FromModel(settings, wanted_of_it), settings.config, task=task).eval()(
        batch, 0.0
    )[1]
    torch.testing.assert_close(found["soft"], temperature**2 * expected / ours.numel(), rtol=1e-4, atol=1e-6)


def sure(how: str, logit: torch.Tensor) -> float:
    """Return how sure a member is of one label's answer, where that weighs."""
    share = float(torch.sigmoid(logit))
    return max(share, 1 - share) if how == "confidence" else 1.0


def test_what_members_say_is_asked_of_a_mean_of_probabilities_only() -> None:
    soft, mse = SoftTargets(), LogitsMSE()
    assert wanted([soft], (), (0, 0), joined().config) == {MEMBERS: (0,)}
    assert wanted([mse], (), (0, 0), joined().config) == {}
    assert wanted([soft], (), (0, 0), joined("logits").config) == {}  # their mean is right at every temperature
    assert wanted([soft], (), (0, 0), tiny_model().config) == {}


@torch.no_grad()
def test_members_of_a_member_are_members() -> None:
    batch, inner = tiny_batch(), joined()
    outer = ensemble(
        [tiny_model(), inner], [[0, 1], [1, 0]], LABELS.head_config(), combine="probabilities", weights=[1, 2], chosen=1
    )
    found = LABELS.softened(observe(outer, batch, MEMBERS)[MEMBERS][0], 3.0).div(3).softmax(-1)
    mean = LABELS.softened(observe(inner, batch, MEMBERS)[MEMBERS][0], 3.0).div(3).softmax(-1).flip(-1)
    torch.testing.assert_close(found, (observe(tiny_model(), batch).logits.div(3).softmax(-1) + 2 * mean) / 3)


def test_very_sure_members_give_finite_logits() -> None:
    logits = torch.tensor([[[200.0, -200.0]], [[190.0, -300.0]]])
    assert combined(logits, torch.ones(2), "probabilities").isfinite().all()


@pytest.mark.parametrize("how", ["probabilities", "logits", "confidence"])
def test_gradients_are_right(how: str) -> None:
    logits = torch.randn(3, 2, 4, dtype=torch.float64, requires_grad=True)
    weights = torch.tensor(WEIGHTS, dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda x: combined(x, weights, how), logits)


@pytest.mark.parametrize("how", ["probabilities", "logits", "confidence"])
@torch.no_grad()
def test_the_model_says_what_its_members_say_in_one_order_of_labels(how: str) -> None:
    batch = tiny_batch()
    outputs = [observe(member, batch).logits for member in members()]
    outputs[1] = outputs[1].flip(-1)
    expected = combined(torch.stack(outputs), torch.tensor(WEIGHTS), how)
    torch.testing.assert_close(observe(joined(how), batch).logits, expected)


@torch.no_grad()
def test_scores_are_averaged() -> None:
    models, batch = [tiny_model(seed=seed, num_labels=1) for seed in range(3)], tiny_batch()
    head = Regression(0.0, 5.0).head_config()
    joint = ensemble(models, [[0]] * 3, head, combine="probabilities", weights=WEIGHTS, chosen=1)
    outputs = [observe(model, batch).logits for model in models]
    mean = sum(w * s for w, s in zip(WEIGHTS, outputs, strict=True)) / sum(WEIGHTS)
    torch.testing.assert_close(observe(joint, batch).logits, mean)


@pytest.mark.parametrize("chosen", [1, 2, 3])
@torch.no_grad()
def test_layers_are_the_chosen_members_alone(chosen: int) -> None:
    joint, own, batch = joined(chosen=chosen), members()[chosen - 1], tiny_batch()
    plain = observe(joint, batch).logits
    seen = observe(joint, batch, HIDDEN, SCORES, *RELATIONS)
    expected = observe(own, batch, HIDDEN, SCORES, *RELATIONS)
    torch.testing.assert_close(seen.logits, plain)
    for quantity in (HIDDEN, SCORES, *RELATIONS):
        ours, theirs = seen[quantity], expected[quantity]
        assert sorted(ours) == sorted(theirs)
        assert all(torch.equal(ours[layer], theirs[layer]) for layer in theirs)
    assert torch.equal(observe(joint, batch).logits, plain)  # attention is as it was


def test_its_configuration_describes_the_chosen_members_layers() -> None:
    models = [tiny_model("bert"), members()[1]]
    settings = {"orders": [[0, 1]] * 2, "head": LABELS.head_config(), "weights": [1, 1], "combine": "logits"}
    config = ensemble(models, chosen=2, **settings).config  # type: ignore[arg-type]
    assert (config.hidden_size, config.num_hidden_layers, config.num_attention_heads) == (16, 4, 4)
    assert kept_heads(config) == [[0, 2], [1], [0, 1, 2, 3], [3]]
    assert family_of(config).model_type == "electra"
    assert config.id2label == {0: "bad", 1: "good"}
    assert kept_heads(ensemble(models, chosen=1, **settings).config) == [[0, 1, 2, 3]] * 4  # type: ignore[arg-type]


def test_its_size_is_the_sum_and_its_principal_is_a_member() -> None:
    joint = joined(chosen=2)
    assert parameters(joint) == sum(map(parameters, members()))
    assert principal(joint) is joint.members[1]
    alone = tiny_model()
    assert principal(alone) is alone


@torch.no_grad()
def test_padding_changes_nothing() -> None:
    joint, batch = joined("confidence"), tiny_batch(rows=3, tokens=9)
    whole = observe(joint, batch).logits
    for row in range(3):
        length = int(batch["attention_mask"][row].sum())
        alone = {name: value[row : row + 1, :length] for name, value in batch.items() if name != "labels"}
        torch.testing.assert_close(observe(joint, alone).logits[0], whole[row])


@torch.no_grad()
def test_it_reloads_to_the_bit_in_a_fresh_process_without_pickles(tmp_path: Path) -> None:
    joint, batch = joined("confidence", chosen=2), tiny_batch()
    save_model(joint, tiny_tokenizer(), tmp_path)
    torch.save({"batch": batch, "logits": observe(joint, batch).logits}, tmp_path / "said.pt")
    code = (
        "import sys, torch, compress\n"
        "from transformers import AutoModelForSequenceClassification\n"
        "said = torch.load(sys.argv[1] + '/said.pt')\n"
        "model = AutoModelForSequenceClassification.from_pretrained(sys.argv[1]).eval()\n"
        "inputs = {k: v for k, v in said['batch'].items() if k != 'labels'}\n"
        "with torch.no_grad():\n"
        "    assert torch.equal(model(**inputs).logits, said['logits'])\n"
        "assert model.config.id2label == {0: 'bad', 1: 'good'}\n"
    )
    run_fresh(code, tmp_path)
    assert [path.name for path in tmp_path.iterdir() if path.suffix in {".bin", ".safetensors"}] == [
        "model.safetensors"
    ]


def test_its_outputs_are_kept_on_disk_as_any_teachers(tmp_path: Path) -> None:
    save_model(joined(chosen=2), tiny_tokenizer(), tmp_path / "one")
    single, rows = load_model(tmp_path / "one"), tokens(20)
    wanted = {HIDDEN: (0, 2), SCORES: (3,), **dict.fromkeys(RELATIONS, (4,))}
    disk = on_disk(Workshop(tmp_path / "cache"), Model(tmp_path / "one", "key"), single, rows, wanted)
    batch = rows.batch([3, 11, 7])
    kept, found = disk.batch(batch), FromModel(single, wanted).batch(batch)
    real = batch["attention_mask"].bool()
    torch.testing.assert_close(kept.logits, found.logits, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(kept[HIDDEN][2][real], found[HIDDEN][2][real], rtol=2e-3, atol=2e-3)
    torch.testing.assert_close(kept[KEYS][4][real], found[KEYS][4][real], rtol=2e-3, atol=5e-3)
    assert kept[SCORES][3].shape == found[SCORES][3].shape


@torch.no_grad()
def test_an_ensemble_of_ensembles_answers_and_shows_one_members_layers() -> None:
    inner, batch = joined(chosen=2), tiny_batch()
    outer = ensemble(
        [tiny_model(), inner], [[0, 1]] * 2, LABELS.head_config(), combine="logits", weights=[1, 1], chosen=2
    )
    mean = (observe(tiny_model(), batch).logits + observe(inner, batch).logits) / 2
    seen = observe(outer, batch, HIDDEN, SCORES)
    torch.testing.assert_close(seen.logits, mean)
    assert torch.equal(seen[HIDDEN][4], observe(members()[1], batch, HIDDEN, SCORES)[HIDDEN][4])
    assert sorted(seen[SCORES]) == [1, 2, 3, 4]
    assert family_of(outer.config).model_type == "electra"


def test_a_saved_model_says_nothing_of_the_folders_that_its_members_were_loaded_from(tmp_path: Path) -> None:
    for number, member in enumerate(members()):
        save_model(member, tiny_tokenizer(), tmp_path / str(number))
    loaded = [load_model(tmp_path / str(number)) for number in range(3)]
    settings = {"orders": [[0, 1], [1, 0], [0, 1]], "head": LABELS.head_config(), "weights": WEIGHTS}
    save_model(ensemble(loaded, combine="logits", chosen=1, **settings), tiny_tokenizer(), tmp_path / "saved")
    for path in (tmp_path / "saved").glob("*.json"):
        assert str(tmp_path) not in path.read_text(), path
    assert load_model(tmp_path / "saved").config.members[0]["hidden_size"] == 16
