"""More processes on this machine: each tries what the study proposes, or trains its share of the finalists.

What they find out is in the study's journal and in the cache. They end with the process that started them.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch

from compress.interruption import terminable
from compress.runtimes.pytorch import torch_threads
from compress.search.candidates import Trial
from compress.search.trainings import Trainings

Job = tuple[Trial, int, int]
"""A trial, its cycles, and a seed."""


@contextmanager
def trying(trainings: Trainings, count: int, say: Callable[[str], None]) -> Iterator[None]:
    """Let ``count`` more processes try what the study proposes, until there is nothing more to try."""
    with _beside(_try, trainings, [()] * count, say):
        yield


@contextmanager
def training(trainings: Trainings, jobs: Sequence[Job], count: int, say: Callable[[str], None]) -> Iterator[None]:
    """Let ``count`` more processes train jobs: what they have made is in the cache."""
    shares = [(list(jobs[worker + 1 :: count + 1]),) for worker in range(count)]
    with _beside(_train, trainings, [share for share in shares if share[0]], say):
        yield


@contextmanager
def _beside(
    work: Callable[..., None], trainings: Trainings, given: Sequence[tuple[Any, ...]], say: Callable[[str], None]
) -> Iterator[None]:
    """Run ``work`` in a process for each of ``given``, and wait for them; all share this process's threads."""
    context, threads = get_context("spawn"), max(1, torch.get_num_threads() // (len(given) + 1))
    handed = replace(trainings)  # without what this process has made of it
    processes = [
        context.Process(target=_work, args=(work, handed, os.getpid(), threads, number, *own), daemon=True)
        for number, own in enumerate(given, start=1)
    ]
    try:
        for process in processes:
            process.start()
        with torch_threads(threads) if processes else torch_threads(torch.get_num_threads()):
            yield
        for number, process in enumerate(processes, start=1):
            process.join()
            if process.exitcode:
                say(f"worker {number} ended early: {log_of(trainings.folder, number)} says why")
    finally:
        for process in processes:
            process.terminate()  # it ends after the step that it is at
            process.join()


def log_of(folder: Path, number: int) -> Path:
    """Return where a worker writes what it says."""
    return folder / f"worker-{number}.log"


def _work(work: Callable[..., None], trainings: Trainings, parent: int, threads: int, number: int, *given: Any) -> None:
    """Do the work of one process, which speaks into a file."""
    log = log_of(trainings.folder, number).open("a", buffering=1)
    sys.stdout = sys.stderr = log
    torch.set_num_threads(threads)
    with suppress(KeyboardInterrupt), terminable():
        work(trainings, number, lambda: os.getppid() == parent, lambda text: print(text, file=log), *given)


def _try(trainings: Trainings, number: int, go_on: Callable[[], bool], say: Callable[[str], None]) -> None:
    trainings.try_all(trainings.study(number), say, go_on=go_on)


def _train(
    trainings: Trainings, number: int, go_on: Callable[[], bool], say: Callable[[str], None], jobs: Sequence[Job]
) -> None:
    for trial, cycles, seed in jobs:
        if go_on():
            trainings.after(trial, cycles, seed, say)
