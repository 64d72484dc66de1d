"""The folder that transformers.js and Optimum load: the run's ONNX graphs under the names that they look for."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from tokenizers import Tokenizer

from compress.errors import Fault, ModelError
from compress.export.javascript import FILE, row_module
from compress.export.onnx import Onnx
from compress.families.registry import FAMILIES, known_family
from compress.files import size_mib, write_text
from compress.known import NOTHING, Known
from compress.markdown import text
from compress.models.auto import purpose
from compress.models.folder import TOKENIZER
from compress.models.loading import load_tokenizer
from compress.onnx.folder import MODEL, copy_beside
from compress.onnx.graph import input_names
from compress.onnx.needs import IN_FLOATS
from compress.onnx.storage import SUFFIXES, copy_graph, is_outside
from compress.pipeline.artifact import Artifact
from compress.pipeline.stage import Stage, gathered
from compress.pipeline.state import State
from compress.pipeline.workshop import Kind
from compress.runtimes.onnxruntime import OnnxRuntime
from compress.settings import nearest
from compress.tasks.base import Task

NAMES = {"fp32": "model", "fp16": "model_fp16", "int8": "model_quantized"}
"""transformers.js's file names by precision, without .onnx; int8 is what it loads where nothing is said (q8)."""


@dataclass(kw_only=True)
class TransformersJs(Stage):
    """Gather the run's graphs as ``onnx/model.onnx``, ``model_quantized.onnx`` and ``model_fp16.onnx``.

    transformers.js loads such a folder, and so does Optimum's class for the task.
    """

    int8: str | None = None  # which int8 artifact is model_quantized.onnx, by name; default: the first of the run

    gathers: ClassVar[bool] = True

    def faults(self, known: Known = NOTHING) -> Iterator[Fault]:
        """The graph in fp32 is written, and the int8 one that is named; both look up the type of the model."""
        if known.stages:
            others = gathered(known)
            if self.int8 is not None and self.int8 not in others:
                yield Fault("int8", self.int8, "names no quantization of this recipe", nearest(self.int8, others))
            if not any(isinstance(other, Onnx) for other in others.values()):
                rule = "gathers the run's graphs, and the one in fp32 is missing"
                yield Fault("", None, rule, "Choose export=[onnx,transformers_js].")
        if known.student is not None:
            family = known_family(known.student)
            use = None if known.task is None else purpose(known.task.auto)
            if family is None or not family.served_by_transformers_js(use):
                served = [name for name, other in FAMILIES.items() if other.served_by_transformers_js(use)]
                rule = f"transformers.js does not know students of type {known.student.model_type}" + (
                    f" for {use}" if use else ""
                )
                yield Fault("int8", self.int8, rule, f"Leave it out of export. It knows {', '.join(served)}.")

    def __call__(self, state: State) -> State:
        """Return the state with the artifact ``transformers_js``; raises ModelError where ``int8`` names none."""
        chosen, left_out = self._chosen(state.artifacts)

        def work(folder: Path) -> None:
            (folder / "onnx").mkdir(exist_ok=True)
            for name, artifact in chosen.items():
                copy_graph(artifact.folder / MODEL, folder / "onnx" / f"{name}.onnx")
            asked = _asked(chosen)
            copy_beside(chosen[asked].folder, folder, f"onnx/{asked}.onnx")
            task = state.data.task
            tokenizer = Tokenizer.from_file(str(folder / TOKENIZER))
            inputs = input_names(load_tokenizer(folder))
            write_text(folder / FILE, row_module(tokenizer, inputs, windows=task.windows))
            write_text(folder / "README.md", _readme(chosen, task, pairs=state.data.pairs))

        keys = {name: artifact.key for name, artifact in chosen.items()}
        product = state.workshop.make(Kind("transformers_js", revision=4), [keys, state.data.pairs], work)
        names = ", ".join(f"onnx/{name}.onnx is {artifact.name}" for name, artifact in chosen.items())
        artifact = Artifact(
            name="transformers_js", runtime="onnxruntime", precision="", folder=product.folder, key=product.key,
            seconds=product.seconds, notes=(names, *left_out), size_mib=size_mib(product.folder / "onnx", SUFFIXES),
            unmeasured=f"holds the files of {', '.join(graph.name for graph in chosen.values())}, measured there",
            holds=tuple(graph.name for graph in chosen.values()),
        )  # fmt: skip
        return state.with_artifacts(artifact)

    def _chosen(self, artifacts: Sequence[Artifact]) -> tuple[dict[str, Artifact], list[str]]:
        """Return the artifact of each file, and notes of what has none."""
        graphs = [graph for graph in artifacts if graph.runtime == OnnxRuntime.name and not graph.holds]
        found: dict[str, Artifact] = {}
        left_out = []
        for graph in graphs:
            name = NAMES.get(graph.precision)
            if graph.precision == "int8" and self.int8 not in (None, graph.name):
                name = None
            if name is None or name in found or _for_other_devices(graph):
                left_out.append(f"{graph.name} has no place of its own there")
            else:
                found[name] = graph
        if NAMES["fp32"] not in found:
            raise ModelError("transformers_js: the graph in fp32, which both load first, is not among the artifacts.")
        if self.int8 is not None and NAMES["int8"] not in found:
            there = ", ".join(graph.name for graph in graphs if graph.precision == "int8") or "none"
            raise ModelError(f"transformers_js.int8 = {self.int8!r}: the run's int8 graphs for the CPU are {there}.")
        return found, left_out


