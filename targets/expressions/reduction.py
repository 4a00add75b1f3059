"""Tensor expressions of reductions, indices of extremes, and pooling."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

from tvm import te, tirx

from planish.ir.graph import Node
from planish.ir.schedule import Schedule
from planish.passes.local.stages import fold_widths, taken_in_lanes
from planish.targets.expressions.elementwise import (
    const,
    is_float,
    is_nan,
    like,
    maximum,
    minimum,
)
from planish.targets.expressions.movement import reshaped
from planish.targets.expressions.view import (
    Expr,
    Indices,
    Stages,
    Tiling,
    View,
    dtype_of,
    once,
    with_bindings_outside,
    with_names,
)

Combine = Callable[..., Expr]


def lowest(dtype: str) -> Expr:
    """The identity of maximum: -inf, or the least integer."""
    if "float" in dtype:
        return const(-math.inf, dtype)
    return const(False, dtype) if dtype == "bool" else tirx.min_value(dtype)


def highest(dtype: str) -> Expr:
    """The identity of minimum: +inf, or the greatest integer."""
    if "float" in dtype:
        return const(math.inf, dtype)
    return const(True, dtype) if dtype == "bool" else tirx.max_value(dtype)


#: How partial results join, and the identity; NaN wins in max and min, as in numpy.
JOIN: dict[str, tuple[Callable[[Expr, Expr], Expr], Callable[[str], Expr]]] = {
    "sum": (lambda a, b: a + b, lambda dtype: const(0, dtype)),
    "prod": (lambda a, b: a * b, lambda dtype: const(1, dtype)),
    "max": (lambda a, b: once(b, lambda value: maximum(a, value)), lowest),
    "min": (lambda a, b: once(b, lambda value: minimum(a, value)), highest),
    # NaN may be lost: for those that look for it themselves, or keep it (in the sum of a softmax).
    "top": (lambda a, b: tirx.max(a, b), lowest),
    "bottom": (lambda a, b: tirx.min(a, b), highest),
}
COMBINE: dict[str, Combine] = {
    name: te.comm_reducer(join, identity, name=name) for name, (join, identity) in JOIN.items()
}
_KIND = {
    "reduce_sum": "sum",
    "reduce_mean": "sum",
    "reduce_max": "max",
    "reduce_min": "min",
    "reduce_prod": "prod",
}


def reduce_rows(
    stages: Stages,
    name: str,
    kind: str,
    outer: Sequence[int],
    length: int,
    lanes: int,
    element: Callable[[Indices, Expr], Expr],
    tiles: Tiling | None = None,
) -> View:
    """⊕ over k < length of element(idx, k), as `lanes` interleaved partial results.

    Stages `NAME_part` (axes d.., lane | ko), `NAME_rest` (axes d.., lane) where lanes do not divide
    length, a `NAME_w` (axes d.., lane) for each w of the widths that the partial results are folded
    to, and `NAME`. With lanes 1, or a row that is shorter, only `NAME` (axes d.. | k).

    Elements in `tiles` that overlap are numbered tile by tile: what the last tile repeats counts
    once, and all of that tile is left to `NAME_rest`.
    """
    join, identity = JOIN[kind]
    stored = length if tiles is None else tiles.count * tiles.size
    again = stored - length
    whole = taken_in_lanes(length, lanes, 0 if tiles is None else tiles.size)
    if not whole:

        def number(k: Expr) -> Expr:
            return tirx.Select(k < length + again - tiles.size, k, k + again) if tiles else k

        return stages.reduce(
            name, outer, [("k", length)], lambda idx, r: element(idx, number(r[0])), COMBINE[kind]
        )
    spatial = tuple(f"d{i}" for i in range(len(outer)))
    shape, axes = (*outer, lanes), (*spatial, "lane")
    part = stages.reduce(
        f"{name}_part",
        shape,
        [("ko", whole // lanes)],
        lambda idx, r: element(idx[:-1], r[0] * lanes + idx[-1]),
        COMBINE[kind],
        axes,
    )
    left = stored - whole // lanes * lanes
    if left:
        before = part

        def rest(idx: Indices) -> Expr:
            """With the last `lanes` elements, of which some are in already."""
            lane = idx[-1]
            last = element(idx[:-1], lane + (stored - lanes))
            if kind in ("sum", "prod"):
                is_new = lane >= lanes - left
                if again:
                    begin = whole - (stored - lanes)
                    is_new = tirx.all(is_new, tirx.any(lane < begin, lane >= begin + again))
                none = identity(dtype_of(last))
                last = with_bindings_outside([last], lambda new: tirx.Select(is_new, new, none))
            return join(before.read(idx), last)

        part = stages.compute(f"{name}_rest", shape, rest, axes)
    return fold_rows(stages, name, kind, part, lanes)


def fold_rows(stages: Stages, name: str, kind: str, part: View, lanes: int) -> View:
    """⊕ over the last axis, `lanes` long, of `part`: the stages `NAME_w`, then `NAME`."""
    outer = part.shape[:-1]
    axes = (*(f"d{i}" for i in range(len(outer))), "lane")
    width = lanes
    for fewer in fold_widths(lanes):
        folded = _folded(kind, part, width, fewer)
        part = stages.compute(f"{name}_{fewer}", (*outer, fewer), folded, axes)
        width = fewer
    last = _folded(kind, part, width, 1)
    return stages.compute(name, outer, lambda idx: last((*idx, tirx.const(0, "int32"))))


def _folded(kind: str, wide: View, width: int, fewer: int) -> Callable[[Indices], Expr]:
    """Element `lane` of `fewer` is the join of all elements of `width` that are `fewer` apart."""
    join, _ = JOIN[kind]

    def joined(a: Expr, b: Expr) -> Expr:
        # Those that look for NaN hold their operands more than once.
        return once(a, lambda value: join(value, b)) if kind in ("max", "min") else join(a, b)

    def read(idx: Indices) -> Expr:
        *row, lane = idx
        values = [wide.read((*row, lane + begin)) for begin in range(0, width, fewer)]
        while len(values) > 1:  # as a tree: no chain of four
            values = [joined(a, b) for a, b in zip(values[::2], values[1::2])]
        return values[0]

    return read


def reduce(node: Node, inputs: Sequence[View], stages: Stages, schedule: Schedule) -> View:
    """reduce_* over `axes`: rows where the axes are the trailing ones, else plain loops."""
    (x,) = inputs
    axes, keep = node.attrs["axes"], node.attrs["keepdims"]
    kept = [d for d in range(x.rank) if d not in axes]
    outer = [x.shape[d] for d in kept]
    kind = _KIND[node.op]
    length = math.prod(x.shape[d] for d in axes)
    if schedule.choice("rows"):
        shape = (*outer, *(x.shape[d] for d in axes))

        def element(idx: Indices, k: Expr) -> Expr:
            return x.read(reshaped(shape, (*outer, length), (*idx, k)))

        acc = reduce_rows(
            stages, "acc", kind, outer, length, int(schedule.choice("lanes")), element
        )
    else:
        over = [(f"r{i}", x.shape[d]) for i, d in enumerate(axes)]
        place = {d: i for i, d in enumerate(kept)}
        order = {d: i for i, d in enumerate(axes)}

        def at(idx: Indices, r: Indices) -> Expr:
            return x.read(
                tuple(r[order[d]] if d in order else idx[place[d]] for d in range(x.rank))
            )

        acc = _last_axis_tiled(stages, outer, over, at, COMBINE[kind])
    shape = node.output.type.static_shape

    def read(idx: Indices) -> Expr:
        value = acc.read(tuple(idx[d] for d in kept) if keep else idx)
        if node.op == "reduce_mean":
            return _mean(value, length)
        return value

    return View(shape, x.dtype, read)


def _last_axis_tiled(
    stages: Stages,
    shape: Sequence[int],
    over: Sequence[tuple[str, int]],
    element: Callable[[Indices, Indices], Expr],
    combine: Combine,
) -> View:
    """Stage `acc`, its last axis in the tiles that `out` has, if any; that is `out`'s last too."""
    tiling = stages.tiling
    if not isinstance(tiling, Tiling):
        return stages.reduce("acc", shape, over, element, combine)
    own = Tiling(len(shape) - 1, tiling.extent, tiling.size)
    acc = stages.reduce(
        "acc", own.tiled(shape), over, lambda idx, r: element(own.whole(idx), r), combine
    )
    return View(tuple(shape), acc.dtype, lambda idx: acc.read((*idx[:-1], *tiling.here)))


