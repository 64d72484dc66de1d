"""Ask a server that speaks OpenAI's protocol for its likeliest next words: one request, and many at once."""

from __future__ import annotations

import http.client
import json
import math
import random
import threading
import time
import urllib.error
import urllib.request
from collections import deque
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from queue import SimpleQueue
from typing import Any

from compress.errors import ModelError, in_one_line
from compress.telling import warn
from compress.wording import counted, shortened

LONGEST_BODY = 2**24  # bytes of an answer that are read
LONGEST_PAUSE = 300.0  # seconds between two attempts, at most
WORTH_SAYING = 10.0  # seconds of a pause that is reported
QUOTED = 200  # characters of a server's own words in a message
WRONG_ROW = (400, 413, 422)  # statuses that refuse one request; where others are answered, it is the row's fault
PASSING = (408, 425, 429)  # statuses that may pass, as all from 500 on

Entry = dict[str, Any]
"""A word and its log-probability: {"token": " good", "logprob": -0.1}."""
Reply = dict[str, Any]
"""What a server answered to a prompt: {"top_logprobs": [entry, …]}, or {"refused": why}."""


class Api(Enum):
    """chat: /chat/completions; completions: /completions, for models without a chat template."""

    chat = "chat"
    completions = "completions"


@dataclass(frozen=True, kw_only=True)
class Service:
    """What is asked, and how."""

    url: str
    model: str
    api: Api
    system: str  # a message before each prompt; "": none
    likeliest: int  # next words that are asked for
    per_minute: int | None
    retries: int
    timeout_seconds: float
    key_variable: str  # the environment variable that the key is read from, for messages
    key: str | None  # never written anywhere

    @property
    def address(self) -> str:
        """Where requests go."""
        return self.url.rstrip("/") + ("/chat/completions" if self.api is Api.chat else "/completions")

    def body(self, prompt: str) -> dict[str, Any]:
        """Return a request for one word and the likeliest ones in its place."""
        asked: dict[str, Any] = {"model": self.model, "max_tokens": 1, "temperature": 0}
        if self.api is Api.completions:
            text = f"{self.system}\n\n{prompt}" if self.system else prompt
            return {**asked, "prompt": text, "logprobs": self.likeliest}
        system = [{"role": "system", "content": self.system}] if self.system else []
        messages = [*system, {"role": "user", "content": prompt}]
        return {**asked, "messages": messages, "logprobs": True, "top_logprobs": self.likeliest}


class Pace:
    """At what times requests may start."""

    def __init__(self, per_minute: int | None, now: Callable[[], float] = time.monotonic) -> None:
        self.gap, self.now, self.next, self.lock = 60 / per_minute if per_minute else 0.0, now, 0.0, threading.Lock()

    def turn(self) -> float:
        """Take the next turn; return the seconds until then."""
        with self.lock:
            now = self.now()
            turn = max(now, self.next)
            self.next = turn + self.gap
        return turn - now


def pause(attempt: int, asked: str | None) -> float:
    """Return the seconds to wait after a failed attempt, the first being 0: what the server asks for, or 1, 2, 4, ….

    Other clients fail at the same time, so that up to a quarter is added by chance.
    """
    try:
        seconds = float(asked or "")
    except ValueError:
        seconds = math.nan
    if math.isfinite(seconds) and seconds >= 0:
        return min(seconds, LONGEST_PAUSE)
    return min(2.0**attempt, LONGEST_PAUSE) * random.SystemRandom().uniform(1, 1.25)


class PassingTrouble(Exception):
    """An attempt failed in a way that may pass."""

    def __init__(self, reason: str, after: str | None = None, *, proven: bool = True) -> None:
        self.reason, self.after = reason, after
        self.proven = proven  # whether it is certainly the server that is meant, which answers like this
        super().__init__(reason)


class Stopped(Exception):
    """Nobody waits for the answer any more."""


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """The key goes to nobody but the server that the user names."""

    def redirect_request(self, *_: Any, **__: Any) -> None:
        return None


