"""A language model behind a socket, which speaks as OpenAI's API does, as far as it is asked for likeliest words."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import numpy as np

from tests.conftest import GOOD


def likeliest(prompt: str) -> list[dict[str, Any]]:
    """What the model behind the server answers: the class's word with a space before it, another one, and noise."""
    text = prompt.partition(" is:")[0].partition("\n")[0]
    good = any(word in text.split() for word in GOOD)
    shares = {" Good": 0.7 if good else 0.2, "bad": 0.2 if good else 0.7, "The": 0.1}
    return [{"token": token, "logprob": float(np.log(share))} for token, share in shares.items()]


def chat(prompt: str) -> tuple[int, dict[str, str], bytes]:
    content = [{"token": "x", "logprob": -0.1, "top_logprobs": likeliest(prompt)}]
    return 200, {}, json.dumps({"choices": [{"message": {}, "logprobs": {"content": content}}]}).encode()


def completion(prompt: str) -> tuple[int, dict[str, str], bytes]:
    top = [{entry["token"]: entry["logprob"] for entry in likeliest(prompt)}]
    return 200, {}, json.dumps({"choices": [{"text": "x", "logprobs": {"top_logprobs": top}}]}).encode()


Reply = Callable[[str], tuple[int, dict[str, str], bytes]]


@dataclass
class Served:
    """A server, what it replies, and what was sent to it."""

    reply: Reply = chat
    requests: list[dict[str, Any]] = field(default_factory=list)
    headers: list[Any] = field(default_factory=list)
    url: str = ""

    def prompts(self) -> list[str]:
        return [request["messages"][-1]["content"] for request in self.requests]


@contextmanager
def serving() -> Iterator[Served]:
    """A server on a port of its own."""
    found = Served()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            found.requests.append(body)
            found.headers.append(self.headers)
            prompt = body["messages"][-1]["content"] if "messages" in body else body["prompt"]
            status, headers, answer = found.reply(prompt)
            self.send_response(status)
            for name, value in {**headers, "Content-Length": str(len(answer))}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(answer)

        def log_message(self, *_: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        found.url = f"http://127.0.0.1:{server.server_port}/v1"
        yield found
        server.shutdown()
        thread.join()