def _for_other_devices(artifact: Artifact) -> bool:
    """Return whether the int8 of a graph is meant for a GPU."""
    import onnx

    model = onnx.load(artifact.folder / MODEL, load_external_data=False)
    return any(entry.key == IN_FLOATS for entry in model.metadata_props)


def _asked(chosen: Mapping[str, Artifact]) -> str:
    """Return the file that the examples load, and that stands for the folder: int8's, where there is one."""
    return "model_quantized" if "model_quantized" in chosen else "model"


KINDS = {"model": "fp32", "model_quantized": "q8", "model_fp16": "fp16"}


def _files(chosen: Mapping[str, Artifact]) -> str:
    """Return the table of a folder's files."""
    rows = (f"| `onnx/{name}.onnx` | {text(graph.name)} | `{KINDS[name]}` |" for name, graph in chosen.items())
    return "\n".join(["| file | artifact | dtype |", "|---|---|---|", *rows])


def _readme(chosen: Mapping[str, Artifact], task: Task, *, pairs: bool) -> str:
    if task.apart:
        return _in_javascript(chosen, task, "AutoModel", pairs=False)
    auto = task.auto.__name__
    return f"{_in_javascript(chosen, task, auto, pairs=pairs)}\n{_in_python(chosen, task, auto, pairs=pairs)}"


def _in_javascript(chosen: Mapping[str, Artifact], task: Task, auto: str, *, pairs: bool) -> str:
    asked = _asked(chosen)
    outside = ", use_external_data_format: true" if is_outside(chosen[asked].folder / MODEL) else ""
    words = "'a first text', 'a second text'" if pairs else "'a text'"
    others = " and Optimum" if not task.apart else ""
    inside = "\nPooling is inside the graphs: their output is a text's vector.\n" if task.apart else ""
    cuts = (
        "cuts the second text of long rows, which `compress predict` reads in windows"
        if task.windows
        else "cuts long rows as they were cut when the graphs were measured"
    )
    return f"""# For transformers.js{others}

{_files(chosen)}
{inside}
`row` in `{FILE}` makes the inputs of a row and {cuts}. transformers.js itself would
drop the last special token of such a row and, of two texts, most of the second.

```js
import {{ {auto}, AutoTokenizer, env }} from '@huggingface/transformers';
import {{ row }} from './{FILE}';
env.localModelPath = '..'; // the folder above this one
const tokenizer = await AutoTokenizer.from_pretrained('transformers_js');
const model = await {auto}.from_pretrained('transformers_js', {{ dtype: '{KINDS[asked]}'{outside} }});
const {{ {", ".join(task.graph_outputs)} }} = await model(row(tokenizer, {words}));
```
"""


def _in_python(chosen: Mapping[str, Artifact], task: Task, auto: str, *, pairs: bool) -> str:
    ort, outputs = auto.replace("Auto", "ORT"), task.graph_outputs
    words = '"a first text", "a second text"' if pairs else '"a text"'
    cut = '"only_second"' if task.windows else "True"
    return f"""\
```python
from optimum.onnxruntime import {ort}
from transformers import AutoTokenizer

tokenizer = AutoTokenizer.from_pretrained(".")
model = {ort}.from_pretrained(".", subfolder="onnx", file_name="{_asked(chosen)}.onnx")
outputs = model(**tokenizer({words}, truncation={cut}, return_tensors="pt"))
{", ".join(outputs)} = {", ".join(f"outputs.{name}" for name in outputs)}
```
"""
