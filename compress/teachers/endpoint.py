"""A teacher that is a language model behind a server: what it answers is kept, and learned as a file's answers are."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, fields, replace
from itertools import chain
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from compress.data.dataset import Dataset, Split
from compress.errors import Fault, ModelError
from compress.files import hash_text, write_text
from compress.known import NOTHING, Known
from compress.pipeline.state import State
from compress.pipeline.workshop import Kind
from compress.progress import progress
from compress.settings import at_least, between, positive
from compress.teachers.answer_table import Match, meaning_of
from compress.teachers.answer_values import AnswerForm, Meaning, Unreadable
from compress.teachers.answers import AnswerFile, Answering
from compress.teachers.base import Inspection
from compress.teachers.endpoint_client import Api, Client, Reply, Service, replies
from compress.wording import counted, shortened

PROMPT = "{text}\n\nWhich of these fits the text above: {words}? Answer with one of these words alone."
PAIR_PROMPT = (
    "First: {text}\nSecond: {text_b}\n\nWhich of these fits the two texts above: {words}? Answer with one of these "
    "words alone."
)
TRIED = 20  # first rows of which at least one must be answered with a label's word
REPLIES = Kind("replies", revision=1)
ANSWERS = Kind("answers", revision=1)


@dataclass(kw_only=True)
class Endpoint(Answering):
    """Ask a language model for the label of each row, through a server that speaks OpenAI's protocol.

    It is asked for the probabilities of the next word, of which those that stand for classes count. Each reply is kept
    in the cache when it comes: what was asked once is not asked again. See docs/teachers.md.
    """

    url: str = ""  # of the API, as http://localhost:8000/v1
    model: str = ""  # as the server names it
    api: Api = Api.chat  # chat, or completions for a model without a chat template
    prompt: str | None = (
        None  # with {text}, {text_b} of pairs, and {words}, the words of the classes; default: built in
    )
    system: str = ""  # a message before each prompt
    key: str = "OPENAI_API_KEY"  # the environment variable that holds the key, where the server wants one
    likeliest: int = 20  # next words whose probability is asked for, at most; some servers give 5
    at_once: int = 4  # requests that wait for an answer at the same time
    per_minute: int | None = None  # requests per minute, at most; default: no limit
    retries: int = 6  # how often a request is repeated that fails, after 1, 2, 4, … seconds or what the server says
    timeout_seconds: float = 60.0  # seconds in which the server must answer

    def faults(self, known: Known = NOTHING) -> Iterator[Fault]:
        """There is a server to ask, and its key is not among the settings."""
        yield from super().faults(known)
        yield from self._address_faults()
        if not self.model:
            yield Fault("model", None, "must name the model, as the server does", "Most list theirs at …/v1/models.")
        if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", self.key):
            remedy = "Set that variable to the key, so that the key itself is written nowhere."
            yield Fault("key", None, "must be the name of an environment variable, not a key", remedy)
        elif (secret := os.environ.get(self.key)) and not (secret.isascii() and secret.isprintable()):
            yield Fault("key", self.key, "is an environment variable whose value cannot be a key", "Set it again.")
        for name in ("likeliest", "at_once", "per_minute"):
            yield from at_least(self, name, 1)
        yield from between(self, "retries", 0, 20)
        yield from positive(self, "timeout_seconds")
        if self.prompt is not None and "{text}" not in self.prompt:
            yield Fault("prompt", shortened(self.prompt), "must hold {text}, in whose place each row's text is put")
        if known.data is not None and known.data.pairs and "{text_b}" not in self._template(known.data):
            yield Fault("prompt", shortened(self.prompt or ""), "must hold {text_b} too: rows are pairs of texts")

    def _address_faults(self) -> Iterator[Fault]:
        if not self.url:
            yield Fault("url", None, "must be the address of an API", "For example http://localhost:8000/v1.")
            return
        try:
            parts = urlsplit(self.url)
            good = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
        except ValueError:
            good = False
        if not good or not self.url.isascii() or not self.url.isprintable() or " " in self.url:
            yield Fault("url", shortened(self.url), "must be an address", "For example http://localhost:8000/v1.")
        elif parts.username is not None or parts.query or parts.fragment:
            rule = "must be an address without a user's name, a query or a fragment"
            yield Fault("url", None, rule, f"A key is read from the environment variable {self.key}.")

    def inspect(self, data: Dataset) -> Inspection:
        """Return what will be asked; nothing is sent yet."""
        task = data.task
        if task.by_token or task.apart or data.train.grouped or not task.distributes:
            raise ModelError(
                f"{self.model} at {self.url} is asked for words that stand for classes, one for each row, and the task "
                f"{task.name} has none of these. Name a teacher that is a model."
            )
        shown = ", ".join(map(shortened, self._meaning(data).shown[:10]))
        asked = counted(len(dict.fromkeys(self._prompts(data).values())), "prompt")
        return Inspection(data=data, lines=(f"{self.model} at {self.url} only answers: {asked}, by the words {shown}",))

    def __call__(self, state: State) -> State:
        """Return the state with the answers, as of a file of them."""
        prompts, known, notes = self._asked(state)
        lines = [json.dumps({"id": row, **_fields(known[prompt])}) for row, prompt in prompts.items()]

        def write(folder: Path) -> None:
            write_text(folder / "answers.jsonl", "".join(line + "\n" for line in lines))

        product = state.workshop.make(ANSWERS, hash_text("\n".join(lines)), write)
        file = self._as_file(product.folder / "answers.jsonl")
        return file(replace(state, notes=(*state.notes, *notes)))

    def fields(self, state: State) -> Mapping[str, Mapping[str, Any]]:
        """Return the likeliest words of each row by its id."""
        prompts, known, _ = self._asked(state)
        return {row: _fields(known[prompt]) for row, prompt in prompts.items()}

    def _as_file(self, path: Path | str) -> AnswerFile:
        """Return the settings that read the answers from a file."""
        own = {field.name: getattr(self, field.name) for field in fields(Answering)}
        return AnswerFile(file=str(path), match=Match.id, column="top_logprobs", form=AnswerForm.logprobs, **own)

    def _meaning(self, data: Dataset) -> Meaning:
        return meaning_of(self._as_file("").reading(data), data.task)[0]

    def _template(self, data: Dataset) -> str:
        return self.prompt if self.prompt is not None else PAIR_PROMPT if data.pairs else PROMPT

    def _prompts(self, data: Dataset) -> dict[str, str]:
        """Return the prompt of each row by its id."""
        template, words = self._template(data), ", ".join(self._meaning(data).shown)
        parts = (data.train, data.validation, data.test, data.unlabelled)
        return {row: prompt for rows in parts if rows is not None for row, prompt in _filled(template, words, rows)}

    @property
    def _service(self) -> Service:
        return Service(
            url=self.url, model=self.model, api=self.api, system=self.system, likeliest=self.likeliest,
            per_minute=self.per_minute, retries=self.retries, timeout_seconds=self.timeout_seconds,
            key_variable=self.key, key=os.environ.get(self.key) or None,
        )  # fmt: skip

    def _asked(self, state: State) -> tuple[dict[str, str], dict[str, Reply], list[str]]:
        """Return the prompt of each row, the reply to each prompt, and notes; asks what was never asked."""
        prompts, meaning, service = self._prompts(state.data), self._meaning(state.data), self._service
        every = list(dict.fromkeys(prompts.values()))
        own = [service.address, service.model, service.system, service.likeliest]
        with state.workshop.collecting(REPLIES, own) as folder:
            log = _Log(folder / "replies.jsonl")
            new = [prompt for prompt in every if prompt not in log]
            tried = [log[prompt] for prompt in every if prompt in log]
            hopeful = any(self._is_answer(reply, meaning) for reply in tried)
            title = f"asking {self.model}"
            with closing(replies(Client(service), new, self.at_once)) as found:
                for prompt, reply in chain([(None, None)], progress(found, title=title, unit="prompt", total=len(new))):
                    if prompt is not None:
                        log.add(prompt, reply)
                        tried.append(reply)
                        hopeful = hopeful or self._is_answer(reply, meaning)
                    if not hopeful and len(tried) >= min(TRIED, len(every)):
                        raise ModelError(self._nothing(tried, meaning))
        known = {prompt: log[prompt] for prompt in every}
        return prompts, known, [*self._notes(known, new, meaning)]

    def _is_answer(self, reply: Reply, meaning: Meaning) -> bool:
        """Return whether a reply has a word of a class; raises ModelError for what are not log-probabilities."""
        try:
            return bool(meaning.vectors(reply.get("top_logprobs"), AnswerForm.logprobs))
        except Unreadable as error:
            raise ModelError(f"{self.model} at {self.url}: {error}") from None

    def _nothing(self, silent: Sequence[Reply], meaning: Meaning) -> str:
        """Return the sentence on replies none of which has a class's word."""
        rows = f"the first {counted(len(silent), 'prompt')}" if len(silent) > 1 else "the only prompt"
        return (
            f"{self.model} at {self.url}: no word of a class ({', '.join(map(shortened, meaning.shown[:10]))}) is "
            f"among its likeliest next words to {rows}; {_instead(silent)}. Name the words that it answers with "
            "(teacher.words), or change the question: teacher.prompt, teacher.system, teacher.likeliest."
        )

    def _notes(self, known: Mapping[str, Reply], new: Sequence[str], meaning: Meaning) -> Iterator[str]:
        before = f", {len(known) - len(new):,} of them before" if len(new) < len(known) else ""
        yield f"{self.model} at {self.url} was asked {counted(len(known), 'prompt')}{before}"
        silent = [reply for reply in known.values() if not self._is_answer(reply, meaning)]
        if silent:
            yield f"its likeliest words have none of a class {counted(len(silent), 'time')}: {_instead(silent)}"


