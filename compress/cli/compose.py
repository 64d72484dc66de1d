"""Recipes from words and YAML: the one file that knows Hydra.

The dataclasses are the schema; Hydra composes onto it what is chosen, the recipe file and the single values.
Where it refuses something, `_piecewise` goes through the same words one by one, so that all mistakes are listed
at once, in the project's words.
"""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from decimal import Decimal
from difflib import get_close_matches
from functools import cache, partial
from pathlib import Path
from typing import Any, get_args, get_origin

from hydra import compose as hydra_compose
from hydra import initialize_config_module
from hydra.core.config_store import ConfigStore
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import ChoiceSweep, IntervalSweep, RangeSweep
from hydra.errors import HydraException
from omegaconf import MISSING, DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from compress.cli.limits import MOST_JOBS, SPECIAL
from compress.cli.reading import PLUGINS, Reading, Word, quoted
from compress.data import Hub
from compress.describe import expected, hints, mistyped
from compress.errors import Fault, RecipeError
from compress.plugins import use_installed
from compress.registry import GROUPS, SEVERAL, is_open, registered, slot
from compress.run.check import check
from compress.run.recipe import Recipe
from compress.run.recipe_yaml import chosen
from compress.settings import Settings, all_faults, nearest, spelled

REFUSALS = (HydraException, OmegaConfBaseException, OverflowError)  # of Hydra; the last for a whole number as a float
PLACE = "compress.cli"  # where Hydra looks for YAML beside what is stored; there is none
ROOT, SCHEMA, SWEEP = "compress", "compress_recipe", "compress_sweep"  # names in Hydra's store


def compose(overrides: Sequence[str], *, trusted: bool = True) -> Recipe:
    """Return the recipe that the words of a command line stand for: ``recipe=NAME``, choices, ``setting=value``.

    The modules that the words, or recipe files where they are ``trusted``, name in ``uses`` are imported.
    Raises RecipeError with every fault: words that cannot be read, unknown settings and choices, values of a
    wrong type or out of their range, and, when there is a fault anyway, whatever `compress.run.check.check` finds.
    """
    reading = _read(overrides, trusted=trusted)
    recipe = None
    if not reading.faults:
        with suppress(*REFUSALS):  # `_piecewise` finds out why
            recipe = _built(_composed(reading.words))
            recipe = None if any(_misfits(recipe)) else recipe
    if recipe is None:
        recipe = _piecewise(reading)
    faults = reading.faults
    misfits = [] if recipe is None else list(_misfits(recipe))
    if misfits:  # what is inserted by ${…} is looked at by nobody else
        faults += misfits
    elif recipe is not None and (faults or any(all_faults(recipe))):
        other_rows = any(fault.setting == "data" for fault in faults)  # the default's, which nobody asked about
        faults += all_faults(recipe) if other_rows else faults_of(recipe)
    if recipe is None or faults:
        raise RecipeError({str(fault): fault for fault in faults}.values())
    return replace(recipe, uses=list(reading.used))


def faults_of(recipe: Recipe) -> tuple[Fault, ...]:
    """Return all that `compress.run.check.check` has against a recipe."""
    try:
        check(recipe)
    except RecipeError as error:
        return error.faults
    return ()


def combinations(overrides: Sequence[str]) -> list[list[str]]:
    """Return the words of every job of a sweep, those meant for Hydra left out. Raises RecipeError."""
    reading = _read(overrides, sweep=True)
    faults = [*reading.faults, *_plugin_faults(reading.words)]
    if faults:
        raise RecipeError(faults)
    return [list(job) for job in itertools.product(*(word.given for word in reading.words if not word.is_hydra))]


def launch(overrides: Sequence[str], folder: Path, job: Callable[[list[str], list[str]], Any]) -> list[Any]:
    """Run ``job(its words, its own words)`` for every combination, wherever ``hydra/launcher=`` says.

    ``folder`` takes what Hydra and its launchers write. Returns what the jobs returned.
    """
    read = _read(overrides, sweep=True).words
    words = [word for word in read if not word.is_hydra]
    plain = [word.text for word in read if word.is_hydra]
    opaque = [f"+words.w{number}={word.text.partition('=')[2]}" for number, word in enumerate(words)]
    place = f"hydra.sweep.dir={quoted(str(folder))}"
    try:
        with _hydra() as hydra:
            run = partial(_job, job, words)
            batches = hydra.multirun(SWEEP, run, [*plain, *opaque, place], with_log_configuration=False)
    except (HydraException, OmegaConfBaseException, AssertionError) as error:  # an assertion: basic's max_batch_size
        why = _line(error) or "a parameter of its launcher or sweeper is out of range"
        raise RecipeError([Fault("-m", None, f"the sweep cannot be started: {why}")]) from error
    return [returned.return_value for batch in batches for returned in batch]


