"""Running a model again and again, and what its latencies come to."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from planish.cli.printing import spell_seconds

Result = TypeVar("Result")

#: Called with (stage, done, total).
Progress = Callable[[str, int, int], None]

#: Runs that do not count, where latencies are asked for and no number of them is given.
WARM_UP = 2
#: Seconds between what is told of the progress.
_TELLING = 0.2


@dataclass(frozen=True, slots=True)
class Course:
    """How often to run: `repeat` times, or for `duration` seconds, whichever ends first (None: no
    limit; one of them is given). `warm_up` runs before do not count."""

    repeat: int | None
    duration: float | None
    warm_up: int


@dataclass(frozen=True, slots=True)
class Latencies:
    """The seconds of each run; `interrupted` if there would have been more."""

    seconds: tuple[float, ...]
    interrupted: bool = False

    def figures(self) -> dict[str, float]:
        """Least, mean, percentiles and largest of them, in seconds."""
        p50, p90, p99 = np.percentile(self.seconds, (50, 90, 99)).tolist()
        return {
            "min": min(self.seconds),
            "mean": sum(self.seconds) / len(self.seconds),
            "p50": p50,
            "p90": p90,
            "p99": p99,
            "max": max(self.seconds),
        }

    @property
    def throughput(self) -> float:
        """Runs a second, one after the other."""
        return len(self.seconds) / sum(self.seconds)

    def __str__(self) -> str:
        told = ", ".join(f"{name} {spell_seconds(value)}" for name, value in self.figures().items())
        runs = f"{len(self.seconds)} run{'s' * (len(self.seconds) != 1)}"
        early = ", interrupted" if self.interrupted else ""
        return f"latency of {runs}{early}: {told}; {self.throughput:.4g} runs/s"


def run_course(
    run: Callable[[], Result], course: Course, progress: Progress
) -> tuple[Result, Latencies]:
    """The last run's result, and the latencies.

    KeyboardInterrupt ends it early once a run has counted.
    """
    for number in range(course.warm_up):
        progress("warm up", number, course.warm_up)
        run()
    seconds: list[float] = []
    begun, told = time.perf_counter(), 0.0
    try:
        while not seconds or not _is_over(course, len(seconds), begun):
            if time.perf_counter() - told > _TELLING:  # telling takes longer than some runs
                _tell(course, len(seconds), begun, progress)
                told = time.perf_counter()
            start = time.perf_counter()
            result = run()
            seconds.append(time.perf_counter() - start)
    except KeyboardInterrupt:
        if not seconds:
            raise
        return result, Latencies(tuple(seconds), True)
    return result, Latencies(tuple(seconds))


def _is_over(course: Course, runs: int, begun: float) -> bool:
    if course.repeat is not None and runs >= course.repeat:
        return True
    return course.duration is not None and time.perf_counter() - begun >= course.duration


def _tell(course: Course, runs: int, begun: float, progress: Progress) -> None:
    if course.duration is None:
        progress("run", runs, course.repeat or 0)
    else:
        spent = time.perf_counter() - begun
        progress("run, seconds", int(spent), int(course.duration))
