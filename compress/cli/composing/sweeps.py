"""Sweeps: the words of every job, and Hydra's launchers and sweepers that run them."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from hydra import compose as hydra_compose
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from compress.cli.composing.composition import SWEEP, at_work, line_of, read
from compress.cli.limits import SPECIAL
from compress.cli.words import PLUGINS, Word, quoted
from compress.errors import Fault, RecipeError
from compress.settings import nearest


def combinations(overrides: Sequence[str]) -> list[list[str]]:
    """Return the words of every job of a sweep, those meant for Hydra left out. Raises RecipeError."""
    command = read(overrides, sweep=True)
    faults = [*command.refusals.faults, *_plugin_faults(command.words)]
    if faults:
        raise RecipeError(faults)
    return [list(job) for job in itertools.product(*(word.given for word in command.words if not word.is_hydra))]


def launch(overrides: Sequence[str], folder: Path, job: Callable[[list[str], list[str]], Any]) -> list[Any]:
    """Run ``job(its words, its own words)`` for every combination, wherever ``hydra/launcher=`` says.

    ``folder`` takes what Hydra and its launchers write. Returns what the jobs returned.
    """
    everything = read(overrides, sweep=True).words
    words = [word for word in everything if not word.is_hydra]
    plain = [word.text for word in everything if word.is_hydra]
    opaque = [f"+words.w{number}={word.text.partition('=')[2]}" for number, word in enumerate(words)]
    place = f"hydra.sweep.dir={quoted(str(folder))}"
    try:
        with at_work() as hydra:
            run = partial(_job, job, words)
            batches = hydra.multirun(SWEEP, run, [*plain, *opaque, place], with_log_configuration=False)
    except (HydraException, OmegaConfBaseException, AssertionError) as error:  # an assertion: basic's max_batch_size
        why = line_of(error) or "a parameter of its launcher or sweeper is out of range"
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


def _plugin_faults(words: Sequence[Word]) -> Iterator[Fault]:
    """Yield words that name a launcher or sweeper which is not installed, or a parameter that it does not have."""
    hydras = [word for word in words if word.is_hydra]
    chosen = {word.setting: str(word.values[0]) for word in hydras if word.setting in PLUGINS}
    with at_work() as hydra:
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
            yield Fault(", ".join(names), None, f"cannot be used: {line_of(error)}")
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
