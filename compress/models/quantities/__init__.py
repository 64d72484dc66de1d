"""What losses compare: quantities of a model, each of which knows how it is captured, stored, masked and skipped."""

from compress.models.quantities.attention import KEYS, QUERIES, RELATIONS, SCORES, VALUES
from compress.models.quantities.base import Captured, Quantity
from compress.models.quantities.hidden import HIDDEN
from compress.models.quantities.logits import LOGITS

__all__ = [
    "HIDDEN",
    "KEYS",
    "LOGITS",
    "QUERIES",
    "RELATIONS",
    "SCORES",
    "VALUES",
    "Captured",
    "Quantity",
]
