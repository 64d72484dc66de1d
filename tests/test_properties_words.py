"""Whatever words and recipe files hold, they are composed or refused: soon, in words, with nothing written.

Each property is tried on 10 examples in every run and on 400 by the tests marked slow (`make test-all`).
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from compress.cli import compose
from compress.cli.composing import sweeps
from compress.describe import describe
from compress.errors import RecipeError
from compress.registry import GROUPS
from compress.run.recipe import Recipe
from compress.run.recipe_yaml import to_yaml
from compress.settings import all_faults
from tests.properties import FEW, MANY, NASTY_TEXTS, NUMBERS, TEXTS, refused_or_done

SETTINGS = [field.path for field in describe(Recipe)]
OPTIONS = [f"{group.replace('/', '.')}.{option}" for group in GROUPS for option in GROUPS[group]]
HYDRAS = ["hydra", "hydra/launcher", "hydra.launcher.x", "+hydra.callbacks.x", "hydra.sweeper.max_batch_size"]
SPECIALS = ["_target_", "_partial_", "_args_", "<<", "defaults", "hydra", "recipe", "a.b", "override /prune"]


@pytest.fixture(autouse=True, scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder of its own; data and models are not looked at."""

    def check(recipe: Recipe, *, refused: bool = False) -> None:
        if faults := list(all_faults(recipe)):
            raise RecipeError(faults)

    place = tmp_path_factory.mktemp("words")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(compose, "check", check)
        patch.chdir(place)
        yield place


def bracketed(inner: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    lists = st.lists(inner, max_size=4)
    return st.one_of(
        lists.map(lambda some: f"[{','.join(some)}]"),
        lists.map(",".join),
        lists.map(lambda some: "{" + ",".join(f"k{n}: {item}" for n, item in enumerate(some)) + "}"),
        lists.map(lambda some: f"choice({','.join(some)})"),
        inner.map(lambda value: f"'{value}'"),
    )


KEYS = st.one_of(
    st.sampled_from([*SETTINGS, *OPTIONS, *GROUPS, *HYDRAS, "recipe"]),
    st.sampled_from(SETTINGS).map(lambda path: f"{path}.x"),
    TEXTS,
)
SCALARS = st.one_of(TEXTS, NUMBERS.map(lambda number: str(number)[:4000]), st.sampled_from(OPTIONS))
RANGES = st.tuples(NUMBERS, NUMBERS, NUMBERS).map(lambda ends: f"range({','.join(str(end)[:400] for end in ends)})")
VALUES = st.one_of(st.recursive(SCALARS, bracketed, max_leaves=6), RANGES, st.just("interval(0,1)"), st.just("glob(*)"))
WORDS = st.lists(
    st.tuples(st.sampled_from(["", "", "", "+", "++", "~"]), KEYS, st.sampled_from(["=", "=", "=", ""]), VALUES).map(
        "".join
    ),
    min_size=1,
    max_size=4,
)


def known_or(keys: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    return st.one_of(st.sampled_from(sorted({part for path in SETTINGS for part in path.split(".")})), keys)


LEAVES = st.one_of(st.none(), st.booleans(), NUMBERS, TEXTS.filter(lambda text: "\ud800" not in text))
TREES: st.SearchStrategy[Any] = st.recursive(
    LEAVES,
    lambda inner: st.one_of(
        st.lists(inner, max_size=4),
        st.dictionaries(known_or(st.sampled_from(SPECIALS)), inner, max_size=4),
        st.lists(inner, min_size=1, max_size=1).map(lambda value: [value[0], value[0]]),  # an alias, where it is a list
    ),
    max_leaves=12,
)
FILES = st.one_of(
    st.dictionaries(known_or(st.sampled_from(SPECIALS)), TREES, max_size=5).map(
        lambda tree: yaml.safe_dump(tree, allow_unicode=True)
    ),
    st.text(alphabet="seed: \n\t-[]{}&*!|>'\"#%@`,?1a\0\x85", max_size=60),
    st.lists(st.sampled_from(["seed: 1", "  - a", "? b", ": c", "<<: *a", "&a x: *a", "---", "!!int x: 1", "d: |"]))
    .map("\n".join),
    NASTY_TEXTS.map(lambda text: f"seed: {text}"),
    NASTY_TEXTS,
)  # fmt: skip


def try_words(words: list[str], folder: Path) -> None:
    refused_or_done(lambda: compose.compose(words), folder)


def try_sweep(words: list[str], folder: Path) -> None:
    refused_or_done(lambda: sweeps.combinations(words), folder)


def try_file(text: str, folder: Path) -> None:
    (folder / "own.yaml").write_bytes(text.encode("utf-8", errors="surrogatepass"))
    refused_or_done(lambda: compose.compose(["recipe=own.yaml"]), folder)


@FEW
@given(words=WORDS)
def test_any_words(words: list[str], folder: Path) -> None:
    try_words(words, folder)


@FEW
@given(words=WORDS)
def test_any_sweep(words: list[str], folder: Path) -> None:
    try_sweep(words, folder)


@FEW
@given(text=FILES)
def test_any_recipe_file(text: str, folder: Path) -> None:
    try_file(text, folder)


LABELS = st.dictionaries(st.text("aN01.:,'\"{}[]()#&*!-_ <=~%@\\é\n", max_size=6), st.text("a1.:,'\"{# é", max_size=4))


def try_labels(labels: dict[str, str], folder: Path) -> None:
    """Any labels come back from a word and from the file that it leads to."""
    recipe = compose.compose([f"data.labels={json.dumps(labels)}"])
    assert dict(recipe.data.labels) == labels
    (folder / "own.yaml").write_text(to_yaml(recipe))
    assert compose.compose(["recipe=own.yaml"]) == recipe


@settings(FEW, max_examples=5)
@given(labels=LABELS)
def test_any_labels(labels: dict[str, str], folder: Path) -> None:
    try_labels(labels, folder)


@pytest.mark.slow
@MANY
@given(labels=LABELS)
def test_many_labels(labels: dict[str, str], folder: Path) -> None:
    try_labels(labels, folder)


@pytest.mark.slow
@MANY
@given(words=WORDS)
def test_many_words(words: list[str], folder: Path) -> None:
    try_words(words, folder)


@pytest.mark.slow
@MANY
@given(words=WORDS)
def test_many_sweeps(words: list[str], folder: Path) -> None:
    try_sweep(words, folder)


@pytest.mark.slow
@MANY
@given(text=FILES)
def test_many_recipe_files(text: str, folder: Path) -> None:
    try_file(text, folder)
