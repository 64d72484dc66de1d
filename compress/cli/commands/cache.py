"""``compress cache``: list what is kept of finished work, and remove parts of it."""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable, Sequence
from pathlib import Path

from compress.cli.output import table
from compress.cli.parser import FOLDERS, Parser
from compress.files import MIB
from compress.pipeline.cache import Cache, CacheEntry, age, open_cache
from compress.run.names import given_path
from compress.telling import say, warn

DEFAULT = "runs/.cache"  # that of recipes
SECONDS = {"m": 60, "h": 3600, "d": 86400, "w": 7 * 86400}
BYTES = {"MB": 10**6, "GB": 10**9, "TB": 10**12, "MiB": MIB, "GiB": 2**30, "TiB": 2**40}

MORE = """\
list     what is kept: a line per kind; with --all, a line per folder
prune    remove what --kind, --older-than and --max-size choose, least recently used first
empty    remove everything

Without --yes, prune and empty only list what they would remove. What a running process uses
stays, and so does everything that this program did not write. A run that needs a removed entry
makes it again; finished runs have their own copies and lose nothing.

examples:
  compress cache
  compress cache prune --older-than 30d
  compress cache prune --kind teacher_outputs --yes
  compress cache prune --max-size 20GB --yes
  compress cache empty --cache my/cache --yes
"""


def parser() -> Parser:
    """Return the options."""
    options = Parser("cache", "[list|prune|empty] [options]", "List, prune or empty the cache of finished work.", MORE)
    options.add_argument(
        "action", nargs="?", choices=("list", "prune", "empty"), default="list", metavar="ACTION",
        help="list, prune or empty; without it, list",
    )  # fmt: skip
    options.add_completed(FOLDERS, "--cache", default=DEFAULT, metavar="FOLDER", help=f"the cache, if not {DEFAULT}")
    options.add_argument("--kind", action="append", metavar="KIND", help="only this kind; can be given several times")
    options.add_argument("--older-than", type=_age, metavar="30d", help="only what was last used before: m, h, d or w")
    options.add_argument("--max-size", type=_size, metavar="20GB", help="remove only until the cache is this small")
    options.add_argument("--all", action="store_true", help="list every folder, with the runs that took it")
    options.add_argument("--yes", action="store_true", help="really remove")
    return options


def main(argv: Sequence[str]) -> int:
    """``compress cache``: list, prune or empty a cache."""
    command = parser()
    options = command.parse_intermixed_args(argv)
    listing = options.action == "list"
    if listing and (options.yes or options.older_than is not None or options.max_size is not None):
        command.error("--older-than, --max-size and --yes go with prune: compress cache prune …")
    if not listing and options.all:
        command.error("--all goes with list")
    chosen_by = (options.kind, options.older_than, options.max_size)
    if options.action == "prune" and all(choice is None for choice in chosen_by):
        command.error("prune needs --kind, --older-than or --max-size; `compress cache empty` removes everything")
    if options.action == "empty" and any(choice is not None for choice in chosen_by):
        command.error("empty removes everything; with --kind, --older-than or --max-size, use prune")
    cache = open_cache(given_path(options.cache, "--cache"))
    entries = cache.entries()
    if unknown := sorted({*(options.kind or ())} - {entry.kind for entry in entries}):
        kinds = ", ".join(sorted({entry.kind for entry in entries})) or "nothing"
        command.error(f"--kind {unknown[0]}: nothing of this kind is in the cache. It holds: {kinds}")
    if listing:
        _list([entry for entry in entries if options.kind is None or entry.kind in options.kind], each=options.all)
        return 0

    def chosen(entries: list[CacheEntry]) -> list[CacheEntry]:
        return choose(entries, options.kind, options.older_than, options.max_size)

    return _remove(cache, chosen(entries), chosen if options.yes else None)


