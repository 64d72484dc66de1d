"""What Python hands over instead of settings: tables and rows as data, a loaded model as the teacher.

They are kept in the cache as files named by their content, and the recipe is given the files: so finished work is
found again, and recipe.yaml repeats the run for as long as the cache is kept.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from transformers import PreTrainedModel

from compress.data import Data, Files, Hub
from compress.data.hub import class_names
from compress.data.splits import SPLITS
from compress.errors import Fault, RecipeError
from compress.files import hash_file, hash_folder, storage_faults, write_text
from compress.models.loading import save_model
from compress.registry import GROUPS
from compress.run.recipe_yaml import GIVEN
from compress.tasks.choice import TaskChoice
from compress.teachers.base import BaseTeacher
from compress.teachers.model import Teacher

if TYPE_CHECKING:
    from compress.run.recipe import Recipe

ALSO = {"valid": "validation", "dev": "validation", "unsupervised": "unlabelled"}  # other names of splits
_KINDS = (
    "Give a path, a pandas DataFrame, a datasets.Dataset or DatasetDict, a list of rows (dictionaries, or tuples that "
    "end with the label), or a dictionary of these by split: train, validation, test, unlabelled."
)

Row = Mapping[str, Any]


def settled(recipe: Recipe) -> Recipe:
    """Return the recipe with files in place of what Python handed over. Raises RecipeError for what cannot be kept."""
    if not _is_name(recipe.cache):
        raise _refusal("cache", recipe.cache, "must be text", "Name a folder.")
    folder = Path(os.path.abspath(recipe.cache_folder)) / GIVEN  # noqa: PTH100  # links stay
    data: Any = recipe.data
    teacher: Any = recipe.teacher
    task: Any = recipe.task
    changes: dict[str, Any] = {}
    if not isinstance(data, Data):
        changes["data"] = _data(data, folder)
    elif isinstance(data, Files):
        given = {split: getattr(data, split) for split in SPLITS}
        tables = {split: rows for split, rows in given.items() if rows is not None and not _is_name(rows)}
        files: dict[str, Any] = {
            split: _file(list(_records(rows, split)), split, folder) for split, rows in tables.items()
        }
        changes |= {"data": replace(data, **files)} if files else {}
    if isinstance(task, str):
        changes["task"] = TaskChoice.of(task)
    if not isinstance(teacher, BaseTeacher):
        changes["teacher"] = Teacher(model=_teacher(teacher, folder))
    elif isinstance(teacher, Teacher) and not _is_name(teacher.model):
        changes["teacher"] = replace(teacher, model=_teacher(teacher.model, folder))
    return replace(recipe, **changes) if changes else recipe


def _is_name(value: object) -> bool:
    return isinstance(value, str | os.PathLike)


def _data(given: Any, folder: Path) -> Data:
    """Return the settings that read what was handed over as ``data``."""
    if _is_name(given):
        return _named(os.fspath(given))
    splits = dict(given) if isinstance(given, Mapping) else {"train": given}
    paths: dict[str, str] = {}
    for name, rows in splits.items():
        split = ALSO.get(name, name)
        if split not in SPLITS:
            raise _refusal("data", name, "is not the name of a split", _KINDS)
        if rows is not None and (split in {"train", "unlabelled"} or not _is_hidden(rows)):
            paths[split] = _file(list(_records(rows, split)), split, folder)
    if "train" not in paths:
        raise _refusal("data", list(map(str, splits)), "has no training rows", _KINDS)
    return Files(**paths)  # type: ignore[arg-type]


def _named(text: str) -> Data:
    """Return the settings for a path, the name of a choice, or a hub id."""
    path = Path(text).expanduser()
    if text in GROUPS["data"] and not path.exists():
        option = GROUPS["data"][text]
        part = option() if isinstance(option, type) else option
        assert isinstance(part, Data)
        return part
    if path.is_dir() or not (path.exists() or path.suffix):
        return Hub(path=text)
    return Files(train=text)


def _records(rows: Any, split: str) -> Iterator[Row]:
    """Yield rows as dictionaries. Raises RecipeError for anything that does not hold rows."""
    library = type(rows).__module__.partition(".")[0]
    if _is_name(rows):
        raise _refusal(
            f"data.{split}",
            os.fspath(rows),
            "is a path, and the other splits are tables",
            "Use Files(train=…, test=…).",
        )
    if library == "pandas" and hasattr(rows, "to_dict") and hasattr(rows, "columns"):
        yield from rows.to_dict(orient="records")
    elif library == "datasets" and hasattr(rows, "features"):
        names = {column: class_names(kind) for column, kind in rows.features.items()}
        for row in rows:
            yield {column: _class_name(value, names[column]) for column, value in row.items()}
    elif isinstance(rows, Iterable) and not isinstance(rows, Mapping | bytes):
        for number, row in enumerate(rows, 1):
            yield _record(row, split, number)
    else:
        raise _refusal(f"data.{split}", type(rows).__name__, "is not a table or list of rows", _KINDS)


def _record(row: Any, split: str, number: int) -> Row:
    """Return one row of a list as a dictionary."""
    if isinstance(row, Mapping):
        return row
    texts = [row] if isinstance(row, str) else list(row) if isinstance(row, tuple | list) else []
    names = ["text", "text_b"][: len(texts) - (split != "unlabelled")]
    names += [] if split == "unlabelled" else ["label"]
    if not texts or len(texts) != len(names) or len(names) < 1 + (split != "unlabelled"):
        expected = "(text) or (text, text)" if split == "unlabelled" else "(text, label) or (text, text, label)"
        shown = f"{type(row).__name__} of {len(texts)}" if isinstance(row, tuple | list) else type(row).__name__
        raise _refusal(f"data.{split}", shown, f"row {number} is neither a dictionary nor {expected}", _KINDS)
    return dict(zip(names, texts, strict=True))


def _class_name(value: Any, names: list[str] | None) -> Any:
    """Return a ClassLabel's name, or a list of names; None where the class is not public."""
    if isinstance(value, list):
        return [_class_name(part, names) for part in value]
    return value if names is None else names[value] if isinstance(value, int) and value >= 0 else None


