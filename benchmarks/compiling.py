"""Does torch.compile pay in training? Steps of a student alternately compiled or not, and with activations kept or not.

    python benchmarks/compiling.py MODEL train.tsv --layers 3 --rows 640

Seconds are those of this process's own processor time, so that others on the machine do not count, and the first epoch,
in which shapes are compiled, is apart from the later ones. Rows come in batches of 32 of about equal length, as in
training. Peak memory is what autograd keeps for the backward pass.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from contextlib import nullcontext

import torch
from transformers import AutoModelForSequenceClassification, PreTrainedModel

from compress.data.files import Files
from compress.models.loading import load_tokenizer, quiet
from compress.models.tokens import Tokens, tokenize
from compress.train.order import LengthGrouped
from compress.train.recomputing import recomputing

BATCH = 32


def student(source: str, layers: int, classes: int) -> PreTrainedModel:
    """Return the first layers of a model, with the head of a classifier."""
    torch.manual_seed(1)
    with quiet():
        model = AutoModelForSequenceClassification.from_pretrained(source, num_hidden_layers=layers, num_labels=classes)
    return model.train()


def epoch(model: PreTrainedModel, tokens: Tokens, optimizer: torch.optim.Optimizer) -> list[float]:
    """Train once on all rows; return the seconds of each step."""
    order = list(LengthGrouped(tokens.lengths, BATCH, 1))
    seconds = []
    for start in range(0, len(order) - BATCH + 1, BATCH):
        batch = tokens.batch(order[start : start + BATCH])
        begin = time.process_time()
        loss = model(**{name: batch[name] for name in ("input_ids", "attention_mask", "labels")}).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        seconds.append(time.process_time() - begin)
    return seconds


def kept_mib(model: PreTrainedModel, tokens: Tokens, *, again: bool) -> float:
    """Return what autograd keeps of the forward of the longest batch, in MiB; what layers compute again is not kept."""
    kept: dict[int, int] = {}

    def note(tensor: torch.Tensor) -> torch.Tensor:
        kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    parameters = {parameter.untyped_storage().data_ptr() for parameter in model.parameters()}
    batch = tokens.batch([int(row) for row in tokens.lengths.argsort()[-BATCH:]])
    with recomputing(model) if again else nullcontext(), torch.autograd.graph.saved_tensors_hooks(note, lambda t: t):
        model(**{name: batch[name] for name in ("input_ids", "attention_mask", "labels")})
    return sum(size for place, size in kept.items() if place not in parameters) / 2**20


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("train")
    parser.add_argument("--layers", type=int, default=3)
    parser.add_argument("--rows", type=int, default=640)
    parser.add_argument("--epochs", type=int, default=3)
    given = parser.parse_args()
    torch.set_num_threads(1)
    data = Files(train=given.train, train_rows=given.rows).load("auto", 1)
    tokens = tokenize(data.train, load_tokenizer(given.model), 128)
    ways = {}
    for name in ("eager", "again", "compiled"):
        model = student(given.model, given.layers, data.task.outputs)
        ways[name] = model, torch.optim.AdamW(model.parameters(), lr=1e-4)
    ways["compiled"][0].compile(dynamic=True)
    found: dict[str, list[list[float]]] = {name: [] for name in ways}
    begin = time.time()
    for number in range(given.epochs):
        for name, (model, optimizer) in ways.items():
            with recomputing(model) if name == "again" else nullcontext():
                found[name].append(epoch(model, tokens, optimizer))
            print(f"epoch {number + 1}, {name}: {sum(found[name][-1]):.1f} s", flush=True)
    later = {name: statistics.median(step for steps in epochs[1:] for step in steps) for name, epochs in found.items()}
    first = {name: sum(epochs[0]) for name, epochs in found.items()}
    kept = {again: kept_mib(ways["eager"][0], tokens, again=again) for again in (False, True)}
    print(f"a later step: {', '.join(f'{name} {1000 * seconds:.0f} ms' for name, seconds in later.items())}")
    print(f"kept for the backward pass: {kept[False]:.0f} MiB, computed again {kept[True]:.0f} MiB")
    wall = time.time() - begin
    print(json.dumps({"first_epoch": first, "step": later, "kept_mib": list(kept.values()), "wall": wall}))


if __name__ == "__main__":
    main()
