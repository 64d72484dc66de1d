"""Which ONNX Runtime reads and computes a run's artifacts, and which transformers loads its students.

    python benchmarks/oldest_runtime.py RUN [--onnxruntime 1.15.0,1.17.0 …] [--transformers 4.44.2,4.57.6]

Each version is installed by pip into an environment of its own, in a process of which the artifacts are asked the
same rows as here. One line of JSON per version and folder: the largest difference of a logit, or why there is none.
ONNX Runtime's versions are also given graphs of one addition, of every operator set and IR version, which gives
`compress.onnx.needs.READERS`.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper

from compress.models.facts import read_facts
from compress.models.loading import load_tokenizer
from compress.runtimes.registry import load_session

TEXTS = ("add this song to my list", "what is the weather like", "a film", "so very good that i saw it twice", "is it")
SETS, VERSIONS = range(15, 26), range(8, 14)
NUMPY = "numpy<2"  # what versions of that time were built with

ASK_ONNXRUNTIME = """
import json, sys
import numpy as np
import onnxruntime as ort
job = json.load(sys.stdin)
for path in job["paths"]:
    options = ort.SessionOptions()
    options.log_severity_level, options.intra_op_num_threads = 4, 1
    try:
        session = ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        if "compress.in_floats" in session.get_modelmeta().custom_metadata_map:
            options.add_session_config_entry("session.disable_quant_qdq", "1")
            session = ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        names = [given.name for given in session.get_inputs()]
        feed = {name: np.array(job["feed"][name]) for name in names if name in job["feed"]}
        print(json.dumps(session.run(["logits"], feed)[0].tolist() if feed else []))
    except Exception as error:
        print(json.dumps(str(error).splitlines()[0]))
"""
ASK_TRANSFORMERS = """
import json, sys
import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer
job = json.load(sys.stdin)
for path in job["paths"]:
    try:
        model = AutoModelForSequenceClassification.from_pretrained(path, trust_remote_code=True).eval()
        tokenizer = AutoTokenizer.from_pretrained(path)
        with torch.no_grad():
            rows = tokenizer(job["texts"], padding=True, truncation=True, return_tensors="pt")
            print(json.dumps(model(**rows).logits.tolist()))
    except Exception as error:
        print(json.dumps(f"{type(error).__name__}: {str(error).splitlines()[0]}"))
"""


def environment(scratch: Path, *packages: str) -> Path:
    """Return the Python of a fresh environment with these packages."""
    place = scratch / "-".join(packages).replace("<", "_").replace("=", "_")
    subprocess.run([sys.executable, "-m", "venv", place], check=True)
    python = place / "bin" / "python"
    subprocess.run([python, "-m", "pip", "install", "--quiet", *packages], check=True)
    return python


def asked(python: Path, code: str, paths: Sequence[Path], **more: Any) -> list[Any]:
    """Return what a process says of each path: logits, or why there are none; one that crashes is asked no more."""
    job = {"paths": [str(path) for path in paths], **more}
    done = subprocess.run(
        [python, "-c", code], input=json.dumps(job), text=True, check=False, capture_output=True, cwd=python.parent
    )
    answers = [json.loads(line) for line in done.stdout.splitlines() if line[:1] in '["']
    return answers + [f"the process ended with {done.returncode}"] * (len(paths) - len(answers))


def compared(answers: Any, expected: Any) -> float | str:
    """Return the largest difference of a logit, or the reason that was said."""
    return answers if isinstance(answers, str) else float(np.abs(np.array(answers) - expected).max())


def additions(folder: Path) -> Iterator[tuple[int, int, Path]]:
    """Yield operator set, IR version and file of graphs of one addition."""
    for opset in SETS:
        for version in VERSIONS:
            value = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1]) for name in ("x", "logits")]
            graph = helper.make_graph([helper.make_node("Add", ["x", "x"], ["logits"])], "g", value[:1], value[1:])
            model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=version)
            path = folder / f"{opset}-{version}.onnx"
            onnx.save(model, path)
            yield opset, version, path


def main() -> None:
    """Print what each version does."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, help="the folder of a run, of single texts")
    parser.add_argument("--onnxruntime", default="", metavar="1.15.0,1.17.0", help="versions to ask the artifacts of")
    parser.add_argument("--transformers", default="", metavar="4.44.2,4.57.6", help="versions to load the models with")
    options = parser.parse_args()
    folders = [path.parent for path in sorted(options.run.glob("*/**/config.json"))]
    facts = {folder: read_facts(folder) for folder in folders}
    graphs = {folder: folder / known.graph.file for folder, known in facts.items() if known and known.graph}
    models = [folder for folder in folders if folder not in graphs and "bitsandbytes" not in folder.name]
    tokenizer = load_tokenizer(folders[0])
    rows = dict(tokenizer(list(TEXTS), padding=True, truncation=True, return_tensors="np"))
    logits = {}
    for folder in (*graphs, *models):
        names = load_tokenizer(folder).model_input_names
        logits[folder] = load_session(folder)({name: rows[name].astype(np.int64) for name in names})
    with tempfile.TemporaryDirectory() as aside:
        scratch = Path(aside)
        tried = list(additions(scratch))
        for version in filter(None, options.onnxruntime.split(",")):
            python = environment(scratch, f"onnxruntime=={version}", NUMPY)
            reads = asked(python, ASK_ONNXRUNTIME, [path for *_, path in tried], feed={})
            read = [(opset, ir) for (opset, ir, _), answers in zip(tried, reads, strict=True) if answers == []]
            most = {"opset": max(opset for opset, _ in read), "ir_version": max(ir for _, ir in read)}
            print(json.dumps({"onnxruntime": version, **most}), flush=True)
            for folder, path in graphs.items():
                feed = {name: values.tolist() for name, values in rows.items()}
                (answers,) = asked(python, ASK_ONNXRUNTIME, [path], feed=feed)
                needs = known.graph.onnxruntime if (known := facts[folder]) and known.graph else ""
                about: dict[str, Any] = {"folder": str(folder.relative_to(options.run)), "needs": needs}
                about["moved"] = compared(answers, logits[folder])
                print(json.dumps({"onnxruntime": version, **about}), flush=True)
        for version in filter(None, options.transformers.split(",")):
            python = environment(scratch, f"transformers=={version}", "torch", NUMPY)
            answers = asked(python, ASK_TRANSFORMERS, models, texts=TEXTS)
            for folder, answer in zip(models, answers, strict=True):
                about = {"transformers": version, "folder": str(folder.relative_to(options.run))}
                print(json.dumps({**about, "moved": compared(answer, logits[folder])}), flush=True)


if __name__ == "__main__":
    main()
