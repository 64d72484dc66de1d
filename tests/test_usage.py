"""What work takes: each figure against work of a known size, and what a machine does not tell is missing."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from compress.pipeline.cache import PARTIAL
from compress.pipeline.workshop import SPENT, Kind, Workshop
from compress.run.ledger import Ledger
from compress.sealed import read_sealed
from compress.usage import Nvml, Rapl, Usage, metered, together

MIB = 2**20
IN_A_CHILD = "sum(range(3_000_000)); open({!r}, 'wb').write(bytes(8 * 2**20))"


def test_memory_is_that_of_the_work_itself_also_within_other_work() -> None:
    with metered() as outer:
        first = bytearray(40 * MIB)
        with metered() as inner:
            second = bytearray(20 * MIB)
            del second
        del first
        with metered() as later:
            pass
    assert inner.usage.memory_growth_mib == pytest.approx(20, abs=4)
    assert outer.usage.memory_growth_mib == pytest.approx(60, abs=6)
    assert later.usage.memory_growth_mib == pytest.approx(0, abs=4)
    assert inner.usage.peak_memory_mib == outer.usage.peak_memory_mib


def test_children_and_what_they_write_count(tmp_path: Path) -> None:
    place = Path.cwd() / f".{tmp_path.name}-{id(tmp_path)}"  # a disk, where the temporary folder may be in memory
    try:
        with metered() as meter:
            subprocess.run([sys.executable, "-c", IN_A_CHILD.format(str(place))], check=True)
    finally:
        place.unlink(missing_ok=True)
    assert meter.usage.processor_seconds is not None
    assert meter.usage.written_mib is not None
    assert meter.usage.processor_seconds > 0.01
    assert meter.usage.written_mib >= 8
    assert meter.usage.seconds > 0


def test_sums_leave_out_what_one_part_does_not_tell_and_peaks_are_the_highest() -> None:
    parts = [
        Usage(seconds=1, processor_seconds=2, peak_memory_mib=300, written_mib=4, gpu_joules=5),
        Usage(seconds=10, processor_seconds=20, peak_memory_mib=100, written_mib=40),
    ]
    assert together(parts) == Usage(seconds=11, processor_seconds=22, peak_memory_mib=300, written_mib=44)
    assert together([]) == Usage()


def test_a_usage_is_read_as_it_was_written_and_from_older_products() -> None:
    usage = Usage(seconds=2.5, written_mib=1.0)
    assert usage.report() == {"seconds": 2.5, "written_mib": 1.0}
    assert Usage.read({"key": "k", **usage.report()}) == usage
    assert Usage.read({"key": "k", "seconds": 3.0}) == Usage(seconds=3.0)


def package(folder: Path, name: str, microjoules: int, wraps: int) -> Path:
    place = folder / name
    place.mkdir()
    (place / "max_energy_range_uj").write_text(f"{wraps}\n")
    (place / "energy_uj").write_text(f"{microjoules}\n")
    return place / "energy_uj"


def test_energy_counters_wrap_and_those_of_a_packages_parts_do_not_count_twice(tmp_path: Path) -> None:
    first = package(tmp_path, "intel-rapl:0", 9_000_000, 9_999_999)
    second = package(tmp_path, "intel-rapl:1", 1_000_000, 9_999_999)
    package(tmp_path, "intel-rapl:0:0", 5_000_000, 9_999_999)
    counters = Rapl(tmp_path)
    assert counters.read() == 0
    first.write_text("2000000")  # it wrapped
    second.write_text("1500000")
    assert counters.read() == pytest.approx(3.5)
    first.write_text("3000000")
    assert counters.read() == pytest.approx(4.5)


def test_energy_is_missing_where_nothing_counts_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert Rapl(tmp_path).read() is None
    monkeypatch.setattr(Nvml, "_joules", lambda *_: None)
    assert Nvml().read() is None


def test_a_stage_costs_what_its_products_cost_when_they_were_made(tmp_path: Path) -> None:
    workshop = Workshop(tmp_path)

    def small(folder: Path) -> None:
        (folder / "a").write_bytes(bytes(MIB))

    def large(folder: Path) -> None:
        workshop.make(Kind("small", revision=1), ["within"], small)  # part of what the large one took

    def costs() -> Ledger:
        ledger = Ledger()
        with ledger.part("first"):
            workshop.make(Kind("small", revision=1), [1], small)
        with ledger.part("second"):
            workshop.make(Kind("small", revision=1), [1], small)  # counted before
            workshop.make(Kind("large", revision=1), [1], large)
        return ledger

    made, again = costs().costs, costs().costs
    assert [(cost.stage, cost.products, cost.reused) for cost in made] == [("first", 1, 0), ("second", 1, 0)]
    assert [(cost.stage, cost.products, cost.reused) for cost in again] == [("first", 1, 1), ("second", 1, 1)]
    assert [cost.usage for cost in made] == [cost.usage for cost in again]
    assert all(cost.usage.seconds > 0 for cost in made)


def test_attempts_that_were_interrupted_count(tmp_path: Path) -> None:
    workshop, stops = Workshop(tmp_path), True

    def work(folder: Path) -> None:
        (folder / "a").write_text("begun")
        sum(range(2_000_000))
        if stops:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        workshop.make(Kind("thing", revision=1), [1], work)
    (partial,) = tmp_path.glob(f"thing-*{PARTIAL}")
    spent = Usage.read(read_sealed(partial / SPENT) or {})
    assert spent.seconds > 0
    stops = False
    product = workshop.make(Kind("thing", revision=1), [1], work)
    assert product.seconds > spent.seconds
    assert (product.usage.processor_seconds or 0) > (spent.processor_seconds or 0)
