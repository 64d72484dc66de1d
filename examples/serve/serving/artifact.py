"""An artifact of `compress`: its graph, its tokenizer, and what its answers mean."""

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from tokenizers import Encoding, Tokenizer

from serving.questions import Reader, Window
from serving.words import divided, in_words

SEVERAL = "multi_label_classification"  # any number of labels per text
VECTORS = "vectors"  # a vector per text
CPU_INFO = Path("/proc/cpuinfo")
COLUMNS = {"input_ids": "ids", "attention_mask": "attention_mask", "token_type_ids": "type_ids"}


class Unusable(Exception):
    """A folder cannot be served here; the message says why."""


class Artifact:
    """An artifact's folder: a graph, tokenizer.json, tokenizer_config.json, and config.json, which says how it is used.

    Raises Unusable.
    """

    def __init__(self, folder: Path, threads: int) -> None:
        config, reading = (_json(folder / name) for name in ("config.json", "tokenizer_config.json"))
        facts = config.get("compress") or {}
        graph = facts.get("graph")
        if not graph or not (folder / graph["file"]).is_file():
            raise Unusable(f"{folder} has no ONNX graph; name the folder of an ONNX artifact")
        if problem := lacking(graph):
            raise Unusable(f"{folder}: {problem}")
        kind = config.get("compress_task") or config.get("problem_type") or "single_label_classification"
        if kind not in ("single_label_classification", SEVERAL, VECTORS, "regression", "tags", "spans", "ranking"):
            raise Unusable(
                f"{folder} is for {kind}, and this program answers with labels, spans, a score or a vector per text"
            )
        self.pairs: bool = facts["pairs"]
        self.tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))  # cuts rows as they were measured
        pad = reading["pad_token"]
        self.pad = self.tokenizer.token_to_id(pad["content"] if isinstance(pad, dict) else pad)
        self.is_vector = kind == VECTORS
        names = {} if self.is_vector else config["id2label"]
        self.labels = [names[str(index)] for index in range(len(names))]
        self.ranks, self.tags_words = kind == "ranking", kind == "tags"
        self.is_score = self.ranks or kind == "regression"
        self.is_several = kind == SEVERAL
        self.reader: Reader | None = None
        if kind == "spans":
            self.tokenizer.no_truncation()  # long contexts are read in windows
            self.reader = Reader(self.tokenizer, self.logits, config, int(reading["model_max_length"]))
        self.thresholds = config.get("thresholds") or [0.5] * len(self.labels)
        self.session = self._session(folder / graph["file"], threads)
        self.inputs = [tensor.name for tensor in self.session.get_inputs()]

    @staticmethod
    def _session(path: Path, threads: int) -> Any:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        if "compress.in_floats" in session.get_modelmeta().custom_metadata_map:
            # int8 for another device: products of signed integers would saturate on some processors
            options.add_session_config_entry("session.disable_quant_qdq", "1")
            session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        return session

    def __call__(self, rows: Sequence[tuple[str, str | None]]) -> list[dict[str, Any]]:
        """Return one prediction per row, in order; rows of about the same length run together.

        Where a row fails it has an ``error``, and the others have their answers.
        """
        results: list[dict[str, Any]] = [{} for _ in rows]
        if self.reader is not None:
            return [self.reader(question, context or "") for question, context in rows]
        encodings: dict[int, Encoding] = {}
        for row, (text, pair) in enumerate(rows):
            try:
                encodings[row] = self.tokenizer.encode(in_words(text) if self.tags_words else text, pair)
            except Exception as error:  # of tokenizers, which has no class of its own for them
                results[row] = {"error": f"the text cannot be read: {error}"}
        places = list(encodings)
        for group in groups([len(encodings[row].ids) for row in places]):
            chosen = {places[number]: encodings[places[number]] for number in group}
            for row, result in self._answers(chosen, [rows[row][0] for row in chosen]):
                results[row] = result
        return results

    def _answers(self, encodings: dict[int, Encoding], texts: Sequence[str]) -> list[tuple[int, dict[str, Any]]]:
        try:
            logits = self.logits(list(encodings.values()))[0]
        except Exception as error:  # onnxruntime's errors share no base class
            if len(encodings) == 1:
                return [(row, {"error": f"the model failed: {error}"}) for row in encodings]
            alone = zip(encodings.items(), texts, strict=True)
            return [answer for (row, encoding), text in alone for answer in self._answers({row: encoding}, [text])]
        found = []
        for (row, encoding), text, values in zip(encodings.items(), texts, logits, strict=True):
            answer = self._spans(values, text, encoding) if self.tags_words else self._read(values)
            cut = {"truncated": bool(encoding.overflowing)}
            found.append((row, answer | cut | ({"tokens": len(encoding.ids)} if self.is_vector else {})))
        return found

    def logits(self, encodings: Sequence[Encoding | Window]) -> Sequence[Any]:
        """Return the graph's outputs for rows, padded to the longest: logits (rows, …), or vectors."""
        return self.session.run(None, self._padded(encodings))

    def _padded(self, encodings: Sequence[Encoding | Window]) -> dict[str, Any]:
        """Return the graph's inputs (rows, tokens)."""
        width = max(len(encoding.ids) for encoding in encodings)
        made = {}
        for name in self.inputs:
            made[name] = np.full((len(encodings), width), self.pad if name == "input_ids" else 0, np.int64)
            for row, encoding in enumerate(encodings):
                numbers = getattr(encoding, COLUMNS[name])
                made[name][row, : len(numbers)] = numbers
        return made

    def _read(self, logits: Any) -> dict[str, Any]:
        if not np.isfinite(logits).all():
            return {"error": "the model's answer is not a number"}
        if self.is_vector:
            return {"vector": logits}
        if self.is_score:
            return {"score": float(logits[0])}
        if self.is_several:
            shares = 1 / (1 + np.exp(-logits.astype(np.float64)))
            rows = list(zip(self.labels, shares, self.thresholds, strict=True))
            labels = [label for label, share, threshold in rows if share >= threshold]
            return {"labels": labels, "probabilities": {label: float(share) for label, share, _ in rows}}
        shares = np.exp(logits - logits.max())
        shares /= shares.sum()
        best = int(shares.argmax())
        probabilities = {label: float(share) for label, share in zip(self.labels, shares, strict=True)}
        return {"label": self.labels[best], "probability": float(shares[best]), "probabilities": probabilities}

    def _spans(self, logits: Any, text: str, encoding: Encoding) -> dict[str, Any]:
        """Return the spans of a text from the logits of its tokens: each word's first token answers."""
        words = divided(text)
        shares = np.exp(logits - logits.max(-1, keepdims=True))
        shares /= shares.sum(-1, keepdims=True)
        tags, scores = ["O"] * len(words), np.zeros(len(words))
        starts = np.cumsum([0, *(stop - start + 1 for start, stop in words)])  # where the words lie in the row
        answered = set()
        for token, (start, stop) in enumerate(encoding.offsets):
            word = int(np.searchsorted(starts, stop - 1, side="right")) - 1
            if stop > start and not encoding.special_tokens_mask[token] and word not in answered:
                answered.add(word)
                tags[word], scores[word] = self.labels[int(shares[token].argmax())], shares[token].max()
        found: list[tuple[str, int, int]] = []
        before, mark = ("O", ""), all("-" in name for name in self.labels if name != "O")
        for place, tag in enumerate(tags):
            position, _, kind = tag.partition("-")
            if not mark and place in answered:
                found.append((tag, place, place))
            elif mark and tag != "O":
                goes_on = position in "IMEL" and before[0] in "BIM" and before[1] == kind
                found = [*found[:-1], (kind, found[-1][1], place)] if goes_on else [*found, (kind, place, place)]
            before = (position, kind)
        spans = []
        for label, first, last in found:
            start, stop = words[first][0], words[last][1]
            score = float(scores[first : last + 1].mean())
            spans.append({"label": label, "start": start, "end": stop, "text": text[start:stop], "score": score})
        return {"spans": spans}


