"""The processes that a launcher started: their numbers, and which launchers and commands are refused."""

from __future__ import annotations

import os
from dataclasses import dataclass

from compress.errors import CompressError

SIZES = ("WORLD_SIZE", "PMI_SIZE", "OMPI_COMM_WORLD_SIZE", "MV2_COMM_WORLD_SIZE")  # what launchers set, and torch reads
RANKS = ("RANK", "PMI_RANK", "OMPI_COMM_WORLD_RANK", "MV2_COMM_WORLD_RANK")
MEETING = ("MASTER_ADDR", "MASTER_PORT")  # where the processes of torchrun find each other
OWN = ("WORLD_SIZE", "RANK", "LOCAL_RANK", "LOCAL_WORLD_SIZE")  # what tells a process that it is one of several


class SeveralProcessesError(CompressError):
    """A launcher started more than one process."""


@dataclass(frozen=True)
class Launched:
    """One of several processes, as torchrun and accelerate launch start them."""

    rank: int  # from 0; the first reads, writes and speaks for all
    size: int
    local_rank: int = 0  # of those on this machine


def launched() -> Launched | None:
    """Return which of several processes this is; None where it is alone. Raises SeveralProcessesError."""
    if all(_one(os.environ.get(name)) for name in SIZES):
        return None
    numbers = [os.environ.get(name, "").strip() for name in OWN[:3]]
    if not all(map(str.isdecimal, numbers)) or not all(os.environ.get(name) for name in MEETING):
        refuse_several("several processes must be started by torchrun or accelerate launch")
    size, rank, local_rank = map(int, numbers)
    if not 0 <= rank < size or size < 2:
        refuse_several(f"RANK = {rank} is not the number of one of them")
    return Launched(rank, size, local_rank)


def refuse_several(why: str = "this runs in one process") -> None:
    """Raise SeveralProcessesError where a launcher such as torchrun started more than one process, or may have."""
    for name in SIZES:
        value = os.environ.get(name)
        if not _one(value):
            assert value is not None
            shown = value if value.strip().isdecimal() else repr(value)
            raise SeveralProcessesError(
                f"{name} = {shown}: must be 1 or unset, because {why}. Start several processes with torchrun "
                "--nproc-per-node N -m compress run …; start everything else without a launcher."
            )


def _one(value: str | None) -> bool:
    return value is None or (value.strip().isdecimal() and int(value) == 1)


def is_first() -> bool:
    """Return whether this is the process that speaks for all that a launcher started."""
    return all(os.environ.get(name, "0").strip() in {"0", ""} for name in RANKS)
