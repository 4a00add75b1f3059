"""Tensor expressions of the row-wise composites: softmax, layer norm and RMS norm."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

from tvm import te, tirx

from planish.ir.graph import Node
from planish.ir.schedule import Schedule
from planish.passes.local.row_stages import is_in_one_pass
from planish.targets.expressions.elementwise import const
from planish.targets.expressions.movement import reshaped
from planish.targets.expressions.reduction import fold_rows, reduce_rows
from planish.targets.expressions.vector_math import exp_nonpositive, log
from planish.targets.expressions.view import (
    Expr,
    Indices,
    Stages,
    Tiling,
    View,
    once,
    with_bindings_outside,
    with_names,
)


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
    size = tiling.size

    def power(idx: Indices) -> Expr:
        *row, k = row_tiles.whole(idx)
        return exp_nonpositive(shifted(tuple(row), k))

    spatial = [f"d{i}" for i in range(len(outer))]
    shape = (*outer, row_tiles.count, size)
    powers = stages.compute("exp", shape, power, (*spatial, "k.o", "k.v"))

    def element(row: Indices, k: Expr) -> Expr:
        return powers.read((*row, tirx.floordiv(k, size), tirx.floormod(k, size)))

    total = reduce_rows(stages, "sum", "sum", outer, tiling.extent, lanes, element, row_tiles)
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

    def average(total: View) -> View:
        return stages.compute("mean", outer, lambda row: total.read(row) / const(length, x.dtype))

    if is_in_one_pass(length, lanes):
        mean, squares = _moments(stages, outer, length, lanes, at, average)
    else:
        mean = average(reduce_rows(stages, "sum", "sum", outer, length, lanes, at))

        def square(row: Indices, k: Expr) -> Expr:
            return with_names([at(row, k) - mean.read(row)], lambda centred: centred * centred)

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


def _moments(
    stages: Stages,
    outer: tuple[int, ...],
    length: int,
    lanes: int,
    at: Callable[[Indices, Expr], Expr],
    average: Callable[[View], View],
) -> tuple[View, View]:
    """The mean, and the sum of squares of the distances from it, the row being read once.

    Stage `moments_part` (axes d.., lane | ko) adds up the distances d of a lane's elements from its
    first one, c, and their squares; `sum_rest` and `squares_rest` (axes d.., lane) join to that
    what lanes do not divide. With e = mean - c, the squares are those of d, plus n e² - 2 e (sum of
    d). The sum of n e² over the lanes is at most n times the result: what cancels is bounded.
    """
    steps, left = divmod(length, lanes)
    step = te.reduce_axis((0, steps), name="ko")
    axes = (*(f"d{i}" for i in range(len(outer))), "lane")
    shape = (*outer, lanes)

    def distances(*idx: Expr) -> Any:
        row, lane = idx[:-1], idx[-1]
        value = stages.bindings.scoped(lambda: at(row, step.var * lanes + lane))
        first = stages.bindings.scoped(lambda: at(row, lane))
        return _ADD_BOTH((value - first, value - first), axis=[step])

    sums, squared = te.compute(shape, distances, name="moments_part")
    total = stages.store("moments_part", sums, shape, axes, ("ko",))
    count = const(steps, total.dtype)

    def with_rest(idx: Indices, value: Expr, of_rest: Callable[[Expr], Expr]) -> Expr:
        if not left:
            return value
        lane = idx[-1]
        rest = with_names([at(idx[:-1], lane + (length - lanes))], of_rest)
        new = with_bindings_outside(
            [rest], lambda x: tirx.Select(lane >= lanes - left, x, const(0, total.dtype))
        )
        return with_bindings_outside([new], lambda new: value + new)

    def lane_sum(idx: Indices) -> Expr:
        first = at(idx[:-1], idx[-1])
        value = with_bindings_outside([first], lambda c: c * count + total.read(idx))
        return with_rest(idx, value, lambda x: x)

    part = stages.compute("sum_rest", shape, lane_sum, axes)
    mean = average(fold_rows(stages, "sum", "sum", part, lanes))

    def lane_squares(idx: Indices) -> Expr:
        middle = mean.read(idx[:-1])
        distance = with_bindings_outside([at(idx[:-1], idx[-1])], lambda c: middle - c)
        value = with_names(
            [distance],
            lambda e: squared(*idx) + e * (e * count - total.read(idx) * const(2, total.dtype)),
        )

        def square(x: Expr) -> Expr:
            return with_names([x - middle], lambda e: e * e)

        return with_bindings_outside([value], lambda value: with_rest(idx, value, square))

    part = stages.compute("squares_rest", shape, lane_squares, axes)
    return mean, fold_rows(stages, "squares", "sum", part, lanes)


def _add_both(old: Sequence[Expr], new: Sequence[Expr]) -> tuple[Expr, Expr]:
    return old[0] + new[0], once(new[1], lambda value: old[1] + value * value)


#: Sums, and sums of squares.
_ADD_BOTH = te.comm_reducer(_add_both, lambda a, b: (const(0, a), const(0, b)))


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
