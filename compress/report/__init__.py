"""Reports of a run: report.json, and from that alone Markdown, a page and the model card.

`write_report` writes them, `report_texts` returns their contents, `load_report` reads one back. The writers are in
modules of their own: `table` for the terminal, `markdown`, `html`, `card`, and `compare` for several runs.
"""

from __future__ import annotations

from pathlib import Path

from compress.files import json_text, write_text
from compress.report.document import load_report, plain
from compress.report.schema import Report

__all__ = ["Report", "load_report", "report_texts", "write_report"]


def write_report(report: Report, folder: Path) -> None:
    """Write report.json, report.md and report.html into ``folder``; each appears whole or not at all."""
    for name, text in report_texts(report).items():
        write_text(folder / name, text)


def report_texts(report: Report) -> dict[str, str]:
    """Return the contents of report.html, report.md and report.json, by their names."""
    from compress.report.html import to_html  # draws: costs a second to import, which `compress recipes` need not pay
    from compress.report.markdown import to_markdown

    return {
        "report.html": to_html(report),
        "report.md": to_markdown(report),
        "report.json": json_text(plain(report)),
    }
