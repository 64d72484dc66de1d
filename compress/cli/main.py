"""The command line: what is typed, what is refused in words, and which code is returned."""

from __future__ import annotations

import argparse
import json
import os
import re
import shlex
import sys
import time
from collections.abc import Callable, Sequence
from difflib import get_close_matches
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from compress.cli import recipe_files
from compress.errors import CompressError
from compress.files import storage_error
from compress.interruption import Terminated, terminable
from compress.processes import SeveralProcessesError, is_first, refuse_several
from compress.run.names import distinct, given_path

if TYPE_CHECKING:
    from compress.cli.sweep import Outcome
    from compress.run.recipe import Recipe

DRY = ("--cfg", "--dry-run")  # options that run nothing
MOST_NUMBERS, LARGEST = 64, 1_000_000  # of --batch and --tokens

OVERVIEW = """\
usage: compress COMMAND …

Make BERT-sized models small and fast: distil, prune, quantize, export, measure, report.

commands:
  run      run a recipe, from data to report; without words, the quickstart
  export   quantize and export a saved student or any saved classifier, with the report
  compare  set finished runs side by side
  bench    measure the latency of models and artifacts
  predict  ask a model or an artifact about texts
  recipes  list the recipes

  compress COMMAND --help says more; `compress run --help` lists everything that can be set.

examples:
  compress run recipe=quickstart
  compress run recipe=quickstart data=files data.train=my/train.tsv teacher.model=my/teacher
  compress run -m recipe=quickstart prune.heads.ratio=0.1,0.3,0.5
  compress compare runs/quickstart/*
  compress export runs/quickstart/latest 'quantize=[static]' 'export=[onnx]'
  compress predict runs/quickstart/latest "a text"
"""

RUN = """\
Words are choices (student=bert, prune=[heads]) and single settings (prune.heads.ratio=0.5).
All are checked before any work starts. Finished work is kept and used again: the same command
resumes, and a changed setting repeats only what depends on it.

examples:
  compress run                                              the recipe quickstart
  compress run recipe=my/recipe.yaml seed=7                 one's own; `compress run --cfg` prints a start
  compress run data=files data.train=train.tsv              one's own data
  compress run 'prune=[heads]' prune.heads.ratio=0.5        brackets need quotes in most shells
  compress run -m prune.heads.ratio=0.1,0.3 seed=1,2,3      a sweep: six runs, then a table of them
  compress run -m hydra/launcher=joblib seed=1,2,3          side by side, by a Hydra launcher that is installed

written to runs/<recipe>/<name>/, without name= to the next number, as runs/quickstart/001/, or where output= says;
runs/<recipe>/latest leads to the last of them. Only files that a run wrote itself are ever replaced:
  report.html, report.md, report.json   what came of it
  recipe.yaml                           every setting; compress run recipe=THAT/FILE repeats the run
  student/, artifacts/<name>/           the student (transformers) and its exported forms
  stages/<nn>-<stage>/                  the model after each stage

"""


EXPORT = """\
RUN is the folder of a finished run: its data and settings are used again, and its student is taken as
it is. FOLDER is any saved classifier (transformers, safetensors), also one that was not trained here;
it is compared with itself. Rows are needed: to calibrate, and to prove what the artifacts are worth.

examples:
  compress export runs/quickstart/latest 'quantize=[dynamic,static]' 'export=[onnx]'
  compress export runs/quickstart/latest 'export=[onnx,tensorrt]' output=deploy
  compress export my/classifier data=files data.train=train.tsv data.test=test.tsv 'quantize=[static]'

written to runs/export/<number>/, or where output= says, as `compress run` does; RUN and FOLDER stay as they are
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command line and return its exit code.

    0; 2 for what the user can fix; 130 after Ctrl-C, 143 after SIGTERM.
    """
    words = list(sys.argv[1:] if argv is None else argv)
    try:
        with terminable():
            return _main(words)
    except SeveralProcessesError as error:
        if is_first():
            return _refused(str(error))
        time.sleep(1)  # a launcher ends all its processes when one has ended; the first has to say why
        return 2
    except CompressError as error:
        return _refused(str(error))
    except KeyboardInterrupt as stop:
        print("\n" if sys.stderr.isatty() else "", _stopped(words, stop), sep="", file=sys.stderr)
        return 143 if isinstance(stop, Terminated) else 130
    except BrokenPipeError:  # as in `compress recipes | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except (OSError, ValueError, RuntimeError) as error:
        if (failure := storage_error(error)) is None:
            raise
        return _refused(str(failure))


