"""Augmentation in a whole run: what is trained on, what is reported, what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from compress.augment.perturb import Perturb
from compress.augment.substitute import Substitute
from compress.distill.losses import HardLabels, LogitsMSE, SoftTargets
from compress.distill.source import Keep
from compress.distill.stage import Distill
from compress.errors import RecipeError
from compress.run.recipe import Recipe
from tests.conftest import save_tiny
from tests.report.test_html import Page
from tests.run.test_recipe import BASELINES, made, pairs, recipe, report
from tests.run.test_recipe import write_tsv as write

LOGITS = Distill(
    losses={"soft": SoftTargets(), "mse": LogitsMSE()}, epochs=1, learning_rate=5e-3, batch_size=16,
    teacher_outputs=Keep.disk,
)  # fmt: skip


def augmented(files: dict[str, Path], teacher: Path, folder: Path, **changes: Any) -> Recipe:
    """Return a tiny recipe with both augmentations and little else."""
    (folder / "s.tsv").write_text("word\tsynonym\ngood\tfine\nfilm\tscene\nbad\tawful\nthe\ta\n")
    both = {"perturb": Perturb(copies=3, rows=120), "substitute": Substitute(copies=1, synonyms=str(folder / "s.tsv"))}
    little: dict[str, Any] = {"augment": both, "distill": LOGITS, "prune": {}, "quantize": {}, "export": {}}
    return recipe(files, teacher, folder, **(little | changes))


def test_a_run_is_trained_on_the_added_rows_and_reports_them(
    tmp_path: Path, files: dict[str, Path], teacher_folder: Path
) -> None:
    state = augmented(files, teacher_folder, tmp_path, benchmark=BASELINES).run().state
    facts = report(tmp_path)
    added = [record["counts"]["kept"] for record in facts["augmentation"]]
    assert min(added) >= 40
    assert facts["dataset"]["rows"] == {"train": 160, "validation": 40, "test": 60, "unlabelled": 0,
                                       "augmented": sum(added)}  # fmt: skip
    assert len(state.data.transfer) == 160 + sum(added)
    assert [record["kind"] for record in facts["augmentation"]] == ["Perturb", "Substitute"]
    for record in facts["augmentation"]:
        assert len(record["examples"]) == 20
    assert facts["augmentation"][0]["settings"]["mask_rate"] == 0.1
    assert facts["augmentation"][1]["counts"]["by_synonyms"] > 0
    # distillation sees all rows, and its twin makes as many steps on the labelled ones
    steps = -(-len(state.data.transfer) // 16)
    distilled, labels_only = (
        max(row["step"] for row in entry["curves"]) for entry in (facts["stages"][1], facts["baselines"][-1])
    )
    assert distilled == labels_only == steps
    (outputs,) = (path for path in (tmp_path / "cache").glob("teacher_outputs-*") if path.is_dir())
    assert json.loads((outputs / "product.json").read_text())["record"]["rows"] == len(state.data.transfer)

    page = Page((tmp_path / "run" / "report.html").read_text())
    markdown = (tmp_path / "run" / "report.md").read_text()
    assert page.text.count("20 examples") == 2
    for record in facts["augmentation"]:
        for example in record["examples"]:
            assert " ".join(example["augmented"][0].split()) in page.text
        assert f"## Augmentation: {record['kind']}" in markdown
    copies = facts["augmentation"][0]["counts"]["copies"]
    assert f"{added[0]:,} rows of {copies:,} copies of training rows were added" in page.text

    before = made(tmp_path)
    augmented(files, teacher_folder, tmp_path, benchmark=BASELINES).run()
    assert made(tmp_path) == before
    assert all(record["reused"] for record in report(tmp_path)["augmentation"])

    augmented(files, teacher_folder, tmp_path, augment={}, output=str(tmp_path / "without" / "run")).run()
    without = report(tmp_path / "without")
    assert "augmentation" not in without
    assert "augmented" not in without["dataset"]["rows"]
    assert without["dataset"]["fingerprint"] == facts["dataset"]["fingerprint"]  # the given data are the same


def test_pairs_with_scores_are_augmented(tmp_path: Path) -> None:
    for name, rows in (("train", 40), ("validation", 16), ("test", 24)):
        write(tmp_path / f"{name}.tsv", [(f"{i % 7}.5", a, b) for i, ((_, a), (_, b)) in enumerate(pairs(rows))])
    files = {name: tmp_path / f"{name}.tsv" for name in ("train", "validation", "test")}
    mse = Distill(losses={"mse": LogitsMSE(), "hard": HardLabels()}, epochs=1, batch_size=16)
    state = augmented(files, save_tiny(tmp_path / "teacher"), tmp_path, distill=mse).run().state
    assert state.data.unlabelled is not None
    assert state.data.unlabelled.pairs is not None
    assert len(state.data.unlabelled.pairs) == sum(entry.counts["kept"] for entry in state.augmentations) > 60
    example = report(tmp_path)["augmentation"][0]["examples"][0]
    assert len(example["original"]) == len(example["augmented"]) == 2


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"augment": {"perturb": Perturb(tagger="xx_none")}}, "augment.perturb: xx_none: is not a spaCy pipeline"),
        ({"augment": {"perturb": Perturb(mask_rate=2.0)}}, "augment.perturb.mask_rate = 2.0: must lie in [0, 1]"),
        ({"augment": {"substitute": Substitute()}}, "augment.substitute.mlm: needs a source of words"),
        ({"augment": {"substitute": Substitute(vectors="none.txt")}}, "augment.substitute.vectors = 'none.txt'"),
        ({"augment": {"substitute": Substitute(mlm="./none")}}, "augment.substitute: ./none"),
        ({"distill": Distill(losses={"hard": HardLabels()})}, "augment = ['perturb', 'substitute']: adds rows that"),
    ],
)
def test_what_cannot_be_used_is_refused_before_any_work(
    changes: dict[str, Any], told: str, tmp_path: Path, files: dict[str, Path], teacher_folder: Path
) -> None:
    with pytest.raises(RecipeError) as caught:
        augmented(files, teacher_folder, tmp_path, **changes).run()
    assert told in str(caught.value)
    assert not (tmp_path / "cache").exists()
