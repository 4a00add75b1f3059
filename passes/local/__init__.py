"""planish.passes.local: passes over the schedule of one kernel; each gives a new kernel."""

from planish.passes.local.directives import (
    compute_at,
    decompose_reduction,
    fuse,
    inline,
    parallelize,
    reorder,
    reverse_compute_at,
    scheduled,
    set_scope,
    split,
    tile,
    unroll,
    unscheduled,
    vectorize,
    with_schedule,
)
from planish.passes.local.loop_nest import LoopNest, loop_nest

__all__ = [
    "LoopNest",
    "compute_at",
    "decompose_reduction",
    "fuse",
    "inline",
    "loop_nest",
    "parallelize",
    "reorder",
    "reverse_compute_at",
    "scheduled",
    "set_scope",
    "split",
    "tile",
    "unroll",
    "unscheduled",
    "vectorize",
    "with_schedule",
]
