"""The shape of the house: what may import what, and where outside packages are known."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "compress"
ROOMS = (
    "data",
    "teachers",
    "augment",
    "student",
    "distill",
    "prune",
    "quantize",
    "export",
    "exits",
    "benchmark",
    "report",
)
"""The order of a recipe's fields; a later room may import an earlier one, never the other way."""


FILES = sorted(PACKAGE.rglob("*.py"))
MODULES = {
    ".".join(("compress", *path.relative_to(PACKAGE).with_suffix("").parts)).removesuffix(".__init__"): path
    for path in FILES
}


def imports(path: Path) -> set[str]:
    """Return the modules that a file imports, anywhere in it but for type checkers."""
    modules: set[str] = set()
    waiting: list[ast.AST] = [ast.parse(path.read_text())]
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.If) and getattr(node.test, "id", "") == "TYPE_CHECKING":
            waiting += node.orelse
            continue
        if isinstance(node, ast.ImportFrom) and node.module:
            within = {f"{node.module}.{alias.name}" for alias in node.names} & MODULES.keys()
            modules |= within or {node.module}
        elif isinstance(node, ast.Import):
            modules |= {alias.name for alias in node.names}
        waiting += ast.iter_child_nodes(node)
    return modules


def room(module: str) -> str | None:
    """Return the room of a module of this package; None for the ground that all rooms stand on."""
    parts = module.split(".")
    return parts[1] if len(parts) > 1 and parts[0] == "compress" and parts[1] in ROOMS else None


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_nothing_flows_back(path: Path) -> None:
    own = room("compress." + ".".join(path.relative_to(PACKAGE).with_suffix("").parts))
    if own is None:
        return
    later = {name for name in map(room, imports(path)) if name and ROOMS.index(name) > ROOMS.index(own)}
    assert not later


GROUND = (
    "errors",
    "known",
    "settings",
    "progress",
    "files",
    "markdown",
    "machine",
    "mapped",
    "describe",
    "hub_access",
    "interruption",
    "processes",
    "plugins",
    "registry",
    "starting",
    "leases",
    "telling",
    "usage",
    "team",
    "auto_classes",
    "runs",
    "yaml_dialect",
    "tasks",
    "tensors",
    "wording",
    "pipeline",
    "train",
    "models",
    "families",
    "onnx",
    "runtimes",
)
ALLOWED = {
    "pipeline": {"data"},
    "models": {"data"},
    "runtimes": {"data"},
}  # the rows of a run, which everything is about


@pytest.mark.parametrize("name", GROUND)
def test_the_ground_does_not_stand_on_the_rooms(name: str) -> None:
    place = PACKAGE / name
    for path in place.rglob("*.py") if place.is_dir() else [place.with_suffix(".py")]:
        assert {found for found in map(room, imports(path)) if found} <= ALLOWED.get(name, set()), path


def test_no_modules_import_each_other() -> None:
    graph = {name: imports(path) & MODULES.keys() for name, path in MODULES.items()}
    reached: dict[str, set[str]] = {}
    for name in graph:
        reached[name], waiting = set(), [name]
        while waiting:
            new = graph[waiting.pop()] - reached[name]
            reached[name] |= new
            waiting += new
    assert sorted(name for name in graph if name in reached[name]) == []


LAYERS = ("the ground", "a room", "run", "search", "cli")
"""Each imports those before it, never one behind it."""


def layer(module: str) -> int:
    """Return the layer of a module of this package by its place in `LAYERS`."""
    part = f"{module}.".split(".")[1]
    return LAYERS.index(part) if part in LAYERS else LAYERS.index("a room") if part in ROOMS else 0


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_a_layer_imports_none_above_it(path: Path) -> None:
    if path.name in {"__init__.py", "__main__.py"} and path.parent == PACKAGE:
        return  # the doors: they lead to every layer
    own = next(name for name, place in MODULES.items() if place == path)
    above = {name for name in imports(path) & MODULES.keys() if layer(name) > max(layer(own), LAYERS.index("a room"))}
    assert not above


@pytest.mark.parametrize(
    ("package", "home"),
    [
        ("hydra", {f"cli/composing/{name}.py" for name in ("composition", "grammar", "piecewise", "sweeps")}),
        ("omegaconf", {f"cli/composing/{name}.py" for name in ("composition", "instead", "piecewise", "sweeps")}),
        ("onnxscript", {"onnx/graph.py"}),
        ("jieba", {"data/jieba_words.py"}),
        ("mlflow", {"train/tracking/mlflow.py"}),
        ("trackio", {"train/tracking/trackio.py"}),
        ("wandb", {"train/tracking/wandb.py"}),
        ("spacy", {"augment/tagger.py"}),
        ("tensorrt", {"runtimes/tensorrt_bindings.py"}),
        ("tensorrt_rtx_bindings", {"runtimes/tensorrt_bindings.py"}),
        ("torch_pruning", {"prune/width.py"}),
        ("bitsandbytes", {"quantize/bitsandbytes.py"}),
    ],
)
def test_a_package_is_known_in_one_place(package: str, home: set[str]) -> None:
    users = {
        str(path.relative_to(PACKAGE)) for path in FILES if any(name.split(".")[0] == package for name in imports(path))
    }
    assert users == home


def test_losses_know_no_path_and_no_hub() -> None:
    for path in (PACKAGE / "distill" / "losses").glob("*.py"):
        assert not imports(path) & {"pathlib", "os", "huggingface_hub", "hydra", "datasets"}


