"""Which of ONNX Runtime's fused nodes make a classifier faster on the CPU?

    python benchmarks/graph_fusion.py --model minilm-sst2

In fp32 and in dynamic int8, one thread, all graphs alternately, the fastest of many calls a shape:

- ``written``: as `compress` writes it, without shapes between its nodes; twice, so that the table shows the noise;
- ``with shapes``: as it is exported, with them. ONNX Runtime's optimizer then fuses additions and normalizations into
  SkipLayerNormalization, and else nothing more;
- ``attention fused``: each Softmax(Q · Kᵀ · scale + mask) · V is a `com.microsoft.MultiHeadAttention`, whatever the
  number of heads in that layer; the optimizer itself finds none in today's graphs.

Prints a Markdown table of the time of ``written`` over each graph's (more is faster), and the largest difference of a
logit.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper
from onnxruntime.quantization import QuantType, quantize_dynamic
from transformers import BertConfig, BertForSequenceClassification

from compress.families.forms.uneven import kept_heads, shrink
from compress.families.registry import layer_count
from compress.machine import describe, versions
from compress.models.loading import load_model, quiet
from compress.onnx.graph import exported
from compress.onnx.storage import save_graph
from compress.runtimes.onnxruntime import inference_session
from compress.runtimes.timing import quiet_rows, time_in_turns

DOMAIN = "com.microsoft"
NODE = "MultiHeadAttention"
INPUTS = ["input_ids", "attention_mask", "token_type_ids"]
SHAPES = [(1, 8), (1, 16), (1, 32), (1, 64), (1, 128), (1, 384), (8, 32), (32, 128)]
_HEADS_FIRST, _TRANSPOSED = [0, 2, 1, 3], [0, 2, 3, 1]


def main() -> None:
    """Measure, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--model", required=True, help="a folder of a BERT classifier; it and a third less of its heads"
    )
    parser.add_argument("--calls", type=int, default=20, help="of each graph at each shape")
    given = parser.parse_args()
    model = load_model(given.model)
    heads = [list(range(len(kept) - (index + 2) % 5)) for index, kept in enumerate(kept_heads(model.config))]
    with quiet():
        base = BertForSequenceClassification(BertConfig(vocab_size=model.config.vocab_size)).eval()
    students = {
        Path(given.model).name: model,
        f"the same, {sum(map(len, heads))} heads, uneven": shrink(model, heads=heads),
        "BERT-base's shape, random weights": base,
    }
    print(f"| model | graph | {' | '.join(f'{rows} × {tokens}' for rows, tokens in SHAPES)} | largest difference |")
    print("|" + "---|" * (len(SHAPES) + 3))
    for name, student in students.items():
        for line in compared(student, given.calls):
            print(f"| {name} | {line} |")
    print(describe(1), versions())


def compared(student: Any, calls: int) -> Iterator[str]:
    """Yield table lines: each graph's speed over the written one's of its precision."""
    with tempfile.TemporaryDirectory() as folder:
        path, small = Path(folder) / "model.onnx", Path(folder) / "int8.onnx"
        onnx.save(exported(student, INPUTS), path)
        quantize_dynamic(path, small, per_channel=True, weight_type=QuantType.QInt8)
        generator = np.random.default_rng(0)
        feeds = [feed(generator, *shape, student.config.vocab_size) for shape in SHAPES]
        for precision, file in (("fp32", path), ("int8", small)):
            shaped = onnx.load(file)
            save_graph(onnx.load(file), file)
            fused = onnx.load(file)
            count = fuse_attention(fused)
            assert count == layer_count(student.config)
            runners = {
                "written": inference_session(file, 1),
                "written, again": inference_session(file, 1),
                "with shapes": inference_session(shaped, 1),
                "attention fused": inference_session(fused, 1),
            }
            logits = {name: [session.run(None, given)[0] for given in feeds] for name, session in runners.items()}
            functions = {name: (lambda given, s=session: s.run(None, dict(given))) for name, session in runners.items()}
            spent = time_in_turns(functions, dict.fromkeys(runners, feeds), calls * len(feeds), 600.0, None)
            times = quiet_rows(spent, len(feeds))
            for name in list(runners)[1:]:
                ratios = times["written"] / times[name]
                off = max(float(np.abs(a - b).max()) for a, b in zip(logits[name], logits["written"], strict=True))
                yield f"{precision} {name} | {' | '.join(f'{ratio:.2f}' for ratio in ratios)} | {off:.1g}"


