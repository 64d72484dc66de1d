"""The pruning of torch-pruning's own example for BERT (prune_hf_bert.py), on a classifier, for pruning.py.

Magnitude over the whole model, heads, units and hidden channels together, the same ratio for all, once, without
training. As in the example the pooler is left alone; here the classifier is, too. What comes of it fits no
configuration of transformers, so it is used as it lies in memory.
"""

from __future__ import annotations

import copy
from typing import Any

import torch
import torch_pruning as tp
from transformers import PreTrainedModel
from transformers.models.bert.modeling_bert import BertSelfAttention


def to_macs(model: PreTrainedModel, speedup: float, tokens: int) -> PreTrainedModel:
    """Return ``model`` with the least ratio pruned, in hundredths, that divides its multiplications by ``speedup``."""
    low, high = 0, 99  # of a hundred; the first is too little, the last enough
    while high - low > 1:
        ratio = (low + high) // 2
        _, gain = pruned(model, ratio / 100, tokens)
        low, high = (low, ratio) if gain >= speedup else (ratio, high)
    return pruned(model, high / 100, tokens)[0]


def pruned(model: PreTrainedModel, ratio: float, tokens: int) -> tuple[PreTrainedModel, float]:
    """Return a pruned copy, and by what its multiplications for one row of ``tokens`` tokens are divided."""
    smaller = copy.deepcopy(model).eval()
    smaller.set_attn_implementation("eager")
    row = torch.ones(1, tokens, dtype=torch.long)
    example = {"input_ids": row, "token_type_ids": torch.zeros_like(row), "attention_mask": row}
    attentions = [module for module in smaller.modules() if isinstance(module, BertSelfAttention)]
    before, _ = tp.utils.count_ops_and_params(smaller, example)
    pruner = tp.pruner.MetaPruner(
        smaller,
        example,
        importance=tp.importance.MagnitudeImportance(p=2, group_reduction="mean"),
        global_pruning=True,
        iterative_steps=1,
        pruning_ratio=ratio,
        pruning_ratio_dict={},
        head_pruning_ratio=ratio,
        num_heads={
            part: attention.num_attention_heads
            for attention in attentions
            for part in (attention.query, attention.key, attention.value)
        },
        prune_num_heads=True,
        prune_head_dims=False,
        output_transform=lambda output: output.logits.sum(),
        ignored_layers=[smaller.bert.pooler, smaller.classifier],
    )
    for group in pruner.step(interactive=True):
        group.prune()
    for attention in attentions:
        attention.num_attention_heads = pruner.num_heads[attention.query]
        attention.attention_head_size = attention.query.out_features // attention.num_attention_heads
        attention.all_head_size = attention.query.out_features
    after, _ = tp.utils.count_ops_and_params(smaller, example)
    return smaller, before / after


def shape(model: PreTrainedModel) -> list[Any]:
    """Return heads and units of every layer."""
    layers = model.bert.encoder.layer
    return [[layer.attention.self.num_attention_heads, layer.intermediate.dense.out_features] for layer in layers]
