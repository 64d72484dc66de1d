"""Ship or not: the rules by which a report judges what it recommends, and their thresholds.

Each rule looks at figures of the report alone and yields its reasons. One that forbids makes the decision "do not
ship", one that warns "ship with care"; without any it is "ship". docs/report.md has the same list.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from compress.benchmark.figures import BaselineEntry, Entry
from compress.report import formats, gates
from compress.report.paired_words import in_words, sides, turned
from compress.report.schema import CARE, DO_NOT, SHIP, Reason, Report, Shipping
from compress.tasks.classification import MISLEADS
from compress.tasks.paired import Difference

NEAR_CONSTANT = 0.1  # share of the way from one answer for all to a perfect score; with less, nothing was learned
LARGE_LOSS = 0.05  # of the main metric against the teacher, shown by the paired test: do not ship
SOME_LOSS = 0.02  # the same: ship with care
FEW_ROWS = 100  # test rows below which no figure is worth much
UNFOUND = 5  # test rows of a class of which none is found
TRAIN_LONGER = "Train it longer (teacher.epochs, teacher.learning_rate) or name a better one (teacher.model)."


def shipping(report: Report) -> Shipping:
    """Return whether to ship the recommended artifact, and why; what forbids comes first."""
    best = report.best
    if best is None:
        nothing = Reason(rule="nothing", decision=DO_NOT, text="No artifact is recommended.")
        return Shipping(decision=DO_NOT, reasons=[nothing, *_rejected(report, None)])
    reasons = [reason for rule in RULES for reason in rule(report, best)]
    reasons.sort(key=lambda reason: reason.decision != DO_NOT)
    if not reasons:
        return Shipping(decision=SHIP, reasons=[_passed(report, best)])
    return Shipping(decision=reasons[0].decision, reasons=reasons)


def _rejected(report: Report, best: Entry | None) -> Iterator[Reason]:
    """Artifacts lose more than they may; nothing else may be left."""
    if report.nothing_passes:
        yield Reason(
            rule="nothing_passes", decision=DO_NOT, text="Every artifact was rejected.",
            detail="Choose other forms, or raise max_drop if such a loss is acceptable.",
        )  # fmt: skip
    for rejected in report.rejected:
        text = f"{rejected.name} is rejected."
        yield Reason(rule="rejected", decision=CARE, text=text, detail=_sentence(gates.why(rejected), ""))
    for line in report.skipped:
        yield Reason(rule="rejected", decision=CARE, text=line)


def _unproven(report: Report, best: Entry) -> Iterator[Reason]:
    """Validation rows are too few to show what it loses against the student."""
    if best.gate is not None and best.gate.outcome == "too few rows":
        text = f"What {best.name} loses against the student is not known well."
        yield Reason(rule="unproven", decision=CARE, text=text, detail=gates.too_few([best]))


def _beaten_by_int8(report: Report, best: Entry) -> Iterator[Reason]:
    """The teacher's own int8, which takes no training, is as fast, and no worse."""
    own = report.own_int8
    difference = own.differences.get(best.name) if own else None
    if own is None or difference is None or best.over_int8 is None or not beaten(best.over_int8, turned(difference)):
        return
    change = in_words(turned(difference)) + ("" if difference.clear else ", which may be chance")
    yield Reason(
        rule="teacher_int8", decision=DO_NOT, text=f"The teacher's own int8 beats {best.name}, without any training.",
        detail=f"{best.name} is {best.over_int8:.2f}× as fast as it, and not more accurate ({change}). "
        f"Ship {own.path or own.name}, or distil a smaller student.",
    )  # fmt: skip


def beaten(over_int8: float, difference: Difference) -> bool:
    """Return whether a student is not faster than the teacher's own int8, and not clearly better.

    ``difference`` is the student's main metric less that of the int8.
    """
    return over_int8 <= 1 and not (difference.clear and difference.value > 0)


