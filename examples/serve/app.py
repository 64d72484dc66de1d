"""Serve an ONNX artifact over HTTP, with requests gathered into batches: python app.py FOLDER; see --help.

A plain program to start from. It needs the packages in requirements.txt, but not the package that made the artifact.
"""

import argparse
import asyncio
import json
import re
import unicodedata
from collections.abc import AsyncIterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Self

import numpy as np
import onnxruntime
from fastapi import FastAPI, HTTPException, Response
from pydantic import BaseModel, Field, StringConstraints, model_validator
from tokenizers import Encoding, Tokenizer

MOST_TEXTS = 64  # of a request
COLUMNS = {"input_ids": "ids", "attention_mask": "attention_mask", "token_type_ids": "type_ids"}
Text = Annotated[str, StringConstraints(pattern=r"\S", max_length=100_000)]


class Question(BaseModel):
    """Texts to label; for a task on pairs, also the second text of each."""

    texts: list[Text] = Field(min_length=1, max_length=MOST_TEXTS)
    pairs: list[Text] | None = None

    @model_validator(mode="after")
    def one_pair_a_text(self) -> Self:
        """Require as many second texts as first ones."""
        if self.pairs is not None and len(self.pairs) != len(self.texts):
            raise ValueError(f"pairs must have as many entries as texts: {len(self.pairs)} against {len(self.texts)}")
        return self


class Span(BaseModel):
    """A run of words that a tagger marks, or a single word of one whose tags mark no spans."""

    label: str
    start: int  # characters of the text
    end: int
    text: str
    score: float  # mean probability of its words' tags


class Prediction(BaseModel):
    """The model's answer for a text: a label with all probabilities, a score, or spans."""

    label: str | None = None
    probability: float | None = None
    probabilities: dict[str, float] | None = None
    score: float | None = None
    spans: list[Span] | None = None
    truncated: bool  # the text was longer than the model's limit, and its end was cut


class Answer(BaseModel):
    """A prediction for each text, in their order."""

    predictions: list[Prediction]


class Artifact:
    """An artifact's folder: model.onnx, tokenizer.json, tokenizer_config.json and config.json."""

    def __init__(self, folder: Path, threads: int) -> None:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        reading = json.loads((folder / "tokenizer_config.json").read_text(encoding="utf-8"))
        longest = min(reading.get("model_max_length") or 512, config.get("max_position_embeddings") or 512)
        self.tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        self.tokenizer.enable_truncation(
            int(longest), strategy="longest_first", direction=reading.get("truncation_side", "right")
        )
        self.tokenizer.no_padding()
        pad = reading["pad_token"]
        self.pad = self.tokenizer.token_to_id(pad["content"] if isinstance(pad, dict) else pad)
        names = config.get("id2label", {})
        self.labels = [names[str(index)] for index in range(len(names))]
        self.is_score = config.get("problem_type") == "regression"
        self.tags_words = any(name.endswith("ForTokenClassification") for name in config.get("architectures") or [])
        self.session = self._session(folder / "model.onnx", threads)
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
        """Return one prediction per row, in order; rows of about the same length run together."""
        words = [divided(text) if self.tags_words else [] for text, _ in rows]
        given = [
            (" ".join(text[start:stop] for start, stop in own) if self.tags_words else text, pair)
            for (text, pair), own in zip(rows, words, strict=True)
        ]
        encodings = [self.tokenizer.encode(text, pair) for text, pair in given]
        results: list[dict[str, Any]] = [{} for _ in rows]
        for group in groups([len(encoding.ids) for encoding in encodings]):
            logits = self.session.run(None, self._padded([encodings[row] for row in group]))[0]
            for row, values in zip(group, logits, strict=True):
                answer = (
                    self._spans(values, rows[row][0], words[row], encodings[row])
                    if self.tags_words
                    else self._read(values)
                )
                results[row] = answer | {"truncated": bool(encodings[row].overflowing)}
        return results

    def _padded(self, encodings: Sequence[Encoding]) -> dict[str, Any]:
        width = max(len(encoding.ids) for encoding in encodings)
        made = {}
        for name in self.inputs:
            made[name] = np.full((len(encodings), width), self.pad if name == "input_ids" else 0, np.int64)
            for row, encoding in enumerate(encodings):
                numbers = getattr(encoding, COLUMNS[name])
                made[name][row, : len(numbers)] = numbers
        return made

    def _read(self, logits: Any) -> dict[str, Any]:
        if self.is_score:
            return {"score": float(logits[0])}
        shares = np.exp(logits - logits.max())
        shares /= shares.sum()
        best = int(shares.argmax())
        probabilities = {label: float(share) for label, share in zip(self.labels, shares, strict=True)}
        return {"label": self.labels[best], "probability": float(shares[best]), "probabilities": probabilities}

    def _spans(self, logits: Any, text: str, words: Sequence[tuple[int, int]], encoding: Encoding) -> dict[str, Any]:
        """Return the spans of a text from the logits of its tokens: each word's first token answers."""
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