def choose(
    entries: Sequence[CacheEntry], kinds: Sequence[str] | None, older_than: float | None, max_size: float | None
) -> list[CacheEntry]:
    """Return what to remove, least recently used first.

    ``older_than`` is in seconds. Where a ``max_size`` in bytes is given, as little as makes all that stays fit into it.
    """
    ordered = sorted(entries, key=lambda entry: entry.used)
    candidates = [
        entry
        for entry in ordered
        if (kinds is None or entry.kind in kinds) and (older_than is None or age(entry) > older_than)
    ]
    if max_size is None:
        return candidates
    left = sum(entry.size for entry in entries)
    chosen: list[CacheEntry] = []
    for entry in candidates:
        if left <= max_size:
            break
        if not entry.in_use:
            chosen.append(entry)
            left -= entry.size
    return chosen


def _list(entries: Sequence[CacheEntry], *, each: bool) -> None:
    """Print a line for each kind, or for each folder, the largest first."""
    groups = [[entry] for entry in entries]
    if not each:
        groups = [[entry for entry in entries if entry.kind == kind] for kind in {entry.kind for entry in entries}]
    rows = []
    for group in sorted(groups, key=lambda group: -sum(entry.size for entry in group)):
        runs = sorted({run for entry in group for run in entry.runs})
        states = {"in use" for entry in group if entry.in_use} | {"unfinished" for e in group if not e.finished}
        rows.append(
            {
                **({"folder": group[0].folder.name} if each else {"kind": group[0].kind, "number": len(group)}),
                "size": _shown_size(sum(entry.size for entry in group)),
                "last used": f"{_shown_age(min(map(age, group)))} ago",
                "state": ", ".join(sorted(states)),
                "runs": " ".join(map(_short, runs)) if each else len(runs),
            }
        )
    if rows:
        table(rows)
    print(f"{_folders(entries)}, {_shown_size(sum(entry.size for entry in entries))} on disk")


def _remove(
    cache: Cache, planned: Sequence[CacheEntry], chosen: Callable[[list[CacheEntry]], list[CacheEntry]] | None
) -> int:
    """Remove what is chosen, or say what would be."""
    if chosen is None:
        _list([entry for entry in planned if not entry.in_use], each=True)
        for entry in planned:
            if entry.in_use:
                say(f"{entry.folder.name} would stay: a running process uses it")
        print("Nothing was removed. Give the same command with --yes to remove these.")
        return 0
    removed, kept = cache.remove(chosen)
    for line in kept:
        warn(f"{line}; it stays")
    print(f"Removed {_folders(removed)}, {_shown_size(sum(entry.size for entry in removed))}.")
    return 0


def _folders(entries: Sequence[CacheEntry]) -> str:
    return "1 folder" if len(entries) == 1 else f"{len(entries)} folders"


def _age(text: str) -> float:
    parts = re.fullmatch(r"(\d{1,6})([mhdw])", text)
    if parts is None:
        raise argparse.ArgumentTypeError(f"{text[:20]!r} must be a whole number with m, h, d or w, as 30d")
    return float(int(parts[1]) * SECONDS[parts[2]])


def _size(text: str) -> float:
    parts = re.fullmatch(r"(\d{1,9}(?:\.\d{1,3})?) ?([MGT]i?B)", text)
    if parts is None:
        raise argparse.ArgumentTypeError(f"{text[:20]!r} must be a number with {', '.join(BYTES)}, as 20GB")
    return float(parts[1]) * BYTES[parts[2]]


def _shown_size(size: float) -> str:
    unit, bytes_ = next(((unit, n) for unit, n in (("GiB", 2**30), ("MiB", MIB)) if size >= n), ("KiB", 1024))
    return f"{size / bytes_:,.1f} {unit}"


def _shown_age(seconds: float) -> str:
    unit = next((unit for unit in ("d", "h", "m") if seconds >= SECONDS[unit]), None)
    return f"{seconds // SECONDS[unit]:.0f} {unit}" if unit else f"{seconds:.0f} s"


def _short(run: str) -> str:
    """Return the path of a run as it is seen from here."""
    here = Path.cwd()
    return str(Path(run).relative_to(here)) if Path(run).is_relative_to(here) else run
