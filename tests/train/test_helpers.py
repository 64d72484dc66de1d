"""Several processes: the same training as in one, whatever it trains; and what is done in one, or ends with one."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from compress.distill.losses import LOSSES
from compress.distill.objective import Distillation
from compress.distill.sparsify import AbsoluteValues, Masks, Sparsify, WeightScores
from compress.distill.stage import Distill
from compress.distill.teacher_outputs import FromModel
from compress.families.forms.uneven import shrink
from compress.models.masking import settle
from compress.processes import OWN, Launched
from compress.prune.methods.movement import Movements
from compress.student.bert import Bert
from compress.team import Team, join
from compress.train import Objective, Supervised, Training, fit
from tests.conftest import tiny_model
from tests.test_train import tokens
from tests.train.short import Short
from tests.train.test_division import ALL, CALM, PAIRS

REPOSITORY = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def pair() -> Iterator[Team]:
    """This process and a helper, as a launcher starts them; this one trains alone but in `together`."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        place = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free.getsockname()[1])}
    own = {"WORLD_SIZE": "2", "RANK": "1", "LOCAL_RANK": "1"}
    environment = os.environ | place | own | {"PYTHONPATH": str(REPOSITORY)}
    helper = subprocess.Popen([sys.executable, "-m", "compress", "run"], env=environment)
    with pytest.MonkeyPatch.context() as patch:
        for name, value in {**place, **dict.fromkeys(OWN, "0")}.items():
            patch.setenv(name, value)
        team = join(Launched(0, 2))
        assert not set(OWN) & os.environ.keys()
        yield team
        team.end()
    assert helper.wait(60) == 0


def trained(make: Callable[[], Objective], folder: Path, *, alone: bool, **settings: Any) -> dict[str, Tensor]:
    """Return the weights after a training in fp64 of an objective that is made anew, alone or with the helper."""
    torch.manual_seed(5)
    objective = make()
    nn.Module.double(objective)
    with pytest.MonkeyPatch.context() as patch:
        if alone:
            patch.setattr("compress.train.helpers.team", lambda: None)
        given = Training(epochs=2, batch_size=7, learning_rate=3e-3, **settings)
        curve = fit(objective, tokens(32), given, seed=3, folder=folder / str(alone), title="student", validate=dict)
    if isinstance(objective, Distillation) and objective.masks is not None:
        settle(objective.student)
    return objective.state_dict() | {f"{n} {p['step']:g}": torch.tensor(v) for p in curve for n, v in p.items()}


def layers() -> Distillation:
    """Return the default losses for a narrow student, whose projections are trained too, and LayerDrop."""
    teacher = tiny_model(seed=3).double()
    student = Bert(layers=2, hidden_size=8, heads=4, layer_map=[2, 4]).build(tiny_model(**CALM))
    return Distillation(student, Distill().losses, FromModel(teacher, ALL), teacher.config, PAIRS, layer_drop=0.3)


def uneven() -> Distillation:
    """Return a student of a class that is made while the program runs."""
    return Distillation(shrink(tiny_model(**CALM), heads=[[0, 1], [1], [2], [0, 3]]), {"hard": LOSSES["hard"]()})


def sparse(scores: WeightScores) -> Distillation:
    """Return a student whose weights leave while it is trained."""
    student = tiny_model(**CALM).double()
    objective = Distillation(student, {"hard": LOSSES["hard"]()})
    objective.masks = Masks(student, Sparsify(sparsity=0.5, begin=0.0, end=1.0, every=1, scores=scores))
    return objective


@pytest.mark.parametrize(
    "make",
    [
        layers,
        pytest.param(uneven, marks=pytest.mark.slow),
        pytest.param(lambda: sparse(AbsoluteValues()), marks=pytest.mark.slow),
        pytest.param(lambda: sparse(Movements(0.01)), marks=pytest.mark.slow),
        pytest.param(lambda: Supervised(tiny_model(**CALM)), marks=pytest.mark.slow),
    ],
    ids=["layers", "uneven", "sparse", "movement", "fine-tuning"],
)
def test_two_processes_train_as_one_does(make: Callable[[], Objective], pair: Team, tmp_path: Path) -> None:
    alone, together = (trained(make, tmp_path, alone=alone) for alone in (True, False))
    assert alone.keys() == together.keys()
    for name, value in alone.items():
        torch.testing.assert_close(together[name], value, rtol=1e-6, atol=1e-9, msg=lambda m, n=name: f"{n}: {m}")


@pytest.mark.slow
def test_each_process_divides_its_rows_again(pair: Team, tmp_path: Path) -> None:
    alone, together = (trained(layers, tmp_path, alone=alone, micro_batch=2) for alone in (True, False))
    for name, value in alone.items():
        torch.testing.assert_close(together[name], value, rtol=1e-6, atol=1e-9)


@pytest.mark.slow
def test_what_compares_all_rows_of_a_batch_is_trained_by_one_which_is_told(
    pair: Team, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def similar() -> Distillation:
        return Distillation(tiny_model(), {"x": LOSSES["similarities"]()}, FromModel(tiny_model(seed=2).double(), {}))

    alone, together = (trained(similar, tmp_path, alone=alone) for alone in (True, False))
    assert all(torch.equal(value, together[name]) for name, value in alone.items())
    told = "student: trained by one of 2 processes: loss x compares all rows of a batch"
    assert capsys.readouterr().err.splitlines().count(told) == 1


@pytest.mark.slow
def test_a_failure_of_the_loss_ends_the_training_and_not_the_team(pair: Team, tmp_path: Path) -> None:
    def wrong() -> Distillation:
        return Distillation(tiny_model(), {"soft": LOSSES["soft"]()}, FromModel(tiny_model(num_labels=3).double(), {}))

    with pytest.raises(ValueError, match="cannot be compared"):
        trained(wrong, tmp_path / "wrong", alone=False)
    assert trained(uneven, tmp_path, alone=False)


@pytest.mark.slow
def test_out_of_memory_in_any_process_halves_what_all_compute_at_a_time(
    pair: Team, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    alone = trained(lambda: Supervised(tiny_model(**CALM)), tmp_path, alone=True)
    together = trained(lambda: Short(tiny_model(**CALM), 2), tmp_path, alone=False)
    for name, value in alone.items():
        torch.testing.assert_close(together[name], value, rtol=1e-6, atol=1e-9)
    assert "student: out of memory with 4 rows at a time; training continues with 2" in capsys.readouterr().err