@pytest.mark.parametrize(
    ("folder", "shared"),
    [
        ("distill/losses", {"base", "mean_over", "tensors"}),
        ("prune/criteria", {"base", "slopes"}),
        ("prune/methods", {"base", "while_training"}),
    ],
)
def test_a_loss_criterion_or_method_is_one_file_with_the_name_it_is_registered_by(
    folder: str, shared: set[str]
) -> None:
    for path in sorted((PACKAGE / folder).glob("*.py")):
        if path.stem in {"__init__", *shared}:
            continue
        classes = [node for node in ast.parse(path.read_text()).body if isinstance(node, ast.ClassDef)]
        decorators = [ast.unparse(decorator) for node in classes for decorator in node.decorator_list]
        assert [name for name in decorators if name.startswith("register(")] == [f"register('{path.stem}')"], path


def test_no_quantity_or_criterion_is_named_by_what_works_with_all_of_them() -> None:
    for name in ("distill/objective.py", "distill/stage.py", "distill/source.py", "prune/rounds.py"):
        source = (PACKAGE / name).read_text()
        assert not re.search(r"\b(HIDDEN|SCORES|QUERIES|KEYS|VALUES|RELATIONS)\b", source), name
        assert not re.search(r"\"(fisher|molchanov|magnitude|activation|loss)\"", source), name


def test_no_class_name_has_two_meanings() -> None:
    """Triton asks for the name of the classes in the files that are copied into its repositories."""
    places: dict[str, list[str]] = {}
    for path in FILES:
        for node in ast.parse(path.read_text()).body:
            if isinstance(node, ast.ClassDef) and node.name != "TritonPythonModel":
                places.setdefault(node.name, []).append(str(path.relative_to(PACKAGE)))
    assert {name: files for name, files in places.items() if len(files) > 1} == {}


BESIDE = sorted(path for name in ("benchmarks", "examples", "tests") for path in (PACKAGE.parent / name).rglob("*.py"))


@pytest.mark.parametrize("path", [*FILES, *BESIDE], ids=lambda path: str(path.relative_to(PACKAGE.parent)))
def test_names_say_what_they_name(path: Path) -> None:
    bound = [
        (name, node.lineno)
        for node in ast.walk(ast.parse(path.read_text()))
        for name, is_bound in (
            (getattr(node, "id", None), isinstance(getattr(node, "ctx", None), ast.Store)),
            (getattr(node, "arg", None), isinstance(node, ast.arg)),
            (getattr(node, "name", None), isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)),
        )
        if is_bound and name in ("one", "said")
    ]
    assert bound == []


PICKLED = {
    "models/sending.py": "what the first process of a run hands to its own helpers: of a private folder, by its digest"
}
"""Files that may load pickles, and why."""


def test_no_pickle_is_loaded() -> None:
    for path in (path for path in FILES if str(path.relative_to(PACKAGE)) not in PICKLED):
        source = path.read_text()
        assert "torch.load" not in source, path
        assert "allow_pickle=True" not in source, path
        assert not imports(path) & {"pickle", "joblib", "dill"}, path


FORCED = {
    "models/bilstm.py": "the class's name is part of saved folders, and the file is shipped with the weights",
    "models/cnn.py": "the class's name is part of saved folders, and the file is shipped with the weights",
    "models/ensemble.py": "the class's name is part of saved folders, and the file is shipped with the weights",
    "models/multi_task.py": "the class's name is part of saved folders, and the file is shipped with the weights",
    "models/segments.py": "it is shipped with the weights, and there has transformers' own loss",
    "models/static.py": "the class's name is part of saved folders, and the file is shipped with the weights",
    "models/registration.py": "it names those classes",
    "student/bilstm.py": "it names such a class",
    "student/cnn.py": "it names such a class",
    "student/static.py": "it names such a class",
    "distill/heads.py": "it names such a class",
    "distill/multi_task.py": "it names such a class",
}
"""Files that may know what is predicted, and why."""


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_only_the_tasks_know_what_is_predicted(path: Path) -> None:
    name = str(path.relative_to(PACKAGE))
    if name.startswith("tasks/") or name in FORCED:
        return
    knowledge = (
        r"TaskKind|For(Sequence|Token)Classification|num_labels|problem_type|dtype\.kind|logits\[:, 0\]"
        r"|shape\[(-1|1)\] == 1\b|isinstance\([^)]*\b(Classification|Regression)\b"
    )
    found = [line.strip() for line in path.read_text().splitlines() if re.search(knowledge, line)]
    assert not found


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_only_families_know_families(path: Path) -> None:
    """No comparison with a model type, and no table by model types, outside the folder of the families."""
    if path.is_relative_to(PACKAGE / "families"):
        return
    for node in ast.walk(ast.parse(path.read_text())):
        assert not (isinstance(node, ast.Constant) and node.value in ("roberta", "electra", "distilbert", "mobilebert"))
        if isinstance(node, ast.Compare):
            sides = [node.left, *node.comparators]
            assert not any(isinstance(side, ast.Attribute) and side.attr == "model_type" for side in sides), node.lineno
        if isinstance(node, ast.Attribute) and node.attr in ("startswith", "endswith", "removeprefix"):
            assert not (isinstance(node.value, ast.Attribute) and node.value.attr == "model_type"), node.lineno
