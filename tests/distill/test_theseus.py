"""BERT-of-Theseus: what runs in whose place, what is trained, and how often."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import functional
from transformers import AutoModelForSequenceClassification, PreTrainedModel

from compress.data.dataset import Split
from compress.distill.losses import HardLabels
from compress.distill.stage import Distill
from compress.distill.theseus import Replacement, Theseus
from compress.errors import RecipeError
from compress.families.forms.uneven import shrink
from compress.families.registry import FAMILIES
from compress.known import Known
from compress.models.evaluate import main_metric
from compress.models.outputs import observe
from compress.models.tokens import Tokens, tokenize
from compress.student.bert import Bert
from compress.tasks.classification import Classification
from compress.train import fit, same_randomness
from tests.conftest import EVERY_FAMILY, LIKE_BERT, reviews, tiny_batch, tiny_model, tiny_tokenizer
from tests.run.test_recipe import made, recipe, report

TASK = Classification(("bad", "good"))


def pair(family: str = "bert", layers: int = 2, **settings: Any) -> tuple[PreTrainedModel, PreTrainedModel]:
    """Return a predecessor of four layers and a successor with weights of its own, in evaluation mode."""
    predecessor = tiny_model(family, **settings)
    with same_randomness():
        torch.manual_seed(5)
        return predecessor, Bert(layers=layers, start="random").build(predecessor)


def spliced(
    family: str, predecessor: PreTrainedModel, successor: PreTrainedModel, order: list[tuple[str, int]]
) -> PreTrainedModel:
    """Return a model of its own with the predecessor's embeddings and head and these layers, copied one by one."""
    config = type(predecessor.config)(**(predecessor.config.to_dict() | FAMILIES[family].sizes(layers=len(order))))
    model: PreTrainedModel = AutoModelForSequenceClassification.from_config(config).eval()
    outside = {n: v for n, v in predecessor.state_dict().items() if f".{FAMILIES[family].stack}." not in n}
    model.load_state_dict(outside, strict=False)
    layers = {side: FAMILIES[family].layers(m) for side, m in (("prd", predecessor), ("scc", successor))}
    for layer, (side, place) in zip(FAMILIES[family].layers(model), order, strict=True):
        layer.load_state_dict(layers[side][place].state_dict())
    return model


@pytest.mark.parametrize("family", EVERY_FAMILY)
@torch.no_grad()
def test_nothing_replaced_is_the_predecessor_and_all_replaced_is_the_successor(family: str) -> None:
    predecessor, successor = pair(family)
    mixture, batch = Replacement(successor, predecessor, Theseus(), TASK).eval(), tiny_batch(family=family)
    whole = observe(predecessor, batch).logits
    assert torch.equal(mixture.mixed(batch, [False, False]), whole)
    assert torch.equal(mixture.mixed(batch, [True, True]), observe(successor, batch).logits)
    assert torch.equal(observe(predecessor, batch).logits, whole)


@pytest.mark.parametrize("family", LIKE_BERT)
@torch.no_grad()
def test_a_mixture_is_the_model_put_together_by_hand(family: str) -> None:
    predecessor, successor = pair(family)
    mixture, batch = Replacement(successor, predecessor, Theseus(), TASK).eval(), tiny_batch(family=family)
    first = spliced(family, predecessor, successor, [("scc", 0), ("prd", 2), ("prd", 3)])
    second = spliced(family, predecessor, successor, [("prd", 0), ("prd", 1), ("scc", 1)])
    for model, replaced in ((first, [True, False]), (second, [False, True])):
        torch.testing.assert_close(mixture.mixed(batch, replaced), observe(model, batch).logits, rtol=0, atol=0)


@torch.no_grad()
def test_a_pruned_predecessor_is_replaced_module_by_module_too() -> None:
    predecessor = shrink(tiny_model(), heads=[[0], [1, 2], [0, 1, 3], [2]])
    successor = Bert(layers=2, start="random").build(predecessor)
    mixture, batch = Replacement(successor, predecessor, Theseus(), TASK).eval(), tiny_batch()
    assert torch.equal(mixture.mixed(batch, [False, False]), observe(predecessor, batch).logits)
    assert torch.equal(mixture.mixed(batch, [True, True]), observe(successor, batch).logits)


@pytest.mark.parametrize("family", EVERY_FAMILY)
@torch.no_grad()
def test_padding_never_matters_to_a_mixture(family: str) -> None:
    mixture, batch = Replacement(*reversed(pair(family)), Theseus(), TASK).eval(), tiny_batch(family=family)
    longer = {n: functional.pad(v, (0, 5)) if v.dim() == 2 else v for n, v in batch.items()}
    torch.testing.assert_close(mixture.mixed(longer, [True, False]), mixture.mixed(batch, [True, False]))


