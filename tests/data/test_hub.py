from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from compress.data import Hub
from compress.data.presets import PRESETS
from compress.errors import DataError
from compress.settings import all_faults
from compress.tasks.classification import Classification
from compress.tasks.regression import Regression


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A local folder that `load_dataset` reads as it does a hub repository: GLUE's shape, hidden test labels."""
    import datasets

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    classes = datasets.ClassLabel(names=["negative", "positive"])
    features = datasets.Features({"sentence": datasets.Value("string"), "label": classes})
    path = tmp_path / "set"
    path.mkdir()
    for split, rows in (("train", 60), ("validation", 20), ("test", 10)):
        labels = [-1 if split == "test" else i % 2 for i in range(rows)]
        texts = [f"{split} {i}" for i in range(rows)]
        if split == "train":
            labels[0], texts[1] = -1, " "
        table = pa.table({"sentence": texts, "label": labels}, schema=features.arrow_schema)
        pq.write_table(table, path / f"{split}.parquet")
    return path


def test_a_set_with_hidden_test_labels_is_measured_on_its_validation_rows(folder: Path) -> None:
    dataset = Hub(path=str(folder)).load("auto", 13)
    assert dataset.task == Classification(("negative", "positive"))
    assert dataset.test.texts == tuple(f"validation {i}" for i in range(20))
    assert len(dataset.train) + len(dataset.validation) == 58
    told = "\n".join(dataset.notes)
    assert "labels of split test are not public" in told
    assert "2 rows of split train without a text or a label are left out" in told


def test_a_split_may_be_named_for_unlabelled_rows(folder: Path) -> None:
    dataset = Hub(path=str(folder), unlabelled="test", text="sentence", label="label").load("auto", 13)
    assert dataset.unlabelled is not None
    assert dataset.unlabelled.texts == tuple(f"test {i}" for i in range(10))


@pytest.mark.parametrize(
    ("settings", "fragment"),
    [
        ({"subset": "sst2"}, "Name one: data.subset=NAME"),
        ({"train": "trian"}, "no such split (data.train). Did you mean train?"),
        ({"text": "sentense"}, "no column 'sentense' (data.text)"),
        ({"text": "label", "label": "sentence"}, "holds a number, not texts"),
    ],
)
def test_a_wrong_name_is_told_with_what_there_is(folder: Path, settings: dict[str, Any], fragment: str) -> None:
    with pytest.raises(DataError) as caught:
        Hub(path=str(folder), **settings).load("auto", 1)
    assert fragment in str(caught.value)


def test_scores_with_hidden_test_labels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import datasets

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    (tmp_path / "set").mkdir()
    for split in ("train", "validation", "test"):
        rows = [
            {"sentence1": f"{split} {i}", "sentence2": f"b{i}", "label": -1.0 if split == "test" else i / 8}
            for i in range(41)
        ]
        pq.write_table(pa.Table.from_pylist(rows), tmp_path / "set" / f"{split}.parquet")
    dataset = Hub(path=str(tmp_path / "set")).load("auto", 1)
    assert dataset.task == Regression(0, 5)
    assert dataset.test.texts[0] == "validation 0"
    assert dataset.test.pairs is not None


def test_offline_is_told_at_once_and_without_a_traceback(tmp_path: Path) -> None:
    program = (
        "from compress.data import Hub\nfrom compress.errors import DataError\n"
        "try:\n    Hub(path='nyu-mll/glue', subset='sst2').load('auto', 1)\n"
        "except DataError as error:\n    print(error)\n"
    )
    run = subprocess.run(
        [sys.executable, "-c", program],
        env={**os.environ, "HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    assert "HF_HUB_OFFLINE" in run.stdout
    assert "data=files" in run.stdout


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_is_a_faultless_setting(name: str) -> None:
    assert not list(all_faults(PRESETS[name]))


def test_faults_are_told_before_loading() -> None:
    told = "\n".join(map(str, all_faults(Hub(train="", text_pair="b"))))
    for fragment in ("must be the id of a data set", "needs the name of a split", "must be named when text_pair is"):
        assert fragment in told
