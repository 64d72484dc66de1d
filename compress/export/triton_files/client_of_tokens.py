"""Tokenize here, ask a Triton server for logits: python client.py MODEL TEXT [TEXT ...]; see --help.

Reads tokenizer.json and client.json beside it. Needs: pip install tokenizers 'tritonclient[http]'
"""

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
from tokenizers import Tokenizer

HERE = Path(__file__).parent
COLUMNS = {"input_ids": "ids", "attention_mask": "attention_mask", "token_type_ids": "type_ids"}


def tokenized(texts: list[str], pairs: list[str] | None, said: dict[str, Any]) -> dict[str, Any]:
    """Return the inputs of the graph (rows, tokens), padded on the right."""
    tokenizer = Tokenizer.from_file(str(HERE / "tokenizer.json"))
    tokenizer.enable_truncation(said["max_tokens"], strategy="longest_first", direction=said["truncation_side"])
    tokenizer.no_padding()
    encodings = tokenizer.encode_batch(list(zip(texts, pairs, strict=True)) if pairs else texts)
    width = max(said["min_tokens"], *(len(one.ids) for one in encodings))
    made = {}
    for name, kind in said["inputs"].items():
        column = np.full((len(texts), width), said["pad_token_id"] if name == "input_ids" else 0, kind)
        for row, encoding in enumerate(encodings):
            numbers = getattr(encoding, COLUMNS[name])
            column[row, : len(numbers)] = numbers
        made[name] = column
    return made


def main() -> None:
    """Print what the server says of each text."""
    import tritonclient.http as triton

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", help="its name in the repository, as onnx")
    parser.add_argument("texts", nargs="+", metavar="TEXT")
    parser.add_argument("--pairs", nargs="+", metavar="TEXT", help="the second text of each, for a task on pairs")
    parser.add_argument("--url", default="localhost:8000")
    words = parser.parse_args()
    said = json.loads((HERE / "client.json").read_text(encoding="utf-8"))["models"][words.model]
    inputs = []
    for name, column in tokenized(words.texts, words.pairs, said).items():
        inputs.append(triton.InferInput(name, list(column.shape), triton.np_to_triton_dtype(column.dtype)))
        inputs[-1].set_data_from_numpy(column)
    with triton.InferenceServerClient(url=words.url) as client:
        answer = client.infer(words.model, inputs, outputs=[triton.InferRequestedOutput(said["output"])])
    logits = answer.as_numpy(said["output"])
    shares = np.exp(logits - logits.max(-1, keepdims=True))
    shares /= shares.sum(-1, keepdims=True)
    for text, row, share in zip(words.texts, logits, shares, strict=True):
        if said["thresholds"]:
            likely = 1 / (1 + np.exp(-row))
            rows = zip(said["labels"], likely, said["thresholds"], strict=True)
            print(f"{', '.join(label for label, own, least in rows if own >= least) or '(none)'}\t{text}")
        elif said["labels"]:
            print(f"{said['labels'][row.argmax()]}\t{share.max():.4f}\t{text}")
        else:
            print(f"{row[0]:.4f}\t{text}")


if __name__ == "__main__":
    main()
