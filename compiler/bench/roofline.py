"""What a model's kernels take, against what the machine could do for each: its roofline."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from planish.artefact.format import KernelInfo
from planish.artefact.loading import Model
from planish.bench.peaks import Peaks
from planish.bench.turns import TOLERATED
from planish.bench.worker import ForeignLoad

Progress = Callable[[str, int, int], None]


@dataclass(frozen=True, slots=True)
class KernelFigure:
    """A kernel's time against its roofline.

    `share` is of all kernels' time. `level` is the memory that its working set (all that it reads
    and writes) lives in. `roofline` is the least time, in seconds, that the machine's peaks leave:
    of computing, or of moving the bytes from that level, whichever `bound` says.
    """

    kernel: KernelInfo
    seconds: float
    share: float
    level: str
    bound: Literal["compute", "memory"]
    roofline: float

    @property
    def gflops(self) -> float:
        """Billions of operations a second."""
        return self.kernel.flops / self.seconds / 1e9

    @property
    def gbs(self) -> float:
        """Billions of bytes a second."""
        return self.kernel.bytes / self.seconds / 1e9

    @property
    def achieved(self) -> float:
        """How near the kernel comes to its roofline; 1 is there."""
        return self.roofline / self.seconds


def excess(achieved: float | None, bound: str, what: str, others: float = 0.0) -> str:
    """Why a kernel takes less than its roofline, in words; empty for one that does not.

    The roofline is made of measured peaks, of a whole level of memory and of this machine at one
    moment; it is no law of nature. `what` names the kernel's ops; `others` is how many CPUs
    other processes used while the peaks were measured.
    """
    if achieved is None or achieved <= 1:
        return ""
    if others > TOLERATED:
        return (
            f"the peaks were measured while other processes used {others:.1f} CPUs, "
            "so that they are too low"
        )
    if bound == "compute" and "winograd" in what:
        return "operations are counted as the model has them, and Winograd's form does fewer"
    if bound == "memory":
        return (
            "it moves its bytes faster than its level of memory was measured: a part of them stays "
            "in a nearer cache, or is written and never read"
        )
    return (
        "it computes faster than the peak of float32 multiply-adds was measured: the machine ran "
        "slower then, or narrower types do more in one instruction"
    )


def spell_achieved(achieved: float) -> str:
    """`0.87` → "87%", `1.12` → "112%*": the mark stands for what `excess` says."""
    return f"{achieved:.0%}" + ("*" if achieved > 1 else "")


def judge_kernels(
    kernels: Sequence[KernelInfo], seconds: Sequence[float], peaks: Peaks, threads: int
) -> list[KernelFigure]:
    """The kernels with their rooflines, the slowest first.

    The roofline is min(peak, bandwidth · intensity), written as times, so that kernels without
    operations have one as well. After S. Williams, A. Waterman, D. Patterson, "Roofline: an
    insightful visual performance model", Communications of the ACM 52 (2009).
    """
    whole = sum(seconds)
    figures = []
    for kernel, spent in zip(kernels, seconds, strict=True):
        level = peaks.level_of(kernel.bytes, threads).name
        computing = kernel.flops / peaks.flops[threads]
        moving = kernel.bytes / peaks.reading(level, threads).rate
        bound: Literal["compute", "memory"] = "compute" if computing > moving else "memory"
        roofline = max(computing, moving)
        figures.append(KernelFigure(kernel, spent, spent / whole, level, bound, roofline))
    return sorted(figures, key=lambda figure: -figure.seconds)


def achieved_overall(figures: Sequence[KernelFigure]) -> float:
    """How near all kernels together come to their rooflines: weighted by time."""
    return sum(f.roofline for f in figures) / sum(f.seconds for f in figures)


def time_kernels(
    model: Model,
    inputs: Mapping[str, np.ndarray],
    duration: float,
    progress: Progress | None = None,
) -> tuple[list[float], float]:
    """Median seconds of each kernel over runs for `duration` seconds, at least five.

    The first two runs, on cold caches and sleeping threads, do not count. With the times comes how
    many CPUs other processes used meanwhile.
    """
    runs: list[list[float]] = []
    model.run(inputs)
    model.run(inputs)
    load, begin = ForeignLoad(), time.perf_counter()
    while len(runs) < 5 or time.perf_counter() < begin + duration:
        if progress is not None:
            spent = time.perf_counter() - begin
            progress(
                "time kernels", min(int(1e3 * spent), int(1e3 * duration)), int(1e3 * duration)
            )
        runs.append([seconds for _, seconds in model.profile(inputs)])
    return [statistics.median(column) for column in zip(*runs)], load.cpus()
