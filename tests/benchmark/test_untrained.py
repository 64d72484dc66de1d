"""The teacher's own int8: the reasons why a run goes on without it."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from compress.benchmark import untrained as module
from compress.benchmark.figures import TEACHER_INT8
from compress.benchmark.untrained import untrained
from compress.errors import MissingPackageError, StorageError
from compress.models.loading import save_model
from compress.pipeline.model import Model
from compress.pipeline.workshop import Workshop
from tests.conftest import save_tiny, tiny_tokenizer
from tests.models.test_ensemble import joined

LABELS = {"id2label": {0: "bad", 1: "good"}, "label2id": {"bad": 0, "good": 1}}


def state(teacher: Path | None, cache: Path) -> Any:
    """Return what is asked of a state."""
    cache.mkdir(exist_ok=True)
    return SimpleNamespace(
        teacher=None if teacher is None else Model(teacher, str(teacher)),
        workshop=Workshop(cache),
        data=SimpleNamespace(pairs=False),
    )


def reasons(made: Any) -> list[tuple[str, str]]:
    return [(artifact.name, artifact.unmeasured) for artifact in made]


def test_a_teacher_that_only_answers_and_an_ensemble_have_none(tmp_path: Path) -> None:
    assert reasons(untrained(state(None, tmp_path / "cache"))) == [(TEACHER_INT8, "the teacher has no weights")]
    save_model(joined(), tiny_tokenizer(), tmp_path / "ensemble")
    found = reasons(untrained(state(tmp_path / "ensemble", tmp_path / "cache")))
    assert found == [(TEACHER_INT8, "the teacher is an ensemble")]


def test_one_that_cannot_be_exported_or_quantized_says_why_and_is_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    teacher = save_tiny(tmp_path / "teacher", **LABELS)
    here = state(teacher, tmp_path / "cache")
    with monkeypatch.context() as broken:
        broken.setattr("onnxruntime.quantization.quantize_dynamic", lambda *_, **__: 1 / 0)
        made = untrained(here)
    assert [artifact.name for artifact in made] == ["teacher_onnx", "teacher_int8"]
    assert not made[0].unmeasured
    assert made[1].unmeasured.startswith("the teacher cannot be quantized: ZeroDivisionError")

    def refuses(*_: Any) -> None:
        raise MissingPackageError("onnx", "onnx", "Writing ONNX")

    monkeypatch.setattr(module, "onnx_of", refuses)
    ((name, why),) = reasons(untrained(here))
    assert name == TEACHER_INT8
    assert why.startswith("the teacher cannot be exported: Writing ONNX")

    def full(*_: Any) -> None:
        raise StorageError("the disk is full")

    monkeypatch.setattr(module, "onnx_of", full)
    with pytest.raises(StorageError):
        untrained(here)
