"""examples/serve: a real server, asked by many at once, against `compress predict`."""

from __future__ import annotations

import ast
import asyncio
import base64
import json
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from serving.artifact import groups

from compress.data.dataset import Dataset, Split
from compress.errors import CompressError, ModelError
from compress.export.onnx import Onnx
from compress.models.loading import save_model
from compress.pipeline.model import Model
from compress.pipeline.stage import Stage
from compress.pipeline.state import State
from compress.pipeline.workshop import Workshop
from compress.quantize.symmetric import SymmetricInt8
from compress.run.bench import bench_paths
from compress.run.predict import predict
from compress.tasks.base import Task
from compress.tasks.classification import Classification
from compress.tasks.regression import Regression
from compress.tasks.tags import Tags
from compress.tasks.vectors import SentenceVectors
from tests.conftest import reviews, tiny_model, tiny_tokenizer
from tests.export.triton_server import load
from tests.student.test_taggers import tagger

EXAMPLE = Path(__file__).parents[2] / "examples" / "serve"
LONG = "lovely " * 60  # above 32 tokens
TEXTS = ["good film", "The plot was very BAD and the actor is dull", LONG, "ünïcödé 电影", "a", "poor music so dull"]


@pytest.fixture(scope="module")
def app() -> Any:
    return load(EXAMPLE / "app.py", "serve_app")


def artifacts(folder: Path, task: Task, *more: Stage, pairs: bool = False) -> dict[str, Path]:
    """Return folders of a tiny student's artifacts, by name: ``onnx``, and what ``more`` stages make."""
    (folder / "student").mkdir()
    (folder / "cache").mkdir()
    save_model(tiny_model(**task.head_config()), tiny_tokenizer(), folder / "student")
    labels, texts = zip(*reviews(20, 0), strict=True)
    split = Split(texts, texts if pairs else None, labels=np.array([label == "good" for label in labels], np.int64))
    state = State.begin(Dataset("reviews", task, split, split, split), Workshop(folder / "cache"), 0)
    state = State.begin(state.data, state.workshop, 0, student=Model(folder / "student", "s"))
    for stage in (Onnx(), *more):
        state = stage(state)
    return {artifact.name: artifact.folder for artifact in state.artifacts}


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return artifacts(tmp_path_factory.mktemp("serve"), Classification(("bad", "good")), SymmetricInt8(rows=8))


def same(message: dict[str, Any], expected: dict[str, Any]) -> None:
    """Hold an answer against what `compress predict` says."""
    assert message.pop("truncated") in (True, False)
    assert set(message) == set(expected)
    for name, value in expected.items():
        assert message[name] == (value if isinstance(value, str) else pytest.approx(value, abs=1e-5))


@contextmanager
def serving(folder: Path, log: Path, *words: str) -> Iterator[str]:
    """Run the program on a free port; gives its address."""
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
    found = app.Artifact(folder, 1)([(text, None) for text in texts])
    expected = predict(folder, texts)
    assert sum(len(answer["spans"]) for answer in expected) > 5
    for ours, theirs in zip(found, expected, strict=True):
        for span, known in zip(ours["spans"], theirs["spans"], strict=True):
            assert span == known | {"score": pytest.approx(known["score"], abs=1e-5)}
    assert [answer["truncated"] for answer in found] == [False, False, True, False, False, False, False]


