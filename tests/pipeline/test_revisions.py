"""Code that makes products does not change without their revision, or without being looked at."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.pipeline.sources import COMMAND, RECORDED, ROOT, Package, current, unrevised


def test_code_does_not_change_without_its_revision() -> None:
    package, recorded = Package(ROOT, "compress"), json.loads(RECORDED.read_text())
    changed = unrevised(package, recorded)
    told = "\n".join(f"  {kind}: {', '.join(places)}" for kind, places in changed.items())
    assert not changed, (
        f"The code of these kinds of products has changed, and their revision has not:\n{told}\n"
        'If the same settings can now give another result, raise the revision: Kind("…", revision=…). '
        f"Then, in either case, run {COMMAND} and commit {RECORDED.name} with the change."
    )
    assert recorded == current(package), f"Run {COMMAND} and commit {RECORDED.name} with the change."


def test_every_product_has_a_kind_of_its_own() -> None:
    modules = Package(ROOT, "compress").modules
    names = [kind for module in modules.values() for kind in module.kinds]
    assert len(names) == len(set(names)) > 30
    for path in (ROOT / "compress").rglob("*.py"):
        declared = path.read_text().count('Kind("')
        module = ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
        assert declared == len(modules[module].kinds), path


MAKER = '''"""Makes things."""
from toy.tools import SIZE, scaled
from toy.errors import ToyError

UNUSED = 1

def make(workshop):
    """Return a thing."""
    def work(folder):
        if not folder:
            raise ToyError("no folder")
        return scaled(SIZE)
    return workshop.make(Kind("thing", revision=1), [], work)
'''
TOOLS = '''SIZE = 3

def scaled(size):
    """Return twice the size."""
    return 2 * size  # of course

def other():
    return 1
'''


def toy(folder: Path, maker: str = MAKER, tools: str = TOOLS) -> Package:
    (folder / "toy").mkdir(exist_ok=True)
    for name, text in {
        "__init__": "",
        "maker": maker,
        "tools": tools,
        "errors": "class ToyError(Exception): pass",
    }.items():
        (folder / "toy" / f"{name}.py").write_text(text)
    return Package(folder, "toy")


@pytest.mark.parametrize(
    ("before", "after", "changed"),
    [
        ("return 2 * size", "return 3 * size", ["toy.tools:scaled"]),
        ("SIZE = 3", "SIZE = 4", ["toy.tools:SIZE"]),
        ("return scaled(SIZE)", "return scaled(SIZE) + 1", ["toy.maker:make"]),
        ("Return twice the size", "Twice the size", []),
        ("  # of course", "", []),
        ('ToyError("no folder")', 'ToyError("Name a folder.")', []),
        ("return 1", "return 2", []),  # not reached
        ("UNUSED = 1", "UNUSED = 2", []),
    ],
)
def test_what_counts_as_a_change(before: str, after: str, changed: list[str], tmp_path: Path) -> None:
    recorded = current(toy(tmp_path))
    assert before in MAKER + TOOLS
    now = toy(tmp_path, MAKER.replace(before, after), TOOLS.replace(before, after))
    assert unrevised(now, recorded) == ({"thing": changed} if changed else {})
    revised = toy(
        tmp_path, MAKER.replace(before, after).replace("revision=1", "revision=2"), TOOLS.replace(before, after)
    )
    assert unrevised(revised, recorded) == {}
    assert current(revised) != recorded
