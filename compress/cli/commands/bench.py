"""``compress bench``: measure latency."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from compress.cli.output import note, table
from compress.cli.parser import FOLDERS, Parser, number, numbers
from compress.run.names import distinct
from compress.starting import stopping_at_once


def parser() -> Parser:
    """Return the options."""
    options = Parser(
        "bench",
        "PATH … [options]",
        "Measure the latency of models and artifacts, called alternately, on random tokens.",
    )
    options.add_completed(
        FOLDERS, "paths", nargs="+", metavar="PATH", help="a run, a student/ or artifacts/NAME/ folder"
    )
    options.add_argument("--batch", type=numbers, default=[1, 8, 32], metavar="1,8,32", help="rows per call")
    options.add_argument("--tokens", type=numbers, default=[32, 128], metavar="32,128", help="tokens per row")
    options.add_argument("--threads", type=number, default=1, metavar="1", help="threads of every runtime")
    options.add_argument(
        "--device", default="", metavar="cpu,cuda", help="where to run, by default on all that the machine has"
    )
    options.add_argument("--json", action="store_true", help="print JSON instead of a table")
    return options


def timings(rows: Sequence[Mapping[str, Any]]) -> Iterator[dict[str, Any]]:
    """Yield the columns of each timing; variant and copies have one where a device tells them apart."""
    every = [(row, timing) for row in rows for timing in row["latency"]]
    told = [name for name in ("variant", "copies") if any(name in timing for _, timing in every)]
    for row, timing in every:
        shown: dict[str, Any] = {"path": row["path"], "runtime": row["runtime"], "device": timing["device"]}
        shown |= {name: timing.get(name, "") for name in told}
        yield shown | {name: timing[name] for name in ("batch", "tokens", "median_ms", "p90_ms", "p99_ms")}


def main(argv: Sequence[str]) -> int:
    """``compress bench``: measure latency."""
    options = parser().parse_intermixed_args(argv)

    with stopping_at_once():
        from compress.run.bench import bench_paths

    paths = [Path(path).expanduser() for path in distinct(options.paths, note)]
    devices = [name for name in options.device.split(",") if name]
    rows = bench_paths(paths, options.batch, options.tokens, options.threads, devices)
    if options.json:
        print(json.dumps(rows, indent=2))
    else:  # a line for each batch size and length
        for reason in dict.fromkeys(row["not_measured"] for row in rows if "not_measured" in row):
            note(reason)
        table(list(timings(rows)))
    return 0
