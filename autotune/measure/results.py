"""What is measured, and what came of it."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from pathlib import Path

from planish.autotune.measure.intervals import Interval
from planish.ir.graph import Node


class Status(enum.StrEnum):
    """How a trial ended; every one is a result worth keeping."""

    OK = "ok"
    BUILD_ERROR = "build_error"  # the code generator or the linker refused it
    REFUSED = "refused"  # the schedule does not fit the kernel, or the CPU lacks a feature
    WRONG = "wrong"  # out of tolerance, NaN, or it wrote where it must not
    TIMEOUT = "timeout"
    CRASH = "crash"
    OUT_OF_MEMORY = "out_of_memory"
    NOISY = "noisy"  # the times never came close enough together


@dataclass(frozen=True, slots=True)
class Candidate:
    """A kernel with the schedule to try; `id` names it in its result."""

    id: str
    kernel: Node


@dataclass(frozen=True, slots=True)
class Timing:
    """Seconds of one call, by samples (each the mean of `calls` in a row).

    `seconds` is the median with its 95 % interval. With an incumbent it is the median of the
    ratios of neighbouring samples times the incumbent's known seconds, so that a machine that has
    become slower since slows nobody down; `incumbent` are its samples, `ratio` that of the medians.
    """

    seconds: Interval
    samples: tuple[float, ...]
    calls: int
    incumbent: tuple[float, ...] = ()
    ratio: Interval | None = None


@dataclass(frozen=True, slots=True)
class Result:
    """What came of one candidate.

    `timing` is there for OK and NOISY. A candidate that was given up early for being far slower
    than the incumbent is OK and `hopeless`, with few samples. `foreign_cpus` is how many CPUs other
    processes kept busy meanwhile; `message` says what went wrong, or what to know of the times.
    """

    candidate: str
    status: Status
    message: str = ""
    timing: Timing | None = None
    hopeless: bool = False
    foreign_cpus: float = 0.0


@dataclass(frozen=True, slots=True)
class Built:
    """A candidate's library."""

    candidate: str
    library: Path


@dataclass(frozen=True, slots=True)
class Incumbent:
    """The best schedule so far, to measure others beside, and its seconds a call when measured."""

    candidate: Candidate
    seconds: float