def test_vectors_are_served_as_numbers_and_as_openais_clients_ask(app: Any, tmp_path: Path) -> None:
    task = SentenceVectors(0, 5, 16, "mean")
    (tmp_path / "cache").mkdir()
    save_model(tagger(task=task), tiny_tokenizer(), tmp_path / "student")
    split = Split(
        ("good film", "bad"), labels=task.parted(np.array([1.0]), np.array([7.0]), np.array([[0.0, 1.0]])), grouped=True
    )
    state = State.begin(Dataset("pairs", task, split, split, split), Workshop(tmp_path / "cache"), 0)
    state = Onnx()(replace(state, student=Model(tmp_path / "student", "s")))
    folder = state.artifacts[0].folder
    expected = np.array([answer["vector"] for answer in predict(folder, TEXTS)])

    async def all_of_them() -> dict[str, httpx.Response]:
        made = app.create_app(folder, most_rows=4, wait_ms=1)
        questions = {
            "/encode": {"texts": TEXTS},
            "/v1/embeddings": {"input": TEXTS, "model": "m"},
            "/v1/embeddings?": {"input": TEXTS[0], "encoding_format": "base64", "user": "u"},
            "/v1/embeddings?cut": {"input": TEXTS, "dimensions": 4},
            "/predict": {"texts": TEXTS},
        }
        async with (
            made.router.lifespan_context(made),
            httpx.AsyncClient(transport=httpx.ASGITransport(made), base_url="http://serve") as client,
        ):
            return {place: await client.post(place, json=question) for place, question in questions.items()}

    replies = asyncio.run(all_of_them())
    encoded, several, alone, cut, refused = (replies[place] for place in replies)
    np.testing.assert_allclose(encoded.json()["vectors"], expected, atol=1e-5)
    assert encoded.json()["truncated"] == [False, False, True, False, False, False]
    body = several.json()
    np.testing.assert_allclose([entry["embedding"] for entry in body["data"]], expected, atol=1e-5)
    assert [entry["index"] for entry in body["data"]] == list(range(len(TEXTS)))
    assert (body["object"], body["model"]) == ("list", "m")
    assert body["usage"]["prompt_tokens"] == sum(min(32, len(tiny_tokenizer()(text).input_ids)) for text in TEXTS)
    floats = np.frombuffer(base64.b64decode(alone.json()["data"][0]["embedding"]), dtype="<f4")
    np.testing.assert_allclose(floats, expected[0], atol=1e-5)
    assert (cut.status_code, refused.status_code) == (422, 422)
    assert "16 dimensions" in cut.json()["detail"]
    assert "ask /encode" in refused.json()["detail"]


def test_a_model_of_labels_gives_no_vectors(app: Any, folders: dict[str, Path]) -> None:
    async def asked() -> httpx.Response:
        made = app.create_app(folders["onnx"])
        async with (
            made.router.lifespan_context(made),
            httpx.AsyncClient(transport=httpx.ASGITransport(made), base_url="http://serve") as client,
        ):
            return await client.post("/encode", json={"texts": ["good"]})

    reply = asyncio.run(asked())
    assert (reply.status_code, reply.json()["detail"]) == (422, "this model gives no vectors: ask /predict")


def counts(address: str) -> dict[str, int]:
    lines = httpx.get(f"{address}/metrics").text.splitlines()
    return {name.removeprefix("serve_"): int(value) for name, value in (line.split() for line in lines)}


@pytest.fixture(scope="module")
def server(folders: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Path]]:
    """One server for all that needs sockets: its address, and what it printed."""
    log = tmp_path_factory.mktemp("server") / "log"
    words = ("--rows", "16", "--wait-ms", "300", "--bytes", "20000", "--seconds", "1.5")
    with serving(folders["onnx"], log, *words) as address:
        yield address, log


def test_many_at_once_get_the_answers_of_compress_predict_from_few_batches(
    folders: dict[str, Path], server: tuple[str, Path]
) -> None:
    address, log = server
    texts = TEXTS * 8
    expected, before = predict(folders["onnx"], TEXTS), counts(address)
    with ThreadPoolExecutor(len(texts)) as askers:

        def ask(text: str) -> dict[str, Any]:
            reply = httpx.post(f"{address}/predict", json={"texts": [text]}, timeout=60)
            reply.raise_for_status()
            [answer] = reply.json()["predictions"]
            return dict(answer)

        result = list(askers.map(ask, texts))
    found = {name: count - before[name] for name, count in counts(address).items()}
    assert httpx.get(f"{address}/health").json() == {
        "status": "ok", "model": folders["onnx"].name, "labels": ["bad", "good"], "waiting": 0,
    }  # fmt: skip
    for text, item in zip(texts, result, strict=True):
        assert item["truncated"] == (text == LONG)
        same(item, expected[TEXTS.index(text)])
    assert (found["requests"], found["rows"], found["refused"]) == (48, 48, 0)
    assert found["batches"] <= 24
    assert 2 <= counts(address)["largest_batch"] <= 16
    assert not log.read_text()


def sent(address: str, *parts: bytes, pause: float = 0.0) -> bytes:
    """Send bytes over a connection of its own, and return all that comes back until the server closes it."""
    host, _, port = address.removeprefix("http://").partition(":")
    with socket.create_connection((host, int(port)), timeout=20) as connection:
        for part in parts:
            with suppress(OSError):  # the server may have closed it
                connection.sendall(part)
            time.sleep(pause)
        answer = b""
        with suppress(ConnectionResetError):
            while more := connection.recv(4096):
                answer += more
        return answer


HEAD = b"POST /predict HTTP/1.1\r\nHost: serve\r\nContent-Type: application/json\r\n"


