"""Take long sums over several axes one axis at a time."""

from __future__ import annotations

import math

from planish.ir.builder import emit
from planish.ir.graph import Graph, Node, Value
from planish.ir.target import Target
from planish.passes.pattern import Match, op
from planish.passes.rewrite import Rule, rewrite

#: Elements that one register sums up at most; the error grows with their number.
_LONGEST = 128


def split_reductions(graph: Graph, target: Target) -> Graph:
    """Rewrite sums and means over several axes, the last dimension kept, as two reductions.

        %1: float32[1, 4, 1, 1, 16] = reduce_mean(%0: float32[1, 4, 80, 160, 16], axes=[2, 3])
    →
        %1: float32[1, 4, 80, 1, 16] = reduce_mean(%0, axes=[3])
        %2: float32[1, 4, 1, 1, 16] = reduce_mean(%1, axes=[2])

    Vectors lie along the last dimension there: each lane would add up all elements one after the
    other. Sums of sums round less, and there is more to do at once. Along the last dimension
    itself, schedules have partial sums. Not exact: the order of the additions changes.
    """
    return rewrite(graph, RULES)


def _is_long(node: Node) -> bool:
    (x,) = node.inputs
    axes = node.attrs["axes"]
    if not x.type.is_static or not x.type.dtype.is_float or len(axes) < 2:
        return False
    reduced = [x.type.static_shape[axis] for axis in axes]
    return x.type.rank - 1 not in axes and math.prod(reduced) > _LONGEST and min(reduced) > 1


def _split(match: Match) -> Value:
    node = match.root
    *first, last = sorted(node.attrs["axes"])
    inner = emit(node.op, node.inputs[0], axes=(last,), keepdims=True)
    outer = emit(node.op, inner, axes=tuple(first), keepdims=True)
    if node.attrs["keepdims"]:
        return outer
    return emit("reshape", outer, shape=node.output.type.shape)


RULES = (Rule("long reduction", op(("reduce_sum", "reduce_mean"), where=_is_long), _split),)
