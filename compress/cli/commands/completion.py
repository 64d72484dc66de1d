"""``compress completion``: scripts with which a shell completes commands, options, recipes and choices."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from importlib import import_module

from compress.cli import recipe_paths
from compress.cli.commands import NAMES
from compress.cli.parser import Parser
from compress.registry import GROUPS, SEVERAL

SHELLS = ("bash", "zsh", "tcsh")
WORDS = "words"  # what the scripts ask for as they complete

PREAMBLE = {
    # "=" ends a word in bash: of recipe=qui only qui is completed
    "bash": """\
_compress_words() {
  local above=""
  if [[ "${COMP_WORDS[COMP_CWORD]}" == "=" ]]; then above="${COMP_WORDS[COMP_CWORD-1]}="
  elif [[ "${COMP_WORDS[COMP_CWORD-1]}" == "=" ]]; then above="${COMP_WORDS[COMP_CWORD-2]}="; fi
  local words="$(compress completion words 2>/dev/null | sed -n "s|^$above||p")"
  compgen -W "$words" -- "${1#=}"
}""",
    "zsh": """\
_compress_words() {
  compadd -S '' -- ${(f)"$(compress completion words 2>/dev/null)"}
}""",
    "tcsh": "",
}

MORE = """\
bash:  compress completion bash > ~/.local/share/bash-completion/completions/compress
zsh:   compress completion zsh > DIRECTORY_IN_FPATH/_compress
tcsh:  compress completion tcsh > FILE, and `source FILE` in ~/.tcshrc
"""


def parser() -> Parser:
    """Return the options."""
    options = Parser("completion", "bash|zsh|tcsh", "Print a completion script for your shell.", MORE)
    options.add_argument("shell", choices=(*SHELLS, WORDS), metavar="SHELL", help="bash, zsh or tcsh")
    return options


def main(argv: Sequence[str]) -> int:
    """Print the script."""
    shell = parser().parse_args(argv).shell
    if shell == WORDS:
        print("\n".join(words()))
        return 0
    from shtab import complete

    print(complete(_all_commands(), shell, preamble=PREAMBLE[shell]))
    return 0


def words() -> Iterator[str]:
    """Yield the words of `compress run` that choose: recipes, and options whose names are listed without imports."""
    yield from (f"recipe={name}" for name in recipe_paths.known())
    for group, options in GROUPS.items():
        if not options.shared:
            yield from (f"{group}=[{name}]" if group in SEVERAL else f"{group}={name}" for name in options)


def _all_commands() -> argparse.ArgumentParser:
    """Return one parser of the whole program."""
    program = argparse.ArgumentParser("compress")
    program.add_argument("--version", action="store_true")
    commands = program.add_subparsers()
    for name in NAMES[:-1]:  # all but this one, whose words are for the scripts
        options = import_module(f"compress.cli.commands.{name}").parser()
        commands.add_parser(name, parents=[options], add_help=False, help=options.description)
    shell = commands.add_parser("completion", help=parser().description)
    shell.add_argument("shell", choices=SHELLS)
    return program
