"""The model to beat: the teacher itself in ONNX, fp32 and int8, without any training."""

from __future__ import annotations

from pathlib import Path

from compress.benchmark.figures import TEACHER_INT8, TEACHER_ONNX
from compress.errors import DamagedError, StorageError, in_one_line
from compress.export.onnx import Onnx
from compress.models.ensemble import EnsembleConfig
from compress.models.loading import load_config
from compress.onnx.folder import onnx_of
from compress.pipeline.artifact import Artifact
from compress.pipeline.state import State
from compress.quantize.int8 import DynamicInt8


def untrained(state: State) -> tuple[Artifact, ...]:
    """Return the teacher's own ONNX artifacts, in fp32 and int8, which the workshop keeps.

    One that cannot be made says why in ``unmeasured``, and a run goes on without it. Raises StorageError.
    """
    if state.teacher is None:
        return (_missing("the teacher has no weights"),)
    if isinstance(load_config(state.teacher.folder), EnsembleConfig):
        return (_missing("the teacher is an ensemble"),)
    made: list[Artifact] = []
    what = "exported"
    try:
        graph = onnx_of(state.teacher, state)
        made.append(Onnx().artifact(TEACHER_ONNX, graph))
        what = "quantized"
        made.append(DynamicInt8().artifact(TEACHER_INT8, graph, state))
    except (StorageError, DamagedError):
        raise
    except Exception as error:  # exporters' errors share no base class
        made.append(_missing(f"the teacher cannot be {what}: {in_one_line(error)}"))
    return tuple(made)


def _missing(reason: str) -> Artifact:
    return Artifact(
        name=TEACHER_INT8, runtime="onnxruntime", precision="int8", folder=Path(), key="", unmeasured=reason
    )  # fmt: skip
