"""How do the costs of a run grow with rows, layers and length? Whole runs, one size changed at a time.

    python benchmarks/scaling.py --rows 1000 2000 4000 --layers 2 4 8 --tokens 16 32 64

Each size is a `compress run` in a process and a cache of its own: made-up texts of exactly that many tokens, a BERT of
that many layers that was made at random, one epoch of fine-tuning, distillation into half of its layers, pruned heads,
ONNX and dynamic int8. The costs are those of its report.json. Prints, for every stage, the figures and their log-log
slopes (1: twice as much for twice the size; fitted by least squares over all sizes) and, last, one line of JSON.

    python benchmarks/scaling.py --paper

runs nothing, and computes what distilling BERT-base on many rows and GPUs would take from assumptions that it prints.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

FIGURES = {
    "processor_seconds": "processor s", "seconds": "s", "memory_growth_mib": "growth MiB",
    "peak_memory_mib": "peak MiB", "written_mib": "written MiB", "processor_joules": "processors J",
    "gpu_joules": "GPUs J",
}  # fmt: skip
STAGES = ("teacher", "distill", "heads", "onnx", "dynamic")
FIXED = 100  # validation rows, and as many test rows
WORDS = [f"w{number}" for number in range(2000)]
LABELS = ("bad", "good")


def main() -> None:
    """Run every size and print how costs grow."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, nargs="+", default=[1000, 2000, 4000])
    parser.add_argument("--layers", type=int, nargs="+", default=[2, 4, 8])
    parser.add_argument("--tokens", type=int, nargs="+", default=[16, 32, 64])
    parser.add_argument("--hidden", type=int, default=128)
    parser.add_argument("--base", type=int, nargs=3, metavar=("ROWS", "LAYERS", "TOKENS"), default=[1000, 4, 32])
    parser.add_argument("--paper", action="store_true", help="run nothing; extrapolate to BERT-base, 10 M rows, 8 GPUs")
    given = parser.parse_args()
    if given.paper:
        print(on_paper())
        return
    base = dict(zip(("rows", "layers", "tokens"), given.base, strict=True))
    done: dict[str, list[dict[str, Any]]] = {}
    for axis in base:
        for size in sorted(getattr(given, axis)):
            sizes = base | {axis: size}
            same = next((point for points in done.values() for point in points if point["sizes"] == sizes), None)
            costs = same["costs"] if same else measure(sizes, given.hidden)
            done.setdefault(axis, []).append({"sizes": sizes, "costs": costs})
            print(f"{sizes}: {costs['the whole run']['seconds']:.0f} s", file=sys.stderr)
    for axis, points in done.items():
        others = ", ".join(f"{value:,} {name}" for name, value in base.items() if name != axis)
        print(f"\nGrowing {axis} ({others}, {given.hidden} units):\n")
        print(table(axis, points))
    print(json.dumps({"hidden": given.hidden, "base": base, "points": done}))


def on_paper(
    rows: float = 10e6, tokens: int = 32, gpus: int = 8, flops: float = 100e12, bandwidth: float = 100e9,
    epochs: int = 3, batches: tuple[int, ...] = (32, 256, 2048), hidden: int = 768, vocabulary: int = 30_522,
) -> str:  # fmt: skip
    """Return the time of a distillation by arithmetic alone; ``flops`` and ``bandwidth`` are what a GPU achieves."""
    layers = {"teacher": 12, "student": 6}
    forward = {  # operations per token: twice the weights of the layers, and attention
        name: 24 * hidden**2 * count + 4 * tokens * hidden * count for name, count in layers.items()
    }
    weights = 12 * hidden**2 * layers["student"] + hidden * vocabulary
    pass_over_rows = forward["teacher"] * rows * tokens / flops
    training = 3 * forward["student"] * rows * tokens * epochs / (flops * gpus)
    lines = [
        f"Assumed: {rows:,.0f} rows of {tokens} tokens, with padding; {flops / 1e12:.0f} TFLOP/s achieved on each of "
        f"{gpus} GPUs; {bandwidth / 1e9:.0f} GB/s between them; backward costs twice forward; only logits are taught.",
        f"- The teacher's pass, on one GPU: {forward['teacher'] * rows * tokens:.2g} operations, "
        f"{pass_over_rows / 60:.0f} minutes; its logits for two classes take {rows * 8 / 2**20:,.0f} MiB, the hidden "
        f"states of one layer would take {rows * tokens * hidden * 2 / 2**30:,.0f} GiB in fp16.",
        f"- {epochs} epochs of the student's six layers, on all GPUs: {training / 60:.0f} minutes of arithmetic.",
    ]
    for batch in batches:
        steps = epochs * rows / batch
        exchanged = steps * 2 * 4 * weights  # gradients to the first process, and weights from it, in fp32
        lines.append(
            f"- Batches of {batch:,}: {steps:,.0f} steps, in which {exchanged / 1e12:,.0f} TB of gradients and weights "
            f"cross: {exchanged / bandwidth / 60:,.1f} minutes."
        )
    state = weights * 16 / 2**30
    return "\n".join([*lines, f"- On each GPU: {state:.1f} GiB for weights, gradients and AdamW, and the activations."])


