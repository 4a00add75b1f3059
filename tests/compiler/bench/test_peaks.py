"""The machine's peaks: the code that measures them, and what is made of the figures."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest

from planish.bench.peaks import (
    Bandwidth,
    Level,
    Peaks,
    build_peaks,
    measure_peaks,
    memory_levels,
    memory_to_read,
    run_peak,
    spread_cpus,
)
from planish.ir.errors import TargetError
from planish.targets.hardware import TARGETS, detect_host, find_target

KIB, MIB = 1 << 10, 1 << 20


def innermost(assembly: str, pattern: str) -> list[str]:
    """The instructions of the loop, from its label to its jump, with the most of `pattern`."""
    loops = re.findall(r"^(\.L\w+):\n((?:(?!^\.L\w+:).*\n)*?)\s+[jb]\S*\s+\1$", assembly, re.M)
    bodies = [[line.strip() for line in body.splitlines()] for _, body in loops]
    return max(bodies, key=lambda body: sum(bool(re.match(pattern, line)) for line in body))


def assembly_of(target: str, folder: Path) -> str:
    """peaks.c as assembly; skips the test where nothing compiles for the target."""
    try:
        build_peaks(find_target(target), folder / "peaks.s", "-S", "-Wall", "-Wextra", "-Werror")
    except TargetError as error:
        pytest.skip(str(error))
    return (folder / "peaks.s").read_text()


@pytest.mark.parametrize(
    ("target", "multiply_add", "register"),
    [
        ("x86-64-v4", r"vfmadd\w+ps\t.*%zmm", "zmm"),
        ("x86-64-v3", r"vfmadd\w+ps\t.*%ymm", "ymm"),
        ("cortex-a72", r"fmla\tv\d+\.4s", "v"),
    ],
)
def test_peak_loop_is_twelve_multiply_adds_in_registers(
    target: str, multiply_add: str, register: str, tmp_path: Path
) -> None:
    loop = innermost(assembly_of(target, tmp_path), multiply_add)
    work = [line for line in loop if re.match(multiply_add, line)]
    assert len(work) == 12
    chains = {
        re.findall(rf"%?{register}(\d+)", line)[0 if register == "v" else -1] for line in work
    }
    assert len(chains) == 12  # none waits for another
    assert not [line for line in loop if "(" in line or "[" in line]  # nor touches memory
    assert len(loop) <= 12 + 2  # and besides there is the counter


@pytest.mark.parametrize(
    ("target", "load"),
    [
        ("x86-64-v4", r"vpaddd\t-?\d*\(%r\w+\), %zmm|vmovdqu?a?\S*\t-?\d*\(%r\w+\), %zmm"),
        ("x86-64-v3", r"vpaddd\t-?\d*\(%r\w+\), %ymm|vmovdqu?a?\S*\t-?\d*\(%r\w+\), %ymm"),
        ("cortex-a72", r"ld[pr]\tq"),
    ],
)
def test_bandwidth_loop_reads_sixteen_vectors(target: str, load: str, tmp_path: Path) -> None:
    loop = innermost(assembly_of(target, tmp_path), load)
    loads = [line for line in loop if re.match(load, line)]
    assert sum(2 if line.startswith("ldp") else 1 for line in loads) == 16
    assert not [line for line in loop if re.match(r"st[pr]\b|\S+\t%\w+, -?\d*\(", line)]  # no store


def test_measured_rates_have_the_right_units() -> None:
    cpu = min(os.sched_getaffinity(0))
    flops = run_peak(detect_host(), [cpu], 0, window=0.002, samples=2)
    read = run_peak(detect_host(), [cpu], 16 * KIB, window=0.002, samples=2)
    # From a tenth of the slowest CPU of the list of targets to ten times the fastest one of today.
    assert 1e8 < flops < 5e12
    assert 1e8 < read < 5e12


def test_a_cpu_that_is_not_there_is_an_error() -> None:
    with pytest.raises(TargetError, match="peaks cannot be measured: Invalid argument"):
        run_peak(detect_host(), [1023], 0, window=0.001, samples=1)


def test_measuring_covers_levels_and_threads_and_is_done_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("planish.bench.peaks._measured", {})  # another test may have measured
    told: list[tuple[int, int]] = []
    peaks = measure_peaks(2, lambda stage, done, total: told.append((done, total)))
    cpus = min(2, len(os.sched_getaffinity(0)))
    assert sorted(peaks.flops) == list(range(1, cpus + 1))
    names = [level.name for level in memory_levels(detect_host())]
    ends = sorted({1, cpus})
    assert [(b.threads, b.level.name) for b in peaks.bandwidths] == [
        (count, name) for count in ends for name in names
    ]
    assert told == [(i, len(told)) for i in range(len(peaks.flops) + len(peaks.bandwidths))]
    assert measure_peaks(2) is peaks


def test_more_than_one_core_before_any_second_thread_of_one() -> None:
    pairs = {0: [0, 1], 1: [0, 1], 2: [2, 3], 3: [2, 3], 4: [4, 5]}
    assert spread_cpus([0, 1, 2, 3, 4], pairs.__getitem__) == [0, 2, 4, 1, 3]
    # The first thread of a core that this process may not use does not count.
    assert spread_cpus([1, 3], pairs.__getitem__) == [1, 3]


@pytest.mark.parametrize("target", TARGETS, ids=lambda target: target.name)
@pytest.mark.parametrize("threads", [1, 4])
def test_memory_that_is_read_lies_in_its_level(target: object, threads: int) -> None:
    machine = find_target(target.name)  # type: ignore[attr-defined]
    sizes = {
        level.name: memory_to_read(machine, level, threads) for level in memory_levels(machine)
    }
    assert sizes["L1"] < machine.l1 < sizes["L2"] <= machine.l2 < sizes["DRAM"]
    assert sizes["DRAM"] * threads > machine.l3
    assert ("L3" in sizes) == (machine.l3 > 0)
    if machine.l3:
        assert machine.l2 < sizes["L3"]
        assert sizes["L3"] * threads <= max(machine.l3, 2 * machine.l2 * threads)
    assert all(size % (4 * KIB) == 0 for size in sizes.values())


def test_level_of_a_working_set() -> None:
    levels = [
        Level("L1", 32 * KIB, False),
        Level("L2", MIB, False),
        Level("L3", 8 * MIB, True),
        Level("DRAM", None, True),
    ]
    peaks = Peaks(
        {1: 1e9, 2: 2e9},
        tuple(Bandwidth(level, threads, 4096, 1e9) for threads in (1, 2) for level in levels),
    )
    found = [
        peaks.level_of(size, threads).name
        for threads in (1, 2)
        for size in (32 * KIB, 64 * KIB, MIB + 1, 2 * MIB, 8 * MIB, 8 * MIB + 1)
    ]
    assert found == ["L1", "L2", "L3", "L3", "L3", "DRAM", "L1", "L1", "L2", "L2", "L3", "DRAM"]
