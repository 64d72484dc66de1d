"""What Hydra refuses as a whole, composed word by word: every mistake is found at once, and told in our words."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from hydra.core.config_store import ConfigStore
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from compress.cli.command_line import CommandLine
from compress.cli.composing.composition import built, composed, entry_type, line_of, open_entries
from compress.cli.composing.instead import instead
from compress.cli.refusals import Refusals
from compress.describe import expected, hints
from compress.registry import GROUPS, is_open
from compress.run.recipe import Recipe
from compress.settings import Settings


def piecewise(command: CommandLine) -> Recipe | None:
    """Compose the choices alone, then set value by value; what is refused becomes a fault and is left out.

    Returns None where nothing can be composed; the reason is then among the faults.
    """
    refusals = command.refusals
    if "recipe" in refusals.blamed:
        return None  # without its recipe, other words would be blamed wrongly
    store = ConfigStore.instance()
    for name, choices in command.recipes.chosen.items():
        store.store(name, choices.node(values=False), "recipe", "_global_")
    try:
        config = composed(word for word in command.words if word.is_choice)
        for choices in command.recipes.chosen.values():
            config.recipe = choices.file.path.stem
            for path, value in _leaves(choices.file.values, config):
                _set(refusals, config, path, value, f"{choices.file.line(path)}: {path}")
        for word in command.words:
            if not word.is_choice and not word.is_hydra:
                value = word.values[0]
                listed = isinstance(value, Mapping) and entry_type(config, word.setting)
                leaves = _leaves(value, config, f"{word.setting}.") if listed else [(word.setting, value)]
                for path, leaf in leaves:
                    _set(refusals, config, path, leaf, path)
        return built(config)
    except OmegaConfBaseException as error:
        refusals.refuse(error.full_key or "recipe", None, f"cannot be resolved: {line_of(error)}")
    except HydraException as error:
        refusals.refuse("recipe", None, f"cannot be composed: {line_of(error)}")
    return None


def _leaves(values: Mapping[Any, Any], config: DictConfig, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield path and value of everything that a recipe file sets, as deep as the settings go."""
    for key, value in values.items():
        path = f"{prefix}{key}"
        open_entries(config, path)
        nested = isinstance(value, Mapping) and not is_open(path.split("."))
        if nested and OmegaConf.is_dict(OmegaConf.select(config, path, throw_on_missing=False)):
            yield from _leaves(value, config, f"{path}.")
        else:
            yield path, value


def _set(refusals: Refusals, config: DictConfig, path: str, value: Any, setting: str) -> None:
    """Set one value, or note why it cannot be set; ``setting`` is the path as the fault names it."""
    if any(path == blamed or path.startswith(f"{blamed}.") for blamed in refusals.blamed):
        return
    open_entries(config, path)
    owner: Any = config
    *above, name = path.split(".")
    for key in above:
        owner = owner[key] if isinstance(owner, DictConfig) and key in owner else None
    if not isinstance(owner, DictConfig) or name not in owner:
        refusals.refuse(setting, value, "is not a setting", instead(config, path), blame=path)
        return
    try:
        OmegaConf.update(config, path, value, force_add=is_open(path.split(".")))
    except (OmegaConfBaseException, OverflowError):
        group = path.replace(".", "/")
        remedy = f"Choose in the defaults list: `- override /{group}: {_flow(value)}`." if group in GROUPS else ""
        refusals.refuse(setting, value, f"must be {expected(_type(owner, name))}", remedy, blame=path)


def _type(owner: DictConfig, name: str) -> Any:
    """Return the type of a setting: that of the part which stands there, or else the one that its field names."""
    part, kind = OmegaConf.get_type(owner, name), OmegaConf.get_type(owner)
    if isinstance(part, type) and issubclass(part, Settings):
        return part
    return hints(kind)[name] if isinstance(kind, type) and issubclass(kind, Settings) else Any


def _flow(value: Any) -> str:
    """Return an option, or a list of them, as a recipe file writes it."""
    if isinstance(value, Mapping):
        value = list(value)
    return f"[{', '.join(map(str, value))}]" if isinstance(value, list) else str(value or "NAME")
