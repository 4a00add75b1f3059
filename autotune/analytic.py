"""An analytic model of the time that a schedule takes: cycles of a core, from counts of its work.

It ranks the points of a space without building them. The target gives registers, vector width,
multiply-adds a cycle, cores and cache sizes; the rates below are those of today's cores, rounded,
and only their proportions matter for a ranking.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from planish.ir.target import Target

Numbers = np.ndarray | float

#: Cycles from a multiply-add to the next one that needs its sum.
FMA_LATENCY = 4.0
#: Instructions that a core begins in a cycle.
ISSUE = 5.0
#: Bytes a cycle that a core reads from L2 and from L3.
L2_BYTES, L3_BYTES = 32.0, 10.0
#: Cycles that each register beyond those of the CPU costs: spills come in groups, and wait.
SPILL = 8.0
#: Cycles to begin a tile: addresses, zeroing, loop exits.
TILE = 12.0
#: Bytes a cycle from another core's cache, which may be on another die: parts of what that core
#: made, while it takes others itself; and all of it, one tensor after another.
FOREIGN_BYTES, GATHERED_BYTES = 3.0, 4.0
#: Part of the time of reads from L2, and from beyond it, that work on registers does not hide.
NEAR_EXPOSED, FAR_EXPOSED = 0.05, 0.3
#: Cycles to wake the other cores for a kernel, and to wait for them.
LAUNCH = 6000.0


@dataclass(frozen=True, slots=True)
class Work:
    """What a kernel does under each point of a space; fields are arrays over the points.

    A step is one pass of the innermost loop: `multiplies` vector multiply-adds on `sums`
    independent registers, `loads` vectors or broadcasts read from L1, `registers` in use.
    `steps` in a tile, `tiles` in the kernel, `finish` vector instructions to end a tile. Bytes
    are for one core alone doing all: `l2`, `l3` read from there, `gathered` from the caches of
    other cores. `shares` is into how many equal pieces the work can be cut for several cores.
    Beside its own part a core then reads its part of the `foreign` bytes from the caches of others,
    and all of the `common` ones.
    """

    multiplies: Numbers
    sums: Numbers
    loads: Numbers
    registers: Numbers
    steps: Numbers
    tiles: Numbers
    finish: Numbers
    l2: Numbers
    l3: Numbers
    shares: Numbers
    parallel: Numbers
    vector_bytes: Numbers
    gathered: Numbers = 0.0
    foreign: Numbers = 0.0
    common: Numbers = 0.0


def cycles(work: Work, target: Target) -> np.ndarray:
    """Estimated cycles of the slowest core, one number for each point."""
    narrow = np.asarray(work.vector_bytes) * 2 <= target.vector_bytes
    # A core that halves its widest vectors does twice as many of half the width.
    halves = target.fma_per_cycle == 1 and target.vector_bytes > 16
    rate = np.where(narrow & halves, 2.0, float(target.fma_per_cycle))
    load_rate = np.where(np.asarray(work.vector_bytes) < 64, 2.0, rate)
    step = np.maximum(work.multiplies / rate, work.loads / load_rate)
    step = np.maximum(step, (work.multiplies + work.loads + 3.0) / ISSUE)
    step = np.maximum(step, work.multiplies / np.maximum(work.sums, 1) * FMA_LATENCY)
    spilled = np.maximum(0.0, work.registers - target.vector_registers)
    step = step + SPILL * spilled
    compute = work.tiles * (work.steps * step + work.finish / rate + TILE)
    near, far = work.l2 / L2_BYTES, work.l3 / L3_BYTES + work.gathered / GATHERED_BYTES
    memory = near + far
    # Prefetching hides the shorter of the two but for a part.
    exposed = np.where(compute > memory, NEAR_EXPOSED * near + FAR_EXPOSED * far, 0.3 * compute)
    alone = np.maximum(compute, memory) + exposed
    shares = np.maximum(work.shares, 1)
    each = np.ceil(shares / target.cores) / shares
    others = (1 - 1 / target.cores) * (work.foreign / FOREIGN_BYTES + work.common / L3_BYTES)
    together = alone * each + LAUNCH + others
    return np.asarray(np.where(work.parallel, together, alone), dtype=np.float64)


def again_from_l2(target: Target, size: Numbers, times: Numbers) -> np.ndarray:
    """Bytes from L2 when a working set of `size` bytes is read `times` times in the inner loops."""
    kept = np.asarray(size) <= 0.6 * target.l1
    return np.where(kept, 0.0, np.asarray(size, np.float64) * times)


def reads(target: Target, size: Numbers, times: Numbers) -> tuple[np.ndarray, np.ndarray]:
    """Bytes from L2 and from L3 when `size` bytes are read `times` times, one pass after another.

    What fits L2 is there from the kernel before, and stays; the rest comes from L3 each time.
    """
    size, times = np.asarray(size, np.float64), np.asarray(times, np.float64)
    stays = size <= 0.75 * target.l2
    return np.where(stays, size * times, 0.0), np.where(stays, 0.0, size * times)
