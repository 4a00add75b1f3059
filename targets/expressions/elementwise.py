"""Tensor expressions of the element-wise ops, with numpy's rules for NaN and integers."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from tvm import tirx

from planish.ir.errors import TargetError
from planish.ir.graph import Constant, Node
from planish.targets.expressions import vector_math
from planish.targets.expressions.view import (
    Expr,
    Indices,
    View,
    dtype_of,
    with_bindings_outside,
    with_names,
)


def is_float(expr: Expr) -> bool:
    """True for float16, bfloat16, float32 and float64 expressions."""
    return "float" in dtype_of(expr)


def const(value: float | int | bool, dtype: str) -> Expr:
    """A constant of `dtype`."""
    return tirx.const(value, dtype)


def like(value: float | int, expr: Expr) -> Expr:
    """A constant of the type of `expr`."""
    return tirx.const(value, dtype_of(expr))


def is_nan(x: Expr) -> Expr:
    """True for NaN, by its bits: TVM folds `x != x` to false, and does not vectorise isnan."""
    dtype = dtype_of(x)
    if dtype not in _EXPONENTS:
        return const(False, "bool")
    integer, exponent = _EXPONENTS[dtype]
    bits = tirx.reinterpret(integer, x)
    magnitude = tirx.bitwise_and(bits, const(2 ** (_bits(x) - 1) - 1, integer))
    return magnitude > const(exponent, integer)


#: Float type → integer type of its size, and the bits of infinity, above which NaNs lie.
_EXPONENTS = {
    "float64": ("int64", 0x7FF0000000000000),
    "float32": ("int32", 0x7F800000),
    "float16": ("int16", 0x7C00),
}


def maximum(a: Expr, b: Expr) -> Expr:
    """The larger one; NaN if either is NaN, unlike TVM's max."""
    if not is_float(a):
        return tirx.max(a, b)
    if _is_literal(a):
        a, b = b, a
    if _is_literal(b):
        return tirx.max(b, a)  # `b > a ? b : a`: NaN compares false and stays
    return tirx.Select(tirx.Or(a >= b, is_nan(a)), a, b)


def minimum(a: Expr, b: Expr) -> Expr:
    """The smaller one; NaN if either is NaN, unlike TVM's min."""
    if not is_float(a):
        return tirx.min(a, b)
    if _is_literal(a):
        a, b = b, a
    if _is_literal(b):
        return tirx.min(b, a)
    return tirx.Select(tirx.Or(a <= b, is_nan(a)), a, b)


def _is_literal(x: Expr) -> bool:
    """True for a constant that is a number."""
    if isinstance(x, tirx.IntImm):
        return True
    return isinstance(x, tirx.FloatImm) and not math.isnan(float(x.value))


def relu(x: Expr) -> Expr:
    """max(x, 0) that keeps NaN."""
    if "uint" in dtype_of(x) or (isinstance(x, tirx.FloatImm) and not _is_literal(x)):
        return x
    return tirx.max(like(0, x), x)  # this order keeps NaN


def divide(a: Expr, b: Expr) -> Expr:
    """True quotient of floats; of integers toward zero, and 0 if the divisor is 0."""
    if is_float(a):
        return a / b
    quotient = tirx.truncdiv(a, _harmless(b))
    if isinstance(b, tirx.IntImm) and b.value > 0:
        return quotient
    factor = like(1, b) - _one_if_zero(b)
    if "uint" not in dtype_of(b):
        factor = factor - like(2, b) * _one_if_zero(b + like(1, b))
    return quotient * factor


def _harmless(divisor: Expr) -> Expr:
    """1 for an integer divisor of 0 or -1: processors trap on x / 0 and on the least integer / -1.

    A remainder by 1 is 0, which is right for -1, and what numpy has for 0.
    """
    if isinstance(divisor, tirx.IntImm) and divisor.value > 0:
        return divisor
    safe = divisor + _one_if_zero(divisor)
    if "uint" not in dtype_of(divisor):
        safe = safe + like(2, divisor) * _one_if_zero(divisor + like(1, divisor))
    return safe


def _one_if_zero(x: Expr) -> Expr:
    """1 if the integer x is 0, else 0, without a comparison.

    Inside a select on x, TVM would fold a comparison away, and then divide before selecting.
    """
    sign = tirx.shift_right(x | _negate(x), like(_bits(x) - 1, x))
    return (sign & like(1, x)) ^ like(1, x)


def _equal(a: Expr, b: Expr) -> Expr:
    if dtype_of(a) == "bool":  # LLVM has no comparison of what TVM makes of bool vectors
        return tirx.EQ(a.astype("int32"), b.astype("int32"))
    return tirx.EQ(a, b)


def _clip(x: Expr, low: Expr, high: Expr) -> Expr:
    return with_names([maximum(x, low)], lambda above: minimum(above, high))


