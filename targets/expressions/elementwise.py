"""Tensor expressions of the element-wise ops, with numpy's rules for NaN and integers."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from tvm import tirx

from planish.ir.graph import Constant, Node
from planish.targets.expressions import opaque, vector_math
from planish.targets.expressions.view import (
    Expr,
    Indices,
    View,
    binding,
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
        return opaque.larger(a, b)
    if _is_literal(a):
        a, b = b, a
    if _is_literal(b):
        return opaque.larger(b, a)  # `b > a ? b : a`: NaN compares false and stays
    return tirx.Select(tirx.Or(opaque.less_equal(b, a), is_nan(a)), a, b)


def minimum(a: Expr, b: Expr) -> Expr:
    """The smaller one; NaN if either is NaN, unlike TVM's min."""
    if not is_float(a):
        return opaque.smaller(a, b)
    if _is_literal(a):
        a, b = b, a
    if _is_literal(b):
        return opaque.smaller(b, a)
    return tirx.Select(tirx.Or(opaque.less_equal(a, b), is_nan(a)), a, b)


def _is_literal(x: Expr) -> bool:
    """True for a constant that is a number."""
    if isinstance(x, tirx.IntImm):
        return True
    return isinstance(x, tirx.FloatImm) and not math.isnan(float(x.value))


def relu(x: Expr) -> Expr:
    """max(x, 0) that keeps NaN."""
    if "uint" in dtype_of(x):
        return x
    return opaque.larger(like(0, x), x)  # this order keeps NaN


def divide(a: Expr, b: Expr) -> Expr:
    """True quotient of floats; of integers toward zero, and 0 if the divisor is 0."""
    if is_float(a) or (isinstance(b, tirx.IntImm) and b.value > 0):
        return opaque.divide(a, b)
    quotient = opaque.divide(a, _harmless(b))
    if "uint" not in dtype_of(b):  # the least integer by -1 wraps around to itself
        quotient = tirx.Select(opaque.equal(b, like(-1, b)), _negate(a), quotient)
    return tirx.Select(opaque.equal(b, like(0, b)), like(0, a), quotient)


def _harmless(divisor: Expr) -> Expr:
    """1 for an integer divisor of 0 or -1: processors trap on x / 0 and on the least integer / -1.

    A remainder by 1 is 0, which is right for -1, and what numpy has for 0.
    """
    if isinstance(divisor, tirx.IntImm) and divisor.value > 0:
        return divisor
    traps = opaque.equal(divisor, like(0, divisor))
    if "uint" not in dtype_of(divisor):
        traps = tirx.Or(traps, opaque.equal(divisor, like(-1, divisor)))
    return tirx.Select(traps, like(1, divisor), divisor)


def _floor_remainder(a: Expr, b: Expr) -> Expr:
    """a modulo b of integers with the sign of b; 0 if b is 0. It holds its operands repeatedly."""
    if isinstance(b, tirx.IntImm) and b.value > 0 and b.value & (b.value - 1) == 0:
        return a & like(b.value - 1, b)
    rest = opaque.remainder(a, _harmless(b))
    if "uint" in dtype_of(a):
        return rest

    def toward_divisor(r: Expr) -> Expr:
        differ = opaque.less(r ^ b, like(0, r))  # in their signs
        return tirx.Select(tirx.And(opaque.not_equal(r, like(0, r)), differ), opaque.add(r, b), r)

    return with_names([rest], toward_divisor)


def _equal(a: Expr, b: Expr) -> Expr:
    if dtype_of(a) == "bool":  # LLVM has no comparison of what TVM makes of bool vectors
        return tirx.EQ(a.astype("int32"), b.astype("int32"))
    return opaque.equal(a, b)


def _clip(x: Expr, low: Expr, high: Expr) -> Expr:
    return with_names([maximum(x, low)], lambda above: minimum(above, high))


def _negate(x: Expr) -> Expr:
    if is_float(x):
        return opaque.multiply(x, like(-1, x))
    return opaque.subtract(like(0, x), x)


def _absolute(x: Expr) -> Expr:
    if is_float(x):
        return tirx.abs(x)
    if "uint" in dtype_of(x):
        return x
    return tirx.Select(opaque.less(x, like(0, x)), _negate(x), x)  # the least integer stays


def _sign(x: Expr) -> Expr:
    zero, one = like(0, x), like(1, x)
    above = opaque.less(zero, x)
    if "uint" in dtype_of(x):
        return tirx.Select(above, one, zero)
    below = tirx.Select(opaque.less(x, zero), like(-1, x), x)  # x: zero and NaN stay
    return tirx.Select(above, one, below)


def _modulo(a: Expr, b: Expr, node: Node) -> Expr:
    if node.attrs["fmod"]:
        return _libm("fmod", a, b) if is_float(a) else opaque.remainder(a, _harmless(b))
    if not is_float(a):
        return _floor_remainder(a, b)

    def toward_divisor(rest: Expr) -> Expr:
        differs = tirx.And(
            opaque.not_equal(rest, like(0, a)), tirx.NE(_negative(rest), _negative(b))
        )
        return tirx.Select(differs, opaque.add(rest, b), rest)

    return with_names([_libm("fmod", a, b)], toward_divisor)


def _negative(x: Expr) -> Expr:
    return opaque.less(x, like(0, x)).astype("int32")


