"""Teachers and students of other kinds: Chinese, other tokenizers, and answers of a file against the teacher itself.

    python benchmarks/models.py chinese --teacher e5-small-zh-en \
        --files chnsenticorp/train.tsv chnsenticorp/dev.tsv chnsenticorp/test_clean.tsv 9600
    python benchmarks/models.py tokenizers --teacher e5-small-zh-en --start all-MiniLM-L6-v2 \
        --files sst2/train.tsv sst2/dev.tsv sst2/dev.tsv 8000
    python benchmarks/models.py answers --teacher minilm-sst2 --start all-MiniLM-L6-v2 \
        --files sst2/train.tsv sst2/dev.tsv sst2/dev.tsv 8000

``chinese`` distils six and three layers of the teacher. ``tokenizers`` teaches the encoder of ``--start``, whose
vocabulary is another, by logits alone and with losses by words. ``answers`` writes what the teacher answers to a file,
and teaches the same student from the file and from the teacher. Every way is run with every seed, beside labels alone
and the teacher. Finished work is kept in ``--cache``: run the same command after an interruption, and it resumes.
Prints a Markdown table and, last, one line of JSON.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from seeds import of_figures, shown

from compress.cli.compose import compose
from compress.machine import describe, versions
from compress.run.answer import write_answers

FILE = "{answers}"  # stands for the file of answers of a seed
SMALL = ["recipe=soft_targets", "student.layers=all"]
COMPARISONS: dict[str, dict[str, list[str]]] = {
    "chinese": {
        "six layers": ["recipe=chinese", "student.layers=6"],
        "three layers": ["recipe=chinese", "student.layers=3"],
    },
    "tokenizers": {
        "logits": SMALL,
        "logits, and states by words": [
            *SMALL, "distill.losses=[soft,hard,hidden,cosine]",
        ],
        "logits, and relations by words": [
            *SMALL, "distill.losses=[soft,hard,relations]",
        ],
    },
    "answers": {
        "the teacher itself": SMALL,
        "its answers in a file": [*SMALL, "teacher=answers", f"teacher.file={FILE}"],
    },
}  # fmt: skip


def main() -> None:
    """Run every way with every seed, compare, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("comparison", choices=COMPARISONS)
    parser.add_argument("--teacher", required=True, help="its folder")
    parser.add_argument("--start", help="folder of the student's encoder")
    parser.add_argument("--files", nargs=4, required=True, metavar=("TRAIN", "VALIDATION", "TEST", "ROWS"))
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--output", default="runs/models", help="folder of the runs and of the answers")
    parser.add_argument("--cache", default="runs/.cache")
    parser.add_argument("--words", nargs="+", default=[], metavar="WORD", help="more words of `compress run`")
    given = parser.parse_args()
    if given.start is None and given.comparison != "chinese":
        parser.error(f"{given.comparison} needs --start: the encoder that is taught")

    figures: dict[str, list[float]] = {}
    for seed in given.seeds:
        for number, (way, words) in enumerate(COMPARISONS[given.comparison].items(), start=1):
            folder = f"{given.output}/{given.comparison}-{number}-{seed}"
            report = compose([*words_of(given, words, seed), f"output={folder}"]).run().report
            for entry in report.entries:
                metric = report.metric(entry)
                if metric is not None and (entry.group != "baseline" or entry.name == "labels_only"):
                    figures.setdefault(f"{way}: {entry.name}", []).append(metric)
    print(table(figures))
    found = {"comparison": given.comparison, "files": given.files, "seeds": given.seeds, "figures": figures}
    print(json.dumps(found | {"machine": describe(1), "versions": versions()}))


def words_of(given: argparse.Namespace, words: Sequence[str], seed: int) -> list[str]:
    """Return the words of a run; writes the file of answers where it needs one."""
    train, validation, test, rows = given.files
    common = [
        "data=files", f"data.train={train}", f"data.test={test}", f"data.train_rows={rows}", f"seed={seed}",
        f"cache={given.cache}", *([] if validation == test else [f"data.validation={validation}"]),
        *([] if given.start is None else [f"student.start={given.start}"]), *given.words,
    ]  # fmt: skip
    if not any(FILE in word for word in words):
        return [*words, *common, f"teacher.model={given.teacher}"]
    file = Path(given.output) / f"answers-{seed}.jsonl"
    if not file.exists():
        file.parent.mkdir(parents=True, exist_ok=True)
        recipe = compose([*SMALL, *common, f"teacher.model={given.teacher}"])
        write_answers(recipe, file)
    return [*(word.replace(FILE, str(file)) for word in words), *common]


def table(figures: dict[str, list[float]]) -> str:
    """Return the Markdown table; the last column is the difference to the first way's same model, over seeds."""
    lines = ["| model | by seed | mean | against the first way |", "|---|---|---|---|"]
    first = next(iter(figures)).partition(": ")[0]
    for name, values in figures.items():
        way, _, model = name.partition(": ")
        others = figures.get(f"{first}: {model}")
        apart = "" if way == first or others is None or len(values) < 2 else shown(of_figures(values, others))
        by_seed = ", ".join(f"{100 * value:.1f}" for value in values)
        lines.append(f"| {name} | {by_seed} | {100 * float(np.mean(values)):.1f} | {apart} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
