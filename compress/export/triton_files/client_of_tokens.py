"""Tokenize here, ask a Triton server for logits: python client.py MODEL TEXT [TEXT ...]; see --help.

Reads tokenizer.json and client.json beside it. Needs: pip install tokenizers 'tritonclient[http]'
"""

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
from tokenizers import Encoding, Tokenizer

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
    return padded(encodings, facts), [encoding.tokens for encoding in encodings]


def padded(encodings: list[Encoding], facts: dict[str, Any]) -> dict[str, Any]:
    """Return the inputs of the graph (rows, tokens)."""
    width = max(facts["min_tokens"], *(len(encoding.ids) for encoding in encodings))
    made = {}
    for name, kind in facts["inputs"].items():
        column = np.full((len(encodings), width), facts["pad_token_id"] if name == "input_ids" else 0, kind)
        for row, encoding in enumerate(encodings):
            numbers = getattr(encoding, COLUMNS[name])
            column[row, : len(numbers)] = numbers
        made[name] = column
    return made


def windows(question: str, context: str, facts: dict[str, Any]) -> tuple[dict[str, Any], list[Encoding]]:
    """Return a question with its context as the graph's inputs (windows, tokens), and these windows."""
    tokenizer = Tokenizer.from_file(str(HERE / "tokenizer.json"))
    room = facts["max_tokens"] - len(tokenizer.encode(question, "").ids)
    shared = min(room // 3 if facts["window_overlap"] is None else facts["window_overlap"], room // 2)
    tokenizer.enable_truncation(facts["max_tokens"], stride=max(0, shared), strategy="only_second")
    first = tokenizer.encode(question, context)
    parts = [first, *first.overflowing]
    return padded(parts, facts), parts


def answered(parts: list[Encoding], context: str, facts: dict[str, Any], starts: Any, ends: Any) -> str:
    """Return the best span of all windows, at most 30 tokens long, or "(none)" where that is likelier."""
    best, none = (-np.inf, ""), np.inf
    for encoding, first, last in zip(parts, starts, ends, strict=True):
        none = min(none, first[0] + last[0])
        inside = [place for place, side in enumerate(encoding.sequence_ids) if side == 1]
        pairs = [(first[i] + last[j], i, j) for i in inside for j in inside if i <= j < i + 30]
        for score, i, j in sorted(pairs)[-1:]:
            best = max(best, (score, context[encoding.offsets[i][0] : encoding.offsets[j][1]].strip()))
    return "(none)" if facts["unanswerable"] and none - best[0] > facts["null_threshold"] else best[1]


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

    def asked(columns: dict[str, Any]) -> list[Any]:
        inputs = []
        for name, column in columns.items():
            inputs.append(triton.InferInput(name, list(column.shape), triton.np_to_triton_dtype(column.dtype)))
            inputs[-1].set_data_from_numpy(column)
        wanted = [triton.InferRequestedOutput(name) for name in facts["outputs"]]
        with triton.InferenceServerClient(url=words.url) as client:
            answer = client.infer(words.model, inputs, outputs=wanted)
        return [answer.as_numpy(name) for name in facts["outputs"]]

    if "unanswerable" in facts:  # questions and their contexts
        for question, context in zip(words.texts, words.pairs, strict=True):
            columns, parts = windows(question, context, facts)
            print(f"{answered(parts, context, facts, *asked(columns))}\t{question}")
        return
    columns, tokens = tokenized(words.texts, words.pairs, facts)
    for text, row, logits in zip(words.texts, tokens, asked(columns)[0], strict=True):
        print(f"{shown(row, logits, facts)}\t{text}")


if __name__ == "__main__":
    main()
