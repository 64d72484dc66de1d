"""Recipes as Hydra composes them: what its store holds, and words composed onto the schema."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from typing import Any, get_args, get_origin

from hydra import compose as hydra_compose
from hydra import initialize_config_module
from hydra.core.config_store import ConfigStore
from hydra.core.global_hydra import GlobalHydra
from hydra.errors import HydraException
from omegaconf import MISSING, DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from compress.cli.command_line import CommandLine
from compress.cli.composing.grammar import parse
from compress.cli.words import Word
from compress.data import Hub
from compress.describe import hints
from compress.plugins import use_installed
from compress.registry import GROUPS, SEVERAL, is_open, registered
from compress.run.recipe import Recipe
from compress.run.recipe_yaml import chosen
from compress.settings import Settings

REFUSALS = (HydraException, OmegaConfBaseException, OverflowError)  # of Hydra; the last for a whole number as a float
PLACE = "compress.cli.composing"  # where Hydra looks for YAML beside what is stored; there is none
ROOT, SCHEMA, SWEEP = "compress", "compress_recipe", "compress_sweep"  # names in Hydra's store


def read(overrides: Sequence[str], *, sweep: bool = False, trusted: bool = True) -> CommandLine:
    """Read words, and store for Hydra what they name."""
    command = CommandLine(parse, sweep=sweep, trusted=trusted)
    command.refusals.faults += use_installed()
    command.read(overrides)
    _store_choices(registered())
    store = ConfigStore.instance()
    for name, choices in command.recipes.chosen.items():
        try:
            store.store(name, choices.node(), "recipe", "_global_")
        except OmegaConfBaseException as error:  # half a ${…}
            setting = str(error.full_key or "recipe")
            command.refusals.refuse(
                f"{choices.file.line(setting)}: {setting}", None, f"cannot be read: {line_of(error)}"
            )
            command.refusals.blamed.add("recipe")
    for hub_id in command.options.hub_ids:
        owner, _, name = hub_id.partition("/")
        store.store(name, Hub(path=hub_id), f"data/{owner}", "data")
    return command


@cache
def _store_choices(_: tuple[tuple[str, str], ...]) -> None:
    """Store the schema, every option, and the root that lists what a recipe has when it does not choose."""
    store = ConfigStore.instance()
    schema = OmegaConf.structured(Recipe)
    for group, options in GROUPS.items():
        package = group.replace("/", ".")
        OmegaConf.update(schema, package, {} if group in SEVERAL else MISSING, merge=False)
        for name, option in options.items():
            store.store(name, option, group, f"{package}.{name}" if group in SEVERAL else package)
    store.store(SCHEMA, schema)
    defaults = [
        SCHEMA,
        *({group: option} for group, option in chosen(Recipe()).items()),
        {"recipe": "quickstart"},
        "_self_",
    ]
    quiet = [{f"override hydra/{logging}": "none"} for logging in ("job_logging", "hydra_logging")]
    hydra = {"output_subdir": None, "run": {"dir": "."}, "sweep": {"subdir": "."}}
    store.store(ROOT, {"defaults": [*defaults, *quiet], "hydra": hydra})
    store.store(SWEEP, {"defaults": ["_self_", *quiet], "hydra": hydra, "words": {}})


def composed(words: Iterable[Word]) -> DictConfig:
    """Compose words; what has keys of the user's own is set afterwards, since Hydra's words cannot hold all keys."""
    listed = list(words)
    free = [word for word in listed if is_open(word.setting.split("."))]
    with at_work():
        config = hydra_compose(ROOT, [word.text for word in listed if word not in free])
    for word in free:
        open_entries(config, word.setting)
        OmegaConf.update(config, word.setting, word.values[0], force_add=True)
    return config


def built(config: DictConfig) -> Recipe:
    """Return the recipe that a composed configuration stands for."""
    recipe = OmegaConf.to_object(config)
    assert isinstance(recipe, Recipe)
    return recipe


def open_entries(config: DictConfig, path: str) -> None:
    """Make the entries that a path goes through, of dictionaries that hold settings under names of your own."""
    keys = path.split(".")
    for count in range(1, len(keys)):
        above, entry = ".".join(keys[:count]), ".".join(keys[: count + 1])
        kind = entry_type(config, above)
        if kind is not None and OmegaConf.select(config, entry, throw_on_missing=False) is None:
            OmegaConf.update(config, entry, OmegaConf.structured(kind), force_add=True)


def entry_type(config: DictConfig, path: str) -> type[Settings] | None:
    """Return what a dictionary of settings holds, unless it is a group of choices; None for anything else."""
    above, _, name = path.rpartition(".")
    owner = OmegaConf.select(config, above, throw_on_missing=False) if above else config
    kind = OmegaConf.get_type(owner) if isinstance(owner, DictConfig) else None
    if path.replace(".", "/") in GROUPS or not (isinstance(kind, type) and issubclass(kind, Settings)):
        return None
    hint = hints(kind).get(name)
    held = get_args(hint)[1] if get_origin(hint) is dict else None
    return held if isinstance(held, type) and issubclass(held, Settings) else None


@contextmanager
def at_work() -> Iterator[Any]:
    """Give a Hydra without a folder of configurations; one that is at work already is put back afterwards."""
    at_work = GlobalHydra.instance().hydra
    GlobalHydra.instance().clear()
    try:
        # not `initialize`, which reads the source of every caller to find the files beside it
        with initialize_config_module(PLACE, version_base="1.3"):
            yield GlobalHydra.instance().hydra
    finally:
        GlobalHydra.instance().hydra = at_work


def line_of(error: Exception) -> str:
    """Return the first line of what Hydra says, without the names of exceptions."""
    return re.sub(r"^\w+ raised while resolving interpolation: ", "", str(error).partition("\n")[0]).strip('".')
