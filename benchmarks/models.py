"""Teachers and students of other kinds: Chinese, other tokenizers, and answers of a file against the teacher itself.

    python benchmarks/models.py chinese --teacher e5-small-zh-en --train chnsenticorp/train.tsv \
        --validation chnsenticorp/dev.tsv --test chnsenticorp/test.tsv --clean chnsenticorp/test_clean.tsv --rows 4000
    python benchmarks/models.py tokenizers --teacher e5-small-zh-en --start all-MiniLM-L6-v2 \
        --train sst2/train.tsv --test sst2/dev.tsv --rows 4000
    python benchmarks/models.py answers --teacher minilm-sst2 --start all-MiniLM-L6-v2 \
        --train sst2/train.tsv --test sst2/dev.tsv --rows 4000 --words teacher.fine_tune=never
    python benchmarks/models.py stream --teacher minilm-sst2 --train sst2/train.tsv --test sst2/dev.tsv --rows 2000 \
        --words teacher.fine_tune=never

``chinese`` distils six and three layers of the teacher. ``tokenizers`` teaches the encoder of ``--start``, whose
vocabulary is another, by logits alone and with losses by words. ``answers`` writes what the teacher answers to a file,
and teaches the same student from the file and from the teacher. ``stream`` teaches a BiLSTM with more and more made
rows before it learns from the others. Every way is run with every seed, beside labels alone and the teacher.
``--clean`` names the test rows whose texts are not among the training rows; they are looked at once more by themselves.
Finished work is kept: run the same command after an interruption, and it resumes. Prints a Markdown table for each way,
one that compares the ways, and, last, one line of JSON.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import seeds
from distilled import DISTILLED, INT8, SEED, Work, shown

from compress.cli.compose import compose
from compress.machine import describe, versions
from compress.run.answer import write_answers

FILE = "{answers}"  # stands for the file of answers
SMALL = ["recipe=soft_targets", "student.layers=all"]
STREAM = ["recipe=bilstm", "prepare=[stream]"]
COMPARISONS: dict[str, dict[str, list[str]]] = {
    "chinese": {
        "six layers": ["recipe=chinese", "student.layers=6"],
        "three layers": ["recipe=chinese", "student.layers=3"],
    },
    "tokenizers": {
        "logits": SMALL,
        "logits, and states by words": [*SMALL, "distill.losses=[soft,hard,hidden,cosine]"],
        "logits, and relations by words": [*SMALL, "distill.losses=[soft,hard,relations]"],
    },
    "answers": {
        "the teacher itself": SMALL,
        "its answers in a file": [*SMALL, "teacher=answers", f"teacher.file={FILE}"],
    },
    "stream": {
        "no made rows": ["recipe=bilstm"],
        "10,000 made rows": [*STREAM, "prepare.stream.rows=10000"],
        "40,000 made rows": [*STREAM, "prepare.stream.rows=40000"],
        "160,000 made rows": [*STREAM, "prepare.stream.rows=160000"],
    },
}


def main() -> None:
    """Run every way with every seed, compare, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("comparison", choices=COMPARISONS)
    parser.add_argument("--teacher", required=True, help="its folder; fine-tuned on the rows")
    parser.add_argument("--start", help="folder of the student's encoder")
    for split in ("train", "test"):
        parser.add_argument(f"--{split}", required=True, metavar="FILE")
    parser.add_argument("--validation", metavar="FILE", help="default: a part of the training rows")
    parser.add_argument("--clean", type=Path, metavar="FILE", help="TSV of the test rows that are not training rows")
    parser.add_argument("--rows", type=int, required=True, help="training rows; the same for all seeds")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--ways", nargs="+", help="only these, by their names; default: all")
    parser.add_argument("--words", nargs="+", default=[], metavar="WORD", help="more words of `compress run`")
    parser.add_argument("--results", type=Path, default=Path("runs/models.jsonl"))
    parser.add_argument("--cache", type=Path, default=Path("runs/.cache"))
    given = parser.parse_args()
    if given.start is None and given.comparison in ("tokenizers", "answers"):
        parser.error(f"{given.comparison} needs --start: the encoder that is taught")

    ways = COMPARISONS[given.comparison]
    if unknown := [way for way in given.ways or () if way not in ways]:
        parser.error(f"{given.comparison} has no way {unknown[0]!r}; it has: {', '.join(ways)}")

    works = {way: work_of(given, way, ways[way]) for way in given.ways or ways}
    for way, work in works.items():
        work.carry_out()
        print(f"\n{way}\n{work.table()}", flush=True)
        if given.clean is not None:
            print(f"\n{clean(work, given.clean)}", flush=True)
    print("", *compared(works), sep="\n")
    found = [{**work.about, "ms": work.milliseconds, "runs": list(map(shown, work.runs))} for work in works.values()]
    print(json.dumps({"ways": found, "machine": describe(1), "versions": versions()}))


