"""A language model behind a server is asked about every row, over a real socket; replies are kept and never lost."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from compress.cli.main import main
from compress.data import Files
from compress.data.dataset import Dataset
from compress.errors import ModelError
from compress.pipeline.state import State
from compress.pipeline.workshop import Workshop
from compress.settings import all_faults
from compress.teachers.answer_values import Rest
from compress.teachers.answers import AnswerFile, KeptAnswers, Missing
from compress.teachers.endpoint import Endpoint
from compress.teachers.endpoint_client import Api, Pace, pause
from tests.conftest import reviews, write_tsv
from tests.teachers.serving import Reply, Served, chat, completion, serving

SIZES = {"train": 60, "validation": 20, "test": 20}
SECRET = "sk-never-write-this"


@pytest.fixture
def served() -> Iterator[Served]:
    with serving() as found:
        yield found


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("rows")
    for seed, (name, count) in enumerate(SIZES.items(), 1):
        write_tsv(folder / f"{name}.tsv", reviews(count, seed))
    return folder


@pytest.fixture
def data(folder: Path) -> Dataset:
    return Files(**{name: str(folder / f"{name}.tsv") for name in SIZES}).load("auto", 1)


def endpoint(served: Served, **settings: Any) -> Endpoint:
    return Endpoint(url=served.url, model="judge", **{"retries": 0, **settings})


def asked(teacher: Endpoint, data: Dataset, cache: Path) -> State:
    assert not list(all_faults(teacher))
    teacher.inspect(data)
    return teacher(State.begin(data=data, workshop=Workshop(cache), seed=1))


def texts(data: Dataset) -> set[str]:
    return {text for rows in (data.train, data.validation, data.test) for text in rows.texts}


@pytest.mark.parametrize(("api", "reply"), [(Api.chat, chat), (Api.completions, completion)])
def test_the_likeliest_words_become_the_probabilities_of_the_classes(
    served: Served, data: Dataset, tmp_path: Path, api: Api, reply: Reply
) -> None:
    served.reply = reply
    state = asked(endpoint(served, api=api, prompt="{text} is: {words}"), data, tmp_path)
    assert isinstance(state.answers, KeptAnswers)
    assert state.teacher is None
    shares = data.task.probabilities(state.answers.of(data.test))[np.arange(len(data.test)), data.test.known_labels]
    np.testing.assert_allclose(shares, 7 / 9, atol=2e-6)
    sent = served.requests[0]
    asked_for = {"max_tokens": 1, "temperature": 0, "model": "judge"}
    how = {"logprobs": True, "top_logprobs": 20} if api is Api.chat else {"logprobs": 20}
    assert sent.items() >= (asked_for | how).items()
    prompt = sent["messages"][0]["content"] if api is Api.chat else sent["prompt"]
    assert prompt.removesuffix(" is: bad, good") in texts(data)
    assert "Authorization" not in served.headers[0]


def test_what_was_answered_before_a_failure_is_kept_and_asked_never_again(
    served: Served, data: Dataset, tmp_path: Path
) -> None:
    def dies(prompt: str) -> tuple[int, dict[str, str], bytes]:
        return chat(prompt) if len(served.requests) <= 30 else (503, {}, b"overloaded")

    served.reply = dies
    with pytest.raises(ModelError, match=r"answers 503: overloaded\. What was answered is kept"):
        asked(endpoint(served, at_once=1), data, tmp_path)
    answered = served.prompts()[:30]
    (log,) = tmp_path.glob("replies-*/replies.jsonl")
    log.write_bytes(log.read_bytes() + b'{"prompt": "half a li')  # killed while it wrote
    served.reply, served.requests = chat, []
    asked(endpoint(served), data, tmp_path)
    assert sorted(served.prompts() + answered) == sorted({*served.prompts(), *answered})
    assert len({*served.prompts(), *answered}) == len(texts(data))
    served.requests = []
    asked(endpoint(served, rest=Rest.spread, words={"good": ["good", "great"]}), data, tmp_path)
    assert served.requests == []


def test_passing_trouble_is_waited_for_and_the_servers_own_pause_is_kept(
    served: Served, data: Dataset, tmp_path: Path
) -> None:
    seen: set[str] = set()

    def busy(prompt: str) -> tuple[int, dict[str, str], bytes]:
        if prompt in seen:
            return chat(prompt)
        seen.add(prompt)
        return 429, {"Retry-After": "0"}, b'{"error": {"message": "slow down", "code": "rate_limit_exceeded"}}'

    served.reply = busy
    asked(endpoint(served, retries=1), data, tmp_path)
    assert len(served.requests) == 2 * len(texts(data))
    assert [int(pause(attempt, None)) for attempt in range(3)] == [1, 2, 4]
    assert (pause(9, "7"), pause(0, "1e9")) == (7, 300)


def test_requests_start_as_far_apart_as_the_limit_says() -> None:
    pace = Pace(120, now=lambda: 50.0)
    assert [pace.turn() for _ in range(3)] == [0.0, 0.5, 1.0]
    assert [Pace(None).turn() for _ in range(3)] == [0.0, 0.0, 0.0]


def test_the_key_is_sent_and_written_nowhere(
    served: Served, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("MY_KEY", SECRET)
    splits = [f"data.{name}={folder / f'{name}.tsv'}" for name in SIZES]
    words = [
        "recipe=answers", "data=files", *splits, "teacher=endpoint", f"teacher.url={served.url}",
        "teacher.model=judge", "teacher.key=MY_KEY", "teacher.retries=0", f"cache={tmp_path / 'cache'}",
    ]  # fmt: skip
    assert main(["answer", str(tmp_path / "answers.jsonl"), *words]) == 0, capsys.readouterr().err
    assert {headers["Authorization"] for headers in served.headers} == {f"Bearer {SECRET}"}
    first = json.loads((tmp_path / "answers.jsonl").read_text().splitlines()[0])
    assert list(first) == ["id", "text", "top_logprobs"]
    assert [entry["token"] for entry in first["top_logprobs"]] == [" Good", "bad", "The"]
    data = Files(**{name: str(folder / f"{name}.tsv") for name in SIZES}).load("auto", 13)
    kept = AnswerFile(file=str(tmp_path / "answers.jsonl"))(
        State.begin(data=data, workshop=Workshop(tmp_path / "cache"), seed=13)
    ).answers
    live = asked(endpoint(served), data, tmp_path / "cache").answers
    assert isinstance(kept, KeptAnswers)
    assert isinstance(live, KeptAnswers)
    np.testing.assert_array_equal(kept.of(data.train), live.of(data.train))
    served.reply = lambda _: (500, {}, f"cannot use {SECRET}".encode())
    assert main(["answer", str(tmp_path / "more.jsonl"), *words, "teacher.system=Be brief."]) == 2
    printed = "".join(capsys.readouterr())
    assert "cannot use …" in printed
    assert SECRET not in printed
    for path in (path for path in tmp_path.rglob("*") if path.is_file()):
        assert SECRET.encode() not in path.read_bytes(), path


NONE_OF_THEM = json.dumps(
    {"choices": [{"logprobs": {"content": [{"token": "So", "logprob": -0.1, "top_logprobs": []}]}}]}
).encode()
REFUSALS: dict[str, tuple[tuple[int, dict[str, str], bytes], str]] = {
    "a key is missing": ((401, {}, b"who are you?"), r"asks for a key, .*KEY_OF_TESTS is not set \(401\)\. Set it"),
    "no such model": ((404, {}, b'{"error": {"message": "no model judge"}}'), r"or no model 'judge' \(404: no model"),
    "a bad request": ((400, {}, b'{"error": "at most 5"}'), r"refuses the request \(400: at most 5\)"),
    "no money left": (
        (429, {}, b'{"error": {"message": "no credit", "code": "insufficient_quota"}}'), r"request \(429: no credit\)"
    ),
    "a page": ((200, {}, b"<html>Sign in</html>"), r"but with '<html>Sign in</html>'\. Check .* teacher\.url"),
    "another place": ((307, {"Location": "http://127.0.0.1:9/"}, b""), r"redirects elsewhere \(307\)"),
    "no log-probabilities": ((200, {}, b'{"choices": [{"message": {}, "logprobs": null}]}'), "without log-probab"),
    "none of the words": (
        (200, {}, NONE_OF_THEM),
        r"no word of a class \(bad, good\) is among its likeliest next words to the first 20 prompts; "
        r"the first time they were 'So'\. Name the words",
    ),
    "not logarithms": ((200, {}, NONE_OF_THEM.replace(b"-0.1", b"0.9").replace(b"So", b"bad")), "is 0.9, above 0"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSALS)
def test_an_answer_of_no_use_is_a_sentence(served: Served, data: Dataset, tmp_path: Path, name: str) -> None:
    reply, expected = REFUSALS[name]
    served.reply = lambda _: reply
    with pytest.raises(ModelError, match=expected):
        asked(endpoint(served, key="KEY_OF_TESTS", at_once=1), data, tmp_path)
    assert len(served.requests) <= 21


def test_a_server_that_is_not_running_is_not_waited_for(data: Dataset, tmp_path: Path) -> None:
    teacher = Endpoint(url="http://127.0.0.1:9/v1", model="judge")
    with pytest.raises(ModelError, match=r"cannot be reached .*refused.*\. Check that the server is running"):
        asked(teacher, data, tmp_path)


def test_rows_that_a_server_refuses_or_answers_otherwise_are_without_an_answer(
    served: Served, data: Dataset, tmp_path: Path
) -> None:
    long, strange = data.train.texts[3], data.train.texts[5]

    def sometimes(prompt: str) -> tuple[int, dict[str, str], bytes]:
        if prompt.startswith(long):
            return 400, {}, b'{"error": {"message": "too long"}}'
        return (200, {}, NONE_OF_THEM) if prompt.startswith(strange) else chat(prompt)

    served.reply = sometimes
    state = asked(endpoint(served, at_once=1, missing=Missing.leave_out), data, tmp_path)
    assert len(state.data.train) == len(data.train) - 2
    assert "58 of 60 training rows" in " ".join(state.records[0].notes)
    assert "none of a class 2 times: the first was refused (400: too long)" in " ".join(state.records[0].notes)


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"url": ""}, "teacher.url: must be the address of an API"),
        ({"url": "localhost:8000"}, "must be an address"),
        ({"url": f"http://me:{SECRET}@host/v1"}, "without a user's name, a query or a fragment"),
        ({"url": f"https://host/v1?key={SECRET}"}, "without a user's name, a query or a fragment"),
        ({"key": SECRET}, "must be the name of an environment variable, not a key"),
        ({"prompt": "What is this?"}, "must hold {text}"),
        ({"per_minute": 0}, "must be at least 1"),
    ],
)
def test_settings_that_cannot_be_used_are_refused_without_the_key(settings: dict[str, Any], expected: str) -> None:
    (fault,) = all_faults(Endpoint(**{"url": "http://host/v1", "model": "judge", **settings}))
    message = str(fault.under("teacher"))
    assert expected in message
    assert SECRET not in message
