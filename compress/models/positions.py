"""How many tokens a model takes, found by running a small copy of it: what its configuration says is not always that.

A table of positions may start behind the padding's number (RoBERTa, CamemBERT, MPNet), have rows that no token
reaches, or be larger than its configuration says (Nyströmformer).
"""

from __future__ import annotations

import copy
import json
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import embedding
from torch.overrides import TorchFunctionMode
from transformers import AutoModel
from transformers.initialization import no_init_weights

from compress.errors import ModelError
from compress.families.registry import (
    EXITING,
    FAKE_QUANTIZED,
    SHARED,
    UNEVEN,
    Principal,
    family_behind,
    principal_config,
)
from compress.models.architecture import ships_code
from compress.models.ensemble import EnsembleConfig
from compress.models.quiet import quiet

UNLIMITED = 2**20  # tokens, of a model whose configuration names no limit
MOST_VALUES = 2**30  # values of the small copy, 4 GiB
_TOKENS = 4  # of the row that is run
_ROOM = 8  # numbers of the small copy's vocabulary beyond the special tokens'
_measured: dict[str, list[tuple[int, int]]] = {}  # (first position of a row, rows) of each table, by configuration


def longest_row(config: Any) -> int:
    """Return the most tokens, special ones included, that a model of this configuration takes.

    Of a composite model: what each of its models takes. Where positions come from no table (relative and rotary
    ones, no transformer at all), and of a type that only code shipped with a model can build, the configured number.
    Raises ModelError where the architecture cannot be run.
    """
    if isinstance(config, EnsembleConfig):
        return min(longest_row(config.member(number)) for number in range(1, len(config.members or []) + 1))
    if isinstance(config, Principal):
        return longest_row(config.principal)
    return min((rows - first for first, rows in _tables(config)), default=0) or _configured(config)


def counts_from_padding(config: Any) -> bool:
    """Return whether positions start behind the number of the padding, as RoBERTa's do.

    Raises ModelError where the architecture cannot be run.
    """
    return any(first > 0 for first, _ in _tables(principal_config(config)))


def _tables(config: Any) -> list[tuple[int, int]]:
    """Return (first position of a row, rows) of each table of positions; none where positions come from no table."""
    key = json.dumps([type(config).__name__, config.to_dict()], sort_keys=True, default=str)
    if key not in _measured:
        stock = _stock(config)
        _measured[key] = [] if stock is None else _of_stock(stock)
    return _measured[key]


def _configured(config: Any) -> int:
    longest = int(getattr(config, "max_position_embeddings", None) or UNLIMITED)
    return longest if longest > 0 else UNLIMITED  # XLNet says -1


def _stock(config: Any) -> Any | None:
    """Return a copy with transformers' own type and uniform layers; None for a type without one.

    Where states were narrowed, as an artifact's configuration may say under the type of its family, it has one head:
    positions do not depend on heads.
    """
    stock = _of_own_type(config)
    heads, states = getattr(stock, "num_attention_heads", None), getattr(stock, "hidden_size", None)
    if stock is not None and type(heads) is int and type(states) is int and heads > 0 and states % heads:
        stock.num_attention_heads = 1
    return stock


def _of_own_type(config: Any) -> Any | None:
    name = str(config.model_type)
    mapping: Any = AutoModel._model_mapping
    if not name.startswith(UNEVEN):  # no type of ours
        return None if ships_code(config) or type(config) not in mapping else copy.deepcopy(config)
    family = family_behind(name, UNEVEN, SHARED, FAKE_QUANTIZED, EXITING)
    if family is None or family.config_class not in mapping:
        return None
    known = family.config_class().to_dict()
    settings = {key: value for key, value in config.to_dict().items() if key in known and key != "model_type"}
    return family.config_class(**settings)


def _of_stock(config: Any) -> list[tuple[int, int]]:
    """Return what `_tables` does, of a type of transformers' own; ``config`` is changed."""
    whole = copy.deepcopy(config)
    try:
        _shrink(config)
        return _reached(config)
    except ModelError:
        raise
    except Exception:  # an architecture with sizes of other names, such as Funnel's, is run as it is
        try:
            return _reached(whole)
        except ModelError:
            raise
        except Exception as error:  # whatever an architecture of any author raises
            first = (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".")
            raise ModelError(
                f"A model of type {config.model_type} with the settings of its config.json cannot be run: {first}. "
                "Correct config.json, or name another model."
            ) from error


def _shrink(config: Any) -> None:
    """Leave a configuration one layer and a few words beside the special tokens."""
    special = [value for key, value in config.to_dict().items() if key.endswith("_token_id") and type(value) is int]
    config.vocab_size = min(int(config.vocab_size), max([0, *special]) + _ROOM)
    config.num_hidden_layers = 1


def _reached(config: Any) -> list[tuple[int, int]]:
    with torch.device("meta"), quiet():
        values = sum(parameter.numel() for parameter in AutoModel.from_config(config).parameters())
    if values > MOST_VALUES:
        raise ModelError(
            f"A model of type {config.model_type} with the sizes of its config.json has more than {values:,} weights. "
            "Correct the sizes there."
        )
    before = torch.get_rng_state()
    try:
        with no_init_weights(), quiet(), torch.device("cpu"):
            model = AutoModel.from_config(config).eval()
    finally:
        torch.set_rng_state(before)
    word = 0 if config.pad_token_id != 0 else 1
    ids = torch.full((1, _TOKENS), word)
    tables = _Tables()
    with tables, torch.no_grad(), quiet():
        model(input_ids=ids, attention_mask=torch.ones_like(ids))
    return tables.positions


class _Tables(TorchFunctionMode):
    """Notes every look-up whose numbers count up along the row: (first number, rows of the table)."""

    def __init__(self) -> None:
        super().__init__()
        self.positions: list[tuple[int, int]] = []

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run ``func`` as it is."""
        if func is embedding and _counts(args[0]):
            self.positions.append((int(args[0].flatten()[0]), int(args[1].shape[0])))
        return func(*args, **(kwargs or {}))


def _counts(numbers: Tensor) -> bool:
    """Return whether these are the numbers of `_TOKENS` consecutive places, once."""
    row = numbers.flatten()
    return row.numel() == _TOKENS and bool((row[1:] - row[:-1] == 1).all())