def _stopped(words: Sequence[str], stop: KeyboardInterrupt) -> str:
    """Return the line that tells of an interruption; a sweep says in it how far it came."""
    works = words[:1] in (["run"], ["export"]) and not {*DRY, "-h", "--help"} & set(words)
    resumes = " Run the same command again; it resumes." if works else ""
    return f"Stopped{f': {stop}' if str(stop) else ''}.{resumes}"


def _main(argv: list[str]) -> int:
    if argv[:1] == ["--version"]:
        print(f"compress {metadata.version('compress')}")
        return 0
    if not argv or argv[0] in {"-h", "--help", "help"}:
        print(OVERVIEW, end="")
        return 0
    name, rest = argv[0], argv[1:]
    if name not in COMMANDS:
        close = get_close_matches(name, COMMANDS, n=1)
        meant = f"run {name}" if "=" in name else close[0] if close else None
        hint = f"Did you mean compress {meant}?" if meant else f"There are {', '.join(COMMANDS)}."
        return _refused(f"{name} is no command. {hint}")
    if name != "recipes" and not set(rest) & {"-h", "--help"}:
        refuse_several()
    return COMMANDS[name](rest)


def run(argv: Sequence[str]) -> int:
    """``compress run``: compose a recipe from words and run it."""
    parser = _Parser("run", "[WORD …] [-m] [--cfg]", "Run a recipe, from data to report.", RUN)
    parser.add_argument("words", nargs="*", metavar="WORD", help="choice=NAME or setting=VALUE")
    parser.add_argument("-m", "--multirun", action="store_true", help="run every combination of values a,b,c")
    parser.add_argument(*DRY, action="store_true", help="check, print the whole recipe, run nothing")
    if set(argv) & {"-h", "--help"}:
        from compress.cli.help import choices_and_settings

        parser.print_help()
        print(f"\n{choices_and_settings()}")
        return 0
    options = parser.parse_intermixed_args(argv)
    if options.multirun:
        return _sweep(options.words, dry=options.cfg)

    from compress.cli import compose

    recipe = compose.compose(options.words)
    if options.cfg:
        return _shown(recipe)
    return _carried_out(recipe, ["run", *options.words])


def export(argv: Sequence[str]) -> int:
    """``compress export``: quantize and export a saved student."""
    parser = _Parser("export", "RUN_OR_FOLDER [WORD …] [--cfg]", "Quantize and export a saved student.", EXPORT)
    parser.add_argument("model", metavar="RUN_OR_FOLDER", help="folder of a finished run, or of a saved classifier")
    parser.add_argument("words", nargs="*", metavar="WORD", help="choice=NAME or setting=VALUE, as for compress run")
    parser.add_argument(*DRY, action="store_true", help="check, print the whole recipe, run nothing")
    options = parser.parse_intermixed_args(argv)

    from compress.cli.export import recipe_for

    recipe = recipe_for(options.model, options.words)
    if options.cfg:
        return _shown(recipe)
    return _carried_out(recipe, ["export", options.model, *options.words])


def _shown(recipe: Recipe) -> int:
    """Check a recipe and print it, with what is known of its models."""
    from compress.run.check import check, told
    from compress.run.recipe_yaml import to_yaml

    checked = check(recipe)
    for line in told(checked.data):
        print(line, file=sys.stderr)
    print(to_yaml(recipe), end="")
    for tried in checked.models:
        print(f"# {tried}")
    return 0


def _carried_out(recipe: Recipe, words: Sequence[str]) -> int:
    """Run a recipe and print its report."""
    from rich.console import Console

    from compress.report import load_report
    from compress.report.table import print_report

    folder = recipe.run(command=shlex.join(["compress", *words])).folder
    assert folder is not None
    print_report(load_report(folder), Console())
    print(f"report: {folder / 'report.html'}")
    return 0


