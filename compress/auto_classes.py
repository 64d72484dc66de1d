"""Let transformers' Auto classes find this package's model types, without importing transformers before it is used.

Whichever of the two is imported first: a model type that begins with ``compress_`` is looked up in transformers'
table of configurations, and the first look-up imports this package's models and registers them.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib import import_module
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

PREFIX = "compress_"
"""How the model types of this package begin."""

CONFIGURATIONS = "transformers.models.auto.configuration_auto"
REGISTRATION = "compress.models.registration"


def announce() -> None:
    """Make the Auto classes know this package's types: now, or as soon as transformers imports them."""
    module = sys.modules.get(CONFIGURATIONS)
    if module is None:
        sys.meta_path.insert(0, _Watch())
    else:
        _extend(module)


class _Types(dict[str, Any]):
    """The registered configurations by model type; the first look-up of one of ours registers them all."""

    def __contains__(self, name: object) -> bool:
        if not super().__contains__(name) and isinstance(name, str) and name.startswith(PREFIX):
            import_module(REGISTRATION).register()
        return super().__contains__(name)

    def __missing__(self, name: str) -> Any:
        if name in self:
            return self[name]
        raise KeyError(name)


def _extend(module: ModuleType) -> None:
    """Look up types in `_Types` from now on."""
    configurations = module.CONFIG_MAPPING
    configurations._extra_content = _Types(configurations._extra_content)


class _Watch(MetaPathFinder):
    """Waits for the import of transformers' table of configurations; finds nothing else."""

    def find_spec(self, name: str, path: Sequence[str] | None, target: ModuleType | None = None) -> ModuleSpec | None:
        """Return the module's own specification, with `_extend` after it is executed."""
        if name != CONFIGURATIONS:
            return None
        others = (finder.find_spec(name, path, target) for finder in sys.meta_path if finder is not self)
        spec = next((spec for spec in others if spec is not None), None)
        if spec is None or spec.loader is None:
            return spec
        loader: Any = spec.loader
        execute = loader.exec_module

        def execute_and_extend(module: ModuleType) -> None:
            execute(module)
            _extend(module)
            if self in sys.meta_path:
                sys.meta_path.remove(self)

        loader.exec_module = execute_and_extend
        return spec
