"""The sentences that Markdown, the page and the model card share; none says more than the report knows."""

from __future__ import annotations

import json
from dataclasses import dataclass

from compress.benchmark.figures import Cut, Entry
from compress.report import devices, formats
from compress.report.columns import place
from compress.report.formats import times, with_unit
from compress.report.schema import CARE, DO_NOT, SHIP, AugmentationEntry, Reason, Report
from compress.tasks.base import ByClass


@dataclass(frozen=True)
class Verdict:
    """One sentence in three parts; ``name`` is set apart so that a writer can set it as code."""

    before: str
    name: str = ""
    after: str = ""


@dataclass(frozen=True)
class Badge:
    """Whether to ship, as it is seen first."""

    title: str
    tone: str  # good, care or stop
    reasons: list[Reason]


@dataclass(frozen=True)
class Figure:
    """A figure to be seen first, and what it is measured against."""

    value: str
    label: str
    detail: str


TONES = {SHIP: "good", CARE: "care", DO_NOT: "stop"}


def badge(report: Report) -> Badge | None:
    """Return whether to ship the recommended artifact, and why; None where a report does not say."""
    found = report.shipping
    if found is None:
        return None
    title = found.decision[:1].upper() + found.decision[1:]
    return Badge(title, TONES[found.decision], found.reasons)


def verdict(report: Report) -> Verdict:
    """Return the sentence that a reader who reads only one should read."""
    best, teacher = report.best, report.reference
    if best is None:
        return Verdict("No artifact is recommended" + (": see the findings below." if report.verdicts else "."))
    clauses = [_kept(report, best)]
    if best.speedup is not None:
        clauses.append(f"answers {_faster(best.speedup)}{_over_int8(best)}{_noisy(report, best)}")
    if (ratio := _smaller(teacher, best)) is not None:
        clauses.append(f"is {times(ratio)} smaller" if ratio >= 1 else f"is {times(1 / ratio)} larger")
    clauses = [clause for clause in clauses if clause]
    if not clauses:
        return Verdict("The recommended artifact is ", best.name, ".")
    forbidden = report.shipping is not None and report.shipping.decision == DO_NOT
    start = "At best, " if forbidden else "The recommended artifact "
    *firsts, last = clauses
    told = f"{', '.join(firsts)}{',' * (len(firsts) > 1)} and {last}" if firsts else last
    return Verdict(start, best.name, f" {told}.")


def _faster(speedup: float) -> str:
    return f"{times(speedup)} {'faster' if speedup >= 1 else 'as fast, so more slowly'}"


def _noisy(report: Report, best: Entry) -> str:
    """Return that timings of an artifact or of what it is compared with are noisy; "" where they are not."""
    timings = [entry.headline(report.place) for entry in (best, report.reference) if entry is not None]
    return " (noisy timings)" if any(timing is not None and timing.noise for timing in timings) else ""


def _over_int8(entry: Entry) -> str:
    if entry.over_int8 is None:
        return ""
    how = f"{_faster(entry.over_int8)} than" if entry.over_int8 >= 1 else f"{times(entry.over_int8)} as fast as"
    return f" ({how} the teacher's own int8)"


def _kept(report: Report, entry: Entry) -> str:
    metric, value = report.main_metric, report.metric(entry)
    title = formats.metric_name(metric)
    measured = "" if value is None else with_unit(metric, value) + formats.brackets(metric, report.interval(entry))
    basis = f"{measured}, {rows(report)}" if measured else ""
    if entry.retained is not None:
        return f"keeps {formats.percent(entry.retained)}\N{NO-BREAK SPACE}% of the {report.against}'s {title}" + (
            f" ({basis})" if basis else ""
        )
    return f"reaches {title} {basis}" if basis else ""


def _smaller(teacher: Entry | None, entry: Entry) -> float | None:
    return teacher.size_mib / entry.size_mib if teacher and teacher.size_mib and entry.size_mib else None


