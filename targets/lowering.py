"""One Kernel to one TensorIR function: expressions, then its schedule replayed."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from tvm import te, tirx

from planish.ir.errors import ScheduleError, TargetError
from planish.ir.extension import custom_op
from planish.ir.graph import Constant, Graph, Node, Result, Value
from planish.ir.op import OpKind
from planish.ir.ops import op_def
from planish.ir.schedule import Schedule
from planish.passes.fuse import inner_root, is_padded
from planish.passes.local.stages import vector_axis
from planish.targets.block_reads import with_known_reads
from planish.targets.emitters import EMITTERS, WRITERS
from planish.targets.expressions import contraction, reduction, row_wise
from planish.targets.expressions.arg_reduce import arg_reduce
from planish.targets.expressions.custom import custom, custom_emitter
from planish.targets.expressions.elementwise import ELEMENTWISE, cast, const, elementwise
from planish.targets.expressions.empty import has_empty, is_empty, nothing, of_nothing
from planish.targets.expressions.movement import MOVEMENT, movement, reshaped
from planish.targets.expressions.view import Expr, Indices, Stages, Tiling, View, stored
from planish.targets.expressions.winograd import winograd_conv
from planish.targets.placement import Padding, Placement
from planish.targets.replay import replay

Anchor = Callable[[Node, Sequence[View], Stages, Schedule], View]

#: Ops with stages of their own; at most one of them in a kernel.
ANCHORS: Mapping[str, Anchor] = {
    "blocked_conv": contraction.blocked_conv,
    "blocked_depthwise_conv": contraction.blocked_depthwise_conv,
    "conv": contraction.conv,
    "matmul": contraction.matmul,
    "packed_matmul": contraction.packed_matmul,
    "winograd_conv": winograd_conv,
    "reduce_sum": reduction.reduce,
    "reduce_mean": reduction.reduce,
    "reduce_max": reduction.reduce,
    "reduce_min": reduction.reduce,
    "reduce_prod": reduction.reduce,
    "arg_max": arg_reduce,
    "arg_min": arg_reduce,
    "pool": reduction.pool,
    "softmax": row_wise.softmax,
    "log_softmax": row_wise.softmax,
    "layer_norm": row_wise.layer_norm,
    "rms_norm": row_wise.rms_norm,
}

#: Every op that has a lowering; a test holds it against the op table.
LOWERED = frozenset((*ANCHORS, *ELEMENTWISE, *MOVEMENT, *EMITTERS))

#: Element types that anchors do not compute in: sums of float16 lose their digits, and overflow;
#: TVM cannot reduce vectors of bool.
_WORKING = {"float16": "float32", "bool": "int8"}

#: Element types that kernels compute with.
COMPUTED = frozenset(
    [
        "float64",
        "float32",
        "float16",
        "int64",
        "int32",
        "int16",
        "int8",
        "uint64",
        "uint32",
        "uint16",
        "uint8",
        "bool",
    ]
)


@dataclass(frozen=True, slots=True)
class LoweredKernel:
    """A scheduled function, and where its last parameter really lies.

    `overwrites` is the parameter whose memory the last one takes, if any. `ahead`: iterations of
    the outermost loop fetch what the next one reads; `together`: rows are computed together.
    """

    func: tirx.PrimFunc
    placement: Placement = field(default_factory=Placement)
    overwrites: int | None = None
    ahead: bool = False
    together: bool = False


def lower_kernel(kernel: Node) -> LoweredKernel:
    """The scheduled function of a kernel: parameters are its inputs, then its outputs.

    Raises TargetError for an op or type without lowering, ScheduleError for a schedule that does
    not fit; both name the ONNX nodes.
    """
    (body,) = kernel.regions
    plan = kernel.attrs["schedule"]
    if plan is None:
        raise ScheduleError(f"{kernel.where()} has no schedule")
    _check_types(kernel, body)
    if plan.emitter is not None:
        added = custom_op(plan.emitter)
        write = WRITERS[plan.emitter] if added is None else custom_emitter(added)
        return LoweredKernel(write(kernel))
    stages = Stages()
    try:
        func = _expressions(body, stages, plan)
    except ScheduleError as error:
        raise ScheduleError(f"{kernel.where()}: {error}") from None
    by_rows = ("share", "rows") in plan.choices or ("outer", "pixels") in plan.choices
    placement = Placement(stages.tiling, _padding(body), by_rows)
    if has_empty(body):
        return LoweredKernel(func, placement)
    try:
        chosen = dict(plan.choices)
        rows = {"ahead": chosen.get("ahead", False), "together": chosen.get("together", 1) > 1}
        return LoweredKernel(replay(func, stages, plan), placement, **rows)
    except ScheduleError as error:
        raise ScheduleError(f"{kernel.where()}: {error}") from None


def recomputes(kernel: Node) -> bool:
    """True if parts of the result are computed twice, by tiles that overlap at an edge.

    For kernels whose schedule has no emitter. Errors as those of `lower_kernel`.
    """
    stages = Stages()
    _expressions(kernel.regions[0], stages, kernel.attrs["schedule"])
    return Placement(stages.tiling).overlaps


def _padding(body: Graph) -> Padding | None:
    if not is_padded(body):
        return None
    pad = body.outputs[0]
    assert isinstance(pad, Result)
    attrs, inner = pad.node.attrs, pad.node.inputs[0].type.static_shape
    return Padding(attrs["before"], inner, pad.type.static_shape, attrs["value"])


def _check_types(kernel: Node, body: Graph) -> None:
    for value in body.values():
        if value.type.dtype.value not in COMPUTED:
            raise TargetError(
                f"{kernel.where()}: element type {value.type.dtype.value} is not compiled yet; "
                "convert the model to float32 or integers"
            )


def _expressions(body: Graph, stages: Stages, plan: Schedule) -> tirx.PrimFunc:
    params = [
        te.placeholder(_stored_shape(value), value.type.dtype.value, f"in{i}")
        for i, value in enumerate(body.inputs)
    ]
    views: dict[Value, View] = {}
    root = inner_root(body)
    shape = root.type.static_shape
    flat = _out_shape(plan, shape)
    stages.tiling = _vector_tiles(plan, flat)
    for value, param in zip(body.inputs, params):
        views[value] = stored(param) if value.type.rank else _scalar(param)
    views.update((value, nothing(value)) for value in body.values() if is_empty(value))
    users = body.users()
    for node in body.nodes:
        if node.output is body.outputs[0] and is_padded(body):
            break  # the placement writes it
        if node.output in views:
            continue  # empty
        inputs = [_view(views, value) for value in node.inputs]
        view = _lower_node(node, inputs, stages, plan)
        if _is_worth_binding(node) and len(users[node.output]) > 1:
            view = stages.bindings.shared(view, f"v{len(views)}")
        views[node.output] = view
    out = _view(views, root)
    tiling = stages.tiling
    loops = flat if tiling is None else tiling.tiled(flat)

    def element(idx: Indices) -> Expr:
        if tiling is not None:
            tiling.here = idx[tiling.axes]
            idx = tiling.whole(idx)
        return out.read(reshaped(shape, flat, idx))

    stages.compute("out", loops, element, _out_axes(stages, len(loops)))
    return with_known_reads(te.create_prim_func([*params, stages.tensors["out"]]))


def _stored_shape(value: Value) -> tuple[int, ...]:
    """The shape of a parameter; TVM knows neither tensors of rank 0 nor empty ones."""
    return (1,) if is_empty(value) else value.type.static_shape or (1,)


def _out_shape(plan: Schedule, shape: tuple[int, ...]) -> tuple[int, ...]:
    """The shape that `out` is computed over.

    Choice `flatten` joins H and W of [N,O,H,W,o], choice `flat` all axes.
    """
    if ("flat", True) in plan.choices:
        return (math.prod(shape),)
    if ("flatten", True) in plan.choices:
        return (*shape[:2], shape[2] * shape[3], *shape[4:])
    return shape


def _vector_tiles(plan: Schedule, shape: tuple[int, ...]) -> Tiling | None:
    """Vectors of the last axis as tiles, where choice `overlap` says that a last one overlaps."""
    if ("overlap", True) not in plan.choices:
        return None
    axis = vector_axis(shape)
    return Tiling(axis, shape[axis], int(plan.choice("vector")))


def _out_axes(stages: Stages, rank: int) -> tuple[str, ...]:
    """The anchor's names for the axes of `out`, where both have the same."""
    axes = [a for a in stages.axes.get("acc", ()) if a not in stages.reduced["acc"]]
    return tuple(axes) if len(axes) == (rank or 1) else ()


