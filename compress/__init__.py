"""Make BERT-sized models small and fast: distil, prune, quantize, export, and report honestly."""

from compress.models.registration import register

register()

__version__ = "0.1.0"
