"""What a Triton server does with a repository, in one process: `config.pbtxt` by Triton's own schema, models run.

Python models run as they are, with the few things of ``triton_python_backend_utils`` that its documentation promises;
graphs run in ONNX Runtime with the options that the config gives; ensembles pass tensors on by name. Every tensor that
enters or leaves a model is held against its config. `listening` answers KServe's protocol, binary tensors over HTTP.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import json
import struct
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import onnxruntime
from google.protobuf import json_format, text_format

LEVELS = {
    -1: onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC,
    0: onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL,
    1: onnxruntime.GraphOptimizationLevel.ORT_ENABLE_EXTENDED,
    2: onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL,
}
"""How Triton's ONNX Runtime backend reads ``optimization.graph.level``."""

NUMPY = {"TYPE_INT64": np.int64, "TYPE_INT32": np.int32, "TYPE_FP32": np.float32, "TYPE_STRING": np.object_}
KSERVE = {"TYPE_INT64": "INT64", "TYPE_INT32": "INT32", "TYPE_FP32": "FP32", "TYPE_STRING": "BYTES"}


def load(path: Path, name: str) -> ModuleType:
    """Return a Python file as a module of its own."""
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def schema() -> Any:
    """Return Triton's model_config.proto, compiled, from its client; the package around it would want gRPC."""
    if "model_config_pb2" not in sys.modules:  # a message can be registered once
        place = importlib.metadata.distribution("tritonclient").locate_file("tritonclient/grpc/model_config_pb2.py")
        sys.modules["model_config_pb2"] = load(Path(str(place)), "model_config_pb2")
    return sys.modules["model_config_pb2"]


def config(folder: Path) -> Any:
    """Return a model's ``ModelConfig``."""
    return text_format.Parse((folder / "config.pbtxt").read_text(encoding="utf-8"), schema().ModelConfig())


def kind(tensor: Any) -> str:
    return str(schema().DataType.Name(tensor.data_type))


class Tensor:
    """pb_utils.Tensor: texts are objects, and leave as bytes."""

    def __init__(self, name: str, array: Any) -> None:
        if not isinstance(array, np.ndarray) or array.dtype.kind in "USV":
            raise TypeError("Tensor dtype used for numpy_array is not supported by Python backend")
        self.said, self.array = name, array
        if array.dtype == np.object_:
            flat = [x if isinstance(x, bytes) else str(x).encode() for x in array.reshape(-1)]
            self.array = np.array(flat, dtype=np.object_).reshape(array.shape)

    def name(self) -> str:
        return self.said

    def as_numpy(self) -> Any:
        return self.array


class TritonError:
    def __init__(self, message: str) -> None:
        self.said = message

    def message(self) -> str:
        return self.said


class InferenceRequest:
    def __init__(self, inputs: list[Tensor]) -> None:
        self.given = inputs

    def inputs(self) -> list[Tensor]:
        return self.given


class InferenceResponse:
    def __init__(self, output_tensors: list[Tensor], error: TritonError | None = None) -> None:
        assert isinstance(output_tensors, list)
        self.made, self.wrong = output_tensors, error

    def output_tensors(self) -> list[Tensor]:
        return self.made

    def error(self) -> TritonError | None:
        return self.wrong


def pb_utils() -> ModuleType:
    """Return what `import triton_python_backend_utils` gives in the server."""
    module = ModuleType("triton_python_backend_utils")
    parts: dict[str, Any] = {
        "Tensor": Tensor, "TritonError": TritonError, "InferenceRequest": InferenceRequest,
        "InferenceResponse": InferenceResponse, "triton_string_to_numpy": NUMPY.__getitem__,
        "get_input_tensor_by_name": lambda request, name: next(
            (field for field in request.inputs() if field.name() == name), None
        ),
    }  # fmt: skip
    for name, part in parts.items():
        setattr(module, name, part)
    return module


class RequestError(Exception):
    """What the server answers a request with that a model refuses."""


