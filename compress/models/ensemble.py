"""Several classifiers that answer as one, as a transformers model that saves and reloads.

The teacher of an ensemble's distillation (Hinton et al., arXiv:1503.02531; an ensemble a task: MT-DNN KD,
Liu et al., arXiv:1904.09482). Its answer is that of all members; its layers are those of one, the chosen.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AutoConfig, AutoModelForSequenceClassification, PretrainedConfig, PreTrainedModel
from transformers.modeling_outputs import SequenceClassifierOutput

from compress.families.registry import Principal
from compress.models.quiet import quiet
from compress.models.segments import classification_loss


class EnsembleConfig(Principal, PretrainedConfig):
    """The members' configurations, how their answers become one, and whose layers stand for the ensemble.

    ``combine``: probabilities, logits or confidence, as `combined` says; ``weights``: one a member, above 0;
    ``chosen``: a member, counted from 1; ``orders``: a member's outputs in the order of the ensemble's labels.
    What describes layers is the chosen member's.
    """

    model_type = "compress_ensemble"
    members: list[dict[str, Any]] | None = None
    combine: str = "probabilities"
    weights: list[float] | None = None
    chosen: int = 1
    orders: list[list[int]] | None = None

    def member(self, number: int) -> Any:
        """Return the configuration of a member, counted from 1."""
        settings = dict((self.members or [])[number - 1])
        return AutoConfig.for_model(settings.pop("model_type"), **settings)

    @property
    def principal(self) -> Any:
        """The configuration of the chosen member."""
        return self.member(self.chosen)

    @property
    def max_position_embeddings(self) -> int:
        """Positions that every member has."""
        members = [self.member(number) for number in range(1, len(self.members or []) + 1)]
        return min(int(getattr(member, "max_position_embeddings", None) or 2**20) for member in members)

    @property
    def averages_probabilities(self) -> bool:
        """Whether the answer is a mean of the members' probabilities, which at a temperature is that at it."""
        return self.combine != "logits" and self.problem_type != "regression"


@dataclass
class EnsembleOutput(SequenceClassifierOutput):
    """The ensemble's answer, and what its members say, as `compress.models.quantities.members.Members` has it."""

    members: Tensor | None = None


class EnsembleForSequenceClassification(PreTrainedModel):
    """The members side by side; logits of all, hidden states of the chosen one."""

    config: EnsembleConfig
    config_class = EnsembleConfig

    def __init__(self, config: EnsembleConfig) -> None:
        super().__init__(config)
        self.members = nn.ModuleList(
            AutoModelForSequenceClassification.from_config(config.member(number))
            for number in range(1, len(config.members or []) + 1)
        )
        self.post_init()  # type: ignore[no-untyped-call]

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        labels: Tensor | None = None,
        output_hidden_states: bool = False,
        **_: Any,
    ) -> EnsembleOutput:
        """Token numbers (batch, tokens) to logits (batch, outputs)."""
        given = {"input_ids": input_ids, "attention_mask": attention_mask, "token_type_ids": token_type_ids}
        inputs = {name: value for name, value in given.items() if value is not None}
        answers, voices, states = [], [], None
        for number, (member, order) in enumerate(zip(self.members, self.config.orders or [], strict=True), start=1):
            hidden = output_hidden_states and number == self.config.chosen
            output = member(**inputs, output_hidden_states=hidden)
            answers.append(output.logits[:, order])
            inner = getattr(output, "members", None)  # of an ensemble among the members
            alone = torch.stack([torch.zeros_like(output.logits), output.logits], dim=1).unsqueeze(1)
            voices.append((alone if inner is None else inner)[..., order])
            states = output.hidden_states if hidden else states
        weights = torch.tensor(self.config.weights, device=input_ids.device)
        stacked, how, kind = torch.stack(answers), self.config.combine, self.config.problem_type
        if kind == "multi_label_classification":
            logits, share = combined_labels(stacked, weights, how), label_shares(stacked, weights, how)
        else:
            how = "logits" if kind == "regression" else how
            logits, share = combined(stacked, weights, how), shares(stacked, weights, how).expand_as(stacked)
        loss = classification_loss(logits, labels, self.config)
        weighted = [
            torch.stack([own.log()[:, None] + voice[:, :, 0], voice[:, :, 1]], dim=2)
            for own, voice in zip(share, voices, strict=True)
        ]
        return EnsembleOutput(loss=loss, logits=logits, hidden_states=states, members=torch.cat(weighted, 1))


