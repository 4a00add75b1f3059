"""Converters of reductions; their axes moved from an attribute to an input in opset 13 or 18."""

from __future__ import annotations

from collections.abc import Callable

import ml_dtypes

from planish.ir.errors import InvalidModel, UnsupportedModel
from planish.ir.graph import Value
from planish.ir.onnx.call import Call, Converter
from planish.ir.types import DType

Reduction = Callable[[Call, Value, tuple[int, ...], bool], Value]


def by_attribute(reduction: Reduction) -> Converter:
    """A reduction whose axes are an attribute, by default all."""

    def convert(call: Call) -> Value:
        x = call.value(0)
        axes = call.integers("axes", None)
        over = call.axes(range(x.type.rank) if axes is None else axes, x.type.rank)
        return reduction(call, x, over, call.integer("keepdims", 1) == 1)

    return convert


def by_input(reduction: Reduction) -> Converter:
    """A reduction whose axes are an optional input; empty means all unless noop_with_empty_axes."""

    def convert(call: Call) -> Value:
        x = call.value(0)
        axes = () if call.optional(1) is None else call.ints(1, "axes")
        if not axes and not call.integer("noop_with_empty_axes", 0):
            axes = tuple(range(x.type.rank))
        call.ignore("noop_with_empty_axes")
        over = call.axes(axes, x.type.rank)
        return reduction(call, x, over, call.integer("keepdims", 1) == 1)

    return convert


def plain(op: str) -> Reduction:
    """A reduction that is an op of the IR."""

    def reduction(call: Call, x: Value, axes: tuple[int, ...], keepdims: bool) -> Value:
        if not axes:
            return x
        if x.type.dtype is DType.BOOL:  # ReduceMax and ReduceMin since opset 20
            wide = reduction(call, call.cast(x, DType.UINT8), axes, keepdims)
            return call.cast(wide, DType.BOOL)
        return call.emit(op, x, axes=axes, keepdims=keepdims)

    return reduction


_sum = plain("reduce_sum")


def l1(call: Call, x: Value, axes: tuple[int, ...], keepdims: bool) -> Value:
    """Sum of |x|."""
    return _sum(call, call.emit("abs", x), axes, keepdims)


def sum_square(call: Call, x: Value, axes: tuple[int, ...], keepdims: bool) -> Value:
    """Sum of x²."""
    return _sum(call, call.emit("mul", x, x), axes, keepdims)


def _by_floats(reduce: Reduction) -> Reduction:
    """The reduction of integers in float64, truncated."""

    def reduction(call: Call, x: Value, axes: tuple[int, ...], keepdims: bool) -> Value:
        if x.type.dtype.is_float:
            return reduce(call, x, axes, keepdims)
        return call.cast(reduce(call, call.cast(x, DType.FLOAT64), axes, keepdims), x.type.dtype)

    return reduction


@_by_floats
def l2(call: Call, x: Value, axes: tuple[int, ...], keepdims: bool) -> Value:
    """Root of the sum of x²."""
    return call.emit("sqrt", sum_square(call, x, axes, keepdims))


@_by_floats
def log_sum(call: Call, x: Value, axes: tuple[int, ...], keepdims: bool) -> Value:
    """Logarithm of the sum."""
    return call.emit("log", _sum(call, x, axes, keepdims))


@_by_floats
def log_sum_exp(call: Call, x: Value, axes: tuple[int, ...], keepdims: bool) -> Value:
    """log Σ eˣ as m + log Σ e^(x - m) with m the maximum, so that no eˣ overflows.

    A maximum of -inf (or of nothing) would give -inf - -inf, one of inf inf - inf: it is bounded.
    """
    if not axes:
        return x
    finite = ml_dtypes.finfo(x.type.dtype.numpy)
    top = call.emit("reduce_max", x, axes=axes, keepdims=True)
    top = call.emit("maximum", top, call.like(float(finite.min), x))
    top = call.emit("minimum", top, call.like(float(finite.max), x))
    shifted = call.emit("exp", call.emit("sub", x, top))
    total = call.emit("log", call.emit("reduce_sum", shifted, axes=axes, keepdims=True))
    result = call.emit("add", total, top)
    if keepdims:
        return result
    return call.reshape(result, [d for i, d in enumerate(result.type.shape) if i not in axes])


def arg_extreme(op: str) -> Converter:
    """ArgMax and ArgMin; since opset 12 the last of equal elements may be asked for."""

    def convert(call: Call) -> Value:
        x = call.value(0)
        axis = call.axis(call.integer("axis", 0), x.type.rank)
        keepdims = call.integer("keepdims", 1) == 1
        last = bool(call.integer("select_last_index", 0))
        return call.emit(op, x, axis=axis, keepdims=keepdims, last=last)

    return convert


def global_pool(op: str) -> Converter:
    """GlobalAveragePool and GlobalMaxPool: all axes after the channels."""
    return lambda call: call.emit(op, call.value(0), axes=_spatial(call), keepdims=True)


def global_lp_pool(call: Call) -> Value:
    """p-norm over all axes after the channels."""
    return p_norm(call, call.value(0), _spatial(call), call.integer("p", 2))


def _spatial(call: Call) -> tuple[int, ...]:
    return tuple(range(2, call.value(0).type.rank))


def p_norm(call: Call, x: Value, axes: tuple[int, ...], p: int) -> Value:
    """(Σ |x|ᵖ)^(1/p), axes kept."""
    if p < 1:
        raise InvalidModel(f"node '{call.label}' ({call.op}) takes a norm with p={p}")
    if p == 1:
        return l1(call, x, axes, True)
    if p == 2:
        return l2(call, x, axes, True)
    powers = call.emit("pow", call.emit("abs", x), call.like(p, x))
    return call.emit("pow", _sum(call, powers, axes, True), call.like(1 / p, x))


def cumulative_sum(call: Call) -> Value:
    """CumSum along an axis that is an operand."""
    x = call.value(0)
    return call.emit(
        "cumsum",
        x,
        axis=call.axis(call.one(1, "axis"), x.type.rank),
        exclusive=bool(call.integer("exclusive", 0)),
        reverse=bool(call.integer("reverse", 0)),
    )


def top_k_by_attribute(call: Call) -> tuple[Value, ...]:
    """TopK before opset 10: the largest k, with k an attribute."""
    return _top_k(call, call.integer("k"))


def top_k(call: Call) -> tuple[Value, ...]:
    """TopK since opset 10; unsorted results may be sorted as well."""
    call.ignore("sorted")
    return _top_k(call, call.one(1, "K"))


def _top_k(call: Call, k: int) -> tuple[Value, ...]:
    x = call.value(0)
    axis = call.axis(call.integer("axis", -1), x.type.rank)
    size = x.type.shape[axis]
    if isinstance(size, int) and k > size:
        raise UnsupportedModel(f"takes the top {k} of {size} elements")
    return call.emit_all("top_k", x, k=k, axis=axis, largest=bool(call.integer("largest", 1)))
