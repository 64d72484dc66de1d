"""Text as Markdown that shows it as it is: names and labels are the user's, and may hold any signs."""

from __future__ import annotations

import re

_ACTIVE = re.compile(r"[\\`*|~$]|\](?=[(\[:])|^[\[#]|(?<![^\W_])_|_(?![^\W_])|^[+-](?= )|^-(?=--)|^=(?==)")
_NUMBERED = re.compile(r"^(\d+)([.)])(?= )")


def text(value: object) -> str:
    """Return ``value`` on one line, so that Markdown and HTML show it as it is."""
    line = re.sub(r"[ \t\r\n]+", " ", str(value)).strip(" ")
    line = line.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return _NUMBERED.sub(r"\1\\\2", _ACTIVE.sub(r"\\\g<0>", line))


def code(value: str) -> str:
    """Return ``value`` on one line as a code span, for use outside of tables, whose cells a pipe would end."""
    line = " ".join(value.split())
    fence = "`" * (1 + max(map(len, re.findall("`+", line)), default=0))
    space = " " if line.startswith("`") or line.endswith("`") else ""
    return f"{fence}{space}{line}{space}{fence}" if line else ""


def code_cell(value: str) -> str:
    """Return ``value`` as a code span in a table."""
    return code(value).replace("|", "\\|")
