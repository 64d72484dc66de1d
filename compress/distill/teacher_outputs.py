"""What the teacher says about each row: computed once and kept on disk, or computed again each step.

On disk every quantity is one flat file in which a row takes only as much as its tokens need; it is read
through a memory map, so memory does not grow with the number of rows. Logits are kept in fp32, hidden
states and attention scores in fp16 (they are targets of squared errors; their rounding, about 1e-3 of
their size, is far below the loss). The files are keyed by the teacher's weights, the rows' tokens and
what is kept.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import PreTrainedModel

from compress.errors import DamagedError
from compress.families.base import principal_config
from compress.families.forms.uneven import head_size, kept_heads
from compress.mapped import mapped
from compress.models.outputs import Outputs, observe
from compress.models.tokens import Tokens
from compress.pipeline.model import Model
from compress.pipeline.workshop import Kind, Workshop
from compress.progress import progress
from compress.sealed import read_sealed, write_sealed
from compress.tasks.base import Array

RELATIONS = ("queries", "keys", "values")
KIND = Kind("teacher_outputs", revision=1)
ROWS = 32  # that the teacher is given at once
SAVE_EVERY = 50  # batches between notes of how far the work has come


@dataclass(frozen=True)
class Wanted:
    """Which of the teacher's outputs the losses need, by layer; relations are queries, keys and values."""

    hidden: tuple[int, ...] = ()
    scores: tuple[int, ...] = ()
    relations: tuple[int, ...] = ()

    def units(self, tokens: Tokens, config: Any) -> dict[str, tuple[Array, str]]:
        """Return, by file name, the numbers that each row takes and their type."""
        lengths = tokens.lengths.astype(np.int64)
        files = {"logits": (np.full(len(lengths), config.num_labels, dtype=np.int64), "float32")}
        files |= {f"hidden_{k}": (lengths * config.hidden_size, "float16") for k in self.hidden}
        files |= {f"scores_{k}": (lengths**2 * len(kept_heads(config)[k - 1]), "float16") for k in self.scores}
        for k in self.relations:
            width = len(kept_heads(config)[k - 1]) * head_size(config)
            files |= {f"{part}_{k}": (lengths * width, "float16") for part in RELATIONS}
        return files

    def observe(self, teacher: PreTrainedModel, batch: Mapping[str, torch.Tensor]) -> Outputs:
        """Run the teacher on a batch of its own tokens."""
        return observe(
            teacher, batch, hidden=bool(self.hidden), scores=bool(self.scores), relations=bool(self.relations)
        )

    def gib(self, tokens: Tokens, config: Any) -> float:
        """Return how much disk they take, in GiB."""
        units = self.units(tokens, config).values()
        return float(sum(numbers.sum() * np.dtype(kind).itemsize for numbers, kind in units)) / 2**30


class FromDisk:
    """The teacher's outputs, read row by row from memory maps."""

    def __init__(self, folder: Path, tokens: Tokens, wanted: Wanted, config: Any) -> None:
        self.lengths, self.wanted, self.config = tokens.lengths, wanted, principal_config(config)
        self.maps, self.starts = {}, {}
        for name, (units, kind) in wanted.units(tokens, config).items():
            self.maps[name] = np.memmap(folder / f"{name}.bin", dtype=kind, mode="r")
            self.starts[name] = mapped(np.concatenate([[0], np.cumsum(units)]))

    def batch(self, batch: Mapping[str, torch.Tensor]) -> Outputs:
        """Return the teacher's outputs for the rows of a batch, padded with zeros as the batch is."""
        rows = batch["rows"].cpu().numpy()
        width = int(self.lengths[rows].max())
        device = batch["attention_mask"].device
        logits = np.stack([self._row("logits", row) for row in rows])
        real = np.arange(width) < self.lengths[rows][:, None]

        def padded(name: str, size: int) -> torch.Tensor:
            flat = np.concatenate([self._row(name, row) for row in rows]).reshape(-1, size)
            filled = np.zeros((len(rows), width, size), dtype=np.float32)
            filled[real] = flat
            return torch.from_numpy(filled).to(device)

        scores = {}
        for k in self.wanted.scores:
            heads = len(kept_heads(self.config)[k - 1])
            square = np.zeros((len(rows), heads, width, width), dtype=np.float32)
            for place, row in enumerate(rows):
                length = self.lengths[row]
                square[place, :, :length, :length] = self._row(f"scores_{k}", row).reshape(heads, length, length)
            scores[k] = torch.from_numpy(square).to(device)
        size = head_size(self.config) if self.wanted.relations else 0
        relations = {
            part: {k: padded(f"{part}_{k}", len(kept_heads(self.config)[k - 1]) * size) for k in self.wanted.relations}
            for part in RELATIONS
        }
        return Outputs(
            logits=torch.from_numpy(logits).to(device),
            mask=batch["attention_mask"],
            hidden={k: padded(f"hidden_{k}", self.config.hidden_size) for k in self.wanted.hidden},
            scores=scores,
            queries=relations["queries"],
            keys=relations["keys"],
            values=relations["values"],
        )

    def _row(self, name: str, row: int) -> Array:
        return self.maps[name][self.starts[name][row] : self.starts[name][row + 1]]