def _scalar(param: te.Tensor) -> View:
    return View((), str(param.dtype), lambda idx: param(0))


def _view(views: dict[Value, View], value: Value) -> View:
    if isinstance(value, Constant) and value not in views:
        views[value] = _literal(value)
    return views[value]


def _literal(value: Constant) -> View:
    """A constant inside a kernel: one element, held in the code."""
    dtype = value.type.dtype.value
    element = np.asarray(value.data).reshape(-1)
    if element.size != 1:
        raise TargetError(f"constant '{value.name}' of {value.type} inside a kernel is not scalar")
    literal = const(element[0].item(), dtype)
    return View(value.type.static_shape, dtype, lambda idx: literal)


def _lower_node(node: Node, inputs: Sequence[View], stages: Stages, plan: Schedule) -> View:
    if node.op in ANCHORS:
        if any(is_empty(value) for value in node.inputs):
            return of_nothing(node)
        wide = [_cast(view, _WORKING.get(view.dtype, view.dtype)) for view in inputs]
        view = ANCHORS[node.op](node, wide, stages, plan)
        return _named(node, _cast(view, node.output.type.dtype.value))
    if node.op in ELEMENTWISE:
        return elementwise(node, inputs)
    if node.op in MOVEMENT:
        return movement(node, inputs, stages.bindings)
    added = custom_op(node.op)
    if added is not None:
        return _named(node, custom(added, node, inputs, stages, plan))
    raise TargetError(f"{node.where()} has no lowering yet")


def _cast(view: View, dtype: str) -> View:
    if view.dtype == dtype:
        return view
    return View(view.shape, dtype, lambda idx: cast(view.read(idx), dtype))


def _named(node: Node, view: View) -> View:
    """The anchor's view under the node's own shape (an anchor may compute a flattened one)."""
    shape = node.output.type.static_shape
    if view.shape == shape:
        return view
    return View(shape, view.dtype, lambda idx: view.read(reshaped(view.shape, shape, idx)))


def _is_worth_binding(node: Node) -> bool:
    return op_def(node.op).kind is OpKind.ELEMENTWISE and node.op != "cast"
