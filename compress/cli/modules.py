"""Modules that a command or a recipe file names under ``uses``, and who may name them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from compress import plugins
from compress.cli import recipe_paths
from compress.cli.limits import texts_in
from compress.cli.recipe_files import RecipeFile
from compress.cli.refusals import Refusals


@dataclass
class Modules:
    """Imports them."""

    refusals: Refusals
    trusted: bool  # whether recipe files may name code to import
    given: Sequence[str] = ()  # the words of the command
    used: dict[str, None] = field(default_factory=dict)  # imported modules, in order

    def use(self, modules: Any, setting: str) -> None:
        """Import modules; anything but a list of texts is refused like any value of a wrong type."""
        names = [name for name in modules if isinstance(name, str)] if isinstance(modules, list) else []
        faults = list(plugins.use(names, setting))
        self.refusals.faults += faults
        if faults:
            self.refusals.blamed.add("uses")
        self.used |= dict.fromkeys(names)

    def use_of_file(self, file: RecipeFile) -> None:
        """Import the modules that a recipe file names, unless it came with a model or with data."""
        modules = file.values["uses"]
        setting = f"{file.line('uses')}: uses"
        if isinstance(modules, list) and set(map(str, modules)) <= self.used.keys():
            return
        texts = [*(text.partition("=")[2].strip("'\"") for text in self.given), *texts_in(file.values)]
        if self.trusted and not recipe_paths.came_with(file.path, texts):
            self.use(modules, setting)
            return
        rule = "names code to import, which a file that came with a model or data may not"
        remedy = f"If you trust it: uses=[{','.join(map(str, modules))}] on the command line."
        self.refusals.refuse(setting, modules, rule, remedy, blame="recipe")
