"""Recipes from words and YAML.

The dataclasses are the schema; Hydra composes onto it what is chosen, the recipe file and the single values.
Where it refuses something, `compress.cli.composing.piecewise` goes through the same words one by one, so that all
mistakes are listed at once, in the project's words.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace

from compress.cli.composing.composition import REFUSALS, built, composed, read
from compress.cli.composing.piecewise import piecewise
from compress.describe import mistyped
from compress.errors import Fault, RecipeError
from compress.registry import GROUPS, SEVERAL, slot
from compress.run.check import check
from compress.run.recipe import Recipe
from compress.settings import all_faults


def compose(overrides: Sequence[str], *, trusted: bool = True) -> Recipe:
    """Return the recipe that the words of a command line stand for: ``recipe=NAME``, choices, ``setting=value``.

    The modules that the words, or recipe files where they are ``trusted``, name in ``uses`` are imported.
    Raises RecipeError with every fault: words that cannot be read, unknown settings and choices, values of a
    wrong type or out of their range, and, when there is a fault anyway, whatever `compress.run.check.check` finds.
    """
    command = read(overrides, trusted=trusted)
    recipe, faults = None, command.refusals.faults
    if not faults:
        with suppress(*REFUSALS):  # `piecewise` finds out why
            recipe = built(composed(command.words))
            recipe = None if any(misfits(recipe)) else recipe
    if recipe is None:
        recipe = piecewise(command)
    if misfitting := [] if recipe is None else list(misfits(recipe)):  # nobody else looks at what ${…} inserts
        faults += misfitting
    elif recipe is not None and (faults or any(all_faults(recipe))):
        other_rows = any(fault.setting == "data" for fault in faults)  # the default's, which nobody asked about
        faults += all_faults(recipe) if other_rows else faults_of(recipe, refused=True)
    if recipe is None or faults:
        raise RecipeError({str(fault): fault for fault in faults}.values())
    return replace(recipe, uses=list(command.modules.used))


def faults_of(recipe: Recipe, *, refused: bool = False) -> tuple[Fault, ...]:
    """Return all that `compress.run.check.check` has against a recipe, which is ``refused`` for a fault already."""
    try:
        check(recipe, refused=refused)
    except RecipeError as error:
        return error.faults
    return ()


def misfits(recipe: Recipe) -> Iterator[Fault]:
    """Yield values of another type than their setting's, and parts under a name that no option has.

    Hydra takes `prune: {hedas: {}}` for a new stage, and anything for what `${…}` inserts.
    """
    yield from mistyped(recipe)
    for group in SEVERAL:
        held = slot(recipe, group)
        for name, part in held.items() if isinstance(held, Mapping) else ():
            if GROUPS[group].name_of(part) is None:
                yield Fault(f"{group.replace('/', '.')}.{name}", None, "is not an option of its group")
