"""Fresh processes for tests, without the seconds that importing torch and transformers takes in each.

They are forks of a server that has imported those two packages and no more: no module of this project, no model type
that a test has registered, no state of a test. Where the import itself is what a test is about, it starts Python.
"""

from __future__ import annotations

import os
import sys
import tempfile
import traceback
from multiprocessing import get_context
from pathlib import Path

CONTEXT = get_context("forkserver")
CONTEXT.set_forkserver_preload(["tests.preloaded"])


def run_fresh(code: str, *arguments: object, folder: Path | None = None, seconds: float = 240) -> str:
    """Run ``code`` as ``python -c`` would, in ``folder``; return what it printed. Fails where the code does."""
    with tempfile.TemporaryDirectory() as place:
        words = ["-c", *map(str, arguments)]
        process = CONTEXT.Process(target=_execute, args=(code, words, str(folder or Path.cwd()), place))
        process.start()
        process.join(seconds)
        ended = process.exitcode is not None
        process.kill()
        process.join()
        printed, told = ("".join(path.read_text() for path in Path(place).glob(name)) for name in ("1", "2"))
        assert ended, f"not ended after {seconds} s\n{printed}{told}"
        assert process.exitcode == 0, printed + told
        return printed


def _execute(code: str, words: list[str], folder: str, streams: str) -> None:
    for number, name in enumerate(("stdout", "stderr"), start=1):
        stream = Path(streams, str(number)).open("w", buffering=1)  # noqa: SIM115  # open until the process ends
        os.dup2(stream.fileno(), number)
        setattr(sys, name, stream)
    sys.argv, status = words, 0
    os.chdir(folder)
    try:
        exec(compile(code, "<fresh>", "exec"), {"__name__": "__main__"})
    except BaseException:
        traceback.print_exc()
        status = 1
    sys.stdout.flush()
    os._exit(status)
