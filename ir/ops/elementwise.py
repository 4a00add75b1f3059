"""Element-wise ops: each output element from the input elements at its place, with broadcasting."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from planish.ir.errors import InvalidGraph
from planish.ir.graph import Attrs
from planish.ir.op import Infer, OpDef, OpKind, Types
from planish.ir.ops import shapes
from planish.ir.ops.attributes import NO, REQUIRED_DTYPE, YES
from planish.ir.ops.erf import erf
from planish.ir.ops.precision import narrow, quiet, rounded, widen
from planish.ir.types import DType, TensorType

_Function = Callable[..., Any]

_ACCEPTED: dict[str, tuple[str, Callable[[DType], bool]]] = {
    "float": ("floating-point tensors", lambda dtype: dtype.is_float),
    "number": ("tensors of numbers", shapes.is_number),
    "integer": ("integer tensors", lambda dtype: dtype.is_integer),
    "bool": ("bool tensors", lambda dtype: dtype is DType.BOOL),
    "any": ("tensors", lambda dtype: True),
}


def _infer(accepted: str, result: DType | None) -> Infer:
    wanted, accepts = _ACCEPTED[accepted]

    def infer(inputs: Types, attrs: Attrs) -> tuple[TensorType, ...]:
        dtype = shapes.common_dtype(inputs)
        if not accepts(dtype):
            raise InvalidGraph(f"needs {wanted}, got {inputs[0]}")
        shape = shapes.broadcast([t.shape for t in inputs])
        return (TensorType(result or dtype, shape),)

    return infer


def _value(
    name: str, accepted: str, function: _Function, summary: str, inputs: int, **attrs: Any
) -> OpDef:
    """An op whose result has the inputs' type; `function` gets widened arrays and attributes."""

    def reference(arrays: Sequence[np.ndarray], values: Attrs) -> np.ndarray:
        return np.asarray(function(*arrays, **values))

    infer = _infer(accepted, None)
    arity = (inputs, inputs)
    return OpDef(name, summary, OpKind.ELEMENTWISE, arity, infer, rounded(reference), attrs)


def _test(
    name: str, accepted: str, function: _Function, summary: str, inputs: int = 2, **attrs: Any
) -> OpDef:
    """An op whose result is bool."""

    def reference(arrays: Sequence[np.ndarray], values: Attrs) -> tuple[np.ndarray, ...]:
        return (np.asarray(function(*map(widen, arrays), **values)),)

    infer = _infer(accepted, DType.BOOL)
    arity = (inputs, inputs)
    return OpDef(name, summary, OpKind.ELEMENTWISE, arity, infer, quiet(reference), attrs)


def sigmoid(x: np.ndarray) -> np.ndarray:
    """1 / (1 + exp(-x)) without overflow."""
    small = np.exp(-np.abs(x))
    return np.asarray(np.where(x >= 0, 1, small) / (1 + small))


