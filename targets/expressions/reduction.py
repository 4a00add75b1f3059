"""Tensor expressions of reductions and pooling."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from tvm import te, tirx

from planish.ir.graph import Node
from planish.ir.schedule import Schedule
from planish.passes.local.row_stages import fold_widths, taken_in_lanes
from planish.targets.expressions import opaque
from planish.targets.expressions.elementwise import (
    const,
    is_float,
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


def _sum(a: Expr, b: Expr) -> Expr:
    return a + b if is_float(a) else opaque.add(a, b)


def _product(a: Expr, b: Expr) -> Expr:
    return a * b if is_float(a) else opaque.multiply(a, b)


#: How partial results join, and the identity; NaN wins in max and min, as in numpy, and integers
#: wrap around.
JOIN: dict[str, tuple[Callable[[Expr, Expr], Expr], Callable[[str], Expr]]] = {
    "sum": (_sum, lambda dtype: const(0, dtype)),
    "prod": (_product, lambda dtype: const(1, dtype)),
    "max": (lambda a, b: once(b, lambda value: maximum(a, value)), lowest),
    "min": (lambda a, b: once(b, lambda value: minimum(a, value)), highest),
    # NaN may be lost: for those that look for it themselves, or keep it (in the sum of a softmax).
    "top": (opaque.larger, lowest),
    "bottom": (opaque.smaller, highest),
}
COMBINE: dict[str, Combine] = {
    name: te.comm_reducer(join, identity, name=name) for name, (join, identity) in JOIN.items()
}
SUM = COMBINE["sum"]
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
    wide = "uint64" if "uint" in dtype else "int64"
    return opaque.divide(total.astype(wide), const(count, wide)).astype(dtype)


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
