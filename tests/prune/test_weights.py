"""Weights: schedules and scores against the papers' formulas, every method through whole runs, what is refused."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import onnx
import pytest
import torch
from onnx import numpy_helper
from transformers import AutoModelForSequenceClassification

from compress.benchmark.stage import Benchmark
from compress.distill.losses import HardLabels, SoftTargets
from compress.distill.objective import Distillation
from compress.distill.source import Keep
from compress.distill.sparsify import Masks, Sparsify
from compress.distill.stage import Distill
from compress.errors import RecipeError
from compress.export.onnx import Onnx
from compress.families.registry import FAMILIES
from compress.models.loading import load_model
from compress.models.masking import matrices, own_weight
from compress.prune.gradual import Curve
from compress.prune.heads import PruneHeads
from compress.prune.layers import PruneLayers
from compress.prune.methods import zero_smallest
from compress.prune.methods.movement import Movements
from compress.prune.neurons import PruneNeurons
from compress.prune.rounds import Scope
from compress.prune.weights import PruneWeights
from compress.quantize.int8 import DynamicInt8
from compress.quantize.qat import QuantizationAware
from compress.run.check import check
from compress.run.recipe import Recipe
from compress.run.result import Run
from compress.student.bert import Bert
from compress.student.bilstm import BiLstm
from tests.conftest import BERT_NOW, EVERY_FAMILY, VOCABULARY, reviews, save_tiny, tiny_batch, tiny_model, write_tsv
from tests.run.test_recipe import recipe, report

MOVEMENT = {"method": "movement", "begin": 0.1, "every": 1, "score_learning_rate": 0.05}


def share(model: Any, **which: Any) -> list[float]:
    """Return the share of zeros of every matrix."""
    return [float((own_weight(module) == 0).float().mean()) for module in matrices(model, **which).values()]


@pytest.mark.parametrize("cubic", [True, False])
def test_the_schedule_is_zhu_and_guptas(cubic: bool) -> None:
    how = Sparsify(sparsity=0.8, begin=0.2, end=0.6, cubic=cubic)
    for step in range(101):
        t = step / 100
        # s_t = s_f + (s_i - s_f) (1 - (t - t_0) / (n Δt))³ with s_i = 0, between t_0 and t_0 + n Δt
        between = 0.8 + (0 - 0.8) * (1 - (t - 0.2) / 0.4) ** 3 if cubic else 0.8 * (t - 0.2) / 0.4
        assert how.at(t) == pytest.approx(0 if t < 0.2 else 0.8 if t >= 0.6 else between)
    assert Sparsify(sparsity=0.8, begin=0.0, end=0.0).at(0.0) == 0.8
    at_once = Sparsify(sparsity=0.8, begin=0.5, end=0.5, cubic=cubic)
    assert [at_once.at(t) for t in (0.0, 0.49, 0.5, 1.0)] == [0, 0, 0.8, 0.8]


def test_movement_scores_sum_what_training_moves_and_the_highest_stay() -> None:
    # Sanh et al., eq. 3, for gradient descent: S = -rate · sum over steps of ∂L/∂W' · W
    student = tiny_model(hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0)
    objective = Distillation(student, {"hard": HardLabels()}).train()
    how = Sparsify(sparsity=0.6, scores=Movements(0.01), begin=0.25, end=0.75, every=1)
    objective.masks = masks = Masks(student, how)
    expected = [torch.zeros_like(score) for score in masks.scores]
    optimizer = torch.optim.SGD(student.parameters(), lr=0.1)
    for step in range(8):
        optimizer.zero_grad()
        batch = tiny_batch(seed=step)
        objective(batch, step / 8)[0].backward()
        for (module, answer), total in zip(masks.masked, expected, strict=True):
            assert float(1 - answer.mask.float().mean()) == pytest.approx(
                how.at(step / 8), abs=0.5 / answer.mask.numel()
            )
            if not bool(answer.mask.all()):
                assert float(total[answer.mask].min()) >= float(total[~answer.mask].max()) - 1e-5
            # that of the masked weight, which is the gradient of a full weight in a layer that sees it masked
            gradient = full_gradient(student, module, batch)
            total.sub_(0.1 * gradient * own_weight(module))
        optimizer.step()
        for answer, total in zip(masks.scores, expected, strict=True):
            torch.testing.assert_close(answer.detach(), total, atol=1e-5, rtol=1e-3)
    assert any(bool((answer < 0).any()) for answer in expected)


def full_gradient(student: Any, module: Any, batch: Any) -> torch.Tensor:
    """Return the gradient of the loss in the weight that the layer sees, masked places too."""
    seen: list[torch.Tensor] = []

    def given(layer: Any, inputs: Any, output: Any) -> Any:
        weight = layer.weight.detach().requires_grad_()
        seen.append(weight)
        return torch.nn.functional.linear(inputs[0], weight, layer.bias)

    handle = module.register_forward_hook(given)
    loss = Distillation(student, {"hard": HardLabels()}).train()(batch, 0.0)[0]
    handle.remove()
    return torch.autograd.grad(loss, seen[0])[0]


def test_magnitudes_are_asked_no_more_when_all_zeros_are_there() -> None:
    student = tiny_model()
    masks = Masks(student, Sparsify(sparsity=0.5, end=0.5, every=2))
    counts = []
    for step in range(10):
        masks.step(step / 10)
        counts.append(float(masks.sparsity))
    assert counts[0] == counts[1] == 0
    assert counts[2] == counts[3] == pytest.approx(0.5 * (1 - 0.6**3))
    assert counts[5] == 0.5  # at the end of the schedule, though it is not every second step
    module, masked = masks.masked[0]
    before = masked.mask.clone()
    with torch.no_grad():
        module.get_parameter("parametrizations.weight.original").copy_(torch.randn(16, 16))
    masks.step(1.0)
    assert torch.equal(masked.mask, before)
    magnitude = own_weight(module).abs()
    assert masked.mask.sum() == 128
    assert not torch.equal(masked.mask, magnitude > magnitude.flatten().kthvalue(128).values)


@pytest.mark.parametrize("family", EVERY_FAMILY)
@pytest.mark.parametrize("together", [True, False])
def test_the_smallest_leave_exactly_as_many_as_asked(family: str, together: bool) -> None:
    model = tiny_model(family)
    whole = [own_weight(module).clone() for module in matrices(model).values()]
    zero_smallest(model, model, Sparsify(sparsity=0.3, together=together))
    left = [own_weight(module) for module in matrices(model).values()]
    for before, after in zip(whole, left, strict=True):
        assert torch.equal(after[after != 0], before[after != 0])
    zeros = [int((tensor == 0).sum()) for tensor in left]
    if together:
        assert sum(zeros) == round(0.3 * sum(tensor.numel() for tensor in left))
        kept = min(float(after[after != 0].abs().min()) for after in left)
        gone = max(float(b[a == 0].abs().max()) for b, a in zip(whole, left, strict=True) if bool((a == 0).any()))
        assert kept >= gone
    else:
        assert zeros == [round(0.3 * tensor.numel()) for tensor in left]


def tiny(folder: Path, stage: PruneWeights, **changes: Any) -> Recipe:
    files = {name: folder / f"{name}.tsv" for name in ("train", "validation", "test")}
    distill = Distill(
        losses={"soft": SoftTargets(), "hard": HardLabels()}, epochs=2, learning_rate=5e-3, batch_size=16,
        teacher_outputs=Keep.disk, checkpoint_seconds=1e-9,
    )  # fmt: skip
    settings: dict[str, Any] = {
        "student": Bert(layers=2),
        "distill": distill,
        "prune": {"weights": stage},
        "quantize": {},
        "export": {},
        "benchmark": Benchmark(
            rows=3, batches=[1], tokens=[8], seconds=0.02, tfidf=False, labels_only=False, teacher_int8=False
        ),
    }
    return replace(recipe(files, folder / "teacher", folder), **settings | changes)


@pytest.fixture(scope="module")
def begun(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with data, a teacher, and a cache in which the teacher is trained and the student distilled."""
    folder = tmp_path_factory.mktemp("begun")
    for name, rows, seed in (("train", 160, 1), ("validation", 40, 2), ("test", 200, 3)):
        write_tsv(folder / f"{name}.tsv", reviews(rows, seed))
    save_tiny(folder / "teacher")
    tiny(folder, PruneWeights(), prune={}, output=str(folder / "begun")).run()
    return folder


