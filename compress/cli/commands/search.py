"""``compress search``: name a speed or a share of the accuracy, and get the student."""

from __future__ import annotations

import shlex
from collections.abc import Sequence

from compress.cli.output import shown
from compress.cli.parser import WORDS, Parser
from compress.cli.running import DRY, show, shown_report
from compress.starting import importing

SEARCH = """\
Words are those of `compress run`, which say what is common to all trials (data, teacher, benchmark, …; without recipe=,
the recipe search), and:

  target.latency_ms=3      at most 3 milliseconds for a row at its real length: median, without tokenization
  target.speedup=10        10 times as fast as the teacher in eager PyTorch
  target.keep=0.99         at least this share of the teacher's main metric; alone, the fastest student that has it
  search.trials=24         trainings that are begun; most end after a cycle or two
  search.cycles=4          most cycles of a trial; each is distill.epochs, continuing the last
  search.minutes=120       for everything; what there is no time for is not begun
  search.workers=2         processes on this machine that train side by side, and share its threads
  search.finalists=2       best trials that are trained with other seeds as well
  search.seeds=3           for each finalist
  search.students=[bert]   which to try: bert, narrow, shaped, bilstm, cnn, static
  search.anyway=true       go on where the teacher's own int8 meets the target

First the teacher itself is timed in ONNX, fp32 and int8: where that meets the target, nothing is trained. Then every
candidate is timed with untrained weights, and what misses the target is never trained. Trials are chosen on
validation rows; the test rows are used once, for the student that was found. An interrupted search resumes.

examples:
  compress search data=files data.train=t.tsv teacher.model=my/teacher target.latency_ms=3 distill.epochs=1
  compress search data=files data.train=t.tsv teacher.model=my/teacher target.keep=0.99 search.minutes=60

Written to runs/search/<number>/, or to output=:
  search.html, search.json   every trial and the frontier
  journal.log                Optuna's journal, from which a killed search resumes
  worker-1.log               what the first of the other processes says
  run/                       the run of the student that was found, as `compress run` writes it; recipe.yaml repeats it
"""
MISSED = 3  # exit code of a search whose target no trial met


def parser() -> Parser:
    """Return the options."""
    options = Parser("search", "WORD … [--cfg]", "Find the student that has a speed, or keeps an accuracy.", SEARCH)
    options.add_completed(
        WORDS, "words", nargs="*", metavar="WORD", help="target.NAME=VALUE, search.NAME=VALUE, or as for compress run"
    )
    options.add_argument(*DRY, action="store_true", help="check, print what all trials share, run nothing")
    options.add_telling()
    return options


def main(argv: Sequence[str]) -> int:
    """``compress search``: find the student that reaches a target."""
    options = parser().parse_intermixed_args(argv)

    with importing():
        from compress.cli.search import searching
        from compress.search.search import refuse_faults, search, settled

    recipe, target, settings = searching(options.words)
    if options.cfg:
        refuse_faults(recipe, target, settings)
        return show(settled(recipe, settings)[0])
    found = search(recipe, target, settings, shlex.join(["compress", "search", *options.words]))
    if found.run is not None:
        shown_report(found.run.report, found.run.folder)

    def print_it() -> None:
        print(found.report.verdict)
        print(f"search: {found.folder / 'search.html'}")

    shown(
        print_it, folder=str(found.folder), search=str(found.folder / "search.json"), verdict=found.report.verdict,
        met=found.report.met,
    )  # fmt: skip
    return 0 if found.report.met else MISSED
