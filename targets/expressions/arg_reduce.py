"""Tensor expressions of the indices of extremes."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

from tvm import te, tirx

from planish.ir.graph import Node
from planish.ir.schedule import Schedule
from planish.targets.expressions import opaque
from planish.targets.expressions.elementwise import const, is_float, is_nan, like
from planish.targets.expressions.reduction import fold_rows, highest, lowest, reduce_rows
from planish.targets.expressions.view import (
    Expr,
    Indices,
    Stages,
    View,
    once,
    with_bindings_outside,
    with_names,
)


def arg_reduce(node: Node, inputs: Sequence[View], stages: Stages, schedule: Schedule) -> View:
    """arg_max / arg_min over one axis: stages `best`, the value, and `acc`, the first (or last)
    index that has it.

    Long rows are read once: see `_candidates`. Indices of NaN win: they are moved out of the range
    of the others, by the length of the axis.
    """
    (x,) = inputs
    axis, keep = node.attrs["axis"] % x.rank, node.attrs["keepdims"]
    outer, length = (*x.shape[:axis], *x.shape[axis + 1 :]), x.shape[axis]
    lanes = int(schedule.choice("lanes")) if axis == x.rank - 1 else 1
    kind, first = ("top" if node.op == "arg_max" else "bottom"), not node.attrs["last"]
    none = highest("int32") if first else const(-1, "int32")

    def element(row: Indices, k: Expr) -> Expr:
        return x.read((*row[:axis], k, *row[axis:]))

    def place(value: Expr, k: Expr, best: Expr) -> Expr:
        found = tirx.Select(opaque.equal(value, best), k, none)
        if not is_float(value):
            return found
        return tirx.Select(is_nan(value), k - length if first else k + length, found)

    earliest = "min" if first else "max"
    if lanes > 1 and length >= lanes:
        values, places = _candidates(stages, node, outer, length, lanes, element)
        best = fold_rows(stages, "best", kind, values, lanes)

        def candidate(idx: Indices) -> Expr:
            row = idx[:-1]
            return with_names(
                [values.read(idx), places(idx)], lambda value, k: place(value, k, best.read(row))
            )

        axes = (*(f"d{i}" for i in range(len(outer))), "lane")
        part = stages.compute("acc_part", (*outer, lanes), candidate, axes)
        index = fold_rows(stages, "acc", earliest, part, lanes)
    else:
        best = reduce_rows(stages, "best", kind, outer, length, lanes, element)

        def chosen(row: Indices, k: Expr) -> Expr:
            return with_names([element(row, k)], lambda value: place(value, k, best.read(row)))

        index = reduce_rows(stages, "acc", earliest, outer, length, lanes, chosen)

    def read(idx: Indices) -> Expr:
        at = (*idx[:axis], *idx[axis + 1 :]) if keep else idx
        found = index.read(at)
        if length == 1:  # TVM folds a remainder by 1 to 0: the stages would have no reader
            return tirx.Select(tirx.EQ(found, 0), found, 0).astype("int64")
        return tirx.floormod(found, length).astype("int64")

    return View(node.output.type.static_shape, "int64", read)


def _candidates(
    stages: Stages,
    node: Node,
    outer: Sequence[int],
    length: int,
    lanes: int,
    element: Callable[[Indices, Expr], Expr],
) -> tuple[View, Callable[[Indices], Expr]]:
    """The best of every `lanes`-th element of a row, one for each lane, and their indices in it.

    Stage `best_part` (axes d.., lane | ko) has two results: the value, and the step that it came
    from. Where lanes do not divide length, `best_rest` (axes d.., lane) joins the last elements.
    """
    largest, last = node.op == "arg_max", bool(node.attrs["last"])
    identity = lowest if largest else highest

    def better(old: Expr, new: Expr, of_old: Expr, of_new: Expr) -> Expr:
        """In a lane the elements come in their order: of equal ones the first, or last, stays."""
        if last:
            takes = opaque.less_equal(old, new) if largest else opaque.less_equal(new, old)
            return tirx.Select(tirx.Or(takes, is_unordered(new)), of_new, of_old)
        keeps = opaque.less_equal(new, old) if largest else opaque.less_equal(old, new)
        return tirx.Select(tirx.Or(keeps, is_unordered(old)), of_old, of_new)

    def is_unordered(value: Expr) -> Expr:
        """As `is_nan`, in one comparison of floats."""
        if not is_float(value):
            return const(False, "bool")
        return tirx.Not(opaque.less_equal(value, like(math.inf, value)))

    def join(old: Sequence[Expr], new: Sequence[Expr]) -> tuple[Expr, Expr]:
        value = once(new[0], lambda v: better(old[0], v, old[0], v))
        return value, once(new[0], lambda v: better(old[0], v, old[1], new[1]))

    combine = te.comm_reducer(join, lambda dtype, _: (identity(dtype), const(0, "int32")))
    step = te.reduce_axis((0, length // lanes), name="ko")
    axes = (*(f"d{i}" for i in range(len(outer))), "lane")

    def best_of_lane(*idx: Expr) -> Any:
        value = stages.bindings.scoped(lambda: element(idx[:-1], step.var * lanes + idx[-1]))
        return combine((value, step.var), axis=[step])

    shape = (*outer, lanes)
    value, origin = te.compute(shape, best_of_lane, name="best_part")
    values = stages.store("best_part", value, shape, axes, ("ko",))
    if length % lanes == 0:
        return values, lambda idx: origin(*idx) * lanes + idx[-1]

    def in_rest(idx: Indices) -> Expr:
        return element(idx[:-1], idx[-1] + (length - lanes))

    def joined(idx: Indices) -> Expr:
        old = values.read(idx)
        return with_names([in_rest(idx)], lambda v: better(old, v, old, v))

    def index(idx: Indices) -> Expr:
        old, there = values.read(idx), origin(*idx) * lanes
        at = with_names(
            [in_rest(idx)],
            lambda v: better(old, v, there, const(length - lanes, "int32")),
        )
        return with_bindings_outside([at], lambda begin: begin + idx[-1])

    return stages.compute("best_rest", shape, joined, axes), index
