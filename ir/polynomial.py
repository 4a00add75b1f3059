"""Polynomials with integer coefficients over named atoms: the arithmetic under `planish.ir.dim`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Generic, TypeAlias, TypeVar

Operand = TypeVar("Operand", bound=Hashable)

Bound: TypeAlias = int | float  # ±math.inf stands for "no bound"; never NaN
Interval: TypeAlias = tuple[Bound, Bound]


@dataclass(frozen=True, slots=True)
class Atom(Generic[Operand]):
    """What a polynomial is made of: a symbol, or an operation that is no polynomial.

    `kind` is "symbol", "//", "%", "max" or "min"; `text` spells the operands; `low` and `high`
    bound the value; `name` is a symbol's unquoted name. Two symbols of one name but different
    ranges differ.
    """

    kind: str
    text: str
    low: Bound
    high: Bound
    operands: tuple[Operand, ...] = ()
    name: str = field(default="", compare=False)


Monomial: TypeAlias = tuple[Atom, ...]  # sorted, powers repeated; () is the constant term
Terms: TypeAlias = dict[Monomial, int]


def atom_order(atom: Atom) -> tuple[str, Bound, Bound]:
    """Sort key of atoms: by text, so that the order does not depend on how a sum was built."""
    return atom.text, atom.low, atom.high


def monomial_order(monomial: Monomial) -> tuple[int, list[tuple[str, Bound, Bound]]]:
    """Sort key, leading monomial first: graded lexicographic, so `exact_quotient` terminates."""
    return -len(monomial), [atom_order(atom) for atom in monomial]


def add(left: Mapping[Monomial, int], right: Mapping[Monomial, int]) -> Terms:
    """The sum; terms that cancel are gone."""
    total = dict(left)
    for monomial, coefficient in right.items():
        total[monomial] = total.get(monomial, 0) + coefficient
    return {monomial: coefficient for monomial, coefficient in total.items() if coefficient}


def scale(terms: Mapping[Monomial, int], factor: int) -> Terms:
    """Every coefficient times a non-zero `factor`."""
    return {monomial: coefficient * factor for monomial, coefficient in terms.items()}


def multiply(left: Mapping[Monomial, int], right: Mapping[Monomial, int]) -> Terms:
    """The product."""
    total: Terms = {}
    for a, m in left.items():
        for b, n in right.items():
            monomial = tuple(sorted(a + b, key=atom_order))
            total[monomial] = total.get(monomial, 0) + m * n
    return {monomial: coefficient for monomial, coefficient in total.items() if coefficient}


def exact_quotient(left: Mapping[Monomial, int], right: Mapping[Monomial, int]) -> Terms | None:
    """The polynomial q with left = q · right, None if none has integer coefficients."""
    lead = min(right, key=monomial_order)
    rest = dict(left)
    quotient: Terms = {}
    while rest:
        top = min(rest, key=monomial_order)
        missing = Counter(top)
        missing.subtract(lead)
        if rest[top] % right[lead] or min(missing.values(), default=0) < 0:
            return None
        step = {tuple(sorted(missing.elements(), key=atom_order)): rest[top] // right[lead]}
        quotient.update(step)
        rest = add(rest, scale(multiply(step, right), -1))
    return quotient


def interval(terms: Iterable[tuple[Monomial, int]]) -> Interval:
    """Bounds of a polynomial by interval arithmetic over its atoms."""
    low: Bound = 0
    high: Bound = 0
    for monomial, coefficient in terms:
        product: Interval = (coefficient, coefficient)
        for atom in monomial:
            product = _times(product, (atom.low, atom.high))
        low, high = low + product[0], high + product[1]
    return low, high


def floor_quotient(bound: Bound, divisor: Bound) -> Bound:
    """floor(bound / divisor) for a positive divisor, either of which may be infinite."""
    if abs(bound) == float("inf"):
        return bound
    if divisor == float("inf"):
        return 0 if bound >= 0 else -1
    return bound // divisor


def _times(a: Interval, b: Interval) -> Interval:
    # 0 · inf is 0 here: the bound of a factor that is exactly zero, not a limit.
    corners = [x * y if x and y else 0 for x in a for y in b]
    return min(corners), max(corners)