def divide(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Floats as IEEE; integers toward zero, 0 where the divisor is 0."""
    if a.dtype.kind == "f":
        return np.asarray(a / b)
    quotient = a // b
    inexact = quotient * b != a
    return np.asarray(quotient + (inexact & ((a < 0) != (b < 0)) & (b != 0)).astype(a.dtype))


def _power(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Integer powers with a negative exponent are 1/aⁿ toward zero, as integer division is."""
    if a.dtype.kind == "f":  # numpy takes the root for 0.5: NaN of -inf, where IEEE has inf
        power = np.power(a, b)
        return np.asarray(np.where((b == 0.5) & np.isneginf(a), np.abs(a), power), a.dtype)
    if a.dtype.kind != "i":
        return np.asarray(np.power(a, b))
    positive = np.power(a, np.maximum(b, 0))
    inverse = np.where(np.abs(a) == 1, np.power(a, b & 1), 0)  # |b| of the least b is negative
    return np.where(b < 0, inverse, positive).astype(a.dtype)


def _modulo(a: np.ndarray, b: np.ndarray, fmod: bool) -> np.ndarray:
    return np.asarray(np.fmod(a, b) if fmod else np.mod(a, b))


def _is_inf(x: np.ndarray, positive: bool, negative: bool) -> np.ndarray:
    return np.asarray(np.isinf(x) & ((x > 0) & positive | (x < 0) & negative))


def _infer_cast(inputs: Types, attrs: Attrs) -> tuple[TensorType, ...]:
    to: DType = attrs["to"]
    for dtype in (inputs[0].dtype, to):
        if not shapes.is_number(dtype) and dtype is not DType.BOOL:
            raise InvalidGraph(
                f"converts numbers and bool, not {inputs[0].dtype.value} to {to.value}"
            )
    return (TensorType(to, inputs[0].shape),)


def _cast(arrays: Sequence[np.ndarray], attrs: Attrs) -> tuple[np.ndarray, ...]:
    to: DType = attrs["to"]
    x = widen(arrays[0])
    if to is DType.BOOL:
        return (np.asarray(x != 0),)
    if to.value.startswith("float8") and to is not DType.FLOAT8_E8M0FNU:
        limit = np.float32(_largest(to))
        x = np.clip(x.astype(np.float32), -limit, limit)
    elif to.is_integer and x.dtype.kind == "f" and to.itemsize == 1:
        x = x.astype(np.int64)  # wraps; float → 8 bits directly depends on the processor
    return (narrow(x, to.numpy),)


def _largest(dtype: DType) -> float:
    """The largest finite value of a float8 type: those whose bit pattern is finite and positive."""
    codes = np.arange(128, dtype=np.uint8).view(dtype.numpy).astype(np.float32)
    return float(codes[np.isfinite(codes)].max())


def _infer_where(inputs: Types, attrs: Attrs) -> tuple[TensorType, ...]:
    condition, *values = inputs
    if condition.dtype is not DType.BOOL:
        raise InvalidGraph(f"needs a bool condition, got {condition}")
    dtype = shapes.common_dtype(values)
    return (TensorType(dtype, shapes.broadcast([t.shape for t in inputs])),)


def _where(arrays: Sequence[np.ndarray], attrs: Attrs) -> tuple[np.ndarray, ...]:
    return (np.where(*arrays),)


_KIND = OpKind.ELEMENTWISE
_CAST_ATTRS = {"to": REQUIRED_DTYPE}

UNARY: tuple[OpDef, ...] = (
    _value("neg", "number", np.negative, "-x", 1),
    _value("abs", "number", np.abs, "|x|", 1),
    _value("sqrt", "float", np.sqrt, "Square root, NaN below 0", 1),
    _value("exp", "float", np.exp, "e to the power x", 1),
    _value("log", "float", np.log, "Natural logarithm", 1),
    _value("log1p", "float", np.log1p, "log(1 + x), exact for small x", 1),
    _value("sin", "float", np.sin, "Sine of radians", 1),
    _value("cos", "float", np.cos, "Cosine of radians", 1),
    _value("tan", "float", np.tan, "Tangent of radians", 1),
    _value("asin", "float", np.arcsin, "Arc sine in radians", 1),
    _value("acos", "float", np.arccos, "Arc cosine in radians", 1),
    _value("atan", "float", np.arctan, "Arc tangent in radians", 1),
    _value("sinh", "float", np.sinh, "Hyperbolic sine", 1),
    _value("cosh", "float", np.cosh, "Hyperbolic cosine", 1),
    _value("tanh", "float", np.tanh, "Hyperbolic tangent", 1),
    _value("asinh", "float", np.arcsinh, "Inverse hyperbolic sine", 1),
    _value("acosh", "float", np.arccosh, "Inverse hyperbolic cosine", 1),
    _value("atanh", "float", np.arctanh, "Inverse hyperbolic tangent", 1),
    _value("sigmoid", "float", sigmoid, "1 / (1 + exp(-x))", 1),
    _value("erf", "float", erf, "Error function", 1),
    _value("floor", "float", np.floor, "Largest whole number not above x", 1),
    _value("ceil", "float", np.ceil, "Smallest whole number not below x", 1),
    _value("round", "float", np.rint, "Nearest whole number, halves to even", 1),
    _value("sign", "number", np.sign, "-1, 0 or 1; NaN for NaN", 1),
    _value("reciprocal", "float", np.reciprocal, "1 / x", 1),
    _value("relu", "number", lambda x: np.maximum(x, 0), "max(x, 0)", 1),
    _value("not", "bool", np.logical_not, "Logical not", 1),
    _value("bitwise_not", "integer", np.bitwise_not, "Every bit flipped", 1),
    _test("is_nan", "float", np.isnan, "True where x is NaN", 1),
    _test("is_inf", "float", _is_inf, "True where x is infinite", 1, positive=YES, negative=YES),
    OpDef(
        "cast",
        "Converts the element type: floats to integers toward zero, to bool as x != 0, "
        "to float8 saturating",
        _KIND,
        (1, 1),
        _infer_cast,
        quiet(_cast),
        _CAST_ATTRS,
    ),
)

BINARY: tuple[OpDef, ...] = (
    _value("add", "number", np.add, "x + y", 2),
    _value("sub", "number", np.subtract, "x - y", 2),
    _value("mul", "number", np.multiply, "x · y", 2),
    _value("div", "number", divide, "x / y, integers toward zero", 2),
    _value("pow", "number", _power, "x to the power y", 2),
    _value("mod", "number", _modulo, "Remainder with y's sign, or x's with fmod", 2, fmod=NO),
    _value("maximum", "number", np.maximum, "The larger, NaN if one is NaN", 2),
    _value("minimum", "number", np.minimum, "The smaller, NaN if one is NaN", 2),
    _value("and", "bool", np.logical_and, "Logical and", 2),
    _value("or", "bool", np.logical_or, "Logical or", 2),
    _value("xor", "bool", np.logical_xor, "Logical exclusive or", 2),
    _value("bitwise_and", "integer", np.bitwise_and, "Bitwise and", 2),
    _value("bitwise_or", "integer", np.bitwise_or, "Bitwise or", 2),
    _value("bitwise_xor", "integer", np.bitwise_xor, "Bitwise exclusive or", 2),
    _value("shift_left", "integer", np.left_shift, "x · 2^y, bits beyond the width lost", 2),
    _value("shift_right", "integer", np.right_shift, "x / 2^y, the sign bit kept", 2),
    _test("equal", "any", np.equal, "x == y, false for NaN"),
    _test("less", "number", np.less, "x < y"),
    _test("less_equal", "number", np.less_equal, "x <= y"),
    _test("greater", "number", np.greater, "x > y"),
    _test("greater_equal", "number", np.greater_equal, "x >= y"),
)

TERNARY: tuple[OpDef, ...] = (
    OpDef("where", "x where the condition holds, else y", _KIND, (3, 3), _infer_where, _where),
    _value("clip", "number", lambda x, lo, hi: np.minimum(np.maximum(x, lo), hi),
           "minimum(maximum(x, lo), hi), NaN if one is NaN", 3),
)  # fmt: skip

OPS: tuple[OpDef, ...] = UNARY + BINARY + TERNARY
