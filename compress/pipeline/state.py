"""What flows through a run: the state, the verb that changes it, and the cache of what is finished."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar, Protocol

from rich.console import Console

from compress.data.dataset import Dataset
from compress.errors import Fault
from compress.files import hash_json, locked, settle, storage_faults, write_json
from compress.machine import versions
from compress.settings import Settings, plain
from compress.tasks.base import Task

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


@dataclass(frozen=True)
class Model:
    """A model on disk, as transformers saves it, with its tokenizer; ``key`` says how it was made."""

    folder: Path
    key: str


@dataclass(frozen=True)
class Artifact:
    """A deployable form of the student."""

    name: str
    runtime: str  # "onnxruntime", "tensorrt", or "pytorch" for what the Auto classes load
    precision: str
    folder: Path
    key: str
    record: Mapping[str, Any] = field(default_factory=dict)
    variant: str = ""  # which of the several that one stage makes; its name ends in it
    unmeasured: str = ""  # why it cannot be run on this machine, where it cannot
    trained: Model | None = None  # what it was written from, where that is not the student


@dataclass(frozen=True)
class Record:
    """What one stage did, for the report; ``model`` is what it left behind."""

    name: str
    kind: str
    model: Model
    seconds: float
    reused: bool
    notes: tuple[str, ...] = ()
    curves: tuple[Mapping[str, float], ...] = ()
    facts: Mapping[str, Any] = field(default_factory=dict)  # more that report.json keeps of this stage, JSON-ready


@dataclass(frozen=True)
class State:
    """Everything that a stage is given and returns; nothing in it changes."""

    data: Dataset
    workshop: Workshop
    seed: int
    teacher: Model | None = None
    pretrained: str | None = None  # the folder or hub id that the teacher was fine-tuned from, where it was
    student: Model | None = None
    undistilled: Model | None = None  # the student as distillation found it
    recover: Recovery | None = None
    artifacts: tuple[Artifact, ...] = ()
    records: tuple[Record, ...] = ()
    notes: tuple[str, ...] = ()  # for the next record, from a stage that leaves none of its own
    augmentations: tuple[Mapping[str, Any], ...] = ()  # what was added to the unlabelled rows, for the report
    folder: Path | None = None  # where the run was written, when it has ended

    def with_record(self, record: Record, **changes: Any) -> State:
        """Return the state with ``record`` appended and ``changes`` made."""
        record = replace(record, notes=(*self.notes, *record.notes))
        return replace(self, records=(*self.records, record), notes=(), **changes)

    @property
    def given_teacher(self) -> Model:
        """The teacher; raises ValueError when no stage made one."""
        if self.teacher is None:
            raise ValueError("this stage needs a teacher; run Teacher first")
        return self.teacher

    @property
    def given_student(self) -> Model:
        """The student; raises ValueError when no stage made one."""
        if self.student is None:
            raise ValueError("this stage needs a student; run Student first")
        return self.student


class Recovery(Protocol):
    """Train a model again as it was distilled."""

    def __call__(
        self,
        state: State,
        start: Model,
        epochs: float,
        name: str = ...,
        learning_rate: float | None = None,
        sparsify: Any = None,
        share: float = ...,
    ) -> tuple[Product, Model]:
        """Return what came of it.

        ``learning_rate`` is another than the distillation's, of which else ``share`` is taken; ``sparsify`` says how
        weights leave meanwhile.
        """
        ...


@dataclass(kw_only=True)
class Stage(Settings):
    """One verb: a state in, a state out. Its fields are its settings."""

    gathers: ClassVar[bool] = False  # it takes the artifacts of other stages, and so runs after all of them

    def __call__(self, state: State) -> State:
        """Return the state after this stage."""
        raise NotImplementedError(type(self).__name__)

    def task_faults(self, task: Task) -> Iterator[Fault]:
        """Yield settings that do not fit the task."""
        yield from ()

    def model_faults(self, student: Any, teacher: Any) -> Iterator[Fault]:
        """Yield settings that do not fit the student's and the teacher's configurations. Does not read files."""
        yield from ()

    def origin_faults(self, student: Any, teacher: str, fine_tuned: bool, seed: int) -> Iterator[Fault]:
        """Yield why other models or texts than the recipe's cannot serve; these may be read.

        ``student`` is a configuration, ``teacher`` the folder or hub id that the teacher is loaded from, which
        is a pretrained model where it is ``fine_tuned`` in this run; data is cut and sampled with ``seed``.
        """
        yield from ()

    def gather_faults(self, others: Mapping[str, Stage]) -> Iterator[Fault]:
        """Yield why what the run's other exports and quantizations make cannot serve; no single setting is at fault."""
        yield from ()

    def made_with(self) -> Any:
        """The settings as they enter the fingerprint of what this stage makes."""
        return plain(self)
