"""Other people's modules: chosen by name, written to recipe.yaml, refused where nobody asked for them."""

from __future__ import annotations

import math
import re
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from compress.cli import compose
from compress.cli.export import recipe_for
from compress.errors import RecipeError
from compress.plugins import ENTRY_POINTS, REGISTRIES, use
from compress.registry import GROUPS, loaded, register
from compress.run.recipe import Recipe
from compress.run.recipe_yaml import to_yaml

PLUGIN = """
from dataclasses import dataclass
from compress.distill.losses import SoftTargets
from compress.distill.losses import register as register_loss
from compress.registry import register
from compress.student.bert import Bert

@register_loss("sharp")
@dataclass(kw_only=True)
class Sharp(SoftTargets):
    \"\"\"Soft targets, sharpened.\"\"\"
    sharpness: float = 2.0

@dataclass(kw_only=True)
class Tall(Bert):
    \"\"\"A tall student.\"\"\"
    height: int = 3

register("student", "tall", Tall)
register("prune", "lazy", "tall_losses.prunings:Lazy")
"""
PRUNING = """
from dataclasses import dataclass
from compress.prune.heads import PruneHeads

@dataclass(kw_only=True)
class Lazy(PruneHeads):
    \"\"\"Imported when it is used.\"\"\"
"""


