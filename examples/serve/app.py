"""Serve an ONNX artifact over HTTP, with requests gathered into batches: python app.py FOLDER; see --help.

A plain program to start from. It needs the packages in requirements.txt, but not the package that made the artifact.
"""

import argparse
import asyncio
import base64
import json
import re
import unicodedata
from collections.abc import AsyncIterator, Awaitable, Callable, MutableMapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import numpy as np
import onnxruntime
from fastapi import FastAPI, HTTPException, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel, ConfigDict, Field, StringConstraints, model_validator
from tokenizers import Encoding, Tokenizer

SEVERAL = "multi_label_classification"  # any number of labels per text
VECTORS = "vectors"  # a vector per text
MOST_ANSWER, BESTS = 30, 20  # tokens of an answer to a question; answers among which its score is shared out
MOST_TEXTS = 64  # of a request
MOST_BYTES = 4 * 2**20  # of a request's body
CPU_INFO = Path("/proc/cpuinfo")
COLUMNS = {"input_ids": "ids", "attention_mask": "attention_mask", "token_type_ids": "type_ids"}
Text = Annotated[str, StringConstraints(pattern=r"\S", max_length=100_000)]


class Question(BaseModel):
    """Texts to label; for a task on pairs, also the second text of each."""

    model_config = ConfigDict(extra="forbid")
    texts: list[Text] = Field(min_length=1, max_length=MOST_TEXTS)
    pairs: list[Text] | None = None

    @model_validator(mode="after")
    def one_pair_a_text(self) -> Self:
        """Require as many second texts as first ones."""
        if self.pairs is not None and len(self.pairs) != len(self.texts):
            raise ValueError(f"pairs must have as many entries as texts: {len(self.pairs)} against {len(self.texts)}")
        return self


class Texts(BaseModel):
    """Texts to encode."""

    model_config = ConfigDict(extra="forbid")
    texts: list[Text] = Field(min_length=1, max_length=MOST_TEXTS)


class Vectors(BaseModel):
    """A vector for each text, in their order, and whether its end was cut."""

    vectors: list[list[float]]
    truncated: list[bool]


class Inputs(BaseModel):
    """A request as OpenAI's clients send it to /v1/embeddings; what is not listed is ignored, the model's name too."""

    input: Text | Annotated[list[Text], Field(min_length=1, max_length=MOST_TEXTS)]
    model: str = ""
    encoding_format: Literal["float", "base64"] = "float"
    dimensions: int | None = Field(default=None, ge=1)


class Span(BaseModel):
    """A run of words that a tagger marks, or a single word of one whose tags mark no spans."""

    label: str
    start: int  # characters of the text
    end: int
    text: str
    score: float  # mean probability of its words' tags


class Prediction(BaseModel):
    """The model's answer for a text: a label, or several, with all probabilities; a score; spans; or why not.

    To a question it is the answer, a part of the second text by its characters, or "" for none.
    """

    label: str | None = None
    labels: list[str] | None = None
    probability: float | None = None
    probabilities: dict[str, float] | None = None
    score: float | None = None
    spans: list[Span] | None = None
    answer: str | None = None
    start: int | None = None
    end: int | None = None
    error: str | None = None
    truncated: bool | None = None  # the text was longer than the model's limit, and its end was cut


class Answer(BaseModel):
    """A prediction for each text, in their order."""

    predictions: list[Prediction]


class Query(BaseModel):
    """A query, and the candidates to rank for it."""

    model_config = ConfigDict(extra="forbid")
    query: Text
    candidates: list[Text] = Field(min_length=1, max_length=MOST_TEXTS)


class Ranked(BaseModel):
    """A candidate with its score, and where it stood in the question, counted from 0; or why it has no score."""

    index: int
    candidate: str
    score: float | None = None
    error: str | None = None
    truncated: bool | None = None  # query and candidate were longer than the model's limit


class Ranking(BaseModel):
    """The candidates, best first; those without a score come last."""

    candidates: list[Ranked]


class Unusable(Exception):
    """A folder cannot be served here; the message says why."""


@dataclass(frozen=True)
class Window:
    """A window of a question and its context as tokens; ``offsets`` are characters of the context, -1 elsewhere."""

    ids: list[int]
    attention_mask: list[int]
    type_ids: list[int]
    offsets: Any  # (tokens, 2)


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
            self.reader = Reader(self, config, int(reading["model_max_length"]))
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
            logits = self.session.run(None, self.padded(list(encodings.values())))[0]
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

    def padded(self, encodings: Sequence[Encoding | Window]) -> dict[str, Any]:
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


