"""Words and letters of Chinese: which of them TF-IDF should count, and how well a student's tokenizer finds the words.

    python benchmarks/words.py train.tsv --test dev_clean.tsv test_clean.tsv --rows 4000 --seeds 0 1 2

Both without training a network. The tokenizer is that of `student.tokens=words` with `data.words=jieba`: made from
the training rows, it needs jieba no more.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import replace
from unittest import mock

from compress.benchmark import baselines
from compress.benchmark.baselines import NGrams, TfIdf
from compress.data.dataset import Dataset
from compress.data.files import Files
from compress.data.jieba_words import jieba_words
from compress.data.scripts import Segmentation
from compress.models.vocabulary import of_words, wordless

WORDS = NGrams("words of jieba", "word", 2, words=Segmentation.jieba)
CHARACTERS = NGrams("characters", "char", 3)
COUNTED = {"characters": [CHARACTERS], "words": [WORDS], "words and characters": [WORDS, CHARACTERS]}


def accuracies(data: Dataset, tests: Sequence[Dataset], kinds: list[NGrams]) -> list[float]:
    """Return the accuracy of logistic regression on n-grams of the training rows, for each test split."""
    texts = list(data.train.texts)
    with mock.patch.object(baselines, "n_grams", return_value=kinds):
        model = data.task.baseline(texts, data.train.known_labels, TfIdf(texts, data.task.outputs))
    splits = [other.test for other in tests]
    return [data.task.metrics(model.logits(list(rows.texts)), rows.known_labels)["accuracy"] for rows in splits]


def agreement(data: Dataset, test: Dataset) -> dict[str, float]:
    """Return how many of jieba's words are the tokenizer's, and the share of unknown tokens, on the test rows."""
    backend = of_words(wordless(512), data.train.texts, 30_000, 2, Segmentation.jieba).backend_tokenizer
    unknown = backend.token_to_id("[UNK]")
    own = theirs = both = tokens = unknowns = 0
    for text in test.test.texts:
        encoding = backend.encode(text, add_special_tokens=False)
        expected = set(jieba_words(text))
        found = {place for place in encoding.offsets if list(jieba_words(text[place[0] : place[1]]))}
        own, theirs, both = own + len(found), theirs + len(expected), both + len(found & expected)
        tokens, unknowns = tokens + len(encoding.ids), unknowns + encoding.ids.count(unknown)
    return {"precision": both / own, "recall": both / theirs, "unknown": unknowns / tokens}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("train")
    parser.add_argument("--test", nargs="+", required=True)
    parser.add_argument("--rows", type=int, default=4000)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    given = parser.parse_args()
    found = []
    for seed in given.seeds:
        tests = [Files(train=given.train, test=test, train_rows=given.rows).load("auto", seed) for test in given.test]
        data = replace(tests[0], words=Segmentation.jieba)
        for name, kinds in COUNTED.items():
            scores = dict(zip(given.test, accuracies(data, tests, kinds), strict=True))
            print(f"seed {seed}, {name}: " + ", ".join(f"{test} {100 * score:.1f} %" for test, score in scores.items()))
            found.append({"seed": seed, "counted": name, **scores})
        shares = agreement(data, tests[-1])
        print(f"seed {seed}, tokenizer: " + ", ".join(f"{name} {share:.1%}" for name, share in shares.items()))
        found.append({"seed": seed, **shares})
    print(json.dumps(found))


if __name__ == "__main__":
    main()