def test_a_body_above_the_limit_is_refused_before_it_is_read(server: tuple[str, Path]) -> None:
    address, _ = server
    assert b" 413 " in sent(address, HEAD + b"Content-Length: 1000000000000\r\n\r\n").splitlines()[0]
    chunk = b"4000\r\n" + b" " * 0x4000 + b"\r\n"
    assert b" 413 " in sent(address, HEAD + b"Transfer-Encoding: chunked\r\n\r\n", chunk, chunk).splitlines()[0]


def test_slow_clients_are_dropped_and_others_are_answered_meanwhile(server: tuple[str, Path]) -> None:
    address, _ = server
    with ThreadPoolExecutor(3) as clients:
        nothing = clients.submit(sent, address)
        half_a_head = clients.submit(sent, address, HEAD, b"X-A: b\r\n", pause=0.3)
        half_a_body = clients.submit(sent, address, HEAD + b"Content-Length: 90\r\n\r\n{", b'"texts"', pause=0.3)
        assert httpx.post(f"{address}/predict", json={"texts": ["good"]}, timeout=60).status_code == 200
        assert nothing.result() == half_a_head.result() == b""
        assert b" 408 " in half_a_body.result().splitlines()[0]


def test_a_client_that_vanishes_while_it_waits_is_not_computed_for(server: tuple[str, Path]) -> None:
    address, _ = server
    before, body = counts(address), b'{"texts": ["good", "bad"]}'
    host, _, port = address.removeprefix("http://").partition(":")
    with socket.create_connection((host, int(port))) as connection:
        connection.sendall(HEAD + f"Content-Length: {len(body)}\r\n\r\n".encode() + body)
        until = time.monotonic() + 60
        while counts(address)["requests"] == before["requests"] and time.monotonic() < until:
            time.sleep(0.01)
    reply = httpx.post(f"{address}/predict", json={"texts": ["good"]}, timeout=60)
    assert reply.status_code == 200
    found = counts(address)
    assert (found["requests"] - before["requests"], found["rows"] - before["rows"], found["waiting"]) == (2, 1, 0)


@pytest.mark.parametrize(
    "body",
    [
        b'{"texts": ["\\ud800"]}', b'{"texts": ["good \\udfff bad"]}', b'{"texts": [NaN]}',
        b'{"texts": ["a"], "x": NaN}', b"NaN", b'{"texts": ["a"], "pairs": ["\\ud800"]}', b"", b"[",
        b'{"texts": ["a"], "pair": ["b"]}', b'{"texts": 1e999}',
    ],
)  # fmt: skip
def test_what_is_no_text_is_422_with_a_reason(body: bytes, server: tuple[str, Path]) -> None:
    reply = httpx.post(f"{server[0]}/predict", content=body, headers={"content-type": "application/json"})
    assert reply.status_code == 422
    assert reply.json()["detail"]
    assert not server[1].read_text()


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
        for answer, expected in zip(reply.json()["predictions"], predict(folders[name], TEXTS), strict=True):
            same(answer, expected)
        assert "serve_batches 2\n" in metrics  # 6 rows, at most 4 at once


def test_rows_of_requests_that_come_together_share_a_batch(app: Any, folders: dict[str, Path]) -> None:
    questions = [{"texts": [text]} for text in TEXTS]
    replies, metrics = asked(app, folders["onnx"], *questions, most_rows=6, wait_ms=5000)
    assert [reply.status_code for reply in replies] == [200] * 6
    assert "serve_batches 1\n" in metrics  # full, and so it did not wait for its time to be up
    assert "serve_largest_batch 6\n" in metrics


def test_pairs_are_read_as_pairs_and_only_by_a_model_of_pairs(
    app: Any, folders: dict[str, Path], tmp_path: Path
) -> None:
    folder, pairs = artifacts(tmp_path, Classification(("bad", "good")), pairs=True)["onnx"], TEXTS[::-1]
    two, single = {"texts": TEXTS, "pairs": pairs}, {"texts": TEXTS}
    [reply, refused], _ = asked(app, folder, two, single)
    for answer, expected in zip(reply.json()["predictions"], predict(folder, TEXTS, pairs), strict=True):
        same(answer, expected)
    assert (refused.status_code, refused.json()["detail"]) == (
        422,
        "this model was made for pairs of texts: give pairs",
    )
    [refused], metrics = asked(app, folders["onnx"], two)
    assert refused.status_code == 422
    assert refused.json()["detail"] == "this model was made for single texts: leave out pairs"
    assert "serve_rows 0\n" in metrics
    with pytest.raises(ModelError, match="made for pairs of texts"):
        predict(folder, TEXTS)
    with pytest.raises(ModelError, match="made for single texts"):
        predict(folders["onnx"], TEXTS, pairs)


