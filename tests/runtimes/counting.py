"""A device and a runtime of the tests' own, which count what is done with them."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from compress.errors import ModelError
from compress.models.loading import load_model
from compress.onnx.folder import with_tokenizer
from compress.pipeline.artifact import Artifact
from compress.pipeline.stage import Stage
from compress.pipeline.state import State
from compress.pipeline.workshop import Kind
from compress.runtimes.base import Executed, PartProducts, Runtime, Session, Variant
from compress.runtimes.devices import Device
from compress.runtimes.pytorch import TorchSession

MARK = "counting.json"  # in a folder of this runtime: where the model is


class CountingDevice(Device):
    """The processor under another name, with memory of its own, as a GPU has."""

    name = "counter"
    own_memory = True

    def __init__(self) -> None:
        self.here = True
        self.counts: Counter[str] = Counter()
        self.inside = 0

    def missing(self) -> str:
        return "" if self.here else "it was left at home"

    @contextmanager
    def _entered(self) -> Iterator[None]:
        self.inside += 1
        yield
        self.inside -= 1

    def active(self) -> Any:
        return self._entered()

    def synchronize(self) -> None:
        self.counts["synchronized"] += 1

    def seconds(self, action: Any) -> float:
        assert self.inside, "timed outside the device's context"
        self.counts["timed"] += 1
        return super().seconds(action)


class CountingSession(TorchSession):
    """A model whose every step is counted, and that must be called where its device is active."""

    def __init__(self, runtime: CountingRuntime, model: Any, device: Any, variant: str) -> None:
        super().__init__(model, device, variant)
        self.runtime = runtime

    def place(self, inputs: Any) -> Any:
        self.runtime.counts["placed"] += 1
        return super().place(inputs)

    def run(self, placed: Any) -> Any:
        assert self.device.inside, "run outside the device's context"  # type: ignore[attr-defined]
        self.runtime.counts["run"] += 1
        if len(placed["input_ids"]) > self.runtime.most_rows.get(self.variant, 10**6):
            raise MemoryError("out of\nmemory")
        return super().run(placed)

    def fetch(self, logits: Any) -> Any:
        self.runtime.counts["fetched"] += 1
        return super().fetch(logits)


class CountingRuntime(Runtime):
    """Runs marked folders on the counting device only, in two variants that work and one that does not."""

    name = "counting"
    counted = frozenset({"int8"})

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self.loaded: list[tuple[str, str]] = []  # device, variant
        self.most_rows: dict[str, int] = {}  # by variant, that fit into its memory

    def owns(self, folder: Path) -> bool:
        return (folder / MARK).is_file()

    def unavailable(self, folder: Path, device: Device) -> str:
        return "" if isinstance(device, CountingDevice) else "it only counts on a counter"

    def variants(self, folder: Path, device: Device) -> Sequence[Variant]:
        return (Variant(name="plain"), Variant(name="rounded", precision="fp16"), Variant(name="broken"))

    def load(self, folder: Path, device: Device, *, threads: int, variant: str = "") -> Session:
        if variant == "broken":
            raise ModelError("this variant is broken")
        self.loaded.append((device.name, variant))
        model = load_model(json.loads((folder / MARK).read_text()))
        return CountingSession(self, model.half() if variant == "rounded" else model, device, variant)

    def executed(self, folder: Path, device: Device) -> Executed:
        parts = [PartProducts(part="head", int8=["classifier"], floats=["pooler"])]
        return Executed(int8=1, products=2, parts=parts)


@dataclass(kw_only=True)
class Counting(Stage):
    """Write the student for the counting runtime."""

    def __call__(self, state: State) -> State:
        student = state.given_student

        def work(folder: Path) -> None:
            with_tokenizer(student.folder, folder, pairs=state.data.pairs)
            (folder / MARK).write_text(json.dumps(str(student.folder)))

        product = state.workshop.make(Kind("counting", revision=1), [student.key], work)
        artifact = Artifact(
            name="counting", runtime="counting", precision="int8", folder=product.folder, key=product.key
        )
        return replace(state, artifacts=(*state.artifacts, artifact))
