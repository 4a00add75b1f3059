"""Arithmetic on elements that no pass of TVM sees through.

TVM's simplifier is made for indices: to it no integer wraps around and no float is NaN. It takes
`x + 1 > x` and `x == x` for true, `x * 0` and `x - x` for 0, `not (x < y)` for `y <= x`. Its code
generator adds that sums of 32 and 64 bits never overflow. So what is computed of elements is a call
of an op of our own, which TVM can neither fold nor reorder, until `reveal` turns it into TVM's
node: after every pass that simplifies, and just before code is generated.

Indices stay TVM's own arithmetic: there the simplifier is right, and needed.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tvm import ir, tirx
from tvm.tirx.expr import CallEffectKind
from tvm_ffi.structural import structural_map

from planish.targets.expressions.view import Expr, dtype_of


def _op(name: str) -> Any:
    """The registered op `planish.<name>`: pure, and of vectors where its operands are."""
    full = f"planish.{name}"
    ir.register_op_attr(full, "TVectorizable", True)
    ir.register_op_attr(full, "TCallEffectKind", CallEffectKind.Pure.value)
    return ir.Op.get(full)


def add(a: Expr, b: Expr) -> Expr:
    """a + b; integers wrap around."""
    return _call(_ADD, dtype_of(a), a, b)


def subtract(a: Expr, b: Expr) -> Expr:
    """a - b; integers wrap around."""
    return _call(_SUBTRACT, dtype_of(a), a, b)


def multiply(a: Expr, b: Expr) -> Expr:
    """a · b; integers wrap around."""
    return _call(_MULTIPLY, dtype_of(a), a, b)


def divide(a: Expr, b: Expr) -> Expr:
    """a / b; of integers toward zero, and only where b is neither 0 nor, if signed, -1."""
    return _call(_DIVIDE, dtype_of(a), a, b)


def remainder(a: Expr, b: Expr) -> Expr:
    """What `divide` of integers leaves, with the sign of a; b as there."""
    return _call(_REMAINDER, dtype_of(a), a, b)


def equal(a: Expr, b: Expr) -> Expr:
    """a == b; false if either is NaN."""
    return _call(_EQUAL, "bool", a, b)


def not_equal(a: Expr, b: Expr) -> Expr:
    """a != b; true if either is NaN."""
    return _call(_NOT_EQUAL, "bool", a, b)


def less(a: Expr, b: Expr) -> Expr:
    """a < b; false if either is NaN."""
    return _call(_LESS, "bool", a, b)


def less_equal(a: Expr, b: Expr) -> Expr:
    """a <= b; false if either is NaN."""
    return _call(_LESS_EQUAL, "bool", a, b)


def larger(a: Expr, b: Expr) -> Expr:
    """a if a > b, else b: b if either is NaN."""
    return _call(_LARGER, dtype_of(a), a, b)


def smaller(a: Expr, b: Expr) -> Expr:
    """a if a < b, else b: b if either is NaN."""
    return _call(_SMALLER, dtype_of(a), a, b)


def reveal(body: tirx.Stmt) -> tirx.Stmt:
    """The statement with TVM's own nodes in the place of the opaque ones."""
    return structural_map(body, (ir.Call, _revealed))


def _call(op: Any, dtype: str, a: Expr, b: Expr) -> Expr:
    return ir.Call(op, [a, b], ret_ty=dtype)


def _revealed(call: ir.Call) -> Expr:
    name = getattr(call.op, "name", "")
    if name == "tirx.reinterpret" and _is_zero(call.args[0]):
        return tirx.Cast(call.ty, call.args[0])  # TVM takes it for a null pointer; all bits are 0
    node = _NODES.get(name)
    return call if node is None else node(*call.args)


def _is_zero(expr: Expr) -> bool:
    scalar = expr.value if isinstance(expr, tirx.Broadcast) else expr
    return isinstance(scalar, tirx.IntImm) and scalar.value == 0


def _wrapping(node: Callable[[Expr, Expr], Expr], signed: bool) -> Callable[[Expr, Expr], Expr]:
    """`node` on integers in twice their width, where nothing overflows, then cut to their own.

    LLVM makes of that one instruction of their own width. From 32 bits on TVM would tell it that
    sums and products do not overflow. `signed`: in signed integers, even if theirs are not.
    """

    def wrapped(a: Expr, b: Expr) -> Expr:
        kind = a.ty.dtype
        if "float" in str(kind) or kind.bits < 32:
            return node(a, b)
        name = "int" if signed or not str(kind).startswith("u") else "uint"
        wide = f"{name}{2 * kind.bits}" + (f"x{kind.lanes}" if kind.lanes > 1 else "")
        return tirx.Cast(a.ty, node(tirx.Cast(wide, a), tirx.Cast(wide, b)))

    return wrapped


def _different(a: Expr, b: Expr) -> Expr:
    """TVM's NE of floats is false for NaN."""
    return tirx.Not(tirx.EQ(a, b)) if "float" in dtype_of(a) else tirx.NE(a, b)


_ADD, _SUBTRACT, _MULTIPLY = _op("add"), _op("subtract"), _op("multiply")
_DIVIDE, _REMAINDER = _op("divide"), _op("remainder")
_EQUAL, _NOT_EQUAL, _LESS, _LESS_EQUAL = map(_op, ("equal", "not_equal", "less", "less_equal"))
_LARGER, _SMALLER = _op("larger"), _op("smaller")

#: Name of an opaque op → what TVM's node of it is.
_NODES: dict[str, Callable[[Expr, Expr], Expr]] = {
    "planish.add": _wrapping(tirx.Add, signed=False),
    "planish.subtract": _wrapping(tirx.Sub, signed=True),
    "planish.multiply": _wrapping(tirx.Mul, signed=False),
    "planish.divide": tirx.Div,
    "planish.remainder": tirx.Mod,
    "planish.equal": tirx.EQ,
    "planish.not_equal": _different,
    "planish.less": tirx.LT,
    "planish.less_equal": tirx.LE,
    "planish.larger": tirx.Max,
    "planish.smaller": tirx.Min,
}
