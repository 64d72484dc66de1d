"""``compress run``: compose a recipe from words and run it, or a sweep of them."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING

from compress.cli.commands.compare import compare_runs
from compress.cli.commands.plan import show_plan
from compress.cli.output import refused, shown
from compress.cli.parser import WORDS, Parser
from compress.cli.running import DRY, carry_out, show
from compress.starting import importing
from compress.telling import Failed, tell

if TYPE_CHECKING:
    from compress.cli.sweep import Outcome

RUN = """\
A word either chooses (student=bert, prune=[heads]) or sets a value (prune.heads.ratio=0.5).
Settings are checked before any work starts, and all errors are listed together. Finished work is kept:
run the same command again to resume; change a setting, and only what depends on it is done again.

examples:
  compress run                                              the recipe quickstart
  compress run recipe=my/recipe.yaml seed=7                 your own recipe; start from what `compress run --cfg` prints
  compress run data=files data.train=train.tsv              your own data
  compress run 'prune=[heads]' prune.heads.ratio=0.5        most shells need quotes around brackets
  compress run -m prune.heads.ratio=0.1,0.3 seed=1,2,3      a sweep: six runs, then a table that compares them
  compress run -m hydra/launcher=joblib seed=1,2,3          in parallel, with an installed Hydra launcher

The run is written to runs/<recipe>/<name>/; without name=, to the next number, as runs/quickstart/001/; output=
names any other folder. runs/<recipe>/latest links to the latest run. Files that the run did not write are never
replaced.
  report.html, report.md, report.json   the results
  recipe.yaml                           every setting; compress run recipe=THAT/FILE repeats the run
  student/, artifacts/<name>/           the student (transformers) and its exported forms
  stages/<nn>-<stage>/                  the model after each stage
  rejected/<name>/                      artifacts that lose more than max_drop, with what cost most
  baselines/<name>/                     the teacher itself in ONNX, fp32 and int8, without training

"""


def parser() -> Parser:
    """Return the options."""
    options = Parser("run", "[WORD …] [-m] [--cfg] [--plan]", "Run a recipe, from data to report.", RUN)
    options.add_completed(WORDS, "words", nargs="*", metavar="WORD", help="choice=NAME or setting=VALUE")
    options.add_argument("-m", "--multirun", action="store_true", help="run every combination of values a,b,c")
    options.add_argument(*DRY, action="store_true", help="check, print the whole recipe, run nothing")
    options.add_argument("--plan", action="store_true", help="say what would be done, as `compress plan`; run nothing")
    options.add_telling()
    return options


def main(argv: Sequence[str]) -> int:
    """``compress run``: compose a recipe from words and run it."""
    if set(argv) & {"-h", "--help"}:
        with importing():
            from compress.cli.help import choices_and_settings

        parser().print_help()
        print(f"\n{choices_and_settings()}")
        return 0
    options = parser().parse_intermixed_args(argv)
    if options.plan and options.multirun:
        return refused("--plan: is for one run. Leave out -m.")
    if options.multirun:
        return _sweep(options.words, dry=options.cfg)

    with importing():
        from compress.cli import compose

    recipe = compose.compose(options.words)
    if options.plan:
        return show_plan(recipe)
    if options.cfg:
        return show(recipe)
    return carry_out(recipe, ["run", *options.words])


def _sweep(words: Sequence[str], *, dry: bool) -> int:
    with importing():
        from compress.cli.composing import sweeps
        from compress.cli.sweep import check_all, sweep

    if dry:
        jobs = sweeps.combinations(words)
        check_all(jobs)
        commands = [shlex.join(["compress", "run", *job]) for job in jobs]
        shown(lambda: print("\n".join(commands)), commands=commands)
        return 0
    ended: list[Outcome] = []
    try:
        outcomes = sweep(words, ended)
    except KeyboardInterrupt as stop:
        count = _tell(ended)
        raise type(stop)(f"{count} {'run is' if count == 1 else 'runs are'} finished") from None
    return 0 if _tell(outcomes) == len(outcomes) else 2


def _tell(outcomes: Sequence[Outcome]) -> int:
    """Tell what became of the jobs of a sweep; return how many are finished."""
    finished = [outcome for outcome in outcomes if not outcome.error]
    compare_runs([str(outcome.folder) for outcome in finished], None)
    for outcome in outcomes:
        line = f"{outcome.label}: {outcome.error or outcome.folder}"
        if outcome.error:
            tell(Failed(message=line, code=2))
        else:
            shown(partial(print, line), label=outcome.label, folder=str(outcome.folder))
    return len(finished)