def _job(job: Callable[[list[str], list[str]], Any], words: Sequence[Word], _config: DictConfig) -> Any:
    """Run a job by its words, composed as those of a single run; to Hydra they are values under numbers."""
    own: list[str] = []
    whole: list[str] = []
    for text in HydraConfig.get().overrides.task:
        number, _, value = text.removeprefix("+words.w").partition("=")
        word = words[int(number)]
        given = dict(zip(word.texts, word.given, strict=True))
        whole.append(given.get(f"{word.setting}={value}", f"{word.setting}={value}"))
        own += whole[-1:] if word.count > 1 or word.searched else []
    return job(whole, own)


@contextmanager
def _hydra() -> Iterator[Any]:
    """Give a Hydra without a folder of configurations; one that is at work already is put back afterwards."""
    at_work = GlobalHydra.instance().hydra
    GlobalHydra.instance().clear()
    try:
        # not `initialize`, which reads the source of every caller to find the files beside it
        with initialize_config_module(PLACE, version_base="1.3"):
            yield GlobalHydra.instance().hydra
    finally:
        GlobalHydra.instance().hydra = at_work


def _plugin_faults(words: Sequence[Word]) -> Iterator[Fault]:
    """Yield words that name a launcher or sweeper which is not installed, or a parameter that it does not have."""
    hydras = [word for word in words if word.is_hydra]
    chosen = {word.setting: str(word.values[0]) for word in hydras if word.setting in PLUGINS}
    with _hydra() as hydra:
        loader = hydra.config_loader
        known = {group: loader.get_group_options(group) for group in chosen}
        unknown = [group for group, name in chosen.items() if name not in known[group]]
        for group in unknown:
            yield Fault(group, chosen[group], "is not installed", nearest(chosen[group], known[group]))
        if unknown:
            return
        names = [f"{group}={name}" for group, name in chosen.items()]
        try:
            config = hydra_compose(SWEEP, names, return_hydra_config=True)
        except HydraException as error:
            yield Fault(", ".join(names), None, f"cannot be used: {_line(error)}")
            return
    for word in hydras:
        if word.setting not in PLUGINS:
            yield from _parameter_faults(config, word)
    if "hydra/sweeper" not in chosen:
        for word in words:
            if word.searched:
                value = word.text.partition("=")[2]
                yield Fault(word.setting, value, "is for sweepers that search", "Write a,b,c or range(FROM,TO,STEP).")


def _parameter_faults(config: DictConfig, word: Word) -> Iterator[Fault]:
    """Yield why a parameter of a launcher or sweeper cannot be set; sets it where it can."""
    above, _, name = word.setting.rpartition(".")
    owner = OmegaConf.select(config, above, throw_on_missing=False)
    known = [str(key) for key in owner if not SPECIAL.fullmatch(str(key))] if isinstance(owner, DictConfig) else []
    if name not in known:
        yield Fault(word.setting, word.values[0], "is not a setting", nearest(name, known))
    elif isinstance(owner._get_node(name), DictConfig):
        yield Fault(word.setting, word.values[0], "is not a plain setting")
    else:
        try:
            OmegaConf.update(config, word.setting, word.values[0])
        except OmegaConfBaseException:
            yield Fault(word.setting, word.values[0], "has a value of the wrong type")


def _read(overrides: Sequence[str], *, sweep: bool = False, trusted: bool = True) -> Reading:
    """Read words, and store for Hydra what they name."""
    reading = Reading(_parse, sweep, trusted=trusted)
    reading.faults += use_installed()
    reading.read(overrides)
    _store_choices(registered())
    store = ConfigStore.instance()
    for name, choices in reading.recipes.items():
        try:
            store.store(name, choices.node(), "recipe", "_global_")
        except OmegaConfBaseException as error:  # half a ${…}
            setting = str(error.full_key or "recipe")
            reading.refuse(f"{choices.file.line(setting)}: {setting}", None, f"cannot be read: {_line(error)}")
            reading.blamed.add("recipe")
    for hub_id in reading.hub_ids:
        owner, _, name = hub_id.partition("/")
        store.store(name, Hub(path=hub_id), f"data/{owner}", "data")
    return reading


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


