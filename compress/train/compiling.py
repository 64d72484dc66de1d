"""torch.compile of the model that is trained, in place: parameters keep their names, and what is saved is the same."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from transformers import PreTrainedModel

COMPILERS = ("c++", "g++", "clang++")
BACKEND = "inductor"  # torch's own


def cannot_compile() -> str:
    """Return why models cannot be compiled on this machine, as a clause; empty where they can."""
    if torch.cuda.is_available() or any(map(shutil.which, COMPILERS)):
        return ""
    return "needs a C++ compiler"


@contextmanager
def compiled(model: PreTrainedModel) -> Iterator[None]:
    """Compile the forward and backward pass of a model at its next call, for any number of rows and tokens.

    After the block it runs as it did.
    """
    model.compile(dynamic=True, backend=BACKEND)
    try:
        yield
    finally:
        model._compiled_call_impl = None