def _mean(total: Expr, count: int) -> Expr:
    if is_float(total):
        return total / like(count, total)
    dtype = dtype_of(total)  # which need not hold the count
    return tirx.truncdiv(total.astype("int64"), const(count, "int64")).astype(dtype)


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
        found = tirx.Select(tirx.EQ(value, best), k, none)
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
        """In a lane the elements come in their order: of equal ones the first, or last, stays.

        Written without a negation: TVM turns that of a comparison into the opposite one, which
        forgets NaN.
        """
        if last:
            takes = new >= old if largest else new <= old
            return tirx.Select(tirx.Or(takes, is_unordered(new)), of_new, of_old)
        keeps = new <= old if largest else new >= old
        return tirx.Select(tirx.Or(keeps, is_unordered(old)), of_old, of_new)

    def is_unordered(value: Expr) -> Expr:
        """As `is_nan`, in one comparison of floats: the select hides the negation from TVM."""
        if not is_float(value):
            return const(False, "bool")
        ordered = value <= like(math.inf, value)
        return tirx.EQ(tirx.Select(ordered, const(1, "int32"), const(0, "int32")), 0)

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


def pool(node: Node, inputs: Sequence[View], stages: Stages, schedule: Schedule) -> View:
    """Windows per dimension of the tensor, whatever its layout; padding by guards."""
    (x,) = inputs
    a = node.attrs
    shape = node.output.type.static_shape
    dims = [d for d in range(x.rank) if a["window"][d] > 1]
    over = [(f"w{d}", a["window"][d]) for d in dims] or [("w0", 1)]
    kind = "max" if a["kind"] == "max" else "sum"
    _, identity = JOIN[kind]

    def element(idx: Indices, r: Indices) -> Expr:
        at, inside = list(idx), []
        for d in range(x.rank):
            offset = r[dims.index(d)] * a["dilations"][d] if d in dims else 0
            at[d] = idx[d] * a["strides"][d] + offset - a["before"][d]
            if a["before"][d]:
                inside.append(at[d] >= 0)
            if a["after"][d]:
                inside.append(at[d] < x.shape[d])
        if not inside:
            return x.read(tuple(at))
        guard = tirx.all(*inside) if len(inside) > 1 else inside[0]
        value = stages.bindings.scoped(lambda: x.read(tuple(at)))
        return tirx.if_then_else(guard, value, identity(x.dtype))

    acc = _last_axis_tiled(stages, shape, over, element, COMBINE[kind])
    if a["kind"] != "average":
        return acc

    def average(idx: Indices) -> Expr:
        total, count = acc.read(idx), _count(node, x, idx)
        if is_float(total):
            return total / count.astype(x.dtype)
        count = tirx.max(count, 1).astype("int64")  # no trap for a window of padding only
        return tirx.truncdiv(total.astype("int64"), count).astype(x.dtype)

    return View(shape, x.dtype, average)


def _count(node: Node, x: View, idx: Indices) -> Expr:
    """How many elements the average at idx is over."""
    a = node.attrs
    count: Expr = tirx.const(1, "int32")
    after = a["counted_after"] if a["counted_after"] is not None else a["after"]
    for d in range(x.rank):
        window, dilation = a["window"][d], a["dilations"][d]
        if window == 1 and not (a["before"][d] or a["after"][d]):
            continue
        if a["include_pad"]:
            low, high = -a["before"][d], x.shape[d] + after[d]
        else:
            low, high = 0, x.shape[d]
        begin = idx[d] * a["strides"][d] - a["before"][d]
        skipped = tirx.max(tirx.floordiv(low - begin + dilation - 1, dilation), 0)
        fitting = tirx.floordiv(high - 1 - begin, dilation) + 1
        count = count * (tirx.min(fitting, window) - skipped)
    return count
