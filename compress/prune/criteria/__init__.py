"""How much the loss would miss a part of a model: criteria, one file each.

Every module of this folder is imported, so that a new file is a new criterion.
"""

from importlib import import_module
from pkgutil import iter_modules

from compress.prune.criteria.base import CRITERIA, Batches, Criterion, criterion_faults, importance_of, register

for _module in iter_modules(__path__):
    import_module(f"{__name__}.{_module.name}")

__all__ = [
    "CRITERIA",
    "Batches",
    "Criterion",
    "criterion_faults",
    "importance_of",
    "register",
]
