"""Make BERT-sized models small and fast: distil, prune, quantize, export, and report honestly."""

from compress.auto_classes import announce

__version__ = "0.1.0"

announce()
