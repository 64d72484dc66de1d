"""Answers to questions: spans of a context that may be longer than the model reads at once."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from tokenizers import Encoding, Tokenizer

MOST_ANSWER, BESTS = 30, 20  # tokens of an answer to a question; answers among which its score is shared out


@dataclass(frozen=True)
class Window:
    """A window of a question and its context as tokens; ``offsets`` are characters of the context, -1 elsewhere."""

    ids: list[int]
    attention_mask: list[int]
    type_ids: list[int]
    offsets: Any  # (tokens, 2)


Logits = Callable[[Sequence[Window]], Sequence[Any]]
"""Return logits (windows, tokens) of each token as the first of the answer, and as its last."""


class Reader:
    """Answers questions as `compress predict` does: windows that overlap, the best span of them all, or none."""

    def __init__(self, tokenizer: Tokenizer, logits: Logits, config: dict[str, Any], most: int) -> None:
        self.tokenizer, self.logits, self.most, self.overlap = tokenizer, logits, most, config.get("window_overlap")
        self.unanswerable, self.threshold = bool(config.get("unanswerable")), float(config.get("null_threshold") or 0)

    def __call__(self, question: str, context: str) -> dict[str, Any]:
        """Return the answer, its characters in the context and its score; or the error."""
        try:
            windows = self.windows(self.tokenizer.encode(" ".join(question.split()), context), context)
            starts, ends = self.logits(windows)
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