def _near_constant(report: Report, best: Entry) -> Iterator[Reason]:
    """It is not clearly better than answering every row alike, or hardly."""
    constant = _baseline(report, "constant")
    difference = _over(best, constant)
    if constant is None or difference is None:
        return
    better = difference.clear and difference.value > 0
    reached, start = report.metric(best), report.metric(constant)
    hardly = reached is not None and start is not None and reached - start < NEAR_CONSTANT * (1 - start)
    if hardly or not better:
        how = "hardly better" if better else "worse" if difference.clear else "not clearly better"
        yield Reason(
            rule="constant", decision=DO_NOT, text=f"{best.name} is {how} than {constant.kind}.",
            detail=f"{_compared(report, best, constant, difference)} It has learned next to nothing: look at the "
            "labels, train longer, or give more rows.",
        )  # fmt: skip


def _below_the_cheap_model(report: Report, best: Entry) -> Iterator[Reason]:
    """TF-IDF and a linear model answer better, or not clearly worse."""
    tfidf = _baseline(report, "tfidf")
    difference = _over(best, tfidf)
    if tfidf is None or difference is None or (difference.clear and difference.value > 0):
        return
    how, remedy = ("worse", "Ship that, or train longer.") if difference.clear else _UNCLEAR
    yield Reason(
        rule="tfidf", decision=DO_NOT if difference.clear else CARE, text=f"{best.name} is {how} than TF-IDF.",
        detail=f"{_compared(report, best, tfidf, difference)} {remedy}",
    )  # fmt: skip


_UNCLEAR = ("not clearly better", "The cheap model may be enough.")


def _weak_teacher(report: Report, best: Entry) -> Iterator[Reason]:
    """The teacher is not clearly better than TF-IDF: it has little to teach."""
    teacher, tfidf = report.teacher, _baseline(report, "tfidf")
    difference = _over(teacher, tfidf) if teacher else None
    if teacher is None or tfidf is None or difference is None or (difference.clear and difference.value > 0):
        return
    how = "worse" if difference.clear else "not clearly better"
    yield Reason(
        rule="weak_teacher", decision=DO_NOT if difference.clear else CARE, text=f"The teacher is {how} than TF-IDF.",
        detail=f"{_compared(report, teacher, tfidf, difference)} It has little to teach. {TRAIN_LONGER}",
    )  # fmt: skip


def _undertrained_teacher(report: Report, best: Entry) -> Iterator[Reason]:
    """A student is clearly better than its teacher."""
    teacher = report.teacher
    for stage in report.stages:
        difference = stage.differences.get("teacher")
        if teacher is not None and difference and difference.clear and difference.value > 0:
            yield Reason(
                rule="undertrained_teacher", decision=CARE, text=f"{stage.name} is better than its teacher.",
                detail=f"{_compared(report, stage, teacher, difference)} The teacher is undertrained. {TRAIN_LONGER}",
            )  # fmt: skip
            return


def _loss(report: Report, best: Entry) -> Iterator[Reason]:
    """It loses much against the teacher, or against the model that was given, or may do so for all that is known."""
    other = report.reference
    difference = best.differences.get(other.name) if other else None
    if other is None or difference is None:
        return
    compared = _compared(report, best, other, difference)
    if difference.clear and difference.value <= -LARGE_LOSS:
        yield Reason(
            rule="loss", decision=DO_NOT, text=f"{best.name} loses much against the {report.against}.",
            detail=f"{compared} Take a larger student, or train it longer on more rows.",
        )  # fmt: skip
    elif difference.clear and difference.value <= -SOME_LOSS:
        text = f"{best.name} loses against the {report.against}."
        yield Reason(rule="loss", decision=CARE, text=text, detail=compared)
    elif difference.low <= -LARGE_LOSS:
        yield Reason(
            rule="few_rows", decision=CARE, text=f"A large loss against the {report.against} cannot be ruled out.",
            detail=f"{compared} Measure on more test rows.",
        )  # fmt: skip


def _loss_of_the_student(report: Report, best: Entry) -> Iterator[Reason]:
    """On test rows it answers clearly worse than the student, although validation rows did not show it."""
    difference = best.differences.get("student")
    if not report.given and difference and difference.clear and difference.value < 0:
        text = f"{best.name} answers worse than the student that it was made of."
        yield Reason(rule="artifact_loss", decision=CARE, text=text, detail=_sentence(in_words(difference)))


