"""Every task on real rows: teacher, distilled student, the same student by labels alone, int8, speed, recall by type.

    python benchmarks/tasks.py --data FOLDER --task tags                       # 10 to 25 minutes of one core
    python benchmarks/tasks.py --data FOLDER --task spans --rows 3000 --words distill.epochs=3
    python benchmarks/tasks.py --data FOLDER --task tags --table               # train nothing, print what is done

FOLDER holds ``snips``, ``snips_slots``, ``wnut17``, ``squad_small`` and ``stsb``. Each set is trained by its
task's recipe with a student of half the teacher's layers. The rows and the teacher, which is fine-tuned on them, are
the same for all seeds; ``--rows`` bounds the training rows of each set. What is done is kept in ``--results``, one line
per model and seed, with the answers to the test rows beside it: the same command resumes, and models are compared over
seeds and rows. Prints a Markdown table per set, what it says of the aims, and, last, one line of JSON.

Two sets are made of others: ``snips_pairs`` joins two sentences of SNIPS, with both intents, and ``squad_sentences``
ranks the sentences of a paragraph by whether they hold the answer to a question. STS-B makes no set of rankings: 104
of its test texts are scored beside several others, and any order of those has 0.88 of nDCG@10.
"""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import several_labels
from distilled import SEED, Work, shown

from compress.cli.compose import compose
from compress.machine import describe, versions

SENTENCE_END = re.compile(r"(?<=[.!?])[\"')\]]*\s+(?=[\"'(\[]*[A-Z0-9])")

Files = tuple[Path, Path | None, Path]  # training, validation, test


@dataclass(frozen=True, kw_only=True)
class Set:
    """Rows of a task, how many of them are used, and the words of `compress run` that suit so few."""

    task: str
    files: Callable[[Path, Path], Files]  # of the folder of data and a folder to write to
    rows: int
    words: tuple[str, ...]
    test_rows: int | None = None


def in_folder(name: str, train: str, validation: str | None, test: str) -> Callable[[Path, Path], Files]:
    """Return what finds the files of a set in the folder of data."""

    def found(data: Path, made: Path) -> Files:
        return data / name / train, None if validation is None else data / name / validation, data / name / test

    return found


def pairs_of_snips(data: Path, made: Path) -> Files:
    """Return files of two sentences joined, with the intents of both."""
    counts = {"train": 6_500, "dev": 350, "test": 700}
    return _written(made, {
        name: lambda name=name, rows=rows: several_labels.joined(str(data / "snips" / f"{name}.tsv"), rows, SEED)
        for name, rows in counts.items()
    })  # fmt: skip


def sentences_of_squad(data: Path, made: Path) -> Files:
    """Return files of questions and the sentences of their paragraphs; the last four articles are for validation."""

    def articles(name: str) -> list[Any]:
        read: list[Any] = json.loads((data / "squad_small" / name).read_text(encoding="utf-8"))["data"]
        return read

    return _written(made, {
        "train": lambda: answer_sentences(articles("train.json")[:-4]),
        "dev": lambda: answer_sentences(articles("train.json")[-4:]),
        "test": lambda: answer_sentences(articles("dev.json")),
    })  # fmt: skip


def answer_sentences(articles: Sequence[Mapping[str, Any]]) -> Iterator[dict[str, Any]]:
    """Yield a row for each sentence of a question's paragraph: 1 where it holds an answer, else 0.

    Left out are questions of which no sentence, or every one, holds an answer.
    """
    for paragraph in (paragraph for article in articles for paragraph in article["paragraphs"]):
        context = paragraph["context"]
        cuts = [0, *(match.end() for match in SENTENCE_END.finditer(context)), len(context)]
        sentences = list(pairwise(cuts))
        for asked in paragraph["qas"]:
            spans = [(answer["answer_start"], len(answer["text"])) for answer in asked["answers"]]
            holds = [
                any(first <= start and start + length <= last for start, length in spans) for first, last in sentences
            ]
            if any(holds) and not all(holds):
                for (first, last), relevant in zip(sentences, holds, strict=True):
                    yield {
                        "group": asked["id"], "query": asked["question"], "candidate": context[first:last].strip(),
                        "relevance": int(relevant),
                    }  # fmt: skip


