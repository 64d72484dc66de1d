"""The prose linter finds what its rules are for, in every kind of file, and leaves plain English alone."""

from __future__ import annotations

import importlib.util
import re
import sys
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[1]
RULES = sorted((ROOT / "prose" / "rules").glob("*.weir"))


@pytest.fixture(scope="module")
def check() -> ModuleType:
    """The script, which is no part of the package."""
    spec = importlib.util.spec_from_file_location("prose_check", ROOT / "prose" / "check.py")
    module = sys.modules["prose_check"] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def examples(rule: Path) -> list[tuple[str, str]]:
    """Return the examples of a rule: a text, and what it becomes."""
    return re.findall(r'^test "(.*)" "(.*)"$', rule.read_text(), re.M)


def test_every_house_rule_catches_its_examples_and_no_more(check: ModuleType, tmp_path: Path) -> None:
    pages = {}
    for rule in RULES:
        for number, (text, corrected) in enumerate(examples(rule)):
            page = tmp_path / f"{rule.stem}-{number}.md"
            page.write_text(text)
            pages[page] = (rule.stem, text != corrected)
    assert {name for name, wrong in pages.values() if wrong} == {rule.stem for rule in RULES}
    found = {(finding.path.name, finding.rule) for finding in check.findings(pages, tmp_path)}
    assert {(page.name, name) for page, (name, _) in pages.items() if (page.name, name) in found} == {
        (page.name, name) for page, (name, wrong) in pages.items() if wrong
    }


PYTHON = '''\
"""Return how long it takes, in ms a row.

The second paragraph is fine.
"""

value = f"The path {__file__} is no file."  # mend that first


# This comment fills its line,
# and the head is trained anew.
RULE = "is no folder that can be read"
NAME, FORMAT = "no less than", "%s a row %s"
'''


def test_comments_docstrings_and_messages_of_python_are_read(check: ModuleType, tmp_path: Path) -> None:
    (tmp_path / "code.py").write_text(PYTHON)
    found = [(finding.line, finding.rule) for finding in check.findings([tmp_path / "code.py"], tmp_path)]
    assert found == [(1, "Per"), (6, "IsNo"), (6, "Mend"), (10, "Anew"), (11, "IsNo"), (12, "NoLessThan")]


def test_comments_of_recipes_are_read_and_settings_are_not(check: ModuleType, tmp_path: Path) -> None:
    (tmp_path / "recipe.yaml").write_text(
        "# @package _global_\n# Fit to mend.\na: mend # one head a task\n#   b: {mend: 1}\n"
    )
    found = [(finding.line, finding.rule) for finding in check.findings([tmp_path / "recipe.yaml"], tmp_path)]
    assert found == [(2, "Mend"), (3, "Per")]


def test_code_in_a_page_is_not_prose(check: ModuleType, tmp_path: Path) -> None:
    (tmp_path / "page.md").write_text("Use `mend it`.\n\n```\nmend that\n```\n\nThe the end.\n")
    found = [(finding.line, finding.rule) for finding in check.findings([tmp_path / "page.md"], tmp_path)]
    assert found == [(7, "RepeatedWords")]


def test_mistakes_in_folders_that_are_not_clean_yet_do_not_count(
    check: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(check.SETTINGS, "not_yet_clean", ["compress/report"])
    assert check.is_clean(Path("compress/reporting.py"))
    assert not check.is_clean(Path("compress/report/html.py"))
