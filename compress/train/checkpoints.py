"""Checkpoints of a training on disk, and the best epoch's weights: which of them training can resume from.

A complete checkpoint is sealed: its seal lists the hashes of its files. Incomplete and damaged ones are removed, and
training resumes from an earlier one or starts again.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors.torch import load_file, save_file
from torch import Tensor

from compress.errors import DamagedError
from compress.sealed import check_contents, contents_of, read_sealed, write_sealed
from compress.telling import warn

SEAL = "whole"  # the file that marks a checkpoint as complete
CHECKPOINTS = "checkpoints"  # the folder that holds all of them


class Best:
    """The weights of the best epoch so far, with its rank, step and epoch."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.note = folder, folder / "best.json"

    def known(self) -> dict[str, Any] | None:
        """Return rank, step and epoch; None where no weights are kept. Raises DamagedError."""
        return read_sealed(self.note)

    def keep(self, weights: Mapping[str, Tensor], **known: Any) -> None:
        """Replace the weights that are kept, atomically."""
        path, aside = self.folder / f"best-{known['step']}.safetensors", self.folder / "best.new"
        save_file({name: value.contiguous() for name, value in weights.items()}, aside)
        aside.replace(path)
        files = {path.name: contents_of(self.folder, only=(path.name,))[path.name]}
        write_sealed(self.note, {**known, "files": files})
        for other in self.folder.glob("best-*.safetensors"):
            if other != path:
                other.unlink()

    def weights(self) -> dict[str, Tensor] | None:
        """Return the weights; None where none are kept."""
        known = self.known()
        return None if known is None else load_file(self.folder / next(iter(known["files"])))

    def check(self) -> None:
        """Raise DamagedError unless weights are kept and intact."""
        known = self.known()
        if known is None:
            raise DamagedError(self.note, "is missing")
        check_contents(self.folder, known["files"])

    def forget(self) -> None:
        """Remove the weights."""
        for path in self.folder.glob("best*"):
            path.unlink()


def seal(checkpoint: Path, best: Best, *, finished: bool) -> None:
    """Mark a checkpoint as complete; ``finished``: no training step is left after it."""
    kept = best.note.exists()
    write_sealed(checkpoint / SEAL, {"finished": finished, "best": kept, "files": contents_of(checkpoint)})


def resumable(folder: Path) -> Path | None:
    """Return the newest intact checkpoint below a training's ``folder``; None if there is none.

    Other checkpoints are removed, and damaged ones are reported.
    """
    best = Best(folder)
    paths = (folder / CHECKPOINTS).glob("checkpoint-*")
    for path in sorted(paths, key=lambda path: int(path.name.rpartition("-")[2]), reverse=True):
        try:
            mark = read_sealed(path / SEAL)
            if mark is not None:  # without one it is incomplete; it must not count among those to keep
                check_contents(path, mark["files"])
                if mark["best"]:
                    best.check()
                else:
                    best.forget()  # from an epoch after the checkpoint, which will be repeated
                return path
        except DamagedError as damage:
            warn(f"training: {damage.path} {damage.how}; it resumes from an earlier checkpoint, or starts again")
        shutil.rmtree(path)
    best.forget()
    return None


def finished(checkpoint: Path) -> bool:
    """Return whether a checkpoint was written at the end of training."""
    return bool((read_sealed(checkpoint / SEAL) or {}).get("finished"))