def _is_hidden(rows: Any) -> bool:
    """Return whether the labels of a split of `datasets` are all -1, as those of GLUE's tests: it counts as missing."""
    kinds = getattr(rows, "features", {}) or {}
    classes = [column for column, kind in kinds.items() if getattr(kind, "names", None) is not None]
    return bool(classes) and all(value in {-1, None} for column in classes for value in rows[column])


def _file(records: list[Row], split: str, folder: Path) -> str:
    """Write rows as JSON lines under a name made of their content, and return the path."""
    if not records:
        raise _refusal(f"data.{split}", None, "has no rows", "Give one or more.")
    lines = "".join(
        json.dumps({str(k): _value(v) for k, v in row.items()}, ensure_ascii=False) + "\n" for row in records
    )
    content = hashlib.sha256(lines.encode()).hexdigest()
    path = folder / f"{split}-{content[:24]}.jsonl"
    with storage_faults(folder):
        if not path.exists() or hash_file(path) != content:  # changed since it was written
            folder.mkdir(parents=True, exist_ok=True)
            write_text(path, lines)
    return str(path)


def _value(value: Any) -> Any:
    """Return a cell as JSON holds it: NumPy's numbers as Python's, a missing one as null."""
    if isinstance(value, set | frozenset):
        value = sorted(value, key=str)
    if isinstance(value, list | tuple) or type(value).__name__ == "ndarray":
        return [_value(item) for item in value]
    if isinstance(value, Mapping):
        return {str(key): _value(item) for key, item in value.items()}
    value = value.item() if hasattr(value, "item") else value
    if (
        value is None
        or (isinstance(value, float) and math.isnan(value))
        or type(value).__name__ in {"NAType", "NaTType"}
    ):
        return None
    return value if isinstance(value, str | int | float | bool) else str(value)


def _teacher(given: Any, folder: Path) -> str:
    """Return the folder in which a loaded model is kept."""
    model, tokenizer = (
        given
        if isinstance(given, tuple) and len(given) == 2
        else (getattr(given, "model", given), getattr(given, "tokenizer", None))
    )  # a pipeline has both
    if not isinstance(model, PreTrainedModel) or not hasattr(tokenizer, "save_pretrained"):
        rule = "is neither a name nor a loaded model with its tokenizer"
        raise _refusal("teacher.model", type(given).__name__, rule, "Give (model, tokenizer), or a folder.")
    with storage_faults(folder):
        folder.mkdir(parents=True, exist_ok=True)
        aside = Path(tempfile.mkdtemp(prefix=".new-", dir=folder))
        try:
            save_model(model, tokenizer, aside)
            content = hash_folder(aside)
            path = folder / f"teacher-{content[:24]}"
            if path.exists() and hash_folder(path) != content:  # changed since it was written
                shutil.rmtree(path)
            if not path.exists():
                aside.rename(path)
        finally:
            shutil.rmtree(aside, ignore_errors=True)
    return str(path)


def _refusal(setting: str, value: object, rule: str, remedy: str) -> RecipeError:
    return RecipeError([Fault(setting, value, rule, remedy)])