class _Log:
    """Replies in a file, a line for each; a line is written when its reply comes."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.known: dict[str, Reply] = {}
        lines = path.read_bytes().splitlines(keepends=True) if path.exists() else []
        if lines and not lines[-1].endswith(b"\n"):  # a process that was killed
            path.write_bytes(b"".join(lines[:-1]))
        for line in lines:
            try:
                entry = json.loads(line)
                self.known[entry.pop("prompt")] = entry
            except (ValueError, KeyError, AttributeError):
                continue  # it is asked again

    def __contains__(self, prompt: str) -> bool:
        return hash_text(prompt) in self.known

    def __getitem__(self, prompt: str) -> Reply:
        return self.known[hash_text(prompt)]

    def add(self, prompt: str, reply: Reply) -> None:
        """Keep a reply."""
        name = hash_text(prompt)
        with self.path.open("a") as file:
            file.write(json.dumps({"prompt": name, **reply}) + "\n")
        self.known[name] = reply


def _filled(template: str, words: str, rows: Split) -> Iterator[tuple[str, str]]:
    """Yield the id and the prompt of each row."""
    pairs: Sequence[str] = rows.pairs or [""] * len(rows)
    for row, text, pair in zip(rows.ids or (), rows.texts, pairs, strict=True):
        values = {"text": text, "text_b": pair, "words": words}
        yield row, re.sub(r"\{(text|text_b|words)\}", lambda found, own=values: own[found[1]], template)  # type: ignore[misc]


def _fields(reply: Reply) -> dict[str, Any]:
    return {"top_logprobs": reply.get("top_logprobs", [])}


def _instead(silent: Sequence[Reply]) -> str:
    """Return what was answered in the place of a class's word, as a clause."""
    reply = silent[0]
    if "refused" in reply:
        return f"the first was refused ({reply['refused']})"
    ordered = sorted(reply["top_logprobs"], key=lambda entry: -float(entry["logprob"]))
    words = ", ".join(repr(shortened(entry["token"])) for entry in ordered[:5])
    return f"the first time they were {words}" if words else "the first time there were none"
