"""Tensor expressions of matmul and the convolutions; each has one accumulating stage `acc`.

Where a tile does not divide its axis, `acc` is computed over the axis rounded up, with source
indices held at the last element: whole tiles stay free of predicates, and the surplus is never
stored.
"""

from __future__ import annotations

from collections.abc import Sequence

from tvm import te, tirx

from planish.ir.graph import Node
from planish.ir.schedule import Schedule
from planish.targets.expressions.elementwise import aligned, const
from planish.targets.expressions.view import Expr, Indices, Stages, View

_BLOCKED = ("n", "oc", "oh", "ow", "oci")


def _round_up(extent: int, tile: int) -> int:
    return -(-extent // tile) * tile


def _held(index: Expr, extent: int, needed: bool) -> Expr:
    return tirx.min(index, extent - 1) if needed else index


def blocked_conv(node: Node, inputs: Sequence[View], stages: Stages, schedule: Schedule) -> View:
    """x[N,I,H,W,i], w[O,I,KH,KW,i,o]; `flatten` (1x1, stride 1): H and W are one axis."""
    x, w = inputs
    n, ob, oh, ow, oci = node.output.type.static_shape
    icb, kh, kw, ici = w.shape[1:5]
    (sh, sw), (dh, dw) = node.attrs["strides"], node.attrs["dilations"]
    tile = int(schedule.choice("ow"))
    reduced = [("ic", icb), ("kh", kh), ("kw", kw), ("ici", ici)]
    if schedule.choice("flatten"):
        pixels = oh * ow
        padded = _round_up(pixels, tile)

        def flat(idx: Indices, r: Indices) -> Expr:
            p = _held(idx[2], pixels, padded > pixels)
            at = (tirx.floordiv(p, ow), tirx.floormod(p, ow))
            return x.read((idx[0], r[0], *at, r[3])) * w.read((idx[1], *r, idx[3]))

        axes = ("n", "oc", "ow", "oci")
        acc = stages.reduce("acc", (n, ob, padded, oci), reduced, flat, te.sum, axes)
        return View((n, ob, pixels, oci), x.dtype, acc.read)
    padded = _round_up(ow, tile)
    width = x.shape[3]

    def element(idx: Indices, r: Indices) -> Expr:
        column = _held(idx[3] * sw + r[2] * dw, width, padded > ow)
        at = (idx[0], r[0], idx[2] * sh + r[1] * dh, column, r[3])
        return x.read(at) * w.read((idx[1], *r, idx[4]))

    acc = stages.reduce("acc", (n, ob, oh, padded, oci), reduced, element, te.sum, _BLOCKED)
    return View((n, ob, oh, ow, oci), x.dtype, acc.read)


def blocked_depthwise_conv(
    node: Node, inputs: Sequence[View], stages: Stages, schedule: Schedule
) -> View:
    """x[N,C,H,W,c], w[C,KH,KW,c]."""
    x, w = inputs
    n, cb, oh, ow, ci = node.output.type.static_shape
    kh, kw = w.shape[1:3]
    (sh, sw), (dh, dw) = node.attrs["strides"], node.attrs["dilations"]
    padded = _round_up(ow, int(schedule.choice("ow")))
    width = x.shape[3]

    def element(idx: Indices, r: Indices) -> Expr:
        column = _held(idx[3] * sw + r[1] * dw, width, padded > ow)
        at = (idx[0], idx[1], idx[2] * sh + r[0] * dh, column, idx[4])
        return x.read(at) * w.read((idx[1], *r, idx[4]))

    reduced = [("kh", kh), ("kw", kw)]
    acc = stages.reduce("acc", (n, cb, oh, padded, ci), reduced, element, te.sum, _BLOCKED)
    return View((n, cb, oh, ow, ci), x.dtype, acc.read)


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


def matmul(node: Node, inputs: Sequence[View], stages: Stages, schedule: Schedule) -> View:
    """a[..,M,K], b[..,K,N], batch dimensions broadcast."""
    a, b = inputs
    shape = node.output.type.static_shape
    rows = shape[-2]
    padded = _round_up(rows, int(schedule.choice("m")))

    def element(idx: Indices, r: Indices) -> Expr:
        m = _held(idx[-2], rows, padded > rows)
        left = a.read((*_batch(a, shape, idx), m, r[0]))
        return left * b.read((*_batch(b, shape, idx), r[0], idx[-1]))

    axes = (*(f"b{d}" for d in range(len(shape) - 2)), "m", "n")
    full = (*shape[:-2], padded, shape[-1])
    acc = stages.reduce("acc", full, [("k", a.shape[-1])], element, te.sum, axes)
    return View(shape, a.dtype, acc.read)


def packed_matmul(node: Node, inputs: Sequence[View], stages: Stages, schedule: Schedule) -> View:
    """a[..,M,K], b[N/nb,K,nb], packed at compile time and zero padded."""
    a, b = inputs
    shape = node.output.type.static_shape
    rows, block = shape[-2], b.shape[2]
    padded = _round_up(rows, int(schedule.choice("m")))

    def element(idx: Indices, r: Indices) -> Expr:
        m = _held(idx[-2], rows, padded > rows)
        left = a.read((*idx[:-2], m, r[0]))
        panel = (tirx.floordiv(idx[-1], block), r[0], tirx.floormod(idx[-1], block))
        return left * b.read(panel)

    axes = (*(f"b{d}" for d in range(len(shape) - 2)), "m", "n")
    full = (*shape[:-2], padded, b.shape[0] * block)
    acc = stages.reduce("acc", full, [("k", a.shape[-1])], element, te.sum, axes)
    return View(shape, a.dtype, acc.read)
