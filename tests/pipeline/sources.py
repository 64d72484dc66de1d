"""The code that each kind of product depends on, as hashes; ``python -m tests.pipeline.sources`` writes them anew.

A kind depends on the definition in which it is declared, ``Kind("onnx", revision=1)``, and on all definitions of the
package that can be reached from there by name: functions, classes and values, over modules. So it does on the
subclasses of a class in which it is declared, and on the users of a constant that holds it. Who reaches a definition
of a folder in `OPEN` reaches that whole folder, for there objects choose what is run. Left out are modules that
bear no result (`WITHOUT_RESULT`), and, within definitions, what only speaks: docstrings, the arguments of what is
raised, and functions that give faults. What a product is made from enters its key, so how that was made is not looked
at again: a kind that takes a finished student does not depend on the code of distillation.
"""

from __future__ import annotations

import ast
import hashlib
import json
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[2]
RECORDED = Path(__file__).with_name("revisions.json")
COMMAND = "python -m tests.pipeline.sources"
OPEN = (
    "tasks",
    "families",
    "models.quantities",
    "distill.losses",
    "prune.criteria",
)  # folders in which a file can be added by its name
WITHOUT_RESULT = (
    "errors", "known", "settings", "files", "sealed", "progress", "interruption", "processes", "hub_access", "markdown",
    "machine", "describe", "registry", "choices", "pipeline", "report", "run", "cli", "data",
)  # fmt: skip

Place = tuple[str, str]
"""A definition: its module and name."""


@dataclass
class Module:
    """The definitions of a file, what it imports, and the kinds that it declares."""

    definitions: dict[str, list[ast.stmt]] = field(default_factory=dict)
    imports: dict[str, Place] = field(default_factory=dict)  # local name to module and name; "" is the module itself
    kinds: dict[str, tuple[int, str]] = field(default_factory=dict)  # name to revision and definition

    def is_class(self, name: str) -> bool:
        """Return whether a definition is that of a class."""
        return isinstance(self.definitions[name][0], ast.ClassDef)


class Package:
    """The modules of a package, parsed."""

    def __init__(self, root: Path, name: str) -> None:
        self.name = name
        self.modules = {}
        for path in sorted((root / name).rglob("*.py")):
            parts = path.relative_to(root).with_suffix("").parts
            module = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
            self.modules[module] = _read(ast.parse(path.read_text()))
        self._names = cache(self._names_in)

    def revisions(self) -> dict[str, int]:
        """Return the revision of each kind."""
        return {kind: number for module in self.modules.values() for kind, (number, _) in module.kinds.items()}

    def reached(self, kind: str) -> set[Place]:
        """Return the definitions on which a kind depends."""
        starts = [(name, m.kinds[kind][1]) for name, m in self.modules.items() if kind in m.kinds]
        starts += [place for start in list(starts) for place in self._users(start)]
        reached: set[Place] = set()
        while starts:
            place = starts.pop()
            if place not in reached and not self._left_out(place[0]):
                reached.add(place)
                starts += [*self._names(*place), *self._beside(place[0])]
        return reached

    def hash(self, place: Place) -> str:
        """Return a hash of a definition, without what only speaks."""
        body = ast.Module(self.modules[place[0]].definitions[place[1]], [])
        return hashlib.sha256(ast.dump(body).encode()).hexdigest()[:12]

    def _users(self, place: Place) -> Iterator[Place]:
        """Yield what makes a kind that is declared here: users of a constant, subclasses of a class."""
        for module, other in self.modules.items():
            for name, statements in other.definitions.items():
                if self.modules[place[0]].is_class(place[1]):
                    bases = [base for s in statements if isinstance(s, ast.ClassDef) for base in s.bases]
                    if place in [known for base in bases for known in self._resolved(module, ast.unparse(base))]:
                        yield module, name
                        yield from self._users((module, name))
                elif module == place[0] and place in self._names(module, name):
                    yield module, name

    def _left_out(self, module: str) -> bool:
        return any(f"{module}.".startswith(f"{self.name}.{part}.") for part in WITHOUT_RESULT)

    def _beside(self, module: str) -> Iterator[Place]:
        for part in OPEN:
            folder = f"{self.name}.{part}."
            if f"{module}.".startswith(folder):
                for name, other in self.modules.items():
                    if f"{name}.".startswith(folder):
                        yield from ((name, definition) for definition in other.definitions)

    def _names_in(self, module: str, definition: str) -> list[Place]:
        """Return the definitions that one names."""
        found: list[Place] = []
        for statement in self.modules[module].definitions[definition]:
            for node in ast.walk(statement):
                if isinstance(node, ast.Name):
                    found += self._resolved(module, node.id)
                elif isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
                    target = self.modules[module].imports.get(node.value.id)
                    if target is not None and target[1] == "":
                        found += self._resolved(target[0], node.attr)
        return found

    def _resolved(self, module: str, name: str) -> Iterator[Place]:
        """Yield the definition that a name stands for in a module, through what that module imports."""
        known = self.modules.get(module)
        if known is None:
            return
        if name in known.definitions:
            yield module, name
        elif name in known.imports:
            source, inner = known.imports[name]
            if inner:
                yield from self._resolved(source, inner)


