"""Modules from outside this package that register losses, students, tasks, families, runtimes and other options.

A recipe names them in ``uses``; an installed package names its own by an entry point of the group `ENTRY_POINTS`,
whose value is the module to import.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable, Iterator
from importlib import import_module
from importlib.metadata import entry_points
from pathlib import Path

from compress.errors import Fault
from compress.registry import loaded, registered

ENTRY_POINTS = "compress.plugins"
REGISTRIES = (
    "compress.tasks.registry:TASKS",
    "compress.families.registry:FAMILIES",
    "compress.runtimes.registry:RUNTIMES",
    "compress.runtimes.devices:DEVICES",
    "compress.prune.criteria:CRITERIA",
)
"""Where modules register beside the options of `compress.registry`."""

_NAME = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)*")


def use(modules: Iterable[str], setting: str = "uses") -> Iterator[Fault]:
    """Import modules that register something, in order; yield why one cannot serve."""
    for name in modules:
        if not _NAME.fullmatch(name):
            yield Fault(setting, name, "is not the name of a module", "For example uses=[my_package.my_losses].")
        elif name not in sys.modules:  # what Python imported itself is what it wants
            yield from _imported(name, setting)


def use_installed() -> Iterator[Fault]:
    """Import the modules that installed packages name; yield why one cannot serve."""
    for point in entry_points(group=ENTRY_POINTS):
        package = point.dist.name if point.dist else point.name
        for fault in use([point.module], f"the plugin {point.name} of the package {package}"):
            yield Fault(fault.setting, fault.value, fault.rule, f"Repair it, or uninstall it: pip uninstall {package}.")


def _imported(name: str, setting: str) -> Iterator[Fault]:
    """Import a module, from the current folder too; yield a fault where that fails or it registers nothing."""
    before = _known()
    here, path = str(Path.cwd()), list(sys.path)
    try:
        sys.path.append(here)
        import_module(name)
    except Exception as error:  # whatever that module raises
        reason = f"{type(error).__name__}: {str(error).partition(chr(10))[0]}".rstrip(".")
        remedy = "Install its package, or start compress in the folder that holds it."
        yield Fault(setting, name, f"cannot be imported ({reason})", remedy)
        return
    finally:
        sys.path[:] = [*path, *(added for added in sys.path if added not in {*path, here})]
    if _known() == before:
        del sys.modules[name]  # so that it is refused the next time too
        yield Fault(setting, name, "registers nothing", "Call compress.registry.register in it; see CONTRIBUTING.md.")


def _known() -> frozenset[tuple[str, str]]:
    """Return everything that is registered, by registry and name."""
    beside = ((registry, str(name)) for registry in REGISTRIES for name in loaded(registry))
    return frozenset((*registered(), *beside))