def _subtract(a: Expr, b: Expr) -> Expr:
    return a + _negate(b) if "uint" in dtype_of(a) else a - b


def _negate(x: Expr) -> Expr:
    if is_float(x):
        return x * like(-1, x)
    if "uint" in dtype_of(x):  # TVM holds 0 - x for 0
        return tirx.bitwise_not(x) + like(1, x)
    return like(0, x) - x


def _sign(x: Expr) -> Expr:
    zero, one = like(0, x), like(1, x)
    if "uint" in dtype_of(x):
        return tirx.Select(x > zero, one, zero)
    below = tirx.Select(x < zero, like(-1, x), x)  # x: zero keeps its sign, NaN stays
    return tirx.Select(x > zero, one, below)


def _modulo(a: Expr, b: Expr, node: Node) -> Expr:
    if node.attrs["fmod"]:
        return _libm("fmod", a, b) if is_float(a) else tirx.truncmod(a, _harmless(b))
    if not is_float(a):
        return tirx.floormod(a, _harmless(b))
    rest = _libm("fmod", a, b)
    differs = tirx.And(tirx.NE(rest, like(0, a)), tirx.NE(_negative(rest), _negative(b)))
    return tirx.Select(differs, rest + b, rest)


def _negative(x: Expr) -> Expr:
    return (x < like(0, x)).astype("int32")


def _power(a: Expr, b: Expr, node: Node) -> Expr:
    exponent = node.inputs[1]
    if isinstance(exponent, Constant) and exponent.data.size == 1:
        value = float(exponent.data.reshape(()))
        if value.is_integer() and 0 <= value <= 8:
            return _integer_power(a, int(value))
        if value == 0.5 and is_float(a):
            return tirx.sqrt(a)
    if not is_float(a):
        raise TargetError(
            f"{node.where()}: integer power is compiled for constant exponents 0 to 8 only; "
            "cast the base to float"
        )
    return vector_math.power(a, b.astype(dtype_of(a)))


def _integer_power(a: Expr, exponent: int) -> Expr:
    result = like(1, a) if exponent == 0 else a
    for bit in bin(exponent)[3:]:
        result = result * result
        if bit == "1":
            result = result * a
    return result


def cast(x: Expr, dtype: str) -> Expr:
    """x as `dtype`: to bool by comparison with zero, to integers toward zero, then wrapping."""
    if dtype == dtype_of(x):
        return x
    if dtype == "bool":
        return tirx.NE(x, like(0, x))
    if dtype_of(x) == "bool" and dtype != "int32":
        x = x.astype("int32")
    if is_float(x) and dtype in _BY_WAY_OF:
        x = x.astype(_BY_WAY_OF[dtype])
    if is_float(x) and dtype == "uint64":
        return with_names([x], _unsigned)
    return x.astype(dtype)


#: Integers that floats reach through a wider one: LLVM leaves a conversion of what the type does
#: not hold undefined, and processors disagree; -1.0 as uint8 is 255 here, as with numpy.
_BY_WAY_OF = {"int8": "int32", "uint8": "int32", "int16": "int32", "uint16": "int32"} | {
    "uint32": "int64"
}


def _unsigned(x: Expr) -> Expr:
    negative = x.astype("int64").astype("uint64")
    return tirx.Select(x < like(0, x), negative, x.astype("uint64"))


def _is_inf(x: Expr, node: Node) -> Expr:
    found = const(False, "bool")
    if node.attrs["positive"]:
        found = tirx.EQ(x, tirx.infinity(dtype_of(x)))
    if node.attrs["negative"]:
        below = tirx.EQ(x, like(float("-inf"), x))
        found = tirx.Or(found, below) if node.attrs["positive"] else below
    return found


def _gelu(x: Expr, node: Node) -> Expr:
    exact = node.attrs["approximate"] == "none"
    return vector_math.gelu(x) if exact else vector_math.gelu_tanh(x)


def _hard_swish(x: Expr) -> Expr:
    line = x * like(1 / 6, x) + like(0.5, x)
    return x * minimum(maximum(line, like(0, x)), like(1, x))


def _shift(a: Expr, b: Expr, left: bool) -> Expr:
    """Shift of unsigned integers; a count of the width or more gives 0, as numpy's does."""
    wide = b >= like(_bits(a), b)
    count = tirx.Select(wide, like(0, b), b)
    shifted = tirx.shift_left(a, count) if left else tirx.shift_right(a, count)
    return tirx.Select(wide, like(0, a), shifted)


def _bits(x: Expr) -> int:
    return int("".join(filter(str.isdigit, dtype_of(x))))


def _libm(name: str, *args: Expr) -> Expr:
    """A call of the C library's function, in float32 for the narrower types."""
    dtype = dtype_of(args[0])
    if dtype == "float64":
        return tirx.call_pure_extern(dtype, name, *args)
    wide = [arg.astype("float32") for arg in args]
    return tirx.call_pure_extern("float32", f"{name}f", *wide).astype(dtype)


