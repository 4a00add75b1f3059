"""Tensor expressions of matmul and the convolutions; each has one accumulating stage `acc`."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from tvm import tirx

from planish.ir.graph import Node
from planish.ir.schedule import Schedule
from planish.targets.expressions.elementwise import aligned, const
from planish.targets.expressions.opaque import multiply
from planish.targets.expressions.reduction import SUM
from planish.targets.expressions.view import Expr, Indices, Stages, Tiling, View

_BLOCKED = ("n", "oc", "oh", "ow", "ow.i", "oci")


def _tiled(stages: Stages, tiling: Tiling, shape: tuple[int, ...], dtype: str, acc: View) -> View:
    """The view of a tiled accumulator under the untiled shape; read where `out` is computed."""
    stages.tiling = tiling

    def read(idx: Indices) -> Expr:
        return acc.read((*idx[: tiling.axis], *tiling.here, *idx[tiling.axis + 1 :]))

    return View(shape, dtype, read)


def _summed(
    stages: Stages,
    shape: tuple[int, ...],
    reduced: list[tuple[str, int]],
    element: Callable[[Indices, Indices], Expr],
    axes: tuple[str, ...],
    chunk: int,
) -> View:
    """Stage `acc`: sums over `reduced`; in stage `part` of `chunk` steps of the first axis each.

    Rounding errors grow with the length of a sum: adding up partial sums keeps them small.
    """
    (first, extent), *others = reduced
    if chunk == extent:
        return stages.reduce("acc", shape, reduced, element, SUM, axes)

    def partial(idx: Indices, r: Indices) -> Expr:
        return element(idx[1:], (idx[0] * chunk + r[0], *r[1:]))

    count = extent // chunk
    part = stages.reduce(
        "part", (count, *shape), [(first, chunk), *others], partial, SUM, ("part", *axes)
    )

    def total(idx: Indices, r: Indices) -> Expr:
        return part.read((r[0], *idx))

    return stages.reduce("acc", shape, [("part", count)], total, SUM, axes)


def blocked_conv(node: Node, inputs: Sequence[View], stages: Stages, schedule: Schedule) -> View:
    """x[N,g·C/x,H,W,x], w[O,C/i,KH,KW,i,o], i divides x.

    `flatten` (1x1, stride 1): H and W are one axis.
    """
    x, w = inputs
    n, ob, oh, ow, oci = node.output.type.static_shape
    icb, kh, kw, ici = w.shape[1:5]
    (sh, sw), (dh, dw) = node.attrs["strides"], node.attrs["dilations"]
    groups = node.attrs["groups"]
    tile, chunk = int(schedule.choice("ow")), int(schedule.choice("chunk"))
    reduced = [("ic", icb), ("kh", kh), ("kw", kw), ("ici", ici)]

    def channel(o: Expr, r: Indices) -> tuple[Expr, Expr]:
        """Block and lane of x: channel `r` of the group that makes block `o` of the result."""
        block, lane = r[0], r[3]
        if ici != x.shape[4]:
            whole = r[0] * ici + r[3]
            block, lane = tirx.floordiv(whole, x.shape[4]), tirx.floormod(whole, x.shape[4])
        if groups > 1:
            block = tirx.floordiv(o, ob // groups) * (x.shape[1] // groups) + block
        return block, lane

    if schedule.choice("flatten"):
        flat = (n, ob, oh * ow, oci)
        tiling = Tiling(2, oh * ow, tile)

        def pixel(idx: Indices, r: Indices) -> Expr:
            b, o, p, c = tiling.whole(idx)
            at = (tirx.floordiv(p, ow), tirx.floormod(p, ow))
            block, lane = channel(o, r)
            return multiply(x.read((b, block, *at, lane)), w.read((o, *r, c)))

        axes = ("n", "oc", "ow", "ow.i", "oci")
        acc = _summed(stages, tiling.tiled(flat), reduced, pixel, axes, chunk)
        return _tiled(stages, tiling, flat, x.dtype, acc)
    tiling = Tiling(3, ow, tile)
    shape = (n, ob, oh, ow, oci)

    def element(idx: Indices, r: Indices) -> Expr:
        b, o, i, j, c = tiling.whole(idx)
        block, lane = channel(o, r)
        at = (b, block, i * sh + r[1] * dh, j * sw + r[2] * dw, lane)
        return multiply(x.read(at), w.read((o, *r, c)))

    acc = _summed(stages, tiling.tiled(shape), reduced, element, _BLOCKED, chunk)
    return _tiled(stages, tiling, shape, x.dtype, acc)


def blocked_depthwise_conv(
    node: Node, inputs: Sequence[View], stages: Stages, schedule: Schedule
) -> View:
    """x[N,C,H,W,c], w[C,KH,KW,c]."""
    x, w = inputs
    shape = node.output.type.static_shape
    (sh, sw), (dh, dw) = node.attrs["strides"], node.attrs["dilations"]
    tiling = Tiling(3, shape[3], int(schedule.choice("ow")))

    def element(idx: Indices, r: Indices) -> Expr:
        b, c, i, j, ci = tiling.whole(idx)
        value = x.read((b, c, i * sh + r[0] * dh, j * sw + r[1] * dw, ci))
        return multiply(value, w.read((c, *r, ci)))

    reduced = [("kh", w.shape[1]), ("kw", w.shape[2])]
    acc = stages.reduce("acc", tiling.tiled(shape), reduced, element, SUM, _BLOCKED)
    return _tiled(stages, tiling, shape, x.dtype, acc)


def conv(node: Node, inputs: Sequence[View], stages: Stages, schedule: Schedule) -> View:
    """x[N,C,*S], w[O,C/g,*K], any rank and groups, zero padding by guards."""
    x, w = inputs
    shape = node.output.type.static_shape
    tiling = Tiling(len(shape) - 1, shape[-1], int(schedule.choice("ow")))
    a = node.attrs
    per_group = shape[1] // a["groups"]
    channels = w.shape[1]
    dims = range(len(shape) - 2)
    reduced = [("ic", channels), *((f"k{d}", w.shape[2 + d]) for d in dims)]

    def element(tiled: Indices, r: Indices) -> Expr:
        idx, channel = tiling.whole(tiled), r[0]
        if a["groups"] > 1:
            channel = tirx.floordiv(idx[1], per_group) * channels + r[0]
        at, inside = [], []
        for d in dims:
            i = idx[2 + d] * a["strides"][d] + r[1 + d] * a["dilations"][d] - a["before"][d]
            at.append(i)
            if a["before"][d]:
                inside.append(i >= 0)
            if a["after"][d]:
                inside.append(i < x.shape[2 + d])
        value = x.read((idx[0], channel, *at))
        if inside:
            guard = tirx.all(*inside) if len(inside) > 1 else inside[0]
            value = tirx.if_then_else(guard, value, const(0, x.dtype))
        return multiply(value, w.read((idx[1], *r)))

    axes = ("n", "oc", *(f"o{d}" for d in dims[:-1]), "ow", "ow.i")
    acc = stages.reduce("acc", tiling.tiled(shape), reduced, element, SUM, axes)
    return _tiled(stages, tiling, shape, x.dtype, acc)


def _batch(view: View, out: tuple[int, ...], idx: Indices) -> Indices:
    """Batch indices of a matmul operand under broadcasting."""
    return aligned(view.shape[:-2], out[:-2], idx[: len(out) - 2])


def _matmul_axes(rank: int) -> tuple[str, ...]:
    return (*(f"b{d}" for d in range(rank - 2)), "m", "m.i", "n")


def matmul(node: Node, inputs: Sequence[View], stages: Stages, schedule: Schedule) -> View:
    """a[..,M,K], b[..,K,N], batch dimensions broadcast."""
    a, b = inputs
    shape = node.output.type.static_shape
    tiling = Tiling(len(shape) - 2, shape[-2], int(schedule.choice("m")))

    def element(idx: Indices, r: Indices) -> Expr:
        at = tiling.whole(idx)
        left = a.read((*_batch(a, shape, at), at[-2], r[0]))
        return multiply(left, b.read((*_batch(b, shape, at), r[0], at[-1])))

    axes, reduced = _matmul_axes(len(shape)), [("k", a.shape[-1])]
    chunk = int(schedule.choice("chunk"))
    acc = _summed(stages, tiling.tiled(shape), reduced, element, axes, chunk)
    return _tiled(stages, tiling, shape, a.dtype, acc)


def packed_matmul(node: Node, inputs: Sequence[View], stages: Stages, schedule: Schedule) -> View:
    """a[..,M,K], b[N/nb,K,nb], packed at compile time and zero padded."""
    a, b = inputs
    shape = node.output.type.static_shape
    block = b.shape[2]
    tiling = Tiling(len(shape) - 2, shape[-2], int(schedule.choice("m")))

    def element(idx: Indices, r: Indices) -> Expr:
        at = tiling.whole(idx)
        panel = (tirx.floordiv(at[-1], block), r[0], tirx.floormod(at[-1], block))
        return multiply(a.read((*at[:-1], r[0])), b.read(panel))

    axes, reduced = _matmul_axes(len(shape)), [("k", a.shape[-1])]
    full = tiling.tiled((*shape[:-1], b.shape[0] * block))
    acc = _summed(stages, full, reduced, element, axes, int(schedule.choice("chunk")))
    return _tiled(stages, tiling, shape, a.dtype, acc)
