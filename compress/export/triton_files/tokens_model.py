"""Triton model: texts in, the graph's inputs out. Runs in Triton's Python backend; needs tokenizers and numpy."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import triton_python_backend_utils as pb_utils
from tokenizers import Encoding, Tokenizer

COLUMNS = {"input_ids": "ids", "attention_mask": "attention_mask", "token_type_ids": "type_ids"}


class TritonPythonModel:
    """Reads texts as the student was trained to: cut to its longest length, padded on the right."""

    def initialize(self, args: dict[str, str]) -> None:
        """Load tokenizer.json, which is beside this file, and the parameters in config.pbtxt."""
        config = json.loads(args["model_config"])
        parameters = {name: parameter["string_value"] for name, parameter in config["parameters"].items()}
        folder = Path(args["model_repository"]) / args["model_version"]
        self.tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        self.longest, self.shortest = int(parameters["max_tokens"]), int(parameters["min_tokens"])
        self.tokenizer.enable_truncation(
            self.longest, strategy="longest_first", direction=parameters["truncation_side"]
        )
        self.tokenizer.no_padding()
        self.multiple = int(parameters["pad_to_multiple_of"])
        self.fill = {"input_ids": int(parameters["pad_token_id"])}  # and 0 in the others
        self.inputs = [tensor["name"] for tensor in config["input"]]
        self.outputs = {
            tensor["name"]: pb_utils.triton_string_to_numpy(tensor["data_type"]) for tensor in config["output"]
        }

    def execute(self, requests: list[Any]) -> list[Any]:
        """Return a response a request; one that cannot be read gets an error, the others their answer."""
        return [self.answer(request) for request in requests]

    def answer(self, request: Any) -> Any:
        """Return the padded columns of a request's rows."""
        try:
            given = [self.texts(request, name) for name in self.inputs]
        except ValueError as error:
            return pb_utils.InferenceResponse(output_tensors=[], error=pb_utils.TritonError(str(error)))
        encodings = self.tokenizer.encode_batch(given[0] if len(given) == 1 else list(zip(*given, strict=True)))
        width = self.width(max(len(encoding.ids) for encoding in encodings))
        made = [pb_utils.Tensor(name, self.column(name, encodings, width)) for name in self.outputs]
        return pb_utils.InferenceResponse(output_tensors=made)

    @staticmethod
    def texts(request: Any, name: str) -> list[str]:
        """Return an input (rows, 1) of bytes as texts; raises ValueError for what no text is in."""
        rows = pb_utils.get_input_tensor_by_name(request, name).as_numpy().reshape(-1)
        texts = [row.decode() if isinstance(row, bytes) else str(row) for row in rows]
        if any(not text.strip() for text in texts):
            raise ValueError(f"{name}: there is no text in row {[bool(text.strip()) for text in texts].index(False)}")
        return texts

    def width(self, tokens: int) -> int:
        """Return a length rounded up, so that requests of about the same length can share a batch of the graph."""
        return min(max(-(-tokens // self.multiple) * self.multiple, self.shortest), self.longest)

    def column(self, name: str, encodings: list[Encoding], width: int) -> Any:
        """Return one input of the graph, (rows, width)."""
        made = np.full((len(encodings), width), self.fill.get(name, 0), self.outputs[name])
        for row, encoding in enumerate(encodings):
            numbers = getattr(encoding, COLUMNS[name])
            made[row, : len(numbers)] = numbers
        return made
