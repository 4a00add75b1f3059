"""Turns the arithmetic that exporters write for activation functions into one op each."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field

from planish.ir.builder import emit
from planish.ir.graph import Attr, Graph, Node, Result, Value
from planish.ir.ops.activation import GELU_CUBIC, GELU_SLOPE
from planish.ir.target import Target
from planish.ir.types import DType
from planish.passes.arithmetic_form import Form, Terms, number_of, polynomial, sources
from planish.passes.pattern import AnyConstant, Match, Operation, Pattern, const, op, value
from planish.passes.rewrite import Refusal, Rule, rewrite

#: How far a factor may be from the exact one, relative: what rounding it to the type leaves …
_NEAR = {
    DType.FLOAT64: 1e-12,
    DType.FLOAT32: 5e-7,
    DType.FLOAT16: 7e-4,
    DType.BFLOAT16: 3e-3,
}
#: … and inside erf, tanh and sigmoid, where factors are products of two, and 1/√2 is written with
#: four digits too: 0.7071 moves a GELU of float32 by less than 3e-6.
_NEAR_INSIDE = {
    DType.FLOAT64: 1e-12,
    DType.FLOAT32: 1e-5,
    DType.FLOAT16: 1.2e-3,
    DType.BFLOAT16: 6e-3,
}


def recognize_activations(graph: Graph, target: Target) -> Graph:
    """Rewrite GELU (by erf and by tanh), SiLU, hard swish, softplus, Mish and sigmoid.

    before: %1 = div(%x, 1.414)   %2 = erf(%1)   %3 = add(%2, 1.0)
            %4 = mul(%x, %3)      %5 = mul(%4, 0.5)
    after:  %5 = gelu(%x, approximate="none")

    The arithmetic is compared as a polynomial of x and of the one step that is none (erf, tanh,
    sigmoid or a clipped line), so that the order of factors and where numbers stand do not matter.
    A hard sigmoid stays arithmetic: weights before it take its line. Up to rounding: so
    log(1 + exp(x)), which overflows as exp(x) does, is a softplus only before the tanh of Mish.
    But 6·x, in x·min(…, 6) / 6, no longer overflows beyond a sixth of the largest number.
    """
    return rewrite(graph, _RULES)


@dataclass(frozen=True, slots=True)
class _Spelling:
    """`op` as arithmetic: `inner` of the polynomial `line` of x, then `whole` of x and that."""

    op: str
    inner: str
    line: Terms
    whole: Terms
    attrs: Mapping[str, Attr] = field(default_factory=dict)


_HALF_SUM: Terms = {(1, 0): 0.5, (1, 1): 0.5}
_PRODUCT: Terms = {(1, 1): 1.0}
_CUBIC: Terms = {(1,): GELU_SLOPE, (3,): GELU_SLOPE * GELU_CUBIC}
_SPELLINGS: tuple[_Spelling, ...] = (
    _Spelling("gelu", "erf", {(1,): math.sqrt(0.5)}, _HALF_SUM, {"approximate": "none"}),
    _Spelling("gelu", "tanh", _CUBIC, _HALF_SUM, {"approximate": "tanh"}),
    # (1 + tanh(z)) / 2 = sigmoid(2z)
    _Spelling(
        "gelu",
        "sigmoid",
        {power: 2 * number for power, number in _CUBIC.items()},
        _PRODUCT,
        {"approximate": "tanh"},
    ),
    _Spelling("silu", "sigmoid", {(1,): 1.0}, _PRODUCT),
)


def _activation(match: Match) -> Value | Refusal | None:
    """What the product at the root is an activation of."""
    root = match.root
    near = _NEAR.get(root.output.type.dtype)
    if near is None:
        return None
    for found in sources(root.output):
        if not isinstance(found, Result):
            continue
        made = _smooth(root, found, near) or _hard_swish(root, found, near)
        if made is not None:
            shared = match.is_shared(found)
            return Refusal(f"{found.node.where()} has other users") if shared else made
    return None


def _smooth(root: Node, inner: Result, near: float) -> Value | None:
    """The spelling that goes through `inner`."""
    spellings = [spelling for spelling in _SPELLINGS if spelling.inner == inner.node.op]
    if not spellings:
        return None
    inside = _NEAR_INSIDE[root.output.type.dtype]
    for x, line, whole in _readings(root, inner, inner.node.inputs[0]):
        for spelling in spellings:
            if line.equals(spelling.line, inside) and whole.equals(spelling.whole, near):
                nodes = (*whole.nodes, inner.node, *line.nodes)
                return emit(spelling.op, x, provenance=_names(nodes), **spelling.attrs)
    return None


def _readings(root: Node, inner: Value, argument: Value) -> Iterator[tuple[Value, Form, Form]]:
    """x, the argument as polynomial of x, and the root as polynomial of x and `inner`."""
    for x in sources(argument):
        if x.type != root.output.type:
            continue
        whole = polynomial(root.output, (x, inner))
        line = None if whole is None else polynomial(argument, (x,))
        if whole is not None and line is not None:
            yield x, line, whole


def _names(nodes: tuple[Node, ...]) -> list[str]:
    """The names of the nodes, given last to first."""
    return [name for node in reversed(nodes) for name in node.provenance]


def _hard_swish(root: Node, inner: Result, near: float) -> Value | None:
    """k·x·clip(a·x + b, 0, h) where k·h = 1, k·a = 1/6 and k·b = 1/2."""
    clipped = _clipped(inner)
    if clipped is None:
        return None
    argument, low, high, bounds = clipped
    if low != 0:
        return None
    for x, line, whole in _readings(root, inner, argument):
        scale = whole.terms.get((1, 1), 0.0)
        exact: Terms = {(1,): 1 / 6 / scale, (0,): 0.5 / scale} if scale > 0 else {}
        if (
            whole.equals({(1, 1): scale}, near)
            and line.equals(exact, near)
            and math.isclose(scale * high, 1.0, rel_tol=near)
        ):
            return emit("hard_swish", x, provenance=_names((*whole.nodes, *bounds, *line.nodes)))
    return None


def _clipped(found: Result) -> tuple[Value, float, float, tuple[Node, ...]] | None:
    """What is clipped to two numbers, those, and the nodes that do it."""
    low, high, nodes = -math.inf, math.inf, list[Node]()
    value: Value = found
    while isinstance(value, Result) and len(nodes) < 2:
        bound = _BOUNDS.get(value.node.op)
        numbers = bound(value.node) if bound else None
        if numbers is None:
            break
        nodes.append(value.node)
        value, low, high = numbers[0], max(low, numbers[1]), min(high, numbers[2])
    return (value, low, high, tuple(nodes)) if low < high < math.inf else None


def _bounded(node: Node) -> tuple[Value, float, float] | None:
    """The operand of a maximum or minimum with a number."""
    for inner, bound in (node.inputs, node.inputs[::-1]):
        number = number_of(bound)
        if number is not None:
            lower = node.op == "maximum"
            return inner, number if lower else -math.inf, math.inf if lower else number
    return None


def _clip_bounds(node: Node) -> tuple[Value, float, float] | None:
    low, high = map(number_of, node.inputs[1:])
    return None if low is None or high is None else (node.inputs[0], low, high)


_BOUNDS = {
    "relu": lambda node: (node.inputs[0], 0.0, math.inf),
    "maximum": _bounded,
    "minimum": _bounded,
    "clip": _clip_bounds,
}


# --- what has no product around it


def _on_x(name: str) -> Callable[[Match], Value | None]:
    return lambda match: emit(name, match["x"]) if _is_plain(match) else None


def _is_plain(match: Match) -> bool:
    return match["x"].type == match.root.output.type and match["x"].type.dtype.is_float


def _quotient(match: Match) -> Value | None:
    """y / (1 + exp(-x)) = y · sigmoid(x)."""
    return emit("mul", match["y"], emit("sigmoid", match["x"]))


def _one() -> AnyConstant:
    return const("one", lambda c: number_of(c) == 1)


def _softplus_of(inner: Pattern) -> tuple[Operation, ...]:
    """The spellings of log(1 + exp(inner))."""
    powers = op("exp", inner)
    sum_ = op("add", powers, _one(), commutative=True)
    return op("softplus", inner), op("log", sum_), op("log1p", powers)


def _halves(tail: Operation) -> Rule:
    """max(x, 0) + softplus(-|x|), where no power overflows."""
    pattern = op("add", op("relu", _X), tail, commutative=True)
    return Rule(f"softplus by halves, {tail.ops[0]}", pattern, _on_x("softplus"))


def _mish(softplus: Operation) -> Rule:
    pattern = op("mul", _X, op("tanh", softplus), commutative=True)
    return Rule(f"mish by {softplus.ops[0]}", pattern, _on_x("mish"))


_X = value("x")
_ONE_PLUS_INVERSE = op("add", op("exp", op("neg", _X)), _one(), commutative=True, single_use=True)

_RULES: tuple[Rule, ...] = (
    Rule("sigmoid of its parts", op("reciprocal", _ONE_PLUS_INVERSE), _on_x("sigmoid")),
    Rule("sigmoid as divisor", op("div", value("y"), _ONE_PLUS_INVERSE), _quotient),
    *(_halves(tail) for tail in _softplus_of(op("neg", op("abs", _X)))),
    *(_mish(softplus) for softplus in _softplus_of(_X)),
    Rule("activation", op(("mul", "div")), _activation),
)
