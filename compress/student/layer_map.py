"""Which teacher layer belongs to which student layer."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from compress.errors import Fault
from compress.families.base import layer_count
from compress.settings import nearest

NAMED = ("uniform", "skip", "first", "last")


def layer_map(choice: Any, student: int, teacher: int) -> tuple[int, ...]:
    """Return, for each of ``student`` layers, a teacher layer from 1 … ``teacher``.

    ``uniform`` is TinyBERT's g(m) = m · teacher / student, rounded up
    (arXiv:1909.10351); ``skip`` is every ⌊teacher / student⌋-th layer and ``last`` the last ones, PKD-Skip and
    PKD-Last (Sun et al., arXiv:1908.09355); ``first`` are the first ones; a list names the layers. Raises
    ValueError if the list does not fit.
    """
    if choice == "uniform":
        return tuple(-(-m * teacher // student) for m in range(1, student + 1))
    if choice == "skip":
        return tuple(m * (teacher // student) for m in range(1, student + 1))
    if choice == "first":
        return tuple(range(1, student + 1))
    if choice == "last":
        return tuple(range(teacher - student + 1, teacher + 1))
    layers = tuple(int(layer) for layer in choice)
    if len(layers) != student or not all(1 <= layer <= teacher for layer in layers):
        raise ValueError(f"{list(layers)} must name {student} layers, each from 1 to {teacher}")
    return layers


def layer_pairs(choice: Any, student: Any, teacher: Any) -> tuple[tuple[int, int], ...]:
    """Return pairs (student layer, teacher layer), counted from 1, of two configurations; none without layers.

    Without a ``choice``, the map is the student's own, or uniform. Raises ValueError if the map does not fit.
    """
    if choice is None:
        choice = getattr(student, "teacher_layers", None) or "uniform"
    count = layer_count(student)
    return tuple(enumerate(layer_map(choice, count, teacher.num_hidden_layers), start=1)) if count else ()


def depth_faults(choice: Any, count: int, most: int) -> Iterator[Fault]:
    """Yield a fault of ``layers`` or ``layer_map`` unless ``count`` layers map to a teacher of ``most``."""
    if count > most:
        yield Fault("layers", count, f"must be at most the teacher's {most}")
        return
    try:
        layer_map(choice, count, most)
    except ValueError as error:
        yield Fault("layer_map", choice, str(error))


def layer_map_faults(name: str, choice: Any) -> Iterator[Fault]:
    """Yield a fault unless ``choice`` is a named map or a list of whole numbers from 1."""
    if isinstance(choice, str):
        if choice not in NAMED:
            remedy = nearest(choice, list(NAMED)) + " Or list the teacher's layers: [2,4,6]."
            yield Fault(name, choice, "is not a layer map", remedy)
    elif not isinstance(choice, (list, tuple)) or not all(type(i) is int and i >= 1 for i in choice) or not choice:
        yield Fault(name, choice, "must list whole numbers from 1, the teacher's layers", "For example [2,4,6].")
