"""Rules of `simplify` for element-wise ops."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from planish.ir.builder import emit
from planish.ir.graph import Constant, Node, Result, Value, constant
from planish.ir.types import DType
from planish.passes.pattern import Match, Operation, const, op, value
from planish.passes.rewrite import Rule

#: Ops whose result abs leaves as it is; relu too, but for abs of the least integer, its own result.
_NEVER_NEGATIVE = ("relu", "abs", "sigmoid", "exp", "softmax")
#: Ops whose result is no -0: their sums start at 0, or they are never below 0.
_NO_NEGATIVE_ZERO = (*_NEVER_NEGATIVE, "conv", "conv_transpose", "matmul", "reduce_sum")
_MOVES = ("reshape", "transpose", "slice", "broadcast_to", "gather", "concat")
_IDEMPOTENT = ("maximum", "minimum", "and", "or", "bitwise_and", "bitwise_or")
_TO_INTEGERS = ("floor", "ceil", "round")
_SIGNIFICAND = {DType.FLOAT64: 53, DType.FLOAT32: 24, DType.FLOAT16: 11, DType.BFLOAT16: 8}
_HALVES = (DType.FLOAT16, DType.BFLOAT16)


def _all(number: float) -> Callable[[Constant], bool]:
    """Every element is `number`; a constant with no elements is nothing."""
    return lambda c: c.data.size > 0 and bool((c.data == number).all())


def _all_negative_zero(c: Constant) -> bool:
    """Every element is -0.0, which added to any x leaves it as it is."""
    return c.type.dtype.is_float and _all(0)(c) and bool(np.signbit(c.data).all())


def _all_float(number: float) -> Callable[[Constant], bool]:
    same = _all(number)
    return lambda c: c.type.dtype.is_float and same(c)


def _never_negative(c: Constant) -> bool:
    return bool((c.data >= 0).all())


def _twice(name: str) -> Operation:
    """The op `name` of x with two constants, one after the other."""
    inner = op(name, value("x"), const("c"), commutative=True)
    return op(name, inner, const("d"), commutative=True)


def _is_float(value: Value) -> bool:
    return value.type.dtype.is_float


def _is_integer(value: Value) -> bool:
    return value.type.dtype.is_integer


def _is_never_negative(node: Node) -> bool:
    """True where relu leaves the result as it is."""
    return node.op != "abs" or node.output.type.dtype.is_float


def _drop_zero(match: Match) -> Value | None:
    """x + 0 is x but for x = -0; x + -0 is x always, and so is x - 0."""
    zero, x = match["c"], match["x"]
    assert isinstance(zero, Constant)
    if not x.type.dtype.is_float or _all_negative_zero(zero) or _has_no_negative_zero(x):
        return _x(match)
    return None


def _has_no_negative_zero(found: Value) -> bool:
    for _ in range(_LONGEST):
        if not isinstance(found, Result) or found.node.op not in _MOVES:
            break
        if found.node.op == "concat" and len(found.node.inputs) > 1:
            return False
        found = found.node.inputs[0]
    return isinstance(found, Result) and found.node.op in _NO_NEGATIVE_ZERO


def _sqrt(match: Match) -> Value | None:
    """The power of -infinity is infinity, its root is NaN: only for x that is never negative."""
    return _on_x("sqrt")(match) if _is_sum_of_squares(match["x"]) else None


def _is_sum_of_squares(root: Value) -> bool:
    """True for what is made of squares and numbers that are not negative by sums and means."""
    stack: list[Value] = [root]
    for _ in range(_LONGEST):
        if not stack:
            return True
        found = stack.pop()
        if isinstance(found, Constant):
            if not _never_negative(found):
                return False
            continue
        if not isinstance(found, Result):
            return False
        node = found.node
        if node.op in ("add", "maximum", "div", *_MOVES, *_SUMS):
            stack += node.inputs if node.op not in ("gather",) else node.inputs[:1]
        elif node.op == "pow":
            exponent = node.inputs[1]
            if not (isinstance(exponent, Constant) and _all(2)(exponent)):
                return False
        elif node.op == "mul":
            if node.inputs[0] is not node.inputs[1]:
                stack += node.inputs
        elif node.op not in _NEVER_NEGATIVE:
            return False
    return False


#: Steps back at most, and sums of what is not negative.
_LONGEST = 32
_SUMS = ("reduce_sum", "reduce_mean", "reduce_max")


def _x(match: Match) -> Value | None:
    """x itself, where the constant does not broadcast it."""
    return match["x"] if match["x"].type == match.root.output.type else None


def _on_x(*ops: str) -> Callable[[Match], Value | None]:
    """Unary ops on x, where the constant does not broadcast it."""

    def build(match: Match) -> Value | None:
        result = _x(match)
        for name in ops:
            result = None if result is None else emit(name, result)
        return result

    return build


def _square(match: Match) -> Value | None:
    x = _x(match)
    return None if x is None else emit("mul", x, x)


def _cube(match: Match) -> Value | None:
    square = _square(match)
    return None if square is None else emit("mul", square, match["x"])


def _has_exact_reciprocal(divisor: Constant) -> bool:
    """All powers of two whose reciprocals are normal numbers: then x·(1/c) is x/c to the bit."""
    if divisor.type.dtype not in _SIGNIFICAND:
        return False
    data = divisor.data.astype(np.float64)
    significand, exponent = np.frexp(data)
    largest = {DType.FLOAT64: 1000, DType.FLOAT16: 14}.get(divisor.type.dtype, 125)
    return bool((np.abs(significand) == 0.5).all() and (np.abs(exponent) < largest).all())


def _multiply_by_reciprocal(match: Match) -> Value:
    data = match.data("c")
    inverse = (1.0 / data.astype(np.float64)).astype(data.dtype)
    return emit("mul", match["x"], constant(inverse))


def _add_negative(match: Match) -> Value:
    return emit("add", match["x"], constant(-match.data("c")))


def _merge_bounds(match: Match) -> Value | None:
    """maximum(maximum(x, c), d) = maximum(x, maximum(c, d)); a NaN in c or d stays one."""
    name = match.root.op
    pick = np.maximum if name == "maximum" else np.minimum
    bound = constant(pick(match.data("c"), match.data("d")))
    merged = emit(name, match["x"], bound)
    return merged if merged.type == match.root.output.type else None


def _raise_bound(match: Match) -> Value:
    """relu(maximum(x, c)) = maximum(x, maximum(c, 0))."""
    data = match.data("c")
    return emit("maximum", match["x"], constant(np.maximum(data, data.dtype.type(0))))


def _bound_above_relu(match: Match) -> Value | None:
    """maximum(relu(x), c) = maximum(x, c) for c >= 0."""
    bounded = emit("maximum", match["x"], match["c"])
    return bounded if bounded.type == match.root.output.type else None


def _holds(wide: DType, narrow: DType) -> bool:
    """True if every value of `narrow` is one of `wide`."""
    if wide is narrow or narrow is DType.BOOL:
        return True
    if narrow.is_float:
        halves = narrow in _HALVES
        return (wide is DType.FLOAT64 and (halves or narrow is DType.FLOAT32)) or (
            wide is DType.FLOAT32 and halves
        )
    if not narrow.is_integer:
        return False
    signed = not narrow.value.startswith("u")
    bits = int(narrow.value.lstrip("uint")) - signed
    if wide in _SIGNIFICAND:
        return bits <= _SIGNIFICAND[wide]
    if not wide.is_integer:
        return False
    wide_signed = not wide.value.startswith("u")
    return bits <= int(wide.value.lstrip("uint")) - wide_signed and signed <= wide_signed


def _merge_casts(match: Match) -> Value | None:
    inner, x = match.node("inner"), match["x"]
    if not _holds(inner.output.type.dtype, x.type.dtype):
        return None
    return emit("cast", x, to=match.root.attrs["to"])


def _is_no_cast(node: Node) -> bool:
    return node.attrs["to"] is node.inputs[0].type.dtype


def _exchange_branches(match: Match) -> Value:
    return emit("where", match["c"], match["y"], match["x"])


def _on_x_and_y(name: str) -> Callable[[Match], Value]:
    return lambda match: emit(name, match["x"], match["y"])


_X, _Y = value("x"), value("y")
_C = const("c")


def _with(
    name: str, number: float, where: Callable[[float], Callable[[Constant], bool]]
) -> Operation:
    """The op `name` of x and a constant that is `number` everywhere, on the right side."""
    return op(name, _X, const("c", where(number)), commutative=name in ("add", "mul", "maximum"))


RULES: tuple[Rule, ...] = (
    Rule("x + 0", _with("add", 0, _all), _drop_zero),
    Rule("x - 0", op("sub", value("x", _is_integer), const("c", _all(0))), _x),
    Rule("x * 1", _with("mul", 1, _all), _x),
    Rule("x / 1", _with("div", 1, _all), _x),
    Rule("x ** 1", _with("pow", 1, _all), _x),
    Rule("x ** 2", _with("pow", 2, _all), _square),
    # Within one unit in the last place: the square is rounded.
    Rule("x ** 3", _with("pow", 3, _all), _cube),
    Rule("x ** 0.5", _with("pow", 0.5, _all_float), _sqrt),
    Rule("x ** -1", _with("pow", -1, _all_float), _on_x("reciprocal")),
    # 0 - 0 is 0, not -0.
    Rule("-0 - x", op("sub", const("c", _all_negative_zero), _X), _on_x("neg")),
    Rule("x * -1", _with("mul", -1, _all_float), _on_x("neg")),
    Rule("1 / x", op("div", const("c", _all_float(1)), _X), _on_x("reciprocal")),
    Rule("--x", op("neg", op("neg", _X)), _x),
    Rule("x + -y", op("add", _X, op("neg", _Y), commutative=True), _on_x_and_y("sub")),
    Rule("x - -y", op("sub", _X, op("neg", _Y)), _on_x_and_y("add")),
    Rule("x - c", op("sub", value("x", _is_float), _C), _add_negative),
    Rule("x / 2**n", op("div", _X, const("c", _has_exact_reciprocal)), _multiply_by_reciprocal),
    Rule("maximum(x, 0)", _with("maximum", 0, _all_float), _on_x("relu")),
    Rule("relu of x >= 0", op("relu", op(_NEVER_NEGATIVE, where=_is_never_negative, name="x")), _x),
    Rule("abs of x >= 0", op("abs", op(_NEVER_NEGATIVE, name="x")), _x),
    Rule("abs(-x)", op("abs", op("neg", _X)), _on_x("abs")),
    Rule("rounded twice", op(_TO_INTEGERS, op(_TO_INTEGERS, name="x")), _x),
    Rule("relu(maximum)", op("relu", op("maximum", _X, _C, commutative=True)), _raise_bound),
    Rule(
        "maximum(relu)",
        op("maximum", op("relu", _X), const("c", _never_negative), commutative=True),
        _bound_above_relu,
    ),
    Rule("maximum twice", _twice("maximum"), _merge_bounds),
    Rule("minimum twice", _twice("minimum"), _merge_bounds),
    Rule("x with itself", op(_IDEMPOTENT, _X, _X), _x),
    Rule("not not x", op("not", op("not", _X)), _x),
    Rule("cast to the same", op("cast", _X, where=_is_no_cast), _x),
    Rule("cast twice", op("cast", op("cast", _X, name="inner")), _merge_casts),
    Rule("where(c, x, x)", op("where", value("c"), _X, _X), _x),
    Rule("where(not c)", op("where", op("not", value("c")), _X, _Y), _exchange_branches),
)