@pytest.mark.parametrize("family", LIKE_BERT)
def test_the_gradient_is_that_of_the_model_put_together_by_hand_and_zero_where_nothing_was_drawn(family: str) -> None:
    predecessor, successor = pair(family)
    mixture, batch = Replacement(successor, predecessor, Theseus(), TASK).eval(), tiny_batch(family=family)
    torch.manual_seed(next(s for s in range(99) if draws(s) == [False, True]))
    loss, _ = mixture(batch, 0.0)
    loss.backward()
    by_hand = spliced(family, predecessor, successor, [("prd", 0), ("prd", 1), ("scc", 1)])
    expected = functional.cross_entropy(observe(by_hand, batch).logits, batch["labels"])
    expected.backward()
    torch.testing.assert_close(loss, expected)
    idle, drawn = FAMILIES[family].layers(successor)
    for mine, theirs in zip(drawn.parameters(), FAMILIES[family].layers(by_hand)[2].parameters(), strict=True):
        torch.testing.assert_close(mine.grad, theirs.grad)
    assert all(p.grad is not None and not p.grad.any() for p in idle.parameters())
    assert all(p.grad is None for p in predecessor.parameters())


def draws(seed: int, p: float = 0.5, modules: int = 2) -> list[bool]:
    generator = torch.Generator().manual_seed(seed)
    return [float(u) < p for u in torch.rand(modules, generator=generator)]


class Noting(Replacement):
    """A mixture that notes its draws instead of running them."""

    def mixed(self, batch: Any, replaced: list[bool]) -> torch.Tensor:
        """Return logits of zero."""
        self.seen = [*getattr(self, "seen", []), replaced]
        return torch.zeros(3, 2, requires_grad=True)


@pytest.mark.parametrize("rate", [0.3, 0.8])
@torch.no_grad()
def test_each_module_is_replaced_as_often_as_asked_for_and_independently_of_the_others(rate: float) -> None:
    mixture = Noting(*reversed(pair(layers=4)), Theseus(rate=rate, rate_end=rate), TASK)
    batch, times = tiny_batch(), 3000
    torch.manual_seed(1)
    for _ in range(times):
        mixture(batch, 0.0)
    seen = np.array(mixture.seen, dtype=float)
    assert np.allclose(seen.mean(0), rate, atol=4 * np.sqrt(rate * (1 - rate) / times))
    together = np.corrcoef(seen.T)[~np.eye(4, dtype=bool)]
    assert np.abs(together).max() < 4 / np.sqrt(times)


def test_the_rate_grows_evenly_to_its_end_and_stays() -> None:
    linear = Theseus(rate=0.2, rate_end=0.8, full_at=0.5)
    assert [linear.rate_at(t) for t in (0.0, 0.25, 0.5, 0.9)] == pytest.approx([0.2, 0.5, 0.8, 0.8])
    constant = Theseus(rate=0.4, rate_end=0.4)
    assert {constant.rate_at(t) for t in (0.0, 0.5, 1.0)} == {0.4}


@pytest.mark.parametrize("rate", [0.0, 0.05])
def test_batches_in_which_nothing_is_replaced_are_nothing_special(rate: float, tmp_path: Path) -> None:
    start = pair()[1].state_dict()
    _, successor = trained(tmp_path, rate=rate, rate_end=0.2)
    assert any(not torch.equal(start[name], value) for name, value in successor.state_dict().items())


def test_dropout_works_in_both_models_while_training_and_in_none_afterwards() -> None:
    predecessor, successor = pair()
    mixture, batch = Replacement(successor, predecessor, Theseus(), TASK), tiny_batch()
    mixture.train()
    assert not torch.equal(mixture.mixed(batch, [False, False]), mixture.mixed(batch, [False, False]))
    mixture.eval()
    for replaced in ([False, False], [True, True]):
        assert torch.equal(mixture.mixed(batch, replaced), mixture.mixed(batch, replaced))
    assert not predecessor.training


def tokens(rows: int = 120, seed: int = 1) -> Tokens:
    written = reviews(rows, seed)
    labels = np.array([TASK.encode(label) for label, _ in written], dtype=np.int64)
    return tokenize(Split(tuple(text for _, text in written), None, labels), tiny_tokenizer(), 32)


def trained(folder: Path, stop_at: int | None = None, **changes: Any) -> tuple[PreTrainedModel, PreTrainedModel]:
    """Train a successor; ``stop_at`` raises in the middle, as an interruption does. Returns both models."""
    predecessor, successor = pair()
    settings = Theseus(**{"epochs": 3, "batch_size": 16, "learning_rate": 3e-3, "checkpoint_seconds": 1e-9, **changes})
    mixture = Replacement(successor, predecessor, settings, TASK)
    if stop_at is not None:
        steps = iter(range(10**6))

        def interrupted(*arguments: Any, forward: Callable[..., Any] = mixture.forward) -> Any:
            if next(steps) == stop_at:
                raise KeyboardInterrupt
            return forward(*arguments)

        mixture.forward = interrupted  # type: ignore[method-assign]
    validation = tokens(40, 2)
    fit(
        mixture, tokens(), settings, seed=3, folder=folder, title="test",
        validate=lambda: main_metric(successor, validation, TASK),
    )  # fmt: skip
    return predecessor, successor


