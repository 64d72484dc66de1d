"""Models with early exits: a row leaves where a loop over the layers says, alone and in a batch, and no layer more."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import PreTrainedModel

from compress.families.forms.exiting import ENTROPY, PATIENCE, ExitRule, exiting, set_rule
from compress.families.forms.uneven import shrink
from compress.families.registry import FAMILIES
from tests.conftest import EVERY_FAMILY, tiny_batch, tiny_model

RULES = [
    ExitRule(rule=PATIENCE, threshold=1),
    ExitRule(rule=PATIENCE, threshold=2),
    ExitRule(rule=PATIENCE, threshold=2, tolerance=0.5),
    ExitRule(rule=ENTROPY, threshold=0.55),
]


def with_exits(family: str = "bert", **settings: Any) -> PreTrainedModel:
    """Return a tiny uneven model with exits whose heads differ."""
    with torch.random.fork_rng():
        torch.manual_seed(5)
        model = exiting(shrink(tiny_model(family, **settings), heads=[[0, 2], [1], [0, 1, 2, 3], [3]]))
        for parameter in model.exits.parameters():
            torch.nn.init.normal_(parameter, std=0.5)
    return model


@torch.no_grad()
def by_a_loop(model: PreTrainedModel, row: dict[str, Tensor], rule: ExitRule) -> tuple[int, Tensor]:
    """Return after which layer a row leaves and with which logits, one head after another, as the papers have it."""
    set_rule(model, None)
    returned = model(**row, output_hidden_states=True)
    answers: list[list[float]] = []
    count = 0
    for layer, head in enumerate([*model.exits, None], start=1):
        own = returned.logits[0]
        if head is not None:
            first = returned.hidden_states[layer][0, 0]
            own = head.classifier.weight @ torch.tanh(head.dense.weight @ first + head.dense.bias)
            own = own + head.classifier.bias
        answers.append(own.tolist())
        if rule.rule == ENTROPY:
            weights = [math.exp(value) for value in answers[-1]]
            shares = [weight / sum(weights) for weight in weights]
            leaves = -sum(share * math.log(share) for share in shares) < rule.threshold
        else:
            if layer > 1:
                now, before = answers[-1], answers[-2]
                if rule.tolerance is None:
                    same = now.index(max(now)) == before.index(max(before))
                else:
                    same = all(abs(a - b) < rule.tolerance for a, b in zip(now, before, strict=True))
                count = count + 1 if same else 0
            leaves = count >= rule.threshold
        if leaves or head is None:
            return layer, own
    raise AssertionError("the last head answers")


@contextmanager
def counted(model: PreTrainedModel) -> Iterator[list[int]]:
    """Count the layers that compute something."""
    ran: list[int] = []
    family = next(family for family in FAMILIES.values() if f"_{family.model_type}" in model.config.model_type)
    hooks = [
        family.feed_forward_output(layer).register_forward_hook(lambda *_, number=number: ran.append(number))
        for number, layer in enumerate(family.layers(model), start=1)
    ]
    yield ran
    for hook in hooks:
        hook.remove()


@pytest.mark.parametrize("family", EVERY_FAMILY)
@torch.no_grad()
def test_a_row_leaves_where_a_loop_over_the_layers_says(family: str) -> None:
    model, batch = with_exits(family), tiny_batch(6, 14, family=family)
    del batch["labels"]
    left = set()
    for rule in RULES:
        rows = [{name: value[row : row + 1] for name, value in batch.items()} for row in range(6)]
        expected = [by_a_loop(model, row, rule) for row in rows]
        set_rule(model, rule)
        for row, (layer, logits) in zip(rows, expected, strict=True):
            with counted(model) as ran:
                torch.testing.assert_close(model(**row).logits[0], logits)
            assert ran == list(range(1, layer + 1))
        with counted(model) as ran:
            torch.testing.assert_close(model(**batch).logits, torch.stack([logits for _, logits in expected]))
        assert ran == list(range(1, max(layer for layer, _ in expected) + 1)), "a batch goes on for its last row"
        left |= {layer for layer, _ in expected}
    assert len(left) > 2


@torch.no_grad()
def test_all_layers_run_with_labels_and_in_training() -> None:
    model, batch = with_exits(), tiny_batch()
    set_rule(model, ExitRule(rule=ENTROPY, threshold=10))
    for mode in (True, False):
        with counted(model.train(mode)) as ran:
            model(**batch)
        assert ran == [1, 2, 3, 4]
