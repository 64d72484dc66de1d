"""Reports of a run: report.json, and from that alone Markdown, a page and the model card.

`report_texts` makes them; `load_report` reads one back. The writers stand in modules of their own: `table` for the
terminal, `markdown`, `html`, `card`, and `compare` for several runs.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from compress.files import json_text
from compress.report.document import clean, load_report

__all__ = ["load_report", "report_texts"]


def report_texts(report: Mapping[str, Any]) -> dict[str, str]:
    """Return the contents of report.html, report.md and report.json, by their names."""
    from compress.report.html import to_html  # draws: costs a second to import, which `compress recipes` need not pay
    from compress.report.markdown import to_markdown

    document = clean(report)
    return {
        "report.html": to_html(document),
        "report.md": to_markdown(document),
        "report.json": json_text(document),
    }
