"""Local passes: each takes a kernel and gives the kernel with one more step in its schedule.

They know the loops (`loop_nest`) and refuse what is not legal, or would surely be slow, with a
ScheduleError that names kernel, directive and reason; TVM is not asked. `scheduled` turns the
refusal into a value, as passes over whole graphs want it:

    @local_pass
    def wide_rows(kernel: Node, target: Target) -> Schedule | Refusal | None:
        return scheduled(kernel, lambda k: vectorize(k, "out", "d1", lanes=target.lanes()))

In the docstrings a stage stands for its loops, outermost first, and what they compute.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from planish.ir.errors import ScheduleError
from planish.ir.graph import Node
from planish.ir.schedule import Directive, Schedule
from planish.passes.local.loop import Loop
from planish.passes.local.loop_nest import LoopNest, loop_nest
from planish.passes.rewrite import Refusal

#: Iterations of a loop that may be unrolled, and lanes of a vector: beyond, code only grows.
MOST_UNROLLED = 64
#: Bytes of a buffer of scope "local", which lies on the stack of a thread.
MOST_LOCAL_BYTES = 1 << 16


def split(
    kernel: Node, stage: str, axis: str, factor: int, outer: str = "", inner: str = ""
) -> Node:
    """One loop as two; where the factor does not divide, the body gets a guard.

    before: acc: n, oc, ow            after: split(acc, ow, 4)  →  acc: n, oc, ow.o, ow.i
    """
    extent = _loop(kernel, stage, axis).extent
    _require(kernel, factor <= extent, f"factor {factor} exceeds the {extent} steps of '{axis}'")
    step = ("split", stage, axis, factor, outer or f"{axis}.o", inner or f"{axis}.i")
    return _appended(kernel, step)


def tile(kernel: Node, stage: str, sizes: Mapping[str, int]) -> Node:
    """Whole tiles: each axis split by its size, which must divide it, the parts innermost.

    before: acc: m, n, k              after: tile(acc, {m: 4, n: 8})  →  acc: m.o, n.o, k, m.i, n.i
    """
    for axis, size in sizes.items():
        extent = _loop(kernel, stage, axis).extent
        _require(
            kernel,
            size >= 1 and extent % size == 0,
            f"tiles of {size} do not divide the {extent} steps of '{axis}' of '{stage}'",
        )
        kernel = split(kernel, stage, axis, size)
    within = [f"{axis}.i" for axis in sizes]
    rest = [axis for axis in loop_nest(kernel).stage(stage).axes if axis not in within]
    return reorder(kernel, stage, (*rest, *within))


def reorder(kernel: Node, stage: str, axes: Sequence[str]) -> Node:
    """The loops named, in this order, in the places that they had; the others stay.

    before: acc: m, n, k              after: reorder(acc, [k, n])  →  acc: m, k, n
    """
    return _appended(kernel, ("reorder", stage, tuple(axes)))


def fuse(kernel: Node, stage: str, axes: Sequence[str], fused: str = "") -> Node:
    """Loops that follow each other as one.

    before: out: n, oc, oh            after: fuse(out, [n, oc])  →  out: n_oc, oh
    """
    return _appended(kernel, ("fuse", stage, tuple(axes), fused or "_".join(axes)))


def vectorize(kernel: Node, stage: str, axis: str, lanes: int = 0) -> Node:
    """The innermost loop as vector instructions; with `lanes`, vectors of so many of its steps.

    Refused where the loop has a guard, or `lanes` leave a remainder: it would be scalar code.

    before: out: d0, d1               after: vectorize(out, d1, lanes=8)  →  out: d0, d1.o, |d1.v|
    """
    loop = _loop(kernel, stage, axis)
    if lanes and lanes != loop.extent:
        whole = lanes > 0 and loop.extent % lanes == 0
        _require(kernel, whole, f"vectors of {lanes} do not divide {loop.extent} steps of '{axis}'")
        kernel = split(kernel, stage, axis, lanes, inner=f"{axis}.v")
        return vectorize(kernel, stage, f"{axis}.v")
    _require(kernel, not loop.guarded, f"'{axis}' comes from a factor that leaves a remainder")
    _require(
        kernel,
        loop.extent <= MOST_UNROLLED,
        f"'{axis}' of {loop.extent} steps is no vector; at most {MOST_UNROLLED}, give `lanes`",
    )
    return _appended(kernel, ("vectorize", stage, axis))


def parallelize(kernel: Node, stage: str, axis: str) -> Node:
    """The loop's iterations shared among the threads.

    before: out: d0, d1               after: parallelize(out, d0)  →  out: ‖d0‖, d1
    """
    return _appended(kernel, ("parallel", stage, axis))


def unroll(kernel: Node, stage: str, axis: str) -> Node:
    """The loop's body as often as it has iterations.

    before: acc: k, m.i, n.v          after: unroll(acc, m.i)  →  acc: k, m.i×, n.v
    """
    extent = _loop(kernel, stage, axis).extent
    _require(
        kernel, extent <= MOST_UNROLLED, f"'{axis}' has {extent} steps, at most {MOST_UNROLLED}"
    )
    return _appended(kernel, ("unroll", stage, axis))


def inline(kernel: Node, stage: str) -> Node:
    """A stage that is no reduction as an expression of its readers; it is not stored any more.

    before: exp: d0, k;  sum: d0, k (exp);  out: d0, d1 (exp, sum)
    after:  inline(exp)  →  sum: d0, k;  out: d0, d1 (sum)
    """
    return _appended(kernel, ("inline", stage))


def compute_at(kernel: Node, stage: str, consumer: str, axis: str) -> Node:
    """A stage under a loop of its reader, over as much as one iteration needs.

    before: sum: d0, k;  out: d0, d1 (sum)
    after:  compute_at(sum, out, d0)  →  out: d0 { sum: d0 (1), k;  d1 (sum) }
    """
    return _appended(kernel, ("compute_at", stage, consumer, axis))


def reverse_compute_at(kernel: Node, stage: str, producer: str, axis: str) -> Node:
    """A stage under a loop of what it reads, over as much as one iteration has completed.

    before: acc: m, n, k;  out: m, n (acc)
    after:  reverse_compute_at(out, acc, m)  →  acc: m { n, k;  out: m (1), n (acc) }
    """
    return _appended(kernel, ("reverse_compute_at", stage, producer, axis))


def set_scope(kernel: Node, stage: str, scope: str) -> Node:
    """Where the stage's buffer lives: "local" is a cache on the thread's stack, or in registers.

    before: acc: m { n.v, k } in global    after: set_scope(acc, local)  →  the same in local
    """
    nest = loop_nest(kernel)
    if scope == "local" and stage in nest.stages:
        size = _held_elements(nest, stage) * _widest(kernel)
        _require(
            kernel,
            size <= MOST_LOCAL_BYTES,
            f"'{stage}' holds {size} bytes at once, at most {MOST_LOCAL_BYTES} can be local: "
            "compute it under a loop of its reader (or its reader under its own) first",
        )
    return _appended(kernel, ("set_scope", stage, scope))


def decompose_reduction(kernel: Node, stage: str, axis: str) -> Node:
    """The initial value stored by loops of its own, the new stage `STAGE.init`, before `axis`.

    before: acc: m, k, n
    after:  decompose_reduction(acc, k)  →  acc: m { acc.init: n;  k, n }
    """
    return _appended(kernel, ("decompose_reduction", stage, axis))


def unscheduled(kernel: Node) -> Node:
    """The kernel with the choices of its schedule, which shape the stages, and no directives.

    before: acc: task { k, m.i, n.v }      after: acc: m, m.i, n, k
    """
    plan: Schedule | None = kernel.attrs["schedule"]
    _require(kernel, plan is not None, "there is no schedule; assign a default one first")
    assert plan is not None
    return with_schedule(kernel, replace(plan, directives=()))


def scheduled(kernel: Node, change: Callable[[Node], Node]) -> Schedule | Refusal:
    """The schedule of `change(kernel)`, or why there is none."""
    try:
        found: Schedule = change(kernel).attrs["schedule"]
    except ScheduleError as error:
        return Refusal(str(error))
    return found


def with_schedule(kernel: Node, schedule: Schedule) -> Node:
    """The same kernel under another schedule."""
    return Node(
        kernel.op,
        kernel.inputs,
        [result.type for result in kernel.outputs],
        {**kernel.attrs, "schedule": schedule},
        kernel.regions,
        kernel.provenance,
        [result.name for result in kernel.outputs],
    )


def _appended(kernel: Node, step: tuple[Any, ...]) -> Node:
    directive = Directive(step[0], step[1:])
    try:
        loop_nest(kernel).after(directive)
    except ScheduleError as error:
        raise ScheduleError(f"{kernel.where()}: {error}") from None
    plan: Schedule = kernel.attrs["schedule"]
    return with_schedule(kernel, replace(plan, directives=(*plan.directives, directive)))


def _require(kernel: Node, condition: bool, reason: str) -> None:
    if not condition:
        raise ScheduleError(f"{kernel.where()}: {reason}")


def _loop(kernel: Node, stage: str, axis: str) -> Loop:
    nest = loop_nest(kernel)
    try:
        return nest.stage(stage).loop(axis)
    except ScheduleError as error:
        raise ScheduleError(f"{kernel.where()}: {error}") from None


def _held_elements(nest: LoopNest, stage: str) -> int:
    """Elements of a stage that are alive at once, at most."""
    found = nest.stage(stage)
    loops = [loop for loop in found.loops if not loop.reduced]
    held = [s.place.axis for s in nest.readers(stage) if s.place and s.place.stage == stage]
    if held and len(held) == len(nest.readers(stage)):
        outermost = min(found.axes.index(axis) for axis in held)
        loops = [loop for loop in found.loops[outermost + 1 :] if not loop.reduced]
    return math.prod(loop.extent for loop in loops)


def _widest(kernel: Node) -> int:
    """Bytes of an element of a stage, at most."""
    return max(value.type.dtype.itemsize for value in kernel.regions[0].values())