def _parse(text: str) -> Word | None:
    try:
        word = OverridesParser.create().parse_override(text)
    except (HydraException, ValueError):  # a number of thousands of digits
        return None
    key = word.key_or_group
    if not word.is_sweep_override():
        value = word.value()
        if is_open(key.split(".")) and isinstance(value, Mapping):
            value = {
                spelled(name): one if isinstance(one, Mapping | list) else spelled(one) for name, one in value.items()
            }
        return Word(key, text, (value,), (text,))
    count = _count(word._value)
    if not 0 < count <= MOST_JOBS:  # not listed; `count` tells why
        return Word(key, text, (), (), count=count)
    if word.is_discrete_sweep():
        texts = tuple(f"{text.partition('=')[0]}={one}" for one in word.sweep_string_iterator())
    else:  # an interval, for sweepers that search: its two ends stand for it
        interval: Any = word.value()
        texts = (f"{key}={interval.start}", f"{key}={interval.end}")
    parsed = [OverridesParser.create().parse_override(one) for one in texts]
    values = tuple(one.value() for one in parsed)
    return Word(key, text, values, texts, count=count, searched=not word.is_discrete_sweep())


def _count(sweep: Any) -> int:
    """Return how many values a sweep has without listing them; 0 where it has none, or no end."""
    if isinstance(sweep, ChoiceSweep):
        return len(sweep.list)
    if isinstance(sweep, IntervalSweep):
        return 2
    if not isinstance(sweep, RangeSweep) or not sweep.step:
        return 0  # glob(…) too, which knows no names here
    try:
        return max(0, math.ceil((Decimal(str(sweep.stop)) - Decimal(str(sweep.start))) / Decimal(str(sweep.step))))
    except (ArithmeticError, ValueError):  # from or to infinity, or no number
        return 0


def _composed(words: Iterable[Word]) -> DictConfig:
    """Compose words; what has keys of the user's own is set afterwards, since Hydra's words cannot hold all keys."""
    listed = list(words)
    free = [word for word in listed if is_open(word.setting.split("."))]
    with _hydra():
        config = hydra_compose(ROOT, [word.text for word in listed if word not in free])
    for word in free:
        _open(config, word.setting)
        OmegaConf.update(config, word.setting, word.values[0], force_add=True)
    return config


def _built(config: DictConfig) -> Recipe:
    recipe = OmegaConf.to_object(config)
    assert isinstance(recipe, Recipe)
    return recipe


def _misfits(recipe: Recipe) -> Iterator[Fault]:
    """Yield values of another type than their setting's, and parts under a name that no option has.

    Hydra takes `prune: {hedas: {}}` for a new stage, and anything for what `${…}` inserts.
    """
    yield from mistyped(recipe)
    for group in SEVERAL:
        held = slot(recipe, group)
        for name, part in held.items() if isinstance(held, Mapping) else ():
            if GROUPS[group].name_of(part) is None:
                yield Fault(f"{group.replace('/', '.')}.{name}", None, "is not an option of its group")


def _piecewise(reading: Reading) -> Recipe | None:
    """Compose the choices alone, then set value by value; what is refused becomes a fault and is left out.

    Returns None where nothing can be composed; the reason is then among the faults.
    """
    if "recipe" in reading.blamed:
        return None  # without its recipe, other words would be blamed wrongly
    store = ConfigStore.instance()
    for name, choices in reading.recipes.items():
        store.store(name, choices.node(values=False), "recipe", "_global_")
    try:
        config = _composed(word for word in reading.words if word.is_choice)
        for choices in reading.recipes.values():
            config.recipe = choices.file.path.stem
            for path, value in _leaves(choices.file.values, config):
                _set(reading, config, path, value, f"{choices.file.line(path)}: {path}")
        for word in reading.words:
            if not word.is_choice and not word.is_hydra:
                value = word.values[0]
                listed = isinstance(value, Mapping) and _entry(config, word.setting)
                leaves = _leaves(value, config, f"{word.setting}.") if listed else [(word.setting, value)]
                for path, one in leaves:
                    _set(reading, config, path, one, path)
        return _built(config)
    except OmegaConfBaseException as error:
        reading.refuse(error.full_key or "recipe", None, f"cannot be resolved: {_line(error)}")
    except HydraException as error:
        reading.refuse("recipe", None, f"cannot be composed: {_line(error)}")
    return None


