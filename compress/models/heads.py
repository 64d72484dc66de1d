"""The outputs of a classifier's head: taken over by number, put into another order, added or left out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from transformers import PreTrainedModel

from compress.models.quiet import quiet
from compress.tasks.heads import HEAD_OF_SPANS, reorder_thresholds, wider_head, with_head


def with_outputs(
    model: PreTrainedModel, head: Mapping[str, Any], rows: Sequence[int | None], *, zero: bool = False
) -> PreTrainedModel:
    """Return a classifier with the head's settings whose output ``i`` is output ``rows[i]`` of ``model``.

    An output whose row is None starts at random, or, with ``zero``, always has the logit 0. All other weights are
    ``model``'s, which is left as it was. In evaluation mode, on the CPU.
    """
    config = with_head(model.config, head)
    reorder_thresholds(config, rows)
    with quiet():
        new: PreTrainedModel = type(model)(config)
    weights = dict(model.state_dict())
    own = new.state_dict()
    for name, axis in output_parameters(model).items():
        mine = own[name].clone()
        if zero:
            mine.zero_()
        for output, row in enumerate(rows):
            if row is not None:
                mine.select(axis, output).copy_(weights[name].select(axis, row))
        weights[name] = mine
    new.load_state_dict(weights)
    new.eval()
    return new


def output_parameters(model: PreTrainedModel) -> dict[str, int]:
    """Return the parameters with a slice per output, and their axis of outputs: they grow with one output more."""
    fixed = {name: 0 for name in model.state_dict() if name.startswith(f"{HEAD_OF_SPANS}.")}
    if fixed:
        return fixed
    with torch.device("meta"), quiet():
        wider = type(model)(with_head(model.config, wider_head(model.config)))
    shapes = {name: value.shape for name, value in model.state_dict().items()}
    grown = {name: value.shape for name, value in wider.state_dict().items() if value.shape != shapes[name]}
    return {
        name: next(axis for axis, (old, new) in enumerate(zip(shapes[name], shape, strict=True)) if new == old + 1)
        for name, shape in grown.items()
    }