def feed(generator: np.random.Generator, rows: int, tokens: int, words: int) -> dict[str, Any]:
    """Return random rows, of different lengths where there are several."""
    mask = np.ones((rows, tokens), np.int64)
    for row in range(rows):
        mask[row, tokens - (row % tokens) // 2 :] = 0
    numbers = generator.integers(0, words, (rows, tokens)) * mask
    return {"input_ids": numbers, "attention_mask": mask, "token_type_ids": np.zeros_like(numbers)}


@dataclass(frozen=True)
class _Attention:
    """One attention in a graph: its inputs (batch, tokens, width), mask and the node whose output it gives."""

    query: str
    key: str
    value: str
    mask: str
    scale: float
    heads: int
    last: Any


def fuse_attention(model: Any) -> int:
    """Fuse every attention of an ``onnx.ModelProto`` in place; return how many there were.

    What has another form, as the quantized products of static int8, stays as it is.
    """
    graph = _Graph(model.graph)
    found = list(graph.attentions())
    for item in found:
        node = helper.make_node(
            NODE, [item.query, item.key, item.value, "", "", item.mask], list(item.last.output),
            name=f"{item.last.output[0]}_attention", domain=DOMAIN, num_heads=item.heads, scale=item.scale,
        )  # fmt: skip
        place = next(index for index, other in enumerate(model.graph.node) if other is item.last)
        model.graph.node.remove(item.last)
        model.graph.node.insert(place, node)
    if found:
        _remove_unused(model.graph)
        if DOMAIN not in {item.domain for item in model.opset_import}:
            model.opset_import.append(helper.make_opsetid(DOMAIN, 1))
    return len(found)


class _Graph:
    def __init__(self, graph: Any) -> None:
        self.nodes = list(graph.node)
        self.makers = {name: node for node in self.nodes for name in node.output}
        self.users: dict[str, list[Any]] = {}
        for node in self.nodes:
            for name in node.input:
                self.users.setdefault(name, []).append(node)
        self.stored = {value.name: value for value in graph.initializer}
        self.outputs = {value.name for value in graph.output}

    def attentions(self) -> Iterator[_Attention]:
        for node in self.nodes:
            if node.op_type == "Softmax" and (found := self._attention(node)) is not None:
                yield found

    def _attention(self, softmax: Any) -> _Attention | None:
        masked = self._maker(softmax.input[0], "Add")
        scaled = masked and self._maker(masked.input[0], "Mul")
        scores = scaled and self._maker(scaled.input[0], "MatMul")
        scale = scaled and self._number(scaled.input[1])
        weighted = self._user(softmax.output[0], "MatMul")
        swapped = weighted and self._user(weighted.output[0], "Transpose")
        last = swapped and self._user(swapped.output[0], "Reshape")
        if not scores or scale is None or not last or not _permutes(swapped, _HEADS_FIRST):
            return None
        query = self._by_heads(scores.input[0], _HEADS_FIRST)
        key = self._by_heads(scores.input[1], _TRANSPOSED)
        value = self._by_heads(weighted.input[1], _HEADS_FIRST)
        if query is None or key is None or value is None or not query[1] == key[1] == value[1]:
            return None
        return _Attention(query[0], key[0], value[0], masked.input[1], scale, query[1], last)

    def _by_heads(self, name: str, order: list[int]) -> tuple[str, int] | None:
        """Return the tensor (batch, tokens, width) of which this one has the heads apart, and their number."""
        swapped = self._maker(name, "Transpose")
        parted = swapped and self._maker(swapped.input[0], "Reshape")
        if not parted or not _permutes(swapped, order):
            return None
        width, size = self._width(parted.input[0]), self._last_size(parted.input[1])
        if not width or not size or width % size:
            return None
        return parted.input[0], width // size

    def _width(self, name: str) -> int | None:
        """Return the last dimension of a linear layer's output, which its bias has too."""
        added = self._maker(name, "Add")
        sizes = [list(self.stored[stored].dims) for stored in added.input if stored in self.stored] if added else []
        return int(sizes[0][0]) if sizes and len(sizes[0]) == 1 else None

    def _last_size(self, name: str) -> int | None:
        """Return the last element of a shape."""
        joined = self._maker(name, "Concat")
        numbers = self._numbers(joined.input[-1] if joined else name)
        return int(numbers[-1]) if numbers else None

    def _number(self, name: str) -> float | None:
        numbers = self._numbers(name)
        return float(numbers[0]) if numbers and len(numbers) == 1 else None

    def _numbers(self, name: str) -> list[float] | None:
        """Return the elements of a stored tensor."""
        if name in self.stored:
            return [float(number) for number in numpy_helper.to_array(self.stored[name]).ravel()]
        constant = self._maker(name, "Constant")
        values = (
            [numpy_helper.to_array(attribute.t) for attribute in constant.attribute if attribute.name == "value"]
            if constant
            else []
        )
        return [float(number) for number in values[0].ravel()] if values else None

    def _maker(self, name: str, kind: str) -> Any:
        """Return the node that makes a tensor if it is of this kind and nothing else uses what it makes, or None."""
        node = self.makers.get(name)
        return node if node is not None and node.op_type == kind else None

    def _user(self, name: str, kind: str) -> Any:
        users = self.users.get(name, [])
        return users[0] if len(users) == 1 and users[0].op_type == kind and name not in self.outputs else None


def _permutes(node: Any, order: list[int]) -> bool:
    return any(item.name == "perm" and list(item.ints) == order for item in node.attribute)


def _remove_unused(graph: Any) -> None:
    """Remove nodes, and then stored tensors, that no output needs."""
    needed = {item.name for item in graph.output}
    for node in reversed(list(graph.node)):  # in the order of the work, so users come before
        if needed.isdisjoint(node.output):
            graph.node.remove(node)
        else:
            needed.update(node.input)
    for item in [item for item in graph.initializer if item.name not in needed]:
        graph.initializer.remove(item)


if __name__ == "__main__":
    main()
