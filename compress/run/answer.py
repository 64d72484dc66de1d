"""Write a file of answers: what a teacher answers to every row of the data, as ``teacher=answers`` reads it."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from compress.benchmark.scores import ScoredRows
from compress.data.dataset import Split
from compress.data.splits import SPLITS
from compress.errors import Fault, ModelError, RecipeError
from compress.files import storage_faults, write_text
from compress.pipeline.state import State
from compress.pipeline.workshop import Workshop
from compress.run.check import check, told
from compress.run.handed_over import settled
from compress.run.recipe import Recipe
from compress.telling import say
from compress.wording import counted

SUFFIXES = (".jsonl", ".parquet")


def write_answers(recipe: Recipe, path: Path) -> int:
    """Write what the recipe's teacher answers to every row of its data, and return how many rows that are.

    The teacher is fine-tuned where it must be; what is finished is kept in the cache. A row has the id that it has in
    the data, or its place there, as "train 0", its one or two texts, and a logit for each output by its name, its
    vector, or what the teacher has in place of logits. Texts with vectors are written once. Raises RecipeError before
    any work where the recipe or the path cannot be used.
    """
    if faults := list(_path_faults(path)):
        raise RecipeError(faults)
    recipe = settled(recipe)
    checked = check(recipe, say)
    task = checked.data.task
    if task.by_token:
        raise ModelError(
            f"A file of answers has classes, sets of labels, scores or vectors, one for each row, and the task "
            f"{task.name} has none of these. Name the teacher itself where it teaches."
        )
    for line in (*told(checked.data), *map(str, checked.models)):
        say(line)
    workshop = Workshop(recipe.cache_folder)
    state = recipe.teacher(State.begin(data=checked.data, workshop=workshop, seed=recipe.seed))
    for note in state.records[-1].notes:
        say(f"  {note}")
    given = recipe.teacher.fields(state)
    rows = [row for part in SPLITS for row in _answered(state, getattr(state.data, part), part, given)]
    if task.apart:
        rows = list({row["text"]: row for row in rows}.values())
    with storage_faults(path.parent):
        _write(path, rows)
    return len(rows)


def _answered(
    state: State, rows: Split | None, part: str, given: Mapping[str, Mapping[str, Any]] | None
) -> Iterator[dict[str, Any]]:
    """Yield the rows of a part of the data with what is ``given`` as their answers, or with logits."""
    if rows is None:
        return
    answers = _logits(state, rows, part) if given is None else [given[name] for name in rows.ids or ()]
    for place, answer in enumerate(answers):
        texts = {"text": rows.texts[place]} | ({} if rows.pairs is None else {"text_b": rows.pairs[place]})
        named = {} if rows.ids is None else {"id": rows.ids[place]}
        yield {**named, **texts, **answer}


def _logits(state: State, rows: Split, part: str) -> list[Mapping[str, Any]]:
    logits = ScoredRows(state, rows).answers()
    if logits is None:
        raise ModelError(f"The teacher has no answer to some of {counted(len(rows), f'{part} row')}. Name another one.")
    if state.data.task.apart:
        return [{"vector": vector} for vector in logits.tolist()]
    names = state.data.task.output_names
    return [{"logits": dict(zip(names, answer, strict=True))} for answer in logits.tolist()]


def _write(path: Path, rows: list[dict[str, Any]]) -> None:
    if path.suffix == ".jsonl":
        write_text(path, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
        return
    import pyarrow as pa  # type: ignore[import-untyped,unused-ignore]
    import pyarrow.parquet as pq  # type: ignore[import-untyped,unused-ignore]

    aside = path.with_name(f".{path.name}.new")
    pq.write_table(pa.Table.from_pylist(rows), aside)
    aside.replace(path)


def _path_faults(path: Path) -> Iterator[Fault]:
    """Yield why no file can be written there."""
    if path.suffix not in SUFFIXES:
        yield Fault("FILE", str(path), f"must end in {' or '.join(SUFFIXES)}")
    elif path.exists():
        yield Fault("FILE", str(path), "is there already", "Remove it, or name another file.")
    elif not path.parent.is_dir():
        yield Fault("FILE", str(path), "is in a folder that does not exist", f"Make it: mkdir -p {path.parent}.")
