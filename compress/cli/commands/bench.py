"""``compress bench``: measure latency."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from compress.cli.output import shown, table
from compress.cli.parser import FOLDERS, Parser, number, numbers
from compress.errors import CompressError
from compress.run.names import as_lasting, distinct, given_path
from compress.starting import importing
from compress.telling import warn


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
    options.add_argument(
        "--tokens", type=numbers, metavar="32,128", help="tokens per row; by default no more than the models take"
    )
    options.add_argument("--threads", type=number, default=1, metavar="1", help="threads of every runtime")
    options.add_argument(
        "--device", default="", metavar="cpu,cuda", help="where to run, by default on all that the machine has"
    )
    options.add_argument(
        "--again", action="store_true", help="time a run's models as the run did, and write that into its report"
    )
    options.add_telling()
    return options


def timings(rows: Sequence[Mapping[str, Any]]) -> Iterator[dict[str, Any]]:
    """Yield the columns of each timing; variant and copies have one where a device tells them apart."""
    every = [(row, timing) for row in rows for timing in row["latency"]]
    told = [name for name in ("variant", "copies") if any(name in timing for _, timing in every)]
    for row, timing in every:
        shown: dict[str, Any] = {"path": row["path"], "runtime": row["runtime"], "device": timing["device"]}
        shown |= {name: timing.get(name, "") for name in told}
        shown |= {name: timing[name] for name in ("batch", "tokens")}
        yield shown | {name: timing.get(name, "–") for name in ("median_ms", "p90_ms", "p99_ms")}


def failures(rows: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """Yield why paths and single timings have no figures, each reason once."""
    reasons: dict[str, list[str]] = {}
    for row in rows:
        if "not_measured" in row:
            reasons.setdefault(row["not_measured"], [])
        for timing in row["latency"]:
            if "not_measured" in timing:
                name = ", ".join(filter(None, (row["path"], timing.get("variant", ""))))
                cell = f"{name}, {timing['batch']} × {timing['tokens']} tokens on {timing['device']}"
                cells = reasons.setdefault(timing["not_measured"], [])
                cells += [] if cell in cells else [cell]  # with copies and without
    for reason, cells in reasons.items():
        yield f"Not measured: {'; '.join(cells)}: {reason}" if cells else reason


def _again(options: Namespace) -> int:
    with importing():
        from compress.cli import compose
        from compress.cli.running import shown_report
        from compress.cli.words import quoted
        from compress.run.again import measure_again

    usual = parser().parse_args(["RUN"])
    changed = [f"--{name}" for name in ("batch", "tokens", "threads", "device") if _differs(name, usual, options)]
    if len(options.paths) != 1 or changed:
        raise CompressError("--again takes one run and no other options: it measures as the run did.")
    folder = as_lasting(given_path(options.paths[0]))
    if not (folder / "recipe.yaml").is_file():
        raise CompressError(f"{folder}: is not a finished run: recipe.yaml is missing. Name the folder of a run.")
    recipe = compose.compose([f"recipe={quoted(str(folder / 'recipe.yaml'))}"], trusted=False)
    shown_report(measure_again(folder, recipe), folder)
    return 0


def _differs(name: str, usual: Namespace, options: Namespace) -> bool:
    return bool(getattr(usual, name) != getattr(options, name))


def main(argv: Sequence[str]) -> int:
    """``compress bench``: measure latency."""
    options = parser().parse_intermixed_args(argv)

    if options.again:
        return _again(options)
    with importing():
        from compress.run.bench import bench_paths

    paths = [Path(path).expanduser() for path in distinct(options.paths, warn)]
    devices = [name for name in options.device.split(",") if name]
    rows = bench_paths(paths, options.batch, options.tokens, options.threads, devices)
    for reason in failures(rows):
        warn(reason)
    shown(lambda: table(list(timings(rows))), timings=rows)  # a line for each batch size and length
    return 0
