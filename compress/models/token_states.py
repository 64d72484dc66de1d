"""What a model makes of single tokens: their states, each read alone, as a table that needs no model (model2vec)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

from compress.errors import ModelError
from compress.models.low_rank import low_rank
from compress.progress import progress

ROWS_A_BATCH = 256


@torch.inference_mode()
def states_of(model: PreTrainedModel, tokenizer: Any, pieces: Sequence[Sequence[int]]) -> Tensor:
    """Return (pieces, width): the mean of the last layer's states over each row of one entry of ``pieces``.

    An entry is the numbers of its tokens; it is read alone, between the special tokens that a text has. Raises
    ModelError where a model has no such states.
    """
    before, behind = _around(tokenizer)
    order = sorted(range(len(pieces)), key=lambda number: len(pieces[number]))
    means: list[Tensor] = [torch.empty(0)] * len(pieces)
    device = next(model.parameters()).device
    with progress(total=len(pieces), title="Teacher reads each token", unit="token") as bar:
        for start in range(0, len(order), ROWS_A_BATCH):
            chosen = order[start : start + ROWS_A_BATCH]
            rows = [[*before, *pieces[number], *behind] for number in chosen]
            longest = max(map(len, rows))
            mask = torch.tensor([[1] * len(row) + [0] * (longest - len(row)) for row in rows], device=device)
            ids = torch.tensor([row + [tokenizer.pad_token_id] * (longest - len(row)) for row in rows], device=device)
            states = getattr(model.base_model(input_ids=ids, attention_mask=mask), "last_hidden_state", None)
            if states is None:
                raise ModelError(
                    f"a teacher of type {model.config.model_type} has no states of tokens. Set student.start=random."
                )
            real = mask[:, :, None]
            for number, mean in zip(chosen, ((states * real).sum(1) / real.sum(1)).float().cpu(), strict=True):
                means[number] = mean
            bar.update(len(chosen))
    return torch.stack(means)


def principal_components(rows: Tensor, width: int) -> Tensor:
    """Return ``rows`` (rows, given) less their mean in their first principal components (rows, width), then zeros."""
    centred = rows - rows.double().mean(0).to(rows.dtype)
    given = rows.shape[1]
    reduced = low_rank(centred, min(width, given))[0]
    return torch.nn.functional.pad(reduced, (0, max(0, width - given)))


def _around(tokenizer: Any) -> tuple[list[int], list[int]]:
    """Return the numbers of the special tokens before and behind a text."""
    encoding = tokenizer("a", return_special_tokens_mask=True)
    numbers, special = encoding["input_ids"], encoding["special_tokens_mask"]
    first = special.index(0) if 0 in special else len(special)
    last = len(special) - special[::-1].index(0) if 0 in special else len(special)
    return numbers[:first], numbers[last:]
