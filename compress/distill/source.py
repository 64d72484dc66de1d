"""Where the teacher's outputs come from: from disk, or from the teacher on every batch, as is measured to be faster."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

import numpy as np
import torch
from transformers import PreTrainedModel

from compress.distill.teacher_outputs import (
    KIND,
    ROWS,
    FromDisk,
    FromModel,
    ToDisk,
    Wanted,
    gib,
    layout,
    made_with,
    on_disk,
)
from compress.errors import DamagedError
from compress.files import TEMPORARY
from compress.models.outputs import observe
from compress.models.tokens import Tokens
from compress.pipeline.model import Model
from compress.pipeline.workshop import Workshop
from compress.sealed import read_sealed, write_sealed

SAMPLED = 6  # batches that are timed, after one that is not


class Keep(Enum):
    """auto: whichever is measured to be faster; disk: computed once; forward: run the teacher on every batch."""

    auto = "auto"
    disk = "disk"
    forward = "forward"


@dataclass(frozen=True)
class Taught:
    """A teacher, the rows as its tokens, and what is wanted of it."""

    teacher: Model
    model: PreTrainedModel
    tokens: Tokens
    wanted: Wanted


def source_of(
    taught: Taught, keep: Keep, most_gib: float, epochs: float, workshop: Workshop, folder: Path
) -> tuple[FromDisk | FromModel, str]:
    """Return the teacher's outputs for ``epochs`` passes, and a note that says where they come from and why.

    What takes more than ``most_gib`` of disk is not kept unless ``keep`` says so. A choice that was measured is
    noted in ``folder``, so that a resumed run stays with it.
    """
    size = gib(layout(taught.model, taught.tokens, taught.wanted), taught.tokens)
    disk = f"the teacher's outputs are kept on disk, {size * 1024:,.0f} MiB"
    forward = "the teacher runs on every batch"
    why = disk if keep is Keep.disk else forward
    if keep is Keep.auto:
        noted = folder / "teacher_outputs.json"
        choice = read_sealed(noted)
        if choice is None:
            folder.mkdir(parents=True, exist_ok=True)
            if any(not path.name.startswith(TEMPORARY) for path in folder.iterdir()):
                raise DamagedError(noted, "is missing")  # work began with a choice, which would be measured again
            if workshop.has(KIND, made_with(taught.teacher, taught.tokens, taught.wanted)):
                keep, why = Keep.disk, f"{disk}, where they were already"
            elif size > most_gib:
                keep, why = Keep.forward, f"{forward}: its outputs would take {size:.1f} GiB, more than cache_gib"
            else:
                took = measured(taught.model, taught.tokens, taught.wanted, folder)
                ms = ", ".join(f"{kind} {seconds * 1e3:.2f}" for kind, seconds in took.items())
                keep, how = (Keep.disk, disk) if faster_on_disk(took, epochs) else (Keep.forward, forward)
                why = f"{how}, which is faster over {epochs:g} epochs (ms per row: {ms})"
            choice = {"keep": keep.value, "why": why}
            write_sealed(noted, choice)
        keep, why = Keep(choice["keep"]), choice["why"]
    if keep is Keep.disk:
        return on_disk(workshop, taught.teacher, taught.model, taught.tokens, taught.wanted), why
    return FromModel(taught.model, taught.wanted, taught.tokens), why


def faster_on_disk(seconds: Mapping[str, float], epochs: float) -> bool:
    """Return whether writing once and reading ``epochs`` times beats running the teacher ``epochs`` times.

    ``seconds`` per row: ``forward`` of the teacher, ``write``, ``read``.
    """
    disk = seconds["forward"] + seconds["write"] + epochs * seconds["read"]
    return disk < epochs * seconds["forward"]


@torch.inference_mode()
def measured(teacher: PreTrainedModel, tokens: Tokens, wanted: Wanted, aside: Path) -> dict[str, float]:
    """Return the median seconds per row of the teacher's forward, of writing and of reading what is wanted of it.

    Some batches of rows of all lengths are run, written below ``aside`` and read again; nothing is left there.
    """
    count = min(len(tokens), ROWS * (SAMPLED + 1))
    rows = np.argsort(-tokens.lengths, kind="stable")[np.linspace(0, len(tokens) - 1, count).astype(int)]
    sample = tokens.take(rows)
    device = next(teacher.parameters()).device
    spent: dict[str, list[float]] = {"forward": [], "write": [], "read": []}
    with tempfile.TemporaryDirectory(dir=aside, prefix=TEMPORARY[0]) as name:
        kept = layout(teacher, sample, wanted)
        files = ToDisk(Path(name), sample, kept)
        disk = FromDisk(Path(name), sample, kept)
        for start in range(0, count, ROWS):
            part = np.arange(start, min(start + ROWS, count))
            batch = {key: value.to(device) for key, value in sample.batch(part).items()}
            clock = [time.perf_counter()]
            outputs = observe(teacher, batch, *wanted)
            outputs.logits.cpu()  # waits for a GPU
            clock.append(time.perf_counter())
            files.put(part, outputs)
            files.flush()
            clock.append(time.perf_counter())
            disk.batch(batch)
            clock.append(time.perf_counter())
            for times, begun, ended in zip(spent.values(), clock[:-1], clock[1:], strict=True):
                times.append((ended - begun) / len(part))
    return {kind: float(np.median(times[1:] or times)) for kind, times in spent.items()}
