"""Sentence vectors in fewer dimensions: whitened, as principal components, and simply cut.

    python benchmarks/vectors.py TRAIN.tsv TEST.tsv [MODEL]

Files hold ``score, text, second text``. The model, by default the packaged all-MiniLM-L6-v2, is not trained. Prints
Spearman's correlation on the test pairs for each width, and the paired difference from all dimensions.
"""

from __future__ import annotations

import json
import sys

import numpy as np

from compress.data import Files
from compress.models.evaluate import predict_rows
from compress.models.loading import load_tokenizer
from compress.models.tokens import tokenize
from compress.prune.whitening import unnormalized, whitening
from compress.tasks.base import Array
from compress.tasks.vectors import SentenceVectors
from compress.teachers.model import Teacher

WIDTHS = (256, 128, 64)


def main(train: str, test: str, model: str = "minilm") -> None:
    """Print the table, and its figures as one line of JSON."""
    teacher = Teacher(model=model)
    data = teacher.inspect(Files(train=train, test=test).load("vectors", 13)).data
    task, labels = data.task, data.test.known_labels
    assert isinstance(task, SentenceVectors)
    (member,) = teacher.looked_at(data)
    encoder, tokenizer = teacher.classifier(member, data), load_tokenizer(teacher.source())
    texts = tokenize(data.train, tokenizer, teacher.max_tokens)
    measured = tokenize(data.test, tokenizer, teacher.max_tokens)
    whole = predict_rows(encoder, measured, "test")
    learned, raw = unnormalized(encoder, texts), unnormalized(encoder, measured)
    rows = []

    def add(how: str, width: int, vectors: Array) -> None:
        found = task.difference(vectors, whole, labels)
        low, high = 100 * found.low, 100 * found.high
        spearman = 100 * task.metrics(vectors, labels)["spearman"]
        rows.append({"how": how, "width": width, "spearman": spearman, "low": low, "high": high})
        print(f"| {how} | {width} | {spearman:.2f} | {100 * found.value:+.2f} [{low:+.2f}, {high:+.2f}] |")

    print(f"{model}: {len(data.train):,} training texts, {len(labels) // 2:,} test pairs\n")
    print("| how | width | Spearman | difference [95 % interval] |\n|---|---|---|---|")
    add("as it is", whole.shape[1], whole)
    for width in (width for width in WIDTHS if width < whole.shape[1]):
        for how, scale in (("whitened", True), ("principal components", False)):
            mean, kernel, _ = whitening(learned, width, scale=scale)
            add(how, width, (raw - mean) @ kernel)
        add("cut", width, np.ascontiguousarray(whole[:, :width]))
    print(json.dumps(rows))


if __name__ == "__main__":
    main(*sys.argv[1:])
