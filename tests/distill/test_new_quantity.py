"""A quantity and a loss of someone else's: one file is all that they take, down to a recipe that names the loss."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from compress.cli.compose import compose
from compress.distill.losses import LOSSES, Comparison, Loss, SoftTargets, hidden_state_loss, register
from compress.distill.losses.tensors import total
from compress.distill.objective import Distillation
from compress.distill.source import Keep
from compress.distill.stage import Distill
from compress.families.forms.uneven import kept_heads
from compress.models.attention import Attention
from compress.models.outputs import observe
from compress.models.quantities import Captured, Quantity
from compress.models.quantities.attention import Projected, side_by_side
from compress.pipeline.model import Model
from compress.pipeline.workshop import Workshop
from compress.student.bert import Bert
from tests.conftest import tiny_batch, tiny_model
from tests.test_train import tokens


class Contexts(Projected):
    """What the heads hand on, side by side: (batch, tokens, heads * head size)."""

    name: ClassVar[str] = "contexts"
    dtype: ClassVar[str] = "float32"

    def of(self, attention: Attention) -> Tensor:
        """Return the context of all heads."""
        return side_by_side(attention.context)


class Normed(Quantity):
    """What a layer's last normalisation is given, (batch, tokens, hidden), noted by hooks of its own."""

    name: ClassVar[str] = "normed"
    dtype: ClassVar[str] = "float32"

    @contextmanager
    def capture(self, model: PreTrainedModel, layers: Iterator[int]) -> Iterator[Captured]:
        """Hook every layer's last normalisation; that of a skipped layer is never called."""
        noted: dict[int, Tensor] = {}
        with ExitStack() as hooks:
            for number, layer in enumerate(model.bert.encoder.layer, start=1):
                norm = [part for part in layer.modules() if isinstance(part, nn.LayerNorm)][-1]
                handle = norm.register_forward_pre_hook(lambda _, given, n=number: noted.__setitem__(n, given[0]))
                hooks.callback(handle.remove)
            yield lambda _: noted

    def token_axes(self, axes: int) -> tuple[int, ...]:
        """The first."""
        return (0,)


CONTEXTS, NORMED = Contexts(), Normed()


def naive(student: Tensor, teacher: Tensor, mask: Tensor) -> float:
    """Return the squared error over real positions, by loops."""
    errors = [
        (student[row, token] - teacher[row, token]).square().sum().item()
        for row in range(len(mask))
        for token in range(mask.shape[1])
        if mask[row, token]
    ]
    return sum(errors) / (int(mask.sum()) * student.shape[-1])


@pytest.fixture
def inside() -> Iterator[type[Loss]]:
    """Give a loss that reads both quantities, under a name of its own."""

    @register("inside")
    @dataclass(kw_only=True)
    class Inside(Loss):
        """Squared error of contexts and of what is normalised."""

        quantities = (CONTEXTS, NORMED)

        def __call__(self, comparison: Comparison) -> Tensor:
            """Return the sum over mapped layers."""
            mask = comparison.student.mask
            sides = (comparison.of(quantity, pair) for quantity in self.quantities for pair in comparison.layers)
            return total(hidden_state_loss(*side, mask) for side in sides)

    yield Inside
    del LOSSES["inside"]


def test_a_recipe_chooses_the_loss_by_its_name(inside: type[Loss], tmp_path: Path) -> None:
    words = ["recipe=soft_targets", "data=files", f"data.train={tmp_path / 'x.tsv'}", "distill/losses=[soft,inside]"]
    (tmp_path / "x.tsv").write_text("label\ttext\n")
    recipe = compose([*words, "distill.losses.inside.weight=0.25"])
    assert list(recipe.distill.losses) == ["soft", "inside"]
    assert recipe.distill.losses["inside"] == inside(weight=0.25)


