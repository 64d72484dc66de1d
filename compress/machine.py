"""The machine that a figure was measured on, and which int8 arithmetic is right on it."""

from __future__ import annotations

import ctypes
import os
import platform
from collections.abc import Sequence
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

import psutil

from compress import __version__

PACKAGES = (
    "compress", "torch", "transformers", "accelerate", "datasets", "tokenizers", "numpy", "onnx", "onnxscript",
    "onnxruntime", "hydra-core", "scikit-learn", "bitsandbytes",
)  # fmt: skip
INTERESTING = (
    "avx2", "avx512f", "avx_vnni", "avx512_vnni", "avx512_bf16", "amx_int8", "amx_bf16", "asimddp", "i8mm", "sve",
)  # fmt: skip


@cache
def _cpuinfo() -> dict[str, str]:
    """Return the first processor's entries of /proc/cpuinfo; empty where there is none."""
    path = Path("/proc/cpuinfo")
    lines = path.read_text().split("\n\n")[0].splitlines() if path.exists() else []
    return {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in lines)}


@cache
def instructions() -> tuple[str, ...]:
    """Return which of the instruction sets that matter for inference this processor has."""
    fields = _cpuinfo()
    flags = set((fields.get("flags") or fields.get("Features") or "").split())
    return tuple(name for name in INTERESTING if name in flags)


INT8_DOT_PRODUCT = ("avx_vnni", "avx512_vnni", "amx_int8", "asimddp", "i8mm")
"""The instruction sets, each of them enough, with which int8 products are summed in 32 bits: VNNI, AMX, Arm's."""


def int8_dot_product() -> bool:
    """Return whether int8 products are summed in 32 bits.

    Without it, as on processors with AVX2 alone, pairs of u8·s8 products are summed in 16 bits and saturate
    unless weights use 7 bits.
    """
    return any(name in instructions() for name in INT8_DOT_PRODUCT)


def lacks_instructions(names: Sequence[str]) -> bool:
    """Return whether this processor is known to have none of these instruction sets."""
    return bool(_cpuinfo()) and not set(names) & set(instructions())


def cores() -> int:
    """Return the number of logical processors."""
    return psutil.cpu_count(logical=True) or 1


def tasks() -> float | None:
    """Return how many tasks run or wait for a processor, this one included; None where the system does not tell.

    Linux counts them now; elsewhere it is the mean of the last minute.
    """
    try:
        return float(Path("/proc/loadavg").read_text().split()[3].partition("/")[0])
    except (OSError, ValueError, IndexError):
        pass
    try:
        return os.getloadavg()[0]
    except (OSError, AttributeError):
        return None


def describe(threads: int) -> dict[str, Any]:
    """Return the machine as the report shows it."""
    import torch

    return {
        "cpu": _cpuinfo().get("model name") or platform.processor() or platform.machine(),
        "instructions": list(instructions()),
        "cores": cores(),
        "threads": threads,
        "gpu": torch.cuda.get_device_name(0) if torch.cuda.is_available() else None,
        "memory_gib": round(psutil.virtual_memory().total / 2**30, 1),
        "system": f"{platform.system()} {platform.machine()}, Python {platform.python_version()}",
    }


def versions() -> dict[str, str]:
    """Return the versions of the packages that figures depend on, of those that are installed."""
    return dict(_installed())


@cache
def _installed() -> tuple[tuple[str, str], ...]:
    """Read once: there are hundreds of distributions, and every product of the cache asks."""
    known = {found.name.lower(): found.version for found in metadata.distributions()} | {"compress": __version__}
    return tuple((name, known[name]) for name in PACKAGES if name in known)


@cache
def compute_capability() -> str | None:
    """Return the first NVIDIA GPU's compute capability ("8.6"), asked of the driver; None without GPU or driver.

    Unlike torch's answer it does not depend on how torch was built.
    """
    try:
        driver = ctypes.CDLL("libcuda.so.1")
    except OSError:
        return None
    count, major, minor = ctypes.c_int(), ctypes.c_int(), ctypes.c_int()
    if driver.cuInit(0) or driver.cuDeviceGetCount(ctypes.byref(count)) or not count.value:
        return None
    for part, attribute in ((major, 75), (minor, 76)):  # CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR, _MINOR
        if driver.cuDeviceGetAttribute(ctypes.byref(part), attribute, 0):
            return None
    return f"{major.value}.{minor.value}"