class FromModel:
    """The teacher's outputs, from a forward pass of the teacher on each batch.

    ``tokens`` are the rows as the teacher's tokens, where those are not the student's.
    """

    def __init__(self, teacher: PreTrainedModel, wanted: Wanted, tokens: Tokens | None = None) -> None:
        self.teacher, self.wanted, self.tokens = teacher, wanted, tokens

    @torch.no_grad()
    def batch(self, batch: Mapping[str, torch.Tensor]) -> Outputs:
        """Return the teacher's outputs for the rows of a batch."""
        if self.tokens is not None:
            device = batch["attention_mask"].device
            own = self.tokens.batch(batch["rows"].cpu().numpy())
            batch = {name: value.to(device) for name, value in own.items()}
        return self.wanted.observe(self.teacher, batch)


def on_disk(workshop: Workshop, teacher: Model, model: PreTrainedModel, tokens: Tokens, wanted: Wanted) -> FromDisk:
    """Return the teacher's outputs from the cache, computing what is missing; an interrupted pass goes on."""

    def work(folder: Path) -> dict[str, float]:
        _compute(folder, model, tokens, wanted)
        return {"gib": wanted.gib(tokens, model.config), "rows": len(tokens)}

    product = workshop.make(KIND, made_with(teacher, tokens, wanted), work)
    return FromDisk(product.folder, tokens, wanted, model.config)


def made_with(teacher: Model, tokens: Tokens, wanted: Wanted) -> list[Any]:
    """Return what the kept outputs depend on."""
    layers = [sorted(wanted.hidden), sorted(wanted.scores), sorted(wanted.relations)]
    return [teacher.key, tokens.fingerprint, *layers]


class Files:
    """The flat files of a folder, open for writing, row by row."""

    def __init__(self, folder: Path, tokens: Tokens, wanted: Wanted, config: Any) -> None:
        self.lengths, self.wanted = tokens.lengths, wanted
        self.maps, self.starts = {}, {}
        self.fresh = False  # whether a file had to be made
        for name, (counts, kind) in wanted.units(tokens, config).items():
            path, size = folder / f"{name}.bin", int(counts.sum())
            if not path.exists():
                self.fresh = True
                aside = path.with_suffix(".new")
                _reserve(aside, size * np.dtype(kind).itemsize)
                aside.replace(path)
            self.maps[name] = np.memmap(path, dtype=kind, mode="r+", shape=(size,))
            self.starts[name] = np.concatenate([[0], np.cumsum(counts)])

    def put(self, rows: Array, said: Outputs) -> None:
        """Write what the teacher said about rows."""
        relations = {"queries": said.queries, "keys": said.keys, "values": said.values}
        for place, row in enumerate(rows):
            length = int(self.lengths[row])
            self._put("logits", row, said.logits[place])
            for k in self.wanted.hidden:
                self._put(f"hidden_{k}", row, said.hidden[k][place, :length])
            for k in self.wanted.scores:
                self._put(f"scores_{k}", row, said.scores[k][place, :, :length, :length])
            for k in self.wanted.relations:
                for part, states in relations.items():
                    self._put(f"{part}_{k}", row, states[k][place, :length])

    def _put(self, name: str, row: int, values: torch.Tensor) -> None:
        start, end = self.starts[name][row : row + 2]
        self.maps[name][start:end] = values.float().cpu().numpy().ravel()

    def digest(self, rows: Iterable[Array]) -> str:
        """Return a hash of what is written of these rows."""
        digest = hashlib.sha256()
        for row in np.concatenate(list(rows)):
            for name, file in self.maps.items():
                start, end = self.starts[name][row : row + 2]
                digest.update(file[start:end].tobytes())
        return digest.hexdigest()

    def flush(self) -> None:
        """Bring everything to the disk."""
        for file in self.maps.values():
            file.flush()


@torch.inference_mode()
def _compute(folder: Path, model: PreTrainedModel, tokens: Tokens, wanted: Wanted) -> None:
    noted = folder / "progress.json"
    files = Files(folder, tokens, wanted, model.config)
    batches = list(tokens.batches(ROWS))
    digests: list[str] = (read_sealed(noted) or {"digests": []})["digests"]  # of every SAVE_EVERY batches
    if digests and files.fresh:
        raise DamagedError(folder, "lacks files")
    for part, digest in enumerate(digests):
        if files.digest(batches[part * SAVE_EVERY : (part + 1) * SAVE_EVERY]) != digest:
            raise DamagedError(folder, "holds damaged files")
    done = len(digests) * SAVE_EVERY
    device = next(model.parameters()).device
    left = range(done, len(batches))
    for number in progress(left, title="teacher outputs", unit="batch", initial=done, total=len(batches)):
        batch = {name: value.to(device) for name, value in tokens.batch(batches[number]).items()}
        files.put(batches[number], wanted.observe(model, batch))
        if number % SAVE_EVERY == SAVE_EVERY - 1:
            files.flush()
            digests.append(files.digest(batches[number + 1 - SAVE_EVERY : number + 1]))
            write_sealed(noted, {"digests": digests})
    files.flush()
    noted.unlink(missing_ok=True)


def _reserve(path: Path, size: int) -> None:
    """Give a file its whole size on disk now, so that a full disk is met here and not inside a memory map."""
    with path.open("wb") as file:
        if size:
            os.posix_fallocate(file.fileno(), 0, size)