def _written(folder: Path, splits: Mapping[str, Callable[[], Iterator[Any]]]) -> Files:
    """Return files of rows, written if they are not there yet."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = {name: folder / f"{name}.jsonl" for name in splits}
    for name, rows in splits.items():
        if not paths[name].exists():
            partial = paths[name].with_suffix(".partial")
            with partial.open("w", encoding="utf-8") as file:
                file.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in rows())
            partial.rename(paths[name])
    train, validation, test = paths.values()
    return train, validation, test


TAGS = ("teacher.batch_size=16", "teacher.least_steps=0", "teacher.epochs=8", "teacher.learning_rate=2e-4",
        "distill.batch_size=16", "distill.epochs=5", "data.validation_rows=200")  # fmt: skip
SETS: Mapping[str, Set] = {
    "snips_slots": Set(
        task="tags", files=in_folder("snips_slots", "train.tsv", "dev.tsv", "test.tsv"), rows=900, words=TAGS
    ),
    "wnut17": Set(task="tags", files=in_folder("wnut17", "train.tsv", "dev.tsv", "test.tsv"), rows=450, words=TAGS),
    "snips_pairs": Set(
        task="multi_label", files=pairs_of_snips, rows=1_200,
        words=("teacher.least_steps=0", "teacher.epochs=5", "distill.epochs=5", "distill.learning_rate=2e-4"),
    ),
    "squad_small": Set(
        task="spans", files=in_folder("squad_small", "train.json", None, "dev.json"), rows=300, test_rows=300,
        words=("teacher.batch_size=8", "teacher.least_steps=0", "teacher.epochs=2", "distill.batch_size=8",
               "distill.epochs=2"),
    ),
    "stsb": Set(
        task="vectors", files=in_folder("stsb", "train.tsv", "dev.tsv", "test.tsv"), rows=1_000,
        words=("teacher.least_steps=0", "teacher.epochs=3", "distill.epochs=5", "data.validation_rows=300"),
    ),
    "squad_sentences": Set(
        task="ranking", files=sentences_of_squad, rows=1_000, test_rows=1_000,
        words=("teacher.least_steps=0", "teacher.epochs=3", "distill.epochs=3", "data.validation_rows=300"),
    ),
}  # fmt: skip


def main() -> None:
    """Train what is not trained yet, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder with the sets")
    tasks = sorted({part.task for part in SETS.values()})
    parser.add_argument("--task", nargs="+", choices=tasks, default=tasks)
    parser.add_argument("--sets", nargs="+", choices=SETS, default=list(SETS), help="only these of them")
    parser.add_argument("--rows", type=int, help="training rows of each set; default: 10 to 25 minutes for a task")
    parser.add_argument("--test-rows", type=int, help="default: all; of spans and rankings some")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--teacher", default="minilm", help="a folder, a hub id or minilm, fine-tuned on each set")
    parser.add_argument("--words", nargs="+", default=[], metavar="WORD", help="more words of `compress run`")
    parser.add_argument("--results", type=Path, default=Path("runs/tasks.jsonl"))
    parser.add_argument("--cache", type=Path, default=Path("runs/.cache"))
    parser.add_argument("--table", action="store_true", help="train nothing; print what is done")
    given = parser.parse_args()

    found = []
    for name in given.sets:
        if SETS[name].task in given.task:
            work = work_of(name, given)
            if not given.table:
                work.carry_out()
            if work.runs:
                print(work.table(), flush=True)
                found.append({**work.about, "ms": work.milliseconds, "runs": [shown(run) for run in work.runs]})
    print(json.dumps({"sets": found, "machine": describe(1), "versions": versions()}))


def work_of(name: str, given: argparse.Namespace) -> Work:
    """Return the work of a set as the command line asks for it."""
    part = SETS[name]
    rows, test_rows = given.rows or part.rows, given.test_rows or part.test_rows
    train, validation, test = part.files(given.data, given.cache / "tasks" / name)
    settings = [*part.words, *given.words]
    words = [
        f"recipe={part.task}", "data=files", f"data.train={train}", f"data.test={test}", f"data.train_rows={rows}",
        *([] if validation is None else [f"data.validation={validation}"]),
        *([] if test_rows is None else [f"data.test_rows={test_rows}"]),
        f"teacher.model={given.teacher}", "teacher.fine_tune=always", f"cache={given.cache}", *settings,
    ]  # fmt: skip
    about = {"set": name, "rows": rows, "test_rows": test_rows, "teacher": given.teacher, "words": settings}
    return Work(compose(words), about, given.seeds, given.results)


if __name__ == "__main__":
    main()
