"""Numbers as people read them; what is missing is an en dash."""

from __future__ import annotations

import math

MISSING = "–"
MILLION, BILLION = 1e6, 1e9
_SHARES = frozenset(
    {"accuracy", "f1", "macro", "micro", "precision", "recall", "exact", "balanced", "average", "subset"}
)
"""First words of metrics that are written in percent."""
_ACRONYMS = {"ndcg@10": "nDCG@10", "mrr": "MRR", "f1": "F1", "mcc": "MCC", "mse": "MSE", "mae": "MAE", "r2": "R²"}


def is_share(metric: str) -> bool:
    """Return whether a metric is written in percent; correlations and errors are not."""
    return metric.partition(":")[0].partition("_")[0] in _SHARES


def metric_title(metric: str) -> str:
    """Return a metric's name for a heading or an axis: "Accuracy", "Macro F1", "MCC"; "F1 of spam" for "f1:spam"."""
    name, _, label = metric.partition(":")
    first, *words = name.split("_")
    title = " ".join([_ACRONYMS.get(first, first[:1].upper() + first[1:]), *(_ACRONYMS.get(w, w) for w in words)])
    return f"{title} of {label}" if label else title


def metric_name(metric: str) -> str:
    """Return a metric's name within a sentence: "accuracy", "macro F1", "Pearson", "F1 of spam"."""
    title = metric_title(metric)
    is_name = not is_share(metric) or title.startswith(tuple(_ACRONYMS.values()))
    return title if is_name else title[:1].lower() + title[1:]


def significant(value: float | None, digits: int = 3) -> str:
    """Return ``value`` with so many significant digits: 0.0823, 3.10, 21.2, 1,420."""
    if value is None:
        return MISSING
    if value == 0:
        return "0"
    if abs(value) < 1e-4:
        return f"{value:.{digits - 1}g}"
    return f"{value:,.{max(0, digits - 1 - math.floor(math.log10(abs(value))))}f}"


def percent(share: float | None) -> str:
    """Return a share of one as a percentage without its sign: 0.979 is "97.9"."""
    return MISSING if share is None else f"{100 * share:.1f}"


def metric_value(metric: str, value: float | None) -> str:
    """Return a metric without a unit: "84.3" for shares, "0.843" for the others."""
    if value is None:
        return MISSING
    return percent(value) if is_share(metric) else f"{value:.3f}"


def with_unit(metric: str, value: float | None) -> str:
    """Return a metric as written in a sentence: "84.3 %" or "0.843"."""
    text = metric_value(metric, value)
    return f"{text}\N{NO-BREAK SPACE}%" if is_share(metric) and text != MISSING else text


def brackets(metric: str, interval: tuple[float, float] | None) -> str:
    """Return an interval as " [82.7, 85.8]", or nothing when there is none."""
    return f" [{metric_value(metric, interval[0])}, {metric_value(metric, interval[1])}]" if interval else ""


def plus_minus(metric: str, value: float | None, interval: tuple[float, float] | None) -> str:
    """Return an interval as " ±1.6", its longer side, or nothing when there is none."""
    if value is None or interval is None:
        return ""
    return f" ±{metric_value(metric, max(value - interval[0], interval[1] - value))}"


def times(ratio: float | None) -> str:
    """Return a factor: "6.8×", "12×", "0.83×"."""
    return MISSING if ratio is None else f"{significant(ratio, 3 if ratio >= 100 else 2)}×"


def count(value: float | None) -> str:
    """Return a whole number with separators."""
    return MISSING if value is None else f"{value:,.0f}"


def parameters(value: float | None) -> str:
    """Return a number of parameters in short: "22.7 M", "110 M", "8,200"."""
    if value is None or value < MILLION:
        return count(value)
    unit, name = (BILLION, "G") if value >= BILLION else (MILLION, "M")
    return f"{significant(value / unit)}\N{NO-BREAK SPACE}{name}"


def duration(seconds: float | None) -> str:
    """Return a time in two units at most: "4.2 s", "3 min 20 s", "1 h 12 min"."""
    if seconds is None:
        return MISSING
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest} s"
    hours, minutes = divmod(minutes, 60)
    return f"{hours:,} h {minutes} min"


def change(ratio: float | None) -> str:
    """Return a ratio to what was before as a signed percentage: 0.51 is "−49 %"."""
    if ratio is None:
        return MISSING
    return signed(100 * (ratio - 1), 0) + "\N{NO-BREAK SPACE}%"


def points(metric: str, difference: float | None) -> str:
    """Return the difference of a metric: "−0.8" percentage points, or "−0.008"."""
    if difference is None:
        return MISSING
    return signed(100 * difference, 1) if is_share(metric) else signed(difference, 3)


def points_range(metric: str, interval: tuple[float, float]) -> str:
    """Return the interval of a difference: " [−1.4, −0.2]" percentage points, or " [−0.014, −0.002]"."""
    return f" [{points(metric, interval[0])}, {points(metric, interval[1])}]"


def probability(p: float) -> str:
    """Return a p: "0.034", "< 0.001"."""
    return f"{p:.3f}" if p >= 0.001 else "< 0.001"


def shorten(name: str, longest: int = 24) -> str:
    """Return a name cut to ``longest`` characters, for pictures."""
    return name if len(name) <= longest else name[: longest - 1] + "…"


def signed(value: float, decimals: int) -> str:
    """Return a number with its sign, a true minus; what rounds to zero is "±0"."""
    text = f"{abs(value):,.{decimals}f}"
    if not text.strip("0.,"):
        return "±0"
    return ("−" if value < 0 else "+") + text
