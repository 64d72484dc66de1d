"""Several processes of one run: the first does everything, and the others help it where work can be divided.

Only the first reads data, takes locks, writes and speaks. A helper waits for what the first tells it, and holds nothing
that another could wait for, so that no two can wait for each other. Where a process ends, the connection to it closes,
and whoever talks to it hears of it at once.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import suppress
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.rendezvous import rendezvous

from compress.errors import CompressError
from compress.processes import OWN, Launched

PATIENCE = timedelta(days=365)  # helpers wait through everything that the first does alone

MEETING_TIME = timedelta(minutes=2)

_mine: list[Team] = []  # at most one


class LostError(CompressError):
    """Another process of the team has ended."""


class Team:
    """The processes of a run as one of them sees it. All methods but `dismiss` are called by all processes together.

    Tensors are exchanged where they are: by gloo on the CPU, by NCCL on GPUs. Methods raise LostError where another
    process has ended.
    """

    def __init__(self, launched: Launched) -> None:
        self.rank, self.size = launched.rank, launched.size
        backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
        if torch.cuda.is_available():
            torch.cuda.set_device(launched.local_rank)
        try:
            store, *_ = next(rendezvous("env://", self.rank, self.size, timeout=MEETING_TIME))
            dist.init_process_group(backend, store=store, rank=self.rank, world_size=self.size, timeout=PATIENCE)
        except (RuntimeError, ValueError) as error:
            place = f"{os.environ.get('MASTER_ADDR')}:{os.environ.get('MASTER_PORT')}"
            raise LostError(
                f"{self.size} processes were started, and did not meet at {place} ({error}). Start them with torchrun "
                "--standalone --nproc-per-node N -m compress run …"
            ) from error

    @property
    def leads(self) -> bool:
        """Whether this is the first process."""
        return self.rank == 0

    def tell(self, message: Any = None) -> Any:
        """Return what the first process tells all, who gives it as ``message``."""
        box = [message]
        with _told():
            dist.broadcast_object_list(box, src=0)
        return box[0]

    def gather(self, value: Any) -> list[Any]:
        """Return the values of all processes, in order."""
        values: list[Any] = [None] * self.size
        with _told():
            dist.all_gather_object(values, value)
        return values

    def spread(self, tensors: Sequence[Tensor]) -> None:
        """Give tensors the values that they have in the first process."""
        for same in _by_kind(tensors):
            flat = torch.cat([tensor.detach().reshape(-1) for tensor in same])
            with _told():
                dist.broadcast(flat.view(torch.uint8) if flat.dtype is torch.bool else flat, src=0)
            if not self.leads:
                _put(flat, same)

    def add_up(self, tensors: Sequence[Tensor]) -> None:
        """Give tensors of the first process the sums over all processes; those of the others hold anything after."""
        for same in _by_kind(tensors):
            flat = torch.cat([tensor.reshape(-1) for tensor in same])
            with _told():
                dist.reduce(flat, dst=0)
            if self.leads:
                _put(flat, same)

    def end(self) -> None:
        """Tell the others that there is nothing more to do, and part with them; does nothing after `dismiss`."""
        if _mine == [self]:
            with suppress(LostError):
                self.tell(None)
            self.dismiss()

    def dismiss(self) -> None:
        """Part with the others. A helper that still waits ends with its connection."""
        _mine.clear()
        dist.destroy_process_group()


def join(launched: Launched) -> Team:
    """Meet the other processes of a launcher, and return the team, which `team` then returns as well.

    What told this process that it is one of several is taken out of the environment: all that it starts or calls takes
    it for the only one. Raises LostError.
    """
    team = Team(launched)
    for name in OWN:
        os.environ.pop(name, None)
    _mine[:] = [team]
    return team


def team() -> Team | None:
    """Return the team of this process; None where it is alone."""
    return _mine[0] if _mine else None


class _told:
    """Raise LostError for what torch raises when a connection is lost."""

    def __enter__(self) -> None: ...

    def __exit__(self, kind: Any, error: BaseException | None, _: Any) -> None:
        if isinstance(error, (RuntimeError, dist.DistError)):
            raise LostError(
                "Another process of this run has ended, and this one cannot go on without it. Run the same command "
                "again; it resumes."
            ) from error


def _by_kind(tensors: Sequence[Tensor]) -> list[list[Tensor]]:
    """Return tensors by type and device, in their order."""
    kinds: dict[Any, list[Tensor]] = {}
    for tensor in tensors:
        kinds.setdefault((tensor.dtype, tensor.device), []).append(tensor)
    return list(kinds.values())


@torch.no_grad()
def _put(flat: Tensor, tensors: Sequence[Tensor]) -> None:
    """Write consecutive parts of ``flat`` into tensors."""
    parts = flat.split([tensor.numel() for tensor in tensors])
    for tensor, part in zip(tensors, parts, strict=True):
        tensor.copy_(part.view_as(tensor))
