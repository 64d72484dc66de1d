"""Rows for transformers.js, cut as they were cut when the graphs were measured.

transformers.js cuts a row by dropping its last tokens: the last special token with them and, of two texts, most of
the second one. So its answers to long rows are other answers than those that were measured.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from itertools import groupby
from typing import Any

from tokenizers import Encoding, Tokenizer

FILE = "row.mjs"


def row_module(tokenizer: Tokenizer, inputs: Sequence[str], *, windows: bool) -> str:
    """Return the content of `FILE`: a function that makes the graph's inputs, named ``inputs``, of a text or of two.

    ``tokenizer`` is the artifact's own, whose truncation is the one to follow. With ``windows`` only the second text
    is cut, which elsewhere is read in windows.
    """
    rule = tokenizer.truncation
    assert rule is not None  # as of every artifact
    single, double = (template(tokenizer.encode(*texts)) for texts in (("a",), ("a", "a")))
    settings = {
        "TOKENS": rule["max_length"], "FROM_THE_LEFT": rule["direction"] == "left", "ONLY_THE_SECOND": windows,
        "INPUTS": list(inputs), "ONE": single, "TWO": double,
    }  # fmt: skip
    lines = (f"const {name} = {json.dumps(value)};" for name, value in settings.items())
    return CODE.replace("/* settings */", "\n".join(lines))


def template(encoding: Encoding) -> list[dict[str, Any]]:
    """Return the parts of a row in their order: special tokens by their numbers, a text by which of the two it is."""
    tokens = zip(encoding.sequence_ids, encoding.type_ids, encoding.ids, strict=True)
    return [
        {"text": text, "type": kind} if text is not None else {"ids": [number for *_, number in run], "type": kind}
        for (text, kind), run in groupby(tokens, lambda token: token[:2])
    ]


CODE = """\
// Inputs for the graphs in onnx/. Long rows are cut as they were when the graphs were measured; transformers.js would
// drop the last special token of such a row and, of two texts, most of the second.
import { Tensor } from '@huggingface/transformers';

/* settings */

/** Return a graph's inputs for one text, or for two. */
export function row(tokenizer, text, pair = null) {
  const parts = pair === null ? ONE : TWO;
  const given = pair === null ? [text] : [text, pair];
  const texts = given.map((words) => tokenizer.encode(words, { add_special_tokens: false }));
  const special = parts.reduce((sum, part) => sum + (part.ids?.length ?? 0), 0);
  const lengths = kept(texts.map((ids) => ids.length), TOKENS - special);
  const columns = { input_ids: [], attention_mask: [], token_type_ids: [] };
  for (const { ids, text: place, type } of parts) {
    const numbers = ids ?? cut(texts[place], lengths[place]);
    columns.input_ids.push(...numbers);
    columns.attention_mask.push(...numbers.map(() => 1));
    columns.token_type_ids.push(...numbers.map(() => type));
  }
  const tensor = (numbers) => new Tensor('int64', BigInt64Array.from(numbers, BigInt), [1, numbers.length]);
  return Object.fromEntries(INPUTS.map((name) => [name, tensor(columns[name])]));
}

function cut(ids, length) {
  return FROM_THE_LEFT ? ids.slice(ids.length - length) : ids.slice(0, length);
}

/** Return how many tokens of each text have room: the longer of two is cut first, and then both to about a half. */
function kept([first, second], room) {
  if (second === undefined) return [Math.min(first, room)];
  if (first + second <= room) return [first, second];
  if (ONLY_THE_SECOND) return [Math.min(first, room), Math.max(0, room - first)];
  const [short, long] = first > second ? [second, first] : [first, second];
  const half = Math.floor(room / 2);
  const [less, more] = short <= half ? [short, room - short] : [half, room - half];
  return first > second ? [more, less] : [less, more];
}
"""
