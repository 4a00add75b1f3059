"""Tensor expressions of reductions, pooling and the row-wise composites (softmax, layer norm)."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from tvm import te, tirx

from planish.ir.graph import Node
from planish.ir.schedule import Schedule
from planish.passes.local.stages import fold_widths
from planish.targets.expressions.elementwise import (
    const,
    is_float,
    is_nan,
    like,
    maximum,
    minimum,
)
from planish.targets.expressions.movement import reshaped
from planish.targets.expressions.vector_math import exp, log
from planish.targets.expressions.view import Expr, Indices, Stages, View, dtype_of, once, with_names

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
    # NaN may be lost: for softmax, where one element that is NaN makes the sum NaN.
    "top": (lambda a, b: tirx.max(a, b), lowest),
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
) -> View:
    """⊕ over k < length of element(idx, k), as `lanes` interleaved partial results and a tail.

    Stages `NAME_part` (axes d.., lane | ko), a `NAME_w` (axes d.., lane) for each w of the widths
    that the partial results are folded to, then, where lanes do not divide length, `NAME_tail`
    and `NAME_lanes`, and `NAME`. With lanes 1 only `NAME` (axes d.. | k).
    """
    join, _ = JOIN[kind]
    if lanes <= 1 or length < 2 * lanes:
        return stages.reduce(
            name, outer, [("k", length)], lambda idx, r: element(idx, r[0]), COMBINE[kind]
        )
    whole = length // lanes
    spatial = tuple(f"d{i}" for i in range(len(outer)))
    part = stages.reduce(
        f"{name}_part",
        (*outer, lanes),
        [("ko", whole)],
        lambda idx, r: element(idx[:-1], r[0] * lanes + idx[-1]),
        COMBINE[kind],
        (*spatial, "lane"),
    )
    width = lanes
    for fewer in fold_widths(lanes):
        folded = _folded(kind, part, width, fewer)
        part = stages.compute(f"{name}_{fewer}", (*outer, fewer), folded, (*spatial, "lane"))
        width = fewer
    last = _folded(kind, part, width, 1)

    def joined(idx: Indices) -> Expr:
        return last((*idx, tirx.const(0, "int32")))

    if length % lanes == 0:
        return stages.compute(name, outer, joined)
    tail = stages.reduce(
        f"{name}_tail",
        outer,
        [("k", length % lanes)],
        lambda idx, r: element(idx, r[0] + whole * lanes),
        COMBINE[kind],
    )
    total = stages.compute(f"{name}_lanes", outer, joined)
    return stages.compute(name, outer, lambda idx: join(total.read(idx), tail.read(idx)))


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

        acc = stages.reduce("acc", outer, over, at, COMBINE[kind])
    shape = node.output.type.static_shape

    def read(idx: Indices) -> Expr:
        value = acc.read(tuple(idx[d] for d in kept) if keep else idx)
        if node.op == "reduce_mean":
            return _mean(value, length)
        return value

    return View(shape, x.dtype, read)


def _mean(total: Expr, count: int) -> Expr:
    if is_float(total):
        return total / like(count, total)
    dtype = dtype_of(total)  # which need not hold the count
    return tirx.truncdiv(total.astype("int64"), const(count, "int64")).astype(dtype)


def arg_reduce(node: Node, inputs: Sequence[View], stages: Stages, schedule: Schedule) -> View:
    """arg_max / arg_min over one axis: stages `best`, the value, and `acc`, the first (or last)
    index that has it; if the value is NaN, that is the index of a NaN."""
    (x,) = inputs
    axis, keep = node.attrs["axis"] % x.rank, node.attrs["keepdims"]
    outer, length = (*x.shape[:axis], *x.shape[axis + 1 :]), x.shape[axis]
    lanes = int(schedule.choice("lanes")) if axis == x.rank - 1 else 1
    kind, first = ("max" if node.op == "arg_max" else "min"), not node.attrs["last"]

    def element(row: Indices, k: Expr) -> Expr:
        return x.read((*row[:axis], k, *row[axis:]))

    best = reduce_rows(stages, "best", kind, outer, length, lanes, element)
    none = highest("int32") if first else const(-1, "int32")

    def place(row: Indices, k: Expr) -> Expr:
        def chosen(value: Expr) -> Expr:
            is_best = tirx.EQ(value, best.read(row))
            return tirx.Or(is_best, is_nan(value)) if is_float(value) else is_best

        return with_names([element(row, k)], lambda value: tirx.Select(chosen(value), k, none))

    earliest = "min" if first else "max"
    index = reduce_rows(stages, "acc", earliest, outer, length, lanes, place)

    def read(idx: Indices) -> Expr:
        at = (*idx[:axis], *idx[axis + 1 :]) if keep else idx
        return index.read(at).astype("int64")

    return View(node.output.type.static_shape, "int64", read)


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

    acc = stages.reduce("acc", shape, over, element, COMBINE[kind])
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
            stages, "sum", "sum", outer, length, lanes, lambda row, k: exp(shifted(row, k))
        )
        return View(
            x.shape, x.dtype, lambda idx: shifted(*split(idx)) - log(total.read(split(idx)[0]))
        )
    # In the order of x, so that vectors of columns lie side by side.
    spatial = [f"d{i}" for i in range(len(outer))]
    axes = (*spatial[:axis], "k", *spatial[axis:])
    powers = stages.compute("exp", x.shape, lambda idx: exp(shifted(*split(idx))), axes)
    total = reduce_rows(
        stages, "sum", "sum", outer, length, lanes, lambda row, k: powers.read(join(row, k))
    )

    def read(idx: Indices) -> Expr:
        row, _ = split(idx)
        # A sum of powers is at least 1: its reciprocal is a number, the same for all of the row.
        return powers.read(idx) * (const(1, x.dtype) / total.read(row))

    return View(x.shape, x.dtype, read)


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
