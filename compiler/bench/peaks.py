"""The machine's own peaks, measured: float32 multiply-adds, and reading from each level of memory.

peaks.c is compiled with the toolchain that links artefacts, for the widest vectors that the machine
has, and run on pinned threads. Nothing is stored: another hour, or another neighbour on the same
hardware, gives other peaks; within a process they are measured once.
"""

from __future__ import annotations

import ctypes
import functools
import os
import subprocess
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from planish.bench.worker import ForeignLoad
from planish.ir.errors import TargetError
from planish.ir.scratch import scratch_folder
from planish.ir.target import Target
from planish.targets.hardware import cpu_list, detect_host
from planish.targets.linking import find_toolchain

Progress = Callable[[str, int, int], None]

WINDOW_SECONDS = 0.01
SAMPLES = 8
KIB, MIB = 1 << 10, 1 << 20
#: Memory is taken in multiples of this: whole pages, and whole steps of peaks.c's loop.
_GRAIN = 4 * KIB
#: A thread's part of main memory: what no cache holds, but no more than this.
_MOST_MEMORY = 512 * MIB

#: Compiler options by vector width in bytes; NEON and SSE2 are what their architectures begin with.
_X86_OPTIONS = {64: ("-mavx512f", "-mfma"), 32: ("-mavx2", "-mfma"), 16: ()}


@dataclass(frozen=True, slots=True)
class Level:
    """A level of memory: its name, and the bytes up to which a working set lives in it.

    L1 and L2 are a core's own, so theirs is the share of one thread; L3 is shared by all. The last
    level has no end.
    """

    name: str
    capacity: int | None
    shared: bool


@dataclass(frozen=True, slots=True)
class Bandwidth:
    """Bytes a second that `threads` read together from a level, each `bytes` of its own."""

    level: Level
    threads: int
    bytes: int
    rate: float


