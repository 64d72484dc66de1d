"""Names that no hub has to be asked about, and a hub that does not answer."""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from huggingface_hub import constants

from compress import hub_access
from compress.cli.main import main
from compress.data import Hub
from compress.data.names import folder_instead, no_data_set
from compress.errors import DataError, ModelError
from compress.models.loading import load_config, load_model, load_tokenizer
from compress.student.saved import Saved
from compress.teachers.model import Teacher
from tests.conftest import reviews, save_tiny, write_tsv


@pytest.fixture(autouse=True)
def nowhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Stand in an empty folder, with a hub that refuses connections and a cache that is empty."""
    monkeypatch.chdir(tmp_path)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    monkeypatch.setattr(constants, "ENDPOINT", f"http://127.0.0.1:{port}")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    hub_access._answers.cache_clear()
    yield
    hub_access._answers.cache_clear()


@pytest.mark.parametrize(
    ("name", "rule", "remedy"),
    [
        ("./nope", "there is no such folder", ""),
        ("nope/", "there is no such folder", ""),
        ("~/no/such/model", "there is no such folder", ""),
        ("a/b/c", "there is no such folder", ""),
        ("./models/nmaed", "there is no such folder", "Did you mean models/named?"),
        ("train.tsv", "is a file, not a folder", ""),
        ("pipe", "is neither a file nor a folder", ""),
        ("dead", "is a symbolic link that leads nowhere", ""),
        ("minilmm", "is neither a folder nor a packaged model", "Did you mean minilm?"),
        ("MiniLM", "is neither a folder nor a packaged model", "Did you mean minilm?"),
    ],
)
def test_a_model_that_is_not_there_is_a_fault_of_the_settings(
    tmp_path: Path, name: str, rule: str, remedy: str
) -> None:
    (tmp_path / "models" / "named").mkdir(parents=True)
    write_tsv(tmp_path / "train.tsv", reviews(2, 1))
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "dead").symlink_to("nothing")
    (fault,) = (fault for fault in Teacher(model=name).faults() if fault.setting == "model")
    assert fault.rule == rule
    assert remedy in fault.remedy
    if "packaged" not in rule:
        assert [fault.rule for fault in Saved(model=name).faults()] == [rule]
        with pytest.raises(ModelError, match=rule):
            load_tokenizer(name)


@pytest.mark.parametrize("name", ["minilm", "bert-base-uncased", "google/bert_uncased_L-2_H-128_A-2"])
def test_what_a_hub_could_have_is_no_fault_of_the_settings(name: str) -> None:
    assert not list(Teacher(model=name).faults())


def test_a_folder_of_a_similar_name_is_a_hint_only_where_the_hub_has_no_such_model(tmp_path: Path) -> None:
    (tmp_path / "google" / "bert_uncased_L-4_H-256_A-4").mkdir(parents=True)
    name = "google/bert_uncased_L-2_H-128_A-2"
    assert not [*Teacher(model=name).faults(), *Saved(model=name).faults()]
    for load in (load_config, load_tokenizer):
        with pytest.raises(ModelError, match=r"cannot be reached\. Did you mean google/bert_uncased_L-4_H-256_A-4\?$"):
            load(name)
    snapshot = tmp_path / "cache" / "models--google--bert_uncased_L-2_H-128_A-2" / "snapshots" / ("0" * 40)
    snapshot.parent.mkdir(parents=True)
    save_tiny(snapshot, num_labels=2)
    (snapshot.parents[1] / "refs").mkdir()
    (snapshot.parents[1] / "refs" / "main").write_text("0" * 40)
    assert load_model(name).config.num_labels == 2


def test_a_student_in_the_home_folder_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    save_tiny(tmp_path / "student", num_labels=2)
    student = Saved(model="~/student")
    assert not list(student.faults())
    assert student.config(None).num_labels == 2


def test_a_hub_that_cannot_be_reached_is_told_at_once() -> None:
    start = time.perf_counter()
    told = r"is not in the hub's cache, and the hub .* cannot be reached"
    for load in (load_config, load_tokenizer):
        with pytest.raises(ModelError, match=f"there is no such folder, it {told}"):
            load("bert-base-uncased")
    with pytest.raises(DataError, match=told):
        Hub(path="nobody/nothing").read()
    assert time.perf_counter() - start < 5


def test_a_hub_that_never_answers_is_waited_for_once(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        monkeypatch.setattr(constants, "ENDPOINT", f"http://127.0.0.1:{silent.getsockname()[1]}")
        start = time.perf_counter()
        for _ in range(3):
            assert "cannot be reached" in hub_access.unreachable()
        assert time.perf_counter() - start < hub_access.PATIENCE + 2


def test_a_hub_that_answers_with_an_error_is_reachable(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()

        def answer() -> None:
            connection, _ = server.accept()
            with connection:
                connection.recv(4096)
                connection.sendall(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")

        threading.Thread(target=answer, daemon=True).start()
        monkeypatch.setattr(constants, "ENDPOINT", f"http://127.0.0.1:{server.getsockname()[1]}")
        assert hub_access.unreachable() == ""


def test_the_libraries_are_offline_only_within(tmp_path: Path) -> None:
    with hub_access.offline():
        assert constants.HF_HUB_OFFLINE
    assert not constants.HF_HUB_OFFLINE


@pytest.mark.parametrize("offline", [False, True])
def test_a_model_in_the_cache_is_taken_without_a_network(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, offline: bool
) -> None:
    snapshot = tmp_path / "cache" / "models--someone--tiny" / "snapshots" / ("0" * 40)
    snapshot.parent.mkdir(parents=True)
    save_tiny(snapshot, num_labels=2)
    (tmp_path / "cache" / "models--someone--tiny" / "refs").mkdir()
    (tmp_path / "cache" / "models--someone--tiny" / "refs" / "main").write_text("0" * 40)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", offline)
    start = time.perf_counter()
    assert load_tokenizer("someone/tiny").is_fast
    assert load_model("someone/tiny").config.num_labels == 2
    assert time.perf_counter() - start < 10
    with pytest.raises(ModelError, match="HF_HUB_OFFLINE forbids" if offline else "cannot be reached"):
        load_model("someone/other")


def test_a_file_or_a_folder_in_place_of_a_data_set_is_pointed_to_its_setting(tmp_path: Path) -> None:
    (tmp_path / "rows").mkdir()
    (tmp_path / "empty").mkdir()
    for name in ("rows/my_train.tsv", "rows/my_test.tsv", "my.tsv"):
        write_tsv(tmp_path / name, reviews(2, 1))
    assert no_data_set("my.tsv") == ("is a file, not a data set", "Read it with data=files data.train=my.tsv.")
    rule, remedy = no_data_set("rows/my_trian.tsv") or ("", "")
    assert rule == "does not exist"
    assert remedy.startswith("Did you mean rows/my_train.tsv?")
    assert no_data_set("./nope") == ("does not exist", "Read files with data=files data.train=PATH.")
    for name in ("owner/name", "rows", "empty"):
        assert no_data_set(name) is None
    assert folder_instead("rows") == (
        "is a folder",
        "Read its files: data=files data.train=rows/my_train.tsv data.test=rows/my_test.tsv.",
    )
    assert folder_instead("empty") == (
        "is a folder",
        "If the datasets library knows its layout: data=hub data.path=empty.",
    )
    assert folder_instead("owner/name") is None


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["data=my.tsv"], "data = 'my.tsv': is a file, not a data set. Read it with data=files data.train=my.tsv."),
        (["data=./my.tsv"], "data=files data.train=./my.tsv"),
        (["data=./nope"], "data = './nope': does not exist."),
        (["data=rows"], "data = 'rows': is a folder."),
        (["data=hub", "data.path=my.tsv"], "data.path = 'my.tsv': is a file, not a data set."),
        (["data=hub", "data.path=./nope"], "data.path = './nope': does not exist."),
        (["teacher.model=minilmm"], "Did you mean minilm?"),
    ],
)
def test_the_command_line_says_what_was_meant(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], words: list[str], told: str
) -> None:
    (tmp_path / "rows").mkdir()
    write_tsv(tmp_path / "my.tsv", reviews(2, 1))
    assert main(["run", "--cfg", *words]) == 2
    assert told in capsys.readouterr().err


def test_a_data_set_in_the_cache_is_read_without_a_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import datasets

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "sets")
    kinds = datasets.Features({"text": datasets.Value("string"), "label": datasets.ClassLabel(names=["bad", "good"])})
    rows = {"text": [f"film {i}" for i in range(40)], "label": [i % 2 for i in range(40)]}
    datasets.Dataset.from_dict(rows, features=kinds).to_parquet(str(tmp_path / "train.parquet"))
    datasets.load_dataset("parquet", data_files={"train": str(tmp_path / "train.parquet")})
    (made,) = (info.parent for info in (tmp_path / "sets").rglob("dataset_info.json"))
    cached = tmp_path / "sets" / "someone___my_set" / "default" / "0.0.0" / "hash"
    cached.parent.mkdir(parents=True)
    made.rename(cached)
    (cached / "parquet-train.arrow").rename(cached / "my_set-train.arrow")
    start = time.perf_counter()
    assert len(Hub(path="someone/MySet").read().train) == 40
    assert time.perf_counter() - start < 5
    assert not datasets.config.HF_HUB_OFFLINE
