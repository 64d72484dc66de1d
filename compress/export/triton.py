"""A model repository for Triton Inference Server, from the artifacts that the run has made."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import ClassVar

from compress.errors import Fault, ModelError
from compress.export.tensorrt import Engines
from compress.export.triton_config import read_graph
from compress.export.triton_repository import Limits, Repository, Served, Serving
from compress.files import hash_folder, size_mib
from compress.known import NOTHING, Known
from compress.models.loading import load_config, load_tokenizer
from compress.models.positions import longest_row
from compress.onnx.folder import MODEL
from compress.onnx.storage import SUFFIXES
from compress.pipeline.artifact import Artifact
from compress.pipeline.stage import Stage, gathered
from compress.pipeline.state import State
from compress.pipeline.workshop import Kind
from compress.quantize.bitsandbytes import BitsAndBytes
from compress.runtimes.onnxruntime import OnnxRuntime
from compress.runtimes.tensorrt import ENGINE, TensorRtRuntime
from compress.runtimes.tensorrt_bindings import FULL
from compress.settings import at_least
from compress.tasks.heads import OF_SPANS
from compress.tasks.registry import task_of_config

WEIGHTS = (*SUFFIXES, ".plan")
IMAGE = "nvcr.io/nvidia/tritonserver:25.08-py3"


class Tokenize(Enum):
    """server: texts are sent, by an ensemble for each graph; client: token numbers are."""

    server = "server"
    client = "client"


class InstanceKind(Enum):
    """Where ONNX Runtime runs in the server; TensorRT engines run on a GPU."""

    cpu = "cpu"
    gpu = "gpu"


@dataclass(kw_only=True)
class Triton(Stage):
    """Write a model repository for Triton from all ONNX artifacts of the run, and engines that TensorRT built."""

    gathers: ClassVar[bool] = True

    tokenize: Tokenize = Tokenize.server  # server: texts in, labels and probabilities out; client: numbers in
    max_batch_size: int = 32  # most rows that the server runs at once
    preferred_batch_sizes: list[int] = field(default_factory=list)  # batch sizes to wait for; empty: any
    max_queue_delay_microseconds: int = 1000  # longest wait of a request for others to share its batch
    pad_to_multiple_of: int = 8  # tokenize=server: lengths are rounded up, so that similar lengths share a batch
    instances: int = 1  # copies of each model that run side by side
    device: InstanceKind = InstanceKind.cpu  # of ONNX graphs: cpu or gpu
    threads: int = 1  # ONNX Runtime's threads per copy (intra-op); 0: all cores
    image: str = IMAGE  # the container image that README.md starts

    def faults(self, known: Known = NOTHING) -> Iterator[Fault]:
        """Sizes are in order, some stage writes what can be served, and the server can give the task's answers."""
        for name in ("max_batch_size", "pad_to_multiple_of", "instances"):
            yield from at_least(self, name, 1)
        for name in ("max_queue_delay_microseconds", "threads"):
            yield from at_least(self, name, 0)
        sizes = list(self.preferred_batch_sizes)
        if sizes != sorted(set(sizes)) or (sizes and not 1 <= sizes[0] <= sizes[-1] <= self.max_batch_size):
            rule = f"must rise, from 1 or more to max_batch_size = {self.max_batch_size} or less"
            yield Fault("preferred_batch_sizes", sizes, rule)
        if not self.image.strip() or any(letter.isspace() for letter in self.image):
            yield Fault("image", self.image, f"must name an image of a container, as {IMAGE}")
        if known.stages and all(isinstance(other, BitsAndBytes) for other in gathered(known).values()):
            rule = "serves the ONNX graphs and engines of a run, and no other stage writes one"
            yield Fault("", None, rule, "Choose export=[onnx,triton].")
        if known.task is not None and known.task.by_token and self.tokenize is Tokenize.server:
            rule = f"gives one answer per text, and the task {known.task.name} answers for every token"
            yield Fault("tokenize", "server", rule, "Set it to client.")
        if known.task is not None and known.task.apart and self.tokenize is Tokenize.server:
            rule = f"answers with a label or a score, and the task {known.task.name} has vectors"
            yield Fault("tokenize", "server", rule, "Set it to client.")

    def __call__(self, state: State) -> State:
        """Return the state with the artifact ``triton``; raises ModelError where there is nothing to serve."""
        served, keys, notes = [], [], []
        for artifact in (
            candidate for candidate in state.artifacts if candidate.runtime in SERVED and not candidate.holds
        ):
            why = not_served(artifact)
            if why:
                notes.append(f"{artifact.name} is left out: {why}")
                continue
            served.append(SERVED[artifact.runtime](artifact))
            keys.append([artifact.name, artifact.key])
        if not served:
            reasons = "; ".join(notes) or "the run wrote no ONNX graph and no engine"
            raise ModelError(f"triton: there is nothing to serve: {reasons}. Choose export=[onnx,triton].")
        folder = served[0].model.parent
        if not (folder / "tokenizer.json").is_file():
            raise ModelError(f"{folder}: has no tokenizer.json, which Triton's tokenizer reads.")
        paired, task = state.data.pairs, state.data.task
        labels = task.label_names
        own = task_of_config(load_config(folder, weights=False))
        cut_at, head = own.cut_at, own.head_config()
        windows = {name: head[name] for name in OF_SPANS if name in head}

        def work(made: Path) -> None:
            reading = load_tokenizer(folder)
            limits = Limits(
                min(reading.model_max_length, longest_row(load_config(folder, weights=False))),
                reading.pad_token_id,
                reading.truncation_side,
                paired,
                windows,
            )
            Repository(made, self.serving(), limits, labels, cut_at, folder / "tokenizer.json").write(served)

        parts = [self.made_with(), keys, [*labels, *cut_at], paired, windows, hash_folder(FILES, (".py",))]
        product = state.workshop.make(Kind("triton", revision=3), parts, work)
        names = [model.name for model in served]
        artifact = Artifact(
            name="triton", runtime="triton", precision="", folder=product.folder, key=product.key,
            seconds=product.seconds, notes=(f"serves {', '.join(names)}; README.md says how", *notes),
            unmeasured=f"written for {self.image}, which was not run: the report shows {', '.join(names)}",
            holds=tuple(names), size_mib=size_mib(product.folder, WEIGHTS),
        )  # fmt: skip
        return state.with_artifacts(artifact)

    def serving(self) -> Serving:
        """Return the settings that the repository's files depend on, in plain values."""
        return Serving(
            texts=self.tokenize is Tokenize.server,
            max_batch_size=self.max_batch_size,
            preferred_batch_sizes=tuple(self.preferred_batch_sizes),
            max_queue_delay_microseconds=self.max_queue_delay_microseconds,
            pad_to_multiple_of=self.pad_to_multiple_of,
            instances=self.instances,
            gpu=self.device is InstanceKind.gpu,
            threads=self.threads,
            image=self.image,
        )