def rows(report: Report) -> str:
    """Return the number of test rows in words."""
    found = report.test_rows
    return "number of test rows not recorded" if found is None else f"{found:,} test rows"


def figures(report: Report) -> list[Figure]:
    """Return the recommended artifact's three or four great figures; none when nothing is recommended."""
    best, teacher, metric = report.best, report.reference, report.main_metric
    if best is None:
        return []
    found = []
    if (value := report.metric(best)) is not None:
        interval = formats.brackets(metric, report.interval(best)).strip()
        against = f"{report.against} {with_unit(metric, report.metric(teacher))}" if teacher else ""
        detail = "; ".join(part for part in (f"95 % interval {interval}" if interval else "", against) if part)
        found.append(Figure(with_unit(metric, value), formats.metric_name(metric), f"{detail}; {rows(report)}"))
    if best.speedup is not None:
        ours, theirs = report.milliseconds(best), report.milliseconds(teacher) if teacher else None
        label = f"{'as fast as' if best.speedup < 1 else 'faster than'} the {report.against}"
        timings = f"{formats.significant(ours)} ms against {formats.significant(theirs)} ms"
        int8 = f"; {times(best.over_int8)} against the teacher's own int8" if best.over_int8 is not None else ""
        found.append(Figure(times(best.speedup), label, f"{timings}{int8}; {condition(report)}{_noisy(report, best)}"))
    if (ratio := _smaller(teacher, best)) is not None and teacher is not None:
        sizes = f"{formats.significant(best.size_mib)} MiB against {formats.significant(teacher.size_mib)} MiB"
        figure = (times(ratio), "smaller on disk") if ratio >= 1 else (times(1 / ratio), "larger on disk")
        found.append(Figure(*figure, sizes))
    if best.agreement is not None:
        agreement = f"{formats.percent(best.agreement)}\N{NO-BREAK SPACE}%"
        largest = f"; largest logit difference {formats.significant(best.max_abs_difference, 2)}"
        tail = largest if best.max_abs_difference is not None else ""
        found.append(Figure(agreement, "same answers", f"as the PyTorch student, on {rows(report)}{tail}"))
    return found


def condition(report: Report) -> str:
    """Return what the latencies quoted first were measured on."""
    return f"median, one row at its real length, {place(report.place)}"


def method(report: Report) -> list[str]:
    """Return how the figures came about and what they do not say."""
    title = formats.metric_title(report.main_metric)
    baseline = f"the {report.against} in eager PyTorch, fp32, on the same device, threads and rows"
    notes = [
        f"{title}: measured on {rows(report)} by running each artifact itself; brackets or ± give the 95 % interval. "
        "Whether two models differ is tested on the same rows (paired), not by their intervals.",
        f"Kept: the metric divided by the {report.against}'s, on the same rows.",
        f"ms: {condition(report)}, after warm-up, without tokenization. Timings with tokenization are separate.",
        *(
            ["In brackets behind ms: the median of the quietest quarter of the same calls."]
            if report.has_quiet_timings
            else ()
        ),
        f"Speedup: against {baseline}.",
        *([f"vs int8: {_OWN_INT8}"] if report.has_int8_speedups else ()),
        "Agree: share of test rows with the same prediction; "
        + (
            "all against the PyTorch student."
            if report.given
            else "stages and baselines against the teacher, artifacts against the PyTorch student."
        ),
    ]
    notes += [*unmeasured(report), *noise(report)]
    if report.seed is not None:
        notes.append(
            f"One run, one seed ({report.seed}). Compare several seeds before calling one recipe better than another."
        )
    return notes


def noise(report: Report) -> list[str]:
    """Return how many timings were noisy, of what and why, and how to repeat them; empty where none was."""
    timings = [(entry, timing) for entry in report.entries for timing in entry.latency if not timing.not_measured]
    noisy = [(entry, timing) for entry, timing in timings if timing.noise]
    if not noisy:
        return []
    names = ", ".join(dict.fromkeys(entry.name for entry, _ in noisy))
    entry, timing = next(((entry, timing) for entry, timing in noisy if entry is report.best), noisy[0])
    verb = "is" if len(noisy) == 1 else "are"
    return [
        f"{len(noisy)} of {len(timings)} timings {verb} noisy ({names}); of {entry.name}, for example, {timing.noise}. "
        "Measure them again on an idle machine: compress bench RUN --again."
    ]


