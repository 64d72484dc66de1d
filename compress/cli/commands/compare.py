"""``compress compare``: compare finished runs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from compress.cli.output import shown
from compress.cli.parser import FOLDERS, Parser
from compress.run.names import distinct, given_path
from compress.telling import warn


def parser() -> Parser:
    """Return the options."""
    options = Parser("compare", "RUN RUN … [--output FILE]", "Compare finished runs.")
    options.add_completed(
        FOLDERS, "runs", nargs="+", metavar="RUN", help="folder of a finished run, or its report.json"
    )
    options.add_argument("--output", metavar="FILE", help="write a page with plots too, as comparison.html")
    options.add_telling()
    return options


def main(argv: Sequence[str]) -> int:
    """``compress compare``: compare finished runs."""
    options = parser().parse_intermixed_args(argv)
    output = None
    if options.output is not None:
        from compress.report.compare import writable_page

        output = writable_page(given_path(options.output, "--output"))
    compare_runs(distinct(options.runs, warn), output)
    return 0


def compare_runs(runs: Sequence[str], output: Path | None) -> None:
    """Print a table of two or more runs, and write the page with plots where ``output`` is given."""
    from rich.console import Console

    from compress.files import write_text
    from compress.report import load_report
    from compress.report.differences import differences, labelled, side_by_side
    from compress.report.table import print_comparison

    reports = [(run.rstrip("/").removesuffix("/report.json"), load_report(Path(run).expanduser())) for run in runs]
    if output:
        from compress.report.compare import comparison_html

        write_text(output, comparison_html(reports))
    headings, lines = side_by_side(labelled(reports))

    def print_it() -> None:
        if len(reports) > 1:
            print_comparison(reports, Console())
        if output:
            print(f"comparison: {output}")

    compared = [dict(zip(headings, line, strict=True)) for line in lines]
    shown(print_it, runs=compared, warnings=differences(labelled(reports)), page=str(output) if output else None)
