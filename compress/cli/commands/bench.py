"""``compress bench``: measure latency."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from compress.cli.output import note, table
from compress.cli.parser import FOLDERS, Parser, number, numbers
from compress.run.names import distinct
from compress.starting import stopping_at_once


def parser() -> Parser:
    """Return the options."""
    options = Parser(
        "bench", "PATH … [options]", "Measure the latency of models and artifacts, by turns, on random tokens."
    )
    options.add_completed(
        FOLDERS, "paths", nargs="+", metavar="PATH", help="a run, a student/ or artifacts/NAME/ folder"
    )
    options.add_argument("--batch", type=numbers, default=[1, 8, 32], metavar="1,8,32", help="rows per call")
    options.add_argument("--tokens", type=numbers, default=[32, 128], metavar="32,128", help="tokens per row")
    options.add_argument("--threads", type=number, default=1, metavar="1", help="threads of every runtime")
    options.add_argument("--json", action="store_true", help="print JSON instead of a table")
    return options


def main(argv: Sequence[str]) -> int:
    """``compress bench``: measure latency."""
    options = parser().parse_intermixed_args(argv)

    with stopping_at_once():
        from compress.run.bench import bench_paths

    paths = [Path(path).expanduser() for path in distinct(options.paths, note)]
    rows = bench_paths(paths, options.batch, options.tokens, options.threads)
    if options.json:
        print(json.dumps(rows, indent=2))
    else:  # a line for each batch size and length
        shown = ("batch", "tokens", "median_ms", "p90_ms", "p99_ms")
        table(
            [
                {"path": row["path"], "runtime": row["runtime"], **{key: one[key] for key in shown}}
                for row in rows
                for one in row["latency"]
            ]
        )
    return 0
