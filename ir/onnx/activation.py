"""Converters of activation functions, decomposed where the IR has no op for them."""

from __future__ import annotations

import numpy as np

from planish.ir.errors import UnsupportedModel
from planish.ir.graph import Value
from planish.ir.onnx.call import Call, product
from planish.ir.ops.activation import GELU_FORMS
from planish.ir.types import DType


def leaky_relu(call: Call) -> Value:
    """x, or alpha · x where x is negative."""
    x, slope = call.value(0), call.like(call.number("alpha", 0.01), call.value(0))
    scaled = call.emit("mul", x, slope)
    if 0 < slope.data <= 1:  # 0 · inf is NaN
        return call.emit("maximum", x, scaled)
    return _where_negative(call, x, scaled)


def prelu(call: Call) -> Value:
    """x, or slope · x where x is negative; the slope broadcasts to x."""
    x, slope = call.value(0), call.value(1)
    return _where_negative(call, x, call.emit("mul", x, slope))


def _where_negative(call: Call, x: Value, then: Value) -> Value:
    return call.emit("where", call.emit("less", x, call.like(0, x)), then, x)


def _exp_minus_one(call: Call, x: Value) -> Value:
    return call.emit("sub", call.emit("exp", x), call.like(1, x))


def elu(call: Call) -> Value:
    """x, or alpha · (eˣ - 1) where x is negative."""
    x, alpha = call.value(0), call.number("alpha", 1.0)
    return _where_negative(call, x, call.emit("mul", _exp_minus_one(call, x), call.like(alpha, x)))


def selu(call: Call) -> Value:
    """gamma · elu(x); the defaults are those of the SELU paper."""
    x = call.value(0)
    alpha = call.number("alpha", 1.67326319217681884765625)
    gamma = call.number("gamma", 1.05070102214813232421875)
    negative = call.emit("mul", _exp_minus_one(call, x), call.like(alpha, x))
    return call.emit("mul", _where_negative(call, x, negative), call.like(gamma, x))


def celu(call: Call) -> Value:
    """max(0, x) + min(0, alpha · (e^(x / alpha) - 1))."""
    x, alpha = call.value(0), call.number("alpha", 1.0)
    scaled = call.emit("div", x, call.like(alpha, x))
    negative = call.emit("mul", _exp_minus_one(call, scaled), call.like(alpha, x))
    low = call.emit("minimum", negative, call.like(0, x))
    return call.emit("add", call.emit("relu", x), low)


def thresholded_relu(call: Call) -> Value:
    """x where x > alpha, else 0."""
    x, alpha = call.value(0), call.number("alpha", 1.0)
    return call.emit("where", call.emit("greater", x, call.like(alpha, x)), x, call.like(0, x))


def shrink(call: Call) -> Value:
    """x + bias below -lambd, x - bias above lambd, else 0."""
    x, bias, lambd = call.value(0), call.number("bias", 0.0), call.number("lambd", 0.5)
    zero = call.like(0, x)
    above = call.emit("greater", x, call.like(lambd, x))
    below = call.emit("less", x, call.like(-lambd, x))
    high = call.emit("where", above, call.emit("sub", x, call.like(bias, x)), zero)
    return call.emit("where", below, call.emit("add", x, call.like(bias, x)), high)


def hard_sigmoid(call: Call) -> Value:
    """max(0, min(1, alpha · x + beta)); as arithmetic, so that weights before it take the line."""
    x, alpha, beta = call.value(0), call.number("alpha", 0.2), call.number("beta", 0.5)
    line = call.emit("add", call.emit("mul", x, call.like(alpha, x)), call.like(beta, x))
    return call.emit("minimum", call.emit("maximum", line, call.like(0, x)), call.like(1, x))


def softsign(call: Call) -> Value:
    """x / (1 + |x|)."""
    x = call.value(0)
    return call.emit("div", x, call.emit("add", call.emit("abs", x), call.like(1, x)))


def swish(call: Call) -> Value:
    """x · sigmoid(alpha · x)."""
    x, alpha = call.value(0), call.number("alpha", 1.0)
    if alpha == 1:
        return call.emit("silu", x)
    return call.emit("mul", x, call.emit("sigmoid", call.emit("mul", x, call.like(alpha, x))))


def gelu(call: Call) -> Value:
    """x/2 · (1 + erf(x/√2)), or the tanh approximation."""
    approximate = call.text("approximate", "none")
    if approximate not in GELU_FORMS:
        raise UnsupportedModel(f"its approximation '{approximate}' is neither none nor tanh")
    return call.emit("gelu", call.value(0), approximate=approximate)


def softmax(call: Call) -> Value:
    """Softmax and LogSoftmax since opset 13: over one axis, by default the last."""
    x = call.value(0)
    axis = call.axis(call.integer("axis", -1), x.type.rank)
    return call.emit(_SOFTMAX[call.op], x, axis=axis)


def softmax_of_rows(call: Call) -> Value:
    """Softmax and LogSoftmax before opset 13: over all axes from `axis` on, taken as one."""
    x, axis = call.value(0), call.integer("axis", 1)
    rows, last = _as_rows(call, x, axis)
    return call.reshape(call.emit(_SOFTMAX[call.op], rows, axis=last), x.type.shape)


def _as_rows(call: Call, x: Value, axis: int) -> tuple[Value, int]:
    """`x` with all axes from `axis` on merged, and the merged axis; `x` itself if they are one."""
    shape = x.type.shape
    at = axis if axis == len(shape) else call.axis(axis, len(shape))
    if all(dim == 1 for dim in shape[at + 1 :]) and at < len(shape):
        return x, at
    return call.reshape(x, (product(shape[:at]), product(shape[at:]))), 1


_SOFTMAX = {"Softmax": "softmax", "LogSoftmax": "log_softmax"}


def hardmax(call: Call) -> Value:
    """Hardmax since opset 13: one where the first maximum along the axis is, else zero."""
    x = call.value(0)
    return _hardmax(call, x, call.axis(call.integer("axis", -1), x.type.rank))


def hardmax_of_rows(call: Call) -> Value:
    """Hardmax before opset 13: over all axes from `axis` on, taken as one."""
    x = call.value(0)
    rows, last = _as_rows(call, x, call.integer("axis", 1))
    return call.reshape(_hardmax(call, rows, last), x.type.shape)


def _hardmax(call: Call, x: Value, axis: int) -> Value:
    size = call.static_shape(x)[axis]
    first = call.emit("arg_max", x, axis=axis, keepdims=True)
    spread = tuple(size if i == axis else 1 for i in range(x.type.rank))
    positions = call.reshape(call.array(np.arange(size), DType.INT64), spread)
    return call.cast(call.emit("equal", positions, first), x.type.dtype)