@pytest.fixture
def world(begun: Path, tmp_path: Path) -> Path:
    """A copy of that folder, for one test."""
    shutil.copytree(begun, tmp_path, dirs_exist_ok=True, ignore=shutil.ignore_patterns("begun"))
    return tmp_path


METHODS = {
    "magnitude": PruneWeights(sparsity=0.6, recovery_epochs=2, every=3),
    "together": PruneWeights(sparsity=0.6, scope=Scope.all, schedule=Curve.linear, embeddings=True),
    "at_once": PruneWeights(sparsity=0.3, recovery_epochs=0),
    "movement": PruneWeights(sparsity=0.6, recovery_epochs=2, **MOVEMENT),
    "blocks": PruneWeights(sparsity=0.5, pattern="4x2", **MOVEMENT),
    "two_of_four": PruneWeights(sparsity=0.5, pattern="2:4"),
    "lottery": PruneWeights(method="lottery", sparsity=0.6, rounds=2, recovery_epochs=2),
}


DEPLOYED: dict[str, Any] = {"quantize": {"dynamic": DynamicInt8()}, "export": {"onnx": Onnx()}}

Finished = Callable[[str], tuple[Path, Run]]


@pytest.fixture(scope="module")
def finished(begun: Path, tmp_path_factory: pytest.TempPathFactory) -> Finished:
    """Give the folder of a whole run with a method and what it returned; each is made once."""

    @cache
    def made(name: str) -> tuple[Path, Run]:
        folder = tmp_path_factory.mktemp(name)
        shutil.copytree(begun, folder, dirs_exist_ok=True, ignore=shutil.ignore_patterns("begun"))
        return folder, tiny(folder, METHODS[name], **DEPLOYED).run()

    return made


