"""Is it faster to keep the teacher's outputs on disk, or to run the teacher on every batch? Measured, not guessed."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from transformers import PreTrainedModel

from compress.distill.teacher_outputs import ROWS, Files, FromDisk, Wanted
from compress.models.tokens import Tokens

SAMPLED = 6  # batches that are timed, after one that is not


def faster_on_disk(seconds: Mapping[str, float], epochs: float) -> bool:
    """Return whether writing once and reading ``epochs`` times beats running the teacher ``epochs`` times.

    ``seconds`` a row: ``forward`` of the teacher, ``write``, ``read``.
    """
    disk = seconds["forward"] + seconds["write"] + epochs * seconds["read"]
    return disk < epochs * seconds["forward"]


@torch.inference_mode()
def measured(teacher: PreTrainedModel, tokens: Tokens, wanted: Wanted, aside: Path) -> dict[str, float]:
    """Return the median seconds a row of the teacher's forward, of writing and of reading what is wanted of it.

    Some batches of rows of all lengths are run, written below ``aside`` and read again; nothing is left there.
    """
    count = min(len(tokens), ROWS * (SAMPLED + 1))
    rows = np.argsort(-tokens.lengths, kind="stable")[np.linspace(0, len(tokens) - 1, count).astype(int)]
    sample = tokens.take(rows)
    device = next(teacher.parameters()).device
    spent: dict[str, list[float]] = {"forward": [], "write": [], "read": []}
    with tempfile.TemporaryDirectory(dir=aside) as name:
        files = Files(Path(name), sample, wanted, teacher.config)
        disk = FromDisk(Path(name), sample, wanted, teacher.config)
        for start in range(0, count, ROWS):
            part = np.arange(start, min(start + ROWS, count))
            batch = {key: value.to(device) for key, value in sample.batch(part).items()}
            clock = [time.perf_counter()]
            said = wanted.observe(teacher, batch)
            said.logits.cpu()  # waits for a GPU
            clock.append(time.perf_counter())
            files.put(part, said)
            files.flush()
            clock.append(time.perf_counter())
            disk.batch(batch)
            clock.append(time.perf_counter())
            for times, begun, ended in zip(spent.values(), clock[:-1], clock[1:], strict=True):
                times.append((ended - begun) / len(part))
    return {kind: float(np.median(times[1:] or times)) for kind, times in spent.items()}
