"""Tensor expressions of the row-wise composites: softmax, layer norm and RMS norm."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from tvm import tirx

from planish.ir.graph import Node
from planish.ir.schedule import Schedule
from planish.targets.expressions.elementwise import const
from planish.targets.expressions.movement import reshaped
from planish.targets.expressions.reduction import reduce_rows
from planish.targets.expressions.vector_math import exp, exp_nonpositive, log
from planish.targets.expressions.view import Expr, Indices, Stages, Tiling, View, with_names


def softmax(node: Node, inputs: Sequence[View], stages: Stages, schedule: Schedule) -> View:
    """softmax and log_softmax along `axis`: stages max, exp (kept for the row), sum."""
    (x,) = inputs
    axis = node.attrs["axis"] % x.rank
    outer = (*x.shape[:axis], *x.shape[axis + 1 :])
    length = x.shape[axis]
    lanes = int(schedule.choice("lanes")) if axis == x.rank - 1 else 1

    def split(idx: Indices) -> tuple[Indices, Expr]:
        return (*idx[:axis], *idx[axis + 1 :]), idx[axis]

    def join(row: Indices, k: Expr) -> Indices:
        return (*row[:axis], k, *row[axis:])

    top = reduce_rows(
        stages, "max", "top", outer, length, lanes, lambda row, k: x.read(join(row, k))
    )

    def shifted(row: Indices, k: Expr) -> Expr:
        return x.read(join(row, k)) - top.read(row)

    if node.op == "log_softmax":
        total = reduce_rows(
            stages,
            "sum",
            "sum",
            outer,
            length,
            lanes,
            lambda row, k: exp_nonpositive(shifted(row, k)),
        )
        return View(
            x.shape, x.dtype, lambda idx: shifted(*split(idx)) - log(total.read(split(idx)[0]))
        )
    if isinstance(stages.tiling, Tiling):
        powers, total = _powers_in_tiles(stages, outer, lanes, shifted, stages.tiling)
    else:
        # In the order of x, so that vectors of columns lie side by side.
        spatial = [f"d{i}" for i in range(len(outer))]
        axes = (*spatial[:axis], "k", *spatial[axis:])
        powers = stages.compute(
            "exp", x.shape, lambda idx: exp_nonpositive(shifted(*split(idx))), axes
        )
        total = reduce_rows(
            stages, "sum", "sum", outer, length, lanes, lambda row, k: powers.read(join(row, k))
        )

    def read(idx: Indices) -> Expr:
        row, _ = split(idx)
        # A sum of powers is at least 1: its reciprocal is a number, the same for all of the row.
        return powers.read(idx) * (const(1, x.dtype) / total.read(row))

    return View(x.shape, x.dtype, read)


def _powers_in_tiles(
    stages: Stages,
    outer: tuple[int, ...],
    lanes: int,
    shifted: Callable[[Indices, Expr], Expr],
    tiling: Tiling,
) -> tuple[View, View]:
    """Stage `exp` (axes d.., k.o, k.v) in the tiles of `out`, and the stages of its sum.

    What two tiles hold of a row is added once.
    """
    row_tiles = Tiling(len(outer), tiling.extent, tiling.size)
    length, size = row_tiles.count * tiling.size, tiling.size
    again = length - tiling.extent

    def power(idx: Indices) -> Expr:
        *row, k = row_tiles.whole(idx)
        # With the short polynomial LLVM unrolls the whole row, and shuffles its stack slots.
        return exp(shifted(tuple(row), k))

    spatial = [f"d{i}" for i in range(len(outer))]
    shape = (*outer, row_tiles.count, size)
    powers = stages.compute("exp", shape, power, (*spatial, "k.o", "k.v"))

    def once_each(row: Indices, k: Expr) -> Expr:
        value = powers.read((*row, tirx.floordiv(k, size), tirx.floormod(k, size)))
        if not again:
            return value
        repeated = tirx.all(k >= length - size, k < length - size + again)
        return tirx.Select(repeated, const(0, powers.dtype), value)

    total = reduce_rows(stages, "sum", "sum", outer, length, lanes, once_each)
    whole = (*outer, tiling.extent)
    return View(whole, powers.dtype, lambda idx: powers.read((*idx[:-1], *tiling.here))), total


def layer_norm(node: Node, inputs: Sequence[View], stages: Stages, schedule: Schedule) -> View:
    """(x - mean) / sqrt(variance + epsilon) * scale + bias over the dimensions axis..end."""
    x, scale, bias = inputs
    axis = node.attrs["axis"] % x.rank
    outer, inner = x.shape[:axis], x.shape[axis:]
    length = math.prod(inner)
    lanes = int(schedule.choice("lanes"))

    def at(row: Indices, k: Expr) -> Expr:
        return x.read((*row, *reshaped(inner, (length,), (k,))))

    total = reduce_rows(stages, "sum", "sum", outer, length, lanes, at)
    mean = stages.compute("mean", outer, lambda row: total.read(row) / const(length, x.dtype))

    def square(row: Indices, k: Expr) -> Expr:
        var = tirx.Var("centred", x.dtype)
        return tirx.Let(var, at(row, k) - mean.read(row), var * var)

    squares = reduce_rows(stages, "squares", "sum", outer, length, lanes, square)

    def spread(row: Indices) -> Expr:
        variance = squares.read(row) / const(length, x.dtype)
        return const(1, x.dtype) / tirx.sqrt(variance + const(node.attrs["epsilon"], x.dtype))

    inverse = stages.compute("inverse", outer, spread)

    def read(idx: Indices) -> Expr:
        row = idx[:axis]
        normal = (x.read(idx) - mean.read(row)) * inverse.read(row)
        return normal * scale.read(idx[axis:]) + bias.read(idx[axis:])

    return View(x.shape, x.dtype, read)


def rms_norm(node: Node, inputs: Sequence[View], stages: Stages, schedule: Schedule) -> View:
    """x / sqrt(mean of squares + epsilon) * scale over the dimensions axis..end."""
    x, scale = inputs
    axis = node.attrs["axis"] % x.rank
    outer, inner = x.shape[:axis], x.shape[axis:]
    length = math.prod(inner)

    def square(row: Indices, k: Expr) -> Expr:
        value = x.read((*row, *reshaped(inner, (length,), (k,))))
        return with_names([value], lambda a: a * a)

    lanes = int(schedule.choice("lanes"))
    squares = reduce_rows(stages, "squares", "sum", outer, length, lanes, square)

    def spread(row: Indices) -> Expr:
        mean = squares.read(row) / const(length, x.dtype)
        return const(1, x.dtype) / tirx.sqrt(mean + const(node.attrs["epsilon"], x.dtype))

    inverse = stages.compute("inverse", outer, spread)
    return View(
        x.shape,
        x.dtype,
        lambda idx: x.read(idx) * inverse.read(idx[:axis]) * scale.read(idx[axis:]),
    )
