"""Converters of quantisation: plain arithmetic on the values that the codes stand for."""

from __future__ import annotations

import numpy as np

from planish.ir.errors import UnsupportedModel
from planish.ir.graph import Value
from planish.ir.onnx.call import HALVES, Call
from planish.ir.onnx.convolution import conv_of
from planish.ir.onnx.linear import product_of, without_zero_point
from planish.ir.onnx.storage import dtype_of
from planish.ir.types import DType

_RANGES = {
    DType.INT2: (-2, 1),
    DType.UINT2: (0, 3),
    DType.INT4: (-8, 7),
    DType.UINT4: (0, 15),
    DType.INT8: (-128, 127),
    DType.UINT8: (0, 255),
    DType.INT16: (-(2**15), 2**15 - 1),
    DType.UINT16: (0, 2**16 - 1),
}


def dequantize(call: Call) -> Value:
    """DequantizeLinear: (x - zero point) · scale; float16 does not hold all codes of 16 bits."""
    x, scale, zero = call.value(0), call.value(1), call.optional(2)
    dtype = _output_type(call, scale.type.dtype)
    wide = DType.FLOAT32 if dtype in HALVES else dtype
    codes = call.cast(x, wide)
    factor = _spread(call, scale, x)
    if zero is not None and not _is_zero(call, zero):
        codes = call.emit("sub", codes, _spread(call, call.cast(zero, wide), x))
    return call.cast(call.emit("mul", codes, call.cast(factor, wide)), dtype)


def _is_zero(call: Call, zero: Value) -> bool:
    known = call.contents(zero)
    return known is not None and known.size <= 1 and not known.astype(np.float32).any()


def quantize(call: Call) -> Value:
    """QuantizeLinear: x / scale rounded half to even, plus the zero point, saturated."""
    x, scale, zero = call.value(0), call.value(1), call.optional(2)
    dtype = _output_type(call, DType.UINT8 if zero is None else zero.type.dtype)
    precision = call.integer("precision", 0)
    wide = dtype_of(precision, f"'{call.label}'") if precision else scale.type.dtype
    if wide in HALVES and not precision:  # float16 does not hold all codes of 16 bits
        wide = DType.FLOAT32
    if not call.integer("saturate", 1):
        raise UnsupportedModel(f"quantises to {dtype.value} without saturation")
    scaled = call.emit("div", call.cast(x, wide), call.cast(_spread(call, scale, x), wide))
    if dtype.is_float:
        if zero is not None and not _is_zero(call, zero):
            scaled = call.emit("add", scaled, call.cast(_spread(call, zero, x), wide))
        return call.cast(scaled, dtype)
    return _saturated(call, scaled, None if zero is None else _spread(call, zero, x), dtype)


def _saturated(call: Call, scaled: Value, zero: Value | None, dtype: DType) -> Value:
    """round(scaled) + zero within the range of `dtype`; in float32, which holds 16 bits exactly."""
    if dtype not in _RANGES:
        raise UnsupportedModel(f"quantises to {dtype.value}")
    rounded = call.cast(call.emit("round", scaled), DType.FLOAT32)
    if zero is not None and not _is_zero(call, zero):
        rounded = call.emit("add", rounded, call.cast(zero, DType.FLOAT32))
    low, high = (call.scalar(bound, DType.FLOAT32) for bound in _RANGES[dtype])
    inside = call.emit("minimum", call.emit("maximum", rounded, low), high)
    return call.cast(inside, dtype)


def _output_type(call: Call, default: DType) -> DType:
    number = call.integer("output_dtype", 0)
    return dtype_of(number, f"'{call.label}'") if number else default


def _spread(call: Call, operand: Value, x: Value) -> Value:
    """Scale or zero point in a shape that broadcasts to x: one, one for each index, or blocks."""
    axis, block = call.integer("axis", 1), call.integer("block_size", 0)
    shape = operand.type.shape
    if block and operand.type.rank == x.type.rank:
        at = call.axis(axis, x.type.rank)
        apart = call.reshape(operand, (*shape[: at + 1], 1, *shape[at + 1 :]))
        wide = call.broadcast(apart, (*shape[: at + 1], block, *shape[at + 1 :]))
        merged = (*shape[:at], shape[at] * block, *shape[at + 1 :])
        return call.crop(call.reshape(wide, merged), at, 0, x.type.shape[at])
    if operand.type.rank == 0 or shape == (1,):
        return call.reshape(operand, ())
    if operand.type.rank != 1:
        return operand
    behind = x.type.rank - 1 - call.axis(axis, x.type.rank)
    return call.reshape(operand, (*shape, *(1,) * behind))


def qlinear_matmul(call: Call) -> Value:
    """QLinearMatMul: the int32 product scaled and quantised again."""
    a = without_zero_point(call, call.value(0), call.value(2), -2)
    b = without_zero_point(call, call.value(3), call.value(5), -1)
    scale_a = _of_rows(call, call.value(1), call.value(0))
    scale = call.emit("mul", scale_a, call.value(4))
    return _requantized(call, product_of(call, a, b), scale, call.value(6), call.value(7))


def _of_rows(call: Call, scale: Value, a: Value) -> Value:
    """A scale for each row as a column."""
    one = scale.type.rank != 1 or scale.type.shape == (1,)
    return scale if one else call.reshape(scale, (*scale.type.shape, 1))


def qlinear_conv(call: Call) -> Value:
    """QLinearConv: the int32 convolution plus bias, scaled and quantised again."""
    x = without_zero_point(call, call.value(0), call.value(2), 1)
    w = without_zero_point(call, call.value(3), call.value(5), 0)
    result = conv_of(call, x, w, call.optional(8))
    scale = call.emit("mul", call.value(1), call.value(4))
    if scale.type.rank == 1 and scale.type.shape != (1,):
        scale = call.reshape(scale, (*scale.type.shape, *(1,) * (x.type.rank - 2)))
    return _requantized(call, result, scale, call.value(6), call.value(7))


def _requantized(call: Call, sums: Value, scale: Value, out: Value, zero: Value) -> Value:
    """int32 sums · scale / output scale, quantised to the type of the zero point."""
    ratio = call.cast(call.emit("div", scale, out), DType.FLOAT32)
    scaled = call.emit("mul", call.cast(sums, DType.FLOAT32), ratio)
    return _saturated(call, scaled, zero, zero.type.dtype)
