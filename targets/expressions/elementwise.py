"""Tensor expressions of the element-wise ops, with numpy's rules for NaN and integers."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from tvm import tirx

from planish.ir.errors import TargetError
from planish.ir.graph import Constant, Node
from planish.targets.expressions import vector_math
from planish.targets.expressions.view import Expr, Indices, View, dtype_of, with_names


def is_float(expr: Expr) -> bool:
    """True for float16, bfloat16, float32 and float64 expressions."""
    return "float" in dtype_of(expr)


def const(value: float | int | bool, dtype: str) -> Expr:
    """A constant of `dtype`."""
    return tirx.const(value, dtype)


def like(value: float | int, expr: Expr) -> Expr:
    """A constant of the type of `expr`."""
    return tirx.const(value, dtype_of(expr))


def maximum(a: Expr, b: Expr) -> Expr:
    """The larger one; NaN if either is NaN, unlike TVM's max."""
    return tirx.Select(_wins(a >= b, a), a, b)


def minimum(a: Expr, b: Expr) -> Expr:
    """The smaller one; NaN if either is NaN, unlike TVM's min."""
    return tirx.Select(_wins(a <= b, a), a, b)


def _wins(better: Expr, a: Expr) -> Expr:
    return tirx.Or(better, tirx.isnan(a)) if is_float(a) else better


def relu(x: Expr) -> Expr:
    """max(x, 0) that keeps NaN."""
    return tirx.Select(x < like(0, x), like(0, x), x)


def divide(a: Expr, b: Expr) -> Expr:
    """True quotient of floats, quotient toward zero of integers."""
    return a / b if is_float(a) else tirx.truncdiv(a, b)


def _sign(x: Expr) -> Expr:
    zero, one = like(0, x), like(1, x)
    if "uint" in dtype_of(x):
        return tirx.Select(x > zero, one, zero)
    below = tirx.Select(x < zero, like(-1, x), x)  # x: zero keeps its sign, NaN stays
    return tirx.Select(x > zero, one, below)


def _modulo(a: Expr, b: Expr, node: Node) -> Expr:
    if node.attrs["fmod"]:
        return _libm("fmod", a, b) if is_float(a) else tirx.truncmod(a, b)
    if not is_float(a):
        return tirx.floormod(a, b)
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
    return _libm("pow", a, b.astype(dtype_of(a)))


def _integer_power(a: Expr, exponent: int) -> Expr:
    result = like(1, a) if exponent == 0 else a
    for bit in bin(exponent)[3:]:
        result = result * result
        if bit == "1":
            result = result * a
    return result


def cast(x: Expr, dtype: str) -> Expr:
    """x as `dtype`: to bool by comparison with zero, to integers toward zero."""
    if dtype == dtype_of(x):
        return x
    if dtype == "bool":
        return tirx.NE(x, like(0, x))
    if dtype_of(x) == "bool" and dtype != "int32":
        x = x.astype("int32")
    return x.astype(dtype)


def _is_inf(x: Expr, node: Node) -> Expr:
    found = const(False, "bool")
    if node.attrs["positive"]:
        found = tirx.EQ(x, tirx.infinity(dtype_of(x)))
    if node.attrs["negative"]:
        below = tirx.EQ(x, like(float("-inf"), x))
        found = tirx.Or(found, below) if node.attrs["positive"] else below
    return found


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


def _libm_unary(name: str) -> Callable[[Expr], Expr]:
    return lambda x: _libm(name, x)


_LIBM = {
    name: _libm_unary(name)
    for name in [
        "log1p",
        "sin",
        "cos",
        "tan",
        "asin",
        "acos",
        "atan",
        "sinh",
        "cosh",
        "asinh",
        "acosh",
        "atanh",
    ]
}

UNARY: dict[str, Callable[[Expr], Expr]] = {
    **_LIBM,
    "neg": lambda x: like(0, x) - x if not is_float(x) else x * like(-1, x),
    "abs": lambda x: x if "uint" in dtype_of(x) else tirx.abs(x),
    "sqrt": tirx.sqrt,
    "exp": vector_math.exp,
    "log": vector_math.log,
    "tanh": vector_math.tanh,
    "sigmoid": vector_math.sigmoid,
    "erf": vector_math.erf,
    "floor": tirx.floor,
    "ceil": tirx.ceil,
    "round": tirx.nearbyint,
    "sign": _sign,
    "reciprocal": lambda x: like(1, x) / x,
    "relu": relu,
    "not": tirx.Not,
    "bitwise_not": tirx.bitwise_not,
    "is_nan": tirx.isnan,
}

BINARY: dict[str, Callable[[Expr, Expr], Expr]] = {
    "add": lambda a, b: a + b,
    "sub": lambda a, b: a - b,
    "mul": lambda a, b: a * b,
    "div": divide,
    "maximum": maximum,
    "minimum": minimum,
    "equal": lambda a, b: tirx.EQ(a, b),
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
        return with_names(args, lambda *named: _apply(node, named))

    return View(shape, node.output.type.dtype.value, read)


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