_OWN_INT8 = (
    "speedup over the teacher's own int8, which ONNX Runtime's dynamic quantization makes of it without any training."
)


def unmeasured(report: Report) -> list[str]:
    """Return why each entry without figures has none."""
    nowhere = [f"{entry.name}: not measured: {entry.not_measured}" for entry in report.entries if entry.not_measured]
    return nowhere + devices.unmeasured(report)


def splits(report: Report) -> str:
    """Return the rows of each split in one line: "2,600 train · 300 validation"."""
    return " · ".join(f"{value:,} {name}" for name, value in report.dataset.rows.items()) or formats.MISSING


def reading(report: Report) -> list[tuple[str, str]]:
    """Return how the rows were read, as (what, in words); the numbers of rows, which `splits` gives, are left out."""
    return [(what, told) for what, told in report.dataset.summary.facts() if what != "rows"]


PER_CLASS = ("Precision", "Recall", "F1")


def by_class(report: Report) -> tuple[list[str], list[list[str]]]:
    """Return teacher, student and recommended artifact by name, and a line for each class.

    A line holds the class, its test rows, and the percentages `PER_CLASS` of each model, a dash for a share of nothing.
    Nothing where no class was recorded.
    """
    trained = [stage for stage in report.stages if stage is not report.teacher]
    shown: list[Entry | None] = [report.teacher, *trained[-1:], report.best]
    if report.best is report.student:
        shown.pop()
    models = [entry for entry in shown if entry is not None and entry.classes]
    lines = [
        [per[0].label, formats.count(per[0].rows)] + [cell for scores in per for cell in _found(scores)]
        for per in zip(*(entry.classes for entry in models), strict=False)
    ]
    return [entry.name for entry in models], lines


def _found(scores: ByClass) -> tuple[str, str, str]:
    right = formats.percent(scores.precision) if scores.answered else formats.MISSING
    if not scores.rows:
        return right, formats.MISSING, formats.MISSING
    return right, formats.percent(scores.recall), formats.percent(scores.f1)


def absent(report: Report) -> str:
    """Return which classes have no test row, in a sentence; empty where all have some."""
    entry = next((entry for entry in report.entries if entry.classes), None)
    names = [label.label for label in entry.classes if not label.rows] if entry else []
    if not names:
        return ""
    more = f" and {len(names) - 10:,} more" if len(names) > 10 else ""
    return f"No test row has the class {', '.join(names[:10])}{more}: means over classes are of the others."


def depths_title(report: Report) -> str:
    """Return the heading of what a model is worth at every depth: "Accuracy against depth"."""
    return f"{formats.metric_title(report.main_metric)} against depth"


def depths(report: Report) -> str:
    """Return how a model was cut to every depth, in two sentences."""
    orders = " or ".join(dict.fromkeys(_ORDERS.get(curve.order, curve.order) for curve in report.depths))
    unit = ", %," if formats.is_share(report.main_metric) else ""
    return (
        f"{formats.metric_title(report.main_metric)}{unit} of one trained model from which whole layers were left out "
        f"({orders}), not trained again; brackets: the 95 % interval on {rows(report)}."
    )


_ORDERS = {
    "every_other": "every other one, evenly spread",
    "loss": "those that the loss misses least first",
    "gradient": "by the gradient of a gate, least first",
    "fisher": "by the squared gradient of a gate, least first",
    "taylor": "by the squared gradient of a gate, least first",  # of reports by earlier versions
    "molchanov": "by the squared gradient of a gate over mini-batches, least first",
    "activation": "by how little they turn the states",
}


