"""A way to set weights to zero that is someone else's: one class, chosen by its name."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from torch import Tensor, nn

from compress.cli.compose import compose
from compress.distill.sparsify import Sparsify, WeightScores
from compress.models.loading import load_model
from compress.models.masking import Masked, matrices, own_weight
from compress.pipeline.state import State
from compress.pipeline.workshop import Product
from compress.prune.methods import METHODS, Method, Sparsity, register
from compress.prune.weights import PruneWeights
from tests.conftest import save_tiny
from tests.run.test_recipe import recipe


@dataclass(frozen=True)
class LargestFirst(WeightScores):
    """Minus the size of a weight."""

    def of(self, module: nn.Module, masked: Masked) -> Tensor:
        """Return it."""
        return -masked.pattern.gather(own_weight(module).abs())


@pytest.fixture
def largest_first() -> Iterator[None]:
    """Give a method by which the largest weights leave."""

    @register("largest_first")
    class Largest(Method[Sparsity]):
        """The largest leave, in training."""

        def __call__(self, stage: Sparsity, state: State) -> list[Product]:
            """Return the student."""
            how = Sparsify(sparsity=stage.sparsity, scores=LargestFirst(), begin=0.0, end=0.0, every=1)
            student, epochs = state.given_student, stage.recovery_epochs
            return [state.given_recovery.train(state, student, epochs, name="largest", sparsify=how)]

    yield
    del METHODS["largest_first"]


@pytest.mark.usefixtures("largest_first")
def test_a_recipe_chooses_it_by_its_name_and_prunes_by_it(files: dict[str, Path], tmp_path: Path) -> None:
    words = ["recipe=soft_targets", "data=files", f"data.train={files['train']}", "prune=[weights]"]
    stage = compose([*words, "prune.weights.method=largest_first", "prune.weights.recovery_epochs=1"]).prune["weights"]
    assert stage == PruneWeights(method="largest_first", recovery_epochs=1)
    save_tiny(tmp_path / "teacher")
    state = recipe(files, tmp_path / "teacher", tmp_path, prune={"weights": stage}, quantize={}, export={}).run().state
    assert state.records[-1].role is PruneWeights.role
    student, distilled = (load_model(record.model.folder) for record in (state.records[-1], state.records[-2]))
    for pruned, whole in zip(matrices(student).values(), matrices(distilled).values(), strict=True):
        gone = own_weight(pruned) == 0
        assert float(gone.float().mean()) == pytest.approx(0.5, abs=0.01)
        before = own_weight(whole).abs()
        assert float(before[gone].mean()) > float(before[~gone].mean())


@pytest.mark.usefixtures("largest_first")
def test_settings_that_it_does_not_read_are_refused() -> None:
    stage = PruneWeights(method="largest_first", rounds=2, every=1)
    assert [fault.setting for fault in stage.faults()] == ["rounds", "every"]
