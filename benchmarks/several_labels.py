"""A set with several labels per row, made of any labelled set: two texts joined, with the labels of both.

    python benchmarks/several_labels.py snips/train.tsv train.jsonl --rows 4000
    python benchmarks/several_labels.py snips/test.tsv test.jsonl --rows 700

Each row joins two rows of the file, drawn at random with the seed, so that its labels are one or two; no row of the
file is drawn again before all were. The file is read as `compress run data=files` reads it.
"""

from __future__ import annotations

import argparse
import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from compress.data import Files


def main() -> None:
    """Write the rows, and print how many have which labels."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", help="a file with one label per row")
    parser.add_argument("target", type=Path, help="the JSONL file that is written")
    parser.add_argument("--rows", type=int, required=True)
    parser.add_argument("--seed", type=int, default=13)
    given = parser.parse_args()

    rows = list(joined(given.source, given.rows, given.seed))
    with given.target.open("w", encoding="utf-8") as file:
        file.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    counts = Counter(name for row in rows for name in row["labels"])
    both = sum(len(row["labels"]) == 2 for row in rows)
    print(f"{given.target}: {len(rows):,} rows, {both:,} with two labels; {dict(sorted(counts.items()))}")


def joined(source: str, rows: int, seed: int) -> Iterator[dict[str, str | list[str]]]:
    """Yield rows of two texts and the labels of both."""
    read = Files(train=source).read().train
    generator, order = np.random.default_rng(seed), np.empty(0, np.int64)
    while len(order) < 2 * rows:
        order = np.concatenate([order, generator.permutation(len(read))])
    for first, second in order[: 2 * rows].reshape(-1, 2):
        labels = sorted({read.words[first], read.words[second]})
        yield {"labels": labels, "text": f"{read.texts[first]} {read.texts[second]}"}


if __name__ == "__main__":
    main()
