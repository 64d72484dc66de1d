"""README.md of a Triton model repository: what it serves, how the server is started and asked."""

from __future__ import annotations

import json
import shlex
from collections.abc import Sequence
from typing import TYPE_CHECKING
from urllib.parse import quote

from compress.machine import versions
from compress.markdown import code, code_cell, text

if TYPE_CHECKING:
    from compress.export.triton_repository import Repository, Served


def readme(made: Repository, served: Sequence[Served]) -> str:
    """Return the page."""
    serving, first = made.serving, served[0]
    gpus = "--gpus=all " if serving.gpu or any(model.profile for model in served) else ""
    start = "tritonserver --model-repository=/models"
    if serving.texts:
        packages = f"tokenizers=={versions()['tokenizers']} numpy"
        start = f'sh -c "pip install --quiet {packages} && {start}"'
    model = first.name + ("_text" if serving.texts else "")
    pair = ' --pairs "a second text"' if made.limits.paired else ""
    needs = "'tritonclient[http]'" if serving.texts else "tokenizers 'tritonclient[http]'"
    ask = f'python client.py {shlex.quote(model)} "a text"{pair}{_curl(made, model)}'
    image = shlex.quote(serving.image)
    return f"""# Model repository for Triton Inference Server

Start it in this folder:

```
docker run --rm {gpus}--shm-size=1g -p 8000:8000 -p 8001:8001 -p 8002:8002 -v "$PWD":/models:ro \\
  {image} \\
  {start}
```

Ask it:

```
pip install {needs}
{ask}
```

| model | what it is | at most | needs |
|---|---|---|---|
{chr(10).join(_row(made, model) for model in served)}

{_texts(made)}

Requests are batched up to that many rows, waiting {serving.max_queue_delay_microseconds} µs at most. Batches hold \
requests of one length only{_rounded(made)}.
With int8 activations that are measured at run time (dynamic), a row's logits depend a little on the rows beside it.
"""


def _row(made: Repository, model: Served) -> str:
    if model.profile:
        what, needs = "TensorRT engine", f"{text(model.built_by)}, and the GPU that it was built for"
    else:
        what, needs = "ONNX graph", f"ONNX Runtime that reads IR {model.graph.ir_version} and opset {model.graph.opset}"
        what += ", its int8 computed in floats on a CPU" if model.graph.in_floats else ""
    names = [f"{model.name}_text", model.name] if made.serving.texts else [model.name]
    name = ", ".join(map(code_cell, names))
    return f"| {name} | {what} | {made.largest_batch(model)} rows | {needs} |"


def _texts(made: Repository) -> str:
    names = "TEXT and TEXT_PAIR" if made.limits.paired else "TEXT"
    if not made.serving.texts:
        after = " Probabilities are the softmax of the logits." if made.labels else ""
        if made.cut_at:
            after = " Each label's probability is the sigmoid of its logit; `client.json` has the thresholds."
        return f"Clients tokenize: `client.py` does it with `tokenizer.json`, and `client.json` says how.{after}"
    label = "LABELS (a JSON list)" if made.cut_at else "LABEL"
    answer = f"{label}, PROBABILITIES (in the order of the labels) and the logits" if made.labels else "SCORE"
    labels = f" The labels: {', '.join(map(code, made.labels))}." if made.labels else ""
    return (
        f"Models that end in `_text` take {names} (rows, 1) and answer with {answer}.{labels} Texts above "
        f"{made.limits.longest} tokens are cut, as in training; a blank one is refused."
    )


def _rounded(made: Repository) -> str:
    multiple = made.serving.pad_to_multiple_of
    return f"; lengths are rounded up to multiples of {multiple}" if made.serving.texts and multiple > 1 else ""


def _curl(made: Repository, model: str) -> str:
    """Return a command that asks without Python, one row in KServe's JSON; none where token numbers are sent."""
    if not made.serving.texts:
        return ""
    names = ("TEXT", "TEXT_PAIR") if made.limits.paired else ("TEXT",)
    inputs = [{"name": name, "datatype": "BYTES", "shape": [1, 1], "data": ["a text"]} for name in names]
    return f"\ncurl localhost:8000/v2/models/{quote(model)}/infer -d '{json.dumps({'inputs': inputs})}'"
