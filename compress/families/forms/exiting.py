"""Encoders with early exits: a head after every layer, and a rule by which a row leaves before the last one.

Patience (PABEE, Zhou et al., arXiv:2006.04152): a row leaves where so many heads in succession agree with the one
before. Entropy (DeeBERT, Xin et al., arXiv:2004.12993): where a head's answer is certain enough. In a batch all rows go
on until the last has left, and each keeps the answer with which it left. Layers may be uneven.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PretrainedConfig, PreTrainedModel

from compress.families.base import Family, forward_replaced
from compress.families.forms.form import stock_of
from compress.families.forms.uneven import UnevenForm, kept_heads, neurons
from compress.families.registry import EXITING, family_of
from compress.models.quiet import quiet
from compress.tasks.heads import logits_of, output_count

PATIENCE, ENTROPY = "patience", "entropy"


@dataclass(frozen=True, kw_only=True)
class ExitRule:
    """When a row leaves."""

    rule: str  # PATIENCE or ENTROPY
    threshold: float  # heads in succession that agree with the one before; or nats that the entropy must be below
    tolerance: float | None = None  # scores that differ by less agree; None: answers are classes

    def begin(self, logits: Tensor) -> Standing:
        """Return where rows stand at the first head, whose logits are (batch, outputs)."""
        agreed = torch.zeros(logits.shape[:1], dtype=torch.long, device=logits.device)
        return Standing(logits, agreed, self._leaves(logits, agreed), logits)

    def go_on(self, before: Standing, logits: Tensor) -> Standing:
        """Return where rows stand at the next head."""
        agreed = torch.where(self._agree(before.logits, logits), before.agreed + 1, 0)
        left = before.left | self._leaves(logits, agreed)
        return Standing(logits, agreed, left, torch.where(before.left[:, None], before.answer, logits))

    def _agree(self, before: Tensor, logits: Tensor) -> Tensor:
        if self.tolerance is None:
            return before.argmax(-1) == logits.argmax(-1)
        return ((before - logits).abs() < self.tolerance).all(-1)

    def _leaves(self, logits: Tensor, agreed: Tensor) -> Tensor:
        if self.rule == PATIENCE:
            return agreed >= self.threshold
        shares = torch.log_softmax(logits, -1)
        return -(shares.exp() * shares).sum(-1) < self.threshold


@dataclass(frozen=True)
class Standing:
    """Where the rows of a batch stand after a head."""

    logits: Tensor  # (batch, outputs), this head's
    agreed: Tensor  # (batch,), heads in succession that agree with the one before
    left: Tensor  # (batch,), whether the row has left, here or before
    answer: Tensor  # (batch, outputs), of the head by which the row left; of this one where it has not


def standings(rule: ExitRule, logits: Sequence[Tensor]) -> list[Standing]:
    """Return where rows stand after each head, whose logits are (batch, outputs); at the last one all leave."""
    found = [rule.begin(logits[0])]
    for own in logits[1:]:
        found.append(rule.go_on(found[-1], own))
    return found


class ExitHead(nn.Module):
    """A head after a layer: the first token's state through a hidden layer, as the poolers of DeeBERT's exits."""

    def __init__(self, width: int, outputs: int) -> None:
        super().__init__()
        self.dense, self.classifier = nn.Linear(width, width), nn.Linear(width, outputs)

    def forward(self, states: Tensor) -> Tensor:
        """Return logits (batch, outputs) of states (batch, tokens, width)."""
        logits: Tensor = self.classifier(torch.tanh(self.dense(states[:, 0])))
        return logits


class ExitingForm(UnevenForm):
    """A family's classifier with a head after every layer but the last, whose head is the classifier's own.

    In evaluation, and unless labels are given, it computes the layers that some row still needs, and no others. With
    labels, in training, and where the configuration has no rule, all layers run and the logits are the last head's.
    """

    prefix = EXITING
    word = "Exiting"

    @classmethod
    def extended(cls, family: Family) -> type[PretrainedConfig]:
        """Return the class of configurations."""

        class Config(UnevenForm.config_of(family)):  # type: ignore[misc]
            """The uneven form's configuration, with the fields of `ExitRule`; without a rule no row leaves early."""

            model_type = cls.prefix + family.model_type
            exit_rule: str | None = None
            exit_threshold: float | None = None
            exit_tolerance: float | None = None

        return Config

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        layers = len(self.family.layers(self))
        self.exits = nn.ModuleList(ExitHead(config.hidden_size, output_count(config)) for _ in range(layers - 1))

    @property
    def rule(self) -> ExitRule | None:
        """When a row leaves; None: never before the last layer."""
        config: Any = self.config
        if config.exit_rule is None:
            return None
        return ExitRule(rule=config.exit_rule, threshold=config.exit_threshold, tolerance=config.exit_tolerance)

    def forward(self, *args: Any, **inputs: Any) -> Any:
        """Return what the family's classifier returns, its logits those with which each row left."""
        if self.rule is None or self.training or inputs.get("labels") is not None:
            return super().forward(*args, **inputs)
        passage = _Passage(self, self.rule)
        with passage.watching():
            returned = super().forward(*args, **inputs)
        returned.logits = passage.answer(logits_of(returned))
        return returned

    def of_every_head(self, *args: Any, **inputs: Any) -> list[Tensor]:
        """Return the logits of every head, (batch, outputs) each, the last the classifier's own; all layers run."""
        passage = _Passage(self, None)
        with passage.watching():
            returned = super().forward(*args, **inputs)
        return [*passage.logits, logits_of(returned)]


