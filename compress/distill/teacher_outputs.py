"""The teacher's outputs for each row: computed once and kept on disk, or computed again each step.

On disk every quantity of every layer is one flat file in which a row takes only as much as its tokens need; it is
read through a memory map, so memory does not grow with the number of rows. The files are keyed by the teacher's
weights, the rows' tokens and what is kept.
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
from compress.mapped import mapped
from compress.models.outputs import Outputs, observe
from compress.models.quantities import LOGITS, Quantity
from compress.models.tokens import Tokens
from compress.pipeline.model import Model
from compress.pipeline.workshop import Kind, Workshop
from compress.progress import progress
from compress.sealed import read_sealed, write_sealed
from compress.tasks.base import Array
from compress.train.objective import TrainingRows

Wanted = Mapping[Quantity, tuple[int, ...]]
"""Which layers of which quantities are needed of the teacher, beside its logits."""

KIND = Kind("teacher_outputs", revision=2)
ROWS = 32  # that the teacher is given at once
SAVE_EVERY = 50  # batches between notes of how far the work has come


@dataclass(frozen=True)
class Kept:
    """A quantity of one layer, and what a row of it takes on disk."""

    quantity: Quantity
    layer: int
    sizes: tuple[int | None, ...]  # along each axis of a row; None: its tokens

    @property
    def name(self) -> str:
        """Of its file."""
        return f"{self.quantity.name}_{self.layer}"

    def shape(self, tokens: int) -> tuple[int, ...]:
        """Return the shape of a row, or of all rows of a batch that is padded to ``tokens``."""
        return tuple(tokens if size is None else size for size in self.sizes)

    def numbers(self, lengths: Array) -> Array:
        """Return how many numbers each row takes, by its number of tokens."""
        fixed = [size for size in self.sizes if size is not None]
        per_token: Array = lengths.astype(np.int64) ** (len(self.sizes) - len(fixed))
        return per_token * np.prod(fixed, dtype=np.int64)

    def real(self, tokens: int) -> tuple[slice, ...]:
        """Return which part of a padded row holds one of ``tokens`` tokens."""
        return tuple(slice(tokens) if size is None else slice(None) for size in self.sizes)


@torch.inference_mode()
def layout(model: PreTrainedModel, tokens: Tokens, wanted: Wanted) -> list[Kept]:
    """Return what is to be kept; sizes are those that ``model`` gives for the first row."""
    device = next(model.parameters()).device
    outputs = observe(model, {name: value.to(device) for name, value in tokens.batch([0]).items()}, *wanted)
    kept = []
    for quantity, layers in {LOGITS: (0,), **wanted}.items():
        for layer in layers:
            sizes = outputs[quantity][layer].shape[1:]
            along = quantity.token_axes(len(sizes))
            kept.append(Kept(quantity, layer, tuple(None if a in along else size for a, size in enumerate(sizes))))
    return kept


def gib(kept: list[Kept], tokens: Tokens) -> float:
    """Return how much disk that takes, in GiB."""
    return (
        float(sum(part.numbers(tokens.lengths).sum() * np.dtype(part.quantity.dtype).itemsize for part in kept)) / 2**30
    )


class FromDisk:
    """The teacher's outputs, read row by row from memory maps."""

    def __init__(self, folder: Path, tokens: Tokens, kept: list[Kept]) -> None:
        self.lengths, self.kept = tokens.lengths, kept
        self.maps, self.starts = {}, {}
        for part in kept:
            self.maps[part.name] = np.memmap(folder / f"{part.name}.bin", dtype=part.quantity.dtype, mode="r")
            self.starts[part.name] = mapped(np.concatenate([[0], np.cumsum(part.numbers(self.lengths))]))

    def batch(self, batch: Mapping[str, torch.Tensor]) -> Outputs:
        """Return the teacher's outputs for the rows of a batch, padded with zeros as the batch is."""
        rows, mask = batch["rows"].cpu().numpy(), batch["attention_mask"]
        values: dict[Quantity, dict[int, torch.Tensor]] = {}
        for part in self.kept:
            padded = torch.from_numpy(self._padded(part, rows)).to(mask.device)
            values.setdefault(part.quantity, {})[part.layer] = padded
        return Outputs(mask, values)

    def row_weights(self, batch: Mapping[str, torch.Tensor]) -> None:
        """Return None: a teacher with weights answers every row."""

    def _padded(self, part: Kept, rows: Array) -> Array:
        lengths, starts, flat = self.lengths[rows], self.starts[part.name], self.maps[part.name]
        padded = np.zeros((len(rows), *part.shape(int(lengths.max()))), dtype=np.float32)
        for row, length, own in zip(rows, lengths, padded, strict=True):
            own[part.real(length)] = flat[starts[row] : starts[row + 1]].reshape(part.shape(length))
        return padded