def _read(tree: ast.Module) -> Module:
    module = Module()
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module:
            for alias in node.names:
                module.imports[alias.asname or alias.name] = node.module, alias.name
    for statement in tree.body:
        for name in _defined(statement):
            for node in ast.walk(statement):
                if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "Kind":
                    kind, revision = node.args[0], node.keywords[0].value
                    assert isinstance(kind, ast.Constant), "a kind's name is written out where it is declared"
                    assert isinstance(revision, ast.Constant)
                    module.kinds[str(kind.value)] = int(str(revision.value)), name
        silent = _Silent().visit(statement)
        for name in _defined(statement) if silent is not None else []:
            module.definitions.setdefault(name, []).append(silent)
    return module


def _defined(statement: ast.stmt) -> list[str]:
    """Return the names that a statement at the top of a module binds; "" stands for what is done there."""
    if isinstance(statement, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
        return [statement.name]
    if isinstance(statement, ast.Import | ast.ImportFrom):
        return []
    names = {node.id for node in ast.walk(statement) if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)}
    return sorted(names) or [""]


class _Silent(ast.NodeTransformer):
    """Takes out what only speaks, and the revisions themselves."""

    def visit_Expr(self, node: ast.Expr) -> ast.AST | None:
        return None if isinstance(node.value, ast.Constant) else self.generic_visit(node)

    def visit_Raise(self, node: ast.Raise) -> ast.AST:
        return ast.Raise(node.exc.func if isinstance(node.exc, ast.Call) else node.exc, None)

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.AST | None:
        if node.returns is not None and "Fault" in ast.unparse(node.returns):
            return None
        return self.generic_visit(node)

    def visit_Call(self, node: ast.Call) -> ast.AST:
        if isinstance(node.func, ast.Name) and node.func.id == "Kind":
            return ast.Call(node.func, node.args, [])
        return self.generic_visit(node)


def current(package: Package) -> dict[str, dict[str, str | int]]:
    """Return the revisions of all kinds, and the hashes of all definitions that any of them depends on."""
    revisions = package.revisions()
    places = set().union(*(package.reached(kind) for kind in revisions))
    return {
        "revisions": dict(sorted(revisions.items())),
        "definitions": {f"{module}:{name}": package.hash((module, name)) for module, name in sorted(places)},
    }


def unrevised(package: Package, recorded: Mapping[str, Mapping[str, str | int]]) -> dict[str, list[str]]:
    """Return the kinds whose code has changed and whose revision has not, each with what has changed."""
    before = recorded["definitions"]
    found = {}
    for kind, revision in package.revisions().items():
        if recorded["revisions"].get(kind) == revision:
            places = {f"{place[0]}:{place[1]}": package.hash(place) for place in package.reached(kind)}
            changed = sorted(name for name, now in places.items() if before.get(name) != now)
            if changed:
                found[kind] = changed
    return found


def main() -> None:
    """Write the hashes anew."""
    RECORDED.write_text(json.dumps(current(Package(ROOT, "compress")), indent=1) + "\n")
    print(f"written: {RECORDED.relative_to(ROOT)}", file=sys.stderr)


if __name__ == "__main__":
    main()