def _few_rows(report: Report, best: Entry) -> Iterator[Reason]:
    """There are too few test rows for any figure."""
    if report.test_rows is not None and report.test_rows < FEW_ROWS:
        text = f"{report.test_rows:,} test rows are too few to know."
        yield Reason(rule="few_rows", decision=CARE, text=text, detail=f"Give {FEW_ROWS} or more.")


def _misleading(report: Report, best: Entry) -> Iterator[Reason]:
    """Accuracy decides, and answering every row alike is right on most."""
    constant = _baseline(report, "constant")
    share = constant.metrics.get("accuracy") if constant else None
    if constant is not None and report.main_metric == "accuracy" and share is not None and share >= MISLEADS:
        told = f"{_sentence(constant.kind, '')} is right on {formats.with_unit('accuracy', share)} of the test rows."
        remedy = "Let another metric decide: task.metric=macro_f1, mcc or f1:CLASS."
        yield Reason(rule="misleading", decision=CARE, text="Accuracy says little here.", detail=f"{told} {remedy}")


def _unlabelled(report: Report, best: Entry) -> Iterator[Reason]:
    """Test rows have no labels: what the teacher gets wrong is not seen."""
    if "test" in report.dataset.answered:
        yield Reason(
            rule="unlabelled", decision=CARE, text="No test row has a label of its own.",
            detail=f"{best.name} is compared with the teacher's answers. Whether these are right is not known, nor "
            "whether a student is better than its teacher. Label some rows: data.test.",
        )  # fmt: skip


def _unfound(report: Report, best: Entry) -> Iterator[Reason]:
    """There are classes that it never finds."""
    missed = [found for found in best.classes if found.rows >= UNFOUND and found.recall == 0]
    if missed:
        names = ", ".join(f"{formats.shorten(found.label)} ({found.rows:,} rows)" for found in missed[:5])
        more = f" and {len(missed) - 5:,} more classes" if len(missed) > 5 else ""
        chosen = report.settings.get("task")
        weighted = isinstance(chosen, dict) and chosen.get("class_weights")
        remedy = f"Give more rows of them{'' if weighted else ', or more weight: task.class_weights=balanced'}."
        yield Reason(rule="unfound", decision=CARE, text=f"{best.name} never finds {names}{more}.", detail=remedy)


def _slower(report: Report, best: Entry) -> Iterator[Reason]:
    """It is not faster than what it replaces."""
    if best.speedup is not None and best.speedup <= 1:
        text = f"{best.name} is not faster than the {report.against}."
        yield Reason(rule="slow", decision=CARE, text=text, detail=f"It has {formats.times(best.speedup)} its speed.")


Rule = Callable[[Report, Entry], Iterator[Reason]]

RULES: tuple[Rule, ...] = (
    _rejected,
    _beaten_by_int8,
    _near_constant,
    _below_the_cheap_model,
    _weak_teacher,
    _undertrained_teacher,
    _loss,
    _loss_of_the_student,
    _few_rows,
    _unproven,
    _misleading,
    _unlabelled,
    _unfound,
    _slower,
)
"""In the order in which their reasons are told."""


def _passed(report: Report, best: Entry) -> Reason:
    """Return why nothing speaks against it."""
    found = []
    if over := _over(best, _baseline(report, "tfidf")):
        found.append(f"Against TF-IDF: {in_words(over)}.")
    other = report.reference
    if (difference := best.differences.get(other.name) if other else None) is not None:
        found.append(f"Against the {report.against}: {in_words(difference)}.")
    text = "Nothing that was measured speaks against it."
    return Reason(rule="passed", decision=SHIP, text=text, detail=" ".join(found))


def _baseline(report: Report, name: str) -> BaselineEntry | None:
    return next((entry for entry in report.baselines if entry.name == name), None)


def _over(model: Entry, other: BaselineEntry | None) -> Difference | None:
    """Return the main metric of a model less that of a baseline; None where they were not compared."""
    difference = other.differences.get(model.name) if other else None
    return turned(difference) if difference else None


def _compared(report: Report, first: Entry, other: Entry, difference: Difference) -> str:
    """Return both sides and their paired difference as a sentence."""
    return f"{sides(report, first, other)} ({in_words(difference)})."


def _sentence(text: str, end: str = ".") -> str:
    return text[:1].upper() + text[1:] + end