class FromModel:
    """The teacher's outputs, from a forward pass of the teacher on each batch.

    ``tokens`` are the rows as the teacher's tokens, where those are not the student's. The teacher computes as it is
    stored, also while the student is trained in mixed precision: what it answers is the same as from disk.
    """

    def __init__(self, teacher: PreTrainedModel, wanted: Wanted, tokens: TrainingRows | None = None) -> None:
        self.teacher, self.wanted, self.tokens = teacher, wanted, tokens

    @torch.no_grad()
    def batch(self, batch: Mapping[str, torch.Tensor]) -> Outputs:
        """Return the teacher's outputs for the rows of a batch."""
        if self.tokens is not None:
            device = batch["attention_mask"].device
            own = self.tokens.batch(batch["rows"].tolist())
            batch = {name: value.to(device) for name, value in own.items()}
        with torch.autocast(batch["attention_mask"].device.type, enabled=False):
            return observe(self.teacher, batch, *self.wanted)

    def row_weights(self, batch: Mapping[str, torch.Tensor]) -> None:
        """Return None: a teacher with weights answers every row."""


class FromLogits:
    """The answers of a teacher without weights, (rows, outputs), and how much each counts, by the number of the row."""

    def __init__(self, logits: Array, weights: Array | None = None) -> None:
        self.logits, self.weights = logits, weights

    def batch(self, batch: Mapping[str, torch.Tensor]) -> Outputs:
        """Return the teacher's logits for the rows of a batch."""
        rows, mask = batch["rows"].cpu().numpy(), batch["attention_mask"]
        logits = torch.from_numpy(self.logits[rows]).to(mask.device)
        return Outputs(mask=mask, values={LOGITS: {0: logits}}, weights=self.row_weights(batch))

    def row_weights(self, batch: Mapping[str, torch.Tensor]) -> torch.Tensor | None:
        """Return how much the answer to each row counts (batch,)."""
        if self.weights is None:
            return None
        return torch.from_numpy(self.weights[batch["rows"].cpu().numpy()]).to(batch["attention_mask"].device)


def on_disk(workshop: Workshop, teacher: Model, model: PreTrainedModel, tokens: Tokens, wanted: Wanted) -> FromDisk:
    """Return the teacher's outputs from the cache, computing what is missing; an interrupted pass is resumed."""
    kept = layout(model, tokens, wanted)

    def work(folder: Path) -> dict[str, float]:
        _compute(folder, model, tokens, kept)
        return {"gib": gib(kept, tokens), "rows": len(tokens)}

    product = workshop.make(KIND, made_with(teacher, tokens, wanted), work)
    return FromDisk(product.folder, tokens, kept)


def made_with(teacher: Model, tokens: Tokens, wanted: Wanted) -> list[Any]:
    """Return what the kept outputs depend on."""
    layers = {quantity.name: [quantity.dtype, *sorted(layers)] for quantity, layers in wanted.items() if layers}
    return [teacher.key, tokens.fingerprint, dict(sorted(layers.items()))]


class ToDisk:
    """The flat files of a folder, open for writing, row by row."""

    def __init__(self, folder: Path, tokens: Tokens, kept: list[Kept]) -> None:
        self.lengths, self.kept = tokens.lengths, kept
        self.maps, self.starts = {}, {}
        self.fresh = False  # whether a file had to be made
        for part in kept:
            path, numbers = folder / f"{part.name}.bin", part.numbers(self.lengths)
            size, dtype = int(numbers.sum()), part.quantity.dtype
            if not path.exists():
                self.fresh = True
                aside = path.with_suffix(".new")
                _reserve(aside, size * np.dtype(dtype).itemsize)
                aside.replace(path)
            self.maps[part.name] = np.memmap(path, dtype=dtype, mode="r+", shape=(size,))
            self.starts[part.name] = np.concatenate([[0], np.cumsum(numbers)])

    def put(self, rows: Array, outputs: Outputs) -> None:
        """Write the outputs of rows."""
        for place, row in enumerate(rows):
            length = int(self.lengths[row])
            for part in self.kept:
                values = outputs[part.quantity][part.layer][place][part.real(length)]
                start, end = self.starts[part.name][row : row + 2]
                self.maps[part.name][start:end] = values.float().cpu().numpy().ravel()

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
def _compute(folder: Path, model: PreTrainedModel, tokens: Tokens, kept: list[Kept]) -> None:
    noted = folder / "progress.json"
    files = ToDisk(folder, tokens, kept)
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
        files.put(batches[number], observe(model, batch, *dict.fromkeys(part.quantity for part in kept)))
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
