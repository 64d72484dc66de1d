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


def tokenized(
    texts: list[str], pairs: list[str] | None, facts: dict[str, Any]
) -> tuple[dict[str, Any], list[list[str]]]:
    """Return the inputs of the graph (rows, tokens), padded on the right, and the tokens of each row."""
    tokenizer = Tokenizer.from_file(str(HERE / "tokenizer.json"))
    tokenizer.enable_truncation(facts["max_tokens"], strategy="longest_first", direction=facts["truncation_side"])
    tokenizer.no_padding()
    encodings = tokenizer.encode_batch(list(zip(texts, pairs, strict=True)) if pairs else texts)
    width = max(facts["min_tokens"], *(len(encoding.ids) for encoding in encodings))
    made = {}
    for name, kind in facts["inputs"].items():
        column = np.full((len(texts), width), facts["pad_token_id"] if name == "input_ids" else 0, kind)
        for row, encoding in enumerate(encodings):
            numbers = getattr(encoding, COLUMNS[name])
            column[row, : len(numbers)] = numbers
        made[name] = column
    return made, [encoding.tokens for encoding in encodings]


def shown(tokens: list[str], logits: Any, facts: dict[str, Any]) -> str:
    """Return the likeliest label of a row and its probability, all its labels, one for each token, or a score."""
    labels = facts["labels"]
    if facts["thresholds"]:
        likely = 1 / (1 + np.exp(-logits))
        rows = zip(labels, likely, facts["thresholds"], strict=True)
        return ", ".join(label for label, own, least in rows if own >= least) or "(none)"
    if not labels:
        return f"{logits[0]:.4f}"
    shares = np.exp(logits - logits.max(-1, keepdims=True))
    shares /= shares.sum(-1, keepdims=True)
    if shares.ndim == 1:
        return f"{labels[shares.argmax()]}\t{shares.max():.4f}"
    pairs = zip(tokens, shares, strict=False)  # padding, behind the last token, has no label
    return " ".join(f"{token}/{labels[share.argmax()]}" for token, share in pairs)


def main() -> None:
    """Print what the server says of each text."""
    import tritonclient.http as triton

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", help="its name in the repository, as onnx")
    parser.add_argument("texts", nargs="+", metavar="TEXT")
    parser.add_argument("--pairs", nargs="+", metavar="TEXT", help="the second text of each, for a task on pairs")
    parser.add_argument("--url", default="localhost:8000")
    words = parser.parse_args()
    facts = json.loads((HERE / "client.json").read_text(encoding="utf-8"))["models"][words.model]
    inputs = []
    columns, tokens = tokenized(words.texts, words.pairs, facts)
    for name, column in columns.items():
        inputs.append(triton.InferInput(name, list(column.shape), triton.np_to_triton_dtype(column.dtype)))
        inputs[-1].set_data_from_numpy(column)
    with triton.InferenceServerClient(url=words.url) as client:
        answer = client.infer(words.model, inputs, outputs=[triton.InferRequestedOutput(facts["output"])])
    for text, row, logits in zip(words.texts, tokens, answer.as_numpy(facts["output"]), strict=True):
        print(f"{shown(row, logits, facts)}\t{text}")


if __name__ == "__main__":
    main()
