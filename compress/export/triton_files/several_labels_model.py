"""Triton model: logits in, each label's probability and the labels out. For Triton's Python backend; needs numpy."""

import json
from typing import Any

import numpy as np
import triton_python_backend_utils as pb_utils


class TritonPythonModel:
    """Sigmoid, and the names of the labels whose probability is at their threshold or above."""

    def initialize(self, args: dict[str, str]) -> None:
        """Read the labels and thresholds in config.pbtxt, in the order of the logits."""
        config = json.loads(args["model_config"])
        parameters = config["parameters"]
        self.labels = json.loads(parameters["labels"]["string_value"])
        self.thresholds = np.array(json.loads(parameters["thresholds"]["string_value"]))
        self.logits = config["input"][0]["name"]

    def execute(self, requests: list[Any]) -> list[Any]:
        """Return a response a request."""
        return [self.answer(request) for request in requests]

    def answer(self, request: Any) -> Any:
        """Return PROBABILITIES (rows, labels) and LABELS (rows, 1), a JSON list in each row."""
        logits = pb_utils.get_input_tensor_by_name(request, self.logits).as_numpy().astype(np.float64)
        shares = 1 / (1 + np.exp(-logits))
        rows = [
            json.dumps([label for label, there in zip(self.labels, row, strict=True) if there], ensure_ascii=False)
            for row in shares >= self.thresholds
        ]
        tensors = [
            pb_utils.Tensor("PROBABILITIES", shares.astype(np.float32)),
            pb_utils.Tensor("LABELS", np.array(rows, dtype=np.object_).reshape(-1, 1)),
        ]
        return pb_utils.InferenceResponse(output_tensors=tensors)
