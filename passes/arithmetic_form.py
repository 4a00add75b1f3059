"""Chains of arithmetic with numbers, read as polynomials of the values that they start from.

Only where the chain computes its polynomial but for the usual roundings: a number that another one
cancels has rounded what it was added to, and a large or small one may have over- or underflowed.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from planish.ir.graph import Constant, Node, Result, Value

#: Exponents of the variables → coefficient.
Terms = Mapping[tuple[int, ...], float]

#: Steps back through arithmetic at most; the longest known spelling of an activation has nine.
_LONGEST = 32
_HIGHEST_DEGREE = 4
#: Coefficients of all that is on the way, least and largest: those of no activation are beyond.
_LEAST, _LARGEST = 2.0**-8, 2.0**4
_ARITHMETIC = frozenset(("add", "sub", "mul", "div", "neg", "pow"))


@dataclass(frozen=True, slots=True)
class Form:
    """A value as a polynomial, and the nodes that compute it from the variables, last first."""

    terms: Terms
    nodes: tuple[Node, ...]

    def equals(self, terms: Terms, tolerance: float) -> bool:
        """True if all coefficients are within `tolerance`, relative, of the given ones."""
        return self.terms.keys() == terms.keys() and all(
            math.isclose(number, terms[power], rel_tol=tolerance)
            for power, number in self.terms.items()
        )


def number_of(found: Value) -> float | None:
    """The number that a floating-point constant of one element holds."""
    if isinstance(found, Constant) and found.data.size == 1 and found.type.dtype.is_float:
        return float(found.data.item())
    return None


def polynomial(root: Value, variables: Sequence[Value]) -> Form | None:
    """`root` in terms of `variables`; None if it is no polynomial of them with scalar factors."""
    done: dict[Value, Terms] = {
        value: {tuple(int(i == at) for i in range(len(variables))): 1.0}
        for at, value in enumerate(variables)
    }
    nodes: list[Node] = []
    stack = [root]
    for _ in range(_LONGEST):
        if not stack:
            return Form(done[root], tuple(reversed(nodes)))
        found = stack[-1]
        if found in done:
            stack.pop()
            continue
        number = number_of(found)
        if number is not None:
            done[found] = {(0,) * len(variables): number}
            continue
        if not isinstance(found, Result) or found.node.op not in _ARITHMETIC:
            return None
        missing = [value for value in found.node.inputs if value not in done]
        if missing:
            stack += missing
            continue
        terms = _RULES[found.node.op](*(done[value] for value in found.node.inputs))
        if terms is None or not all(_LEAST <= abs(c) <= _LARGEST for c in terms.values()):
            return None
        nodes.append(found.node)
        done[found] = terms
    return None


def sources(root: Value) -> Iterator[Value]:
    """`root`, and what lies before it in arithmetic, nearest first: what it may be made of."""
    queue, seen = [root], {root}
    for _ in range(_LONGEST):
        if not queue:
            return
        found = queue.pop(0)
        yield found
        if isinstance(found, Result) and found.node.op in _ARITHMETIC:
            new = [v for v in found.node.inputs if v not in seen and not isinstance(v, Constant)]
            seen.update(new)
            queue += new


def _added(a: Terms, b: Terms, sign: float = 1.0) -> Terms | None:
    """The sum; None where terms cancel."""
    total = {p: a.get(p, 0.0) + sign * b.get(p, 0.0) for p in (*a, *b)}
    kept = all(2 * abs(c) >= max(abs(a.get(p, 0.0)), abs(b.get(p, 0.0))) for p, c in total.items())
    return total if kept else None


def _multiplied(a: Terms, b: Terms) -> Terms | None:
    product: dict[tuple[int, ...], float] = {}
    for p, x in a.items():
        for q, y in b.items():
            power = tuple(i + j for i, j in zip(p, q))
            if sum(power) > _HIGHEST_DEGREE:
                return None
            product[power] = product.get(power, 0.0) + x * y
    return product


def _constant(terms: Terms) -> float | None:
    """The number, if the polynomial is one."""
    ((power, number), *more) = terms.items()
    return None if more or any(power) else number


def _divided(a: Terms, b: Terms) -> Terms | None:
    divisor = _constant(b)
    return _multiplied(a, {next(iter(b)): 1 / divisor}) if divisor else None


def _raised(a: Terms, b: Terms) -> Terms | None:
    exponent = _constant(b)
    if exponent not in (2, 3):
        return None
    square = _multiplied(a, a)
    return square if exponent == 2 or square is None else _multiplied(square, a)


_RULES: Mapping[str, Callable[..., Terms | None]] = {
    "add": _added,
    "sub": lambda a, b: _added(a, b, -1.0),
    "mul": _multiplied,
    "div": _divided,
    "neg": lambda a: {power: -number for power, number in a.items()},
    "pow": _raised,
}
