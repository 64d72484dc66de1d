"""What the property tests share: how anything at all that a user gives may end, and texts that are likely to hurt."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

from compress.errors import CompressError

SECONDS = 20  # of processor time that an example may take, however busy the machine is

FEW = settings(
    max_examples=10, derandomize=True, deadline=None, database=None, suppress_health_check=list(HealthCheck)
)  # the same examples each time, so that nobody's change fails by chance
MANY = settings(max_examples=400, deadline=None, database=None, suppress_health_check=list(HealthCheck))

NASTY_TEXTS = st.sampled_from(
    ["", " ", "\0", "\x1b[31m", "\ud800", "é" * 300, "x" * 30_000, "[" * 2000, "{" * 2000, "(" * 50, "'", '"', "\\",
     "${", "${seed}", "${oc.env:HOME}", "${now:%Y}", "${${seed}}", "${hydra.job.name}", "null", "???", "~", "a=b",
     "nan", "-inf", "1e999", "9" * 400, "9" * 5000, "0x10", "1:30", "_target_", "..", "/dev/null", "a" * 5000 + "/b"]
)  # fmt: skip
TEXTS = st.one_of(NASTY_TEXTS, st.text(max_size=20))
NUMBERS = st.one_of(st.integers(), st.floats(), st.sampled_from([0, -1, 1, 2**31, 10**400]))


def refused_or_done(action: Callable[[], Any], folder: Path) -> None:
    """Assert that ``action`` works or raises CompressError, soon, and writes nothing into ``folder``."""
    before = sorted(folder.rglob("*"))
    start = time.process_time()
    found, code = "done", 0
    try:
        action()
    except CompressError as error:
        found = str(error)
    except SystemExit as error:
        code = error.code
    assert found.strip()
    assert "Traceback" not in found
    assert code in (0, 2)
    assert time.process_time() - start < SECONDS
    assert sorted(folder.rglob("*")) == before
