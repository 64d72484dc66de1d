"""Serve an ONNX artifact over HTTP, with requests gathered into batches: python app.py FOLDER; see --help.

A plain program to start from. It needs the packages in requirements.txt, but not the package that made the artifact.
"""

import argparse
import asyncio
import base64
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import numpy as np
from fastapi import FastAPI, HTTPException, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from serving.artifact import Artifact, Unusable
from serving.batches import Batcher, Full
from serving.guard import Guard, protocol
from serving.messages import Answer, Inputs, Prediction, Query, Question, Ranked, Ranking, Texts, Vectors

MOST_BYTES = 4 * 2**20  # of a request's body


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
