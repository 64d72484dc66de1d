"""A model must say the same to the bit when another process loads what was saved."""

from __future__ import annotations

from pathlib import Path

import torch
from transformers import PreTrainedModel

from compress.models.loading import save_model
from compress.models.outputs import observe
from tests.conftest import tiny_batch, tiny_tokenizer
from tests.fresh import run_fresh

CODE = """
import sys, torch, compress
from pathlib import Path
from transformers import AutoModelForSequenceClassification
for folder in map(Path, sys.argv[1:]):
    said = torch.load(folder / "said.pt")
    model = AutoModelForSequenceClassification.from_pretrained(folder).eval()
    with torch.no_grad():
        assert torch.equal(model(**said["inputs"]).logits, said["logits"]), folder
"""


@torch.no_grad()
def check_reloading(models: dict[str, PreTrainedModel], folder: Path) -> None:
    """Save models, by the family of their teacher, and load them in one fresh process."""
    places = [folder / family for family in models]
    for place, (family, model) in zip(places, models.items(), strict=True):
        save_model(model, tiny_tokenizer(family), place)
        batch = tiny_batch(family=family)
        inputs = {name: value for name, value in batch.items() if name != "labels"}
        torch.save({"inputs": inputs, "logits": observe(model, batch).logits}, place / "said.pt")
        assert not list(place.glob("*.bin"))
    run_fresh(CODE, *places)
