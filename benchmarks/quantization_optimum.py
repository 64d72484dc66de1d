"""Worker of quantization.py: quantize once by Optimum, run by the Python of Optimum's own environment.

It reads one JSON object from standard input ({"model": folder with model.onnx, "out": folder, "instructions": ...}),
imports nothing of `compress`, and prints one line of JSON. Used as Optimum's documentation shows: dynamic int8 by the
configuration that it names for the processor.
"""

from __future__ import annotations

import json
import sys
from importlib import metadata

from optimum.onnxruntime import ORTQuantizer
from optimum.onnxruntime.configuration import AutoQuantizationConfig

PACKAGES = ("optimum-onnx", "onnxruntime", "transformers")


def main() -> None:
    """Quantize and print the versions."""
    job = json.loads(sys.stdin.read())
    configuration = getattr(AutoQuantizationConfig, job["instructions"])(is_static=False)
    quantizer = ORTQuantizer.from_pretrained(job["model"], file_name="model.onnx")
    quantizer.quantize(save_dir=job["out"], quantization_config=configuration)
    print(json.dumps({"versions": {package: metadata.version(package) for package in PACKAGES}}))


if __name__ == "__main__":
    main()
