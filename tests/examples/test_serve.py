"""examples/serve: a real server, asked by many at once, against `compress predict`."""

from __future__ import annotations

import ast
import asyncio
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from compress.data.dataset import Dataset, Split
from compress.export.onnx import Onnx
from compress.models.loading import save_model
from compress.pipeline.model import Model
from compress.pipeline.state import State
from compress.pipeline.workshop import Workshop
from compress.quantize.symmetric import SymmetricInt8
from compress.run.predict import predict
from compress.tasks.base import Task
from compress.tasks.classification import Classification
from compress.tasks.regression import Regression
from compress.tasks.tags import Tags
from tests.conftest import reviews, tiny_model, tiny_tokenizer
from tests.export.triton_server import load
from tests.student.test_taggers import tagger

EXAMPLE = Path(__file__).parents[2] / "examples" / "serve"
LONG = "lovely " * 60  # above 32 tokens
TEXTS = ["good film", "The plot was very BAD and the actor is dull", LONG, "ünïcödé 电影", "a", "poor music so dull"]


@pytest.fixture(scope="module")
def app() -> Any:
    return load(EXAMPLE / "app.py", "serve_app")


def artifacts(folder: Path, task: Task) -> dict[str, Path]:
    """Return folders of a tiny student's artifacts, by name."""
    (folder / "student").mkdir()
    (folder / "cache").mkdir()
    save_model(tiny_model(**task.head_config()), tiny_tokenizer(), folder / "student")
    labels, texts = zip(*reviews(20, 0), strict=True)
    split = Split(texts, labels=np.array([label == "good" for label in labels], np.int64))
    state = State.begin(Dataset("reviews", task, split, split, split), Workshop(folder / "cache"), 0)
    state = SymmetricInt8(rows=8)(
        Onnx()(State.begin(state.data, state.workshop, 0, student=Model(folder / "student", "s")))
    )
    return {artifact.name: artifact.folder for artifact in state.artifacts}


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return artifacts(tmp_path_factory.mktemp("serve"), Classification(("bad", "good")))


def same(said: dict[str, Any], expected: dict[str, Any]) -> None:
    """Hold an answer against what `compress predict` says."""
    assert said.pop("truncated") in (True, False)
    assert set(said) == set(expected)
    for name, value in expected.items():
        assert said[name] == (value if isinstance(value, str) else pytest.approx(value, abs=1e-5))


@contextmanager
def serving(folder: Path, log: Path, *words: str) -> Iterator[str]:
    """Run the program on a free port; gives its address."""
    import socket

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, EXAMPLE / "app.py", folder, "--port", str(port), *words]
    with log.open("w") as out, subprocess.Popen(command, stdout=out, stderr=out) as server:
        address = f"http://127.0.0.1:{port}"
        try:
            until = time.monotonic() + 120
            while True:
                assert server.poll() is None, log.read_text()
                try:
                    httpx.get(f"{address}/health").raise_for_status()
                    break
                except httpx.TransportError:
                    assert time.monotonic() < until, log.read_text()
                    time.sleep(0.1)
            yield address
        finally:
            server.terminate()
            server.wait(30)


def test_a_tagger_answers_with_the_spans_of_compress_predict(app: Any, tmp_path: Path) -> None:
    task = Tags(("O", "B-a", "I-a", "B-b", "I-b"))
    (tmp_path / "cache").mkdir()
    save_model(tagger(task=task), tiny_tokenizer(), tmp_path / "student")
    split = Split(("good film", "bad"), labels=np.array([[0, 1], [0, -100]]), by_token=Tags)
    data = Dataset("tags", task, split, split, split)
    state = Onnx()(State.begin(data, Workshop(tmp_path / "cache"), 0, student=Model(tmp_path / "student", "s")))
    folder = state.artifacts[0].folder
    texts = [*TEXTS, "so very fine, good; film's plot was (dull) and a 电影 — \x08 lovely"]
    said = app.Artifact(folder, 1)([(text, None) for text in texts])
    expected = predict(folder, texts)
    assert sum(len(answer["spans"]) for answer in expected) > 5
    for ours, theirs in zip(said, expected, strict=True):
        for span, known in zip(ours["spans"], theirs["spans"], strict=True):
            assert span == known | {"score": pytest.approx(known["score"], abs=1e-5)}
    assert [answer["truncated"] for answer in said] == [False, False, True, False, False, False, False]


