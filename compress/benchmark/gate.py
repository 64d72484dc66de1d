"""Which artifacts may be kept: each is run on validation rows, beside the student that it was made from.

Test rows are not looked at, so that what they say of the artifacts that are kept has not been chosen.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from compress.benchmark.choosing import Choosing
from compress.benchmark.runs import not_finite
from compress.benchmark.scores import CannotRunError
from compress.benchmark.way import Way
from compress.benchmark.ways import ARTIFACTS
from compress.pipeline.artifact import Artifact
from compress.pipeline.state import State
from compress.runtimes.devices import Device
from compress.runtimes.pytorch import torch_threads
from compress.runtimes.registry import RUNTIMES
from compress.tasks.gate import Gate, beside, judged


def gate(artifact: Artifact, state: State, devices: Sequence[Device], threads: int, max_drop: float) -> Gate | None:
    """Return whether an artifact loses at most ``max_drop`` points of the student's metric on validation rows.

    The same holds for what the task guards beside that metric, such as the recall of each type of tagged spans.
    None where it cannot be run on any of the devices. One whose logits must be the student's within a tolerance is not
    judged by its answers: it holds where they are, whatever the number of rows.
    """
    choosing, task = Choosing(state), state.data.task
    scores, rows = choosing.scores, choosing.scores.rows
    found = _way(artifact, devices)
    if found is None:
        return None
    way, device = found
    student = choosing.student
    try:
        with device.active(), torch_threads(threads):
            logits = scores.of_way(way, device, threads)
    except CannotRunError as failure:
        raise failure.reason from failure
    if not np.isfinite(logits).all():
        reason = not_finite(logits, "validation")
        return Gate(outcome="exceeds", metric=task.main_metric, rows=rows.count, max_drop=max_drop, reason=reason)
    judgement = beside(
        judged(task.difference(logits, student, rows.known_labels), rows.count, max_drop),
        task.guarded(logits, student, rows.known_labels), rows.count, max_drop,
    )  # fmt: skip
    if not np.isfinite(artifact.tolerance):
        return judgement
    furthest = float(np.abs(logits - student).max())
    if furthest <= artifact.tolerance:
        return replace(judgement, outcome="holds", bound=judgement.drop, needed=0)
    reason = (
        f"its logits differ from PyTorch's by up to {furthest:.2g} on the validation rows, more than "
        f"export.{artifact.name}.tolerance = {artifact.tolerance:g}"
    )
    return replace(judgement, outcome="exceeds", needed=0, reason=reason)


def _way(artifact: Artifact, devices: Sequence[Device]) -> tuple[Way, Device] | None:
    """Return how an artifact is run on the first of the devices that it runs on."""
    runtime = RUNTIMES.get(artifact.runtime)
    if artifact.unmeasured or runtime is None:
        return None
    for device in devices:
        if not runtime.unavailable(artifact.folder, device):
            way = Way(
                subject=ARTIFACTS + artifact.name, runtime=runtime, folder=artifact.folder, key=artifact.key,
                precision=artifact.precision, variant=runtime.variants(artifact.folder, device)[0], in_grid=True,
            )  # fmt: skip
            return way, device
    return None