def _power(a: Expr, b: Expr, node: Node) -> Expr:
    exponent = node.inputs[1]
    if isinstance(exponent, Constant) and exponent.data.size == 1:
        value = float(exponent.data.reshape(()))
        if value.is_integer() and 0 <= value <= 8:
            return _integer_power(a, int(value))
        if value == 0.5 and is_float(a):
            root = tirx.sqrt(opaque.add(a, like(0, a)))  # pow of -0 is 0, the root of -0 is -0
            lowest, highest = (like(end, a) for end in (-math.inf, math.inf))
            return tirx.Select(opaque.equal(a, lowest), highest, root)
    if is_float(a):
        return vector_math.power(a, b.astype(dtype_of(a)))
    if is_float(b):
        return cast(vector_math.power(a.astype("float64"), b.astype("float64")), dtype_of(a))
    return _wrapping_power(a, b)


def _integer_power(a: Expr, exponent: int) -> Expr:
    result = like(1, a) if exponent == 0 else a
    for bit in bin(exponent)[3:]:
        result = opaque.multiply(result, result)
        if bit == "1":
            result = opaque.multiply(result, a)
    return result


def _wrapping_power(a: Expr, b: Expr) -> Expr:
    """a ** b of integers, which wraps around; to a negative power 1/a, toward zero, and 0 for 1/0.

    By squares of a, one for each bit of b: what a compiler can make of a loop of known length.
    """
    bits = _bits(b) - ("uint" not in dtype_of(b))
    square, result = a, like(1, a)
    chain: list[tuple[Expr, Expr]] = []

    def named(name: str, value: Expr) -> Expr:
        var, held, use = binding(name, value)
        chain.append((var, held))
        return use

    for bit in range(bits):
        taken = opaque.not_equal(b & like(1 << bit, b), like(0, b))
        result = named("power", opaque.multiply(result, tirx.Select(taken, square, like(1, a))))
        if bit + 1 < bits:
            square = named("square", opaque.multiply(square, square))
    if "uint" not in dtype_of(b):
        inverse = tirx.Select(opaque.equal(a, like(1, a)), like(1, a), like(0, a))
        if "uint" not in dtype_of(a):
            odd = opaque.not_equal(b & like(1, b), like(0, b))
            sign = tirx.Select(odd, like(-1, a), like(1, a))
            inverse = tirx.Select(opaque.equal(a, like(-1, a)), sign, inverse)
        result = tirx.Select(opaque.less(b, like(0, b)), inverse, result)
    for var, value in reversed(chain):
        result = tirx.Let(var, value, result)
    return result


def cast(x: Expr, dtype: str) -> Expr:
    """x as `dtype`: to bool by comparison with zero, to integers toward zero, then wrapping."""
    if dtype == dtype_of(x):
        return x
    if dtype == "bool":
        return opaque.not_equal(x, like(0, x))
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
    return tirx.Select(opaque.less(x, like(0, x)), negative, x.astype("uint64"))


def _is_inf(x: Expr, node: Node) -> Expr:
    found = const(False, "bool")
    if node.attrs["positive"]:
        found = opaque.equal(x, tirx.infinity(dtype_of(x)))
    if node.attrs["negative"]:
        below = opaque.equal(x, like(float("-inf"), x))
        found = tirx.Or(found, below) if node.attrs["positive"] else below
    return found


def _gelu(x: Expr, node: Node) -> Expr:
    exact = node.attrs["approximate"] == "none"
    return vector_math.gelu(x) if exact else vector_math.gelu_tanh(x)


def _hard_swish(x: Expr) -> Expr:
    line = opaque.add(opaque.multiply(x, like(1 / 6, x)), like(0.5, x))
    return opaque.multiply(x, minimum(maximum(line, like(0, x)), like(1, x)))


def _shift(a: Expr, b: Expr, left: bool) -> Expr:
    """Shift by a count; one below 0 or of the width or more moves every bit out, as numpy's does.

    Shifted to the right, what is left then is the sign.
    """
    width, signed = _bits(a), "uint" not in dtype_of(a)
    out = opaque.less_equal(like(width, b), b)
    if signed:
        out = tirx.Or(out, opaque.less(b, like(0, b)))
    if not left and signed:
        return tirx.shift_right(a, tirx.Select(out, like(width - 1, b), b))
    count = tirx.Select(out, like(0, b), b)
    shifted = tirx.shift_left(a, count) if left else tirx.shift_right(a, count)
    return tirx.Select(out, like(0, a), shifted)


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
    "abs": lambda x: _absolute(x),
    "sqrt": tirx.sqrt,
    "hard_swish": _hard_swish,
    "floor": tirx.floor,
    "ceil": tirx.ceil,
    "round": tirx.nearbyint,
    "sign": _sign,
    "reciprocal": lambda x: opaque.divide(like(1, x), x),
    "relu": relu,
    "not": tirx.Not,
    "bitwise_not": tirx.bitwise_not,
    "is_nan": is_nan,
}

BINARY: dict[str, Callable[[Expr, Expr], Expr]] = {
    "add": opaque.add,
    "sub": opaque.subtract,
    "mul": opaque.multiply,
    "div": divide,
    "maximum": maximum,
    "minimum": minimum,
    "equal": lambda a, b: _equal(a, b),
    "less": opaque.less,
    "less_equal": opaque.less_equal,
    "greater": lambda a, b: opaque.less(b, a),
    "greater_equal": lambda a, b: opaque.less_equal(b, a),
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
