"""What is asked often answers at once: heavy packages wait until they are needed; an early Ctrl-C is one line."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from compress.cli.commands import NAMES, completion
from compress.cli.main import OVERVIEW, main
from compress.registry import GROUPS

HEAVY = ("torch", "transformers", "numpy", "hydra", "rich", "importlib.metadata")


@pytest.mark.parametrize(
    "words",
    [["--help"], ["--version"], ["recipes"], ["bench", "--help"], ["export", "--help"], ["completion", "words"]],
    ids=" ".join,
)
def test_answers_that_need_no_model_import_no_heavy_package(words: list[str]) -> None:
    code = f"""
import sys
from compress.cli.main import main
try:
    main({words!r})
finally:
    print([name for name in {HEAVY!r} if name in sys.modules], file=sys.stderr)
"""
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert run.stderr == "[]\n"
    assert run.stdout


@pytest.mark.parametrize(
    ("stop", "code", "moment"),
    [(signal.SIGINT, 130, "compress.errors"), (signal.SIGINT, 130, "torch._"), (signal.SIGTERM, 143, "torch._")],
)
def test_a_signal_while_modules_are_imported_ends_with_one_line(
    stop: signal.Signals, code: int, moment: str, tmp_path: Path
) -> None:
    program = [sys.executable, "-X", "importtime", "-m", "compress", "run", "--help"]
    with subprocess.Popen(
        program, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True, cwd=tmp_path
    ) as process:
        assert process.stderr is not None
        for line in process.stderr:  # each module is told as soon as it is imported
            if moment in line:
                break
        process.send_signal(stop)
        rest = [line for line in process.stderr if not line.startswith("import time:")]
    assert process.returncode == code
    assert rest == ["Stopped.\n"]


def test_every_command_is_in_the_overview() -> None:
    assert all(f"\n  {name} " in OVERVIEW for name in NAMES)


@pytest.mark.parametrize("shell", completion.SHELLS)
def test_a_completion_script_knows_every_command(shell: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["completion", shell]) == 0
    script = capsys.readouterr().out
    assert all(name in script for name in NAMES)


def test_completed_words_compose(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["completion", "words"]) == 0
    words = capsys.readouterr().out.split()
    assert {"recipe=quickstart", "prune=[heads]", "student=bert", "data=sst2"} <= set(words)
    assert all(word.split("=")[0] in {"recipe", *GROUPS} for word in words)


@pytest.mark.skipif(not Path("/bin/bash").exists(), reason="bash is not installed")
@pytest.mark.parametrize(
    ("typed", "expected"),
    [
        (["compress", "re"], "recipes"),
        (["compress", "run", "recipe", "=", "qui"], "quickstart"),
        (["compress", "run", "student", "="], "bilstm"),
    ],
)
def test_bash_completes(typed: list[str], expected: str, tmp_path: Path) -> None:
    (tmp_path / "compress").write_text(f'#!/bin/bash\nexec {sys.executable} -m compress "$@"\n')
    (tmp_path / "compress").chmod(0o755)
    words = " ".join(f"'{word}'" for word in typed)
    script = f"""
export PATH={tmp_path}:$PATH
source <(compress completion bash)
COMP_WORDS=({words}); COMP_CWORD={len(typed) - 1}; COMP_LINE="{" ".join(typed)}"; COMP_POINT=${{#COMP_LINE}}
_shtab_compress
printf '%s\\n' "${{COMPREPLY[@]}}"
"""
    run = subprocess.run(["/bin/bash", "-c", script], capture_output=True, text=True, check=False)
    assert expected in run.stdout.split(), run