WORD = re.compile(r"['’]s(?![ws])|[@#]?[ws](?:[ws]|\.(?=[ws])|['’](?=[ws])(?!s(?![ws])))*|c|[^ ]")
UNDIVIDED = re.compile("[\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003134f]")


def divided(text: str) -> list[tuple[int, int]]:
    """Return the words of a text, as the model's rows have them: punctuation is apart, and so are Chinese signs."""

    def kind(sign: str) -> str:
        if sign in "'’.@#":
            return sign
        if sign in "sS":
            return "s"
        if sign.isspace():
            return " "
        if UNDIVIDED.match(sign):
            return "c"
        return "w" if sign == "_" or unicodedata.category(sign)[0] in "LMN" else "-"

    return [match.span() for match in WORD.finditer("".join(map(kind, text)))]


def groups(lengths: Sequence[int]) -> list[list[int]]:
    """Return groups of row numbers, longest rows first; no row is less than half as long as the first of its group."""
    made: list[list[int]] = []
    for row in sorted(range(len(lengths)), key=lambda row: -lengths[row]):
        if not made or 2 * lengths[row] < lengths[made[-1][0]]:
            made.append([])
        made[-1].append(row)
    return made


class Full(Exception):
    """The queue is full."""


@dataclass
class Batcher:
    """Collects rows until there are enough or the first has waited long enough; runs one batch at a time."""

    artifact: Artifact
    most_rows: int  # of a batch
    wait_ms: float  # longest wait of a batch's first row for others
    most_waiting: int  # rows without an answer so far
    waiting: int = 0
    counts: dict[str, int] = field(
        default_factory=lambda: {"requests": 0, "rows": 0, "batches": 0, "refused": 0, "largest_batch": 0}
    )
    queue: asyncio.Queue[tuple[tuple[str, str | None], asyncio.Future[dict[str, Any]]]] = field(
        default_factory=asyncio.Queue
    )

    async def ask(self, rows: Sequence[tuple[str, str | None]]) -> list[dict[str, Any]]:
        """Return the predictions of rows; raises Full if too many rows are waiting."""
        if self.waiting + len(rows) > self.most_waiting:
            self.counts["refused"] += 1
            raise Full
        self.counts["requests"] += 1
        self.waiting += len(rows)
        answers = [asyncio.get_running_loop().create_future() for _ in rows]
        for item in zip(rows, answers, strict=True):
            self.queue.put_nowait(item)
        try:
            return await asyncio.gather(*answers)
        finally:
            self.waiting -= len(rows)

    async def run(self) -> None:
        """Answer batches until cancelled."""
        loop = asyncio.get_running_loop()
        with ThreadPoolExecutor(max_workers=1) as thread:
            while True:
                batch = [
                    item for item in await self._gathered() if not item[1].done()
                ]  # a client may have disconnected
                if not batch:
                    continue
                self.counts["rows"] += len(batch)
                self.counts["batches"] += 1
                self.counts["largest_batch"] = max(self.counts["largest_batch"], len(batch))
                try:
                    results = await loop.run_in_executor(thread, self.artifact, [row for row, _ in batch])
                except Exception as error:  # the fault of these rows, not of the server
                    for _, answer in batch:
                        if not answer.done():
                            answer.set_exception(error)
                    continue
                for (_, answer), result in zip(batch, results, strict=True):
                    if not answer.done():
                        answer.set_result(result)

    async def _gathered(self) -> list[tuple[tuple[str, str | None], asyncio.Future[dict[str, Any]]]]:
        batch = [await self.queue.get()]
        try:
            async with asyncio.timeout(self.wait_ms / 1e3):
                while len(batch) < self.most_rows:
                    batch.append(await self.queue.get())
        except TimeoutError:
            pass
        while len(batch) < self.most_rows and not self.queue.empty():
            batch.append(self.queue.get_nowait())
        return batch