def _json(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise Unusable(f"{path} cannot be read: {error}") from error
    if not isinstance(value, dict):
        raise Unusable(f"{path} must hold a JSON object")
    return value


def lacking(graph: dict[str, Any]) -> str:
    """Return what this machine lacks that a graph needs, by its entry in config.json; empty where it has everything."""
    installed = onnxruntime.__version__
    if _numbers(installed) < _numbers(graph["onnxruntime"]):
        return f"its graph needs onnxruntime {graph['onnxruntime']} or newer, and {installed} is installed"
    found = re.search(r"^(?:flags|Features)\s*:(.*)$", CPU_INFO.read_text() if CPU_INFO.exists() else "", re.MULTILINE)
    needed = graph["instructions"]
    if needed and found and not set(needed) & set(found[1].split()):
        return (
            f"its {graph['weight_bits']}-bit weights need a processor with {' or '.join(needed)}, and this "
            "one has none of them: its sums of products would saturate (quantize again with weight_bits=7)"
        )
    return ""


def _numbers(version: str) -> list[int]:
    return [int(number) for number in re.findall(r"\d+", version.partition("+")[0])[:3]]


def groups(lengths: Sequence[int]) -> list[list[int]]:
    """Return groups of row numbers, longest rows first; no row is less than half as long as the first of its group."""
    made: list[list[int]] = []
    for row in sorted(range(len(lengths)), key=lambda row: -lengths[row]):
        if not made or 2 * lengths[row] < lengths[made[-1][0]]:
            made.append([])
        made[-1].append(row)
    return made