def _sweep(words: Sequence[str], *, dry: bool) -> int:
    from compress.cli import compose
    from compress.cli.sweep import check_all, sweep

    if dry:
        jobs = compose.combinations(words)
        check_all(jobs)
        print("\n".join(shlex.join(["compress", "run", *job]) for job in jobs))
        return 0
    ended: list[Outcome] = []
    try:
        outcomes = sweep(words, ended)
    except KeyboardInterrupt as stop:
        count = _tell(ended)
        raise type(stop)(f"{count} {'run is' if count == 1 else 'runs are'} finished") from None
    return 0 if _tell(outcomes) == len(outcomes) else 2


def _tell(outcomes: Sequence[Outcome]) -> int:
    """Print what became of the jobs of a sweep; return how many are finished."""
    finished = [outcome for outcome in outcomes if not outcome.error]
    _compare([str(outcome.folder) for outcome in finished], None)
    for outcome in outcomes:
        print(f"{outcome.label}: {outcome.error or outcome.folder}", file=sys.stderr if outcome.error else sys.stdout)
    return len(finished)


def compare(argv: Sequence[str]) -> int:
    """``compress compare``: set finished runs side by side."""
    parser = _Parser("compare", "RUN RUN … [--output FILE]", "Set finished runs side by side.")
    parser.add_argument("runs", nargs="+", metavar="RUN", help="folder of a finished run, or its report.json")
    parser.add_argument("--output", metavar="FILE", help="write a page with plots too, as comparison.html")
    options = parser.parse_intermixed_args(argv)
    output = None
    if options.output is not None:
        from compress.report.compare import writable_page

        output = writable_page(given_path(options.output, "--output"))
    _compare(distinct(options.runs, _note), output)
    return 0


def _compare(runs: Sequence[str], output: Path | None) -> None:
    from rich.console import Console

    from compress.files import write_text
    from compress.report import load_report
    from compress.report.table import print_comparison

    reports = [(run.rstrip("/").removesuffix("/report.json"), load_report(Path(run).expanduser())) for run in runs]
    if len(reports) > 1:
        print_comparison(reports, Console())
    if output:
        from compress.report.compare import comparison_html

        write_text(output, comparison_html(reports))
        print(f"comparison: {output}")


def bench(argv: Sequence[str]) -> int:
    """``compress bench``: measure latency."""
    parser = _Parser(
        "bench", "PATH … [options]", "Measure the latency of models and artifacts, by turns, on random tokens."
    )
    parser.add_argument("paths", nargs="+", metavar="PATH", help="a run, a student/ or artifacts/NAME/ folder")
    parser.add_argument("--batch", type=_numbers, default=[1, 8, 32], metavar="1,8,32", help="rows a call")
    parser.add_argument("--tokens", type=_numbers, default=[32, 128], metavar="32,128", help="tokens a row")
    parser.add_argument("--threads", type=_number, default=1, metavar="1", help="threads of every runtime")
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    options = parser.parse_intermixed_args(argv)

    from compress.run.bench import bench_paths

    paths = [Path(path).expanduser() for path in distinct(options.paths, _note)]
    rows = bench_paths(paths, options.batch, options.tokens, options.threads)
    if options.json:
        print(json.dumps(rows, indent=2))
    else:  # a line for each batch size and length
        shown = ("batch", "tokens", "median_ms", "p90_ms", "p99_ms")
        _table(
            [
                {"path": row["path"], "runtime": row["runtime"], **{key: one[key] for key in shown}}
                for row in rows
                for one in row["latency"]
            ]
        )
    return 0


