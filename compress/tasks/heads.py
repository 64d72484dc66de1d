"""What in a transformers configuration belongs to a head: read, set and counted here."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from copy import deepcopy
from typing import Any

import torch

MARK = "compress_task"
"""Entry that names the task of a head, where nothing else in a configuration tells it; see `Task.head_config`."""

THRESHOLDS = "thresholds"
"""Entry with the probability from which each label is given, in the order of the outputs."""

NULL_THRESHOLD = "null_threshold"
"""Entry with how much more must speak for no answer than for the best one before none is given."""

UNANSWERABLE = "unanswerable"
"""Entry that says whether questions may have no answer."""

OVERLAP = "window_overlap"
"""Entry with the tokens that neighbouring windows of a long text share; null: a third of a window."""

TUNED = (THRESHOLDS, NULL_THRESHOLD)
"""Entries that are chosen on validation rows, after training."""

OF_SPANS = (UNANSWERABLE, NULL_THRESHOLD, OVERLAP)

POOLING, NORMALIZED = "vector_pooling", "vector_normalized"
"""Entries of a model that answers with vectors: how tokens become one, and whether vectors have length 1."""

HEAD = ("id2label", "label2id", "problem_type", "label_range", THRESHOLDS, *OF_SPANS, MARK, POOLING, NORMALIZED)
"""Entries of a configuration that belong to its head."""

STARTS_AND_ENDS = ("start_logits", "end_logits")
"""What transformers calls the logits of a head for spans, in the order of its two outputs."""

HEAD_OF_SPANS = "qa_outputs"
"""The module of every model of transformers that gives them. Some refuse another number of outputs than two."""

IDLE_HEAD = {"num_labels": 1}
"""The head of a model of which only the encoder is used."""


def with_head(config: Any, head: Mapping[str, Any]) -> Any:
    """Return a copy of a configuration with the head's settings."""
    changed = deepcopy(config)
    set_head(changed, head)
    return changed


def set_head(config: Any, head: Mapping[str, Any]) -> None:
    """Give a configuration the head's settings, and, where it is another one, take away the mark of the task before.

    Thresholds leave with the kind of head that they are for.
    """
    if "id2label" in head and hasattr(config, MARK):
        setattr(config, MARK, None)
    if "id2label" in head:
        for name in (POOLING, NORMALIZED, *OF_SPANS):
            if hasattr(config, name):
                delattr(config, name)
    if hasattr(config, THRESHOLDS) and head.get("problem_type", config.problem_type) != config.problem_type:
        delattr(config, THRESHOLDS)
    for name, value in sorted(head.items(), reverse=True):  # num_labels would overwrite the labels' names
        setattr(config, name, value)


def reorder_thresholds(config: Any, rows: Sequence[int | None]) -> None:
    """Give each output the threshold of the output ``rows`` of before; none is left where one of them had none."""
    before = getattr(config, THRESHOLDS, None)
    if before is None:
        return
    if None in rows:
        delattr(config, THRESHOLDS)
    else:
        setattr(config, THRESHOLDS, [before[row] for row in rows if row is not None])


def head_of(config: Any) -> dict[str, Any]:
    """Return the settings that give another model a head of the same kind and size, its outputs without names."""
    own = {name: getattr(config, name, None) for name in (MARK, POOLING, NORMALIZED)}
    return {"num_labels": config.num_labels} | {name: value for name, value in own.items() if value is not None}


def named_outputs(config: Any) -> dict[str, Any]:
    """Return the entry of config.json with the names of all outputs, which transformers leaves out where it made them.

    Keys are texts, as JSON has them. The dimensions of vectors have no names.
    """
    if getattr(config, POOLING, None) is not None:
        return {}
    return {"id2label": {str(number): name for number, name in config.id2label.items()}}


def logits_of(returned: Any) -> Any:
    """Return the logits in what a model of transformers returned; those of starts and ends (batch, tokens, 2) together.

    A head for spans gives them apart, (batch, tokens) each.
    """
    if getattr(returned, STARTS_AND_ENDS[0], None) is None:
        return returned.logits
    return torch.stack([getattr(returned, name) for name in STARTS_AND_ENDS], dim=-1)


def counts_outputs(name: str) -> bool:
    """Return whether an entry of config.json says how many outputs there are."""
    return name.endswith("num_labels")


def wider_head(config: Any) -> dict[str, Any]:
    """Return the settings of a head with one output more."""
    return {"num_labels": output_count(config) + 1}


def head_of_size(outputs: int) -> dict[str, Any]:
    """Return the settings of a head with this number of outputs, without names."""
    return {"num_labels": outputs}


def output_count(config: Any) -> int:
    """Return how many outputs a head of this configuration has."""
    return int(config.num_labels or 1)
