"""Where the teacher's outputs come from: from disk, or from the teacher on every batch."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from transformers import PreTrainedModel

from compress.distill.teacher_outputs import FromDisk, FromModel, Wanted, gib, layout, on_disk
from compress.models.tokens import Tokens
from compress.pipeline.model import Model
from compress.pipeline.workshop import Workshop


class Keep(Enum):
    """auto: disk where they fit and are read once or more; disk: computed once; forward: the teacher on every batch."""

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
    taught: Taught, keep: Keep, most_gib: float, epochs: float, workshop: Workshop
) -> tuple[FromDisk | FromModel, str]:
    """Return the teacher's outputs, and a note that says where they come from and why.

    ``epochs`` are the passes that this training, or the one that it repeats a part of, makes.
    """
    size = gib(layout(taught.model, taught.tokens, taught.wanted), taught.tokens)
    chosen, why = decided(keep, size, most_gib, epochs)
    if chosen is Keep.disk:
        note = f"the teacher's outputs are kept on disk, {size * 1024:,.0f} MiB"
        return on_disk(workshop, taught.teacher, taught.model, taught.tokens, taught.wanted), note
    return FromModel(taught.model, taught.wanted, taught.tokens), f"the teacher runs on every batch{why}"


def decided(keep: Keep, gib: float, most_gib: float, epochs: float) -> tuple[Keep, str]:
    """Return disk or forward for outputs of this size, and why where sizes decide."""
    return by_size(gib, most_gib, epochs) if keep is Keep.auto else (keep, "")


def by_size(gib: float, most_gib: float, epochs: float) -> tuple[Keep, str]:
    """Return disk or forward by sizes alone, so that the same run takes the same path on every machine; and why.

    Writing the outputs takes one pass over the rows, and no longer than an epoch with the teacher
    (benchmarks/README.md), so they are kept when there is at least one epoch to read them.
    """
    if gib > most_gib:
        return Keep.forward, f": its outputs would take {gib:.1f} GiB, more than cache_gib"
    if epochs < 1:
        return Keep.forward, f": {epochs:g} epochs need fewer rows than there are"
    return Keep.disk, ""
