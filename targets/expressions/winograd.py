"""Tensor expressions of Winograd's convolution: stages `v`, `acc`, and what `out` reads of it.

`v` are the transformed patches of the input, `acc` their products with the transformed weights at
each of the 4x4 positions of a patch; the transform back is part of the expression of `out`. Which
entries of the transforms are 0, 1 or -1 depends on loops that schedules unroll: what is left of the
selections here is additions, and LLVM computes those that entries share once.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from tvm import te, tirx

from planish.ir.graph import Node
from planish.ir.ops.winograd import PATCH
from planish.ir.schedule import Schedule
from planish.targets.expressions.view import Expr, Indices, Patches, Stages, View

Read = Callable[[Expr], Expr]


def winograd_conv(node: Node, inputs: Sequence[View], stages: Stages, schedule: Schedule) -> View:
    """x[N,C,H,W,b], u[O,4,4,C,b,o]; a register tile is `p` patches of the image."""
    x, u = inputs
    shape = node.output.type.static_shape
    n, blocks, height, width, lanes = shape
    channels, block = u.shape[3:5]
    tiling = Patches(height, width, int(schedule.choice("p")))
    tiles, size = tiling.count, tiling.size

    def inside(row: Expr, column: Expr) -> tuple[Expr, Expr]:
        """A last patch of an odd edge reads any pixel in place of those that no result needs."""
        if height % 2:
            row = tirx.min(row, height + 1)
        if width % 2:
            column = tirx.min(column, width + 1)
        return row, column

    def patch(idx: Indices) -> Expr:
        b, t, c, i, j, p, lane = idx
        row, column = tiling.corner(t, p)

        def across(k: Expr) -> Expr:
            return _input(i, lambda m: x.read((b, c, *inside(row + m, column + k), lane)))

        return _input(j, across)

    # Its innermost axes are those of the loop over products, so that this reads one stream.
    order = ("n", "t", "ic", "i", "j", "p", "ici")
    v = stages.compute("v", (n, tiles, channels, PATCH, PATCH, size, block), patch, order)

    def product(idx: Indices, r: Indices) -> Expr:
        b, o, t, p, i, j, lane = idx
        return v.read((b, t, r[0], i, j, p, r[1])) * u.read((o, i, j, *r, lane))

    axes = ("n", "oc", "t", "p", "i", "j", "oci")
    reduced = [("ic", channels), ("ici", block)]
    whole = (n, blocks, tiles, size, PATCH, PATCH, lanes)
    acc = stages.reduce("acc", whole, reduced, product, te.sum, axes)
    stages.tiling = tiling

    def result(idx: Indices) -> Expr:
        t, p, i, j = tiling.here

        def across(k: Expr) -> Expr:
            return _output(i, lambda m: acc.read((*idx[:2], t, p, m, k, idx[4])))

        return _output(j, across)

    # An epilogue may read it more than once.
    return stages.bindings.shared(View(shape, x.dtype, result), "y")


def _input(i: Expr, read: Read) -> Expr:
    """Row `i` of Bᵀ times a column: d0 - d2, d1 + d2, d2 - d1, d1 - d3."""
    first = _chosen(i, [0, 1, 2, 1])
    second = _chosen(i, [2, 2, 1, 3])
    a, b = read(first), read(second)
    return tirx.Select(tirx.EQ(i, 1), a + b, a - b)


def _output(i: Expr, read: Read) -> Expr:
    """Row `i` of Aᵀ times a column: m0 + (m1 + m2), (m1 - m2) - m3."""
    middle = [read(tirx.const(k, "int32")) for k in (1, 2)]
    first, last = (read(tirx.const(k, "int32")) for k in (0, 3))
    return tirx.Select(
        tirx.EQ(i, 0), first + (middle[0] + middle[1]), (middle[0] - middle[1]) - last
    )


def _chosen(i: Expr, values: Sequence[int]) -> Expr:
    """The value number `i`."""
    found = tirx.const(values[-1], "int32")
    for k in reversed(range(len(values) - 1)):
        found = tirx.Select(tirx.EQ(i, k), tirx.const(values[k], "int32"), found)
    return found
