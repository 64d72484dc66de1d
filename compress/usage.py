"""What a piece of work takes: time, processors, memory, disk and, where the machine tells, energy."""

from __future__ import annotations

import ctypes
import os
import sys
import threading
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Annotated, Any, ClassVar

import psutil
from msgspec import Meta, Struct, convert, to_builtins

from compress.files import MIB

RAPL = Path("/sys/class/powercap")
BETWEEN = 30.0  # seconds between two readings of counters that wrap


class Usage(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What some work took; what the machine does not tell is missing, and nothing is estimated."""

    seconds: float = 0.0
    processor_seconds: Annotated[
        float | None, Meta(description="user and system time of the process and of the children that it started")
    ] = None
    peak_memory_mib: Annotated[float | None, Meta(description="the most that the process had resident")] = None
    memory_growth_mib: Annotated[float | None, Meta(description="that, less what was resident when the work began")] = (
        None
    )
    peak_gpu_memory_mib: Annotated[float | None, Meta(description="the most that PyTorch had allocated")] = None
    written_mib: Annotated[float | None, Meta(description="given to the disk by the process and its children")] = None
    processor_joules: Annotated[
        float | None, Meta(description="of all processors meanwhile, whoever used them (RAPL)")
    ] = None
    gpu_joules: Annotated[
        float | None, Meta(description="of all GPUs that the driver shows meanwhile, whoever used them (NVML)")
    ] = None

    def report(self) -> dict[str, float]:
        """Return what is known, JSON-ready."""
        found: dict[str, float] = to_builtins(self)
        return found

    @classmethod
    def read(cls, known: Mapping[str, Any]) -> Usage:
        """Return what `report` wrote, maybe among other things."""
        return convert(known, cls)


PEAKS = ("peak_memory_mib", "memory_growth_mib", "peak_gpu_memory_mib")


def together(usages: Iterable[Usage]) -> Usage:
    """Return what works took one after the other: sums, and the highest of peaks; without what is missing in one."""
    every = list(usages)
    found: dict[str, Any] = {}
    for name in Usage.__struct_fields__:
        values = [getattr(usage, name) for usage in every]
        if every and None not in values:
            found[name] = max(values) if name in PEAKS else sum(values)
    return Usage(**found)


@contextmanager
def metered() -> Iterator[Meter]:
    """Measure what the body takes; afterwards that is the meter's ``usage``."""
    meter = Meter()
    try:
        yield meter
    finally:
        meter.usage = meter.read()
        meter.close()


class Meter:
    """What counters said when some work began; meters may lie within each other."""

    open: ClassVar[list[Meter]] = []  # those whose work goes on
    guard: ClassVar[threading.Lock] = threading.Lock()

    def __init__(self) -> None:
        self.usage = Usage()
        self.processor, self.written = _spent()
        self.memory = psutil.Process().memory_info().rss
        self.energy = _energy()
        with self.guard:
            self._note_peaks()
            self.peak, self.gpu_peak = _peak_memory(), _gpu_memory()
            self.open.append(self)
        self.started = time.perf_counter()

    def read(self) -> Usage:
        """Return what the work has taken so far."""
        seconds = time.perf_counter() - self.started
        with self.guard:
            self._note_peaks()
        (processor, written), energy = _spent(), _energy()
        return Usage(
            seconds=seconds,
            processor_seconds=max(0.0, processor - self.processor),
            peak_memory_mib=None if self.peak is None else self.peak / MIB,
            memory_growth_mib=None if self.peak is None else max(0, self.peak - self.memory) / MIB,
            peak_gpu_memory_mib=None if self.gpu_peak is None else self.gpu_peak / MIB,
            written_mib=None if written is None or self.written is None else (written - self.written) / MIB,
            processor_joules=_less(energy[0], self.energy[0]),
            gpu_joules=_less(energy[1], self.energy[1]),
        )

    def close(self) -> None:
        """Measure no further."""
        with self.guard:
            self.open.remove(self)

    @classmethod
    def _note_peaks(cls) -> None:
        """Give every open meter the peaks since the last reset, and begin new ones."""
        memory, gpu = _peak_memory(), _gpu_memory()
        for meter in cls.open:
            meter.peak = _higher(meter.peak, memory)
            meter.gpu_peak = _higher(meter.gpu_peak, gpu)
        _reset_peaks()


def _higher(first: float | None, second: float | None) -> float | None:
    known = [value for value in (first, second) if value is not None]
    return max(known) if known else None


def _less(now: float | None, before: float | None) -> float | None:
    return None if now is None or before is None else now - before


def _spent() -> tuple[float, float | None]:
    """Return seconds of processors, and bytes for the disk, of this process and its children, ended or not.

    The bytes are None where the system does not count them.
    """
    times = os.times()
    seconds = time.process_time() + times.children_user + times.children_system
    written = _written(psutil.Process())  # Linux adds those of children when they end
    for child in _children(os.getpid()):
        with suppress(psutil.Error):
            own = child.cpu_times()
            seconds += own.user + own.system + getattr(own, "children_user", 0) + getattr(own, "children_system", 0)
            if written is not None:
                written += _written(child) or 0
    return seconds, written


def _written(process: psutil.Process) -> float | None:
    try:
        return float(process.io_counters().write_bytes)
    except (psutil.Error, AttributeError, OSError):
        return None


def _children(process: int) -> Iterator[psutil.Process]:
    """Yield the processes below one; Linux lists them, elsewhere all processes are looked through."""
    tasks = list(Path(f"/proc/{process}/task").glob("*/children"))
    if not tasks:
        with suppress(psutil.Error):
            yield from psutil.Process(process).children(recursive=True)
        return
    for task in tasks:
        with suppress(OSError, psutil.Error):
            for number in map(int, task.read_text().split()):
                yield psutil.Process(number)
                yield from _children(number)


def _peak_memory() -> float | None:
    """Return the most bytes that were resident since the last reset; None where that cannot be told."""
    if not _resettable():
        return None
    try:
        line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM:"))
    except (OSError, StopIteration):
        return None
    return float(line.split()[1]) * 1024


def _resettable() -> bool:
    return os.access("/proc/self/clear_refs", os.W_OK)


def _reset_peaks() -> None:
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")  # proc(5): the peak becomes what is resident now
    if (cuda := _cuda()) is not None:
        for device in range(cuda.device_count()):
            cuda.reset_peak_memory_stats(device)


def _gpu_memory() -> float | None:
    """Return the most bytes that PyTorch had allocated on all GPUs since the last reset; None where it uses none."""
    cuda = _cuda()
    if cuda is None:
        return None
    return float(sum(cuda.max_memory_allocated(device) for device in range(cuda.device_count())))


def _cuda() -> Any:
    """Return torch.cuda where it is in use; it is not imported or initialized for this."""
    torch = sys.modules.get("torch")
    cuda = getattr(torch, "cuda", None)
    return cuda if cuda is not None and cuda.is_initialized() else None


class Rapl:
    """The energy of the processors' packages (Intel's and AMD's counters); they wrap, so a thread reads them."""

    def __init__(self, place: Path = RAPL) -> None:
        self.counters: dict[Path, tuple[int, int]] = {}  # by counter: the last value, and where it wraps
        self.joules, self._guard = 0.0, threading.Lock()
        for folder in sorted(place.glob("*rapl:*")):
            if folder.name.count(":") == 1:  # a package; its parts have a second number
                with suppress(OSError, ValueError):
                    wraps = int((folder / "max_energy_range_uj").read_text())
                    self.counters[folder / "energy_uj"] = int((folder / "energy_uj").read_text()), wraps

    def read(self) -> float | None:
        """Return the joules since the counters were first read; None where no counter can be read."""
        with self._guard:
            for path, (before, wraps) in list(self.counters.items()):
                try:
                    now = int(path.read_text())
                except (OSError, ValueError):
                    del self.counters[path]
                    continue
                self.joules += ((now - before) % (wraps + 1)) / 1e6
                self.counters[path] = now, wraps
            return self.joules if self.counters else None

    def watch(self) -> None:
        """Read the counters often enough, for as long as the process lives."""
        while self.read() is not None:
            time.sleep(BETWEEN)


class Nvml:
    """The energy of NVIDIA GPUs, asked of the driver's library."""

    def __init__(self) -> None:
        self.devices: list[ctypes.c_void_p] = []
        try:
            self.library = ctypes.CDLL("libnvidia-ml.so.1")
        except OSError:
            return
        count = ctypes.c_uint()
        if self.library.nvmlInit_v2() or self.library.nvmlDeviceGetCount_v2(ctypes.byref(count)):
            return
        for number in range(count.value):
            device = ctypes.c_void_p()
            if not self.library.nvmlDeviceGetHandleByIndex_v2(number, ctypes.byref(device)):
                self.devices.append(device)

    def read(self) -> float | None:
        """Return the joules since the driver was loaded; None without a GPU that counts them."""
        found = [self._joules(device) for device in self.devices]
        known = [joules for joules in found if joules is not None]
        return sum(known) if known and len(known) == len(found) else None

    def _joules(self, device: ctypes.c_void_p) -> float | None:
        millijoules = ctypes.c_ulonglong()
        failed = self.library.nvmlDeviceGetTotalEnergyConsumption(device, ctypes.byref(millijoules))
        return None if failed else millijoules.value / 1000


_counters: list[tuple[Rapl, Nvml]] = []  # made when energy is first asked for


def _energy() -> tuple[float | None, float | None]:
    """Return the joules of the processors and of the GPUs, each since some moment in the past."""
    if not _counters:
        _counters.append((Rapl(), Nvml()))
        if _counters[0][0].counters:
            threading.Thread(target=_counters[0][0].watch, name="energy", daemon=True).start()
    rapl, nvml = _counters[0]
    return rapl.read(), nvml.read()