class Server:
    """The models of a repository."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        names = sorted(path.name for path in folder.iterdir() if path.is_dir())
        self.configs = {name: config(folder / name) for name in names}
        self.batches: dict[str, list[int]] = {name: [] for name in names}
        self.loaded = {name: self._load(name) for name in names}

    def _load(self, name: str) -> Any:
        found, version = self.configs[name], self.folder / name / "1"
        assert found.name == name
        assert version.is_dir()
        if found.backend == "python":
            before = sys.modules.get("triton_python_backend_utils")
            sys.modules["triton_python_backend_utils"] = pb_utils()
            try:
                model = load(version / "model.py", f"triton_{name}").TritonPythonModel()
            finally:
                del sys.modules["triton_python_backend_utils"]
                if before is not None:
                    sys.modules["triton_python_backend_utils"] = before
            text = json.dumps(json_format.MessageToDict(found, preserving_proto_field_name=True))
            model.initialize({"model_config": text, "model_repository": str(self.folder / name), "model_version": "1"})
            return model
        if found.platform == "ensemble":
            return None
        assert (found.platform, found.backend) == ("onnxruntime_onnx", "onnxruntime")
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = int(found.parameters["intra_op_thread_count"].string_value)
        options.graph_optimization_level = LEVELS[found.optimization.graph.level]
        options.log_severity_level = 3
        return onnxruntime.InferenceSession(version / "model.onnx", options, providers=["CPUExecutionProvider"])

    def infer(self, name: str, given: dict[str, Any]) -> dict[str, Any]:
        """Return a model's outputs; raises RequestError for what it refuses."""
        found = self.configs[name]
        self._check(found.input, given, found.max_batch_size)
        self.batches[name].append(len(next(iter(given.values()))))
        if found.platform == "ensemble":
            made = self._ensemble(found, given)
        elif found.backend == "python":
            [response] = self.loaded[name].execute([InferenceRequest([Tensor(k, v) for k, v in given.items()])])
            if response.error() is not None:
                raise RequestError(response.error().message())
            made = {field.name(): field.as_numpy() for field in response.output_tensors()}
        else:
            names = [field.name for field in found.output]
            made = dict(zip(names, self.loaded[name].run(names, given), strict=True))
        self._check(found.output, made, found.max_batch_size)
        return made

    def _ensemble(self, message: Any, given: dict[str, Any]) -> dict[str, Any]:
        known = dict(given)
        for step in message.ensemble_scheduling.step:
            assert message.max_batch_size <= self.configs[step.model_name].max_batch_size
            assert sorted(step.input_map) == sorted(field.name for field in self.configs[step.model_name].input)
            made = self.infer(step.model_name, {theirs: known[ours] for theirs, ours in step.input_map.items()})
            known |= {ours: made[theirs] for theirs, ours in step.output_map.items()}
        return {field.name: known[field.name] for field in message.output}

    @staticmethod
    def _check(message: Any, tensors: dict[str, Any], most: int) -> None:
        assert sorted(tensors) == sorted(item.name for item in message)
        for item in message:
            array = tensors[item.name]
            assert array.dtype == NUMPY[kind(item)], item.name
            assert 1 <= len(array) <= most
            assert len(array.shape[1:]) == len(item.dims)
            assert all(size in (-1, actual) for size, actual in zip(item.dims, array.shape[1:], strict=True))


@contextmanager
def listening(server: Server) -> Iterator[str]:
    """Serve over HTTP on a free port; gives host:port."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            found = server.configs[self.path.split("/")[3]]
            tensors = {
                name: [{"name": item.name, "datatype": KSERVE[kind(item)], "shape": [-1, *item.dims]} for item in part]
                for name, part in (("inputs", found.input), ("outputs", found.output))
            }
            self.reply(
                200, json.dumps({"name": found.name, "versions": ["1"], "platform": "", **tensors}).encode(), None
            )

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            size = int(self.headers["Inference-Header-Content-Length"])
            header, blob, given = json.loads(body[:size]), body[size:], {}
            for field in header["inputs"]:
                length = field["parameters"]["binary_data_size"]
                given[field["name"]], blob = decoded(field["datatype"], field["shape"], blob[:length]), blob[length:]
            name = self.path.split("/")[3]
            try:
                made = server.infer(name, given)
            except RequestError as error:
                self.reply(400, json.dumps({"error": str(error)}).encode(), None)
                return
            types = {field.name: KSERVE[kind(field)] for field in server.configs[name].output}
            parts = {field["name"]: encoded(made[field["name"]]) for field in header["outputs"]}
            outputs = [
                {
                    "name": k,
                    "datatype": types[k],
                    "shape": list(made[k].shape),
                    "parameters": {"binary_data_size": len(v)},
                }
                for k, v in parts.items()
            ]
            head = json.dumps({"model_name": name, "model_version": "1", "outputs": outputs}).encode()
            self.reply(200, head + b"".join(parts.values()), len(head))

        def reply(self, status: int, body: bytes, header: int | None) -> None:
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            if header is not None:
                self.send_header("Inference-Header-Content-Length", str(header))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: Any) -> None:
            pass

    http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    http.daemon_threads = True
    thread = threading.Thread(target=http.serve_forever)
    thread.start()
    try:
        yield f"127.0.0.1:{http.server_port}"
    finally:
        http.shutdown()
        thread.join()
        http.server_close()


def encoded(array: Any) -> bytes:
    if array.dtype != np.object_:
        return bytes(array.tobytes())
    return b"".join(struct.pack("<I", len(item)) + item for item in array.reshape(-1))


def decoded(datatype: str, shape: list[int], blob: bytes) -> Any:
    if datatype != "BYTES":
        return np.frombuffer(blob, {"INT64": np.int64, "INT32": np.int32}[datatype]).reshape(shape)
    texts = []
    while blob:
        (length,) = struct.unpack_from("<I", blob)
        texts.append(blob[4 : 4 + length])
        blob = blob[4 + length :]
    return np.array(texts, dtype=np.object_).reshape(shape)
