"""The benchmark of tasks: the rows that it makes of other sets, and what it says of its aims."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

from compress.tasks.paired import Difference

FOLDER = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture(scope="module")
def script() -> Iterator[ModuleType]:
    spec = importlib.util.spec_from_file_location("benchmarks_tasks", FOLDER / "tasks.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["benchmarks_tasks"] = module
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(FOLDER)  # where a script finds the others
        spec.loader.exec_module(module)
        yield module


@pytest.fixture(scope="module")
def distilled(script: ModuleType) -> ModuleType:
    """What it shares with others."""
    return sys.modules["distilled"]


def test_the_sentence_that_holds_an_answer_is_relevant_and_questions_without_a_choice_are_left_out(
    script: ModuleType,
) -> None:
    context = 'It began in 1973 (a war). "Oil was dear." Then it ended in the U.S. in 1974.'
    asked = [
        {"id": "1", "question": "When?", "answers": [{"text": "1974", "answer_start": context.index("1974")}]},
        {"id": "2", "question": "What?", "answers": [{"text": 'war). "Oil', "answer_start": context.index("war")}]},
    ]
    rows = list(script.answer_sentences([{"paragraphs": [{"context": context, "qas": asked}]}]))
    assert [(row["group"], row["relevance"]) for row in rows] == [("1", 0), ("1", 0), ("1", 1)]
    assert [row["candidate"] for row in rows][1] == '"Oil was dear."'


@pytest.mark.parametrize(
    ("low", "value", "high", "outcome"),
    [(-0.4, 0.1, 0.5, "shown"), (-0.9, -0.2, 0.5, "likely, not shown"), (-0.9, -0.7, 0.1, "unlikely"),
     (-0.9, -0.7, -0.6, "missed")],
)  # fmt: skip
def test_an_aim_is_reached_only_where_its_interval_shows_it(
    distilled: ModuleType, low: float, value: float, high: float, outcome: str
) -> None:
    assert distilled.outcome(Difference(metric="f1", value=value, low=low, high=high, p=1.0), 0.5) == outcome


def test_a_model_without_seeds_stands_beside_every_seed_of_another(distilled: ModuleType) -> None:
    assert distilled.by_seed([{"seed": None, "model": "teacher"}], [1, 2])[2] == {"seed": 2, "model": "teacher"}
    assert list(distilled.by_seed([{"seed": 1}, {"seed": 3}], [1, 2, 3])) == [1, 3]


def test_every_set_is_of_a_task_with_a_recipe_of_its_name(script: ModuleType) -> None:
    recipes = FOLDER.parent / "recipes"
    assert all((recipes / f"{part.task}.yaml").is_file() for part in script.SETS.values())
