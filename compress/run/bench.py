"""Latency of any students and artifacts on the machine's devices, side by side, on random token numbers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from compress.benchmark.latency import grid
from compress.errors import CompressError, ModelError, in_one_line
from compress.models.loading import load_tokenizer
from compress.run.predict import artifact_folder
from compress.runtimes.base import Session
from compress.runtimes.devices import Device, chosen_devices
from compress.runtimes.pytorch import torch_threads
from compress.runtimes.registry import runtime_of

USUAL = (32, 128)  # tokens per row


def bench_paths(
    paths: Sequence[Path],
    batches: Sequence[int],
    tokens: Sequence[int] | None,
    threads: int,
    devices: Sequence[str] = (),
    seconds: float = 2.0,
) -> list[dict[str, Any]]:
    """Return one record per path, device and variant, with `latency` entries, or with why it is ``not_measured``.

    Whatever runs on a device is called alternately. Without ``tokens``, rows have the `USUAL` lengths, as far as the
    models take them; without ``devices``, those that the machine has. Raises CompressError, also where a path runs on
    none of the devices.
    """
    chosen = chosen_devices(devices, "--device")
    folders = {str(path): artifact_folder(path) for path in paths}
    tokenizers = {name: load_tokenizer(folder) for name, folder in folders.items()}
    longest = min(tokenizer.model_max_length for tokenizer in tokenizers.values())
    lengths = tokens or sorted({min(length, longest) for length in USUAL})
    if max(lengths) > longest:
        raise CompressError(f"--tokens {max(lengths)}: these models take at most {longest} tokens.")
    records: list[dict[str, Any]] = []
    for device in chosen:
        with device.active(), torch_threads(threads):
            on_device, sessions = _loaded(folders, device, threads)
            found: dict[str, Any] = {}
            if sessions:
                readers = {label: tokenizers[on_device[label]["path"]] for label in sessions}
                found = grid(sessions, readers, batches=batches, lengths=lengths, seconds=seconds, threads=threads)
        records += [record | {"latency": found.get(label, [])} for label, record in on_device.items()]
    for name in folders:
        reasons = [record.get("not_measured") for record in records if record["path"] == name]
        if all(reasons):
            raise CompressError("; ".join(dict.fromkeys(filter(None, reasons))))
    return records


def _loaded(
    folders: Mapping[str, Path], device: Device, threads: int
) -> tuple[dict[str, dict[str, Any]], dict[str, Session]]:
    """Return a record for each way of running the folders on a device, and the sessions of those that run, by label."""
    records: dict[str, dict[str, Any]] = {}
    sessions: dict[str, Session] = {}
    for name, folder in folders.items():
        about: dict[str, Any] = {"path": name, "folder": str(folder), "device": device.name}
        try:
            runtime = runtime_of(folder, device)
        except ModelError as error:
            records[name] = about | {"runtime": "", "variant": "", "not_measured": str(error)}
            continue
        for variant in runtime.variants(folder, device):
            label = f"{name}, {variant.name}"
            records[label] = about | {"runtime": runtime.name, "variant": variant.name}
            try:
                sessions[label] = runtime.load(folder, device, threads=threads, variant=variant.name)
            except Exception as error:  # runtimes' errors share no base class
                records[label]["not_measured"] = in_one_line(error)
    return records, sessions
