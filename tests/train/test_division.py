"""A batch in parts: the gradients of the whole, whatever its loss is a mean over; memory that does not suffice."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from transformers import TrainingArguments

from compress.distill.losses import LOSSES, Loss
from compress.distill.masked_lm import MaskedLM, Positions
from compress.distill.multi_task import MultiTask
from compress.distill.objective import Distillation
from compress.distill.simcse import SimCse
from compress.distill.stage import Distill
from compress.distill.task_batches import TaskRows
from compress.distill.teacher_outputs import FromLogits, FromModel
from compress.distill.theseus import Replacement, Theseus
from compress.errors import CompressError
from compress.families.forms.fake_quantization import FakeQuantization
from compress.families.forms.quantization_aware import fake_quantized
from compress.known import Known
from compress.models.quantities import HIDDEN, RELATIONS, SCORES
from compress.models.shared_words import AlignedWords, WordNumbers
from compress.student.bert import Bert
from compress.tasks.base import Task
from compress.tasks.classification import Classification
from compress.tasks.ranking import Ranking
from compress.tasks.spans import AnswerSpans
from compress.tasks.tags import Tags
from compress.tasks.vectors import SentenceVectors
from compress.train import Objective, Supervised, Training, fit
from compress.train.trainer import ObjectiveTrainer
from tests.conftest import tiny_batch, tiny_model
from tests.distill import test_dual, test_general, test_multi_task
from tests.families.test_language_head import save_language_model
from tests.test_train import tokens
from tests.train.short import Short

CALM = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
ALL = {HIDDEN: (0, 1, 2, 3, 4), SCORES: (1, 2, 3, 4), **dict.fromkeys(RELATIONS, (1, 2, 3, 4))}
PAIRS = ((1, 2), (2, 4))


class Sliced:
    """Rows, or groups of them, of a batch that was made before; padding goes where no row of a part needs it."""

    def __init__(self, batch: Mapping[str, Tensor], groups: list[list[int]] | None = None) -> None:
        self.whole = dict(batch)
        self.groups = groups or [[row] for row in range(len(batch["attention_mask"]))]
        self.lengths = np.array([int(batch["attention_mask"][group].sum(-1).max()) for group in self.groups])

    def __len__(self) -> int:
        return len(self.groups)

    def __getitem__(self, row: int) -> int:
        return row

    def batch(self, rows: list[int]) -> dict[str, Tensor]:
        chosen = [row for group in rows for row in self.groups[group]]
        width, full = int(self.lengths[rows].max()), self.whole["attention_mask"].shape[1]
        taken = {name: value[chosen] for name, value in self.whole.items()}
        return {n: v[:, :width] if v.dim() > 1 and v.shape[1] == full else v for n, v in taken.items()}


def gradients(objective: Objective, rows: Any, folder: Path, micro_batch: int | None) -> dict[str, Tensor]:
    """Return the gradients of all rows as one step, with the loss and its parts."""
    arguments = TrainingArguments(output_dir=str(folder), use_cpu=True, report_to="none", disable_tqdm=True)
    trainer = ObjectiveTrainer(rows, "test", micro_batch, model=objective, args=arguments)
    objective.zero_grad()
    torch.manual_seed(7)
    loss, parts = trainer._gradients(objective, list(range(len(rows))), 0.3)
    found = {name: p.grad.clone() for name, p in objective.named_parameters() if p.grad is not None}
    return found | {"loss": loss} | {f"part {name}": part.double() for name, part in parts.items()}


def check(objective: Objective, rows: Any, folder: Path, micro_batches: tuple[int, ...] = (1, 2, 3)) -> None:
    """Check that division changes no gradient by more than the order of sums does."""
    nn.Module.double(objective)
    assert objective.indivisible == ""
    whole = gradients(objective, rows, folder, None)
    assert any(float(value.abs().max()) > 1e-6 for name, value in whole.items() if "part" not in name)
    for micro_batch in micro_batches:
        divided = gradients(objective, rows, folder, micro_batch)
        assert divided.keys() == whole.keys()
        for name, value in whole.items():
            torch.testing.assert_close(divided[name], value, rtol=1e-9, atol=1e-12, msg=lambda m, n=name: f"{n}: {m}")


def numbered(rows: int) -> dict[str, Tensor]:
    return tiny_batch(rows, tokens=11) | {"rows": torch.arange(rows)}


def ranked() -> dict[str, Tensor]:
    """Return a batch of three queries with one, two and three candidates, one of them without a relevance."""
    relevance = [1.0, 0.0, 1.0, 1.0, float("nan"), 0.0]
    return numbered(5) | {"labels": torch.tensor(list(zip([0.0, 1, 1, 2, 2], relevance, strict=False)))}


QUERIES = [[0], [1, 2], [3, 4]]


def distillation(
    loss: Loss, task: Task | None = None, source: Any = None, words: AlignedWords | None = None
) -> Distillation:
    teacher = tiny_model(seed=3).double()
    student = Bert(layers=2, hidden_size=8, heads=4, layer_map=[2, 4]).build(tiny_model(**CALM))
    source = source or FromModel(teacher, {quantity: ALL[quantity] for quantity in loss.quantities})
    return Distillation(student, {"x": loss}, source, teacher.config, PAIRS, task=task, words=words)


@pytest.mark.parametrize("name", [name for name, loss in LOSSES.items() if loss.mean_over and loss.quantities])
def test_losses_inside_the_models_have_the_gradients_of_the_whole_batch(name: str, tmp_path: Path) -> None:
    check(distillation(LOSSES[name]()), Sliced(numbered(4)), tmp_path)


def test_losses_by_words_too_of_which_there_are_fewer_than_tokens(tmp_path: Path) -> None:
    batch = numbered(4)
    lengths = batch["attention_mask"].sum(-1).tolist()
    words = [np.arange(length) // (row + 1) for row, length in enumerate(lengths)]
    numbers = WordNumbers(np.concatenate(words), np.cumsum([0, *lengths]))
    check(distillation(LOSSES["hidden"](), words=AlignedWords(numbers, numbers)), Sliced(batch), tmp_path)


@pytest.mark.filterwarnings("ignore:There is a performance drop")  # of vmap
@pytest.mark.parametrize("name", ["soft", "hard", "mse"])
def test_losses_of_answers_too_whether_rows_count_alike_or_not(name: str, tmp_path: Path) -> None:
    batch = numbered(4)
    batch["labels"][2] = -100
    check(distillation(LOSSES[name]()), Sliced(batch), tmp_path)
    answers = np.random.default_rng(1).normal(size=(4, 2))
    weighted = FromLogits(answers, np.array([0.5, 0.0, 2.0, 1.0]))
    check(distillation(LOSSES[name](), source=weighted), Sliced(batch), tmp_path)


@pytest.mark.parametrize("name", ["margin_mse", "pairwise", "hard", "mse"])
def test_losses_of_groups_too_which_stay_together(name: str, tmp_path: Path) -> None:
    student, teacher = (tiny_model(seed=seed, num_labels=1, **CALM).double() for seed in (1, 2))
    objective = Distillation(student, {"x": LOSSES[name]()}, FromModel(teacher, {}), task=Ranking(1.0))
    check(objective, Sliced(ranked(), QUERIES), tmp_path, (1, 2))


@pytest.mark.parametrize("name", ["alignment", "hard"])
def test_losses_of_vectors_too_pair_by_pair(name: str, tmp_path: Path) -> None:
    rows = [[0, 0, 3.0, 0], [0, 1, 3.0, 1], [1, 0, 1.0, 2], [1, 1, 1.0, 3], [float("nan")] * 4]
    batch = numbered(5) | {"labels": torch.tensor(rows, dtype=torch.float64)}
    objective = distillation(LOSSES[name](), SentenceVectors(0, 5, 2, "mean"))
    check(objective, Sliced(batch, [[0, 1], [2, 3], [4]]), tmp_path, (1, 2))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["soft", "hard", "mse"])
@pytest.mark.parametrize("kind", ["tags", "spans"])
def test_losses_of_tokens_too_of_which_every_row_has_another_number(kind: str, name: str, tmp_path: Path) -> None:
    task: Task = Tags(("O", "B-a", "I-a")) if kind == "tags" else AnswerSpans()
    batch = numbered(4)
    read = batch["attention_mask"].clone()
    read[:, 0] = 0
    read[1, 2:] = 0
    labels = torch.where(read.bool(), torch.arange(11) % 3 if kind == "tags" else 0, -100)
    if kind == "spans":
        labels[:, 1] = 3  # the answer is one token
    batch |= {"answering": read, "labels": labels}
    student, teacher = (
        task.auto.from_config(type(tiny_model().config)(**(tiny_model(**CALM).config.to_dict() | task.head_config())))
        for _ in range(2)
    )
    objective = Distillation(student, {"x": LOSSES[name]()}, FromModel(teacher.double().eval(), {}), task=task)
    check(objective, Sliced(batch), tmp_path)


@pytest.mark.slow
def test_fine_tuning_preparations_and_several_tasks_have_the_gradients_of_the_whole_batch(tmp_path: Path) -> None:
    batch = numbered(4)
    batch["labels"][1] = -100
    for loss in (None, Classification(("bad", "good")).mean_loss):
        check(Supervised(tiny_model(**CALM), loss), Sliced(batch), tmp_path)
    teacher = tiny_model(seed=3, **CALM).double()
    check(Replacement(Bert(layers=2).build(tiny_model(**CALM)), teacher, Theseus(), Classification(("bad", "good"))),
          Sliced(batch), tmp_path)  # fmt: skip
    pretrained = save_language_model(tmp_path / "pretrained", **CALM)
    for positions in Positions:
        masked = test_general.objective(pretrained, Bert(layers=2, hidden_size=8, heads=2), soft_on=positions)
        for frozen in masked.frozen:
            frozen.double()
        assert isinstance(masked.settings, MaskedLM)
        check(masked, Sliced(numbered(4)), tmp_path)
    dual = test_dual.objective(tmp_path)
    for module in dual.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    check(dual, Sliced(test_dual.batch_of(dual, [3, 5, 9, 11])), tmp_path)
    several = test_multi_task.distillation(test_multi_task.student(), MultiTask())
    for _, part in several.parts:
        part.teacher.teacher.double()  # type: ignore[union-attr]
    rows = TaskRows(test_multi_task.rows_of())
    check(several, Sliced(rows.batch([130, 131, 140])), tmp_path, (2,))


def test_a_part_is_of_the_network_that_was_drawn_for_the_whole_batch(tmp_path: Path) -> None:
    student = Bert(layers=2).build(tiny_model(**CALM))
    dropping = Distillation(student, {"hard": LOSSES["hard"]()}, layer_drop=0.6).double()
    for _ in range(4):
        check(dropping, Sliced(numbered(4)), tmp_path, (1,))


def test_what_cannot_be_divided_is_refused_before_any_work() -> None:
    vectors = Known(task=SentenceVectors(0, 5, 4, "mean"))
    losses = {"alignment": LOSSES["alignment"](), "similarities": LOSSES["similarities"]()}
    faults = list(Distill(losses=losses, micro_batch=8).faults(vectors))
    assert [(fault.setting, fault.value) for fault in faults if "divide" in str(fault)] == [("micro_batch", 8)]
    assert "loss similarities compares all rows of a batch" in str(faults[0])
    assert not list(Distill(losses=losses, micro_batch=32).faults(vectors))
    assert "compared with all others" in str(next(SimCse(micro_batch=8).faults(vectors)))
    assert [fault.setting for fault in Distill(micro_batch=0).faults()] == ["micro_batch"]


def test_division_is_no_reason_to_train_again() -> None:
    assert Training(micro_batch=4).made_with() == Training().made_with()


def test_out_of_memory_halves_what_is_computed_at_a_time_and_the_result_is_that_of_such_parts(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = []
    for name, micro_batch in (("set", 4), ("found", None)):
        model = tiny_model(**CALM)
        objective = Supervised(model) if micro_batch else Short(model, 5)
        settings = Training(epochs=1, batch_size=16, learning_rate=3e-3, micro_batch=micro_batch)
        fit(objective, tokens(40), settings, seed=3, folder=tmp_path / name, title="student", validate=dict)
        found.append(model.state_dict())
    assert all(torch.equal(value, found[1][name]) for name, value in found[0].items())
    told = [line for line in capsys.readouterr().err.splitlines() if "out of memory" in line]
    assert told == [
        "student: out of memory with 16 rows at a time; training continues with 8",
        "student: out of memory with 8 rows at a time; training continues with 4",
    ]


@pytest.mark.slow
def test_out_of_memory_with_a_single_row_or_with_rows_that_stay_together_is_told_in_a_sentence(tmp_path: Path) -> None:
    settings = Training(epochs=1, batch_size=4)
    with pytest.raises(CompressError, match=r"^student: out of memory with a single row\. Lower teacher\.max_tokens"):
        fit(Short(tiny_model(), 0), tokens(8), settings, seed=3, folder=tmp_path, title="student", validate=dict)
    together = Short(tiny_model(), 2)
    together.__class__ = type("Together", (Short,), {"indivisible": "its rows are compared"})
    with pytest.raises(CompressError, match="with 4 rows, which cannot be divided: its rows are compared"):
        fit(together, tokens(8), settings, seed=3, folder=tmp_path / "x", title="student", validate=dict)


@pytest.mark.slow
def test_ranges_of_fake_quantization_move_with_whole_batches_which_is_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    objective = Distillation(fake_quantized(tiny_model(), FakeQuantization()), {"hard": LOSSES["hard"]()})
    settings = Training(epochs=1, batch_size=4, micro_batch=2)
    fit(objective, tokens(8), settings, seed=3, folder=tmp_path, title="qat_training", validate=dict)
    assert "qat_training: batches stay whole, although micro_batch = 2: the ranges" in capsys.readouterr().err
