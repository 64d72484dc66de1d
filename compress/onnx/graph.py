"""From a PyTorch classifier to an ONNX graph with dynamic batch and length."""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

import compress.models.lstm  # noqa: F401  # defines the operator that is translated below
from compress.errors import MissingPackageError
from compress.families.forms.exiting import ExitingForm, standings
from compress.models.outputs import INPUTS
from compress.onnx.exits import branched, outputs_with_exits
from compress.onnx.storage import save_graph
from compress.tasks.heads import logits_of
from compress.tasks.registry import kind_of_config

OPSET = 20  # 23 would turn attention into one node that TensorRT refuses in fp32
TRANSPOSED = "_transposed"
_ANY_SIZE = 2**62


class _Logits(nn.Module):
    """The model as a function of its inputs in order, with the logits alone: as one output, or each by itself."""

    def __init__(self, model: PreTrainedModel, names: list[str], outputs: int) -> None:
        super().__init__()
        self.model, self.names, self.outputs = model, names, outputs

    def forward(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        logits: Tensor = logits_of(self.model(**dict(zip(self.names, inputs, strict=True))))
        return (logits,) if self.outputs == 1 else logits.unbind(-1)


class _EveryExit(nn.Module):
    """A model with early exits, all layers of which run: the outputs of `compress.onnx.exits.outputs_with_exits`."""

    def __init__(self, model: ExitingForm, names: list[str]) -> None:
        super().__init__()
        self.model, self.names = model, names

    def forward(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        assert self.model.rule is not None
        logits = self.model.of_every_head(**dict(zip(self.names, inputs, strict=True)))
        *early, last = standings(self.model.rule, logits)
        return (*(part for standing in early for part in (standing.left.all(), standing.answer)), last.answer)


def input_names(tokenizer: Any) -> list[str]:
    """Return the inputs that a tokenizer makes for its model, in Hugging Face's names and usual order."""
    return [name for name in INPUTS if name in tokenizer.model_input_names]


def write_onnx(model: PreTrainedModel, names: list[str], path: Path) -> None:
    """Write ``model`` to ``path``: inputs ``names`` (batch, tokens) int64, output logits (batch, outputs).

    A task may have its logits in several outputs: `Task.graph_outputs`.
    It is as `exported` and `compress.onnx.storage.save_graph` say. Raises MissingPackageError.
    """
    save_graph(exported(model, names), path)


def exported(model: PreTrainedModel, names: list[str]) -> Any:
    """Return ``model`` as a graph (``onnx.ModelProto``) of inputs ``names``, with shapes wherever they are known.

    Attention is written as plain matrix products ("eager"), the form that ONNX Runtime's and TensorRT's
    own fusions know. A model with early exits has branches. The model's settings are left as they were. Raises
    MissingPackageError.
    """
    graph = unbranched(model, names)
    return branched(graph) if isinstance(model, ExitingForm) and model.rule is not None else graph


def unbranched(model: PreTrainedModel, names: list[str]) -> Any:
    """Return `exported` without branches: of a model with early exits all of it, for `compress.onnx.exits.branched`."""
    try:
        import onnx  # noqa: F401
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise MissingPackageError(error.name or "onnx", "onnx", "Writing ONNX") from error
    before = model.config._attn_implementation
    function: nn.Module
    if isinstance(model, ExitingForm) and model.rule is not None:
        outputs = outputs_with_exits(len(model.exits))
        function = _EveryExit(model, names)
    else:
        outputs = list(kind_of_config(model.config).graph_outputs)
        function = _Logits(model, names, len(outputs))
    example = tuple(torch.ones(2, 7, dtype=torch.long) for _ in names)
    batch, tokens = torch.export.Dim("batch", min=1), torch.export.Dim("tokens", min=2)
    model.eval()
    model.set_attn_implementation("eager")
    try:
        with _silence(), torch.no_grad():
            program = torch.onnx.export(
                function,
                example,
                dynamo=True,
                opset_version=OPSET,
                input_names=names,
                output_names=outputs,
                dynamic_shapes=(tuple({0: batch, 1: tokens} for _ in names),),
                custom_translation_table={torch.ops.compress.lstm.default: _lstm_node},
                optimize=False,
                verbose=False,
            )
            assert program is not None
            _name_transposed(program.model)
            program.optimize()
            _tidy(program.model)
            return program.model_proto
    finally:
        model.set_attn_implementation(before)


def _lstm_node(states: Any, weight: Any, recurrence: Any, bias: Any) -> Any:
    """Write `compress.models.lstm.Lstm` as ONNX's own operator."""
    from onnxscript import opset20 as op

    hidden, _, _ = op.LSTM(states, weight, recurrence, bias, hidden_size=recurrence.shape[2])
    directions: Any = op.Constant(value_ints=[1])
    return op.Squeeze(hidden, directions)


def _name_transposed(model: Any) -> None:
    """Let a weight that will be stored transposed keep its name in the model, with `TRANSPOSED` behind it."""
    named: set[str] = set()
    for node in model.graph:
        weight = f"{node.inputs[0].name}{TRANSPOSED}" if node.op_type == "Transpose" else ""
        if weight and node.inputs[0].name in model.graph.initializers and weight not in named:
            node.outputs[0].name = weight
            named.add(weight)


def _tidy(model: Any) -> None:
    """Store what layers share once, as the constant that quantizers look for, and nothing about the export."""
    import onnxscript.optimizer
    from onnx_ir.passes.common import DeduplicateInitializersPass

    # the exporter leaves a large weight that is used more than once behind a Transpose in front of every use,
    # where dynamic quantization does not find it; folded, each use has a copy of its own, and one of them is kept
    onnxscript.optimizer.fold_constants(model, input_size_limit=_ANY_SIZE, output_size_limit=_ANY_SIZE)
    onnxscript.optimizer.remove_unused_nodes(model)
    DeduplicateInitializersPass(size_limit=_ANY_SIZE)(model)
    for node in model.graph.all_nodes():
        node.metadata_props.clear()  # each node's Python stack, which together can outweigh a small model


@contextlib.contextmanager
def _silence() -> Iterator[None]:
    """Keep the exporter's reports off the terminal."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "onnxscript", "onnx_ir")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