@pytest.mark.parametrize("stop_at", [8, *(pytest.param(at, marks=pytest.mark.slow) for at in (3, 17))])
def test_an_interrupted_replacement_draws_on_and_ends_with_the_same_weights(stop_at: int, tmp_path: Path) -> None:
    whole = trained(tmp_path / "whole")[1].state_dict()
    with pytest.raises(KeyboardInterrupt):
        trained(tmp_path / "parts", stop_at)
    assert list((tmp_path / "parts").rglob("whole"))
    resumed = trained(tmp_path / "parts")[1].state_dict()
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)


def test_only_the_successors_layers_change(tmp_path: Path) -> None:
    before, start = (model.state_dict() for model in pair())
    predecessor, successor = trained(tmp_path, layer_decay=0.5)
    assert all(torch.equal(before[name], value) for name, value in predecessor.state_dict().items())
    for name, value in successor.state_dict().items():
        if ".layer." not in name:
            assert torch.equal(before[name], value), name
        elif "key.bias" not in name:  # attention scores do not depend on it
            assert not torch.equal(start[name], value), name


@pytest.mark.parametrize(
    ("student", "settings", "words"),
    [
        (Bert(layers=3), {}, ["divide the teacher's 4; it has 3"]),
        (Bert(layers=4), {}, ["fewer layers than the teacher"]),
        (Bert(layers=2, hidden_size=8, heads=2), {}, ["equal widths; student 8, teacher 16"]),
        (Bert(layers=2), {"freeze": ["*.embeddings.*"]}, ["matches no trainable parameter"]),
        (Bert(layers=2), {"freeze": ["bert.encoder.*"]}, ["leaves nothing to train"]),
    ],
)
def test_a_student_that_cannot_stand_in_is_refused(student: Bert, settings: dict[str, Any], words: list[str]) -> None:
    teacher = tiny_model().config
    (fault,) = Theseus(**settings).faults(Known(student=student.config(teacher), teacher=teacher))
    for word in words:
        assert word in str(fault)


def test_a_student_with_another_vocabulary_is_refused() -> None:
    teacher = tiny_model().config
    student = Bert(layers=2).config(teacher)
    student.vocab_size += 1
    (fault,) = Theseus().faults(Known(student=student, teacher=teacher))
    assert "the student's bert.embeddings.word_embeddings.weight has another shape" in str(fault)


@pytest.mark.parametrize("family", EVERY_FAMILY)
def test_a_student_of_the_family_is_accepted_and_one_of_another_refused(family: str) -> None:
    teacher = tiny_model(family).config
    own = {} if family == "mpnet" else {"heads": 2}  # all layers share a bias by heads
    student = Bert(layers=2, intermediate_size=12, **own).config(teacher)
    first = FAMILIES[family].named(0, "*")
    assert not list(Theseus(freeze=[first], layer_decay=0.9).faults(Known(student=student, teacher=teacher)))
    other = tiny_model("bert" if family != "bert" else "roberta").config
    assert "cannot put layers of" in " ".join(map(str, Theseus().faults(Known(student=student, teacher=other))))


@pytest.mark.parametrize(
    ("settings", "setting"),
    [
        ({"rate": 0.0, "rate_end": 0.0}, "rate"),
        ({"rate": 1.5}, "rate"),
        ({"rate": 0.5, "rate_end": 0.4}, "rate_end"),
        ({"full_at": 0.0}, "full_at"),
        ({"epochs": 0.0}, "epochs"),
    ],
)
def test_rates_out_of_range_are_refused(settings: dict[str, Any], setting: str) -> None:
    assert setting in [fault.setting for fault in Theseus(**settings).faults()]


def test_a_run_replaces_then_trains_the_successor_and_does_nothing_twice(
    files: dict[str, Path], teacher_folder: Path, tmp_path: Path
) -> None:
    changes: dict[str, Any] = {
        "student": Bert(layers=2, start="random"),
        "prepare": {"theseus": Theseus(epochs=4, learning_rate=5e-3, batch_size=16)},
        "distill": Distill(losses={"hard": HardLabels()}, epochs=1, learning_rate=1e-3, batch_size=16),
        "prune": {}, "quantize": {}, "export": {},
    }  # fmt: skip
    state = recipe(files, teacher_folder, tmp_path, **changes).run().state
    facts, before = report(tmp_path), made(tmp_path)
    assert [stage["name"] for stage in facts["stages"]] == ["teacher", "theseus", "distill"]
    assert [stage["kind"] for stage in facts["stages"]] == ["Teacher", "Theseus", "Distill"]
    assert facts["stages"][1]["metrics"]["accuracy"] > 0.8
    assert all(0 <= point["replaced"] <= 1 for point in facts["stages"][1]["curves"] if "replaced" in point)
    teacher, theseus, _ = (
        AutoModelForSequenceClassification.from_pretrained(record.model.folder).state_dict() for record in state.records
    )
    assert all(torch.equal(teacher[name], value) for name, value in theseus.items() if ".layer." not in name)
    recipe(files, teacher_folder, tmp_path, **changes).run()
    assert made(tmp_path) == before
    with pytest.raises(RecipeError, match=r"prepare\.theseus\.rate = 0\.5: needs a student whose layers divide"):
        recipe(files, teacher_folder, tmp_path, **changes | {"student": Bert(layers=3)}).run()
