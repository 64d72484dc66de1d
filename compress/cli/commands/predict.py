"""``compress predict``: ask a model about texts."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence

from compress.cli.output import table
from compress.cli.parser import FOLDERS, Parser
from compress.run.names import given_path
from compress.starting import importing


def parser() -> Parser:
    """Return the options."""
    options = Parser(
        "predict",
        "PATH TEXT … [--pair TEXT …] [options]",
        "Predict labels or scores for texts, with a model or an artifact.",
    )
    options.add_completed(FOLDERS, "path", metavar="PATH", help="a run, or a student or artifact in it")
    options.add_argument("texts", nargs="*", metavar="TEXT", help="without any, the lines of standard input")
    options.add_argument(
        "--pair", action="append", metavar="TEXT", help="second text of a pair; once per TEXT, or several for one TEXT"
    )
    options.add_argument("--device", default="cpu", metavar="cpu", help="where to run: cpu or cuda")
    options.add_argument(
        "--decoding",
        default="",
        metavar="WAY",
        help="of tags: likeliest for each word (default), or viterbi for the row",
    )
    options.add_argument("--json", action="store_true", help="print JSON instead of a table")
    return options


def main(argv: Sequence[str]) -> int:
    """``compress predict``: ask a model about texts."""
    options = parser().parse_intermixed_args(argv)
    texts = options.texts or [line.rstrip("\n") for line in sys.stdin]
    if options.pair is not None and len(options.pair) != len(texts) != 1:
        parser().error(f"--pair is given {len(options.pair)} times for {len(texts)} texts")

    with importing():
        from compress.run.predict import predict as answers

    rows = answers(given_path(options.path), texts, options.pair, options.device, options.decoding)
    if options.json:
        print(json.dumps(rows, indent=2, ensure_ascii=False))
    else:
        table(rows)
    return 0