@dataclass(frozen=True, slots=True)
class Peaks:
    """What the machine does at best: flops a second by number of threads, and bandwidths.

    `others` is how many CPUs other processes used meanwhile: with any, it could do more.
    """

    flops: Mapping[int, float]
    bandwidths: tuple[Bandwidth, ...]
    others: float = 0.0

    def reading(self, level: str, threads: int) -> Bandwidth:
        """The bandwidth of a level for a number of threads that was measured."""
        return next(b for b in self.bandwidths if (b.level.name, b.threads) == (level, threads))

    def level_of(self, working_set: int, threads: int) -> Level:
        """The level that holds a working set which `threads` divide among themselves."""
        for level in (b.level for b in self.bandwidths if b.threads == threads):
            share = working_set if level.shared else -(-working_set // threads)
            if level.capacity is None or share <= level.capacity:
                return level
        raise AssertionError("the last level has no end")


def memory_levels(target: Target) -> tuple[Level, ...]:
    """The levels of a machine, the nearest first; one without an L3 has three."""
    last = (Level("L3", target.l3, True),) if target.l3 else ()
    return (
        Level("L1", target.l1, False),
        Level("L2", target.l2, False),
        *last,
        Level("DRAM", None, True),
    )


def memory_to_read(target: Target, level: Level, threads: int) -> int:
    """Bytes that each thread reads to measure a level: within it, and beyond the one before."""
    if level.name == "L1":
        wanted = target.l1 // 2
    elif level.name == "L2":
        wanted = max(target.l2 // 2, 2 * target.l1)
    elif level.name == "L3":
        wanted = max(target.l3 // (2 * threads), 2 * target.l2)
    else:
        # Four times the caches: a replacement that is not strictly by age keeps a part of them.
        cached = max(target.l3, target.l2 * threads)
        wanted = min(max(4 * cached // threads, 16 * MIB), _MOST_MEMORY)
    return -(-wanted // _GRAIN) * _GRAIN


def spread_cpus(cpus: Sequence[int], siblings: Callable[[int], Sequence[int]]) -> list[int]:
    """CPUs in the order in which threads take them: one of each core before any core's second.

    `siblings` gives the hardware threads of a CPU's core, itself included.
    """

    def turn(cpu: int) -> int:
        return sorted(set(siblings(cpu)) & set(cpus)).index(cpu)

    return sorted(cpus, key=lambda cpu: (turn(cpu), cpu))


def _siblings(cpu: int) -> list[int]:
    path = Path(f"/sys/devices/system/cpu/cpu{cpu}/topology/thread_siblings_list")
    if not path.exists():  # containers may hide it
        return [cpu]
    return sorted(cpu_list(path.read_text()))


def measure_peaks(threads: int, progress: Progress | None = None) -> Peaks:
    """Measures this machine for 1 to `threads` threads, cut to its CPUs; takes seconds.

    TargetError where there is no C compiler, or memory or threads run out.
    """
    found = _measured.get(threads)
    if found is None:
        found = _measured[threads] = _measure(threads, progress)
    return found


_measured: dict[int, Peaks] = {}


def _measure(threads: int, progress: Progress | None) -> Peaks:
    target = detect_host()
    cpus = spread_cpus(sorted(os.sched_getaffinity(0)), _siblings)[:threads]
    counts = list(range(1, len(cpus) + 1))
    levels = memory_levels(target)
    ends = sorted({1, len(cpus)})
    total = len(counts) + len(levels) * len(ends)
    done = iter(range(total))
    load = ForeignLoad()

    def rate(count: int, size: int) -> float:
        if progress is not None:
            progress("measure peaks", next(done), total)
        return run_peak(target, cpus[:count], size)

    flops = {count: rate(count, 0) for count in counts}
    bandwidths = []
    for count in ends:
        for level in levels:
            size = memory_to_read(target, level, count)
            bandwidths.append(Bandwidth(level, count, size, rate(count, size)))
    return Peaks(flops, tuple(bandwidths), load.cpus())


def run_peak(
    target: Target,
    cpus: Sequence[int],
    size: int,
    window: float = WINDOW_SECONDS,
    samples: int = SAMPLES,
) -> float:
    """The best rate of a thread on each of `cpus`: bytes a second read from `size` bytes of its
    own, or flops a second where `size` is 0.

    TargetError with the system's reason if it cannot be measured.
    """
    rate = ctypes.c_double()
    failure = _library(target).planish_peak(
        len(cpus),
        (ctypes.c_int * len(cpus))(*cpus),
        ctypes.c_size_t(size),
        ctypes.c_double(window),
        samples,
        ctypes.byref(rate),
    )
    if failure != 0:
        raise TargetError(f"the machine's peaks cannot be measured: {os.strerror(failure)}")
    return rate.value


@functools.cache
def _library(target: Target) -> ctypes.CDLL:
    with scratch_folder(runs_code=True) as scratch:
        path = Path(scratch, "peaks.so")
        build_peaks(target, path)
        return ctypes.CDLL(str(path))


def build_peaks(target: Target, output: Path, *options: str) -> None:
    """Compiles peaks.c for a target's vectors to `output`; a library unless `options` say else.

    TargetError with the compiler's own words if it fails.
    """
    machine = _X86_OPTIONS[target.vector_bytes] if target.arch == "x86_64" else ()
    command = [
        *find_toolchain(target.triple).command,
        *("-std=c11", "-O2", "-ffp-contract=fast"),  # ISO C forbids to contract a * x + a
        *machine,
        f"-DVECTOR_BYTES={target.vector_bytes}",
        *(options or ("-shared", "-fPIC")),
        str(Path(__file__).with_name("peaks.c")),
        *("-o", str(output), "-lpthread"),
    ]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode != 0:
        told = "; ".join(done.stderr.strip().splitlines()[:3])
        raise TargetError(f"{command[0]} could not compile peaks.c: {told}")