def depth_table(report: Report) -> tuple[list[str], list[list[str]]]:
    """Return headings, and a row for each depth, the whole model first: each model's metric, and the layers it keeps.

    Models that keep the same layers at every depth share the column that says which.
    """
    cuts = [{len(cut.layers): cut for cut in curve.cuts} for curve in report.depths]
    depths = sorted({depth for cut in cuts for depth in cut}, reverse=True)
    kept = [[_numbers(cut[depth].layers) if depth in cut else formats.MISSING for depth in depths] for cut in cuts]
    shared = all(cut == kept[0] for cut in kept)
    headings, columns = ["Depth"], [[str(depth) for depth in depths]]
    for curve, cut, left in zip(report.depths, cuts, kept, strict=True):
        headings.append(curve.label)
        columns.append([_of_cut(report.main_metric, cut.get(depth)) for depth in depths])
        if not shared or cut is cuts[-1]:
            headings.append("Layers that are left")
            columns.append(left)
    return headings, [list(row) for row in zip(*columns, strict=True)]


def _of_cut(metric: str, cut: Cut | None) -> str:
    if cut is None or metric not in cut.metrics:
        return formats.MISSING
    return formats.metric_value(metric, cut.metrics[metric]) + formats.brackets(metric, cut.interval.get(metric))


def _numbers(layers: list[int]) -> str:
    """Return rising numbers in short: "1–4, 6"."""
    runs: list[list[int]] = []
    for layer in layers:
        if runs and layer == runs[-1][-1] + 1:
            runs[-1].append(layer)
        else:
            runs.append([layer])
    return ", ".join(f"{run[0]}–{run[-1]}" if len(run) > 2 else ", ".join(map(str, run)) for run in runs)


def augmented(made: AugmentationEntry) -> str:
    """Return what came of an augmentation, in a sentence or two."""
    counts = made.counts
    added = f"{counts.get('kept', 0):,} rows of {counts.get('copies', 0):,} copies of training rows were added"
    dropped = f"{counts.get('duplicates', 0):,} copies were equal to another row and were dropped"
    measured = f"{counts.get('measured', 0):,} were equal to a validation or test row and were dropped"
    when = ", in an earlier run" if made.reused else ""
    spent = "" if made.seconds is None else f" Made in {formats.duration(made.seconds)}{when}."
    return f"{added}; only the teacher labels them. Of the others {dropped}, {measured}.{spent}"


def augmentation_facts(made: AugmentationEntry) -> list[tuple[str, str]]:
    """Return the settings of an augmentation and what it did to words and texts, as (name, value)."""
    told = {"copies", "kept", "duplicates", "measured"}  # in the sentence
    settings = [(name, _scalar(value)) for name, value in made.settings.items()]
    return settings + [(name.replace("_", " "), f"{n:,}") for name, n in made.counts.items() if name not in told]


def examples(made: AugmentationEntry) -> list[tuple[str, str]]:
    """Return (original, augmented) of its examples; the texts of a pair are divided by |."""
    return [(" | ".join(example.original), " | ".join(example.augmented)) for example in made.examples]


def facts(report: Report) -> list[tuple[str, str]]:
    """Return machine and versions as (name, value), in the report's order."""
    found = []
    for name, value in report.machine.items():
        text = ", ".join(map(str, value)) if isinstance(value, list) else formats.MISSING if value is None else value
        found.append((name.replace("_gib", ", GiB").replace("_", " "), str(text)))
    return found + list(report.versions.items())


def flat(settings: object, prefix: str = "") -> list[tuple[str, str]]:
    """Return nested settings as (dotted path, value), the form in which the command line takes them."""
    if isinstance(settings, dict) and (settings or not prefix):
        return [pair for key, value in settings.items() for pair in flat(value, f"{prefix}.{key}" if prefix else key)]
    if isinstance(settings, list):
        return [(prefix, "[" + ", ".join(_scalar(value) for value in settings) + "]")]
    return [(prefix, _scalar(settings))]


def _scalar(value: object) -> str:
    return json.dumps(value) if value is None or isinstance(value, bool) else str(value)
