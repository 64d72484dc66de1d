"""How the weights that leave are found and when they leave: methods, one file each.

Every module of this folder is imported, so that a new file is a new method.
"""

from importlib import import_module
from pkgutil import iter_modules

from compress.prune.methods.base import METHODS, Method, Sparsity, register, zero_smallest

for _module in iter_modules(__path__):
    import_module(f"{__name__}.{_module.name}")

__all__ = [
    "METHODS",
    "Method",
    "Sparsity",
    "register",
    "zero_smallest",
]
