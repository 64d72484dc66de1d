"""The model card beside the student: README.md in the Hugging Face format."""

from __future__ import annotations

import json

from compress.benchmark.figures import RejectedEntry
from compress.markdown import code, text
from compress.report import formats, gates, words
from compress.report.columns import columns
from compress.report.markdown import bullets, fenced, figures_table, shipped, table
from compress.report.schema import Report
from compress.tasks.base import Task
from compress.tasks.registry import TASKS

_LOADING = """import compress  # registers the student's architecture with transformers
{loading}

folder = "path/to/this/folder"
tokenizer = AutoTokenizer.from_pretrained(folder)
model = {auto}.from_pretrained(folder).eval()
outputs = model(**tokenizer({texts}, truncation={cut}, return_tensors="pt"))"""
_ALONE = """Without `compress` installed, transformers takes the architecture from `{code}` in this folder, if you allow
it to run that code: `{auto}.from_pretrained(folder, trust_remote_code=True)`, without
`import compress`. The ONNX files of the same run need neither."""


def to_model_card(report: Report, own_code: str | None = None) -> str:
    """Return the student's README.md. States what the report holds and leaves out what it does not know.

    ``own_code``: the file beside it that holds the model's own code, if there is one.
    """
    task = TASKS.get(report.task.kind)
    parts = [
        _front_matter(report),
        f"# {text(report.title)}",
        "A model, exported unchanged by `compress`."
        if report.given
        else "A compressed model, distilled from a larger teacher by `compress`.",
        shipped(report),
        _student(report),
        *([_loading(task)] if task else []),
        *([_ALONE.format(code=own_code, auto=task.alone or task.auto.__name__)] if own_code and task else []),
        f"It predicts: {', '.join(map(code, report.task.labels))}." if report.task.labels else "",
        "## Figures",
        figures_table(report),
        bullets(words.method(report)),
        "## Data" if report.given else "## Training data",
        f"{text(report.dataset.name or 'Not recorded')} ({text(words.splits(report))}).",
        bullets(report.dataset.notes),
        "## What is not known",
        "This card was written by a program from the run's measurements. Licence, languages, intended use and biases "
        f"are not recorded: those of the {report.against} and of the data apply, and are for its publisher to add.",
        *(["## How it was made", fenced(report.command)] if report.command else []),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _loading(task: type[Task]) -> str:
    auto = task.auto.__name__
    texts, cut = ('"a question", "a context"', '"only_second"') if task.windows else ('["a text"]', "True")
    loading = _LOADING.format(loading=task.loading.format(auto=auto), auto=auto, texts=texts, cut=cut)
    return f"## How to load it\n\n```python\n{loading}\n```"


def to_rejection(rejected: RejectedEntry) -> str:
    """Return a warning for the folder of an artifact that must not be used, in Markdown."""
    lines = [
        f"# {text(rejected.name)}: do not use",
        text(f"It is rejected: {gates.why(rejected)}"),
        table(gates.COST_HEADINGS, gates.costs(rejected)),
    ]
    return "\n\n".join(line for line in lines if line) + "\n"


def _front_matter(report: Report) -> str:
    student = report.student
    lines = ["library_name: transformers"]
    if report.task.kind in TASKS:
        lines.append(f"pipeline_tag: {TASKS[report.task.kind].pipeline}")
    lines += ["tags:", *([] if report.given else ["- knowledge-distillation"]), "- model-compression"]
    if student and student.metrics:
        lines += ["metrics:", *(f"- {json.dumps(name, ensure_ascii=False)}" for name in student.metrics)]
    return "\n".join(["---", *lines, "---"])


def _student(report: Report) -> str:
    if report.student is None:
        return ""
    cells = [(column.title, column.cell(report.student)) for column in columns(report)]
    told = [f"{title}: {cell}" for title, cell in cells if cell != formats.MISSING]
    return text("The student: " + "; ".join(told) + ".") if told else ""
