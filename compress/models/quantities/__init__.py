"""What losses compare: quantities of a model, each of which knows how it is captured, stored, masked and skipped."""

from compress.models.quantities.attention import KEYS, QUERIES, RELATIONS, SCORES, VALUES
from compress.models.quantities.base import Captured, Quantity
from compress.models.quantities.hidden import HIDDEN
from compress.models.quantities.logits import LOGITS
from compress.models.quantities.members import MEMBERS

__all__ = [
    "HIDDEN",
    "KEYS",
    "LOGITS",
    "MEMBERS",
    "QUERIES",
    "RELATIONS",
    "SCORES",
    "VALUES",
    "Captured",
    "Quantity",
]
