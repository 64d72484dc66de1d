"""Triton model: logits in, probabilities and the likeliest label out. Runs in Triton's Python backend; needs numpy."""

import json
from typing import Any

import numpy as np
import triton_python_backend_utils as pb_utils


class TritonPythonModel:
    """Softmax, and the name of the largest."""

    def initialize(self, args: dict[str, str]) -> None:
        """Read the labels in config.pbtxt, in the order of the logits."""
        config = json.loads(args["model_config"])
        self.labels = np.array(json.loads(config["parameters"]["labels"]["string_value"]), dtype=np.object_)
        self.logits = config["input"][0]["name"]

    def execute(self, requests: list[Any]) -> list[Any]:
        """Return a response a request."""
        return [self.answer(request) for request in requests]

    def answer(self, request: Any) -> Any:
        """Return PROBABILITIES (rows, labels) and LABEL (rows, 1)."""
        logits = pb_utils.get_input_tensor_by_name(request, self.logits).as_numpy().astype(np.float32)
        shifted = np.exp(logits - logits.max(-1, keepdims=True))
        label = self.labels[logits.argmax(-1)].reshape(-1, 1)
        tensors = [
            pb_utils.Tensor("PROBABILITIES", shifted / shifted.sum(-1, keepdims=True)),
            pb_utils.Tensor("LABEL", label),
        ]
        return pb_utils.InferenceResponse(output_tensors=tensors)
