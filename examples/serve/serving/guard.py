"""Limits of size and time for what comes over the network."""

import asyncio
from collections.abc import Awaitable, Callable, MutableMapping
from dataclasses import dataclass
from typing import Any

from fastapi.responses import JSONResponse

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
