"""Converters of normalisations; those without an op of the IR are decomposed."""

from __future__ import annotations

from planish.ir.errors import InvalidModel, UnsupportedModel
from planish.ir.graph import Value
from planish.ir.onnx.call import HALVES, Call
from planish.ir.onnx.reduction import p_norm
from planish.ir.types import DType


def batch_norm(call: Call) -> Value:
    """BatchNormalization in inference; since opset 14 its operands may differ in type."""
    call.ignore("momentum")
    if call.integer("training_mode", 0):
        raise UnsupportedModel("normalises by the batch (training_mode)")
    if not call.integer("spatial", 1):
        raise UnsupportedModel("has statistics for each position (spatial=0)")
    x, dtype = call.value(0), call.value(0).type.dtype
    wide = next((v.type.dtype for v in call.values()[3:] if v.type.dtype is not dtype), dtype)
    operands = [call.cast(value, wide) for value in call.values()]
    result = call.emit("batch_norm", *operands, epsilon=call.number("epsilon", 1e-5))
    return call.cast(result, x.type.dtype)


def layer_norm(call: Call) -> list[Value | None]:
    """LayerNormalization; mean and inverse deviation are computed where they are read."""
    x = call.value(0)
    axis = call.axis(call.integer("axis", -1), x.type.rank)
    epsilon, wide = call.number("epsilon", 1e-5), _stash(call, x)
    inner = x.type.shape[axis:]
    given = call.optional(2)
    bias = call.scalar(0, wide) if given is None else call.cast(given, wide)
    result = call.emit(
        "layer_norm",
        call.cast(x, wide),
        call.broadcast(call.cast(call.value(1), wide), inner),
        call.broadcast(bias, inner),
        axis=axis,
        epsilon=epsilon,
    )
    outputs: list[Value | None] = [call.cast(result, x.type.dtype)]
    if any(call.wanted[1:]):
        axes = tuple(range(axis, x.type.rank))
        outputs += _statistics(call, call.cast(x, wide), axes, epsilon)
    return outputs


def _stash(call: Call, x: Value) -> DType:
    """The type to compute in: float32 for narrower types if stash_type says so (it is 1)."""
    narrow = x.type.dtype in HALVES
    return DType.FLOAT32 if call.integer("stash_type", 1) == 1 and narrow else x.type.dtype


def _statistics(call: Call, x: Value, axes: tuple[int, ...], epsilon: float) -> list[Value]:
    """Mean and 1/√(variance + epsilon), axes kept."""
    mean = call.emit("reduce_mean", x, axes=axes, keepdims=True)
    centred = call.emit("sub", x, mean)
    return [mean, _inverse_deviation(call, centred, axes, epsilon)]


def _inverse_deviation(call: Call, centred: Value, axes: tuple[int, ...], epsilon: float) -> Value:
    squares = call.emit("mul", centred, centred)
    variance = call.emit("reduce_mean", squares, axes=axes, keepdims=True)
    shifted = call.emit("add", variance, call.like(epsilon, centred))
    return call.emit("reciprocal", call.emit("sqrt", shifted))


def _normalized(call: Call, x: Value, axes: tuple[int, ...], epsilon: float) -> Value:
    centred = call.emit("sub", x, call.emit("reduce_mean", x, axes=axes, keepdims=True))
    return call.emit("mul", centred, _inverse_deviation(call, centred, axes, epsilon))


def _per_channel(call: Call, x: Value, scale: Value, bias: Value) -> Value:
    """x · scale + bias with one number for each channel."""
    behind = (1,) * (x.type.rank - 2)
    factor = call.reshape(scale, (*scale.type.shape, *behind))
    offset = call.reshape(bias, (*bias.type.shape, *behind))
    return call.emit("add", call.emit("mul", x, factor), offset)


def instance_norm(call: Call) -> Value:
    """InstanceNormalization over the dimensions after the channels."""
    x = call.value(0)
    axes = tuple(range(2, x.type.rank))
    normal = _normalized(call, x, axes, call.number("epsilon", 1e-5))
    return _per_channel(call, normal, call.value(1), call.value(2))


def mean_variance_norm(call: Call) -> Value:
    """MeanVarianceNormalization: deviation from the mean by the standard deviation plus 1e-9."""
    x = call.value(0)
    axes = call.axes(call.integers("axes", (0, 2, 3)), x.type.rank)
    centred = call.emit("sub", x, call.emit("reduce_mean", x, axes=axes, keepdims=True))
    squares = call.emit("mul", centred, centred)
    deviation = call.emit("sqrt", call.emit("reduce_mean", squares, axes=axes, keepdims=True))
    return call.emit("div", centred, call.emit("add", deviation, call.like(1e-9, x)))


def group_norm_by_group(call: Call) -> Value:
    """GroupNormalization 18: scale and bias for each group."""
    x = call.value(0)
    groups, grouped = _grouped(call, x)
    normal = _normalized(call, grouped, (2,), call.number("epsilon", 1e-5))
    scale, bias = (call.reshape(call.value(i), (1, groups, 1)) for i in (1, 2))
    scaled = call.emit("add", call.emit("mul", normal, scale), bias)
    return call.reshape(scaled, x.type.shape)


def group_norm(call: Call) -> Value:
    """GroupNormalization since 21: scale and bias for each channel."""
    x = call.value(0)
    wide = _stash(call, x)
    grouped = _grouped(call, call.cast(x, wide))[1]
    normal = _normalized(call, grouped, (2,), call.number("epsilon", 1e-5))
    restored = call.cast(call.reshape(normal, x.type.shape), x.type.dtype)
    return _per_channel(call, restored, call.value(1), call.value(2))


def _grouped(call: Call, x: Value) -> tuple[int, Value]:
    """Number of groups and x as [N, groups, rest]."""
    groups = call.integer("num_groups")
    rest = call.static_shape(x)[1:]
    size = 1
    for dim in rest:
        size *= dim
    if groups < 1:
        raise InvalidModel(f"node '{call.label}' ({call.op}) has {groups} groups")
    return groups, call.reshape(x, (x.type.shape[0], groups, size // groups))


def lp_norm(call: Call) -> Value:
    """LpNormalization: x by its p-norm along an axis; a norm of zero gives zero."""
    x = call.value(0)
    axis = call.axis(call.integer("axis", -1), x.type.rank)
    norm = p_norm(call, x, (axis,), call.integer("p", 2))
    zero = call.like(0, x)
    safe = call.emit("where", call.emit("equal", norm, zero), call.like(1, x), norm)
    return call.emit("div", x, safe)
