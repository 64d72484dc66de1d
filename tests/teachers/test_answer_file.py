"""Answers in a file: every form that they have, how rows are found, what is refused, and what a student learns."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from compress.augment.perturb import Perturb
from compress.benchmark.stage import Benchmark
from compress.data import Files
from compress.data.dataset import Dataset
from compress.distill.losses import HardLabels, SoftTargets
from compress.distill.stage import Distill
from compress.distill.teacher_outputs import on_disk
from compress.errors import ModelError, RecipeError
from compress.files import hash_file
from compress.models.loading import load_model, load_tokenizer, save_model
from compress.models.tokens import tokenize
from compress.pipeline.answers import OfModel
from compress.pipeline.state import State
from compress.pipeline.workshop import Workshop
from compress.run.check import check
from compress.run.recipe import Recipe
from compress.student.bilstm import BiLstm
from compress.student.saved import Saved
from compress.student.words import Pieces, WordStart
from compress.teachers.answer_table import Match
from compress.teachers.answer_values import AnswerForm, Rest
from compress.teachers.answers import AnswerFile, KeptAnswers, Missing
from compress.teachers.model import Teacher
from tests.conftest import reviews, tiny_model, tiny_tokenizer
from tests.run.test_recipe import report

SIZES = {"train": 120, "validation": 40, "test": 60}
Rows = dict[str, list[tuple[str, str, str]]]
"""Id, label and text by split."""


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Rows]:
    folder = tmp_path_factory.mktemp("rows")
    found: Rows = {}
    for seed, (name, count) in enumerate(SIZES.items(), 1):
        found[name] = [(f"{name[:2]}-{n}", label, text) for n, (label, text) in enumerate(reviews(count, seed))]
        lines = (json.dumps({"id": key, "label": label, "text": text}) for key, label, text in found[name])
        (folder / f"{name}.jsonl").write_text("\n".join(lines) + "\n")
    return folder, found


def files(folder: Path, **changes: Any) -> Files:
    return Files(**{name: str(folder / f"{name}.jsonl") for name in SIZES} | {"id": "id"} | changes)


def right(label: str, share: float = 0.9) -> list[float]:
    return [share, 1 - share] if label == "bad" else [1 - share, share]


def written(path: Path, found: Rows, fields: Callable[[str, str, str], dict[str, Any]]) -> Path:
    lines = [json.dumps(fields(*row)) for split in found.values() for row in split]
    path.write_text("\n".join(lines) + "\n")
    return path


def kept(data: Dataset, file: Path, tmp_path: Path, **settings: Any) -> KeptAnswers:
    teacher = AnswerFile(file=str(file), **settings)
    teacher.inspect(data)
    state = teacher(State.begin(data=data, workshop=Workshop(tmp_path / "cache"), seed=1))
    assert isinstance(state.answers, KeptAnswers)
    return state.answers


def shares(data: Dataset, answers: KeptAnswers) -> np.ndarray[Any, Any]:
    return data.task.probabilities(answers.of(data.train))


def top(label: str) -> list[dict[str, Any]]:
    """What an OpenAI-compatible server returns for the first token."""
    good, bad = (0.7, 0.1) if label == "good" else (0.1, 0.7)
    words = {" Good": good, "bad": bad, "The": 0.1}
    return [{"token": word, "logprob": float(np.log(share))} for word, share in words.items()]


FORMS: dict[str, tuple[Callable[[str, str, str], dict[str, Any]], dict[str, Any], float]] = {
    "a column for each class": (lambda k, y, t: {"id": k, "good": right(y)[1], "bad": right(y)[0]}, {}, 0.9),
    "columns named by a pattern": (
        lambda k, y, t: {"id": k, "p_good": right(y)[1], "p_bad": right(y)[0]}, {"column": "p_*"}, 0.9
    ),
    "a list": (lambda k, y, t: {"id": k, "probabilities": right(y)}, {}, 0.9),
    "a list in another order": (
        lambda k, y, t: {"id": k, "probabilities": right(y)[::-1]}, {"classes": ["good", "bad"]}, 0.9
    ),
    "an object": (lambda k, y, t: {"id": k, "probs": dict(zip(("bad", "good"), right(y), strict=True))}, {}, 0.9),
    "logits": (lambda k, y, t: {"id": k, "logits": list(np.log(right(y)) + 3)}, {}, 0.9),
    "likeliest words, the rest dropped": (lambda k, y, t: {"id": k, "top_logprobs": top(y)}, {}, 0.875),
    "likeliest words, the rest spread": (
        lambda k, y, t: {"id": k, "top_logprobs": top(y)}, {"rest": Rest.spread}, 0.8
    ),
    "an object of words": (
        lambda k, y, t: {"id": k, "logprobs": {"positive" if y == "good" else "negative": -0.1}},
        {"words": {"good": ["positive"], "bad": ["negative"]}}, 1.0,
    ),
    "several answers": (lambda k, y, t: {"id": k, "probabilities": [right(y, 0.8), right(y, 1.0)]}, {}, 0.9),
    "votes": (lambda k, y, t: {"id": k, "answers": [y, y, "good"] if y == "good" else ["bad"]}, {}, 1.0),
    "by text": (lambda k, y, t: {"text": f" {t}  ", "probabilities": right(y)}, {}, 0.9),
}  # fmt: skip


@pytest.mark.parametrize("name", FORMS)
def test_every_form_of_an_answer_becomes_the_probabilities_that_it_stands_for(
    rows: tuple[Path, Rows], tmp_path: Path, name: str
) -> None:
    fields, settings, expected = FORMS[name]
    data = files(rows[0]).load("auto", 1)
    answers = kept(data, written(tmp_path / "a.jsonl", rows[1], fields), tmp_path, **settings)
    found = shares(data, answers)[np.arange(len(data.train)), data.train.known_labels]
    np.testing.assert_allclose(found, expected, atol=2e-6)
    assert answers.weights(data.train) is None or name == "several answers"


def test_tables_and_arrays_hold_the_same_answers(rows: tuple[Path, Rows], tmp_path: Path) -> None:
    data = files(rows[0]).load("auto", 1)
    table = {
        "id": [row[0] for split in rows[1].values() for row in split],
        "logits": [[2.0 * (row[1] == "bad"), 1.0] for split in rows[1].values() for row in split],
    }
    pq.write_table(pa.table(table), tmp_path / "a.parquet")
    lines = [f'{key},"{json.dumps(logits)}"' for key, logits in zip(*table.values(), strict=True)]
    (tmp_path / "a.csv").write_text("\n".join(["id,logits", *lines]) + "\n")
    of_tables = [kept(data, tmp_path / name, tmp_path).of(data.train) for name in ("a.parquet", "a.csv")]
    by_number = files(rows[0], id=None).load("auto", 1)
    np.save(tmp_path / "a.npy", np.array(table["logits"][: SIZES["train"]]))
    of_array = kept(by_number, tmp_path / "a.npy", tmp_path, form=AnswerForm.logits).of(by_number.train)
    assert all((logits == of_array).all() for logits in of_tables)
    assert of_array.shape == (SIZES["train"], 2)


def test_rows_cut_off_for_the_test_keep_the_numbers_that_they_had_in_the_file(
    rows: tuple[Path, Rows], tmp_path: Path
) -> None:
    data = Files(train=str(rows[0] / "train.jsonl")).load("auto", 1)
    logits = np.array([[np.cos(n), np.sin(n)] for n in range(SIZES["train"])])
    np.save(tmp_path / "a.npy", logits)
    answers = kept(data, tmp_path / "a.npy", tmp_path, classes=["bad", "good"])
    texts = [text for *_, text in rows[1]["train"]]
    for split in (data.train, data.validation, data.test):
        found = [min(np.abs(logits[[n for n, t in enumerate(texts) if t == text]] - row).sum(-1).min() for _ in (0,))
                 for text, row in zip(split.texts, answers.of(split), strict=True)]  # fmt: skip
        np.testing.assert_allclose(found, 0, atol=1e-6)


def test_rows_whose_answers_differ_weigh_as_much_as_two_of_them_agree(rows: tuple[Path, Rows], tmp_path: Path) -> None:
    data = files(rows[0]).load("auto", 1)
    votes = written(tmp_path / "a.jsonl", rows[1], lambda k, y, t: {"id": k, "answers": [y, y, y, "good"]})
    weights = kept(data, votes, tmp_path).weights(data.train)
    assert weights is not None
    torn = data.train.known_labels == data.task.encode("bad")
    np.testing.assert_allclose(weights[torn], 0.75**2 + 0.25**2)
    np.testing.assert_allclose(weights[~torn], 1)
    assert kept(data, votes, tmp_path, weigh=False).weights(data.train) is None


BAD: dict[str, tuple[Callable[[dict[str, Any]], Any], dict[str, Any], str]] = {
    "sum": (lambda row: row | {"probabilities": [0.5, 0.3]}, {}, "line 7: the probabilities 0.5, 0.3 do not sum to 1"),
    "range": (lambda row: row | {"probabilities": [1.2, -0.2]}, {}, "line 7: the probabilities 1.2, -0.2 do not lie"),
    "nan": (lambda row: row | {"probabilities": [float("nan"), 1.0]}, {}, "line 7: holds nan, which is not a finite"),
    "short": (lambda row: row | {"probabilities": [1.0]}, {}, "line 7: has 1 numbers for 2 classes"),
    "class": (lambda row: row | {"probabilities": {"bad": 0.5, "nice": 0.5}}, {}, "line 7: names the class 'nice'"),
    "lacking": (lambda row: row | {"probabilities": {"bad": 1.0}}, {}, "line 7: has no number for the class 'good'"),
    "text": (lambda row: row | {"probabilities": ["much", 0.1]}, {}, "line 7: holds 'much' where a number is expected"),
    "duplicate": (lambda row: row | {"id": "tr-0"}, {}, "line 7: the id 'tr-0' is that of .*line 1 too"),
    "no id": (lambda row: row | {"id": ""}, {}, "line 7: has no 'id', by which it is matched"),
    "broken": (lambda row: "{", {}, "line 7: not valid JSON"),
    "order": (
        lambda row: row,
        {"classes": ["good", "bad"]},
        r"would answer 100.* correctly .*correct teacher.classes .bad is good",
    ),
    "classes": (lambda row: row, {"classes": ["good"]}, "teacher.classes lacks the class 'bad'"),
    "column": (lambda row: row, {"column": "prob"}, r"has no column 'prob' \(teacher.column\)"),
    "key": (lambda row: row, {"keys": ["key"]}, r"has no column 'key' \(teacher.keys\)"),
    "number": (lambda row: row, {"match": Match.number}, "is matched by number, and the rows of data.train have ids"),
}


@pytest.mark.parametrize("name", BAD)
def test_a_bad_answer_is_one_sentence_with_its_line_before_any_work(
    rows: tuple[Path, Rows], tmp_path: Path, name: str
) -> None:
    change, settings, expected = BAD[name]
    lines = [json.dumps({"id": key, "probabilities": right(y)}) for split in rows[1].values() for key, y, _ in split]
    changed = change(json.loads(lines[6]))
    lines[6] = changed if isinstance(changed, str) else json.dumps(changed)
    (tmp_path / "a.jsonl").write_text("\n".join(lines) + "\n")
    recipe = taught(rows[0], tmp_path, teacher=AnswerFile(file=str(tmp_path / "a.jsonl"), **settings))
    with pytest.raises(RecipeError, match=expected) as refused:
        check(recipe)
    assert len(refused.value.faults) == 1
    assert not (tmp_path / "run").exists()


def test_an_array_with_too_few_rows_of_another_width_or_not_finite_is_refused(
    rows: tuple[Path, Rows], tmp_path: Path
) -> None:
    data = files(rows[0], id=None).load("auto", 1)
    broken = np.tile([2.0, -1.0], (SIZES["train"], 1))
    broken[4, 1] = np.inf
    for values, expected in (
        (np.zeros((100, 2)), "too few rows to be matched by number: it has 100, and data.train 120"),
        (np.zeros((130, 2)), "too many rows"),
        (np.zeros((120, 3)), "has 3 columns, and the data has 2 classes"),
        (np.zeros(120), r"holds float64 of shape \(120,\)"),
        (broken, "row 5: holds a number that is not finite"),
    ):
        np.save(tmp_path / "a.npy", values)
        with pytest.raises(ModelError, match=expected):
            AnswerFile(file=str(tmp_path / "a.npy")).inspect(data)
        (tmp_path / "a.npy").unlink()


def taught(folder: Path, tmp_path: Path, **changes: Any) -> Recipe:
    settings: dict[str, Any] = {
        "recipe": "answers", "name": "run", "output": str(tmp_path / "run"), "cache": str(folder / "cache"),
        "data": files(folder), "export": {},
        "student": BiLstm(tokens=Pieces.words, start=WordStart.random, min_count=1),
        "distill": Distill(losses={"soft": SoftTargets(), "hard": HardLabels()}, epochs=4, learning_rate=1e-2),
        "benchmark": Benchmark(rows=5, batches=[1], tokens=[8], seconds=0.02, labels_only=False, teacher_int8=False),
    }  # fmt: skip
    return Recipe(**settings | changes)


def test_rows_without_an_answer_are_learned_by_their_labels_and_the_report_says_so(
    rows: tuple[Path, Rows], tmp_path: Path
) -> None:
    wrong = {"tr-3", "tr-4"}  # labels that the answers contradict

    def some(key: str, label: str, text: str) -> dict[str, Any]:
        if key.startswith("te") or int(key[3:]) % 3 == 2:
            return {"id": key, "probabilities": None}
        return {"id": key, "probabilities": right({"bad": "good", "good": "bad"}[label] if key in wrong else label)}

    file = written(tmp_path / "a.jsonl", rows[1], some)
    teacher = AnswerFile(file=str(file), calibrate=True, latency_ms=350, cost_per_1000=1.5)
    run = taught(rows[0], tmp_path, teacher=teacher).run()
    stages = {stage["name"]: stage for stage in report(tmp_path)["stages"]}
    details = stages["teacher"]["details"]
    assert details["coverage"] == {"training": [80, 120], "validation": [27, 40], "test": [0, 60]}
    assert details["agreement"]["training"] == pytest.approx(78 / 80)
    assert {suspect["row"] for suspect in details["suspects"]} == wrong
    assert details["temperature"] == details["calibration"]["temperature"] < 1  # right more often than they say
    assert not {"metrics", "agreement", "retained"} & stages["teacher"].keys()  # no test row has an answer
    assert stages["distill"]["metrics"]["accuracy"] > 0.9
    assert not {"agreement", "retained"} & stages["distill"].keys()
    page = (tmp_path / "run" / "report.md").read_text()
    assert "350 (stated)" in page
    assert "1.5" in page
    assert run.state.teacher is None


def test_rows_without_an_answer_are_left_out_or_refused_as_the_setting_says(
    rows: tuple[Path, Rows], tmp_path: Path
) -> None:
    half = {name: split[::2] for name, split in rows[1].items()}
    file = written(tmp_path / "a.jsonl", half, lambda k, y, t: {"id": k, "probabilities": right(y)})
    data = files(rows[0]).load("auto", 1)
    assert len(AnswerFile(file=str(file), missing=Missing.leave_out).inspect(data).data.train) == 60
    with pytest.raises(ModelError, match="no answer to 60 of 120 rows; the first is 'tr-1'"):
        AnswerFile(file=str(file), missing=Missing.refuse).inspect(data)
    unread = taught(
        rows[0], tmp_path, teacher=AnswerFile(file=str(file)), distill=Distill(losses={"soft": SoftTargets()})
    )
    with pytest.raises(RecipeError, match=r"teacher.missing = 'labels': has 60 training rows to learn by their labels"):
        check(unread)


def test_rows_that_augment_makes_have_no_answers(rows: tuple[Path, Rows], tmp_path: Path) -> None:
    file = written(tmp_path / "a.jsonl", rows[1], lambda k, y, t: {"id": k, "probabilities": right(y)})
    recipe = taught(rows[0], tmp_path, teacher=AnswerFile(file=str(file)), augment={"perturb": Perturb(mask_rate=0)})
    with pytest.raises(RecipeError, match="no answers to the rows that augment adds"):
        check(recipe)


def test_files_that_are_not_there_or_not_answers_are_refused(tmp_path: Path) -> None:
    (tmp_path / "answers.jsonl").write_text("{}\n")
    for name, expected in (
        ("", "needs a file"),
        ("answer.jsonl", "Did you mean .*answers.jsonl"),
        (".", "is a directory"),
    ):
        path = str(tmp_path / name) if name else ""
        (fault,) = [item for item in AnswerFile(file=path).faults() if item.setting == "file"]
        assert re.search(expected, str(fault))


@pytest.mark.slow
def test_a_file_of_logits_teaches_to_the_bit_what_its_teacher_teaches(rows: tuple[Path, Rows], tmp_path: Path) -> None:
    labels = {"id2label": {0: "bad", 1: "good"}, "label2id": {"bad": 0, "good": 1}}
    for name, seed in (("teacher", 1), ("student", 2)):
        save_model(tiny_model(seed=seed, **labels), tiny_tokenizer(), tmp_path / name)
    teacher = Teacher(model=str(tmp_path / "teacher"), max_tokens=32)
    student = Saved(model=str(tmp_path / "student"))
    live = taught(rows[0], tmp_path, teacher=teacher, student=student, output=str(tmp_path / "live")).run().state
    data = files(rows[0]).load("auto", 1)
    workshop, model = Workshop(rows[0] / "cache"), load_model(live.given_teacher.folder)
    tokens = tokenize(live.data.transfer, load_tokenizer(live.given_teacher.folder), 32)
    learned = on_disk(workshop, live.given_teacher, model, tokens, {}).maps["logits_0"].reshape(len(tokens), 2)
    measured = [OfModel(live.given_teacher).logits(split, workshop) for split in (data.validation, data.test)]
    keys = [key for split in (data.train, data.validation, data.test) for key in split.ids or ()]
    lines = [
        json.dumps({"id": key, "logits": dict(zip(("bad", "good"), row.tolist(), strict=True))})
        for key, row in zip(keys, np.concatenate([learned, *measured]), strict=True)
    ]
    (tmp_path / "a.jsonl").write_text("\n".join(lines) + "\n")
    from_file = taught(rows[0], tmp_path, teacher=AnswerFile(file=str(tmp_path / "a.jsonl")), student=student).run()
    students = (from_file.state.given_student, live.given_student)
    assert len({hash_file(student.folder / "model.safetensors") for student in students}) == 1