def predict(argv: Sequence[str]) -> int:
    """``compress predict``: ask a model about texts."""
    parser = _Parser("predict", "PATH TEXT … [--pair TEXT …] [--json]", "Ask a model or an artifact about texts.")
    parser.add_argument("path", metavar="PATH", help="a run, a student/ or artifacts/NAME/ folder")
    parser.add_argument("texts", nargs="*", metavar="TEXT", help="without any, lines of the standard input")
    parser.add_argument("--pair", action="append", metavar="TEXT", help="second text of a pair, once for each TEXT")
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    options = parser.parse_intermixed_args(argv)
    texts = options.texts or [line.rstrip("\n") for line in sys.stdin]
    if options.pair is not None and len(options.pair) != len(texts):
        parser.error(f"there are {len(texts)} texts, but --pair is given {len(options.pair)} times")

    from compress.run.predict import predict as answers

    rows = answers(given_path(options.path), texts, options.pair)
    if options.json:
        print(json.dumps(rows, indent=2, ensure_ascii=False))
    else:
        _table(rows)
    return 0


def recipes(argv: Sequence[str]) -> int:
    """``compress recipes``: list the recipes."""
    parser = _Parser("recipes", "", "List the recipes: those that come with the program, and those in ./recipes.")
    parser.parse_args(argv)
    found = recipe_files.known()
    width = max(map(len, found), default=0)
    for name, path in found.items():
        print(f"{name:<{width}}  {recipe_files.headline(path)}  [{recipe_files.shown(path)}]")
    print("\nRun one: compress run recipe=NAME. See all of its settings: compress run recipe=NAME --cfg.")
    return 0


COMMANDS: dict[str, Callable[[Sequence[str]], int]] = {
    "run": run,
    "export": export,
    "compare": compare,
    "bench": bench,
    "predict": predict,
    "recipes": recipes,
}


class _Parser(argparse.ArgumentParser):
    """Says in one line what is wrong, with the nearest option."""

    def __init__(self, command: str, usage: str, description: str, more: str = "") -> None:
        super().__init__(
            prog=f"compress {command}",
            usage=f"compress {command} {usage}".rstrip(),
            description=description,
            epilog=more,
            formatter_class=argparse.RawDescriptionHelpFormatter,
            allow_abbrev=False,
        )

    def error(self, message: str) -> NoReturn:
        """Print what is wrong and exit with code 2."""
        unknown = message.removeprefix("unrecognized arguments: ").split(" ")[0].partition("=")[0]
        if unknown != message.split(" ", maxsplit=1)[0]:
            close = get_close_matches(unknown, self._option_string_actions, n=1)
            message = f"{unknown} is no option. " + (f"Did you mean {close[0]}?" if close else "See --help.")
        sys.exit(_refused(f"{self.prog}: {message}"))


def _numbers(text: str) -> list[int]:
    numbers = text.split(",")
    if len(numbers) > MOST_NUMBERS:
        raise argparse.ArgumentTypeError(f"{len(numbers)} numbers are more than the {MOST_NUMBERS} that fit a table")
    return [_number(one) for one in numbers]


def _number(text: str) -> int:
    if not text.isdecimal() or len(text) > len(str(LARGEST)) or not 1 <= int(text) <= LARGEST:
        rule = f"must be whole numbers from 1 to {LARGEST:,}, as 1,8,32"
        raise argparse.ArgumentTypeError(f"{text[:20]!r} {rule}")
    return int(text)


def _table(rows: Sequence[dict[str, Any]]) -> None:
    """Print dictionaries as a table; parts of parts are left to --json."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    columns = [key for key, value in rows[0].items() if not isinstance(value, dict | list)] if rows else []
    table = Table(box=None, padding=(0, 2, 0, 0))
    for number, key in enumerate(columns):
        table.add_column(key, overflow="fold", no_wrap=number > 0)
    for row in rows:
        table.add_row(*(Text(f"{row[key]:.3g}" if isinstance(row[key], float) else str(row[key])) for key in columns))
    Console().print(table)


def _refused(message: str) -> int:
    print(_visible(message), file=sys.stderr)
    return 2


def _note(text: str) -> None:
    print(_visible(text), file=sys.stderr)


def _visible(text: str) -> str:
    """Return ``text`` with control characters written out, which a terminal would obey."""
    return re.sub("[\x00-\x09\x0b-\x1f\x7f-\x9f]", lambda letter: f"\\x{ord(letter[0]):02x}", text)
