"""What a search looks for, and how long."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, fields

from compress.errors import Fault
from compress.known import NOTHING, Known
from compress.settings import Settings, at_least, positive

STUDENTS = ("bert", "narrow", "shaped", "bilstm", "cnn", "static")
"""The students that a search tries: of every depth, with fewer hidden channels, with heads and units chosen by layer
for the speed, and those that read words."""


@dataclass(kw_only=True)
class SearchTarget(Settings):
    """What the student has to reach: at least one of these."""

    latency_ms: float | None = None  # most milliseconds for a row at its real length: median, without tokenization
    speedup: float | None = None  # times as fast as the teacher in eager PyTorch, in the same turns
    keep: float | None = None  # share of the teacher's main metric, for example 0.99

    def faults(self, known: Known = NOTHING) -> Iterator[Fault]:
        """There is a target, and it can be one."""
        if all(getattr(self, field.name) is None for field in fields(self)):
            yield Fault("", None, "is missing", "Set target.latency_ms, target.speedup or target.keep.")
        yield from positive(self, "latency_ms")
        yield from positive(self, "speedup")
        yield from positive(self, "keep")
        if self.keep is not None and self.keep > 1:
            yield Fault("keep", self.keep, "is a share of the teacher's metric", "For 99 % write 0.99.")

    @property
    def of_speed(self) -> bool:
        """Whether it asks for a speed."""
        return self.latency_ms is not None or self.speedup is not None

    def most_ms(self, teacher_ms: float) -> float:
        """Return the longest latency that meets it, where the teacher takes ``teacher_ms`` in eager PyTorch."""
        return min(self._limits(teacher_ms).values(), default=float("inf"))

    def strictest(self, teacher_ms: float) -> str:
        """Return which of its speeds is the hardest to reach."""
        limits = self._limits(teacher_ms)
        return min(limits, key=limits.__getitem__)

    def _limits(self, teacher_ms: float) -> dict[str, float]:
        """Return the longest latency that each speed allows, by its name."""
        limits = {} if self.latency_ms is None else {"latency_ms": self.latency_ms}
        return limits | ({} if self.speedup is None else {"speedup": teacher_ms / self.speedup})


@dataclass(kw_only=True)
class Search(Settings):
    """How much is tried."""

    trials: int = 24  # trainings that are begun; most end after a cycle or two
    cycles: int = 4  # most cycles of a trial; each is a whole training of distill.epochs that continues the last
    minutes: float | None = None  # for everything; null: no limit
    workers: int = 1  # processes on this machine that train side by side, and share its threads
    finalists: int = 2  # best trials that are trained with other seeds as well
    seeds: int = 3  # for each finalist; the first is the recipe's
    students: list[str] = field(
        default_factory=lambda: list(STUDENTS)
    )  # which to try: bert, narrow, shaped, bilstm, cnn, static
    anyway: bool = False  # go on where the teacher's own int8 or fp32 ONNX meets the target

    def faults(self, known: Known = NOTHING) -> Iterator[Fault]:
        """Counts are whole numbers from 1, and the students are known."""
        for name in ("trials", "cycles", "finalists", "seeds", "workers"):
            yield from at_least(self, name, 1)
        yield from positive(self, "minutes")
        for name in self.students:
            if name not in STUDENTS:
                yield Fault("students", name, f"must be among {', '.join(STUDENTS)}")
        if not self.students:
            yield Fault("students", [], "names no student", f"Choose from {', '.join(STUDENTS)}.")
