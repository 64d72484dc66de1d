"""What int8 costs families that are hard to quantize: small ones, trained here until they know SST-2.

    python benchmarks/int8_families.py --data /path/to/sst2 --rows 20000 --epochs 2

Each family is a small random model (4 layers, width 128) with a teacher's tokenizer. It is fine-tuned on ``--rows``
training rows, 1,000 more of them are for validation, and the test rows are those of dev.tsv. Then it is quantized by
the project's own stages, dynamic and static, with everything in int8 and with the most sensitive halves of layers in
fp32 (``max_drop=0.002``). Prints a Markdown table and, last, one line of JSON.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from transformers import AlbertConfig, AutoModel, BertConfig, DebertaV2Config, ModernBertConfig

from compress.data import Files
from compress.data.dataset import Dataset
from compress.models.loading import load_config, load_tokenizer, quiet, save_model
from compress.models.tokens import tokenize
from compress.onnx.folder import MODEL, onnx_student
from compress.pipeline.state import State
from compress.pipeline.workshop import Workshop
from compress.quantize.calibration import TOKENS_A_BATCH
from compress.quantize.int8 import DynamicInt8, StaticInt8
from compress.quantize.mixed import Grain, Mixed
from compress.runtimes.onnxruntime import inference_session
from compress.runtimes.rows import model_inputs
from compress.teachers.model import PACKAGED, Teacher

SIZES: dict[str, Any] = {
    "hidden_size": 128, "num_hidden_layers": 4, "num_attention_heads": 4, "max_position_embeddings": 128
}  # fmt: skip
VALIDATION_ROWS, SEED = 1_000, 13
CONFIGS: dict[str, Any] = {
    "bert": lambda: BertConfig(**SIZES, intermediate_size=512),
    "modernbert": lambda: ModernBertConfig(**SIZES, intermediate_size=256, local_attention=16, pad_token_id=0),
    "deberta-v2": lambda: DebertaV2Config(
        **SIZES, intermediate_size=512, relative_attention=True, position_buckets=32, norm_rel_ebd="layer_norm",
        share_att_key=True, pos_att_type="p2c|c2p", position_biased_input=False, type_vocab_size=0,
    ),
    "albert": lambda: AlbertConfig(**SIZES, intermediate_size=512, embedding_size=64),  # all layers share weights
}  # fmt: skip
FORMS = {
    "dynamic": DynamicInt8(),
    "dynamic, mixed": DynamicInt8(mixed=Mixed(max_drop=0.002, grain=Grain.half)),
    "static": StaticInt8(),
    "static, mixed": StaticInt8(mixed=Mixed(max_drop=0.002, grain=Grain.half)),
}


def main() -> None:
    """Train, quantize, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder with train.tsv and dev.tsv")
    parser.add_argument("--rows", type=int, default=20_000, help="training rows")
    parser.add_argument("--epochs", type=float, default=2.0)
    parser.add_argument("--families", nargs="+", choices=CONFIGS, default=list(CONFIGS))
    parser.add_argument("--cache", default="runs/.cache")
    given = parser.parse_args()
    source = Files(train=str(given.data / "train.tsv"), test=str(given.data / "dev.tsv"))
    data = source.load("auto", seed=SEED)
    kept = np.random.default_rng(SEED).permutation(len(data.train))[: given.rows + VALIDATION_ROWS]
    splits = (data.train.take(kept[VALIDATION_ROWS:]), data.train.take(kept[:VALIDATION_ROWS]))
    data = replace(data, train=splits[0], validation=splits[1])
    cells = []
    for family in given.families:
        cells += list(measured(family, data, Path(given.cache), given.epochs))
        Console(stderr=True).print(cells[-len(FORMS) :])
    print("| family | form | accuracy | against fp32 | answers that change | in fp32 |\n|---|---|---|---|---|---|")
    for cell in cells:
        moved = "" if cell["form"] == "fp32" else f"{cell['difference']:+.2f}"
        print(f"| {cell['family']} | {cell['form']} | {cell['accuracy']:.2f} | {moved} | ", end="")
        print(f"{cell['changed']} | {cell['kept']} |")
    print(json.dumps(cells))


def measured(family: str, data: Dataset, cache: Path, epochs: float) -> Iterator[dict[str, Any]]:
    """Yield the accuracy of a family's model in fp32 and in every form of `FORMS`, in percent of the test rows."""
    module, folder, _ = PACKAGED["minilm"]
    tokenizer = load_tokenizer(Path(__import__(module).__file__).parent / folder)
    config = CONFIGS[family]()
    config.vocab_size = len(tokenizer)
    start = cache / f"int8-{family}"
    with quiet():
        torch.manual_seed(SEED)
        save_model(AutoModel.from_config(config), tokenizer, start)
    state = State.begin(data, Workshop(cache), SEED)
    teacher = Teacher(
        model=str(start),
        epochs=epochs,
        learning_rate=1e-3,
        max_tokens=64,
        early_stopping=0,
        least_steps=0,
        batch_size=64,
    )
    state = teacher(state)
    state = replace(state, student=state.teacher)
    tokens = tokenize(data.test, load_tokenizer(state.given_student.folder), 64)
    labels = data.test.known_labels
    plain = answers(onnx_student(state).folder, state, tokens)
    accuracy = 100 * float((plain == labels).mean())
    yield {"family": family, "form": "fp32", "accuracy": accuracy, "difference": 0.0, "changed": 0, "kept": ""}
    for name, stage in FORMS.items():
        artifact = stage(state).artifacts[-1]
        given_answers = answers(artifact.folder, state, tokens)
        own = 100 * float((given_answers == labels).mean())
        kept = [part.part for part in getattr(artifact.details, "parts", ()) if part.precision == "fp32"]
        yield {
            "family": family, "form": name, "accuracy": own, "difference": own - accuracy,
            "changed": int((given_answers != plain).sum()), "kept": ", ".join(kept),
        }  # fmt: skip


def answers(folder: Path, state: State, tokens: Any) -> Any:
    """Return the class of every row, by a graph in a folder."""
    session = inference_session(folder / MODEL, 1)
    batches = tokens.batches(max(1, TOKENS_A_BATCH // int(tokens.lengths.max())))
    logits = tokens.gathered(
        (rows, session.run(["logits"], model_inputs(tokens, rows.tolist()))[0]) for rows in batches
    )
    return state.data.task.aligned(logits, load_config(state.given_student.folder)).argmax(-1)


if __name__ == "__main__":
    main()