def counts(address: str) -> dict[str, int]:
    lines = httpx.get(f"{address}/metrics").text.splitlines()
    return {name.removeprefix("serve_"): int(value) for name, value in (line.split() for line in lines)}


def test_many_at_once_get_the_answers_of_compress_predict_from_few_batches(
    folders: dict[str, Path], tmp_path: Path
) -> None:
    texts = TEXTS * 8
    expected = predict(folders["onnx"], TEXTS)
    with (
        serving(folders["onnx"], tmp_path / "log", "--rows", "16", "--wait-ms", "200") as address,
        ThreadPoolExecutor(len(texts)) as askers,
    ):

        def ask(text: str) -> dict[str, Any]:
            reply = httpx.post(f"{address}/predict", json={"texts": [text]}, timeout=60)
            reply.raise_for_status()
            [one] = reply.json()["predictions"]
            return dict(one)

        said = list(askers.map(ask, texts))
        found = counts(address)
        assert httpx.get(f"{address}/health").json() == {
            "status": "ok", "model": folders["onnx"].name, "labels": ["bad", "good"], "waiting": 0,
        }  # fmt: skip
    for text, one in zip(texts, said, strict=True):
        assert one["truncated"] == (text == LONG)
        same(one, expected[TEXTS.index(text)])
    assert (found["requests"], found["rows"], found["refused"]) == (48, 48, 0)
    assert found["batches"] <= 24
    assert 2 <= found["largest_batch"] <= 16
    assert not (tmp_path / "log").read_text()


def asked(app: Any, folder: Path, *questions: dict[str, Any], **settings: Any) -> tuple[list[httpx.Response], str]:
    """Return the replies to questions asked at once of the application in this process, and its metrics."""

    async def all_of_them() -> tuple[list[httpx.Response], str]:
        made = app.create_app(folder, **settings)
        async with (
            made.router.lifespan_context(made),
            httpx.AsyncClient(transport=httpx.ASGITransport(made), base_url="http://serve") as client,
        ):
            replies = await asyncio.gather(*(client.post("/predict", json=question) for question in questions))
            return replies, (await client.get("/metrics")).text

    return asyncio.run(all_of_them())


def test_a_request_of_many_texts_is_answered_in_its_order(app: Any, folders: dict[str, Path]) -> None:
    for name in ("onnx", "symmetric"):
        [reply], metrics = asked(app, folders[name], {"texts": TEXTS}, most_rows=4, wait_ms=1)
        for one, expected in zip(reply.json()["predictions"], predict(folders[name], TEXTS), strict=True):
            same(one, expected)
        assert "serve_batches 2\n" in metrics  # 6 rows, at most 4 at once


def test_rows_of_requests_that_come_together_share_a_batch(app: Any, folders: dict[str, Path]) -> None:
    questions = [{"texts": [text]} for text in TEXTS]
    replies, metrics = asked(app, folders["onnx"], *questions, most_rows=6, wait_ms=5000)
    assert [reply.status_code for reply in replies] == [200] * 6
    assert "serve_batches 1\n" in metrics  # full, and so it did not wait for its time to be up
    assert "serve_largest_batch 6\n" in metrics


def test_pairs_are_read_as_pairs(app: Any, folders: dict[str, Path]) -> None:
    pairs = TEXTS[::-1]
    [reply], _ = asked(app, folders["onnx"], {"texts": TEXTS, "pairs": pairs})
    expected = predict(folders["onnx"], TEXTS, pairs)
    for one, other in zip(reply.json()["predictions"], expected, strict=True):
        same(one, other)
    assert expected != predict(folders["onnx"], TEXTS)


def test_scores_are_served(app: Any, tmp_path: Path) -> None:
    folder = artifacts(tmp_path, Regression(0.0, 1.0))["onnx"]
    [reply], _ = asked(app, folder, {"texts": TEXTS})
    for one, expected in zip(reply.json()["predictions"], predict(folder, TEXTS), strict=True):
        same(one, expected)


