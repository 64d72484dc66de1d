"""Python hands over tables, rows and loaded models; the run is the same as from files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas
import pytest
from transformers import pipeline

import compress
from compress.cli.main import main
from compress.data import Files, Hub
from compress.distill.stage import Distill
from compress.errors import CompressError, RecipeError
from compress.run.handed_over import settled
from compress.run.place import lasting
from compress.run.recipe import Recipe
from compress.run.recipe_yaml import to_yaml
from compress.tasks.choice import AUTO
from compress.teachers.model import Teacher
from tests.conftest import reviews, tiny_model, tiny_tokenizer, write_tsv

ROWS = [(f"a good film {number}", "good") for number in range(6)] + [
    (f"a bad film {number}", "bad") for number in range(6)
]
DICTS = [{"text": text, "label": label} for text, label in ROWS]


def read(data: Any, folder: Path) -> Any:
    """Return the data set of a recipe that was given ``data``."""
    recipe = settled(Recipe(data=data, cache=str(folder / "cache")))
    return recipe.data.load(AUTO, 13)


def texts(data: Any) -> set[str]:
    return {text for split in (data.train, data.validation, data.test) for text in split.texts}


def kinds() -> dict[str, Any]:
    """Return the same twelve rows in every form in which they can be handed over."""
    import datasets

    classes = datasets.Features({"text": datasets.Value("string"), "label": datasets.ClassLabel(names=["bad", "good"])})
    numbered = [{"text": text, "label": int(label == "good")} for text, label in ROWS]
    return {
        "tuples": ROWS,
        "dictionaries": DICTS,
        "generator": (row for row in DICTS),
        "frame": pandas.DataFrame(DICTS),
        "dataset": datasets.Dataset.from_list(DICTS),
        "classes": datasets.Dataset.from_list(numbered, features=classes),
        "splits": datasets.DatasetDict(
            train=datasets.Dataset.from_list(numbered, features=classes),
            test=datasets.Dataset.from_list([{"text": "hidden", "label": -1}], features=classes),
        ),
    }


@pytest.mark.parametrize("kind", ["tuples", "dictionaries", "generator", "frame", "dataset", "classes", "splits"])
def test_rows_in_every_form_are_the_same_data(kind: str, tmp_path: Path) -> None:
    data = read(kinds()[kind], tmp_path)
    assert data.task.labels == ("bad", "good")
    assert texts(data) == {text for text, _ in ROWS}


def test_splits_pairs_scores_and_texts_without_labels(tmp_path: Path) -> None:
    data = read(
        {
            "train": [(f"a {n}", f"b {n}", np.float32(n / 10)) for n in range(30)],
            "dev": [("c", "d", 0.5), ("e", "f", 0.25)],
            "test": [("g", "h", 1.5)],
            "unlabelled": [("i", "j")],
        },
        tmp_path,
    )
    assert data.task.name == "regression"
    assert (len(data.train), len(data.validation), len(data.test), len(data.unlabelled)) == (30, 2, 1, 1)
    assert list(data.unlabelled.pairs) == ["j"]


def test_paths_are_texts_or_paths(tmp_path: Path) -> None:
    path = tmp_path / "train.tsv"
    path.write_text("".join(f"{label}\t{text}\n" for text, label in ROWS))
    assert settled(Recipe(data=path)).data == settled(Recipe(data=str(path))).data == Files(train=str(path))
    assert settled(Recipe(data="nyu-mll/glue")).data == Hub(path="nyu-mll/glue")
    assert settled(Recipe(data="sst2")).data.subset == "sst2"
    recipe = lasting(settled(Recipe(data=Files(train=path), teacher=Teacher(model=tmp_path), output=tmp_path / "run")))
    assert (recipe.data.train, recipe.teacher.model, recipe.output) == (str(path), str(tmp_path), str(tmp_path / "run"))


def test_the_same_rows_are_the_same_file_and_a_recipe_file_says_so(tmp_path: Path) -> None:
    first, second = (settled(Recipe(data=rows, cache=str(tmp_path))) for rows in (ROWS, DICTS))
    assert first == second
    assert "# data.train was handed over by Python" in to_yaml(first)
    other = settled(Recipe(data=ROWS[:-1], cache=str(tmp_path)))
    assert other.data.train != first.data.train


def test_tables_can_stand_in_the_place_of_files(tmp_path: Path) -> None:
    table, path = kinds()["frame"], tmp_path / "test.tsv"
    write_tsv(path, [(label, text) for text, label in ROWS[:4]])
    mixed = settled(Recipe(data=Files(train=table, test=str(path)), cache=str(tmp_path)))
    alone = settled(Recipe(data=table, cache=str(tmp_path)))
    assert isinstance(mixed.data, Files)
    assert isinstance(alone.data, Files)
    assert (mixed.data.train, mixed.data.test) == (alone.data.train, str(path))


WRONG = [
    ({"data": Files(train=7)}, "data.train = 'int': is not a table or list of rows. Give a path, a pandas DataFrame"),
    ({"data": 7}, "data.train = 'int': is not a table or list of rows. Give a path, a pandas DataFrame"),
    ({"data": [("a", "b", "c", "d")]}, "data.train = 'tuple of 4': row 1 is neither a dictionary nor (text, label)"),
    ({"data": [{"text": "a", "label": "b"}, 3]}, "row 2 is neither a dictionary"),
    ({"data": []}, "data.train: has no rows."),
    ({"data": {"test": ROWS}}, "has no training rows"),
    ({"data": {"train": ROWS, "tets": ROWS}}, "data = 'tets': is not the name of a split."),
    ({"data": {"train": "train.tsv"}}, "is a path, and the other splits are tables. Use Files(train=…, test=…)."),
    ({"teacher": 7}, "teacher.model = 'int': is neither a name nor a loaded model with its tokenizer."),
    ({"teacher": Teacher(model=(1, 2))}, "Give (model, tokenizer), or a folder."),
]


@pytest.mark.parametrize(("given", "message"), WRONG, ids=lambda value: str(value)[:40])
def test_what_cannot_be_taken_is_told_before_any_work(given: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(RecipeError) as caught:
        Recipe(**given, cache=str(tmp_path)).run()
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_loaded_model_is_kept_by_its_content(tmp_path: Path) -> None:
    model, tokenizer = tiny_model(num_labels=2), tiny_tokenizer()
    classify = pipeline("text-classification", model=model, tokenizer=tokenizer)
    given = [(model, tokenizer), classify, Teacher(model=(model, tokenizer))]
    recipes = [settled(Recipe(data=ROWS, teacher=teacher, cache=str(tmp_path / "cache"))) for teacher in given]
    assert recipes[0] == recipes[1] == recipes[2]
    assert (Path(recipes[0].teacher.model) / "model.safetensors").is_file()
    assert "# teacher.model was handed over by Python" in to_yaml(recipes[0])
    assert len(list((tmp_path / "cache" / "given").iterdir())) == 2


def test_the_public_names_are_there_and_listed() -> None:
    assert set(compress.__all__) <= set(dir(compress))
    assert all(getattr(compress, name) is not None for name in compress.__all__)
    with pytest.raises(AttributeError, match="no attribute 'Recipes'"):
        compress.Recipes  # noqa: B018
    with pytest.raises(CompressError, match="no such folder"):
        compress.load("nowhere")
    with pytest.raises(CompressError, match="is a file, not a folder"):
        compress.load(__file__)


def test_a_run_of_rows_and_a_loaded_model_can_be_used_and_is_found_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    labels = {"id2label": {0: "bad", 1: "good"}, "label2id": {"bad": 0, "good": 1}}
    recipe = compress.Recipe(
        data={
            name: [(text, label) for label, text in reviews(rows, seed)]
            for name, rows, seed in (("train", 40, 1), ("validation", 20, 2), ("test", 20, 3))
        },
        teacher=compress.Teacher(model=(tiny_model(**labels), tiny_tokenizer()), max_tokens=16),
        student=compress.Bert(layers=1),
        distill=compress.Distill(losses={"soft": compress.SoftTargets()}, epochs=0.5),
        export={},
        benchmark=compress.Benchmark(
            rows=2, batches=[1], tokens=[8], seconds=0.01, tfidf=False, labels_only=False, teacher_int8=False
        ),
    )
    run = recipe.run()
    assert repr(run) == f"Run({str(run.folder)!r}, recommended={run.recommended!r})"
    assert "<pre" in run._repr_html_()
    assert run.student().config.num_hidden_layers == 1
    texts = ["good film", "bad film"]
    answers = run.predict(texts)
    assert [set(answer["probabilities"]) for answer in answers] == [{"bad", "good"}] * 2
    again = compress.load(run.folder)
    assert again.predict(texts) == compress.predict(run.folder, texts) == answers
    assert again.recommended == run.recommended
    assert again.state is None
    second = recipe.run()
    assert all(record.reused for record in second.state.records)
    assert main(["run", f"recipe={run.folder}/recipe.yaml", "--cfg"]) == 0


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"name": pandas.DataFrame(DICTS)}, "name = 'DataFrame': must be text"),
        ({"seed": "7"}, "seed = '7': must be a whole number"),
        ({"student": "bert"}, "student = 'bert': must be given by its settings"),
        ({"prune": [1]}, "prune = [1]: must be a group of choices"),
        ({"distill": Distill(layer_drop="half")}, "distill.layer_drop = 'half': must be a number"),
        ({"cache": 7}, "cache = 7: must be text"),
        ({"quantize": {"dynamic": 8}}, "quantize: must be a group of choices"),
    ],
)
def test_a_setting_of_a_wrong_type_is_named_before_any_work(
    changes: dict[str, Any], message: str, tmp_path: Path
) -> None:
    recipe = Recipe(data=ROWS, **({"cache": str(tmp_path / "cache")} | changes))
    with pytest.raises(RecipeError) as refused:
        recipe.run()
    assert [str(fault)[: len(message)] for fault in refused.value.faults] == [message]


def test_what_was_handed_over_is_written_again_where_its_copy_was_changed(tmp_path: Path) -> None:
    recipe = Recipe(data=DICTS, teacher=(tiny_model(), tiny_tokenizer()), cache=str(tmp_path))
    first = settled(recipe)
    rows, weights = Path(first.data.train), Path(first.teacher.model) / "model.safetensors"
    before = rows.read_bytes(), weights.read_bytes()
    rows.write_bytes(before[0].replace(b"bad", b"sad"))
    weights.write_bytes(before[1][:-1] + bytes([before[1][-1] ^ 1]))
    again = settled(recipe)
    assert (again.data.train, again.teacher.model) == (first.data.train, first.teacher.model)
    assert (rows.read_bytes(), weights.read_bytes()) == before
