"""A student at every depth, through whole runs: what is measured, that it is what it says, and what is refused."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from compress.benchmark.depths import Depths, depth_curve
from compress.benchmark.stage import Benchmark
from compress.distill.layers import Layers
from compress.distill.losses import HiddenStates, LogitsMSE, SoftTargets
from compress.distill.stage import Distill
from compress.errors import RecipeError
from compress.families.skipping import observe_without
from compress.models.evaluate import TOKENS_A_BATCH
from compress.models.loading import load_model, load_tokenizer
from compress.models.tokens import Tokens, tokenize
from compress.pipeline.model import Model
from compress.pipeline.state import State
from compress.prune.layers import PruneLayers, Selection
from compress.run.recipe import Recipe
from compress.student.bert import Bert
from compress.student.bilstm import BiLstm
from tests.conftest import reviews, save_tiny, write_tsv
from tests.run.test_recipe import made, pairs, recipe, report

ALL = [1, 2, 3, 4]
EVERY_OTHER = [[3], [1, 3], [1, 2, 3], ALL]
BENCHMARK = Benchmark(rows=5, batches=[1], tokens=[8], seconds=0.02, tfidf=False, labels_only=False, teacher_int8=False)
DISTILL = Distill(
    losses={"soft": SoftTargets(), "hidden": HiddenStates()}, epochs=2, learning_rate=5e-3, batch_size=16,
    layer_drop=0.3,
)  # fmt: skip
HALF = {"layers": PruneLayers(order=Selection.every_other, ratio=0.5, recovery_epochs=0)}
SPLITS = {"train": (160, 1), "validation": (40, 2), "test": (60, 3)}


def dropping(folder: Path, **changes: Any) -> Recipe:
    """Return a recipe with LayerDrop and a twin, on the files and the teacher of a folder."""
    files = {name: folder / f"{name}.tsv" for name in SPLITS}
    settings = {
        "student": Bert(layers=4), "distill": DISTILL, "prune": HALF, "quantize": {}, "export": {},
        "benchmark": replace(BENCHMARK, depths_twin=True),
    }  # fmt: skip
    return recipe(files, folder / "teacher", folder, **(settings | changes))


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, State]:
    """A finished run: its folder, with its files beside it, and its last state."""
    folder = tmp_path_factory.mktemp("depths")
    for name, size in SPLITS.items():
        write_tsv(folder / f"{name}.tsv", reviews(*size))
    save_tiny(folder / "teacher")
    return folder, dropping(folder).run().state


def stages(message: dict[str, Any]) -> dict[str, Any]:
    return {stage["name"]: stage for stage in message["stages"]}


def test_the_student_and_its_twin_are_measured_at_every_depth(finished: tuple[Path, State]) -> None:
    ours, twin = report(finished[0])["depths"]
    assert (ours["name"], ours["layer_drop"]) == ("distill", 0.3)
    assert (twin["name"], twin["layer_drop"]) == ("twin", 0)
    for curve in (ours, twin):
        assert curve["order"] == "every_other"
        assert [cut["layers"] for cut in curve["cuts"]] == EVERY_OTHER
        for cut in curve["cuts"]:
            assert set(cut["metrics"]) == {"accuracy", "macro_f1", "balanced_accuracy", "mcc"}
            low, high = cut["interval"]["accuracy"]
            assert low <= cut["metrics"]["accuracy"] <= high


def test_the_curve_ends_at_the_distilled_student_and_passes_through_the_pruned_one(
    finished: tuple[Path, State],
) -> None:
    facts = report(finished[0])
    cuts = facts["depths"][0]["cuts"]
    assert cuts[3]["metrics"] == stages(facts)["distill"]["metrics"]
    assert cuts[1]["metrics"] == stages(facts)["layers"]["metrics"]
    assert cuts[3]["interval"] == stages(facts)["distill"]["interval"]


def distilled(state: State) -> Model:
    return {record.name: record.model for record in state.records}["distill"]


def rows_of_the_test(state: State) -> Tokens:
    tokenizer = load_tokenizer(state.given_student.folder)
    return tokenize(state.data.test, tokenizer, tokenizer.model_max_length)


@torch.inference_mode()
def test_a_cut_says_to_the_bit_what_the_whole_model_says_with_those_layers_skipped(
    finished: tuple[Path, State],
) -> None:
    folder, state = finished
    tokens = rows_of_the_test(state)
    whole = load_model(distilled(state).folder)
    expected = np.zeros((4, len(tokens), 2), dtype=np.float32)
    for depth, left in enumerate(EVERY_OTHER):
        for rows in tokens.batches(TOKENS_A_BATCH // int(tokens.lengths.max())):
            expected[depth, rows] = observe_without(whole, tokens.batch(rows), set(ALL) - set(left)).logits.numpy()
    kept = [np.load(path / "logits.npy") for path in (folder / "cache").glob("depths-*")]
    assert any(np.array_equal(item, expected) for item in kept)
    assert len({row.tobytes() for row in expected}) == 4  # each layer says something
    labels = state.data.test.known_labels
    for answer, cut in zip(expected, report(folder)["depths"][0]["cuts"], strict=True):
        assert cut["metrics"]["accuracy"] == (answer.argmax(-1) == labels).mean()


@torch.inference_mode()
def test_the_student_that_is_delivered_is_the_cut(finished: tuple[Path, State]) -> None:
    _, state = finished
    tokens = rows_of_the_test(state)
    batch = tokens.batch(next(iter(tokens.batches(60))))
    delivered = load_model(state.given_student.folder)(
        **{name: batch[name] for name in ("input_ids", "attention_mask", "token_type_ids")}
    ).logits
    assert torch.equal(delivered, observe_without(load_model(distilled(state).folder), batch, {2, 4}).logits)
    assert load_model(state.given_student.folder).config.num_hidden_layers == 2


def test_both_curves_are_in_the_markdown_and_on_the_page(finished: tuple[Path, State]) -> None:
    folder, _ = finished
    cuts = report(folder)["depths"]
    markdown, page = ((folder / "run" / f"report.{ending}").read_text() for ending in ("md", "html"))
    table = markdown.split("\n## Accuracy against depth\n")[1].split("\n## ")[0]
    assert "| Depth | distill: LayerDrop 0.3 | twin: no LayerDrop | Layers that are left |" in table
    rows = [line.split("|")[1:-1] for line in table.splitlines() if line.startswith("|")][2:]
    assert [row[0].strip() for row in rows] == ["4", "3", "2", "1"]
    for column, curve in enumerate(cuts, start=1):
        for row, cut in zip(rows, reversed(curve["cuts"]), strict=True):
            assert row[column].strip().startswith(f"{100 * cut['metrics']['accuracy']:.1f} [")
    assert [row[3].strip() for row in rows] == ["1–4", "1–3", "1, 3", "3"]
    assert "<h2>Accuracy against depth</h2>" in page
    assert page.count("Accuracy, % against depth") >= 2  # wide and narrow
    assert "twin: no LayerDrop" in page


def test_the_same_recipe_measures_nothing_twice(finished: tuple[Path, State]) -> None:
    folder, _ = finished
    before, facts = made(folder), report(folder)["depths"]
    dropping(folder).run()
    assert made(folder) == before
    assert report(folder)["depths"] == facts
    assert all(stage["reused"] for stage in report(folder)["stages"])


def test_the_twin_is_the_same_training_without_layer_drop(finished: tuple[Path, State]) -> None:
    folder, _ = finished
    before, twin = made(folder), report(folder)["depths"][1]
    plain = dropping(
        folder, distill=replace(DISTILL, layer_drop=0.0), prune={}, output=str(folder / "plain" / "run"),
        benchmark=replace(BENCHMARK, depths=Depths.every_other),
    )  # fmt: skip
    plain.run()
    assert {name.rpartition("-")[0] for name in made(folder) - before} <= {"logits", "latency"}
    (curve,) = report(folder / "plain")["depths"]
    assert (curve["cuts"], curve["layer_drop"]) == (twin["cuts"], 0)
    assert curve["cuts"] != report(folder)["depths"][0]["cuts"]


@pytest.mark.parametrize("order", [Depths.loss, Depths.gradient, Depths.fisher, Depths.activation])
def test_layers_by_importance_leave_as_pruning_at_once_takes_them_and_never_by_the_test_rows(
    order: Depths, finished: tuple[Path, State]
) -> None:
    _, state = finished
    model = distilled(state)
    curve = depth_curve(state, model, order, "distill", 0.3)
    assert curve.order == order.value
    cuts = curve.cuts
    assert [len(cut.layers) for cut in cuts] == ALL
    assert all(set(fewer.layers) < set(more.layers) for fewer, more in pairwise(cuts))

    pruner = PruneLayers(importance=order.value, ratio=0.5, recovery_epochs=0)
    pruned = load_model(pruner(replace(state, student=model)).given_student.folder)
    whole, left = load_model(model.folder), [int(layer) - 1 for layer in cuts[1].layers]
    for part in ("attention.self.query", "output.dense"):
        ours = [layer.get_submodule(part).weight for layer in pruned.bert.encoder.layer]
        theirs = [whole.bert.encoder.layer[place].get_submodule(part).weight for place in left]
        assert all(torch.equal(first, second) for first, second in zip(ours, theirs, strict=True))

    test = state.data.test
    labels = 1 - test.known_labels  # turned round
    turned = replace(state, data=replace(state.data, test=replace(test, labels=labels)))
    changed = depth_curve(turned, model, order, "distill", 0.3).cuts
    assert [cut.layers for cut in changed] == [cut.layers for cut in cuts]
    right = [round(cut.metrics["accuracy"] * len(test)) for cut in cuts]
    assert [round(cut.metrics["accuracy"] * len(test)) for cut in changed] == [len(test) - item for item in right]


def test_without_layer_drop_nothing_is_measured_unless_asked_for(finished: tuple[Path, State]) -> None:
    folder, _ = finished
    none = dropping(
        folder, distill=replace(DISTILL, layer_drop=0.0), prune={}, benchmark=BENCHMARK,
        output=str(folder / "none" / "run"),
    )  # fmt: skip
    none.run()
    assert "depths" not in report(folder / "none")
    assert "against depth" not in (folder / "none" / "run" / "report.html").read_text()
    asked = dropping(folder, benchmark=replace(BENCHMARK, depths=Depths.none), output=str(folder / "asked" / "run"))
    asked.run()
    assert "depths" not in report(folder / "asked")


def test_a_preparation_that_drops_layers_counts_too(finished: tuple[Path, State]) -> None:
    folder, _ = finished
    before = made(folder)
    prepare = {"layers": Layers(losses=["attention"], epochs=1, batch_size=16, layer_drop=0.6)}
    distill = replace(DISTILL, layer_drop=0.0, epochs=1)
    mixed = dropping(folder, prepare=prepare, distill=distill, prune={}, output=str(folder / "prepared" / "run"))
    state = mixed.run().state
    ours, twin = report(folder / "prepared")["depths"]
    assert [ours["layer_drop"], twin["layer_drop"]] == [0.6, 0]
    logits = [
        np.load(folder / "cache" / item / "logits.npy") for item in made(folder) - before if item.startswith("depths")
    ]
    assert len(logits) == 2
    assert not np.array_equal(*logits)
    start = load_model(mixed.student(replace(state, student=None)).given_student.folder)
    prepared = load_model({record.name: record.model.folder for record in state.records}["layers"])
    assert torch.equal(prepared.classifier.weight, start.classifier.weight)  # no loss reached it, nor weight decay
    moved = prepared.bert.encoder.layer[0].attention.self.query.weight
    assert not torch.equal(moved, start.bert.encoder.layer[0].attention.self.query.weight)


def test_scores_have_a_curve_too(tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    for name, rows in (("train", 60), ("validation", 16), ("test", 24)):
        written = [(f"{generator.random() * 5:.2f}", first, second) for (_, first), (_, second) in pairs(rows)]
        write_tsv(tmp_path / f"{name}.tsv", written)
    save_tiny(tmp_path / "teacher")
    distill = replace(DISTILL, losses={"mse": LogitsMSE(), "hidden": HiddenStates()}, epochs=1)
    state = (
        dropping(tmp_path, distill=distill, prune={}, benchmark=replace(BENCHMARK, depths=Depths.gradient)).run().state
    )
    facts = report(tmp_path)
    (curve,) = facts["depths"]
    assert curve["cuts"][3]["metrics"] == stages(facts)["distill"]["metrics"]
    assert "<h2>Pearson against depth</h2>" in (tmp_path / "run" / "report.html").read_text()
    assert "## Pearson against depth" in (tmp_path / "run" / "report.md").read_text()
    for order in set(Depths) - {Depths.auto, Depths.none}:
        cuts = depth_curve(state, distilled(state), order, "distill", 0.3).cuts
        assert [set(cut.metrics) for cut in cuts] == [{"pearson", "spearman", "r2", "mse"}] * 4
        assert cuts[3].metrics == curve["cuts"][3]["metrics"]
        assert len({cut.metrics["mse"] for cut in cuts}) == 4


SOFT = Distill(losses={"soft": SoftTargets()})
NONE = replace(BENCHMARK, depths=Depths.none, depths_twin=True)


@pytest.mark.parametrize(
    ("changes", "setting", "rule"),
    [
        (
            {"student": BiLstm(), "distill": SOFT, "benchmark": replace(BENCHMARK, depths=Depths.every_other)},
            "benchmark.depths", "cannot remove layers from a student of type",
        ),
        ({"benchmark": NONE}, "benchmark.depths_twin", "has no effect with depths = none"),
        ({"distill": SOFT}, "benchmark.depths_twin", "no stage drops layers in training"),
        ({"distill": replace(DISTILL, layer_drop=1.0)}, "distill.layer_drop", "must lie in [0, 1)"),
        ({"distill": replace(DISTILL, layer_drop=-0.2)}, "distill.layer_drop", "must lie in [0, 1)"),
        (
            {"prepare": {"first": Layers(layer_drop=1.5)}}, "prepare.first.layer_drop", "must lie in [0, 1)",
        ),
        (
            {"student": BiLstm(), "distill": replace(SOFT, layer_drop=0.2)},
            "distill.layer_drop", "cannot skip layers of a student of type",
        ),
        ({"student": Bert(layers=1)}, "distill.layer_drop", "needs a student of at least two layers"),
        (
            {"prune": {"layers": PruneLayers(order=Selection.every_other, rounds=2)}},
            "prune.layers.rounds", "must be 1 with order = every_other",
        ),
        (
            {"prune": {"layers": PruneLayers(order=Selection.every_other, importance="fisher")}},
            "prune.layers.importance", "has no effect with order = every_other",
        ),
    ],
)  # fmt: skip
def test_what_makes_no_sense_is_refused_before_any_work(
    changes: dict[str, Any], setting: str, rule: str, tmp_path: Path, files: dict[str, Path], teacher_folder: Path
) -> None:
    assert set(files) == set(SPLITS)
    teacher_folder.rename(tmp_path / "teacher")
    asked = {"prune": {}} | changes
    with pytest.raises(RecipeError) as told:
        dropping(tmp_path, **asked).run()
    found = {fault.setting: str(fault) for fault in told.value.faults}
    assert rule in found[setting]
    assert not (tmp_path / "cache").exists() or made(tmp_path) == set()