class _Passage:
    """One batch on its way through the layers."""

    def __init__(self, model: ExitingForm, rule: ExitRule | None) -> None:
        self.family, self.rule = model.family, rule
        self.layers = list(model.family.layers(model))
        self.exits = dict(zip(self.layers, model.exits, strict=False))  # the last layer has none
        self.logits: list[Tensor] = []
        self.standing: Standing | None = None
        self.all_left = False

    def watching(self) -> AbstractContextManager[None]:
        """Return a context in which layers tell their states, and hand on what they are given when all have left."""
        return forward_replaced(self.layers, partial(_step, self))

    def answer(self, last: Tensor) -> Tensor:
        """Return the logits with which each row left, ``last`` being those of the last head."""
        if self.standing is None:
            return last
        assert self.rule is not None
        return self.standing.answer if self.all_left else self.rule.go_on(self.standing, last).answer

    def arrive(self, layer: nn.Module, states: Tensor) -> None:
        """Take note of the states after a layer."""
        if layer not in self.exits:
            return
        logits = self.exits[layer](states)
        self.logits.append(logits)
        if self.rule is not None:
            self.standing = self.rule.begin(logits) if self.standing is None else self.rule.go_on(self.standing, logits)
            self.all_left = bool(self.standing.left.all())


def _step(passage: _Passage, layer: nn.Module, hidden_states: Tensor, *args: Any, **kwargs: Any) -> Any:
    """Run a layer where a row still needs it."""
    several = passage.family.layers_return_tuples
    if passage.all_left:
        return (hidden_states, None) if several else hidden_states
    returned = type(layer).forward(layer, hidden_states, *args, **kwargs)
    passage.arrive(layer, returned[0] if several else returned)
    return returned


def exiting(model: PreTrainedModel) -> PreTrainedModel:
    """Return a copy of a classifier with heads after its layers, which start at random, and without a rule.

    Raises ModelError for an unsupported family.
    """
    family = family_of(model.config)
    shape = {"kept_heads": kept_heads(model.config), "neurons": neurons(model.config)}
    settings = model.config.to_dict() | shape
    settings.pop("model_type")
    with quiet():
        copy = ExitingForm.model_of(family, stock_of(model))(ExitingForm.config_of(family)(**settings))
    missing, unexpected = copy.load_state_dict(model.state_dict(), strict=False)
    assert not unexpected
    assert all(name.startswith("exits.") for name in missing)
    copy.set_attn_implementation(model.config._attn_implementation)
    nn.Module.to(copy, model.device)
    copy.train(model.training)
    return copy


def set_rule(model: PreTrainedModel, rule: ExitRule | None) -> None:
    """Write into a model's configuration when rows leave."""
    config = model.config
    config.exit_rule = None if rule is None else rule.rule
    config.exit_threshold = None if rule is None else rule.threshold
    config.exit_tolerance = None if rule is None else rule.tolerance
