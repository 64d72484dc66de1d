"""What a search has found, in a sentence, and the fault of a target that nothing can meet."""

from __future__ import annotations

from collections.abc import Sequence

from compress.errors import Fault
from compress.search.result import FORM_NAMES, Winner
from compress.search.settings import SearchTarget
from compress.search.speeds import Speeds


def verdict(target: SearchTarget, winner: Winner) -> tuple[bool, str]:
    """Return whether the target is met on test rows, and a sentence on each part of it."""
    parts: list[tuple[bool, str]] = []
    ms, speedup, keeps = winner.ms, winner.speedup, winner.keeps
    if target.latency_ms is not None:
        words = f"{_number(ms)} ms per row, {target.latency_ms:g} asked for"
        parts.append((ms is not None and ms <= target.latency_ms, words))
    if target.speedup is not None:
        words = f"{_number(speedup)}× as fast as the teacher, {target.speedup:g}× asked for"
        parts.append((speedup is not None and speedup >= target.speedup, words))
    if target.keep is not None:
        least = winner.keeps_at_least
        bound = "" if least is None else f" (95 % bound: at least {least:.1%})"
        words = f"{_percent(keeps)} of the teacher's metric kept{bound}, {target.keep:.1%} asked for"
        parts.append((keeps is not None and keeps >= target.keep, words))
    met = all(ok for ok, _ in parts)
    details = "; ".join(words for _, words in parts)
    kept = "" if target.keep is not None else f" It keeps {_percent(winner.keeps)} of the teacher's metric."
    what = "meets the target" if met else "comes nearest, and does not meet the target"
    form = FORM_NAMES.get(winner.artifact)
    artifact = f"{winner.student} as {form}" if form else winner.artifact
    return met, f"{artifact} {what}: {details}, on {winner.rows:,} test rows.{kept}"


def unreachable(target: SearchTarget, speeds: Speeds, names: Sequence[str]) -> Fault:
    """Return the fault of a speed that no candidate has, with the nearest that there is."""
    nearest = min((speeds.fastest(name) for name in names), key=lambda speed: speed.ms, default=None)
    if nearest is None:
        return Fault("search.students", None, "none of them fits this task and teacher", "See the reasons above.")
    asked = target.strictest(speeds.teacher_ms)
    return Fault(
        f"target.{asked}", getattr(target, asked), "no candidate is that fast",
        f"The fastest, {nearest.name} as {FORM_NAMES[nearest.form]}, takes {nearest.ms:.3g} ms "
        f"({speeds.teacher_ms / nearest.ms:.3g}× the teacher). Nothing was trained.",
    )  # fmt: skip


def _number(value: float | None) -> str:
    return "an unknown number of" if value is None else f"{value:.3g}"


def _percent(value: float | None) -> str:
    return "an unknown share" if value is None else f"{value:.1%}"
