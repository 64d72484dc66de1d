"""Ctrl-C and SIGTERM: a checkpoint in training, at once elsewhere; the result is that of an undisturbed run."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from compress.cli import main as cli
from compress.cli.main import main
from compress.interruption import Terminated, held_back, terminable
from compress.models.evaluate import main_metric
from compress.train import Supervised, Training, fit
from tests.conftest import reviews, save_tiny, tiny_model, write_tsv
from tests.test_train import TASK, tokens

ROOT = Path(__file__).parents[1]
BOTH = pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=["SIGINT", "SIGTERM"])
STEPS = 24  # three epochs of eight


def train(folder: Path, stop: Callable[[int], None] = lambda step: None, epochs: float = 3, **settings: Any) -> Any:
    """Train a tiny classifier without checkpoints by time; ``stop`` is called in each step, counted from 0.

    Returns weights and the validation metrics.
    """
    model, validation = tiny_model(), tokens(40, 2)
    objective = Supervised(model)

    def forward(batch: Any, share: float, inner: Callable[..., Any] = objective.forward) -> Any:
        stop(round(share * STEPS * epochs / 3))
        return inner(batch, share)

    objective.forward = forward  # type: ignore[method-assign]
    curve = fit(
        objective, tokens(), Training(epochs=epochs, batch_size=16, learning_rate=3e-3, **settings), seed=3,
        folder=folder, title="test", validate=lambda: main_metric(model, validation, TASK),
    )  # fmt: skip
    return model.state_dict(), [entry["validation_accuracy"] for entry in curve if "validation_accuracy" in entry]


def kill_at(at: int, number: int) -> Callable[[int], None]:
    """Return what sends this process a signal in one step."""
    return lambda step: os.kill(os.getpid(), number) if step == at else None


def assert_same(first: Any, second: Any) -> None:
    assert first[1] == second[1]
    assert all(torch.equal(first[0][name], second[0][name]) for name in first[0])


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """What a training that nothing interrupts gives."""
    return train(tmp_path_factory.mktemp("whole"))


@BOTH
@pytest.mark.parametrize("at", [0, 7, 12, 23], ids=["first step", "end of an epoch", "middle", "last step"])
def test_an_interrupted_training_resumes_after_the_step_at_hand(
    number: int, at: int, whole: Any, tmp_path: Path
) -> None:
    with terminable(), pytest.raises(Terminated if number == signal.SIGTERM else KeyboardInterrupt):
        train(tmp_path / "parts", kill_at(at, number))
    (checkpoint,) = (tmp_path / "parts" / "checkpoints").iterdir()
    assert checkpoint.name == f"checkpoint-{at + 1}"
    steps: list[int] = []
    assert_same(train(tmp_path / "parts", steps.append), whole)
    assert steps == list(range(at + 1, STEPS))


@pytest.mark.parametrize(
    ("settings", "at"), [({"epochs": 2.5}, 19), ({"early_stopping": 1}, 7)], ids=["part of an epoch", "early stopping"]
)
def test_other_endings_resume_exactly_too(settings: dict[str, Any], at: int, tmp_path: Path) -> None:
    whole = train(tmp_path / "whole", **settings)
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path / "parts", kill_at(at, signal.SIGINT), **settings)
    assert_same(train(tmp_path / "parts", **settings), whole)


def test_training_that_stopped_early_is_not_trained_on_after_an_interruption(tmp_path: Path) -> None:
    def run(folder: Path, number: int | None) -> tuple[int, dict[str, torch.Tensor]]:
        model, found = tiny_model(), iter([0.5, 0.4, 0.9])
        calls = []

        def validate() -> dict[str, float]:
            calls.append(1)
            if number is not None and len(calls) == 2:
                os.kill(os.getpid(), number)
            return {"accuracy": next(found)}

        settings = Training(epochs=3, batch_size=16, learning_rate=3e-3, early_stopping=1)
        fit(Supervised(model), tokens(), settings, seed=3, folder=folder, title="test", validate=validate)
        return len(calls), model.state_dict()

    calls, whole = run(tmp_path / "whole", None)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "parts", signal.SIGINT)
    again, resumed = run(tmp_path / "parts", None)
    assert (calls, again) == (2, 0)
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)


@BOTH
def test_a_second_signal_stops_at_once_without_a_checkpoint(number: int, tmp_path: Path) -> None:
    def twice(step: int) -> None:
        os.kill(os.getpid(), number)
        os.kill(os.getpid(), number)
        pytest.fail("went on")

    with terminable(), pytest.raises(KeyboardInterrupt):
        train(tmp_path, twice)
    assert not list(tmp_path.rglob("checkpoint-*"))


def test_handlers_are_put_back_and_called(tmp_path: Path) -> None:
    seen: list[int] = []

    def own(number: int, _: Any) -> None:
        seen.append(number)

    before = signal.signal(signal.SIGTERM, own)
    try:
        train(tmp_path / "undisturbed", epochs=0.2)
        assert signal.getsignal(signal.SIGTERM) is own
        with pytest.raises(KeyboardInterrupt):  # training is not whole, though the handler returns
            train(tmp_path / "stopped", kill_at(1, signal.SIGTERM))
        assert seen == [signal.SIGTERM]
        assert signal.getsignal(signal.SIGTERM) is own
    finally:
        signal.signal(signal.SIGTERM, before)


def test_an_ignored_signal_stays_ignored() -> None:
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with held_back() as interruption, terminable():
            os.kill(os.getpid(), signal.SIGINT)
            assert not interruption
    finally:
        signal.signal(signal.SIGINT, before)


def test_other_threads_train_without_handlers(tmp_path: Path) -> None:
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    during: list[Any] = []

    def look(_: int) -> None:
        during[:] = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]

    failures: list[BaseException] = []

    def work() -> None:
        try:
            train(tmp_path, look, epochs=0.2)
            with terminable():
                pass
        except BaseException as error:
            failures.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert not failures
    assert during == before


@pytest.mark.parametrize(("stop", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)], ids=["SIGINT", "SIGTERM"])
def test_outside_training_a_signal_stops_at_once(stop: int, code: int, monkeypatch, capsys) -> None:
    def work(_: Any) -> int:
        os.kill(os.getpid(), stop)
        time.sleep(5)
        return pytest.fail("went on")

    monkeypatch.setitem(cli.COMMANDS, "run", work)
    before = signal.getsignal(signal.SIGTERM)
    assert main(["run"]) == code
    assert capsys.readouterr().err == "Stopped. Run the same command again; it resumes.\n"
    assert signal.getsignal(signal.SIGTERM) is before


def words(folder: Path, output: str) -> list[str]:
    """Return the command line of a run that is small, whose training writes no checkpoints by time."""
    return [
        "run", "recipe=soft_targets", "data=files", f"data.train={folder}/train.tsv", f"data.test={folder}/test.tsv",
        f"teacher.model={folder}/teacher", "teacher.epochs=6", "teacher.batch_size=4", "teacher.max_tokens=32",
        "student.layers=2", "distill.epochs=1", "quantize=[]", "export=[]", "benchmark.labels_only=false",
        "benchmark.teacher_int8=false",
        "benchmark.tfidf=false", "benchmark.rows=2", "benchmark.batches=[1]", "benchmark.tokens=[8]",
        "benchmark.seconds=0.05", f"output={folder}/{output}", f"cache={folder}/{output}-cache",
    ]  # fmt: skip


@pytest.mark.slow
def test_a_run_stopped_by_either_signal_ends_as_one_that_was_left_alone(tmp_path: Path) -> None:
    """In processes of their own: one line, the exit code, a checkpoint, and the same bytes of the student."""
    write_tsv(tmp_path / "train.tsv", reviews(400, 1))
    write_tsv(tmp_path / "test.tsv", reviews(40, 3))
    save_tiny(tmp_path / "teacher")

    def run(output: str, number: int | None = None) -> tuple[int, str]:
        command = [sys.executable, "-m", "compress", *words(tmp_path, output)]
        process = subprocess.Popen(
            command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )  # fmt: skip
        if number is not None:
            while process.poll() is None and not list((tmp_path / f"{output}-cache").glob("*.partial/scratch*")):
                time.sleep(0.02)
            time.sleep(1)
            process.send_signal(number)
        printed = process.communicate(timeout=120)[1]
        return process.returncode, printed

    assert run("whole")[0] == 0
    for number, code in ((signal.SIGINT, 130), (signal.SIGTERM, 143)):
        name = f"stopped-{code}"
        returned, found = run(name, number)
        assert returned == code
        assert found.splitlines()[-1].endswith("Stopped. Run the same command again; it resumes.")
        assert "Traceback" not in found
        assert len(list((tmp_path / f"{name}-cache").rglob("whole"))) == 1
        assert run(name)[0] == 0
        files = [tmp_path / run_ / "student" / "model.safetensors" for run_ in ("whole", name)]
        assert files[0].read_bytes() == files[1].read_bytes()