def test_scores_are_served(app: Any, tmp_path: Path) -> None:
    folder = artifacts(tmp_path, Regression(0.0, 1.0))["onnx"]
    [reply], _ = asked(app, folder, {"texts": TEXTS})
    for answer, expected in zip(reply.json()["predictions"], predict(folder, TEXTS), strict=True):
        same(answer, expected)


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


def test_a_rows_fault_is_its_own_and_the_server_lives_on(
    app: Any, folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    made = app.Artifact(folders["onnx"], 1)
    expected = predict(folders["onnx"], ["good", "bad"])
    good, read, bad = made([("good", None), (None, None), ("bad", None)])
    same(good, expected[0])
    same(bad, expected[1])
    assert read["error"].startswith("the text cannot be read")
    word = made.tokenizer.token_to_id("awful")

    class Broken:
        """The real session, which fails on one word as a kernel may on some input, and answers another with NaN."""

        def run(self, names: Any, inputs: dict[str, Any]) -> Any:
            if (inputs["input_ids"] == word).any():
                raise RuntimeError("no kernel")
            logits = session.run(names, inputs)[0]
            logits[(inputs["input_ids"] == made.tokenizer.token_to_id("dull")).any(1)] = np.nan
            return [logits]

    session, made.session = made.session, Broken()
    monkeypatch.setattr(app, "Artifact", lambda *_: made)
    questions = [{"texts": ["good", "awful", "dull", "bad"]}, {"texts": ["awful"]}, {"texts": ["bad"]}]
    [mixed, failed, whole], metrics = asked(app, folders["onnx"], *questions, most_rows=6, wait_ms=5000)
    assert "serve_batches 1\n" in metrics
    first, broken, unreal, last = mixed.json()["predictions"]
    for answer, right in ((first, expected[0]), (last, expected[1]), (whole.json()["predictions"][0], expected[1])):
        same(answer, right)
    assert broken == {"error": "the model failed: no kernel"}
    assert unreal == {"error": "the model's answer is not a number", "truncated": False}
    assert (failed.status_code, failed.json()["detail"]) == (500, "the model failed: no kernel")


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


def test_rows_of_very_different_lengths_are_not_padded_to_each_other() -> None:
    assert groups([3, 32, 17, 5, 2, 15]) == [[1, 2], [5], [3, 0], [4]]
    assert groups([7, 7, 7]) == [[0, 1, 2]]
    assert sorted(row for group in groups(list(range(1, 50))) for row in group) == list(range(49))


def test_it_needs_what_it_says_and_nothing_of_this_package() -> None:
    files = [*EXAMPLE.rglob("*.py")]
    nodes = [node for path in files for node in ast.walk(ast.parse(path.read_text()))]
    names = {node.module or "" for node in nodes if isinstance(node, ast.ImportFrom)}
    names |= {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
    needed = {line.split(">=")[0] for line in (EXAMPLE / "requirements.txt").read_text().splitlines()}
    assert {name.split(".")[0] for name in names} - sys.stdlib_module_names == needed | {"serving"}


def test_a_folder_without_a_graph_is_refused_in_one_sentence(tmp_path: Path) -> None:
    process = subprocess.run(
        [sys.executable, EXAMPLE / "app.py", tmp_path], capture_output=True, text=True, check=False
    )
    assert process.returncode == 2
    assert "config.json cannot be read" in process.stderr.splitlines()[-1]


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"onnxruntime": "99.0.0"}, "needs onnxruntime 99.0.0 or newer, and "),
        ({"instructions": ["avx1024"], "weight_bits": 8}, "its 8-bit weights need a processor with avx1024, and"),
        ({"file": "other.onnx"}, "has no ONNX graph"),
    ],
)  # fmt: skip
def test_what_this_machine_lacks_is_said_before_anything_is_served_or_predicted(
    changes: dict[str, Any], sentence: str, app: Any, folders: dict[str, Path], tmp_path: Path
) -> None:
    shutil.copytree(folders["onnx"], tmp_path / "copy")
    path = tmp_path / "copy" / "config.json"
    config = json.loads(path.read_text())
    config["compress"]["graph"] |= changes
    path.write_text(json.dumps(config))
    with pytest.raises(app.Unusable, match=sentence):
        app.Artifact(tmp_path / "copy", 1)
    if "file" not in changes:
        with pytest.raises(ModelError, match=sentence.replace("onnxruntime", "ONNX Runtime")):
            predict(tmp_path / "copy", ["good"])
        with pytest.raises(CompressError, match=sentence.replace("onnxruntime", "ONNX Runtime")):
            bench_paths([tmp_path / "copy"], [1], [8], 1)
