"""What is told: as text at three levels, and as lines of JSON with nothing else beside them."""

from __future__ import annotations

import dataclasses
import io
import json
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from compress import telling as module
from compress.cli.main import TELLING, main
from compress.progress import progress
from compress.telling import (
    Event,
    Failed,
    Level,
    Lines,
    Result,
    StageBegan,
    StageEnded,
    Terminal,
    detail,
    lines,
    say,
    tell,
    telling,
    warn,
)

DOCS = Path(__file__).parent.parent / "docs" / "running.md"


def everything() -> None:
    """Tell something of each kind."""
    tell(StageBegan(stage="distill"))
    say("a remark")
    detail("a detail")
    warn("a warning")
    tell(StageEnded(stage="distill", reused=False, usage={"seconds": 2.0}, notes=["a note"]))
    tell(Result(values={"report": "r.json"}, show=lambda: print("a table")))
    tell(Failed(message="wrong", code=2))


def read(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines()]


@pytest.mark.parametrize(
    ("level", "printed"),
    [
        (Level.quiet, ["a warning", "wrong"]),
        (Level.usual, ["distill", "a remark", "a warning", "  a note; 2 s", "wrong"]),
        (Level.detailed, ["distill", "a remark", "a detail", "a warning", "  a note; 2 s", "wrong"]),
    ],
)
def test_each_level_prints_what_those_below_print_and_more(
    level: Level, printed: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with telling(Terminal(level)):
        everything()
    out, error = capsys.readouterr()
    assert out == "a table\n"
    assert error.splitlines() == printed


def test_events_are_lines_of_json_with_the_documented_fields(capsys: pytest.CaptureFixture[str]) -> None:
    with lines(Level.detailed):
        everything()
        print("a library prints")
    out, error = capsys.readouterr()
    assert error == "a library prints\n"
    events = read(out)
    assert [event["event"] for event in events] == [
        "stage_began", "remark", "detail", "warning", "stage_ended", "result", "fault",
    ]  # fmt: skip
    assert events[4] | {"time": ""} == {
        "event": "stage_ended", "time": "", "stage": "distill", "reused": False, "usage": {"seconds": 2.0},
        "notes": ["a note"],
    }  # fmt: skip
    assert (events[5]["report"], events[6]["message"], events[6]["code"]) == ("r.json", "wrong", 2)
    with lines(Level.quiet):
        everything()
    assert [event["event"] for event in read(capsys.readouterr().out)] == ["warning", "result", "fault"]


def test_every_event_and_each_of_its_fields_is_documented() -> None:
    every = [kind for kind in vars(module).values() if isinstance(kind, type) and issubclass(kind, Event)]
    kinds = {kind.name: kind for kind in every if kind is not Event}
    table = dict(re.findall(r"^\| `(\w+)` \| (.*?) \|", DOCS.read_text(), re.MULTILINE))
    assert set(kinds) | {"event"} == set(table)
    for name, kind in kinds.items():
        fields = [] if name == "result" else [field.name for field in dataclasses.fields(kind)]
        assert set(fields) <= set(re.findall(r"`(\w+)`", table[name])), name


def test_bars_become_events_and_are_silent_where_little_is_told() -> None:
    out = io.StringIO()
    with telling(Lines(out)):
        for _ in progress(range(3), title="teacher outputs", unit="batch", miniters=1):
            pass
        with progress(total=4, title="training", unit="step") as bar:
            bar.set_postfix(loss="0.5", refresh=False)
            bar.update(4)
            bar.refresh()
    first, *_, last = read(out.getvalue())
    assert first["event"] == last["event"] == "progress"
    assert (first["title"], first["done"], first["total"], first["unit"]) == ("teacher outputs", 0, 3, "batch")
    assert (last["title"], last["done"], last["total"], last["state"]) == ("training", 4, 4, "loss=0.5")
    out, error = io.StringIO(), io.StringIO()
    with telling(Lines(out, Level.quiet)):
        list(progress(range(3), title="rows", unit="row"))
    with telling(Terminal(Level.quiet, error)):
        list(progress(range(3), title="rows", unit="row"))
    assert out.getvalue() == error.getvalue() == ""


def test_work_goes_on_where_nobody_reads_any_more() -> None:
    class Closed(io.StringIO):
        def write(self, text: str) -> int:
            raise BrokenPipeError

    with telling(Lines(Closed())):
        say("one")
        say("two")


@pytest.mark.parametrize("command", TELLING)
def test_a_refusal_is_an_event_of_every_long_command(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    try:
        code = main([command, "word", "--json", "--no-such-option"])
    except SystemExit as stop:
        code = int(str(stop.code))
    out, error = capsys.readouterr()
    (event,) = read(out)
    assert code == event["code"] == 2
    assert event["event"] == "fault"
    assert "unknown option --no-such-option" in event["message"]
    assert error == ""


def test_each_wrong_setting_is_told_by_itself(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run", "seeed=3", "prune.heads.ratio=[a]", "--json"]) == 2
    (event,) = read(capsys.readouterr().out)
    assert {"setting": "seeed", "value": "3", "rule": "is not a setting", "remedy": "Did you mean seed?"} in event[
        "faults"
    ]
    assert len(event["faults"]) > 1


PRINTS = """
import os, subprocess, sys
from compress.telling import Level, lines, say
with lines(Level.usual):
    print("python")
    os.write(1, b"native\\n")
    subprocess.run(["echo", "child"])
    say("told")
print("after")
"""


def test_nothing_that_libraries_and_children_print_is_between_the_lines() -> None:
    done = subprocess.run([sys.executable, "-c", PRINTS], capture_output=True, text=True, check=True)
    told, after = done.stdout.splitlines()
    assert json.loads(told)["message"] == "told"
    assert after == "after"
    assert sorted(done.stderr.split()) == ["child", "native", "python"]


STOPPED = """
import signal
from compress.starting import stopping_at_once
from compress.telling import Level, lines
with lines(Level.usual), stopping_at_once():
    signal.raise_signal(signal.SIGTERM)
"""


def test_a_process_that_is_ended_while_it_imports_says_so_in_a_line() -> None:
    done = subprocess.run([sys.executable, "-c", STOPPED], capture_output=True, text=True, check=False)
    (event,) = read(done.stdout)
    assert done.returncode == event["code"] == 128 + signal.SIGTERM
    assert event["event"] == "fault"
