"""Ask a Triton server that tokenizes itself: python client.py MODEL TEXT [TEXT ...]; see --help.

Needs: pip install 'tritonclient[http]'
"""

import argparse
import json

import numpy as np


def main() -> None:
    """Print what the server says of each text."""
    import tritonclient.http as triton

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", help="its name in the repository, as onnx_text")
    parser.add_argument("texts", nargs="+", metavar="TEXT")
    parser.add_argument("--pairs", nargs="+", metavar="TEXT", help="the second text of each, for a task on pairs")
    parser.add_argument("--url", default="localhost:8000")
    arguments = parser.parse_args()
    inputs = []
    for name, texts in (("TEXT", arguments.texts), ("TEXT_PAIR", arguments.pairs)):
        if texts:
            rows = np.array([[text.encode()] for text in texts], dtype=np.object_)
            inputs.append(triton.InferInput(name, list(rows.shape), "BYTES"))
            inputs[-1].set_data_from_numpy(rows)
    with triton.InferenceServerClient(url=arguments.url) as client:
        outputs = [output["name"] for output in client.get_model_metadata(arguments.model)["outputs"]]
        answer = client.infer(arguments.model, inputs, outputs=[triton.InferRequestedOutput(name) for name in outputs])
    for row, text in enumerate(arguments.texts):
        if "LABELS" in outputs:
            labels = json.loads(answer.as_numpy("LABELS")[row, 0].decode())
            print(f"{', '.join(labels) or '(none)'}\t{text}")
        elif "LABEL" in outputs:
            label = answer.as_numpy("LABEL")[row, 0].decode()
            print(f"{label}\t{answer.as_numpy('PROBABILITIES')[row].max():.4f}\t{text}")
        else:
            print(f"{answer.as_numpy('SCORE')[row, 0]:.4f}\t{text}")


if __name__ == "__main__":
    main()