def _leaves(values: Mapping[Any, Any], config: DictConfig, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield path and value of everything that a recipe file sets, as deep as the settings go."""
    for key, value in values.items():
        path = f"{prefix}{key}"
        _open(config, path)
        nested = isinstance(value, Mapping) and not is_open(path.split("."))
        if nested and OmegaConf.is_dict(OmegaConf.select(config, path, throw_on_missing=False)):
            yield from _leaves(value, config, f"{path}.")
        else:
            yield path, value


def _set(reading: Reading, config: DictConfig, path: str, value: Any, said: str) -> None:
    """Set one value, or note why it cannot be set; ``said`` is the setting as the fault names it."""
    if any(path == blamed or path.startswith(f"{blamed}.") for blamed in reading.blamed):
        return
    _open(config, path)
    owner: Any = config
    *above, name = path.split(".")
    for key in above:
        owner = owner[key] if isinstance(owner, DictConfig) and key in owner else None
    if not isinstance(owner, DictConfig) or name not in owner:
        reading.refuse(said, value, "is not a setting", _instead(config, path), blame=path)
        return
    try:
        OmegaConf.update(config, path, value, force_add=is_open(path.split(".")))
    except (OmegaConfBaseException, OverflowError):
        group = path.replace(".", "/")
        remedy = f"Choose in the defaults list: `- override /{group}: {_flow(value)}`." if group in GROUPS else ""
        reading.refuse(said, value, f"must be {expected(_type(owner, name))}", remedy, blame=path)


def _open(config: DictConfig, path: str) -> None:
    """Make the entries that a path goes through, of dictionaries that hold settings under names of your own."""
    keys = path.split(".")
    for count in range(1, len(keys)):
        above, entry = ".".join(keys[:count]), ".".join(keys[: count + 1])
        kind = _entry(config, above)
        if kind is not None and OmegaConf.select(config, entry, throw_on_missing=False) is None:
            OmegaConf.update(config, entry, OmegaConf.structured(kind), force_add=True)


def _entry(config: DictConfig, path: str) -> type[Settings] | None:
    """Return what a dictionary of settings holds, unless it is a group of choices; None for anything else."""
    above, _, name = path.rpartition(".")
    owner = OmegaConf.select(config, above, throw_on_missing=False) if above else config
    kind = OmegaConf.get_type(owner) if isinstance(owner, DictConfig) else None
    if path.replace(".", "/") in GROUPS or not (isinstance(kind, type) and issubclass(kind, Settings)):
        return None
    hint = hints(kind).get(name)
    held = get_args(hint)[1] if get_origin(hint) is dict else None
    return held if isinstance(held, type) and issubclass(held, Settings) else None


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


def _instead(config: DictConfig, path: str) -> str:
    """Return a sentence that says what was probably meant by a setting that there is not."""
    above: list[str] = []
    owner: Any = config
    for key in path.split("."):
        if not isinstance(owner, DictConfig) or key not in owner:
            break
        owner = owner[key]
        above.append(key)
    group, prefix = "/".join(above), "".join(f"{part}." for part in above)
    if not isinstance(owner, DictConfig):
        return f"{'.'.join(above)} has no settings of its own."
    if group in SEVERAL:
        if key in GROUPS[group]:
            return f"Choose it first: {group}=[{','.join([*map(str, owner), key])}]."
        return nearest(key, GROUPS[group])
    known = [str(name) for name in owner]
    if close := get_close_matches(key, known, n=1, cutoff=0.7):
        return f"Did you mean {prefix}{close[0]}?"
    for option, settings in GROUPS.get(group, {}).items():
        if key in hints(settings if isinstance(settings, type) else type(settings)):
            return f"It is a setting of {group}={option}."
    name = path.rpartition(".")[2]
    if elsewhere := [one for one in _paths(config) if one.rpartition(".")[2] == name]:
        return f"Did you mean {' or '.join(elsewhere)}?"
    return nearest(f"{prefix}{key}", [f"{prefix}{name}" for name in known])


def _paths(config: DictConfig, prefix: str = "") -> Iterator[str]:
    for key in map(str, config):
        path = f"{prefix}{key}"
        part = config._get_node(key)
        if isinstance(part, DictConfig) and not part._is_none() and not part._is_missing():
            yield from _paths(part, f"{path}.")
        else:
            yield path


def _line(error: Exception) -> str:
    """Return the first line of what Hydra says, without the names of exceptions."""
    return re.sub(r"^\w+ raised while resolving interpolation: ", "", str(error).partition("\n")[0]).strip('".')