class Reader:
    """Answers questions as `compress predict` does: windows that overlap, the best span of them all, or none."""

    def __init__(self, artifact: Artifact, config: dict[str, Any], most: int) -> None:
        self.artifact, self.most, self.overlap = artifact, most, config.get("window_overlap")
        self.unanswerable, self.threshold = bool(config.get("unanswerable")), float(config.get("null_threshold") or 0)

    def __call__(self, question: str, context: str) -> dict[str, Any]:
        """Return the answer, its characters in the context and its score; or the error."""
        try:
            windows = self.windows(self.artifact.tokenizer.encode(" ".join(question.split()), context), context)
            starts, ends = self.artifact.session.run(None, self.artifact.padded(windows))
        except Exception as error:  # of tokenizers and onnxruntime, whose errors share no base class
            return {"error": f"the model failed: {error}"}
        if not (np.isfinite(starts).all() and np.isfinite(ends).all()):
            return {"error": "the model's answer is not a number"}
        found: dict[tuple[int, int], float] = {}
        none = min(float(first[0] + last[0]) for first, last in zip(starts, ends, strict=True))
        for window, first, last in zip(windows, starts, ends, strict=True):
            read = np.flatnonzero(window.offsets[:, 0] >= 0)
            sums = first[read][:, None] + last[read][None, :]
            sums = np.where(np.tri(len(read), k=MOST_ANSWER - 1).T * np.tri(len(read)).T == 1, sums, -np.inf)
            for place in np.argsort(-sums, axis=None, kind="stable")[:BESTS]:
                i, j = np.unravel_index(place, sums.shape)
                if np.isfinite(sums[i, j]):
                    span = int(window.offsets[read[i], 0]), int(window.offsets[read[j], 1])
                    found[span] = max(found.get(span, -np.inf), float(sums[i, j]))
        best = sorted(found.items(), key=lambda item: (-item[1], item[0]))[:BESTS]
        values = np.array([value for _, value in best] + [none] * self.unanswerable)
        shares = np.exp(values - values.max(initial=-np.inf))
        shares /= max(shares.sum(), 1e-12)
        if not best or (self.unanswerable and none - best[0][1] > self.threshold):
            return {"answer": "", "score": float(shares[-1]) if self.unanswerable else 0.0}
        (start, end), _ = best[0]
        return {"answer": context[start:end], "start": start, "end": end, "score": float(shares[0])}

    def windows(self, encoding: Encoding, context: str) -> list[Window]:
        """Return the windows of a whole row; see `compress.models.windows`."""
        sides = [-1 if side is None else side for side in encoding.sequence_ids]
        inside = [place for place, side in enumerate(sides) if side == 1]
        begin, end = (inside[0], inside[-1] + 1) if inside else (len(sides), len(sides))
        before, after = list(range(begin)), list(range(end, len(sides)))
        asked = [place for place in before if sides[place] == 0]
        over = len(before) + len(after) - (self.most - self.most // 2)
        cut = set(asked[max(0, len(asked) - over) :]) if over > 0 else set()
        before = [place for place in before if place not in cut]
        room = max(1, self.most - len(before) - len(after))
        shared = min(room // 3 if self.overlap is None else int(self.overlap), room // 2)
        offsets = np.full((len(sides), 2), -1)
        for place in inside:
            start, stop = encoding.offsets[place]
            text = context[start:stop]
            if text.strip():
                offsets[place] = start + len(text) - len(text.lstrip()), stop - len(text) + len(text.rstrip())
        made = []
        for start in range(begin, max(begin + 1, end - shared), room - shared):
            places = [*before, *range(start, min(start + room, end)), *after]
            numbers = [[column[place] for place in places] for column in (encoding.ids, encoding.type_ids)]
            made.append(Window(numbers[0], [1] * len(places), numbers[1], offsets[places]))
        return made


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


def in_words(text: str) -> str:
    """Return a text with a space between its words."""
    return " ".join(text[start:stop] for start, stop in divided(text))


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
                results = await loop.run_in_executor(thread, self.artifact, [row for row, _ in batch])
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


Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]


@dataclass(frozen=True)
class Guard:
    """Refuses bodies that are too large, before reading them, and drops clients that send or read too slowly."""

    app: Callable[[Message, Receive, Send], Awaitable[None]]
    most_bytes: int
    seconds: float

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """Answer a request, or refuse it with 413 or 408."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        given = dict(scope["headers"]).get(b"content-length", b"0")
        body, whole = b"", not given.isdigit() or int(given) > self.most_bytes
        status = 413 if whole else 0
        try:
            async with asyncio.timeout(self.seconds):
                while not whole:
                    message = await receive()
                    if message["type"] == "http.disconnect":
                        return
                    body += message.get("body", b"")
                    status = 413 if len(body) > self.most_bytes else 0
                    whole = status > 0 or not message.get("more_body", False)
        except TimeoutError:
            status = 408
        waiting = [{"type": "http.request", "body": body, "more_body": False}]

        async def read() -> Message:
            return waiting.pop() if waiting else await receive()

        async def write(message: Message) -> None:
            async with asyncio.timeout(self.seconds):  # whoever does not read what was asked for is left alone
                await send(message)

        if status:
            what = f"the body is larger than {self.most_bytes} bytes" if status == 413 else "the body came too slowly"
            refusal = JSONResponse({"detail": what}, status, {"Connection": "close"})
            await refusal(scope, read, write)
        else:
            await self.app(scope, read, write)


def create_app(
    folder: Path,
    *,
    most_rows: int = 32,
    wait_ms: float = 2.0,
    most_waiting: int = 256,
    threads: int = 1,
    most_bytes: int = MOST_BYTES,
    seconds: float = 10.0,
) -> FastAPI:
    """Return the application for an artifact's folder; see `Batcher` and `Guard` for the sizes. Raises Unusable."""
    if most_rows < 1 or wait_ms < 0 or most_waiting < 1 or threads < 0 or most_bytes < 1 or seconds <= 0:
        raise ValueError("most_rows, most_waiting and most_bytes must be at least 1, wait_ms and threads at least 0")
    batcher = Batcher(Artifact(folder, threads), most_rows, wait_ms, most_waiting)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        running = asyncio.create_task(batcher.run())
        yield
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)

    app = FastAPI(title=folder.name, lifespan=lifespan)

    app.add_middleware(Guard, most_bytes=most_bytes, seconds=seconds)

    @app.exception_handler(RequestValidationError)
    async def refuse(_: Request, error: RequestValidationError) -> JSONResponse:
        """Say what is wrong without the input, which JSON may not be able to hold (NaN, half a character)."""
        return JSONResponse(
            {"detail": [{name: problem[name] for name in ("loc", "msg")} for problem in error.errors()]}, 422
        )

    async def answers(rows: Sequence[tuple[str, str | None]], request: Request) -> list[dict[str, Any]]:
        """Return the results of rows; raises HTTPException where no row has any."""
        asking = asyncio.ensure_future(batcher.ask(rows))
        leaving = asyncio.ensure_future(request.receive())  # the body was read, so what comes is that the client left
        try:
            await asyncio.wait({asking, leaving}, return_when=asyncio.FIRST_COMPLETED)
            if not asking.done():
                raise HTTPException(499, "the client has gone")
            results = asking.result()
        except Full as full:
            raise HTTPException(503, "too many texts are waiting", {"Retry-After": "1"}) from full
        finally:
            asking.cancel()
            leaving.cancel()
        if all("error" in result for result in results):
            raise HTTPException(500, results[0]["error"])
        return results

    async def encoded(texts: Sequence[str], request: Request) -> list[dict[str, Any]]:
        """Return the vectors of texts; raises HTTPException where one has none."""
        if not batcher.artifact.is_vector:
            raise HTTPException(422, "this model gives no vectors: ask /predict")
        results = await answers([(text, None) for text in texts], request)
        for number, result in enumerate(results, 1):
            if "error" in result:
                raise HTTPException(500, f"text {number}: {result['error']}")
        return results

    @app.post("/encode")
    async def encode(given: Texts, request: Request) -> Vectors:
        results = await encoded(given.texts, request)
        vectors = [result["vector"].tolist() for result in results]
        return Vectors(vectors=vectors, truncated=[result["truncated"] for result in results])

    @app.post("/v1/embeddings")
    async def embeddings(given: Inputs, request: Request) -> dict[str, Any]:
        results = await encoded([given.input] if isinstance(given.input, str) else given.input, request)
        width = len(results[0]["vector"])
        if given.dimensions not in (None, width):
            raise HTTPException(422, f"this model's vectors have {width} dimensions: leave out dimensions")
        data = []
        for number, result in enumerate(results):
            floats = np.asarray(result["vector"], dtype="<f4")
            packed = given.encoding_format == "base64"
            value = base64.b64encode(floats.tobytes()).decode() if packed else floats.tolist()
            data.append({"object": "embedding", "index": number, "embedding": value})
        tokens = sum(result["tokens"] for result in results)
        usage = {"prompt_tokens": tokens, "total_tokens": tokens}
        return {"object": "list", "data": data, "model": given.model or folder.name, "usage": usage}

    @app.post("/predict", response_model_exclude_none=True)
    async def predict(question: Question, request: Request) -> Answer:
        if batcher.artifact.is_vector:
            raise HTTPException(422, "this model gives vectors: ask /encode or /v1/embeddings")
        if batcher.artifact.pairs != (question.pairs is not None):
            what = "pairs of texts: give pairs" if batcher.artifact.pairs else "single texts: leave out pairs"
            raise HTTPException(422, f"this model was made for {what}")
        pairs = question.pairs or [None] * len(question.texts)
        results = await answers(list(zip(question.texts, pairs, strict=True)), request)
        return Answer(predictions=[Prediction(**result) for result in results])

    @app.post("/rank", response_model_exclude_none=True)
    async def rank(question: Query, request: Request) -> Ranking:
        if not batcher.artifact.ranks:
            raise HTTPException(422, "this model ranks no candidates: ask /predict")
        results = await answers([(question.query, candidate) for candidate in question.candidates], request)
        found = [
            Ranked(index=index, candidate=candidate, **result)
            for index, (candidate, result) in enumerate(zip(question.candidates, results, strict=True))
        ]
        return Ranking(candidates=sorted(found, key=lambda own: (own.score is None, -(own.score or 0.0))))

    @app.get("/health")
    async def health() -> dict[str, Any]:
        return {"status": "ok", "model": folder.name, "labels": batcher.artifact.labels, "waiting": batcher.waiting}

    @app.get("/metrics")
    async def metrics() -> Response:
        lines = [f"serve_{name} {value}" for name, value in {**batcher.counts, "waiting": batcher.waiting}.items()]
        return Response("\n".join(lines) + "\n", media_type="text/plain; version=0.0.4")

    return app


