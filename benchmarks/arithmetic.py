"""What arithmetic costs on this processor: linear layers of a batch of short rows, and a teacher's pass over rows.

Times are of one thread's processor time, so that other work does not count; of linear layers the best of several.

linear: GFLOP/s of forward, of the gradient in the inputs and of that in the weights, as torch computes them in fp32;
  forward by oneDNN in fp32; forward in bf16.
pass: logits, all hidden states and attention scores of all rows, in fp32 and in bf16 (autocast), and by how much logits
  and last hidden states differ.

example:
  python benchmarks/arithmetic.py --teacher PATH/TO/teacher --train PATH/TO/train.tsv
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional
from transformers import PreTrainedModel

from compress.data.dataset import Split
from compress.machine import describe, versions
from compress.models.loading import load_model, load_tokenizer
from compress.models.outputs import observe
from compress.models.quantities import HIDDEN, SCORES
from compress.models.tokens import Tokens, tokenize

TOKENS = (256, 416, 800)  # of a batch: 32 short rows
TURNS = 12
SEED = 13


def best(work: Callable[[], object]) -> float:
    """Return the shortest processor time of several calls, after one that does not count."""
    work()
    times = []
    for _ in range(TURNS):
        start = time.thread_time()
        work()
        times.append(time.thread_time() - start)
    return min(times)


def linear(tokens: int, inputs: int, outputs: int) -> dict[str, float]:
    """Return the GFLOP/s of one linear layer, by kind."""
    states, weight, bias = torch.randn(tokens, inputs), torch.randn(outputs, inputs), torch.randn(outputs)
    gradient, half = torch.randn(tokens, outputs), [value.bfloat16() for value in (states, weight, bias)]
    works: dict[str, Callable[[], Tensor]] = {
        "forward": lambda: functional.linear(states, weight, bias),
        "in inputs": lambda: gradient @ weight,
        "in weights": lambda: gradient.t() @ states,
        "oneDNN": lambda: torch.ops.mkldnn._linear_pointwise(states, weight, bias, "none", [], ""),
        "bf16": lambda: functional.linear(*half),
    }
    return {name: round(2e-9 * tokens * inputs * outputs / best(work), 1) for name, work in works.items()}


@torch.inference_mode()
def answer(teacher: PreTrainedModel, tokens: Tokens, *, half: bool) -> tuple[float, Tensor, list[Tensor]]:
    """Return the processor time of a pass over all rows, their logits, and their last hidden states by batch."""
    logits, states = [], []
    start = time.thread_time()
    with torch.autocast("cpu", torch.bfloat16, enabled=half):
        for rows in tokens.batches(32):
            outputs = observe(teacher, tokens.batch(rows), HIDDEN, SCORES)
            logits.append(outputs.logits.float())
            states.append(outputs[HIDDEN][max(outputs[HIDDEN])].float())
    return time.thread_time() - start, torch.cat(logits), states


def main() -> None:
    """Print two tables, then a line of JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--teacher", type=Path, required=True, help="folder of a model")
    parser.add_argument("--train", type=Path, required=True, help="label<TAB>text file with a header")
    parser.add_argument("--rows", type=int, default=448, help="drawn at random (default %(default)s)")
    given = parser.parse_args()
    torch.set_num_threads(1)
    teacher, tokenizer = load_model(given.teacher), load_tokenizer(given.teacher)
    width, units = teacher.config.hidden_size, teacher.config.intermediate_size
    speeds = {
        f"{tokens} x {inputs} x {outputs}": linear(tokens, inputs, outputs)
        for tokens in TOKENS
        for inputs, outputs in ((width, width), (width, units), (units, width))
    }
    print(f"{'GFLOP/s':20}" + "".join(f"{name:>12}" for name in next(iter(speeds.values()))))
    for shape, found in speeds.items():
        print(f"{shape:20}" + "".join(f"{speed:>12}" for speed in found.values()))
    lines = [line.split("\t")[1] for line in given.train.read_text(encoding="utf-8").split("\n")[1:] if line]
    drawn = np.random.default_rng(SEED).choice(len(lines), given.rows, replace=False)
    tokens = tokenize(Split(tuple(lines[row] for row in drawn)), tokenizer, 128)
    (_, logits, states), (_, rounded, near) = (answer(teacher, tokens, half=half) for half in (False, True))
    seconds = {half: min(answer(teacher, tokens, half=half)[0] for _ in range(2)) for half in (False, True)}
    apart = (logits - rounded).abs()
    compared = {
        "fp32_seconds": round(seconds[False], 2),
        "bf16_seconds": round(seconds[True], 2),
        "logits_apart_at_most": round(float(apart.max()), 4),
        "logits_apart_mean": round(float(apart.mean()), 4),
        "logits_largest": round(float(logits.abs().max()), 2),
        "states_apart": round(max(float((a - b).norm() / a.norm()) for a, b in zip(states, near, strict=True)), 4),
    }
    print("".join(f"\n{name.replace('_', ' '):24}{value:>10}" for name, value in compared.items()))
    machine = {"machine": describe(1), "versions": versions()}
    print(json.dumps({"benchmark": "arithmetic", "rows": given.rows, "linear": speeds, "pass": compared, **machine}))


if __name__ == "__main__":
    main()
