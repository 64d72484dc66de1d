"""The cache of finished work: what is made once and shared by runs and processes."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rich.console import Console

from compress.files import hash_json, locked, settle, storage_faults, write_json
from compress.machine import versions

PRODUCT = "product.json"  # written last into a finished folder: its key, seconds and record
MATTERS = ("compress", "torch", "transformers", "tokenizers", "onnx", "onnxscript", "onnxruntime")
SCRATCH = "scratch"  # below a folder in the making: what resumption needs and the finished folder does not


@dataclass(frozen=True)
class Product:
    """A finished folder in the cache, and what its maker said about it."""

    folder: Path
    key: str
    seconds: float
    reused: bool  # it was there before this run asked for it
    record: Mapping[str, Any]


@dataclass(frozen=True)
class Workshop:
    """Where work is done once: a cache of finished folders, shared by runs and by processes.

    A folder is named by what it was made with and from. Work goes on in ``<name>.partial``, under a
    lock that dies with its process, and is renamed when it is whole: a killed run leaves a partial
    folder, in which the same work goes on.
    """

    cache: Path
    console: Console = field(default_factory=Console, compare=False)

    def make(self, kind: str, made_with: Any, work: Callable[[Path], Mapping[str, Any] | None]) -> Product:
        """Return the product of ``work(folder)``, done now or found finished.

        ``made_with`` is everything that the result depends on, JSON-ready. ``work`` may find files of an
        interrupted attempt in its folder; it returns a JSON-ready record. Raises StorageError.
        """
        key, final = self._place(kind, made_with)

        def say_waiting() -> None:
            self.console.print(f"[dim]{kind}: another run is making the same; waiting for it[/dim]")

        if not final.exists():
            with locked(self.cache / "locks" / final.name, say_waiting), storage_faults(self.cache):
                if not final.exists():
                    self._work(final, key, work)
                    return self._read(final, reused=False)
        return self._read(final, reused=True)

    def has(self, kind: str, made_with: Any) -> bool:
        """Return whether that product is finished."""
        return self._place(kind, made_with)[1].exists()

    def _place(self, kind: str, made_with: Any) -> tuple[str, Path]:
        key = hash_json([kind, made_with, self.version])
        return key, self.cache / f"{kind}-{key[:24]}"

    def _work(self, final: Path, key: str, work: Callable[[Path], Mapping[str, Any] | None]) -> None:
        partial = final.with_name(final.name + ".partial")
        partial.mkdir(exist_ok=True)
        if (partial / PRODUCT).exists():  # whole, but for the last step
            self._settle(partial, final)
            return
        spent = partial / "seconds.json"  # of earlier, interrupted attempts
        before = json.loads(spent.read_text()) if spent.exists() else 0.0
        start = time.perf_counter()
        try:
            record = work(partial)
        except BaseException:
            if any(partial.iterdir()):
                write_json(spent, before + time.perf_counter() - start)
            else:
                shutil.rmtree(partial, ignore_errors=True)
            raise
        seconds = before + time.perf_counter() - start
        write_json(partial / PRODUCT, {"key": key, "seconds": seconds, "record": dict(record or {})})
        self._settle(partial, final)

    @staticmethod
    def _settle(partial: Path, final: Path) -> None:
        """Remove what only resumption needed and make the folder final."""
        shutil.rmtree(partial / SCRATCH, ignore_errors=True)
        (partial / "seconds.json").unlink(missing_ok=True)
        settle(partial, final)

    @staticmethod
    def _read(final: Path, *, reused: bool) -> Product:
        said = json.loads((final / PRODUCT).read_text())
        return Product(final, said["key"], said["seconds"], reused, said["record"])

    @property
    def version(self) -> str:
        """The versions that a result may depend on."""
        return " ".join(f"{name} {version}" for name, version in versions().items() if name in MATTERS)