class Client:
    """Asks a service, again where trouble may pass."""

    def __init__(self, service: Service) -> None:
        self.service = service
        self.pace = Pace(service.per_minute)
        self.reached = False  # it has answered as it should
        self.opener = urllib.request.build_opener(_NoRedirect)

    def ask(self, prompt: str, stop: threading.Event) -> Reply:
        """Return what the service answers.

        Raises ModelError where asking on is of no use, Stopped where ``stop`` is set meanwhile.
        """
        for attempt in range(self.service.retries + 1):
            stop.wait(self.pace.turn())
            if stop.is_set():
                raise Stopped
            try:
                reply = self._asked(prompt)
            except PassingTrouble as trouble:
                if not (trouble.proven or self.reached):
                    raise ModelError(
                        f"{self.service.address}: {trouble.reason}. Check that the server is running, and teacher.url, "
                        "which often ends in /v1."
                    ) from None
                if attempt == self.service.retries:
                    tried = f", {counted(attempt + 1, 'time')}" if attempt else ""
                    raise ModelError(
                        f"{self.service.address}: {trouble.reason}{tried}. What was answered is kept: run the same "
                        "command again; it resumes."
                    ) from None
                seconds = pause(attempt, trouble.after)
                if seconds >= WORTH_SAYING:
                    warn(f"{self.service.address}: {trouble.reason}; trying again in {seconds:.0f} s")
                stop.wait(seconds)
            else:
                return reply
        raise AssertionError("the last attempt returns or raises")

    def _asked(self, prompt: str) -> Reply:
        headers = {"Content-Type": "application/json", "Accept": "application/json"}
        if self.service.key:
            headers["Authorization"] = f"Bearer {self.service.key}"
        data = json.dumps(self.service.body(prompt)).encode()
        request = urllib.request.Request(self.service.address, data, headers, method="POST")
        try:
            with self.opener.open(request, timeout=self.service.timeout_seconds) as response:
                body = response.read(LONGEST_BODY)
        except urllib.error.HTTPError as error:
            with error:
                return self._refused(error)
        except (OSError, http.client.HTTPException) as error:
            reason = getattr(error, "reason", error)
            shown = in_one_line(reason) if isinstance(reason, Exception) else str(reason)
            raise PassingTrouble(f"cannot be reached ({shown})", proven=False) from None
        entries = self._entries(body)
        self.reached = True
        return {"top_logprobs": entries}

    def _refused(self, error: urllib.error.HTTPError) -> Reply:
        """Return the refusal of one row; raises for all other answers that are errors."""
        service, status = self.service, error.code
        try:
            words, kind = self._words(error.read(LONGEST_BODY))
        except (OSError, http.client.HTTPException):
            words, kind = "", ""
        shown = f"{status}{': ' if words else ''}{words}"
        if status in (401, 403):
            if service.key:
                rule = f"refuses the key in {service.key_variable}"
                remedy = "Set that environment variable to a valid one."
            else:
                rule = f"asks for a key, and the environment variable {service.key_variable} is not set"
                remedy = f"Set it: export {service.key_variable}=…; another one's name: teacher.key."
            raise ModelError(f"{service.address}: {rule} ({status}). {remedy}")
        if 300 <= status < 400:
            raise ModelError(f"{service.address}: redirects elsewhere ({status}). Give the final address: teacher.url.")
        if status == 404:
            raise ModelError(
                f"{service.address}: there is no such page, or no model {service.model!r} ({shown}). Check "
                "teacher.url, which often ends in /v1, and teacher.model."
            )
        if status in WRONG_ROW and self.reached:
            return {"refused": shown}
        if (status in PASSING or status >= 500) and kind != "insufficient_quota":
            raise PassingTrouble(f"answers {shown}", error.headers.get("Retry-After"))
        raise ModelError(
            f"{service.address}: refuses the request ({shown}). Check teacher.model, teacher.api and teacher.likeliest."
        )

    def _words(self, body: bytes) -> tuple[str, str]:
        """Return a server's words on an error, without the key, and its kind of error."""
        text = body.decode("utf-8", "replace")
        kind: object = ""
        try:
            error = json.loads(text)
            error = error.get("error", error)
            text, kind = (error.get("message", text), error.get("code", "")) if isinstance(error, dict) else (error, "")
        except (ValueError, AttributeError, RecursionError):
            pass
        words = " ".join(str(text).split())
        if self.service.key:
            words = words.replace(self.service.key, "…")
        return shortened(words, QUOTED).rstrip("."), str(kind)

    def _entries(self, body: bytes) -> list[Entry]:
        """Return the likeliest words; raises ModelError where the server gives none, PassingTrouble for no answer."""
        try:
            choice = json.loads(body)["choices"][0]
            logprobs = choice.get("logprobs")
            return [] if logprobs == {"content": []} else _listed(logprobs, self.service.api)
        except _NoLogprobs:
            raise ModelError(
                f"{self.service.address}: answers without log-probabilities of words. Choose a server and a model that "
                "give them (logprobs, top_logprobs), or have the words that it answers written into a file: "
                "teacher=answers."
            ) from None
        except (ValueError, KeyError, IndexError, TypeError, AttributeError, RecursionError):
            words, _ = self._words(body)
            raise PassingTrouble(
                f"does not answer as OpenAI's protocol has it, but with {words!r}", proven=False
            ) from None


class _NoLogprobs(Exception):
    pass


def _listed(logprobs: Any, api: Api) -> list[Entry]:
    """Return the words in the place of the first token; raises what indexing into an unknown answer raises."""
    if api is Api.completions:
        if not isinstance(logprobs, Mapping) or logprobs.get("top_logprobs") is None:
            raise _NoLogprobs
        found = logprobs["top_logprobs"]
        pairs = list(found[0].items()) if found else []
    else:
        if not isinstance(logprobs, Mapping) or not isinstance(logprobs.get("content"), list):
            raise _NoLogprobs
        first = logprobs["content"][0]
        pairs = [(entry["token"], entry["logprob"]) for entry in first.get("top_logprobs") or [first]]
    entries = [(str(token), float(logprob)) for token, logprob in pairs]
    if any(math.isnan(logprob) for _, logprob in entries):
        raise ValueError("not a number")
    return [{"token": token, "logprob": logprob} for token, logprob in entries if math.isfinite(logprob)]


def replies(client: Client, prompts: Sequence[str], at_once: int) -> Generator[tuple[str, Reply], None, None]:
    """Yield each prompt with its reply in the order of the replies, some requests at once; raises ModelError.

    Threads that wait for a server do not keep the program from ending.
    """
    waiting, stop = deque(prompts), threading.Event()
    done: SimpleQueue[tuple[str, Reply | Exception]] = SimpleQueue()

    def work() -> None:
        while not stop.is_set():
            try:
                prompt = waiting.popleft()
            except IndexError:
                return
            try:
                done.put((prompt, client.ask(prompt, stop)))
            except Exception as error:  # the first one ends the others, of which nobody takes the answers then
                done.put((prompt, error))
                stop.set()

    for _ in range(min(at_once, len(prompts))):
        threading.Thread(target=work, daemon=True).start()
    try:
        for _ in prompts:
            prompt, reply = done.get()
            if isinstance(reply, Exception):
                raise reply
            yield prompt, reply
    finally:
        stop.set()
