"""All work is done by one process: a launcher that starts several is refused before they wait for each other."""

from __future__ import annotations

import os

from compress.errors import CompressError

SIZES = ("WORLD_SIZE", "PMI_SIZE", "OMPI_COMM_WORLD_SIZE", "MV2_COMM_WORLD_SIZE")  # what launchers set, and torch reads
RANKS = ("RANK", "PMI_RANK", "OMPI_COMM_WORLD_RANK", "MV2_COMM_WORLD_RANK")


class SeveralProcessesError(CompressError):
    """A launcher started more than one process."""


def refuse_several() -> None:
    """Raise SeveralProcessesError where a launcher such as torchrun started more than one process, or may have."""
    for name in SIZES:
        value = os.environ.get(name)
        if value is None or (value.strip().isdecimal() and int(value) == 1):
            continue
        shown = value if value.strip().isdecimal() else repr(value)
        raise SeveralProcessesError(
            f"{name} = {shown}: must be 1 or unset, because compress runs in one process; start it without torchrun, "
            "accelerate launch, mpirun or srun."
        )


def is_first() -> bool:
    """Return whether this is the process that speaks for all that a launcher started."""
    return all(os.environ.get(name, "0").strip() in {"0", ""} for name in RANKS)
