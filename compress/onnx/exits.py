"""Early exits in a graph: what comes after an exit is in a branch that runs only where some row has not left yet."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from compress.onnx.package import import_onnx

LOGITS, LAST = "logits", "last_logits"


def outputs_with_exits(exits: int) -> list[str]:
    """Return the outputs of a graph without branches: of each exit `left` and `answer`, then the logits after all."""
    return [name for number in range(1, exits + 1) for name in (left(number), answer(number))] + [LAST]


def left(number: int) -> str:
    """Return the output that says whether all rows have left by an exit, counted from 1."""
    return f"exit_{number}_left"


def answer(number: int) -> str:
    """Return the output with the logits of all rows at an exit: where they left before, those from there."""
    return f"exit_{number}_logits"


def branched(model: Any) -> Any:
    """Return a graph (``onnx.ModelProto``) that stops at the first exit by which all rows have left.

    ``model`` computes all of its layers and has the outputs of `outputs_with_exits`. Its nodes are kept, each where it
    is first needed: those of the first exit in the graph itself, those behind an exit in a branch of its ``If``, one
    within another. Weights stay where they are, and branches read them. The output is ``logits``, (batch, outputs).
    """
    onnx = import_onnx("Writing ONNX")
    helper, shape = onnx.helper, next(output for output in model.graph.output if output.name == LAST)
    exits = len(model.graph.output) // 2
    parts = _parts(model.graph, [*((left(number), answer(number)) for number in range(1, exits + 1)), (LAST,)])
    weights = _weights(model.graph, parts)

    def declared(name: str) -> Any:
        value = type(shape)()
        value.CopyFrom(shape)
        value.name = name
        return value

    result, nodes = LAST, parts[-1]
    for number in range(exits, 0, -1):
        name = f"exit_{number}"
        taken = helper.make_node("Identity", [answer(number)], [f"{name}_taken"], name=f"{name}_identity")
        choice = helper.make_node(
            "If", [left(number)], [LOGITS if number == 1 else f"{name}_result"], name=name,
            then_branch=helper.make_graph([taken], f"{name}_then", [], [declared(f"{name}_taken")]),
            else_branch=helper.make_graph(nodes, f"{name}_else", [], [declared(result)], weights[number]),
        )  # fmt: skip
        result, nodes = choice.output[0], [*parts[number - 1], choice]
    whole = type(model)()
    whole.CopyFrom(model)
    own = (whole.graph.node, nodes), (whole.graph.output, [declared(LOGITS)]), (whole.graph.initializer, weights[0])
    for field, items in own:
        del field[:]
        field.extend(items)
    return whole


def _parts(graph: Any, wanted: Sequence[Sequence[str]]) -> list[list[Any]]:
    """Return, for each group of tensors in turn, the nodes that it needs and no group before it, in their order."""
    makers = {name: place for place, node in enumerate(graph.node) for name in node.output}
    placed: set[int] = set()
    parts = []
    for names in wanted:
        part: set[int] = set()
        waiting = list(names)
        while waiting:
            place = makers.get(waiting.pop())
            if place is not None and place not in placed and place not in part:
                part.add(place)
                waiting += graph.node[place].input
        placed |= part
        parts.append([graph.node[place] for place in sorted(part)])
    return parts


def _weights(graph: Any, parts: Sequence[Sequence[Any]]) -> list[list[Any]]:
    """Return the weights of each part of a graph: those that it is the first to read."""
    reading: dict[str, int] = {}
    for place, nodes in enumerate(parts):
        for node in nodes:
            for name in node.input:
                reading.setdefault(name, place)
    weights: list[list[Any]] = [[] for _ in parts]
    for weight in graph.initializer:
        weights[reading.get(weight.name, 0)].append(weight)
    return weights
