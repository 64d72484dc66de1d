"""What batches of similar lengths save in padding, and how evenly classes come in them: one epoch, no training.

rows: in random order; sorted by length in groups of 50 batches; the same with classes mixed, as a training has it.
padding: tokens of all batches over those that rows have, less 1.
classes: how much the share of a class differs between batches, as a standard deviation over that of random batches
  (binomial), of the worst class. 1: as even as chance; above, batches of some lengths have too much of a class.

example:
  python benchmarks/batches.py --tokenizer PATH/TO/teacher FILE.tsv FILE.tsv
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np

from compress.data.dataset import Split
from compress.models.loading import load_tokenizer
from compress.models.tokens import tokenize
from compress.train import LengthGrouped, Order, Shuffled

SEED = 13


def read(path: Path) -> tuple[tuple[str, ...], np.ndarray[Any, Any]]:
    """Return texts and numbers of classes of a ``label<TAB>text`` file with a header."""
    lines = [line.split("\t") for line in path.read_text(encoding="utf-8").split("\n")[1:] if line]
    return tuple(text for _, text in lines), np.unique([label for label, _ in lines], return_inverse=True)[1]


def measure(order: Order, lengths: np.ndarray[Any, Any], classes: np.ndarray[Any, Any], size: int) -> dict[str, float]:
    """Return the padding of an epoch's full batches, and how unevenly the worst class is spread over them."""
    rows = np.array(list(order))
    rows = rows[: len(rows) // size * size].reshape(-1, size)
    shares = np.bincount(classes) / len(classes)
    spread = [(classes[rows] == number).mean(1).std() for number in range(len(shares))]
    uneven = max(found / np.sqrt(share * (1 - share) / size) for found, share in zip(spread, shares, strict=True))
    padding = lengths[rows].max(1).sum() * size / lengths[rows].sum() - 1
    return {"padding": round(float(padding), 3), "classes": round(float(uneven), 2)}


def _cell(found: dict[str, float]) -> str:
    return f"{found['padding']:.1%}, {found['classes']:.2f}"


def main() -> None:
    """Print a table, then a line of JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", type=Path, nargs="+", help="label<TAB>text files with a header")
    parser.add_argument("--tokenizer", type=Path, required=True, help="folder of a model")
    parser.add_argument("--batch-size", type=int, default=32, help="rows per batch (default %(default)s)")
    given = parser.parse_args()
    tokenizer, found = load_tokenizer(given.tokenizer), {}
    print(f"{'':20}{'classes':>9}{'at random':>16}{'by length':>16}{'classes mixed':>16}")
    for path in given.files:
        texts, classes = read(path)
        lengths = tokenize(Split(texts), tokenizer, tokenizer.model_max_length).lengths
        orders = (
            Shuffled(len(lengths), SEED),
            LengthGrouped(lengths, given.batch_size, SEED),
            LengthGrouped(lengths, given.batch_size, SEED, classes),
        )
        name = path.parent.name or path.name
        found[name] = [measure(order, lengths, classes, given.batch_size) for order in orders]
        cells = "".join(f"{_cell(cell):>16}" for cell in found[name])
        print(f"{name:20}{classes.max() + 1:>9}{cells}")
    print(json.dumps({"benchmark": "batches", "batch_size": given.batch_size, "results": found}))


if __name__ == "__main__":
    main()
