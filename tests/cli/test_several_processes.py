"""A run in several processes: what one process finds, and what is left when one of them is killed."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from compress.train.helpers import SENT
from tests.conftest import reviews, save_tiny, write_tsv


def free_port() -> int:
    """Return a port that nothing listens on now."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
        return port


REPOSITORY = Path(__file__).parents[2]
ALONE = [sys.executable, "-m"]
TOGETHER = {
    "torchrun": [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m"],
    "accelerate": [
        sys.executable, "-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes", "2", "--num_machines",
        "1", "--mixed_precision", "no", "--dynamo_backend", "no", "--main_process_port", str(free_port()), "-m",
    ],
}  # fmt: skip


def command(launcher: list[str], folder: Path, output: str, *more: str) -> list[str]:
    """Return the command of a small run of a teacher and a student without dropout."""
    return [
        *launcher, "compress", "run", "recipe=soft_targets", "data=files", f"data.train={folder}/train.tsv",
        f"data.test={folder}/test.tsv", f"teacher.model={folder}/teacher", "teacher.fine_tune=always",
        "teacher.epochs=2", "teacher.batch_size=8", "teacher.max_tokens=32", "teacher.least_steps=0",
        "student.layers=2", "distill.epochs=2", "prune=[heads]", "quantize=[]", "export=[]",
        "benchmark.teacher_int8=false", "benchmark.tfidf=false", "benchmark.rows=2", "benchmark.batches=[1]",
        "benchmark.tokens=[8]", "benchmark.seconds=0.05", f"output={folder}/{output}",
        f"cache={folder}/{output}-cache", *more,
    ]  # fmt: skip


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("world")
    for name, rows, seed in (("train", 200, 1), ("test", 60, 2)):
        write_tsv(folder / f"{name}.tsv", [("label", "text"), *reviews(rows, seed)])
    save_tiny(folder / "teacher", hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0)
    return folder


def started(words: list[str]) -> subprocess.Popen[str]:
    environment = os.environ | {"PYTHONPATH": str(REPOSITORY), "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(words, env=environment, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def report(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "report.json").read_text())
    return found


@pytest.mark.slow
@pytest.mark.parametrize("launcher", list(TOGETHER))
def test_two_processes_report_what_one_does(launcher: str, world: Path) -> None:
    for name, words in (("alone", ALONE), (launcher, TOGETHER[launcher])):
        if not (world / name).exists():
            process = started(command(words, world, name))
            _, told = process.communicate(timeout=600)
            assert process.returncode == 0, told
            assert ("2 processes divide the steps of training" in told.splitlines()) == (name == launcher)
    alone, together = report(world / "alone"), report(world / launcher)
    for ours, theirs in zip(together["stages"], alone["stages"], strict=True):
        assert ours["name"] == theirs["name"]
        assert ours["metrics"] == pytest.approx(theirs["metrics"], abs=1e-3)
        for first, second in zip(ours.get("curves", []), theirs.get("curves", []), strict=True):
            assert first == pytest.approx(second, rel=1e-3, abs=1e-4)


@pytest.mark.slow
def test_a_killed_process_ends_the_run_in_a_sentence_and_the_same_command_resumes(world: Path) -> None:
    words = command(TOGETHER["torchrun"], world, "killed", "teacher.epochs=40", "teacher.checkpoint_seconds=0.2")
    process = started(words)
    for _ in range(3000):
        if list((world / "killed-cache").rglob("checkpoint-*/whole")):
            break
        time.sleep(0.05)
    else:
        pytest.fail("no checkpoint was written")
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    helper = next(int(pid) for pid in children if b"\0RANK=1\0" in b"\0" + Path(f"/proc/{pid}/environ").read_bytes())
    os.kill(helper, signal.SIGKILL)
    _, told = process.communicate(timeout=120)
    assert process.returncode != 0
    lines = [line for line in told.splitlines() if "again; it resumes" in line]
    assert len(lines) == 1
    assert "compress/" not in told.partition("torch/distributed")[0]  # no traceback of ours
    resumed = started(words)
    _, told = resumed.communicate(timeout=600)
    assert resumed.returncode == 0, told
    assert report(world / "killed")["stages"][0]["name"] == "teacher"
    assert not list((world / "killed-cache").rglob(SENT))
