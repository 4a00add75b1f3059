"""Take long sums in two steps."""

from __future__ import annotations

import math

from planish.ir.builder import emit
from planish.ir.graph import Graph, Node, Value
from planish.ir.target import Target
from planish.ir.types import DType
from planish.passes.pattern import Match, op
from planish.passes.rewrite import Rule, rewrite

#: Elements that one register sums up at most; the error grows with their number.
_LONGEST = 128


def split_reductions(graph: Graph, target: Target) -> Graph:
    """Rewrite long sums and means that keep the last dimension as two reductions.

        %1: float32[1, 4, 1, 1, 16] = reduce_mean(%0: float32[1, 4, 80, 160, 16], axes=[2, 3])
    →
        %1: float32[1, 4, 80, 1, 16] = reduce_mean(%0, axes=[3])
        %2: float32[1, 4, 1, 1, 16] = reduce_mean(%1, axes=[2])

    One long axis is cut into two first: 512 are 16 times 32.

    Vectors lie along the last dimension there: each lane would add up all elements one after the
    other. Sums of sums round less, and there is more to do at once. Along the last dimension
    itself, schedules have partial sums. Not exact: the order of the additions changes. Partial sums
    of halves are float32, for they must neither overflow nor be rounded on the way.
    """
    return rewrite(graph, RULES)


def _is_long(node: Node) -> bool:
    (x,) = node.inputs
    axes = node.attrs["axes"]
    if not x.type.is_static or not x.type.dtype.is_float or x.type.rank - 1 in axes:
        return False
    extents = [x.type.static_shape[axis] for axis in axes]
    if math.prod(extents) <= _LONGEST:
        return False
    return min(extents) > 1 if len(axes) > 1 else _part(extents[0]) > 1


def _part(extent: int) -> int:
    """The largest divisor of an axis whose square does not exceed it."""
    return max(size for size in range(1, math.isqrt(extent) + 1) if extent % size == 0)


def _split(match: Match) -> Value:
    node = match.root
    (x,) = node.inputs
    axes = tuple(sorted(node.attrs["axes"]))
    if len(axes) == 1:
        (axis,), shape = axes, x.type.static_shape
        part = _part(shape[axis])
        cut = (*shape[:axis], part, shape[axis] // part, *shape[axis + 1 :])
        x, axes = emit("reshape", x, shape=cut), (axis, axis + 1)
    given = x.type.dtype
    wide = DType.FLOAT64 if given is DType.FLOAT64 else DType.FLOAT32
    if given is not wide:
        x = emit("cast", x, to=wide)
    inner = emit(node.op, x, axes=axes[-1:], keepdims=True)
    outer = emit(node.op, inner, axes=axes[:-1], keepdims=True)
    if given is not wide:
        outer = emit("cast", outer, to=given)
    if outer.type.shape == node.output.type.shape:
        return outer
    return emit("reshape", outer, shape=node.output.type.shape)


RULES = (Rule("long reduction", op(("reduce_sum", "reduce_mean"), where=_is_long), _split),)
