"""How long commands take to start: processor time (user and system), the median of several, called alternately.

python benchmarks/start.py [--rounds 7]
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import subprocess
import sys

CASES = {
    "python -c pass": ["-c", "pass"],
    "import compress": ["-c", "import compress"],
    "compress --version": ["-m", "compress", "--version"],
    "compress --help": ["-m", "compress", "--help"],
    "compress recipes": ["-m", "compress", "recipes"],
    "compress bench --help": ["-m", "compress", "bench", "--help"],
    "compress completion bash": ["-m", "compress", "completion", "bash"],
    "compress completion words": ["-m", "compress", "completion", "words"],
    "import transformers.AutoConfig": ["-c", "from transformers import AutoConfig"],
    "compress run --help": ["-m", "compress", "run", "--help"],
}
HEAVY = ("import transformers.AutoConfig", "compress run --help")  # beside the others; measured three times at most


def seconds(words: list[str]) -> float:
    """Return the processor time of a Python process."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([sys.executable, *words], check=True, stdout=subprocess.DEVNULL)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime


def main() -> None:
    """Measure all cases alternately and print a table, then a line of JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=7)
    rounds = parser.parse_args().rounds
    times: dict[str, list[float]] = {name: [] for name in CASES}
    for turn in range(rounds):
        for name, words in CASES.items():
            if name not in HEAVY or turn < 3:
                times[name].append(seconds(words))
    medians = {name: statistics.median(values) for name, values in times.items()}
    for name, median in medians.items():
        print(f"{name:<32} {median:6.3f} s   ({min(times[name]):.3f} to {max(times[name]):.3f})")
    print(json.dumps(medians))


if __name__ == "__main__":
    main()