def test_more_than_may_wait_get_503_and_the_others_their_answer(app: Any, folders: dict[str, Path]) -> None:
    questions = [{"texts": ["good"] * 5}, {"texts": ["bad"] * 4}, {"texts": ["bad"] * 3}]
    replies, metrics = asked(app, folders["onnx"], *questions, wait_ms=300, most_waiting=8)
    assert [reply.status_code for reply in replies] == [200, 503, 200]
    assert replies[1].headers["Retry-After"] == "1"
    assert "serve_refused 1\n" in metrics
    assert "serve_rows 8\n" in metrics
    assert "serve_waiting 0\n" in metrics  # and there is room again


@pytest.mark.parametrize(
    "question",
    [
        {}, {"texts": []}, {"texts": [""]}, {"texts": [" \n"]}, {"texts": "good"}, {"texts": [1]},
        {"texts": ["good"] * 65}, {"texts": ["good"], "pairs": []}, {"texts": ["good"], "pairs": [" "]},
    ],
)  # fmt: skip
def test_what_is_no_question_is_refused(question: dict[str, Any], app: Any, folders: dict[str, Path]) -> None:
    [reply], metrics = asked(app, folders["onnx"], question)
    assert reply.status_code == 422
    assert "serve_rows 0\n" in metrics


def test_a_failing_batch_does_not_stop_the_server(app: Any, folders: dict[str, Path]) -> None:
    async def ask() -> list[Any]:
        batcher = app.Batcher(app.Artifact(folders["onnx"], 1), 8, 1.0, 8)
        running = asyncio.create_task(batcher.run())
        said: list[Any] = list(await asyncio.gather(batcher.ask([(None, None)]), return_exceptions=True))
        said += await batcher.ask([("good", None)])
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        return [*said, batcher.waiting]

    failed, answered, waiting = asyncio.run(ask())
    assert isinstance(failed, TypeError)
    same(answered, predict(folders["onnx"], ["good"])[0])
    assert waiting == 0


def test_a_client_that_has_gone_is_not_computed_for(app: Any, folders: dict[str, Path]) -> None:
    async def ask() -> dict[str, int]:
        batcher = app.Batcher(app.Artifact(folders["onnx"], 1), 8, 100.0, 8)
        running = asyncio.create_task(batcher.run())
        gone = asyncio.create_task(batcher.ask([("bad", None)] * 3))
        await asyncio.sleep(0)
        stays = asyncio.create_task(batcher.ask([("good", None)]))
        await asyncio.sleep(0)
        gone.cancel()
        await stays
        running.cancel()
        await asyncio.gather(running, gone, return_exceptions=True)
        return dict(batcher.counts) | {"waiting": batcher.waiting}

    found = asyncio.run(ask())
    assert (found["rows"], found["batches"], found["waiting"]) == (1, 1, 0)


def test_rows_of_very_different_lengths_are_not_padded_to_each_other(app: Any) -> None:
    assert app.groups([3, 32, 17, 5, 2, 15]) == [[1, 2], [5], [3, 0], [4]]
    assert app.groups([7, 7, 7]) == [[0, 1, 2]]
    assert sorted(row for group in app.groups(list(range(1, 50))) for row in group) == list(range(49))


def test_it_needs_what_it_says_and_nothing_of_this_package() -> None:
    nodes = list(ast.walk(ast.parse((EXAMPLE / "app.py").read_text())))
    names = {node.module or "" for node in nodes if isinstance(node, ast.ImportFrom)}
    names |= {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
    needed = {line.split(">=")[0] for line in (EXAMPLE / "requirements.txt").read_text().splitlines()}
    assert {name.split(".")[0] for name in names} - sys.stdlib_module_names == needed


def test_a_folder_without_a_graph_is_refused_in_one_sentence(tmp_path: Path) -> None:
    said = subprocess.run([sys.executable, EXAMPLE / "app.py", tmp_path], capture_output=True, text=True, check=False)
    assert said.returncode == 2
    assert said.stderr.splitlines()[-1].endswith("has no model.onnx; name the folder of an ONNX artifact")
