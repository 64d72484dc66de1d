"""The code of this package's model types, in one file beside their weights, for those who load them without `compress`.

transformers runs such a file only for ``trust_remote_code=True``, and never where the type is registered, as it
is with `compress` imported. The file is this package's own modules, joined: there is no second implementation.
"""

from __future__ import annotations

import ast
import importlib
import inspect
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from transformers import PreTrainedModel
from transformers.models.auto import modeling_auto

from compress.families.forms.form import Form
from compress.tasks.sentence_vectors import AutoModelForSentenceVectors, OfSentenceVectors

CODE = "modeling_compress.py"
_STEM = CODE.removesuffix(".py")
_PACKAGE = __name__.partition(".")[0]
_HEADER = f'''"""The model of this folder, for transformers on machines without `{_PACKAGE}`.

    {{auto}}.from_pretrained(folder, trust_remote_code=True)

Written by `{_PACKAGE}` from its own modules, which are joined here as they are. Licence: Apache-2.0.
"""

from __future__ import annotations
'''


def ship(model: PreTrainedModel, folder: Path) -> None:
    """Write `CODE` into the folder of a saved model, and into its config.json where transformers finds the classes.

    Nothing is written for a model of transformers' own types, nor for one of a family that another package defines:
    that package loads it, together with this one.
    """
    classes = own_classes(model)
    if type(model) not in classes or not _is_own(type(model).config_class.__module__) or _needs_another_package(model):
        return
    (folder / CODE).write_text(joined(classes), encoding="utf-8")
    path = folder / "config.json"
    config = json.loads(path.read_text(encoding="utf-8"))
    autos = {"AutoConfig": model.config_class} | dict.fromkeys(_autos_of(type(model)) or ["AutoModel"], type(model))
    config["auto_map"] = {auto: f"{_STEM}.{kind.__name__}" for auto, kind in autos.items() if kind is not None}
    path.write_text(json.dumps(config, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def without_shipped(config: Any) -> Any:
    """Return a configuration that does not name `CODE`: what is made from it has a type, and code, of its own."""
    if any(str(place).startswith(f"{_STEM}.") for place in (getattr(config, "auto_map", None) or {}).values()):
        del config.auto_map
    return config


def own_classes(model: PreTrainedModel) -> list[type[PreTrainedModel]]:
    """Return this package's model classes among a model and the models in it, the outermost first."""
    kinds = [type(part) for part in model.modules() if isinstance(part, PreTrainedModel)]
    return list(dict.fromkeys(kind for kind in kinds if kind.__module__.startswith(f"{_PACKAGE}.")))


def joined(classes: Sequence[type[PreTrainedModel]]) -> str:
    """Return the source of the modules that define these classes, with all that they import from this package.

    What stands at the top of a module keeps its name, so no two modules may use one for different things: that,
    and imports that cannot be left out, raise ValueError. The classes behind the first are registered with
    transformers, since the first builds its parts by their types.
    """
    modules: dict[str, ast.Module] = {}

    def visit(name: str) -> None:
        if name in modules:
            return
        tree = ast.parse(inspect.getsource(importlib.import_module(name)))
        for node in tree.body:
            if isinstance(node, ast.ImportFrom) and _is_own(node.module):
                visit(str(node.module))
        modules[name] = tree  # after all that it needs

    for kind in classes:
        visit(kind.__module__)
        if issubclass(kind, Form):
            visit(type(kind.family).__module__)
            if _is_own(kind.stock.__module__):
                visit(kind.stock.__module__)
    _check_names(modules)
    header = _HEADER.format(auto=next(iter(_autos_of(classes[0])), "AutoModel"))
    parts = [header, *(_body(name, tree) for name, tree in modules.items())]
    parts += [_made_again(kind) for kind in classes if issubclass(kind, Form)]
    if len(classes) > 1:
        parts.append(_registered(classes[1:]))
    return "\n\n".join(part.strip("\n") + "\n" for part in parts)


def _is_own(module: str | None) -> bool:
    return (module or "").partition(".")[0] == _PACKAGE


def _body(name: str, tree: ast.Module) -> str:
    """Return a module's source without its imports of this package and of the future."""
    lines = inspect.getsource(importlib.import_module(name)).splitlines()
    dropped = [
        node for node in tree.body if isinstance(node, ast.ImportFrom) and (_is_own(node.module) or _future(node))
    ]
    for node in ast.walk(tree):
        own = isinstance(node, ast.ImportFrom) and _is_own(node.module)
        own = own or (isinstance(node, ast.Import) and any(_is_own(alias.name) for alias in node.names))
        if own and (node not in dropped or any(alias.asname for alias in node.names)):
            raise ValueError(f"{name}: imports of {_PACKAGE} must stand at the top, as from … import, without as")
    gone = {line for node in dropped for line in range(node.lineno, (node.end_lineno or node.lineno) + 1)}
    kept = [line for number, line in enumerate(lines, start=1) if number not in gone]
    return f"# {name}\n" + "\n".join(kept)


def _future(node: ast.ImportFrom) -> bool:
    return node.module == "__future__"


def _check_names(modules: dict[str, ast.Module]) -> None:
    """Raise ValueError where a name at the top of one module is another thing at the top of another."""
    meaning: dict[str, str] = {}
    for module, tree in modules.items():
        for name, what in _names(module, tree):
            if name != "_" and meaning.setdefault(name, what) != what:
                raise ValueError(f"{name} is {meaning[name]} and {what}: they cannot be joined in one file")


def _names(module: str, tree: ast.Module) -> list[tuple[str, str]]:
    """Return each name that a module binds at its top, and what it stands for."""
    found: list[tuple[str, str]] = []
    for node in tree.body:
        if isinstance(node, ast.ImportFrom) and not _future(node):
            found += [(alias.asname or alias.name, f"{node.module}.{alias.name}") for alias in node.names]
        elif isinstance(node, ast.Import):
            found += [(alias.asname or alias.name, alias.name) for alias in node.names]
        elif isinstance(node, ast.FunctionDef | ast.ClassDef):
            found.append((node.name, f"{module}.{node.name}"))
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            names = [part.id for target in targets for part in ast.walk(target) if isinstance(part, ast.Name)]
            found += [(name, f"{module}.{name}") for name in names]
    return found


def _needs_another_package(model: PreTrainedModel) -> bool:
    return any(isinstance(part, Form) and not _is_own(type(part.family).__module__) for part in model.modules())


def _autos_of(kind: type[PreTrainedModel]) -> list[str]:
    """Return the names of transformers' `Auto` classes that load models of a class."""
    config_class = getattr(kind, "config_class", None)
    if config_class is None:
        return []
    autos: list[Any] = [auto for auto in vars(modeling_auto).values() if isinstance(auto, type)]
    mapped = [auto for auto in autos if getattr(auto, "_model_mapping", None) is not None]
    return [auto.__name__ for auto in mapped if auto._model_mapping.get(config_class, None) is kind]


def _made_again(kind: type[Form]) -> str:
    """Return the line that makes the class of a form."""
    family, form = kind.family, next(base for base in kind.__mro__[1:] if issubclass(base, Form))
    made = ""
    stock: Any = kind.stock
    if _is_own(stock.__module__):  # made of one of transformers'
        made, stock = f"{stock.__name__} = vectors_of({stock.derived_from.__name__})\n", stock.derived_from
    return (
        f"from {stock.__module__} import {stock.__name__}  # noqa: E402\n{made}"
        f"{form.__name__}.model_of(FAMILIES[{family.model_type!r}], {kind.stock.__name__})\n"
    )


def _registered(classes: Sequence[type[PreTrainedModel]]) -> str:
    lines = ["# the types of which the model is made", "from transformers import AutoConfig  # noqa: E402"]
    for kind in classes:
        config = f"{kind.__name__}.config_class"
        lines.append(f"AutoConfig.register({config}.model_type, {config}, exist_ok=True)")
        for auto in _autos_of(kind):
            lines.append(f"from transformers import {auto}  # noqa: E402")
            lines.append(f"{auto}.register({config}, {kind.__name__}, exist_ok=True)")
        if issubclass(kind, OfSentenceVectors):
            lines.append(f"{AutoModelForSentenceVectors.__name__}.register({config}, {kind.__name__}, exist_ok=True)")
    return "\n".join(lines)
