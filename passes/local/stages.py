"""The stages of a kernel as `planish.targets` computes them, before any directive."""

from __future__ import annotations

import math
from collections.abc import Sequence

from planish.ir.errors import ScheduleError
from planish.ir.graph import Graph, Node, Value
from planish.ir.op import OpKind
from planish.ir.ops import op_def
from planish.ir.schedule import Schedule
from planish.passes.fuse import inner_root, is_padded
from planish.passes.local.contraction_stages import CONTRACTIONS
from planish.passes.local.loop import whole_axis
from planish.passes.local.row_stages import REDUCTIONS
from planish.passes.local.stage import Anchored, Links, Stage, Tiles, numbered

#: Anchors with stages that directives can name → their stages.
_ANCHORED = {**CONTRACTIONS, **REDUCTIONS}


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
        return (_out(body, plan, Anchored((), {})),)
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


def _out(body: Graph, plan: Schedule, anchored: Anchored, aligned: bool = True) -> Stage:
    shape = inner_root(body).type.static_shape
    if anchored.flatten:
        shape = (*shape[:2], shape[2] * shape[3], *shape[4:])
    if ("flat", True) in plan.choices:
        shape = (math.prod(shape),)
    tiles = anchored.tiles
    if tiles is None and ("overlap", True) in plan.choices:
        tiles = Tiles(vector_axis(shape), int(plan.choice("vector")))
    if tiles is not None:
        shape = tiles.tiled(shape)
    extents = shape or (1,)
    names = numbered(len(extents))
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
