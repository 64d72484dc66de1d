"""Worker of pruning.py: prune once by TextPruner, run by the Python of TextPruner's own environment.

It reads one JSON object from standard input, imports nothing of `compress`, and prints one line of JSON. Used as
TextPruner's documentation shows: iterative pruning of heads and units to the same number in every layer, by the
loss's gradient on labelled rows, without training. TextPruner 1.1 needs a transformers below 5.
"""

from __future__ import annotations

import json
import sys
import tempfile
from importlib import metadata
from typing import Any

import torch
from textpruner import GeneralConfig, TransformerPruner, TransformerPruningConfig
from torch.utils.data import DataLoader
from transformers import AutoModelForSequenceClassification, AutoTokenizer

PACKAGES = ("textpruner", "torch", "transformers")


def main() -> None:
    """Prune, answer the test rows, print the accuracy and the shape."""
    job: dict[str, Any] = json.loads(sys.stdin.read())
    torch.manual_seed(job["seed"])
    torch.set_num_threads(1)
    # only eager attention can lose heads
    model = AutoModelForSequenceClassification.from_pretrained(job["model"], attn_implementation="eager")
    tokenizer = AutoTokenizer.from_pretrained(job["model"])

    def batch_of(rows: list[tuple[str, int]]) -> dict[str, Any]:
        texts, labels = zip(*rows, strict=True)
        encoded = tokenizer(
            list(texts), truncation=True, max_length=job["max_tokens"], padding=True, return_tensors="pt"
        )
        return {**encoded, "labels": torch.tensor(labels)}

    rows: Any = list(zip(job["texts"], job["labels"], strict=True))
    with tempfile.TemporaryDirectory() as folder:
        pruner = TransformerPruner(
            model,
            transformer_pruning_config=TransformerPruningConfig(
                target_ffn_size=job["units"], target_num_of_heads=job["heads"], pruning_method="iterative",
                n_iters=job["iterations"],
            ),
            general_config=GeneralConfig(use_device="cpu", output_dir=folder),
        )  # fmt: skip
        pruner.prune(DataLoader(rows, 32, collate_fn=batch_of), save_model=False)
    model.eval()
    right = 0
    with torch.no_grad():
        tests: Any = list(zip(job["test_texts"], job["test_labels"], strict=True))
        for batch in DataLoader(tests, 32, collate_fn=batch_of):
            labels = batch.pop("labels")
            right += int((model(**batch).logits.argmax(-1) == labels).sum())
    shape = [
        [layer.attention.self.num_attention_heads, layer.intermediate.dense.weight.shape[0]]
        for layer in model.base_model.encoder.layer
    ]
    found = {
        "accuracy": right / len(tests),
        "shape": shape,
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "versions": {package: metadata.version(package) for package in PACKAGES},
    }
    print(json.dumps(found))


if __name__ == "__main__":
    main()
