"""The stages of contractions: convolutions and products, their tiles and partial sums."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from planish.ir.graph import Node
from planish.ir.ops.winograd import PATCH
from planish.ir.schedule import Schedule
from planish.passes.local.stage import Anchored, Links, Patches, Tiles, make_stage

_BLOCKED = ("n", "oc", "oh", "ow", "ow.i", "oci")


def _contraction(
    axes: Sequence[str],
    shape: Sequence[int],
    over: Sequence[tuple[str, int]],
    tiles: Tiles | None = None,
    *,
    flatten: bool = False,
    chunk: int = 0,
) -> Anchored:
    """Stage `acc`, with `chunk` after partial sums of so many steps of the first reduced axis."""
    extents = shape if tiles is None else tiles.tiled(shape)
    positions = {"acc": {a: i for i, a in enumerate(axes)}}
    (first, steps), *others = over
    if chunk in (0, steps):
        return Anchored((make_stage("acc", extents, over, axes),), positions, tiles, flatten)
    count, named = steps // chunk, ("part", *axes)
    part = make_stage("part", (count, *extents), [(first, chunk), *others], named)
    acc = make_stage("acc", extents, [("part", count)], axes, {"part": {a: a for a in named}})
    return Anchored((part, acc), positions, tiles, flatten)


def _blocked_conv(node: Node, plan: Schedule) -> Anchored:
    n, oc, oh, ow, oci = node.output.type.static_shape
    ic, kh, kw, ici = node.inputs[1].type.static_shape[1:5]
    over = [("ic", ic), ("kh", kh), ("kw", kw), ("ici", ici)]
    tile, chunk = int(plan.choice("ow")), int(plan.choice("chunk"))
    if plan.choice("flatten"):
        flat, shape = tuple(a for a in _BLOCKED if a != "oh"), (n, oc, oh * ow, oci)
        return _contraction(flat, shape, over, Tiles(2, tile), flatten=True, chunk=chunk)
    return _contraction(_BLOCKED, (n, oc, oh, ow, oci), over, Tiles(3, tile), chunk=chunk)


def _winograd_conv(node: Node, plan: Schedule) -> Anchored:
    n, oc, height, width, oci = node.output.type.static_shape
    ic, ici = node.inputs[1].type.static_shape[3:5]
    tiles = Patches(int(plan.choice("p")))
    _, _, count, size, *_ = tiles.tiled((n, oc, height, width, oci))
    patch, axes = (PATCH, PATCH), ("n", "oc", "t", "p", "i", "j", "oci")
    order = ("n", "t", "ic", "i", "j", "p", "ici")
    v = make_stage("v", (n, count, ic, *patch, size, ici), (), order)
    over = [("ic", ic), ("ici", ici)]
    reads: dict[str, Links | None] = {"v": {axis: axis for axis in order}}
    acc = make_stage("acc", (n, oc, count, size, *patch, oci), over, axes, reads)
    positions = {a: i for i, a in enumerate(axes) if a not in ("i", "j")}
    return Anchored((v, acc), {"acc": positions}, tiles)


def _blocked_depthwise_conv(node: Node, plan: Schedule) -> Anchored:
    shape = node.output.type.static_shape
    kh, kw = node.inputs[1].type.static_shape[1:3]
    tiles = Tiles(3, int(plan.choice("ow")))
    return _contraction(_BLOCKED, shape, [("kh", kh), ("kw", kw)], tiles)


def _conv(node: Node, plan: Schedule) -> Anchored:
    shape, window = node.output.type.static_shape, node.inputs[1].type.static_shape[1:]
    axes = ("n", "oc", *(f"o{d}" for d in range(len(shape) - 3)), "ow", "ow.i")
    names = ("ic", *(f"k{d}" for d in range(len(shape) - 2)))
    tiles = Tiles(len(shape) - 1, int(plan.choice("ow")))
    return _contraction(axes, shape, [*zip(names, window)], tiles)


def _matmul(node: Node, plan: Schedule) -> Anchored:
    shape, weights = node.output.type.static_shape, node.inputs[1].type.static_shape
    columns = weights[0] * weights[2] if node.op == "packed_matmul" else shape[-1]
    axes = (*(f"b{d}" for d in range(len(shape) - 2)), "m", "m.i", "n")
    tiles = Tiles(len(shape) - 2, int(plan.choice("m")))
    over = [("k", node.inputs[0].type.static_shape[-1])]
    return _contraction(axes, (*shape[:-1], columns), over, tiles, chunk=int(plan.choice("chunk")))


#: Anchors → their stages.
CONTRACTIONS: Mapping[str, Callable[[Node, Schedule], Anchored]] = {
    "blocked_conv": _blocked_conv,
    "blocked_depthwise_conv": _blocked_depthwise_conv,
    "conv": _conv,
    "matmul": _matmul,
    "packed_matmul": _matmul,
    "winograd_conv": _winograd_conv,
}
