"""Check the English of the project: its pages, and the comments, docstrings and messages of its code.

python prose/check.py            everything; lists what to fix, and counts what is in folders not yet clean
python prose/check.py --all      lists those too

Harper (https://writewithharper.com) does the work: the rules of its own that pyproject.toml names, and the house rules
in `prose/rules`, each with examples that a test runs.
"""

from __future__ import annotations

import argparse
import ast
import io
import json
import re
import subprocess
import sys
import tempfile
import tokenize
import tomllib
import zipfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
RULES = Path(__file__).parent / "rules"
SETTINGS: dict[str, list[str]] = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["prose"]

DIRECTIVE = re.compile(r"#\s*(type:|noqa|fmt:|ruff:|mypy:|pragma|!|@package)")
SENTENCE = re.compile(r"[a-z]{2,} +[a-z]+ +[a-z]{2,}", re.I)  # what tells a message from a name or a format
CLAUSE = re.compile(r"(is|are|was|were|has|must) ")  # a fault's rule, whose subject is the setting
SHOWN = re.compile(r" *\S*: *[\[{]|   ")  # YAML that a comment shows
INSERTED = "`x`"  # stands for what an f-string inserts, and for the subject of a clause

Comment = tuple[int, bool, str]  # line, whether it fills the line, text


@dataclass(frozen=True)
class Passage:
    """Text that belongs together, and the line on which it starts."""

    line: int
    text: str


@dataclass(frozen=True, order=True)
class Finding:
    """One mistake: where, by which rule, and what the rule says."""

    path: Path
    line: int
    rule: str
    text: str
    message: str

    def __str__(self) -> str:
        """Return one line that an editor can follow."""
        return f"{self.path}:{self.line}: {self.rule}: {self.text!r}: {self.message}"


def passages(path: Path) -> list[Passage]:
    """Return the prose of a file: all of a page, the comments of YAML, the comments and texts of Python."""
    source = path.read_text(encoding="utf-8")
    if path.suffix == ".md":
        return [Passage(1, source)]
    if path.suffix == ".yaml":
        return list(_joined(_yaml_comments(source)))
    texts = Texts()
    texts.visit(ast.parse(source))
    return sorted([*texts.passages, *_joined(_comments(source))], key=lambda passage: passage.line)


class Texts(ast.NodeVisitor):
    """Collects docstrings, and all other strings that hold a sentence."""

    def __init__(self) -> None:
        self.passages: list[Passage] = []

    def visit_Constant(self, node: ast.Constant) -> None:
        """Keep a string; what is inserted into an f-string is not visited."""
        if isinstance(node.value, str):
            self._keep(node, node.value)

    def visit_JoinedStr(self, node: ast.JoinedStr) -> None:
        """Keep an f-string with a name for each value."""
        values = [part.value if isinstance(part, ast.Constant) else INSERTED for part in node.values]
        self._keep(node, "".join(map(str, values)))

    def _keep(self, node: ast.expr, text: str) -> None:
        if SENTENCE.search(text):
            text = re.sub(r"(?m)^[ \t]+", "", text)
            self.passages.append(Passage(node.lineno, f"{INSERTED} {text}" if CLAUSE.match(text) else text))


def _yaml_comments(source: str) -> Iterator[Comment]:
    for number, line in enumerate(source.splitlines(), 1):
        if (mark := re.search(r"(?:^|\s)#", line)) and not DIRECTIVE.search(line):
            text = line[mark.end() :].split("   compress run")[0]
            if not SHOWN.match(text):
                yield number, not line[: mark.start()].strip(), text.strip()


def _comments(source: str) -> Iterator[Comment]:
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT and not DIRECTIVE.match(token.string):
            yield token.start[0], not token.line[: token.start[1]].strip(), token.string.lstrip("#: ")


def _joined(comments: Iterable[Comment]) -> Iterator[Passage]:
    """Join comments that fill their lines, one below the other."""
    block: list[str] = []
    start = 0
    for line, alone, text in comments:
        if block and not (alone and line == start + len(block)):
            yield Passage(start, "\n".join(block))
            block = []
        if not alone:
            yield Passage(line, text)
            continue
        start = start if block else line
        block.append(text)
    if block:
        yield Passage(start, "\n".join(block))


def findings(files: Iterable[Path], root: Path = ROOT) -> list[Finding]:
    """Return what the rules find in files, in order; paths are relative to ``root``."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        lines: dict[str, tuple[Path, list[int]]] = {}
        for number, path in enumerate(files):
            texts, origins = [], []
            for passage in passages(path):
                text = passage.text.splitlines()
                texts += [*text, ""]
                origins += range(passage.line, passage.line + len(text) + 1)
            document = folder / f"{number}.md"
            document.write_text("\n".join(texts), encoding="utf-8")
            lines[document.name] = path.relative_to(root), origins
        found = []
        for document_name, lint in _lints(folder):
            path, origins = lines[document_name]
            line = origins[lint["line"] - 1]
            found.append(Finding(path, line, lint["rule"], lint["matched_text"], lint["message"]))
    return sorted(found)


def _lints(folder: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the name of a document and a lint of Harper's, for all documents of a folder."""
    pack = folder / "house.weirpack"
    manifest = {"author": "compress", "version": "1", "description": "House rules", "license": "Apache-2.0"}
    with zipfile.ZipFile(pack, "w") as archive:
        archive.writestr("manifest.json", json.dumps(manifest))
        for rule in sorted(RULES.glob("*.weir")):
            archive.write(rule, rule.name)
    command = [sys.executable, "-m", "harper", "lint", "--format", "json", "--quiet", "--weirpacks", str(pack)]
    house = [rule.stem for rule in RULES.glob("*.weir")]
    command += ["--only", ",".join([*house, *SETTINGS["harper_rules"]]), *sorted(map(str, folder.glob("*.md")))]
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    if not run.stdout:
        raise SystemExit(f"Harper failed:\n{run.stderr}")
    for document in json.loads(run.stdout):
        for lint in document["lints"]:
            yield Path(document["file"]).name, lint


def is_clean(path: Path) -> bool:
    """Return whether mistakes in this file, relative to the root, count; false in folders that are not clean yet."""
    return not any(path.is_relative_to(folder) for folder in SETTINGS["not_yet_clean"])


def main() -> int:
    """Print what is wrong and return 1 if anything is."""
    parser = argparse.ArgumentParser(description="Check the English of the project.")
    parser.add_argument("--all", action="store_true", help="list mistakes in folders that are not clean yet, too")
    options = parser.parse_args()
    files = sorted({path for pattern in SETTINGS["files"] for path in ROOT.glob(pattern)})
    found = findings(files)
    wrong = [finding for finding in found if is_clean(finding.path)]
    for finding in found if options.all else wrong:
        print(finding)
    print(f"{len(files)} files: {len(wrong)} to fix; {len(found) - len(wrong)} in folders that are not clean yet")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
