"""The folders of a Triton model repository: graphs, and what turns texts into their inputs and logits into labels.

In the server, a graph ``dynamic`` answers token numbers with logits. Where the server tokenizes, the ensemble
``dynamic_text`` answers TEXT (and TEXT_PAIR) with LABEL, PROBABILITIES and logits, or with SCORE, through the models
``text_to_tokens`` and ``logits_to_labels``, which run in Triton's Python backend. Where a text may have several labels,
LABELS, a JSON list, is in place of LABEL.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from compress.export.triton_config import EnumName, Graph, Tensor, parameters, pbtxt, step
from compress.export.triton_readme import readme
from compress.files import write_json, write_text
from compress.onnx.folder import MODEL, copy_beside
from compress.onnx.storage import copy_graph

CODE = Path(__file__).parent / "triton_files"
TOKENS, LABELS, TEXT = "text_to_tokens", "logits_to_labels", "_text"
BASIC = -1  # Triton's word for the first level of ONNX Runtime's optimizations, which leaves Q/DQ pairs alone
NUMPY = {"TYPE_INT64": "int64", "TYPE_INT32": "int32"}


@dataclass(frozen=True)
class Serving:
    """How the server runs; see the settings of `compress.export.triton.Triton`."""

    texts: bool  # the server tokenizes
    max_batch_size: int
    preferred_batch_sizes: tuple[int, ...]
    max_queue_delay_microseconds: int
    pad_to_multiple_of: int
    instances: int
    gpu: bool
    threads: int
    image: str


@dataclass(frozen=True)
class Limits:
    """How texts become token numbers."""

    longest: int  # tokens
    pad: int
    truncation_side: str
    paired: bool  # the task is about two texts
    reading: Mapping[str, Any] = field(default_factory=dict)  # what else a client must know: `OF_SPANS`


@dataclass(frozen=True)
class Served:
    """An ONNX graph, or an engine with its profile."""

    name: str
    model: Path
    graph: Graph
    profile: tuple[int, int, int] | None = None  # of an engine: largest batch, shortest and longest length
    built_by: str = ""


@dataclass(frozen=True)
class Repository:
    """A repository in the making."""

    folder: Path
    serving: Serving
    limits: Limits
    labels: tuple[str, ...]  # none: the logit is a score
    cut_at: tuple[float, ...]  # the probability from which each label is given; none: the likeliest is
    tokenizer: Path

    def write(self, served: Sequence[Served]) -> None:
        """Write a model for each of ``served``, what stands around them, README.md and client.py."""
        for model in served:
            self._graph(model)
            if self.serving.texts:
                self._ensemble(model)
        graph = next((model for model in served if model.profile is None), None)
        if graph is not None:  # so that the folder can be tried and timed here as any other
            copy_beside(graph.model.parent, self.folder, f"{graph.name}/1/{MODEL}")
        else:
            shutil.copyfile(self.tokenizer, self.folder / "tokenizer.json")
        client = "client_of_texts.py" if self.serving.texts else "client_of_tokens.py"
        shutil.copyfile(CODE / client, self.folder / "client.py")
        if not self.serving.texts:
            write_json(self.folder / "client.json", {"models": {model.name: self._told(model) for model in served}})
        write_text(self.folder / "README.md", readme(self, served))

    def largest_batch(self, model: Served) -> int:
        """Return the rows that a model takes at once."""
        return min(self.serving.max_batch_size, model.profile[0] if model.profile else self.serving.max_batch_size)

    def _graph(self, model: Served) -> None:
        most = self.largest_batch(model)
        sizes = [size for size in self.serving.preferred_batch_sizes if size <= most]
        fields: dict[str, Any] = {
            "platform": "tensorrt_plan" if model.profile else "onnxruntime_onnx",
            "backend": "tensorrt" if model.profile else "onnxruntime",
            "input": [tensor.fields() for tensor in model.graph.inputs],
            "output": [tensor.fields() for tensor in model.graph.outputs],
            "dynamic_batching": {
                **({"preferred_batch_size": sizes} if sizes else {}),
                "max_queue_delay_microseconds": self.serving.max_queue_delay_microseconds,
            },
            **self._instances(gpu=self.serving.gpu or model.profile is not None),
        }
        if model.profile is None:
            fields["parameters"] = parameters({"intra_op_thread_count": self.serving.threads})
            if model.graph.in_floats:
                fields["optimization"] = {"graph": {"level": BASIC}}
        folder = self._model(model.name, most, fields)
        if model.profile:
            shutil.copyfile(model.model, folder / "model.plan")
        else:
            copy_graph(model.model, folder / MODEL)

    def _ensemble(self, model: Served) -> None:
        most, (logits,) = self.largest_batch(model), model.graph.outputs
        texts, tokens = self._texts(), [tensor.name for tensor in model.graph.inputs]
        steps = [step(self._reader(model), _same(tensor.name for tensor in texts), _same(tokens))]
        if self.labels:
            outputs = [*self._answers(logits), logits]
            steps.append(step(model.name, _same(tokens), _same([logits.name])))
            answers = [tensor.name for tensor in self._answers(logits)]
            steps.append(step(self._labeller(logits), _same([logits.name]), _same(answers)))
        else:
            outputs = [Tensor("SCORE", logits.kind, logits.dims)]
            steps.append(step(model.name, _same(tokens), [(logits.name, "SCORE")]))
        fields = {
            "platform": "ensemble",
            "input": [tensor.fields() for tensor in texts],
            "output": [tensor.fields() for tensor in outputs],
            "ensemble_scheduling": {"step": steps},
        }
        folder = self._model(model.name + TEXT, most, fields)
        (folder / ".keep").touch()  # a version's folder is needed, and archives forget empty ones

    def _reader(self, model: Served) -> str:
        """Return the name of the model that tokenizes for a graph, written where it is the first of its lengths."""
        shortest, longest = self._lengths(model)
        name = TOKENS if model.profile is None else f"{TOKENS}_{shortest}_{longest}"
        if not (self.folder / name).exists():
            values = {
                "max_tokens": longest, "min_tokens": shortest, "pad_to_multiple_of": self.serving.pad_to_multiple_of,
                "pad_token_id": self.limits.pad, "truncation_side": self.limits.truncation_side,
            }  # fmt: skip
            folder = self._python(name, "tokens_model.py", self._texts(), model.graph.inputs, values)
            shutil.copyfile(self.tokenizer, folder / "tokenizer.json")
        return name

    def _labeller(self, logits: Tensor) -> str:
        if not (self.folder / LABELS).exists():
            values = {"labels": json.dumps(self.labels)}
            code = "labels_model.py"
            if self.cut_at:
                code, values = "several_labels_model.py", values | {"thresholds": json.dumps(self.cut_at)}
            self._python(LABELS, code, [logits], self._answers(logits), values)
        return LABELS

    def _python(
        self, name: str, code: str, inputs: Sequence[Tensor], outputs: Sequence[Tensor], values: Mapping[str, Any]
    ) -> Path:
        fields = {
            "backend": "python",
            "input": [tensor.fields() for tensor in inputs],
            "output": [tensor.fields() for tensor in outputs],
            **self._instances(gpu=False),
            "parameters": parameters(values),
        }
        folder = self._model(name, self.serving.max_batch_size, fields)
        shutil.copyfile(CODE / code, folder / "model.py")
        return folder

    def _model(self, name: str, most: int, fields: Mapping[str, Any]) -> Path:
        """Write a model's config.pbtxt and return the folder of its only version."""
        folder = self.folder / name / "1"
        folder.mkdir(parents=True, exist_ok=True)
        write_text(folder.parent / "config.pbtxt", pbtxt({"name": name, "max_batch_size": most, **fields}))
        return folder

    def _instances(self, *, gpu: bool) -> dict[str, Any]:
        kind = EnumName("KIND_GPU" if gpu else "KIND_CPU")
        return {"instance_group": [{"count": self.serving.instances, "kind": kind}]}

    def _texts(self) -> list[Tensor]:
        names = ("TEXT", "TEXT_PAIR") if self.limits.paired else ("TEXT",)
        return [Tensor(name, "TYPE_STRING", (1,)) for name in names]

    def _answers(self, logits: Tensor) -> list[Tensor]:
        label = "LABELS" if self.cut_at else "LABEL"
        return [Tensor("PROBABILITIES", "TYPE_FP32", logits.dims), Tensor(label, "TYPE_STRING", (1,))]

    def _lengths(self, model: Served) -> tuple[int, int]:
        """Return the fewest and the most tokens that a model is given."""
        return (
            (model.profile[1], min(model.profile[2], self.limits.longest))
            if model.profile
            else (1, self.limits.longest)
        )

    def _told(self, model: Served) -> dict[str, Any]:
        """Return what a client that tokenizes must know of a graph."""
        shortest, longest = self._lengths(model)
        return {
            "inputs": {tensor.name: str(np.dtype(NUMPY[tensor.kind])) for tensor in model.graph.inputs},
            "outputs": [tensor.name for tensor in model.graph.outputs],
            "labels": list(self.labels), "thresholds": list(self.cut_at),
            "pad_token_id": self.limits.pad, **self.limits.reading,
            "max_tokens": longest, "min_tokens": shortest, "truncation_side": self.limits.truncation_side,
        }  # fmt: skip


def _same(names: Any) -> list[tuple[str, str]]:
    """Return names that a model and its ensemble share."""
    return [(name, name) for name in names]