def create_app(
    folder: Path, *, most_rows: int = 32, wait_ms: float = 2.0, most_waiting: int = 256, threads: int = 1
) -> FastAPI:
    """Return the application for an artifact's folder; see `Batcher` for the sizes."""
    if most_rows < 1 or wait_ms < 0 or most_waiting < 1 or threads < 0:
        raise ValueError("most_rows and most_waiting must be at least 1, wait_ms and threads at least 0")
    batcher = Batcher(Artifact(folder, threads), most_rows, wait_ms, most_waiting)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        running = asyncio.create_task(batcher.run())
        yield
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)

    app = FastAPI(title=folder.name, lifespan=lifespan)

    @app.post("/predict", response_model_exclude_none=True)
    async def predict(question: Question) -> Answer:
        pairs = question.pairs or [None] * len(question.texts)
        try:
            results = await batcher.ask(list(zip(question.texts, pairs, strict=True)))
        except Full as full:
            raise HTTPException(503, "too many texts are waiting", {"Retry-After": "1"}) from full
        return Answer(predictions=[Prediction(**result) for result in results])

    @app.get("/health")
    async def health() -> dict[str, Any]:
        return {"status": "ok", "model": folder.name, "labels": batcher.artifact.labels, "waiting": batcher.waiting}

    @app.get("/metrics")
    async def metrics() -> Response:
        lines = [f"serve_{name} {value}" for name, value in {**batcher.counts, "waiting": batcher.waiting}.items()]
        return Response("\n".join(lines) + "\n", media_type="text/plain; version=0.0.4")

    return app


def main() -> None:
    """Serve the folder named on the command line."""
    import uvicorn

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "folder", type=Path, help="an artifact with model.onnx, such as runs/RECIPE/NAME/artifacts/dynamic"
    )
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=8000)
    parser.add_argument("--rows", type=int, default=32, help="rows in the largest batch")
    parser.add_argument("--wait-ms", type=float, default=2.0, help="longest wait of a row for others to join it")
    parser.add_argument("--waiting", type=int, default=256, help="rows that may wait; a request beyond that gets 503")
    parser.add_argument("--threads", type=int, default=1, help="of ONNX Runtime; 0: all cores")
    options = parser.parse_args()
    missing = [
        name for name in ("model.onnx", "tokenizer.json", "config.json") if not (options.folder / name).is_file()
    ]
    if missing:
        parser.error(f"{options.folder} has no {missing[0]}; name the folder of an ONNX artifact")
    app = create_app(
        options.folder,
        most_rows=options.rows,
        wait_ms=options.wait_ms,
        most_waiting=options.waiting,
        threads=options.threads,
    )
    uvicorn.run(app, host=options.host, port=options.port, log_level="warning")


if __name__ == "__main__":
    main()
