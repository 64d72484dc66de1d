"""Students: which layers, which widths, and what they start from."""

from __future__ import annotations

import pytest
import torch

from compress.families.forms.uneven import kept_heads, neurons, shrink
from compress.families.registry import FAMILIES
from compress.known import Known
from compress.models.outputs import observe
from compress.models.quantities import HIDDEN, SCORES
from compress.student.bert import Bert
from compress.student.layer_map import layer_map, layer_map_faults
from tests.conftest import EVERY_FAMILY, tiny_batch, tiny_model


@pytest.mark.parametrize(
    ("choice", "student", "teacher", "layers"),
    [
        ("uniform", 6, 12, (2, 4, 6, 8, 10, 12)),
        ("uniform", 4, 12, (3, 6, 9, 12)),
        ("uniform", 4, 6, (2, 3, 5, 6)),
        ("uniform", 6, 6, (1, 2, 3, 4, 5, 6)),
        ("skip", 5, 12, (2, 4, 6, 8, 10)),
        ("first", 3, 6, (1, 2, 3)),
        ("last", 3, 6, (4, 5, 6)),
        ([1, 3, 5], 3, 6, (1, 3, 5)),
        ([2, 2], 2, 6, (2, 2)),
    ],
)
def test_layer_maps(choice: object, student: int, teacher: int, layers: tuple[int, ...]) -> None:
    assert layer_map(choice, student, teacher) == layers


@pytest.mark.parametrize("choice", [[0, 1], [1, 7], [1], [1, 2, 3]])
def test_an_explicit_map_must_fit(choice: list[int]) -> None:
    with pytest.raises(ValueError, match="must name 2 layers, each from 1 to 6"):
        layer_map(choice, 2, 6)


@pytest.mark.parametrize("choice", ["unifrom", [], [1.5], [0], 3, [True]])
def test_what_is_no_layer_map_is_refused(choice: object) -> None:
    assert [fault.setting for fault in layer_map_faults("layer_map", choice)] == ["layer_map"]


@pytest.mark.parametrize("family", EVERY_FAMILY)
@torch.no_grad()
def test_a_student_with_all_layers_is_the_teacher(family: str) -> None:
    teacher, batch = tiny_model(family), tiny_batch(family=family)
    torch.testing.assert_close(
        observe(Bert(layers=4).build(teacher), batch).logits, observe(teacher, batch).logits, rtol=0, atol=0
    )


@pytest.mark.parametrize("family", EVERY_FAMILY)
def test_a_shallow_student_starts_from_the_mapped_layers(family: str) -> None:
    teacher = tiny_model(family)
    student = Bert(layers=2, layer_map=[1, 4]).build(teacher)
    theirs, ours = (FAMILIES[family].layers(model) for model in (teacher, student))
    for place, layer in enumerate([0, 3]):
        for (name, a), (_, b) in zip(ours[place].named_parameters(), theirs[layer].named_parameters(), strict=True):
            assert torch.equal(a, b), name


@pytest.mark.parametrize("family", EVERY_FAMILY)
@torch.no_grad()
def test_a_narrow_student_has_the_widths_asked_for(family: str) -> None:
    student = Bert(layers=2, hidden_size=8, heads=2, intermediate_size=12).build(tiny_model(family))
    seen = observe(student, tiny_batch(family=family), HIDDEN, SCORES)
    assert seen[HIDDEN][2].shape == (3, 9, 8)
    assert seen[SCORES][2].shape == (3, 2, 9, 9)
    assert FAMILIES[family].unit_count(student.config) == 12


def test_a_student_without_copied_weights_starts_elsewhere() -> None:
    teacher = tiny_model()
    student = Bert(start="random").build(teacher)
    first = FAMILIES["bert"].layers(student)[0], FAMILIES["bert"].layers(teacher)[1]
    assert not any(
        torch.equal(a, b) for a, b in zip(*(part.parameters() for part in first), strict=True) if a.dim() > 1
    )


@pytest.mark.parametrize(
    ("student", "setting"),
    [
        (Bert(layers=5), "layers"),
        (Bert(layers=2, layer_map=[1, 9]), "layer_map"),
        (Bert(hidden_size=10), "hidden_size"),
        (Bert(heads=3), "hidden_size"),
    ],
)
def test_what_does_not_fit_the_teacher_is_refused(student: Bert, setting: str) -> None:
    assert [fault.setting for fault in student.faults(Known(teacher=tiny_model().config))] == [setting]


@pytest.mark.parametrize("family", EVERY_FAMILY)
def test_a_number_of_heads_or_units_that_is_asked_for_is_that_of_every_layer_of_an_uneven_teacher_too(
    family: str,
) -> None:
    teacher = shrink(
        tiny_model(family), heads=[[0], [0, 1], [1], [0, 1]], units=[[0, 1], [1], [2, 3, 4], [0]]
    )  # four layers
    asked = Bert(layers=2, heads=4, intermediate_size=6).build(teacher).config
    assert [len(heads) for heads in kept_heads(asked)] == [4, 4]
    assert neurons(asked) == [6, 6]
    as_it_was = Bert(layers=2).build(teacher).config
    assert kept_heads(as_it_was) == [[0, 1], [0, 1]]
    assert neurons(as_it_was) == [1, 1]
    assert observe(Bert(layers=2, heads=4).build(teacher), tiny_batch()).logits.shape[1] == teacher.config.num_labels