FILES = Path(__file__).parent / "triton_files"


def not_served(artifact: Artifact) -> str:
    """Return why Triton cannot serve an artifact; empty where it can."""
    if artifact.runtime != TensorRtRuntime.name:
        return "" if (artifact.folder / MODEL).is_file() else "it gathers the graphs of others"
    if not list(artifact.folder.glob(f"*{ENGINE}")):
        return "it has no engine"
    engines = _engines_of(artifact)
    if engines.package != FULL:
        return f"its engines are by {engines.version}, and Triton runs those of TensorRT itself"
    if engines.batch[0] > 1:
        return f"its smallest batch is {engines.batch[0]}, and a request may be one row"
    return ""


def _engines_of(artifact: Artifact) -> Engines:
    assert isinstance(artifact.details, Engines)
    return artifact.details


def _graph(artifact: Artifact) -> Served:
    return Served(artifact.name, artifact.folder / MODEL, read_graph(artifact.folder / MODEL))


def _engine(artifact: Artifact) -> Served:
    """Return an engine; strongly typed, it has the inputs and outputs of the graph beside it, its source."""
    engines, graph = _engines_of(artifact), read_graph(artifact.folder / MODEL)
    plan = next(artifact.folder.glob(f"*{ENGINE}"))
    limits = (engines.batch[-1], engines.tokens[0], engines.tokens[-1])
    return Served(artifact.name, plan, graph, limits, engines.version)


SERVED: Mapping[str, Callable[[Artifact], Served]] = {OnnxRuntime.name: _graph, TensorRtRuntime.name: _engine}
"""The runtimes that Triton has a backend of, and what is served of their artifacts."""
