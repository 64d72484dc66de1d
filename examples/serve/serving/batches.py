"""Rows of many requests, gathered into batches."""

import asyncio
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

from serving.artifact import Artifact


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
