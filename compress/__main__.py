"""Run the command line: ``python -m compress …`` and the command ``compress`` are the same program."""

from __future__ import annotations

import sys

from compress.starting import importing


def main() -> int:
    """Run the words that the program was started with and return its exit code."""
    with importing():
        from compress.cli.main import main as run
    return run()


if __name__ == "__main__":
    sys.exit(main())