def combined(logits: Tensor, weights: Tensor, how: str) -> Tensor:
    """Return the logits (batch, outputs) of members with logits (members, batch, outputs) and weights (members,).

    ``logits``: their weighted mean, so that probabilities are the members' geometric mean; scores are averaged
    so too. ``probabilities``: the logarithm of the weighted mean of the members' probabilities. ``confidence``:
    the same, a member's weight on a row times the largest of its probabilities there. Of the last two the
    softmax is that mean at temperature 1 only; at another it is `Task.softened`.
    """
    share = shares(logits, weights, how)
    if how == "logits":
        return (share * logits).sum(0)
    return (share.log() + logits.log_softmax(-1)).logsumexp(0)


def shares(logits: Tensor, weights: Tensor, how: str) -> Tensor:
    """Return each member's share in the answer of a row (members, batch, 1), as `combined` weighs them."""
    share = (weights / weights.sum()).view(-1, 1, 1).to(logits.dtype).expand(*logits.shape[:2], 1)
    if how == "confidence":
        share = share * logits.log_softmax(-1).amax(-1, keepdim=True).exp()
        share = share / share.sum(0)
    return share


def combined_labels(logits: Tensor, weights: Tensor, how: str) -> Tensor:
    """Return `combined` of each label for itself, against its absence, whose logit is 0.

    Logits are those of the sigmoids of members (members, batch, labels), where rows may have several labels.
    """
    answers = combined(_outcomes(logits), weights, how)
    return (answers[:, 1] - answers[:, 0]).view(logits.shape[1:])


def label_shares(logits: Tensor, weights: Tensor, how: str) -> Tensor:
    """Return each member's share in the answer of each label (members, batch, labels), as `combined_labels` has it."""
    return shares(_outcomes(logits), weights, how).view(logits.shape)


def _outcomes(logits: Tensor) -> Tensor:
    """Return the logits of each label's two outcomes, absent and there (members, batch · labels, 2)."""
    return torch.stack([torch.zeros_like(logits), logits], dim=-1).flatten(1, 2)


def ensemble(
    members: Sequence[PreTrainedModel],
    orders: Sequence[Sequence[int]],
    head: Mapping[str, Any],
    *,
    combine: str,
    weights: Sequence[float],
    chosen: int,
) -> EnsembleForSequenceClassification:
    """Return the members as one model in evaluation mode, with their weights copied.

    ``head`` are the entries of a configuration that name its outputs; the rest is as `EnsembleConfig` says.
    """
    config = EnsembleConfig(
        members=[member.config.to_dict() for member in members],
        combine=combine,
        weights=[float(weight) for weight in weights],
        chosen=chosen,
        orders=[list(order) for order in orders],
        **head,
    )
    with quiet():
        joined = EnsembleForSequenceClassification(config)
    for own, member in zip(joined.members, members, strict=True):
        own.load_state_dict(member.state_dict())
    joined.train(False)
    return joined


def principal(model: PreTrainedModel) -> PreTrainedModel:
    """Return the model whose layers stand for ``model``: an ensemble's chosen member, else the model itself."""
    while isinstance(model, EnsembleForSequenceClassification):
        member = model.members[model.config.chosen - 1]
        assert isinstance(member, PreTrainedModel)
        model = member
    return model
