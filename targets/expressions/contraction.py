"""Tensor expressions of matmul and the convolutions; each has one accumulating stage `acc`."""

from __future__ import annotations

from collections.abc import Sequence

from tvm import te, tirx

from planish.ir.graph import Node
from planish.ir.schedule import Schedule
from planish.targets.expressions.elementwise import aligned, const
from planish.targets.expressions.view import Expr, Indices, Stages, Tiling, View

_BLOCKED = ("n", "oc", "oh", "ow", "ow.i", "oci")


def _tiled(stages: Stages, tiling: Tiling, shape: tuple[int, ...], dtype: str, acc: View) -> View:
    """The view of a tiled accumulator under the untiled shape; read where `out` is computed."""
    stages.tiling = tiling

    def read(idx: Indices) -> Expr:
        return acc.read((*idx[: tiling.axis], *tiling.here, *idx[tiling.axis + 1 :]))

    return View(shape, dtype, read)


def blocked_conv(node: Node, inputs: Sequence[View], stages: Stages, schedule: Schedule) -> View:
    """x[N,I,H,W,i], w[O,I,KH,KW,i,o]; `flatten` (1x1, stride 1): H and W are one axis."""
    x, w = inputs
    n, ob, oh, ow, oci = node.output.type.static_shape
    icb, kh, kw, ici = w.shape[1:5]
    (sh, sw), (dh, dw) = node.attrs["strides"], node.attrs["dilations"]
    tile = int(schedule.choice("ow"))
    reduced = [("ic", icb), ("kh", kh), ("kw", kw), ("ici", ici)]
    if schedule.choice("flatten"):
        flat = (n, ob, oh * ow, oci)
        tiling = Tiling(2, oh * ow, tile)

        def pixel(idx: Indices, r: Indices) -> Expr:
            b, o, p, c = tiling.whole(idx)
            at = (tirx.floordiv(p, ow), tirx.floormod(p, ow))
            return x.read((b, r[0], *at, r[3])) * w.read((o, *r, c))

        axes = ("n", "oc", "ow", "ow.i", "oci")
        acc = stages.reduce("acc", tiling.tiled(flat), reduced, pixel, te.sum, axes)
        return _tiled(stages, tiling, flat, x.dtype, acc)
    tiling = Tiling(3, ow, tile)
    shape = (n, ob, oh, ow, oci)

    def element(idx: Indices, r: Indices) -> Expr:
        b, o, i, j, c = tiling.whole(idx)
        at = (b, r[0], i * sh + r[1] * dh, j * sw + r[2] * dw, r[3])
        return x.read(at) * w.read((o, *r, c))

    acc = stages.reduce("acc", tiling.tiled(shape), reduced, element, te.sum, _BLOCKED)
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
        return x.read((b, c, i * sh + r[0] * dh, j * sw + r[1] * dw, ci)) * w.read((c, *r, ci))

    reduced = [("kh", w.shape[1]), ("kw", w.shape[2])]
    acc = stages.reduce("acc", tiling.tiled(shape), reduced, element, te.sum, _BLOCKED)
    return _tiled(stages, tiling, shape, x.dtype, acc)


def conv(node: Node, inputs: Sequence[View], stages: Stages, schedule: Schedule) -> View:
    """x[N,C,*S], w[O,C/g,*K], any rank and groups, zero padding by guards."""
    x, w = inputs
    shape = node.output.type.static_shape
    a = node.attrs
    per_group = shape[1] // a["groups"]
    channels = w.shape[1]
    dims = range(len(shape) - 2)
    reduced = [("ic", channels), *((f"k{d}", w.shape[2 + d]) for d in dims)]

    def element(idx: Indices, r: Indices) -> Expr:
        channel = r[0]
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
        return value * w.read((idx[1], *r))

    axes = ("n", "oc", *(f"o{d}" for d in dims))
    return stages.reduce("acc", shape, reduced, element, te.sum, axes)


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
        return left * b.read((*_batch(b, shape, at), r[0], at[-1]))

    axes, reduced = _matmul_axes(len(shape)), [("k", a.shape[-1])]
    acc = stages.reduce("acc", tiling.tiled(shape), reduced, element, te.sum, axes)
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
        return a.read((*at[:-1], r[0])) * b.read(panel)

    axes, reduced = _matmul_axes(len(shape)), [("k", a.shape[-1])]
    full = tiling.tiled((*shape[:-1], b.shape[0] * block))
    acc = stages.reduce("acc", full, reduced, element, te.sum, axes)
    return _tiled(stages, tiling, shape, a.dtype, acc)
