"""Converters of ops that read or write elements by index."""

from __future__ import annotations

import numpy as np

from planish.ir.errors import InvalidModel, UnsupportedModel
from planish.ir.graph import Value, constant
from planish.ir.onnx.call import Call
from planish.ir.onnx.shaping import unsqueezed
from planish.ir.types import DType, TensorType

_REDUCTIONS = ("none", "add", "mul", "max", "min")


def _indices(call: Call, index: int) -> Value:
    """An operand of indices as int32 or int64."""
    value = call.value(index)
    return value if value.type.dtype is DType.INT32 else call.cast(value, DType.INT64)


def gather(call: Call) -> Value:
    """Gather along one axis; a known scalar index of a small axis stays a gather, too."""
    data = call.value(0)
    axis = call.axis(call.integer("axis", 0), data.type.rank)
    return call.emit("gather", data, _indices(call, 1), axis=axis)


def gather_elements(call: Call) -> Value:
    """GatherElements."""
    data = call.value(0)
    axis = call.axis(call.integer("axis", 0), data.type.rank)
    return call.emit("gather_elements", data, _indices(call, 1), axis=axis)


def gather_nd(call: Call) -> Value:
    """GatherND; batch_dims came with opset 12."""
    batch = call.integer("batch_dims", 0)
    return call.emit("gather_nd", call.value(0), _indices(call, 1), batch_dims=batch)


def scatter_elements(call: Call) -> Value:
    """ScatterElements and the older Scatter."""
    data = call.value(0)
    axis = call.axis(call.integer("axis", 0), data.type.rank)
    indices, updates = _indices(call, 1), call.value(2)
    reduction = _reduction(call)
    return call.emit("scatter_elements", data, indices, updates, axis=axis, reduction=reduction)


def scatter_nd(call: Call) -> Value:
    """ScatterND."""
    reduction = _reduction(call)
    return call.emit(
        "scatter_nd", call.value(0), _indices(call, 1), call.value(2), reduction=reduction
    )


def _reduction(call: Call) -> str:
    reduction = call.text("reduction", "none")
    if reduction not in _REDUCTIONS:
        raise UnsupportedModel(f"its reduction '{reduction}' is none of {', '.join(_REDUCTIONS)}")
    return reduction


def one_hot(call: Call) -> Value:
    """OneHot as a comparison with positions; indices out of range give no hot element."""
    indices, values = call.value(0), call.value(2)
    depth = _depth(call)
    call.fits(TensorType(DType.INT64, (depth,)))
    rank = indices.type.rank + 1
    axis = call.axis(call.integer("axis", -1), rank)
    wide = unsqueezed(call, call.cast(indices, DType.INT64), (axis,))
    below = call.emit("less", wide, call.like(0, wide))
    wrapped = call.emit("where", below, call.emit("add", wide, call.like(depth, wide)), wide)
    spread = tuple(depth if i == axis else 1 for i in range(rank))
    positions = call.reshape(call.array(np.arange(depth), DType.INT64), spread)
    off, on = (call.reshape(call.crop(values, 0, i, i + 1), ()) for i in range(2))
    return call.emit("where", call.emit("equal", positions, wrapped), on, off)


def _depth(call: Call) -> int:
    """The classes of OneHot, which ONNX allows to be a float."""
    found = call.contents(call.value(1))
    if found is None or found.dtype.kind != "f":
        return call.one(1, "depth")
    if found.size != 1 or not np.isfinite(found).all():
        raise InvalidModel(f"node '{call.label}' (OneHot) has the depth {found.tolist()}")
    return int(found.reshape(-1)[0])


def compress(call: Call) -> Value:
    """Compress by a known condition."""
    x, condition = call.value(0), call.known(1, "condition")
    if not call.has("axis"):
        x, axis = call.reshape(x, (int(np.prod(call.static_shape(x))),)), 0
    else:
        axis = call.axis(call.integer("axis"), x.type.rank)
    picked = np.flatnonzero(condition.astype(bool)).astype(np.int64)
    return call.emit("gather", x, constant(picked), axis=axis)


def non_zero(call: Call) -> Value:
    """NonZero of known data: elsewhere the shape of the result depends on the data."""
    found = np.nonzero(np.atleast_1d(call.known(0, "X")))
    return constant(np.stack(found).astype(np.int64))


def reverse_sequence(call: Call) -> Value:
    """ReverseSequence: row b, time t reads time lens[b]-1-t as long as that is not negative."""
    x, lengths = call.value(0), call.value(1)
    batch_axis = call.axis(call.integer("batch_axis", 1), x.type.rank)
    time_axis = call.axis(call.integer("time_axis", 0), x.type.rank)
    shape = call.static_shape(x)
    call.fits(TensorType(DType.INT64, (shape[time_axis],)))
    steps = tuple(shape[time_axis] if i == time_axis else 1 for i in range(len(shape)))
    rows = tuple(shape[batch_axis] if i == batch_axis else 1 for i in range(len(shape)))
    times = call.reshape(call.array(np.arange(shape[time_axis]), DType.INT64), steps)
    ends = call.reshape(call.cast(lengths, DType.INT64), rows)
    last = call.emit("sub", ends, call.scalar(1, DType.INT64))
    mirrored = call.emit("sub", last, times)
    inside = call.emit("greater_equal", mirrored, call.scalar(0, DType.INT64))
    source = call.emit("where", inside, mirrored, times)
    return call.emit("gather_elements", x, call.broadcast(source, shape), axis=time_axis)


def array_feature_extractor(call: Call) -> Value:
    """ai.onnx.ml ArrayFeatureExtractor: picks columns of the last dimension."""
    x = call.value(0)
    if not x.type.rank:
        raise InvalidModel(f"node '{call.label}' ({call.op}) takes a tensor with dimensions")
    flat = call.reshape(_indices(call, 1), (call.static_shape(call.value(1))[-1],))
    picked = call.emit("gather", x, flat, axis=x.type.rank - 1)
    if x.type.rank == 1:  # a vector is taken as one row
        return call.reshape(picked, (1, *picked.type.shape))
    return picked
