"""Tensor expressions of the ops that only move elements."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from tvm import tirx

from planish.ir.graph import Node
from planish.targets.expressions.elementwise import aligned, const
from planish.targets.expressions.rotary import rotary_embedding
from planish.targets.expressions.view import Bindings, Expr, Indices, View, with_names

Index = Callable[[Indices], Indices]


def movement(node: Node, inputs: Sequence[View], bindings: Bindings) -> View:
    """The view of a movement node over views of its inputs."""
    shape = node.output.type.static_shape
    return View(shape, node.output.type.dtype.value, _READS[node.op](node, inputs, bindings))


def _select(node: Node, inputs: Sequence[View], index: Index) -> Callable[[Indices], Expr]:
    return lambda idx: inputs[0].read(index(idx))


def reshaped(source: tuple[int, ...], target: tuple[int, ...], idx: Indices) -> Indices:
    """Indices into `source` of the element at `idx` of the reshaped `target`."""
    kept = _common_groups(source, target)
    out: list[Expr] = []
    for (s0, s1), (t0, t1) in kept:
        if source[s0:s1] == target[t0:t1]:
            out.extend(idx[t0:t1])
            continue
        flat: Expr = tirx.const(0, "int32")
        for n, i in zip(target[t0:t1], idx[t0:t1]):
            flat = flat * n + i
        out.extend(_unflatten(source[s0:s1], flat))
    return tuple(out)


def _unflatten(shape: tuple[int, ...], flat: Expr) -> list[Expr]:
    out: list[Expr] = []
    below = math.prod(shape)
    for d, n in enumerate(shape):
        below //= n
        index = tirx.floordiv(flat, below) if below > 1 else flat
        out.append(tirx.floormod(index, n) if d else index)
    return out


def _common_groups(
    source: tuple[int, ...], target: tuple[int, ...]
) -> list[tuple[tuple[int, int], tuple[int, int]]]:
    """Split both shapes into runs of dimensions with equal products, as short as possible."""
    groups = []
    s = t = 0
    while s < len(source) or t < len(target):
        s0, t0 = s, t
        ps = pt = 1
        if s < len(source):
            ps, s = source[s], s + 1
        if t < len(target):
            pt, t = target[t], t + 1
        while ps != pt:
            if ps < pt and s < len(source):
                ps, s = ps * source[s], s + 1
            elif t < len(target):
                pt, t = pt * target[t], t + 1
            else:
                ps, s = ps * source[s], s + 1
        groups.append(((s0, s), (t0, t)))
    return groups


def _reshape(node: Node, inputs: Sequence[View], bindings: Bindings) -> Callable[[Indices], Expr]:
    target = node.output.type.static_shape
    return _select(node, inputs, lambda idx: reshaped(inputs[0].shape, target, idx))


def _transpose(node: Node, inputs: Sequence[View], bindings: Bindings) -> Callable[[Indices], Expr]:
    perm = node.attrs["perm"]
    back = [perm.index(d) for d in range(len(perm))]
    return _select(node, inputs, lambda idx: tuple(idx[b] for b in back))


def _broadcast_to(
    node: Node, inputs: Sequence[View], bindings: Bindings
) -> Callable[[Indices], Expr]:
    shape = node.output.type.static_shape
    return _select(node, inputs, lambda idx: aligned(inputs[0].shape, shape, idx))


def _slice(node: Node, inputs: Sequence[View], bindings: Bindings) -> Callable[[Indices], Expr]:
    pairs = list(zip(node.attrs["starts"], node.attrs["steps"]))
    return _select(
        node, inputs, lambda idx: tuple(i * step + start for i, (start, step) in zip(idx, pairs))
    )


def _concat(node: Node, inputs: Sequence[View], bindings: Bindings) -> Callable[[Indices], Expr]:
    axis = node.attrs["axis"] % inputs[0].rank

    def read(idx: Indices) -> Expr:
        def part(number: int, begin: int) -> Expr:
            at = (*idx[:axis], idx[axis] - begin, *idx[axis + 1 :])
            return bindings.scoped(lambda: inputs[number].read(at))

        end = sum(view.shape[axis] for view in inputs[:-1])
        value = part(len(inputs) - 1, end)
        for number in range(len(inputs) - 2, -1, -1):
            begin = end - inputs[number].shape[axis]
            value = tirx.if_then_else(idx[axis] < end, part(number, begin), value)
            end = begin
        return value

    return read


def _pad(node: Node, inputs: Sequence[View], bindings: Bindings) -> Callable[[Indices], Expr]:
    (source,) = inputs
    before, mode = node.attrs["before"], node.attrs["mode"]
    out = node.output.type.static_shape

    def inside(idx: Indices) -> Indices:
        moved = (_folded(i - b, n, mode) for i, b, n in zip(idx, before, source.shape))
        return tuple(
            i if o == n and b == 0 else m
            for i, m, o, n, b in zip(idx, moved, out, source.shape, before)
        )

    if mode != "constant":
        return lambda idx: source.read(inside(idx))
    fill = const(node.attrs["value"], source.dtype)

    def read(idx: Indices) -> Expr:
        at = inside(idx)
        bounds: list[Expr] = []
        for i, b, o, n in zip(at, before, out, source.shape):
            if b > 0:
                bounds.append(i >= 0)
            if o - b > n:
                bounds.append(i < n)
        if not bounds:
            return source.read(at)
        return tirx.if_then_else(
            tirx.all(*bounds) if len(bounds) > 1 else bounds[0],
            bindings.scoped(lambda: source.read(at)),
            fill,
        )

    return read


def _folded(i: Expr, n: int, mode: str) -> Expr:
    """Index i of a padded dimension of n elements, folded back into it."""
    if mode == "constant":
        return i
    if mode == "edge":
        return tirx.max(tirx.min(i, n - 1), 0)
    if mode == "wrap":
        return tirx.floormod(i, n)
    if n == 1:
        return tirx.const(0, "int32")
    period = 2 * (n - 1)  # reflect
    phase = tirx.floormod(i, period)
    return tirx.min(phase, period - phase)


def wrapped(index: Expr, n: int) -> Expr:
    """A user's index in [-n, n) as one in [0, n); anything else is held inside the tensor.

    Indices are data: they are clamped, so that a wrong one can never read foreign memory. The
    result holds `index` several times.
    """
    index = index.astype("int64")
    zero, last = tirx.const(0, "int64"), tirx.const(n - 1, "int64")
    counted = tirx.Select(index < zero, index + n, index)  # below 0: from the end
    return tirx.max(tirx.min(counted, last), zero).astype("int32")


def _places(indices: View, n: int, bindings: Bindings) -> View:
    """The `wrapped` indices, each one a variable: what is read there may repeat it."""

    def read(idx: Indices) -> Expr:
        return with_names([indices.read(idx)], lambda index: wrapped(index, n))

    return bindings.shared(View(indices.shape, "int32", read), "at")


def _gather(node: Node, inputs: Sequence[View], bindings: Bindings) -> Callable[[Indices], Expr]:
    data, indices = inputs
    axis, rank = node.attrs["axis"] % data.rank, indices.rank
    places = _places(indices, data.shape[axis], bindings)

    def read(idx: Indices) -> Expr:
        chosen = places.read(idx[axis : axis + rank])
        return data.read((*idx[:axis], chosen, *idx[axis + rank :]))

    return read


def _gather_elements(
    node: Node, inputs: Sequence[View], bindings: Bindings
) -> Callable[[Indices], Expr]:
    data, indices = inputs
    axis = node.attrs["axis"] % data.rank
    places = _places(indices, data.shape[axis], bindings)
    return _select(node, inputs, lambda idx: (*idx[:axis], places.read(idx), *idx[axis + 1 :]))


def _gather_nd(node: Node, inputs: Sequence[View], bindings: Bindings) -> Callable[[Indices], Expr]:
    data, indices = inputs
    batch, lead = node.attrs["batch_dims"], indices.rank - 1
    coordinates = [
        (_places(indices, data.shape[batch + k], bindings), tirx.const(k, "int32"))
        for k in range(indices.shape[-1])
    ]

    def read(idx: Indices) -> Expr:
        chosen = (places.read((*idx[:lead], k)) for places, k in coordinates)
        return data.read((*idx[:batch], *chosen, *idx[lead:]))

    return read


def _pack(node: Node, inputs: Sequence[View], bindings: Bindings) -> Callable[[Indices], Expr]:
    (source,) = inputs
    axis, block = node.attrs["axis"] % source.rank, node.attrs["block"]
    segments = node.attrs["segments"]
    size = source.shape[axis] // segments
    blocks = -(-size // block)

    def read(idx: Indices) -> Expr:
        """The element that begins `first` elements after its segment does."""
        outer, begin = idx[axis], 0
        if segments > 1 and size % block:
            outer, begin = tirx.floormod(outer, blocks), tirx.floordiv(outer, blocks) * size
        first = outer * block + idx[-1]
        at = (*idx[:axis], begin + first, *idx[axis + 1 : -1])
        if size % block == 0:
            return source.read(at)
        value = bindings.scoped(lambda: source.read(at))
        return tirx.if_then_else(first < size, value, const(0, source.dtype))

    return read


def _unpack(node: Node, inputs: Sequence[View], bindings: Bindings) -> Callable[[Indices], Expr]:
    (source,) = inputs
    axis, block = node.attrs["axis"] % (source.rank - 1), node.attrs["block"]
    segments = node.attrs["segments"]
    size = node.output.type.static_shape[axis] // segments
    blocks = -(-size // block)

    def read(idx: Indices) -> Expr:
        element, begin = idx[axis], 0
        if segments > 1 and size % block:
            element, begin = tirx.floormod(element, size), tirx.floordiv(element, size) * blocks
        outer, inner = begin + tirx.floordiv(element, block), tirx.floormod(element, block)
        return source.read((*idx[:axis], outer, *idx[axis + 1 :], inner))

    return read


_READS: dict[str, Callable[[Node, Sequence[View], Bindings], Callable[[Indices], Expr]]] = {
    "reshape": _reshape,
    "transpose": _transpose,
    "broadcast_to": _broadcast_to,
    "slice": _slice,
    "concat": _concat,
    "pad": _pad,
    "gather": _gather,
    "gather_elements": _gather_elements,
    "gather_nd": _gather_nd,
    "pack": _pack,
    "unpack": _unpack,
    "rotary_embedding": rotary_embedding,
}
MOVEMENT = tuple(_READS)