def protocol(seconds: float) -> type[asyncio.Protocol]:
    """Return uvicorn's protocol, which drops connections that do not send a whole head in that many seconds."""
    from uvicorn.protocols.http.h11_impl import H11Protocol

    class Impatient(H11Protocol):
        late: asyncio.TimerHandle | None = None

        def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
            super().connection_made(transport)
            self.watch()

        def data_received(self, data: bytes) -> None:
            super().data_received(data)
            self.watch()

        def connection_lost(self, exc: Exception | None) -> None:
            super().connection_lost(exc)
            self.watch()

        def watch(self) -> None:
            """Start the clock where a head is missing, and stop it where one is there, or nobody."""
            missing = not self.transport.is_closing() and (self.cycle is None or self.cycle.response_complete)
            if missing and self.late is None:
                self.late = self.loop.call_later(seconds, self.transport.abort)
            elif not missing and self.late is not None:
                self.late.cancel()
                self.late = None

    return Impatient


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
    parser.add_argument("--bytes", type=int, default=MOST_BYTES, help="of a request's body; a larger one gets 413")
    parser.add_argument("--seconds", type=float, default=10.0, help="in which a client must send, and read, a message")
    parser.add_argument("--threads", type=int, default=1, help="of ONNX Runtime; 0: all cores")
    options = parser.parse_args()
    try:
        app = create_app(
            options.folder,
            most_rows=options.rows,
            wait_ms=options.wait_ms,
            most_waiting=options.waiting,
            threads=options.threads,
            most_bytes=options.bytes,
            seconds=options.seconds,
        )
    except (Unusable, ValueError) as error:
        parser.error(str(error))
    uvicorn.run(app, host=options.host, port=options.port, log_level="warning", http=protocol(options.seconds))


if __name__ == "__main__":
    main()
