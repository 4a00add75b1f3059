"""Running sums: one accumulator for each column of the axis, vectors of columns side by side."""

from __future__ import annotations

from collections.abc import Callable

from tvm import tirx
from tvm.tirx.script import builder as T

from planish.ir.graph import Node
from planish.targets.emitters.function import Buffer, choice, function, rows_of, tasks
from planish.targets.expressions.opaque import add
from planish.targets.expressions.view import Expr

#: Sums of floats are taken in a wider type: a chain of additions costs the same in it.
_ACCUMULATOR = {"float16": "float32", "float32": "float64"}


def cumsum(kernel: Node) -> tirx.PrimFunc:
    """Parallel over what lies before the axis and over vectors of what lies behind it."""
    (node,) = kernel.regions[0].nodes
    outer, length, inner = rows_of(node.inputs[0], node.attrs["axis"])
    lanes = min(int(choice(kernel, "lanes")), inner)
    whole = inner // lanes

    def build(node: Node, x: Buffer, y: Buffer) -> None:
        with tasks(kernel, outer * whole) as task:
            row, column = tirx.floordiv(task, whole), tirx.floormod(task, whole) * lanes
            _column(node, x, y, length, lanes, lambda t, v: [row, t, column + v])
        if inner % lanes:
            with tasks(kernel, outer) as row:
                _column(node, x, y, length, inner % lanes, lambda t, v: [row, t, whole * lanes + v])

    return function(kernel, build, [(outer, length, inner)] * 2)


def _column(
    node: Node, x: Buffer, y: Buffer, length: int, width: int,
    at: Callable[[Expr, Expr], list[Expr]],
) -> None:  # fmt: skip
    dtype = node.output.type.dtype.value
    wide = _ACCUMULATOR.get(dtype, dtype)
    loop = T.vectorized if width in (4, 8, 16, 32) else T.serial
    total = T.alloc_buffer((width,), wide)
    with loop(0, width) as v:
        T.buffer_store(total, tirx.const(0, wide), [v])
    with T.serial(0, length) as step:
        t = (length - 1) - step if node.attrs["reverse"] else step
        with loop(0, width) as v:
            term = x[*at(t, v)].astype(wide)
            if node.attrs["exclusive"]:
                T.buffer_store(y, total[v].astype(dtype), at(t, v))
                T.buffer_store(total, add(total[v], term), [v])
            else:
                T.buffer_store(total, add(total[v], term), [v])
                T.buffer_store(y, total[v].astype(dtype), at(t, v))