def work_of(given: argparse.Namespace, way: str, words: Sequence[str]) -> Work:
    """Return the work of a way; writes the file of answers where it needs one."""
    common = [
        "data=files", f"data.train={given.train}", f"data.test={given.test}", f"data.train_rows={given.rows}",
        *([] if given.validation is None else [f"data.validation={given.validation}"]),
        *([] if given.start is None else [f"student.start={given.start}"]), f"cache={given.cache}", f"seed={SEED}",
    ]  # fmt: skip
    itself = [f"teacher.model={given.teacher}", "teacher.fine_tune=always", *given.words]
    if any(FILE in word for word in words):
        file = given.cache / "models" / f"{Path(given.teacher).name}-{given.rows}.jsonl"
        if not file.exists():
            file.parent.mkdir(parents=True, exist_ok=True)
            write_answers(compose([*SMALL, *common, *itself]), file)
        theirs = [word for word in given.words if not word.startswith("teacher.")]
        recipe = compose([*(word.replace(FILE, str(file)) for word in words), *common, *theirs])
    else:
        recipe = compose([*words, *common, *itself])
    about = {"set": f"{Path(given.train).parent.name}, {way}", "rows": given.rows, "teacher": given.teacher}
    return Work(recipe, about | {"words": [*words, *given.words]}, given.seeds, given.results)


def clean(work: Work, file: Path) -> str:
    """Return a table of the test rows whose texts are in ``file``."""
    texts = {line.partition("\t")[2].strip() for line in file.read_text(encoding="utf-8").splitlines()[1:]}
    test, task = work.taught.data.test, work.task
    kept = np.array([text in texts for text in test.texts])
    labels, metric = test.known_labels[kept], task.main_metric
    lines = [
        f"Of {int(kept.sum()):,} test rows that are not training rows:",
        "",
        f"| model | {metric} by seed | mean |",
    ]
    lines.append("|---|---|---|")
    values: dict[str, list[float]] = {}
    for run in work.runs:
        metrics = task.metrics(seeds.answers(work.results, run)[kept], labels)
        values.setdefault(run["model"], []).append(100 * metrics[metric])
    for name, found in values.items():
        lines.append(f"| {name} | {', '.join(f'{value:.2f}' for value in found)} | {np.mean(found):.2f} |")
    return "\n".join(lines)


def compared(works: dict[str, Work]) -> Iterator[str]:
    """Yield a table of each way's distilled student against the first way's, over seeds and rows."""
    (first, base), *others = works.items()
    yield f"| against {first} | distilled | distilled, int8 |"
    yield "|---|---|---|"
    for way, work in others:
        cells = []
        for name in (DISTILLED, INT8):
            ours, theirs = ([run for run in part.runs if run["model"] == name] for part in (work, base))
            found = seeds.over_seeds(work.task, work.results, ours, theirs)
            cells.append("" if found is None else f"{seeds.shown(found)}, p = {found.p:.3f}")
        yield f"| {way} | {' | '.join(cells)} |"


if __name__ == "__main__":
    main()
