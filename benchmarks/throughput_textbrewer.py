"""Worker of throughput.py: time one distillation by TextBrewer, run by the Python of TextBrewer's own environment.

It reads one JSON object from standard input, imports nothing of `compress`, and prints one line of JSON. Used as
TextBrewer's documentation shows: an adaptor, `intermediate_matches`, a shuffled DataLoader.
Loading, tokenizing and a warm-up of two batches are not timed; `train` and its one save at the end are.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from importlib import metadata
from typing import Any

import torch
from textbrewer import BasicDistiller, DistillationConfig, GeneralDistiller, TrainingConfig
from torch.utils.data import DataLoader
from transformers import AutoModelForSequenceClassification, AutoTokenizer, get_linear_schedule_with_warmup

PACKAGES = ("textbrewer", "torch", "transformers")


def adaptor(batch: dict[str, Any], outputs: Any) -> dict[str, Any]:
    """Return what TextBrewer's losses look for, of what a transformers model returns."""
    outcome = {"logits": outputs.logits, "inputs_mask": batch["attention_mask"]}
    if outputs.hidden_states is not None:
        outcome["hidden"] = outputs.hidden_states
    if outputs.attentions is not None:
        outcome["attention"] = outputs.attentions
    return outcome


def matches(job: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the layer losses; hidden 0 is the embeddings, attention 0 the first layer's."""
    pairs = []
    if "hidden" in job["losses"]:
        pairs += [("hidden", s, t) for s, t in ([0, 0], *job["layers"])]
    if "attention" in job["losses"]:
        pairs += [("attention", s - 1, t - 1) for s, t in job["layers"]]
    return [
        {"layer_S": s, "layer_T": t, "feature": feature, "loss": f"{feature}_mse", "weight": 1}
        for feature, s, t in pairs
    ]


def train(job: dict[str, Any], texts: list[str], epochs: int, folder: str) -> dict[str, float]:
    """Distil once from fresh models; return the seconds of all, of the first epoch, and of the processor."""
    attention = "eager" if "attention" in job["losses"] else "sdpa"  # only eager returns attentions
    teacher, student = (
        AutoModelForSequenceClassification.from_pretrained(job[name], attn_implementation=attention, dtype="float32")
        for name in ("teacher", "student")
    )
    tokenizer = AutoTokenizer.from_pretrained(job["teacher"])
    encoded = tokenizer(texts, truncation=True, max_length=job["max_tokens"])
    rows: Any = [{name: encoded[name][i] for name in encoded} for i in range(len(texts))]
    padding = {"padding": "max_length", "max_length": job["max_tokens"]} if job["padded"] else {"padding": True}

    def batch_of(some: list[dict[str, Any]]) -> dict[str, Any]:
        return dict(tokenizer.pad(some, return_tensors="pt", **padding))

    loader: DataLoader[Any] = DataLoader(rows, batch_size=job["batch_size"], shuffle=True, collate_fn=batch_of)
    steps = epochs * len(loader)
    whole = bool(set(job["losses"]) - {"soft"})  # logits alone are what TextBrewer can cache
    distiller = (GeneralDistiller if whole else BasicDistiller)(
        train_config=TrainingConfig(output_dir=folder, device="cpu", ckpt_epoch_frequency=epochs),
        distill_config=DistillationConfig(
            temperature=job["temperature"],
            kd_loss_weight=job["temperature"] ** 2,
            intermediate_matches=matches(job),
            is_caching_logits=not whole,
        ),
        model_T=teacher,
        model_S=student,
        adaptor_T=adaptor,
        adaptor_S=adaptor,
    )
    ends: list[float] = []  # when each student step came to an end
    optimizer = torch.optim.AdamW(student.parameters(), lr=5e-5, weight_decay=0.01, fused=True)
    optimizer.register_step_post_hook(lambda *_: ends.append(time.perf_counter()))
    start, busy = time.perf_counter(), time.process_time()
    with distiller:
        distiller.train(
            optimizer,
            loader,
            num_epochs=epochs,
            scheduler_class=get_linear_schedule_with_warmup,
            scheduler_args={"num_warmup_steps": round(0.1 * steps), "num_training_steps": steps},
            max_grad_norm=1.0,
            output_hidden_states="hidden" in job["losses"],
            output_attentions="attention" in job["losses"],
        )
    return {
        "seconds": time.perf_counter() - start,
        "first_seconds": ends[len(loader) - 1] - start,
        "cpu_seconds": time.process_time() - busy,
    }


def main() -> None:
    """Run the job that standard input holds."""
    job = json.load(sys.stdin)
    torch.set_num_threads(job["threads"])
    torch.manual_seed(job["seed"])
    with tempfile.TemporaryDirectory() as folder:
        train(job, job["texts"][: 2 * job["batch_size"]], 1, folder)
        result = train(job, job["texts"], job["epochs"], folder)
    print(json.dumps(result | {"versions": {name: metadata.version(name) for name in PACKAGES}}))


if __name__ == "__main__":
    main()
