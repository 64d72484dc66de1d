"""One word of a command line, parsed by Hydra's grammar."""

from __future__ import annotations

import math
from collections.abc import Mapping
from decimal import Decimal
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import ChoiceSweep, IntervalSweep, RangeSweep
from hydra.errors import HydraException

from compress.cli.limits import MOST_JOBS
from compress.cli.words import Word
from compress.registry import is_open
from compress.settings import spelled


def parse(text: str) -> Word | None:
    """Return a word with its values; None where it cannot be read."""
    try:
        word = OverridesParser.create().parse_override(text)
    except (HydraException, ValueError):  # a number of thousands of digits
        return None
    key = word.key_or_group
    if not word.is_sweep_override():
        value = word.value()
        if is_open(key.split(".")) and isinstance(value, Mapping):
            value = {
                spelled(name): held if isinstance(held, Mapping | list) else spelled(held)
                for name, held in value.items()
            }
        return Word(key, text, (value,), (text,))
    count = _count(word._value)
    if not 0 < count <= MOST_JOBS:  # not listed; `count` tells why
        return Word(key, text, (), (), count=count)
    if word.is_discrete_sweep():
        texts = tuple(f"{text.partition('=')[0]}={value}" for value in word.sweep_string_iterator())
    else:  # an interval, for sweepers that search: its two ends stand for it
        interval: Any = word.value()
        texts = (f"{key}={interval.start}", f"{key}={interval.end}")
    parsed = [OverridesParser.create().parse_override(single) for single in texts]
    values = tuple(single.value() for single in parsed)
    return Word(key, text, values, texts, count=count, searched=not word.is_discrete_sweep())


def _count(sweep: Any) -> int:
    """Return how many values a sweep has without listing them; 0 where it has none, or no end."""
    if isinstance(sweep, ChoiceSweep):
        return len(sweep.list)
    if isinstance(sweep, IntervalSweep):
        return 2
    if not isinstance(sweep, RangeSweep) or not sweep.step:
        return 0  # glob(…) too, which knows no names here
    try:
        return max(0, math.ceil((Decimal(str(sweep.stop)) - Decimal(str(sweep.start))) / Decimal(str(sweep.step))))
    except (ArithmeticError, ValueError):  # from or to infinity, or no number
        return 0
