"""``compress answer``: write what a teacher answers to every row of the data."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from compress.cli.output import shown
from compress.cli.parser import WORDS, Parser
from compress.starting import importing

ANSWER = """\
WORDs choose the data and the teacher, as for `compress run`; the student is not made. Each row of FILE has an id, its
text and a logit for each class, or a language model's likeliest words. With it, another run needs no teacher:
teacher=answers teacher.file=FILE. A server is asked once for each text; stop it and run it again, it resumes.

examples:
  compress answer answers.jsonl recipe=soft_targets data=files data.train=my/train.tsv teacher.model=my/teacher
  compress answer answers.jsonl recipe=answers data=files data.train=my/train.tsv \
    teacher=endpoint teacher.url=http://localhost:8000/v1 teacher.model=NAME
"""


def parser() -> Parser:
    """Return the options."""
    options = Parser("answer", "FILE [WORD …]", "Write what a teacher answers to every row of the data.", ANSWER)
    options.add_argument("file", metavar="FILE", help="to write: .jsonl or .parquet")
    options.add_completed(
        WORDS, "words", nargs="*", metavar="WORD", help="choice=NAME or setting=VALUE, as for compress run"
    )
    options.add_telling()
    return options


def main(argv: Sequence[str]) -> int:
    """``compress answer``: write what a teacher answers to every row of the data."""
    options = parser().parse_intermixed_args(argv)

    with importing():
        from compress.cli import compose
        from compress.run.answer import write_answers
        from compress.wording import counted

    path = Path(options.file).expanduser()
    rows = write_answers(compose.compose(options.words), path)
    shown(lambda: print(f"{path}: answers to {counted(rows, 'row')}"), file=str(path), rows=rows)
    return 0
