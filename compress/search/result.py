"""What a search came to: one schema that writes search.json and the page."""

from __future__ import annotations

from typing import Any

from msgspec import Struct

FILE = "search.json"
SCHEMA = 1
FORM_NAMES = {"eager": "eager PyTorch", "onnx": "fp32 ONNX", "dynamic": "int8 ONNX"}


class FormEntry(Struct, kw_only=True):
    """One form of a candidate or of the teacher, timed before any training."""

    name: str
    form: str
    ms: float
    mib: float
    speedup: float  # over the teacher in eager PyTorch
    fits: bool  # within the target's latency
    noise: str = ""  # why the timing is noisy, where it is


class ShapeEntry(Struct, kw_only=True):
    """The shape of a candidate whose heads and units were chosen by layer; 0: the layer is left out."""

    heads: list[int]
    units: list[int]


class FreeLunch(Struct, kw_only=True):
    """The teacher itself in a form that needs no training."""

    form: str
    ms: float
    metric: float  # on validation rows
    keeps: float
    meets: bool


class TrialEntry(Struct, kw_only=True):
    """One trial, on validation rows."""

    number: int
    candidate: str
    way: str
    rows: str  # "given", or "perturbed" copies of them too
    learning_rate: float
    metrics: list[float]  # after each cycle
    ms: float
    seconds: float
    ended: str
    failure: str = ""  # why its training ended early, where it did


class Finalist(Struct, kw_only=True):
    """A trial that was trained with several seeds, on validation rows."""

    number: int
    candidate: str
    cycles: int
    metrics: list[float]  # seed by seed
    chosen: bool


class FinishedForm(Struct, kw_only=True):
    """One form of a candidate's best trained student, timed again, beside what was foretold of it."""

    name: str
    form: str
    predicted_ms: float
    ms: float
    off: float  # how much slower it is than foretold, as a share; below 0: faster
    noise: str = ""


class Winner(Struct, kw_only=True):
    """What the finished run says on test rows, and what was foretold."""

    run: str  # its folder, within the search's
    student: str  # the candidate
    artifact: str
    predicted_ms: float | None  # of the same form; None where that was not foretold
    ms: float | None
    speedup: float | None
    over_int8: float | None
    metric: float
    rows: int
    keeps: float | None
    keeps_at_least: float | None  # one-sided 95 % bound, from the paired difference to the teacher


class SearchReport(Struct, kw_only=True):
    """The whole of search.json."""

    schema: int = SCHEMA
    command: str
    identity: str
    finished: bool = False
    target: dict[str, float | None]
    metric: str
    teacher: float = 0.0  # its main metric on validation rows
    validation_rows: int = 0
    forms: list[FormEntry] = []
    shapes: dict[str, ShapeEntry] = {}  # by the candidate's name
    timing_seconds: float = 0.0  # that timing all forms took
    left_out: dict[str, str] = {}  # candidates that the task or teacher does not allow, and why
    free: list[FreeLunch] = []
    trials: list[TrialEntry] = []
    finalists: list[Finalist] = []
    compared: list[FinishedForm] = []
    drift: dict[str, float] = {}  # times as long as before that the teacher took, by form, when they were compared
    winner: Winner | None = None
    verdict: str = ""
    met: bool | None = None
    seconds: float = 0.0
    machine: dict[str, Any] = {}
