"""The stages of reductions: rows, windows, softmax and norms, with partial results in lanes."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence

from planish.ir.graph import Node
from planish.ir.schedule import Schedule
from planish.passes.local.stage import (
    Anchored,
    Links,
    Stage,
    Tiles,
    make_stage,
    numbered,
    vector_tiles,
)


def fold_widths(lanes: int) -> tuple[int, ...]:
    """How many partial results are left after each step that joins four (or two) of `lanes` ones.

    The last step leaves one, which is not in the list: 32 partial results → 8, 2.
    """
    widths = []
    while lanes > 4:
        lanes //= 4
        widths.append(lanes)
    return tuple(widths)


def taken_in_lanes(length: int, lanes: int, tile: int = 0) -> int:
    """How many of a row's first elements are added up as partial results; 0 if it has too few.

    All but those of the last tile, if they are kept in tiles of which the last one overlaps.
    """
    whole = (length - 1) // tile * tile if tile else length
    return whole if 1 < lanes <= whole and lanes >= tile else 0


def is_in_one_pass(length: int, lanes: int) -> bool:
    """True if a layer norm finds mean and variance in one pass over a row.

    Its error grows with the elements of a lane, for rows whose first elements stand far from all
    others: by 2^-24 of the variance for each.
    """
    return 1 < lanes <= length <= 64 * lanes


def _rows(
    name: str,
    outer: Sequence[int],
    length: int,
    lanes: int,
    reads: Iterable[str] = (),
    tiles: Tiles | None = None,
) -> tuple[Stage, ...]:
    """A reduction of rows: partial results in lanes where the row is long, then their sum.

    `reads` are stages with the same rows, and `exp` with the row's elements (axis `k`), or with
    them in `tiles`, of which the last is left to the rest.
    """
    spatial = numbered(len(outer))
    row = {d: d for d in spatial}
    given: dict[str, Links | None] = dict.fromkeys(reads, row)
    whole = taken_in_lanes(length, lanes, 0 if tiles is None else tiles.size)
    if not whole:
        if "exp" in given:
            given["exp"] = row | {"k": "k"}  # nothing, where it is in tiles
        return (make_stage(name, outer, [("k", length)], reads=given),)
    shape, axes = (*outer, lanes), (*spatial, "lane")
    stages = [make_stage(f"{name}_part", shape, [("ko", whole // lanes)], axes, given)]
    wider = stages[-1].name
    if whole < length or whole % lanes:
        reads = {**given, wider: row | {"lane": "lane"}}
        stages.append(make_stage(f"{name}_rest", shape, (), axes, reads))
        wider = stages[-1].name
    return *stages, *_folds(name, outer, lanes, wider)


def _folds(name: str, outer: Sequence[int], lanes: int, wider: str) -> Iterable[Stage]:
    """The steps that join the partial results in the stage `wider`."""
    spatial = numbered(len(outer))
    row: Links = {d: d for d in spatial}
    for width in fold_widths(lanes):
        yield make_stage(f"{name}_{width}", (*outer, width), (), (*spatial, "lane"), {wider: row})
        wider = f"{name}_{width}"
    yield make_stage(name, outer, reads={wider: row})


def _reduce(node: Node, plan: Schedule) -> Anchored:
    shape, axes = node.inputs[0].type.static_shape, node.attrs["axes"]
    kept = [d for d in range(len(shape)) if d not in axes]
    outer = [shape[d] for d in kept]
    positions = {f"d{i}": d if node.attrs["keepdims"] else i for i, d in enumerate(kept)}
    if plan.choice("rows"):
        length = math.prod(shape[d] for d in axes)
        stages = _rows("acc", outer, length, int(plan.choice("lanes")))
        return Anchored(stages, {"acc": positions})
    over = [(f"r{i}", shape[d]) for i, d in enumerate(axes)]
    tiles = vector_tiles(plan, len(outer) - 1)
    if tiles is not None:
        last = positions[f"d{len(outer) - 1}"]
        positions[f"d{len(outer)}"] = last + 1
        outer = list(tiles.tiled(outer))
    return Anchored((make_stage("acc", outer, over),), {"acc": positions})


def _arg_reduce(node: Node, plan: Schedule) -> Anchored:
    shape = node.inputs[0].type.static_shape
    axis = node.attrs["axis"] % len(shape)
    outer = (*shape[:axis], *shape[axis + 1 :])
    lanes = int(plan.choice("lanes")) if axis == len(shape) - 1 else 1
    best = _rows("best", outer, shape[axis], lanes)
    acc = _rows("acc", outer, shape[axis], lanes, ["best"])
    if 1 < lanes <= shape[axis]:  # candidates of each lane, which both are made from
        axes = (*numbered(len(outer)), "lane")
        reads: dict[str, Links | None] = {"best": {d: d for d in axes[:-1]}}
        for stage in best:
            if stage.name in ("best_part", "best_rest"):
                reads[stage.name] = {d: d for d in axes}
        part = make_stage("acc_part", (*outer, lanes), (), axes, reads)
        acc = (part, *_folds("acc", outer, lanes, "acc_part"))
    shifted = axis if node.attrs["keepdims"] else len(shape)
    return Anchored(
        (*best, *acc), {"acc": {f"d{i}": i + (i >= shifted) for i in range(len(outer))}}
    )


def _pool(node: Node, plan: Schedule) -> Anchored:
    shape = node.output.type.static_shape
    windows = [(f"w{d}", n) for d, n in enumerate(node.attrs["window"]) if n > 1]
    tiles = vector_tiles(plan, len(shape) - 1)
    if tiles is not None:
        shape = tiles.tiled(shape)
    acc = make_stage("acc", shape, windows or [("w0", 1)])
    return Anchored((acc,), {"acc": {f"d{i}": i for i in range(len(shape))}})


def _softmax(node: Node, plan: Schedule) -> Anchored:
    shape = node.output.type.static_shape
    axis = node.attrs["axis"] % len(shape)
    outer, length = (*shape[:axis], *shape[axis + 1 :]), shape[axis]
    lanes = int(plan.choice("lanes")) if axis == len(shape) - 1 else 1
    positions = {f"d{i}": i + (i >= axis) for i in range(len(outer))}
    top = _rows("max", outer, length, lanes)
    if node.op == "log_softmax":
        stages = (*top, *_rows("sum", outer, length, lanes, ["max"]))
        return Anchored(stages, {"max": positions, "sum": positions})
    spatial = numbered(len(outer))
    tiles = vector_tiles(plan, axis)
    if tiles is not None:
        in_tiles = tiles.tiled(shape)
        axes = (*spatial, "k.o", "k.v")
        exp = make_stage("exp", in_tiles, (), axes, {"max": {d: d for d in spatial}})
        stages = (*top, exp, *_rows("sum", outer, length, lanes, ["exp"], tiles))
        linked = positions | {"k.o": axis, "k.v": axis + 1}
        return Anchored(stages, {"exp": linked, "sum": positions})
    axes = (*spatial[:axis], "k", *spatial[axis:])
    exp = make_stage("exp", shape, (), axes, {"max": {d: d for d in spatial}})
    stages = (*top, exp, *_rows("sum", outer, length, lanes, ["exp"]))
    return Anchored(stages, {"exp": positions | {"k": axis}, "sum": positions})


def _norm(node: Node, plan: Schedule) -> Anchored:
    shape = node.output.type.static_shape
    axis = node.attrs["axis"] % len(shape)
    outer, length = shape[:axis], math.prod(shape[axis:])
    lanes = int(plan.choice("lanes"))
    row = {f"d{i}": f"d{i}" for i in range(axis)}
    positions = {f"d{i}": i for i in range(axis)}
    centred = node.op == "layer_norm"
    stages: tuple[Stage, ...] = ()
    if centred and is_in_one_pass(length, lanes):
        stages = tuple(_moments(outer, length, lanes))
    elif centred:
        total = _rows("sum", outer, length, lanes)
        stages = (*total, make_stage("mean", outer, reads={"sum": row}))
        stages += _rows("squares", outer, length, lanes, ["mean"])
    else:
        stages = _rows("squares", outer, length, lanes)
    stages = (*stages, make_stage("inverse", outer, reads={"squares": row}))
    read = ("mean", "inverse") if centred else ("inverse",)
    return Anchored(stages, dict.fromkeys(read, positions))


def _moments(outer: Sequence[int], length: int, lanes: int) -> Iterable[Stage]:
    """Mean and sum of squares of rows that are read once."""
    shape, axes = (*outer, lanes), (*numbered(len(outer)), "lane")
    yield make_stage("moments_part", shape, [("ko", length // lanes)], axes)
    row = {d: d for d in axes[:-1]}
    given: dict[str, Links | None] = {"moments_part": {d: d for d in axes}}
    yield make_stage("sum_rest", shape, (), axes, given)
    yield from _folds("sum", outer, lanes, "sum_rest")
    yield make_stage("mean", outer, reads={"sum": row})
    yield make_stage("squares_rest", shape, (), axes, {"mean": row, **given})
    yield from _folds("squares", outer, lanes, "squares_rest")


#: Anchors → their stages.
REDUCTIONS: Mapping[str, Callable[[Node, Schedule], Anchored]] = {
    **dict.fromkeys(("reduce_sum", "reduce_mean", "reduce_max", "reduce_min"), _reduce),
    "reduce_prod": _reduce,
    **dict.fromkeys(("arg_max", "arg_min"), _arg_reduce),
    "pool": _pool,
    "softmax": _softmax,
    "log_softmax": _softmax,
    "layer_norm": _norm,
    "rms_norm": _norm,
}