def measure(sizes: dict[str, int], hidden: int) -> dict[str, dict[str, float]]:
    """Return the costs of a run by stage, as its report has them."""
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        save_teacher(folder / "teacher", sizes["layers"], sizes["tokens"], hidden)
        files = {"train": sizes["rows"], "validation": FIXED, "test": FIXED}
        for seed, (name, rows) in enumerate(files.items()):
            (folder / f"{name}.tsv").write_text("".join(texts(rows, sizes["tokens"], seed)))
        words = [
            "recipe=soft_targets", "data=files", *(f"data.{name}={folder / f'{name}.tsv'}" for name in files),
            f"teacher.model={folder / 'teacher'}", f"teacher.max_tokens={sizes['tokens']}", "teacher.epochs=1",
            "teacher.least_steps=0", "teacher.early_stopping=0", f"student.layers={max(1, sizes['layers'] // 2)}",
            "distill.epochs=1", "prune=[heads]", "prune.heads.ratio=0.25", "quantize=[dynamic]", "max_drop=null",
            "benchmark.rows=5", "benchmark.batches=[1]", "benchmark.tokens=[8]", "benchmark.seconds=0.05",
            "benchmark.labels_only=false", "benchmark.teacher_int8=false", f"output={folder / 'run'}",
            f"cache={folder / 'cache'}", "--quiet",
        ]  # fmt: skip
        subprocess.run([sys.executable, "-m", "compress", "run", *words], check=True, stdout=subprocess.DEVNULL)
        report = json.loads((folder / "run" / "report.json").read_text())
    costs = {cost["stage"]: cost["usage"] for cost in report["costs"] if cost["stage"] in STAGES}
    return costs | {"the whole run": report["usage"]}


def texts(rows: int, tokens: int, seed: int) -> Iterator[str]:
    """Yield lines of a file: a label, and a text that begins with it, of ``tokens`` tokens with [CLS] and [SEP]."""
    generator = np.random.default_rng(seed)
    yield "label\ttext\n"
    for label in generator.permutation(rows) % 2:
        drawn = generator.choice(len(WORDS), tokens - 3)
        yield f"{LABELS[label]}\t{' '.join([LABELS[label], *(WORDS[number] for number in drawn)])}\n"


def save_teacher(folder: Path, layers: int, tokens: int, hidden: int) -> None:
    """Save a BERT without a head, made at random, and a tokenizer for which each word is a token."""
    import torch
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel
    from tokenizers.pre_tokenizers import WhitespaceSplit
    from tokenizers.processors import TemplateProcessing
    from transformers import BertConfig, BertModel, PreTrainedTokenizerFast
    from transformers.utils import logging

    vocabulary = {
        word: number for number, word in enumerate(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *LABELS, *WORDS])
    }
    tokenizer = Tokenizer(WordLevel(vocabulary, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = WhitespaceSplit()
    tokenizer.post_processor = TemplateProcessing(single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)])
    logging.disable_progress_bar()
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=len(vocabulary), hidden_size=hidden, num_hidden_layers=layers, intermediate_size=4 * hidden,
        num_attention_heads=max(1, hidden // 32), max_position_embeddings=max(tokens, 16),
    )  # fmt: skip
    BertModel(config).save_pretrained(folder)
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, model_max_length=tokens, pad_token="[PAD]", unk_token="[UNK]", cls_token="[CLS]",
        sep_token="[SEP]", mask_token="[MASK]",
    ).save_pretrained(folder)  # fmt: skip


def slope(sizes: list[int], values: list[float | None]) -> float | None:
    """Return the exponent of the power law that fits best; None where a value is missing or not above 0."""
    if len(sizes) < 2 or any(value is None or value <= 0 for value in values):
        return None
    return float(np.polyfit(np.log(sizes), np.log(np.array(values, dtype=float)), 1)[0])


def table(axis: str, points: list[dict[str, Any]]) -> str:
    """Return a Markdown table: stages down; across, each figure at every size and its slope."""
    sizes = [point["sizes"][axis] for point in points]
    lines = [["stage", "figure", *(f"{size:,}" for size in sizes), "slope"]]
    lines.append(["---", "---", *["---:"] * (len(sizes) + 1)])
    for stage in (*STAGES, "the whole run"):
        for figure, title in FIGURES.items():
            values = [point["costs"].get(stage, {}).get(figure) for point in points]
            if all(value is None for value in values):
                continue
            found = slope(sizes, values)
            cells = ["–" if value is None else f"{value:.3g}" if value < 100 else f"{value:,.0f}" for value in values]
            lines.append([stage, title, *cells, "–" if found is None else f"{found:.2f}"])
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


if __name__ == "__main__":
    main()
