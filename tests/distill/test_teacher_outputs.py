"""The teacher's outputs: the same from disk as from the teacher, and a broken-off pass goes on."""

from __future__ import annotations

from io import StringIO
from pathlib import Path

import pytest
import torch

from compress.distill import teacher_outputs
from compress.distill.teacher_outputs import FromModel, on_disk
from compress.models.quantities import HIDDEN, RELATIONS, SCORES
from compress.pipeline.model import Model
from compress.pipeline.workshop import Workshop
from compress.telling import Terminal, telling
from tests.conftest import tiny_model
from tests.test_train import tokens

WANTED = {HIDDEN: (0, 2, 4), SCORES: (2, 4), **dict.fromkeys(RELATIONS, (3,))}
TEACHER = Model(Path("unused"), "teacher-1")


def test_disk_says_what_the_teacher_says(tmp_path: Path) -> None:
    teacher, rows = tiny_model(), tokens(70)
    disk = on_disk(Workshop(tmp_path), TEACHER, teacher, rows, WANTED)
    batch = rows.batch([3, 41, 7, 69])
    kept, found = disk.batch(batch), FromModel(teacher, WANTED).batch(batch)
    real = batch["attention_mask"].bool()
    assert torch.allclose(kept.logits, found.logits, atol=1e-5)
    for layer in WANTED[HIDDEN]:
        torch.testing.assert_close(kept[HIDDEN][layer][real], found[HIDDEN][layer][real], rtol=2e-3, atol=2e-3)
    for part in RELATIONS:
        torch.testing.assert_close(kept[part][3][real], found[part][3][real], rtol=2e-3, atol=2e-3)
    pairs = (real[:, :, None] & real[:, None, :])[:, None].expand(-1, 4, -1, -1)
    for layer in WANTED[SCORES]:
        torch.testing.assert_close(kept[SCORES][layer][pairs], found[SCORES][layer][pairs], rtol=2e-3, atol=5e-3)


def test_a_pass_that_broke_off_goes_on_where_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    teacher, rows = tiny_model(), tokens(200)
    monkeypatch.setattr(teacher_outputs, "SAVE_EVERY", 2)
    calls = 0
    observe = teacher_outputs.observe

    def interrupted(*arguments: object, **settings: object) -> object:
        nonlocal calls
        calls += 1
        if calls == 7:
            raise KeyboardInterrupt
        return observe(*arguments, **settings)  # type: ignore[arg-type]

    monkeypatch.setattr(teacher_outputs, "observe", interrupted)
    with pytest.raises(KeyboardInterrupt):
        on_disk(Workshop(tmp_path), TEACHER, teacher, rows, WANTED)
    disk = on_disk(Workshop(tmp_path), TEACHER, teacher, rows, WANTED)
    assert calls == 7 + 1 + (7 - 4)  # each time a first row; then seven batches in all, four of them noted as done
    batch = rows.batch(list(range(200)))
    torch.testing.assert_close(disk.batch(batch).logits, FromModel(teacher, WANTED).batch(batch).logits)


def test_outputs_are_keyed_by_teacher_rows_and_what_is_kept(tmp_path: Path) -> None:
    teacher, workshop = tiny_model(), Workshop(tmp_path)
    on_disk(workshop, TEACHER, teacher, tokens(20), WANTED)
    on_disk(workshop, TEACHER, teacher, tokens(20), WANTED)
    assert len(list(tmp_path.glob("teacher_outputs-*"))) == 1
    on_disk(workshop, Model(Path("unused"), "teacher-2"), teacher, tokens(20), WANTED)
    on_disk(workshop, TEACHER, teacher, tokens(20, seed=9), WANTED)
    on_disk(workshop, TEACHER, teacher, tokens(20), {})
    assert len(list(tmp_path.glob("teacher_outputs-*"))) == 4


@pytest.mark.parametrize("name", ["logits_0.bin", "hidden_2.bin", "progress.json"])
@pytest.mark.parametrize("damage", ["flip", "truncate", "delete"])
def test_an_interrupted_pass_whose_files_are_damaged_starts_anew(
    damage: str, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    teacher, rows = tiny_model(), tokens(200)
    monkeypatch.setattr(teacher_outputs, "SAVE_EVERY", 2)
    calls = 0
    observe = teacher_outputs.observe

    def interrupted(*arguments: object, **settings: object) -> object:
        nonlocal calls
        calls += 1
        if calls == 7:
            raise KeyboardInterrupt
        return observe(*arguments, **settings)  # type: ignore[arg-type]

    monkeypatch.setattr(teacher_outputs, "observe", interrupted)
    out = StringIO()
    workshop = Workshop(tmp_path)
    with pytest.raises(KeyboardInterrupt):
        on_disk(workshop, TEACHER, teacher, rows, WANTED)
    (path,) = tmp_path.glob(f"*.partial/{name}")
    content = bytearray(path.read_bytes())
    content[0] ^= 4
    path.write_bytes(content if damage == "flip" else content[: len(content) // 2])
    if damage == "delete":
        path.unlink()
    with telling(Terminal(file=out)):
        disk = on_disk(workshop, TEACHER, teacher, rows, WANTED)
    assert calls == 7 + 1 + 7  # all batches again
    assert ("starting again" in out.getvalue()) is (damage != "delete" or name != "progress.json")
    batch = rows.batch(list(range(200)))
    expected = FromModel(teacher, WANTED).batch(batch)
    real = batch["attention_mask"].bool()
    torch.testing.assert_close(disk.batch(batch).logits, expected.logits)
    torch.testing.assert_close(disk.batch(batch)[HIDDEN][2][real], expected[HIDDEN][2][real], rtol=2e-3, atol=2e-3)
