"""What can be removed from a model, and what can be measured of it: heads, feed-forward units, layers, channels."""

from compress.prune.parts.base import Active, Dispensable, Parts, Weighed
from compress.prune.parts.channels import CHANNELS
from compress.prune.parts.heads import HEADS
from compress.prune.parts.layers import LAYERS
from compress.prune.parts.units import UNITS

__all__ = [
    "CHANNELS",
    "HEADS",
    "LAYERS",
    "UNITS",
    "Active",
    "Dispensable",
    "Parts",
    "Weighed",
]