#: Ops that `vector_math` has under the same name.
_ELEMENTARY: tuple[str, ...] = (
    *("exp", "log", "log1p", "sin", "cos", "tan", "asin", "acos", "atan"),
    *("sinh", "cosh", "tanh", "asinh", "acosh", "atanh", "sigmoid", "erf"),
    *("silu", "softplus", "mish"),
)

UNARY: dict[str, Callable[[Expr], Expr]] = {
    **{name: getattr(vector_math, name) for name in _ELEMENTARY},
    "neg": lambda x: _negate(x),
    "abs": lambda x: x if "uint" in dtype_of(x) else tirx.abs(x),
    "sqrt": tirx.sqrt,
    "hard_swish": _hard_swish,
    "floor": tirx.floor,
    "ceil": tirx.ceil,
    "round": tirx.nearbyint,
    "sign": _sign,
    "reciprocal": lambda x: like(1, x) / x,
    "relu": relu,
    "not": tirx.Not,
    "bitwise_not": tirx.bitwise_not,
    "is_nan": is_nan,
}

BINARY: dict[str, Callable[[Expr, Expr], Expr]] = {
    "add": lambda a, b: a + b,
    "sub": lambda a, b: _subtract(a, b),
    "mul": tirx.Mul,  # `a * 0` would lose a, and with it the stage that schedules name
    "div": divide,
    "maximum": maximum,
    "minimum": minimum,
    "equal": lambda a, b: _equal(a, b),
    "less": lambda a, b: a < b,
    "less_equal": lambda a, b: a <= b,
    "greater": lambda a, b: a > b,
    "greater_equal": lambda a, b: a >= b,
    "and": tirx.And,
    "or": tirx.Or,
    "xor": lambda a, b: tirx.NE(a.astype("int32"), b.astype("int32")),
    "bitwise_and": lambda a, b: a & b,
    "bitwise_or": lambda a, b: a | b,
    "bitwise_xor": lambda a, b: a ^ b,
    "shift_left": lambda a, b: _shift(a, b, left=True),
    "shift_right": lambda a, b: _shift(a, b, left=False),
}

#: Ops whose expression needs the node's attributes or constants.
WITH_NODE: dict[str, Callable[..., Expr]] = {
    "clip": lambda x, low, high, node: _clip(x, low, high),
    "gelu": _gelu,
    "cast": lambda x, node: cast(x, node.attrs["to"].value),
    "is_inf": _is_inf,
    "mod": _modulo,
    "pow": _power,
    "where": lambda c, a, b, node: tirx.Select(c, a, b),
}

ELEMENTWISE = (*UNARY, *BINARY, *WITH_NODE)


def elementwise(node: Node, inputs: Sequence[View]) -> View:
    """The view of an element-wise node over views of its inputs, broadcast as numpy does."""
    shape = node.output.type.static_shape

    def read(idx: Indices) -> Expr:
        args = [view.read(aligned(view.shape, shape, idx)) for view in inputs]
        if _reads_once(node, args):
            return with_bindings_outside(args, lambda *bare: _apply(node, bare))
        return with_names(args, lambda *named: _apply(node, named))

    return View(shape, node.output.type.dtype.value, read)


#: Ops whose expression holds each float argument once. Fewer variables are not only shorter: TVM's
#: simplifier puts their values in place, so that its time doubles with each one that is read twice.
_READ_ONCE = frozenset(
    (
        *("add", "sub", "mul", "div", "neg", "abs", "sqrt", "floor", "ceil", "round"),
        *("reciprocal", "relu", "where", "equal"),
        *("less", "less_equal", "greater", "greater_equal"),
    )
)


def _reads_once(node: Node, args: Sequence[Expr]) -> bool:
    if node.op == "cast":
        return node.attrs["to"].value not in ("uint64", "bool")
    floats = all(dtype_of(arg) in ("float32", "float64", "float16", "bool") for arg in args)
    if node.op in ("maximum", "minimum"):
        return any(map(_is_literal, args))
    return floats and node.op in _READ_ONCE


def _apply(node: Node, args: Sequence[Expr]) -> Expr:
    if node.op in UNARY:
        return UNARY[node.op](*args)
    if node.op in BINARY:
        return BINARY[node.op](*args)
    return WITH_NODE[node.op](*args, node)


def aligned(shape: tuple[int, ...], out: tuple[int, ...], idx: Indices) -> Indices:
    """Indices into an operand of `shape` that is broadcast to `out`."""
    skip = len(out) - len(shape)
    zero = tirx.const(0, "int32")
    return tuple(
        zero if n == 1 and out[skip + d] != 1 else idx[skip + d] for d, n in enumerate(shape)
    )