def trained(losses: dict[str, Loss], keep: Keep, folder: Path, **changes: Any) -> tuple[list[float], dict[str, Tensor]]:
    """Distil a pruned student for a few steps; return the values of the loss and the weights."""
    teacher, rows = tiny_model(), tokens(40)
    torch.manual_seed(5)
    student = Bert(layers=2, layer_map=[2, 4]).build(teacher)
    distill = Distill(losses=losses, teacher_outputs=keep, epochs=1, **changes)
    origin = Model(folder, "teacher")
    made: Distillation = distill.comparison(
        Workshop(folder / "cache"), origin, teacher, rows, student, folder / "scratch", []
    )
    made.train()
    optimizer, values = torch.optim.SGD(made.parameters(), lr=0.05), []
    torch.manual_seed(7)
    for start in range(0, 40, 8):
        loss, parts = made(rows.batch(list(range(start, start + 8))), start / 40)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        values.append(parts["inside"].item())
    return values, student.state_dict()


@pytest.mark.parametrize("layer_drop", [0.0, 0.8])
def test_it_teaches_the_same_from_disk_as_from_the_teacher(
    inside: type[Loss], layer_drop: float, tmp_path: Path
) -> None:
    losses = {"soft": SoftTargets(), "inside": inside()}
    values, weights = trained(losses, Keep.forward, tmp_path, layer_drop=layer_drop)
    kept, same = trained(losses, Keep.disk, tmp_path, layer_drop=layer_drop)
    assert values == pytest.approx(kept, rel=1e-4)
    assert min(values) == 0 if layer_drop else min(values) > 0  # a step skips both layers
    for name, value in weights.items():
        torch.testing.assert_close(value, same[name], rtol=1e-4, atol=1e-6)
    (folder,) = (tmp_path / "cache").glob("teacher_outputs-*")
    names = {path.name for path in folder.glob("*.bin")}
    assert names == {"logits_0.bin", "contexts_2.bin", "contexts_4.bin", "normed_2.bin", "normed_4.bin"}


@torch.no_grad()
def test_it_is_what_the_definition_says(inside: type[Loss]) -> None:
    teacher, batch = tiny_model(), tiny_batch()
    student = Bert(layers=2, layer_map=[2, 4]).build(teacher)
    layers = ((1, 2), (2, 4))
    source = type("Teacher", (), {"batch": lambda _, given: observe(teacher, given, CONTEXTS, NORMED)})()
    _, parts = Distillation(student, {"inside": inside()}, source, teacher.config, layers)(batch, 0.0)
    ours, theirs = (observe(model, batch, CONTEXTS, NORMED) for model in (student, teacher))
    mask = batch["attention_mask"]
    expected = sum(naive(ours[part][s], theirs[part][t], mask) for part in (CONTEXTS, NORMED) for s, t in layers)
    assert parts["inside"].item() == pytest.approx(expected, rel=1e-4)
    assert kept_heads(student.config) == [[0, 1, 2, 3]] * 2


def test_logits_of_every_token_take_as_much_as_their_row_has(tmp_path: Path) -> None:
    from compress.distill.teacher_outputs import FromModel, on_disk

    class Tagger(nn.Module):
        """Answers every token."""

        def __init__(self) -> None:
            super().__init__()
            self.model = tiny_model()
            self.config = self.model.config

        def forward(self, **inputs: Tensor) -> Any:
            """Return the last states as logits of 16 tags."""
            returned = self.model(**inputs, output_hidden_states=True)
            return type(returned)(logits=returned.hidden_states[-1])

    teacher, rows = Tagger().eval(), tokens(40)
    disk = on_disk(Workshop(tmp_path), Model(tmp_path, "teacher"), teacher, rows, {})  # type: ignore[arg-type]
    batch = rows.batch([3, 17, 38])
    kept, expected = disk.batch(batch).logits, FromModel(teacher, {}).batch(batch).logits  # type: ignore[arg-type]
    real = batch["attention_mask"].bool()
    torch.testing.assert_close(kept[real], expected[real], rtol=1e-4, atol=1e-5)
    assert not kept[~real].any()
    (file,) = tmp_path.rglob("logits_0.bin")
    assert file.stat().st_size == int(rows.lengths.sum()) * 16 * 4
