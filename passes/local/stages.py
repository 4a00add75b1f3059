"""The stages of a kernel as `planish.targets` computes them, before any directive."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from planish.ir.errors import ScheduleError
from planish.ir.graph import Graph, Node, Value
from planish.ir.op import OpKind
from planish.ir.ops import op_def
from planish.ir.ops.winograd import PATCH, STEP, patches
from planish.ir.schedule import Schedule
from planish.passes.fuse import inner_root, is_padded
from planish.passes.local.loop import Loop, whole_axis

#: Own axis → the producer's axis with the same index; other axes of the producer are read whole.
Links = Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Place:
    """Under the loop `axis` of the stage `stage`."""

    stage: str
    axis: str


@dataclass(frozen=True, slots=True)
class Stage:
    """A stored tensor of a kernel and the loops that compute it, outermost first.

    `reads` names the stages that it reads, with what links their axes to its own, or None where
    ops between them move elements. `place` is where `compute_at` has put it.
    """

    name: str
    loops: tuple[Loop, ...]
    reads: Mapping[str, Links | None] = field(default_factory=dict)
    place: Place | None = None
    scope: str = "global"
    begun: bool = True  # the loops are those that it began with
    decomposed: bool = False

    @property
    def axes(self) -> tuple[str, ...]:
        """Names of the loops, outermost first."""
        return tuple(loop.name for loop in self.loops)

    def loop(self, axis: str) -> Loop:
        """The loop of that name; ScheduleError if there is none."""
        for loop in self.loops:
            if loop.name == axis:
                return loop
        raise ScheduleError(
            f"stage '{self.name}' has no loop '{axis}'; it has {', '.join(self.axes)}"
        )


@dataclass(frozen=True, slots=True)
class _Tiles:
    """One axis of `out` as (tiles, size), as the anchor's accumulator has it."""

    axis: int
    size: int

    def tiled(self, shape: Sequence[int]) -> tuple[int, ...]:
        extent = shape[self.axis]
        if not 1 <= self.size <= extent:
            raise ScheduleError(f"tiles of {self.size} do not fit an axis of {extent}")
        count = -(-extent // self.size)
        return (*shape[: self.axis], count, self.size, *shape[self.axis + 1 :])


@dataclass(frozen=True, slots=True)
class _Patches:
    """H and W of `out`[N, C, H, W, c] as (tiles, size, 2, 2): patches of pixels, in tiles."""

    size: int

    def tiled(self, shape: Sequence[int]) -> tuple[int, ...]:
        line = _Tiles(2, self.size)
        count, size = line.tiled((*shape[:2], patches(shape[2], shape[3])))[2:]
        return (*shape[:2], count, size, STEP, STEP, *shape[4:])


@dataclass(frozen=True, slots=True)
class _Anchored:
    """An anchor's stages, the axis of `out` for each of theirs by position, and its tiles."""

    stages: tuple[Stage, ...]
    positions: Mapping[str, Mapping[str, int]]  # stage that out reads → its axis → out's position
    tiles: _Tiles | _Patches | None = None
    flatten: bool = False


def stages_of(kernel: Node) -> tuple[Stage, ...]:
    """The stages of a kernel in the order in which they are computed; the last is `out`.

    Agrees with `planish.targets.lowering`, whose stages depend on the schedule's choices.
    ScheduleError for a kernel without schedule, or one that an emitter writes.
    """
    (body,) = kernel.regions
    plan = kernel.attrs["schedule"]
    if plan is None:
        raise ScheduleError(f"{kernel.where()} has no schedule; assign a default one first")
    if plan.emitter is not None:
        raise ScheduleError(
            f"{kernel.where()} is written by the emitter '{plan.emitter}', not by directives"
        )
    if any(value.type.elements == 0 for value in body.values()):
        raise ScheduleError(f"{kernel.where()} holds an empty tensor: nothing to schedule")
    anchor = _anchor(body)
    if anchor is None:
        return (_out(body, plan, _Anchored((), {})),)
    if anchor.op not in _ANCHORED:
        raise ScheduleError(f"{kernel.where()}: {anchor.op} has no stages that directives can name")
    try:
        anchored = _ANCHORED[anchor.op](anchor, plan)
    except ScheduleError as error:
        raise ScheduleError(f"{kernel.where()}: {error}") from None
    out = _out(body, plan, anchored, is_aligned(body, anchor))
    return (*anchored.stages, out)


def _anchor(body: Graph) -> Node | None:
    for node in body.nodes:
        if op_def(node.op).kind not in (OpKind.ELEMENTWISE, OpKind.MOVEMENT):
            return node
    return None


def is_aligned(body: Graph, anchor: Node) -> bool:
    """True if all between the anchor and the result is element-wise on one shape."""
    root, shape = inner_root(body), anchor.output.type.shape
    after: set[Value] = {anchor.output}
    padding = body.outputs[0] if is_padded(body) else None  # which the placement writes
    for node in body.nodes:
        if after.intersection(node.inputs) and node.output is not padding:
            after.add(node.output)
            if op_def(node.op).kind is not OpKind.ELEMENTWISE or node.output.type.shape != shape:
                return False
    return root.type.shape == shape


def _out(body: Graph, plan: Schedule, anchored: _Anchored, aligned: bool = True) -> Stage:
    shape = inner_root(body).type.static_shape
    if anchored.flatten:
        shape = (*shape[:2], shape[2] * shape[3], *shape[4:])
    if ("flat", True) in plan.choices:
        shape = (math.prod(shape),)
    tiles = anchored.tiles
    if tiles is None and ("overlap", True) in plan.choices:
        tiles = _Tiles(vector_axis(shape), int(plan.choice("vector")))
    if tiles is not None:
        shape = tiles.tiled(shape)
    extents = shape or (1,)
    names = _numbered(len(extents))
    for stage in anchored.stages:
        kept = tuple(loop.name for loop in stage.loops if not loop.reduced)
        if stage.name == "acc" and len(kept) == len(extents):
            names = kept
    reads: dict[str, Links | None] = {
        name: {names[p]: axis for axis, p in positions.items()} if aligned else None
        for name, positions in anchored.positions.items()
    }
    return Stage("out", tuple(map(whole_axis, names, extents)), reads)


def vector_axis(shape: Sequence[int]) -> int:
    """The last axis with more than one element, which vectors run along; the last if none has."""
    return max((d for d, n in enumerate(shape) if n > 1), default=max(0, len(shape) - 1))


def _numbered(count: int) -> tuple[str, ...]:
    return tuple(f"d{i}" for i in range(count))


def _stage(
    name: str,
    shape: Sequence[int],
    over: Iterable[tuple[str, int]] = (),
    axes: Sequence[str] = (),
    reads: Mapping[str, Links | None] | None = None,
) -> Stage:
    names = tuple(axes) or _numbered(len(shape)) or ("d0",)
    kept = tuple(map(whole_axis, names, tuple(shape) or (1,)))
    reduced = tuple(whole_axis(axis, extent, reduced=True) for axis, extent in over)
    return Stage(name, kept + reduced, reads or {})


# --- contractions

_BLOCKED = ("n", "oc", "oh", "ow", "ow.i", "oci")


def _contraction(
    axes: Sequence[str],
    shape: Sequence[int],
    over: Sequence[tuple[str, int]],
    tiles: _Tiles | None = None,
    *,
    flatten: bool = False,
    chunk: int = 0,
) -> _Anchored:
    """Stage `acc`, with `chunk` after partial sums of so many steps of the first reduced axis."""
    extents = shape if tiles is None else tiles.tiled(shape)
    positions = {"acc": {a: i for i, a in enumerate(axes)}}
    (first, steps), *others = over
    if chunk in (0, steps):
        return _Anchored((_stage("acc", extents, over, axes),), positions, tiles, flatten)
    count, named = steps // chunk, ("part", *axes)
    part = _stage("part", (count, *extents), [(first, chunk), *others], named)
    acc = _stage("acc", extents, [("part", count)], axes, {"part": {a: a for a in named}})
    return _Anchored((part, acc), positions, tiles, flatten)


def _blocked_conv(node: Node, plan: Schedule) -> _Anchored:
    n, oc, oh, ow, oci = node.output.type.static_shape
    ic, kh, kw, ici = node.inputs[1].type.static_shape[1:5]
    over = [("ic", ic), ("kh", kh), ("kw", kw), ("ici", ici)]
    tile, chunk = int(plan.choice("ow")), int(plan.choice("chunk"))
    if plan.choice("flatten"):
        flat, shape = tuple(a for a in _BLOCKED if a != "oh"), (n, oc, oh * ow, oci)
        return _contraction(flat, shape, over, _Tiles(2, tile), flatten=True, chunk=chunk)
    return _contraction(_BLOCKED, (n, oc, oh, ow, oci), over, _Tiles(3, tile), chunk=chunk)


def _winograd_conv(node: Node, plan: Schedule) -> _Anchored:
    n, oc, height, width, oci = node.output.type.static_shape
    ic, ici = node.inputs[1].type.static_shape[3:5]
    tiles = _Patches(int(plan.choice("p")))
    _, _, count, size, *_ = tiles.tiled((n, oc, height, width, oci))
    patch, axes = (PATCH, PATCH), ("n", "oc", "t", "p", "i", "j", "oci")
    order = ("n", "t", "ic", "i", "j", "p", "ici")
    v = _stage("v", (n, count, ic, *patch, size, ici), (), order)
    over = [("ic", ic), ("ici", ici)]
    reads: dict[str, Links | None] = {"v": {axis: axis for axis in order}}
    acc = _stage("acc", (n, oc, count, size, *patch, oci), over, axes, reads)
    positions = {a: i for i, a in enumerate(axes) if a not in ("i", "j")}
    return _Anchored((v, acc), {"acc": positions}, tiles)


def _blocked_depthwise_conv(node: Node, plan: Schedule) -> _Anchored:
    shape = node.output.type.static_shape
    kh, kw = node.inputs[1].type.static_shape[1:3]
    tiles = _Tiles(3, int(plan.choice("ow")))
    return _contraction(_BLOCKED, shape, [("kh", kh), ("kw", kw)], tiles)


def _conv(node: Node, plan: Schedule) -> _Anchored:
    shape, window = node.output.type.static_shape, node.inputs[1].type.static_shape[1:]
    axes = ("n", "oc", *(f"o{d}" for d in range(len(shape) - 3)), "ow", "ow.i")
    names = ("ic", *(f"k{d}" for d in range(len(shape) - 2)))
    tiles = _Tiles(len(shape) - 1, int(plan.choice("ow")))
    return _contraction(axes, shape, [*zip(names, window)], tiles)


def _matmul(node: Node, plan: Schedule) -> _Anchored:
    shape, weights = node.output.type.static_shape, node.inputs[1].type.static_shape
    columns = weights[0] * weights[2] if node.op == "packed_matmul" else shape[-1]
    axes = (*(f"b{d}" for d in range(len(shape) - 2)), "m", "m.i", "n")
    tiles = _Tiles(len(shape) - 2, int(plan.choice("m")))
    over = [("k", node.inputs[0].type.static_shape[-1])]
    return _contraction(axes, (*shape[:-1], columns), over, tiles, chunk=int(plan.choice("chunk")))


# --- reductions


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
    tiles: _Tiles | None = None,
) -> tuple[Stage, ...]:
    """A reduction of rows: partial results in lanes where the row is long, then their sum.

    `reads` are stages with the same rows, and `exp` with the row's elements (axis `k`), or with
    them in `tiles`, of which the last is left to the rest.
    """
    spatial = _numbered(len(outer))
    row = {d: d for d in spatial}
    given: dict[str, Links | None] = dict.fromkeys(reads, row)
    whole = taken_in_lanes(length, lanes, 0 if tiles is None else tiles.size)
    if not whole:
        if "exp" in given:
            given["exp"] = row | {"k": "k"}  # nothing, where it is in tiles
        return (_stage(name, outer, [("k", length)], reads=given),)
    shape, axes = (*outer, lanes), (*spatial, "lane")
    stages = [_stage(f"{name}_part", shape, [("ko", whole // lanes)], axes, given)]
    wider = stages[-1].name
    if whole < length or whole % lanes:
        reads = {**given, wider: row | {"lane": "lane"}}
        stages.append(_stage(f"{name}_rest", shape, (), axes, reads))
        wider = stages[-1].name
    return *stages, *_folds(name, outer, lanes, wider)


def _folds(name: str, outer: Sequence[int], lanes: int, wider: str) -> Iterable[Stage]:
    """The steps that join the partial results in the stage `wider`."""
    spatial = _numbered(len(outer))
    row: Links = {d: d for d in spatial}
    for width in fold_widths(lanes):
        yield _stage(f"{name}_{width}", (*outer, width), (), (*spatial, "lane"), {wider: row})
        wider = f"{name}_{width}"
    yield _stage(name, outer, reads={wider: row})


def _vector_tiles(plan: Schedule, axis: int) -> _Tiles | None:
    """Tiles of an anchor's last axis, where those of `out` overlap."""
    if ("overlap", True) not in plan.choices:
        return None
    return _Tiles(axis, int(plan.choice("vector")))


def _reduce(node: Node, plan: Schedule) -> _Anchored:
    shape, axes = node.inputs[0].type.static_shape, node.attrs["axes"]
    kept = [d for d in range(len(shape)) if d not in axes]
    outer = [shape[d] for d in kept]
    positions = {f"d{i}": d if node.attrs["keepdims"] else i for i, d in enumerate(kept)}
    if plan.choice("rows"):
        length = math.prod(shape[d] for d in axes)
        stages = _rows("acc", outer, length, int(plan.choice("lanes")))
        return _Anchored(stages, {"acc": positions})
    over = [(f"r{i}", shape[d]) for i, d in enumerate(axes)]
    tiles = _vector_tiles(plan, len(outer) - 1)
    if tiles is not None:
        last = positions[f"d{len(outer) - 1}"]
        positions[f"d{len(outer)}"] = last + 1
        outer = list(tiles.tiled(outer))
    return _Anchored((_stage("acc", outer, over),), {"acc": positions})


def _arg_reduce(node: Node, plan: Schedule) -> _Anchored:
    shape = node.inputs[0].type.static_shape
    axis = node.attrs["axis"] % len(shape)
    outer = (*shape[:axis], *shape[axis + 1 :])
    lanes = int(plan.choice("lanes")) if axis == len(shape) - 1 else 1
    best = _rows("best", outer, shape[axis], lanes)
    acc = _rows("acc", outer, shape[axis], lanes, ["best"])
    if 1 < lanes <= shape[axis]:  # candidates of each lane, which both are made from
        axes = (*_numbered(len(outer)), "lane")
        reads: dict[str, Links | None] = {"best": {d: d for d in axes[:-1]}}
        for stage in best:
            if stage.name in ("best_part", "best_rest"):
                reads[stage.name] = {d: d for d in axes}
        part = _stage("acc_part", (*outer, lanes), (), axes, reads)
        acc = (part, *_folds("acc", outer, lanes, "acc_part"))
    shifted = axis if node.attrs["keepdims"] else len(shape)
    return _Anchored(
        (*best, *acc), {"acc": {f"d{i}": i + (i >= shifted) for i in range(len(outer))}}
    )


def _pool(node: Node, plan: Schedule) -> _Anchored:
    shape = node.output.type.static_shape
    windows = [(f"w{d}", n) for d, n in enumerate(node.attrs["window"]) if n > 1]
    tiles = _vector_tiles(plan, len(shape) - 1)
    if tiles is not None:
        shape = tiles.tiled(shape)
    acc = _stage("acc", shape, windows or [("w0", 1)])
    return _Anchored((acc,), {"acc": {f"d{i}": i for i in range(len(shape))}})


def _softmax(node: Node, plan: Schedule) -> _Anchored:
    shape = node.output.type.static_shape
    axis = node.attrs["axis"] % len(shape)
    outer, length = (*shape[:axis], *shape[axis + 1 :]), shape[axis]
    lanes = int(plan.choice("lanes")) if axis == len(shape) - 1 else 1
    positions = {f"d{i}": i + (i >= axis) for i in range(len(outer))}
    top = _rows("max", outer, length, lanes)
    if node.op == "log_softmax":
        stages = (*top, *_rows("sum", outer, length, lanes, ["max"]))
        return _Anchored(stages, {"max": positions, "sum": positions})
    spatial = _numbered(len(outer))
    tiles = _vector_tiles(plan, axis)
    if tiles is not None:
        in_tiles = tiles.tiled(shape)
        axes = (*spatial, "k.o", "k.v")
        exp = _stage("exp", in_tiles, (), axes, {"max": {d: d for d in spatial}})
        stages = (*top, exp, *_rows("sum", outer, length, lanes, ["exp"], tiles))
        linked = positions | {"k.o": axis, "k.v": axis + 1}
        return _Anchored(stages, {"exp": linked, "sum": positions})
    axes = (*spatial[:axis], "k", *spatial[axis:])
    exp = _stage("exp", shape, (), axes, {"max": {d: d for d in spatial}})
    stages = (*top, exp, *_rows("sum", outer, length, lanes, ["exp"]))
    return _Anchored(stages, {"exp": positions | {"k": axis}, "sum": positions})


def _norm(node: Node, plan: Schedule) -> _Anchored:
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
        stages = (*total, _stage("mean", outer, reads={"sum": row}))
        stages += _rows("squares", outer, length, lanes, ["mean"])
    else:
        stages = _rows("squares", outer, length, lanes)
    stages = (*stages, _stage("inverse", outer, reads={"squares": row}))
    read = ("mean", "inverse") if centred else ("inverse",)
    return _Anchored(stages, dict.fromkeys(read, positions))


def _moments(outer: Sequence[int], length: int, lanes: int) -> Iterable[Stage]:
    """Mean and sum of squares of rows that are read once."""
    shape, axes = (*outer, lanes), (*_numbered(len(outer)), "lane")
    yield _stage("moments_part", shape, [("ko", length // lanes)], axes)
    row = {d: d for d in axes[:-1]}
    given: dict[str, Links | None] = {"moments_part": {d: d for d in axes}}
    yield _stage("sum_rest", shape, (), axes, given)
    yield from _folds("sum", outer, lanes, "sum_rest")
    yield _stage("mean", outer, reads={"sum": row})
    yield _stage("squares_rest", shape, (), axes, {"mean": row, **given})
    yield from _folds("squares", outer, lanes, "squares_rest")


#: Anchors with stages that directives can name → their stages.
_ANCHORED: dict[str, Callable[[Node, Schedule], _Anchored]] = {
    "blocked_conv": _blocked_conv,
    "blocked_depthwise_conv": _blocked_depthwise_conv,
    "conv": _conv,
    "matmul": _matmul,
    "packed_matmul": _matmul,
    "winograd_conv": _winograd_conv,
    **dict.fromkeys(("reduce_sum", "reduce_mean", "reduce_max", "reduce_min"), _reduce),
    "reduce_prod": _reduce,
    **dict.fromkeys(("arg_max", "arg_min"), _arg_reduce),
    "pool": _pool,
    "softmax": _softmax,
    "log_softmax": _softmax,
    "layer_norm": _norm,
    "rms_norm": _norm,
}