@pytest.mark.parametrize(
    "name",
    [name if name in {"movement", "lottery"} else pytest.param(name, marks=pytest.mark.slow) for name in METHODS],
)
def test_every_method_leaves_as_many_zeros_as_asked_in_a_student_that_loads_anywhere(
    name: str, finished: Finished
) -> None:
    stage, (world, _) = METHODS[name], finished(name)
    model = load_model(world / "run" / "student")
    stock = AutoModelForSequenceClassification.from_pretrained(world / "run" / "student")
    assert type(stock).__module__.startswith("transformers.")
    shares = share(model, embeddings=stage.embeddings)
    written = report(world)
    facts = next(step for step in written["stages"] if step["name"] == "weights")["details"]["sparse"]
    assert facts["zeros"] / facts["weights"] == pytest.approx(stage.sparsity, abs=1e-3)
    if stage.scope is Scope.layer:
        assert max(abs(item - stage.sparsity) for item in shares) < 0.01
    assert facts["compressed_mib"] < facts["compressed_mib_before"]
    for module in matrices(model).values():
        weight = own_weight(module)
        if name == "two_of_four":
            assert bool(((weight.reshape(weight.shape[0], -1, 4) != 0).sum(-1) == 2).all())
        if name == "magnitude":
            assert_zeros_are_zeros(world / "run" / "artifacts" / "dynamic" / "model.onnx")
        if name == "blocks":
            blocks = (weight != 0).reshape(weight.shape[0] // 4, 4, -1, 2).float().sum((1, 3))
            assert set(blocks.unique().tolist()) == {0.0, 8.0}
    for artifact in written["artifacts"]:
        assert artifact["agreement"] > (0.999 if artifact["precision"] == "fp32" else 0.9)
    before = {path.name for path in (world / "cache").iterdir()}
    assert all(record.reused for record in tiny(world, stage, **DEPLOYED).run().state.records)
    assert {path.name for path in (world / "cache").iterdir()} == before


def assert_zeros_are_zeros(path: Path) -> None:
    """Assert that the zeros of the student are zeros in the int8 graph, too."""
    graph = onnx.load(path).graph
    weights = [numpy_helper.to_array(tensor) for tensor in graph.initializer]
    whole = {(len(VOCABULARY), 16), (64, 16), (2, 16), (16, 2)}  # embeddings, classifier
    small = [
        tensor for tensor in weights if tensor.dtype.itemsize == 1 and tensor.ndim == 2 and tensor.shape not in whole
    ]
    encoder = small[:12]  # then the pooler
    assert len(small) == 13
    for tensor in encoder:
        zero = 128 if tensor.dtype == "uint8" else 0
        assert float((tensor == zero).mean()) >= 0.599  # of 512 weights, 307


def test_what_is_trained_later_keeps_the_zeros(finished: Finished, tmp_path: Path) -> None:
    world = shutil.copytree(finished("movement")[0], tmp_path / "world", ignore=shutil.ignore_patterns("run"))
    learned = QuantizationAware(epochs=1, learning_rate=2e-3, agreement=0.9)
    tiny(world, METHODS["movement"], quantize={"qat": learned}).run()
    (trained,) = (world / "cache").glob("qat_training-*")
    student = load_model(world / "run" / "student")
    after = load_model(trained)
    for ours, theirs in zip(matrices(student).values(), matrices(after).values(), strict=True):
        assert torch.equal(own_weight(ours) == 0, own_weight(theirs) == 0)
    assert not torch.equal(
        own_weight(next(iter(matrices(student).values()))), own_weight(next(iter(matrices(after).values())))
    )


def test_a_lottery_ticket_begins_with_the_weights_from_before_distillation(finished: Finished) -> None:
    world, run = finished("lottery")
    state = run.state
    tickets = sorted((world / "cache").glob("weights-*"), key=lambda path: (path / "product.json").stat().st_mtime_ns)
    assert len(tickets) == 2
    assert state.undistilled is not None
    start = load_model(state.undistilled.folder).state_dict()
    trained = load_model(state.records[-2].model.folder)
    first, second = map(load_model, tickets)
    for name, weight in first.state_dict().items():
        assert torch.equal(weight[weight != 0], start[name][weight != 0])
    assert share(first) == pytest.approx([1 - 0.4**0.5] * 12, abs=2e-3)
    assert share(second) == pytest.approx([0.6] * 12, abs=2e-3)
    for name, module in matrices(first).items():
        kept = own_weight(module) != 0
        magnitude = own_weight(matrices(trained)[name]).abs()
        assert float(magnitude[kept].min()) >= float(magnitude[~kept].max())
        assert bool(kept[own_weight(matrices(second)[name]) != 0].all())  # what left does not come back


@pytest.mark.parametrize("name", [pytest.param("magnitude", marks=pytest.mark.slow), "movement"])
def test_an_interrupted_training_ends_with_the_same_weights(
    name: str, world: Path, finished: Finished, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = finished(name)[1].state.given_student
    original, calls = Masks.step, iter(range(10**6))

    def interrupted(self: Masks, progress: float) -> None:
        if next(calls) == 11:
            raise KeyboardInterrupt
        original(self, progress)

    monkeypatch.setattr(Masks, "step", interrupted)
    again = tiny(world, METHODS[name])
    with pytest.raises(KeyboardInterrupt):
        again.run()
    resumed = again.run().state.given_student
    assert next(calls) < 40  # it did not begin anew: 20 steps, one of them twice
    first, second = load_model(whole.folder).state_dict(), load_model(resumed.folder).state_dict()
    assert all(torch.equal(first[key], second[key]) for key in first)


@pytest.mark.parametrize("family", BERT_NOW)
def test_after_uneven_pruning_of_every_family(family: str, world: Path) -> None:
    save_tiny(world / family, family)
    prune = {"heads": PruneHeads(ratio=0.4, rows=40), "neurons": PruneNeurons(ratio=0.4, rows=40)}
    stage = PruneWeights(sparsity=0.5, recovery_epochs=0.5, every=1)
    made = tiny(world, stage, prune=prune | {"weights": stage})
    made = replace(made, teacher=replace(made.teacher, model=str(world / family), epochs=1))
    made.run()
    model = load_model(world / "run" / "student")
    assert FAMILIES[family].model_type in model.config.model_type
    assert max(abs(item - 0.5) for item in share(model)) < 0.02


@pytest.mark.parametrize(
    ("stage", "setting"),
    [
        (PruneWeights(sparsity=1.0), "sparsity"),
        (PruneWeights(sparsity=0.0), "sparsity"),
        (PruneWeights(pattern="2:4", sparsity=0.6), "sparsity"),
        (PruneWeights(pattern="2:4", scope=Scope.all), "scope"),
        (PruneWeights(pattern="half"), "pattern"),
        (PruneWeights(scope=Scope.raw), "scope"),
        (PruneWeights(method="magnitudes"), "method"),
        (PruneWeights(begin=0.8), "begin"),
        (PruneWeights(method="movement", recovery_epochs=0), "recovery_epochs"),
        (PruneWeights(method="lottery", recovery_epochs=0), "recovery_epochs"),
        (PruneWeights(method="movement", begin=0.7), "end"),
        (PruneWeights(method="lottery", schedule=Curve.linear), "schedule"),
        (PruneWeights(rounds=5), "rounds"),
        (PruneWeights(score_learning_rate=0.1), "score_learning_rate"),
    ],
)
def test_what_makes_no_sense_is_refused(stage: PruneWeights, setting: str) -> None:
    assert [fault.setting for fault in stage.faults()] == [setting]


@pytest.mark.parametrize(
    ("prune", "message"),
    [
        ({"weights": PruneWeights(), "heads": PruneHeads()}, "must come last"),
        ({"heads": PruneHeads(), "weights": PruneWeights(method="lottery")}, "from before distillation"),
        ({"neurons": PruneNeurons(), "weights": PruneWeights(pattern="2:4")}, "must divide the sizes"),
        ({"weights": PruneWeights(pattern="7x1")}, "does not divide bert.encoder.layer.0"),
        ({"weights": PruneWeights(pattern="4x1", embeddings=True)}, "does not divide bert.embeddings.word"),
    ],
)
def test_prunings_that_do_not_go_together_are_refused(prune: dict[str, Any], message: str, world: Path) -> None:
    with pytest.raises(RecipeError, match=message):
        check(tiny(world, PruneWeights(), prune=prune))
    assert not (world / "run").exists()


def test_what_goes_together_is_taken(world: Path) -> None:
    check(tiny(world, PruneWeights(), prune={"layers": PruneLayers(), "weights": PruneWeights(pattern="2:4")}))


def test_students_of_other_kinds_are_refused_with_what_is_supported(world: Path) -> None:
    with pytest.raises(RecipeError, match=r"cannot prune weights of a student of type .*Supported: .*\bbert\b"):
        check(tiny(world, PruneWeights(), student=BiLstm()))
