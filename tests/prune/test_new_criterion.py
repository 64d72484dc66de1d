"""A criterion of someone else's: one class, chosen by its name, for every part that has what it needs."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor
from transformers import PreTrainedModel

from compress.cli.compose import compose
from compress.families.forms.uneven import kept_heads
from compress.models.loading import load_config
from compress.prune.criteria import CRITERIA, Batches, Criterion, criterion_faults, register
from compress.prune.criteria.gradient import Gradient
from compress.prune.heads import PruneHeads
from compress.prune.parts import CHANNELS, HEADS, LAYERS, UNITS, Parts
from tests.conftest import save_tiny
from tests.run.test_recipe import recipe


@pytest.fixture
def last_first() -> Iterator[None]:
    """Give a criterion to which the first parts are the most important."""

    @register("last_first")
    class LastFirst(Criterion):
        """Minus the number of the part."""

        def __call__(self, model: PreTrainedModel, parts: Parts, batches: Batches) -> list[Tensor]:
            """Return it."""
            return [torch.arange(size, 0, -1).float() for size in parts.sizes(model.config)]

    yield
    del CRITERIA["last_first"]


@pytest.mark.usefixtures("last_first")
def test_a_recipe_chooses_it_by_its_name_and_prunes_by_it(files: dict[str, Path], tmp_path: Path) -> None:
    words = ["recipe=soft_targets", "data=files", f"data.train={files['train']}", "prune=[heads]"]
    chosen = compose([*words, "prune.heads.importance=last_first"]).prune["heads"]
    assert chosen == PruneHeads(importance="last_first")
    save_tiny(tmp_path / "teacher")
    heads = PruneHeads(importance="last_first", ratio=0.5, recovery_epochs=0)
    run = recipe(files, tmp_path / "teacher", tmp_path, prune={"heads": heads}, quantize={}, export={})
    state = replace(run, distill=replace(run.distill, epochs=1)).run().state
    assert state.student is not None
    assert kept_heads(load_config(state.student.folder)) == [[0, 1], [0, 1]]


@pytest.mark.usefixtures("last_first")
def test_it_is_defined_for_every_part_and_named_where_another_is_not() -> None:
    for parts in (HEADS, UNITS, LAYERS, CHANNELS):
        assert not list(criterion_faults("importance", "last_first", parts))
    (fault,) = criterion_faults("importance", "activation", HEADS)
    assert str(fault) == (
        "importance = 'activation': is not defined for heads. "
        "Use one of fisher, gradient, magnitude, molchanov, last_first."
    )


def test_unknown_criteria_and_taken_names_are_refused() -> None:
    (fault,) = PruneHeads(importance="gradeint").faults()
    assert str(fault) == "importance = 'gradeint': is not a criterion. Did you mean gradient?"
    (fault,) = PruneHeads(importance="taylor").faults()
    assert str(fault) == (
        "importance = 'taylor': is called fisher now, for it squares gradients row by row. "
        "Use fisher; or molchanov, by mini-batch."
    )
    with pytest.raises(ValueError, match="'fisher' already: Fisher"):
        register("fisher")(Gradient)
