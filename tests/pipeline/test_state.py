from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from compress.data.dataset import Dataset, Split
from compress.pipeline.model import Model
from compress.pipeline.record import Details, Role
from compress.pipeline.stage import Stage
from compress.pipeline.state import State
from compress.pipeline.workshop import Product, Workshop
from compress.prune.heads import PruneHeads
from compress.tasks.classification import Classification
from compress.usage import Usage


@pytest.fixture
def state(tmp_path: Path) -> State:
    split = Split(["a", "b"], labels=np.array([0, 1], np.int64))
    return State.begin(Dataset("made up", Classification(("no", "yes")), split, split, split), Workshop(tmp_path), 3)


def product(name: str, seconds: float, *, reused: bool) -> Product:
    return Product(Path(name), f"key of {name}", Usage(seconds=seconds), reused, {})


def test_a_record_sums_what_a_stage_took_and_is_reused_only_where_all_of_it_was() -> None:
    products = [product("a", 1.5, reused=True), product("b", 2.0, reused=False)]
    record = PruneHeads().record("heads", products, notes=["two"])
    assert (record.kind, record.role, record.seconds, record.reused) == ("PruneHeads", Role.pruning, 3.5, False)
    assert record.model == Model(Path("b"), "key of b")
    assert PruneHeads().record("heads", products[:1]).reused


def test_a_record_takes_the_notes_that_wait_for_it(state: State) -> None:
    waiting = State.begin(state.data, state.workshop, 3, notes=("of the student",))
    record = PruneHeads().record("heads", [product("a", 1.0, reused=False)], notes=["of the stage"])
    after = waiting.with_student(record)
    assert after.records[0].notes == ("of the student", "of the stage")
    assert after.notes == ()
    assert after.given_student == record.model


def test_no_stage_changes_the_context(state: State) -> None:
    assert state.with_seed(2**32 + 5).seed == 5
    assert state.with_seed(9).context.data is state.context.data
    with pytest.raises(AttributeError):
        state.context.seed = 4  # type: ignore[misc]
    assert Stage.role is Role.preparation


@dataclass(frozen=True)
class Zeros(Details):
    zeros: int
    share: float | None = None


def test_details_are_reported_field_by_field_without_what_is_not_known() -> None:
    assert Zeros(3).report() == {"zeros": 3}
    assert Zeros(3, 0.5).report() == {"zeros": 3, "share": 0.5}
    assert Details().report() == {}