@pytest.fixture(autouse=True)
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A package in the current folder; what it registers is forgotten afterwards."""
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "tall_losses"
    folder.mkdir()
    (folder / "__init__.py").write_text(PLUGIN)
    (folder / "prunings.py").write_text(PRUNING)
    (tmp_path / "idle_module.py").write_text("import json\n")
    (tmp_path / "broken_module.py").write_text("import no_such_package\n")
    tables = [options._named for options in GROUPS.values()] + [loaded(registry) for registry in REGISTRIES]
    before = [dict(table) for table in tables]
    yield folder
    for table, names in zip(tables, before, strict=True):
        for name in set(table) - set(names):
            del table[name]  # type: ignore[attr-defined]
    for name in [name for name in sys.modules if name.split(".")[0] in {"tall_losses", "idle_module", "my_losses"}]:
        del sys.modules[name]


WORDS = ["uses=[tall_losses]", "student=tall", "student.height=4", "distill.losses=[sharp]", "prune=[lazy]"]


def test_words_choose_what_a_module_registers_and_recipe_yaml_repeats_it(tmp_path: Path) -> None:
    recipe = compose.compose(WORDS[::-1])  # in any order
    assert (recipe.uses, recipe.student.height) == (["tall_losses"], 4)
    assert recipe.distill.losses["sharp"].sharpness == 2.0
    text = to_yaml(recipe)
    assert "known to Python only" not in text
    (tmp_path / "again.yaml").write_text(text)
    again = compose.compose(["recipe=again.yaml"])
    assert replace(again, recipe=recipe.recipe) == recipe


def test_the_example_of_the_page_on_extending_is_a_loss_that_a_recipe_trains_with(tmp_path: Path) -> None:
    page = (Path(__file__).parents[1] / "docs" / "extending.md").read_text()
    (module,) = re.findall(r"^```python\n(.*?)^```$", page, re.M | re.S)
    (recipe,) = re.findall(r"^```yaml\n(.*?)^```$", page, re.M | re.S)
    (tmp_path / "my_losses.py").write_text(module)
    (tmp_path / "own.yaml").write_text(recipe)
    losses = compose.compose(["recipe=own.yaml"]).distill.losses
    assert (list(losses), losses["jensen_shannon"].weight) == (["hard", "jensen_shannon"], 4.0)
    loss = sys.modules["my_losses"].jensen_shannon_loss
    certain = torch.tensor([[90.0, 0.0], [0.0, 90.0]]).double()
    assert float(loss(certain, certain.flip(-1) / 9)) == pytest.approx(math.log(2), rel=1e-3)
    assert float(loss(certain / 30, certain / 30)) == pytest.approx(0.0, abs=1e-12)


def test_a_recipe_file_that_the_user_names_may_use_modules(tmp_path: Path) -> None:
    (tmp_path / "recipes").mkdir()
    text = "# @package _global_\nuses: [tall_losses]\ndefaults:\n  - override /student: tall\nstudent: {height: 5}\n"
    (tmp_path / "recipes" / "own.yaml").write_text(text)
    assert compose.compose(["recipe=own"]).student.height == 5


@pytest.mark.parametrize("beside", ["config.json", "train.tsv", None])
def test_a_recipe_in_the_folder_of_a_model_or_of_data_may_not(beside: str | None, tmp_path: Path) -> None:
    folder = tmp_path / "downloaded"
    folder.mkdir()
    (folder / "recipe.yaml").write_text("uses: [tall_losses]\n")
    words = ["recipe=downloaded/recipe.yaml"]
    if beside:
        (folder / beside).write_text("{}")
    if beside == "train.tsv":
        words += ["data=files", "data.train=downloaded/train.tsv"]
    elif beside is None:
        words += ["data=hub", "data.path=downloaded"]
    with pytest.raises(RecipeError) as caught:
        compose.compose(words)
    assert "downloaded/recipe.yaml:1: uses = ['tall_losses']: names code to import" in str(caught.value)
    assert "tall_losses" not in sys.modules


def test_export_of_a_folder_imports_nothing_that_the_folder_names(tmp_path: Path) -> None:
    run = tmp_path / "theirs"
    for name in ("stages/00-teacher", "student"):
        (run / name).mkdir(parents=True)
        (run / name / "config.json").write_text("{}")
    (run / "recipe.yaml").write_text("uses: [tall_losses]\n")
    with pytest.raises(RecipeError, match=r"names code to import.*uses=\[tall_losses\]"):
        recipe_for(str(run), [])
    assert "tall_losses" not in sys.modules
    assert recipe_for(str(run), ["uses=[tall_losses]"]).uses == ["tall_losses"]


@pytest.mark.parametrize(
    ("module", "message"),
    [
        ("no_such_module", "uses = 'no_such_module': cannot be imported (ModuleNotFoundError: No module named"),
        ("broken_module", "cannot be imported (ModuleNotFoundError: No module named 'no_such_package')"),
        ("idle_module", "uses = 'idle_module': registers nothing."),
        ("../evil", "is not the name of a module"),
    ],
)
def test_a_module_that_cannot_serve_is_one_fault(module: str, message: str) -> None:
    for _ in range(2):
        with pytest.raises(RecipeError) as caught:
            compose.compose([f"uses=['{module}']"])
        assert message in str(caught.value)
        assert "\n" not in str(caught.value)
    (fault,) = use([module])
    assert message in str(fault)


def test_python_names_modules_too(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="no_such_module"):
        Recipe(uses=["no_such_module"], cache=str(tmp_path / "cache")).run()


def test_an_installed_package_registers_by_its_entry_point(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    site = tmp_path / "site"
    (site / "tall-1.0.dist-info").mkdir(parents=True)
    (site / "tall-1.0.dist-info" / "METADATA").write_text("Metadata-Version: 2.1\nName: tall\nVersion: 1.0\n")
    points = site / "tall-1.0.dist-info" / "entry_points.txt"
    points.write_text(f"[{ENTRY_POINTS}]\ntall = tall_losses\n")
    monkeypatch.syspath_prepend(str(site))
    assert compose.compose(["student=tall"]).student.height == 3
    points.write_text(f"[{ENTRY_POINTS}]\ntall = no_such_module\n")
    with pytest.raises(
        RecipeError, match=r"the plugin tall of the package tall = 'no_such_module': cannot be imported"
    ):
        compose.compose([])


def test_a_name_stands_for_one_option() -> None:
    with pytest.raises(ValueError, match="there is an option 'bert' already"):
        register("student", "bert", "my:Bert")
    with pytest.raises(ValueError, match="there is no group 'studnet'"):
        register("studnet", "bert", "my:Bert")
