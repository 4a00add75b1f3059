"""Converters of element-wise ops: arithmetic, comparison, logic, bits, casts, clipping."""

from __future__ import annotations

from functools import reduce

import numpy as np

from planish.ir.errors import UnsupportedModel
from planish.ir.graph import Value
from planish.ir.onnx.call import Call, Converter
from planish.ir.onnx.storage import dtype_of
from planish.ir.types import DType


def unary(op: str) -> Converter:
    """An ONNX op that is an op of ours on its only input."""
    return lambda call: call.emit(op, call.value(0))


def binary(op: str) -> Converter:
    """An ONNX op that is an op of ours on two inputs, broadcast as numpy does."""
    return lambda call: call.emit(op, call.value(0), call.value(1))


def variadic(op: str) -> Converter:
    """An ONNX op on any number of inputs, taken two at a time from the left."""
    return lambda call: reduce(lambda a, b: call.emit(op, a, b), call.values())


def mean(call: Call) -> Value:
    """Mean of any number of tensors."""
    values = call.values()
    total = reduce(lambda a, b: call.emit("add", a, b), values)
    return call.emit("div", total, call.like(len(values), total))


def power(call: Call) -> Value:
    """Pow; since opset 12 the exponent may have another type, the result has the base's."""
    base, exponent = call.value(0), call.value(1)
    if base.type.dtype.is_integer and exponent.type.dtype.is_float:
        wide = call.emit("pow", call.cast(base, DType.FLOAT64), call.cast(exponent, DType.FLOAT64))
        return call.cast(wide, base.type.dtype)
    return call.emit("pow", base, call.cast(exponent, base.type.dtype))


def modulo(call: Call) -> Value:
    """Mod; fmod=1 takes the sign of the dividend."""
    fmod = bool(call.integer("fmod", 0))
    return call.emit("mod", call.value(0), call.value(1), fmod=fmod)


def bit_shift(call: Call) -> Value:
    """BitShift of integers by fewer than their bits."""
    direction = call.text("direction")
    if direction not in ("LEFT", "RIGHT"):
        raise UnsupportedModel(f"its direction '{direction}' is neither LEFT nor RIGHT")
    op = "shift_left" if direction == "LEFT" else "shift_right"
    return call.emit(op, call.value(0), call.value(1))


def where(call: Call) -> Value:
    """Where."""
    return call.emit("where", call.value(0), call.value(1), call.value(2))


def is_infinite(call: Call) -> Value:
    """IsInf of one or both signs."""
    return call.emit(
        "is_inf",
        call.value(0),
        positive=bool(call.integer("detect_positive", 1)),
        negative=bool(call.integer("detect_negative", 1)),
    )


def _target(call: Call, dtype: DType) -> DType:
    """The type to cast to, if the way it rounds is the one of the IR's cast."""
    saturate, mode = call.integer("saturate", 1), call.text("round_mode", "up")
    if dtype is DType.STRING:
        raise UnsupportedModel("casts to strings")
    if dtype.value.startswith("float8") and not saturate:
        raise UnsupportedModel(f"casts to {dtype.value} without saturation")
    if dtype is DType.FLOAT8_E8M0FNU:
        raise UnsupportedModel(f"casts to {dtype.value} rounding {mode}")
    return dtype


def cast(call: Call) -> Value:
    """Cast to the type of the attribute `to`."""
    return call.cast(call.value(0), _target(call, dtype_of(call.integer("to"), f"'{call.label}'")))


def cast_like(call: Call) -> Value:
    """Cast to the type of the second input, of which only the type is read."""
    return call.cast(call.value(0), _target(call, call.value(1).type.dtype))


def clip_by_attributes(call: Call) -> Value:
    """Clip of opset 6 to 10: bounds are attributes."""
    x = call.value(0)
    low = call.number("min", float(np.finfo(np.float32).min))
    high = call.number("max", float(np.finfo(np.float32).max))
    if call.has("min"):
        x = call.emit("maximum", x, call.like(low, x))
    if call.has("max"):
        x = call.emit("minimum", x, call.like(high, x))
    return x


def clip(call: Call) -> Value:
    """Clip since opset 11: bounds are optional inputs; the upper one wins over the lower."""
    x = call.value(0)
    low, high = call.optional(1), call.optional(2)
    if low is not None:
        x = call.emit("maximum", x, call.reshape(low, ()))
    if high is not None:
        x = call.emit("minimum", x, call.reshape(high, ()))
    return x


def identity(call: Call) -> Value:
    """Identity."""
    return call.value(0)


def dropout(call: Call) -> list[Value | None]:
    """Dropout in inference is the identity; the mask output is all true."""
    call.ignore("ratio", "seed")
    x = call.value(0)
    if call.optional(2) is not None and bool(call.known(2, "training_mode").any()):
        raise UnsupportedModel("drops out at random in training mode")
    mask = call.wanted[1:] == (True,)
    ones = call.scalar(True, DType.BOOL)
    return [x, call.broadcast(ones, x.type.shape) if mask else None]
