"""Turns interpolation into gathers with indices and weights known at compile time."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from planish.ir.builder import make_node
from planish.ir.graph import Attr, Graph, Node, Value, constant
from planish.ir.ops.resize import resized_axes, taps
from planish.ir.target import Target
from planish.ir.types import DType


def lower_resize(graph: Graph, target: Target) -> Graph:
    """Resize one dimension after the other: a weighted sum of gathered rows.

    before: %1 = resize(%x, sizes=[1, 8, 20, 20], mode=linear)
    after:  %1 = gather(%x, @i0, axis=2)  %2 = mul(%1, @w0)
            %3 = gather(%x, @i1, axis=2)  %4 = mul(%3, @w1)  %5 = add(%2, %4)   … axis 3 alike

    The places are computed at compile time, as `planish.ir.ops.resize.coordinates` says.
    """

    def rewrite(node: Node, inputs: tuple[Value, ...]) -> Sequence[Value] | None:
        return [_lower(node, inputs[0])] if node.op == "resize" else None

    return graph.rebuild(rewrite)


def _lower(node: Node, x: Value) -> Value:
    for axis in resized_axes(x.type, node.attrs):
        x = _resize_axis(node, x, axis)
    return x


def _resize_axis(node: Node, x: Value, axis: int) -> Value:
    index, weights = taps(x.type, axis, node.attrs)

    def make(op: str, *inputs: Value, **attrs: Attr) -> Value:
        return make_node(op, inputs, attrs, (), node.provenance).output

    rows = [
        make("gather", x, constant(np.ascontiguousarray(index[:, tap])), axis=axis)
        for tap in range(index.shape[1])
    ]
    if node.attrs["mode"] == "nearest":
        return rows[0]
    given = x.type.dtype
    exact = DType.FLOAT64 if given in (DType.FLOAT64, DType.INT64) else DType.FLOAT32
    column = tuple(-1 if d == axis else 1 for d in range(x.type.rank))
    total: Value | None = None
    for tap, row in enumerate(rows):
        if given is not exact:
            row = make("cast", row, to=exact)
        weight = constant(weights[:, tap].astype(exact.numpy).reshape(column))
        term = make("mul", row, weight)
        total = term if total is None else make("add", total, term)
    assert total is not None
    return total if given is exact else make("cast", total, to=given)
