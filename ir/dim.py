"""Symbolic dimensions: integer expressions in a canonical form, with a range."""

from __future__ import annotations

import math
import numbers
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import TypeAlias, Union

from planish.ir import polynomial
from planish.ir.errors import InvalidGraph
from planish.ir.limits import MOST_BITS, MOST_FACTORS, MOST_TERMS, MOST_TEXT
from planish.ir.polynomial import Atom, Bound, Interval, Monomial, Terms, floor_quotient

DimLike: TypeAlias = Union[int, "Dim"]


@dataclass(frozen=True, slots=True, repr=False, eq=False)
class Dim:
    """An integer expression that is not constant: a polynomial over symbols, //, %, max and min.

    Terms are in graded lexicographic order with non-zero coefficients, so that equal polynomials
    are equal objects: `(n + 1) * 2 == 2 * n + 2`. Operators give an int where the result is
    constant; `//` and `%` round as Python's do. Only == and != compare, and mean "the same for
    every value of the symbols". `lo` and `hi` are bounds by interval arithmetic; None = unbounded.
    """

    terms: tuple[tuple[Monomial, int], ...]
    text: str
    low: Bound
    high: Bound

    @staticmethod
    def symbol(name: str, lo: int = 0, hi: int | None = None) -> Dim:
        """A free dimension with values lo..hi (hi None: no limit).

        InvalidGraph for an empty name or a range of fewer than two values.
        """
        if not name:
            raise InvalidGraph("a symbolic dimension needs a name")
        if hi is not None and hi <= lo:
            raise InvalidGraph(f"symbolic dimension '{name}' has the range {lo}..{hi}")
        atom: Atom[DimLike] = Atom(
            "symbol", _quoted(name), lo, math.inf if hi is None else hi, name=name
        )
        return _dim({(atom,): 1})

    @property
    def lo(self) -> int | None:
        """A lower bound, or None."""
        return None if self.low == -math.inf else int(self.low)

    @property
    def hi(self) -> int | None:
        """An upper bound, or None."""
        return None if self.high == math.inf else int(self.high)

    @property
    def symbols(self) -> tuple[str, ...]:
        """Names of the symbols, sorted."""
        return tuple(sorted({atom.name for atom in _symbol_atoms(self)}))

    def substitute(self, mapping: Mapping[str, DimLike]) -> DimLike:
        """This expression with the symbols of `mapping` replaced, an int if none remains.

        InvalidGraph if a value lies outside the symbol's range.
        """
        total: DimLike = 0
        for monomial, coefficient in self.terms:
            product: DimLike = coefficient
            for atom in monomial:
                product = product * _substitute_atom(atom, mapping)
            total = total + product
        return total

    def __add__(self, other: object) -> DimLike:
        right = _operand(other)
        if right is None:
            return NotImplemented
        return _collapse(polynomial.add(_terms(self), _terms(right)))

    def __sub__(self, other: object) -> DimLike:
        right = _operand(other)
        if right is None:
            return NotImplemented
        return self + -right

    def __rsub__(self, other: object) -> DimLike:
        return -self + other

    def __neg__(self) -> Dim:
        return _dim({monomial: -coefficient for monomial, coefficient in self.terms})

    def __mul__(self, other: object) -> DimLike:
        right = _operand(other)
        if right is None:
            return NotImplemented
        mine, others = _terms(self), _terms(right)
        if len(mine) * len(others) > 10 * MOST_TERMS:
            raise _too_large(self)
        return _collapse(polynomial.multiply(mine, others))

    __radd__ = __add__
    __rmul__ = __mul__

    def __floordiv__(self, other: object) -> DimLike:
        right = _operand(other)
        return NotImplemented if right is None else _floordiv(self, right)

    def __rfloordiv__(self, other: object) -> DimLike:
        left = _operand(other)
        return NotImplemented if left is None else _floordiv(left, self)

    def __mod__(self, other: object) -> DimLike:
        right = _operand(other)
        return NotImplemented if right is None else _modulo(self, right)

    def __rmod__(self, other: object) -> DimLike:
        left = _operand(other)
        return NotImplemented if left is None else _modulo(left, self)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Dim):
            return False  # a Dim is never constant
        return self is other or (self.text == other.text and self.terms == other.terms)

    def __hash__(self) -> int:
        return hash(self.text)

    def __str__(self) -> str:
        return self.text

    def __repr__(self) -> str:
        return f"Dim({self.text})"


def dim_max(*dims: DimLike) -> DimLike:
    """The largest of `dims`; those that the ranges prove smaller are dropped."""
    return _extreme("max", dims)


def dim_min(*dims: DimLike) -> DimLike:
    """The smallest of `dims`; those that the ranges prove larger are dropped."""
    return _extreme("min", dims)


def bounds(dim: DimLike) -> tuple[int | None, int | None]:
    """Lower and upper bound of a dimension; both its value for an int."""
    return (dim.lo, dim.hi) if isinstance(dim, Dim) else (dim, dim)


def symbols_of(dim: DimLike) -> tuple[Dim, ...]:
    """The symbols in a dimension as Dims, which know their ranges; sorted by name."""
    atoms = dict.fromkeys(_symbol_atoms(dim))
    return tuple(_dim({(atom,): 1}) for atom in sorted(atoms, key=polynomial.atom_order))


def substitute(dim: DimLike, mapping: Mapping[str, DimLike]) -> DimLike:
    """`Dim.substitute` for ints too."""
    return dim.substitute(mapping) if isinstance(dim, Dim) else dim


def _operand(value: object) -> DimLike | None:
    """`value` as an operand (numpy integers as int), None if it is no integer."""
    if isinstance(value, Dim):
        return value
    # Not __index__: an array has it too, and must get NotImplemented to add element by element.
    return int(value) if isinstance(value, numbers.Integral) else None


def _terms(value: DimLike) -> Terms:
    if isinstance(value, Dim):
        return dict(value.terms)
    return {(): value} if value else {}


def _collapse(terms: Mapping[Monomial, int]) -> DimLike:
    """The Dim of `terms`, or an int where nothing symbolic is left."""
    return _dim(terms) if any(terms) else terms.get((), 0)


def _dim(terms: Mapping[Monomial, int]) -> Dim:
    ordered = sorted(terms.items(), key=lambda term: polynomial.monomial_order(term[0]))
    if len(ordered) > MOST_TERMS or any(
        len(monomial) > MOST_FACTORS or coefficient.bit_length() > MOST_BITS
        for monomial, coefficient in ordered
    ):
        raise _too_large(ordered[0][0][0].text)
    low, high = polynomial.interval(ordered)
    text = _polynomial_text(ordered)
    if len(text) > MOST_TEXT:
        raise _too_large(text)
    return Dim(tuple(ordered), text, low, high)


def _too_large(part: object) -> InvalidGraph:
    return InvalidGraph(f"the expression of a dimension with {str(part)[:40]}… grows too large")


def _interval(value: DimLike) -> Interval:
    return (value.low, value.high) if isinstance(value, Dim) else (value, value)


def _floordiv(left: DimLike, right: DimLike) -> DimLike:
    """`left // right` in canonical form.

    Division by an exact symbolic factor cancels it, which takes the factor to be non-zero.
    """
    if right == 0:
        raise ZeroDivisionError(f"dimension {left} is divided by zero")
    if isinstance(left, int) and isinstance(right, int):
        return left // right
    quotient = _exact(left, right)
    if quotient is not None:
        return quotient
    if isinstance(right, int):
        return _divide_by(-left, -right) if right < 0 else _divide_by(left, right)
    low, high = _interval(left)
    if low >= 0 and right.low > high:
        return 0
    return _operation("//", (left, right), _quotient_range(left, right))


def _quotient_range(left: DimLike, right: DimLike) -> Interval:
    low, high = _interval(right)
    if low < 1:
        return -math.inf, math.inf
    quotients = [floor_quotient(x, y) for x in _interval(left) for y in (low, high)]
    return min(quotients), max(quotients)


def _divide_by(left: DimLike, divisor: int) -> DimLike:
    """`left // divisor` for a positive integer: whole multiples leave the quotient, nests merge."""
    terms = _terms(left)
    whole = {m: c // divisor if c > 0 or not m else -(-c // divisor) for m, c in terms.items()}
    whole = {m: c for m, c in whole.items() if c}
    outside = _collapse(whole)
    inside = _collapse(polynomial.add(terms, polynomial.scale(whole, -divisor)))
    if isinstance(inside, int):
        return outside + inside // divisor
    factor = math.gcd(divisor, *(c for m, c in inside.terms if m))
    if factor > 1:  # floor((f·x + r) / (f·d)) = floor((x + floor(r / f)) / d)
        reduced = _collapse({m: c // factor for m, c in inside.terms if c // factor})
        return outside + _floordiv(reduced, divisor // factor)
    if inside.terms[0][1] < 0:  # floor(-x / d) = -floor((x + d - 1) / d), for one form of both
        return outside - _floordiv(-inside + (divisor - 1), divisor)
    for monomial, coefficient in inside.terms:
        if coefficient == 1 and len(monomial) == 1 and monomial[0].kind == "//":
            numerator, inner = monomial[0].operands
            if isinstance(inner, int):  # (a // b + r) // d = (a + r·b) // (b·d)
                others = inside - _collapse({monomial: 1})
                return outside + _floordiv(numerator + others * inner, inner * divisor)
    low, high = floor_quotient(inside.low, divisor), floor_quotient(inside.high, divisor)
    if low == high:
        return outside + int(low)
    return outside + _operation("//", (inside, divisor), (low, high))


def _exact(left: DimLike, right: DimLike) -> DimLike | None:
    quotient = polynomial.exact_quotient(_terms(left), _terms(right))
    return None if quotient is None else _collapse(quotient)


def _modulo(left: DimLike, right: DimLike) -> DimLike:
    """`left % right` in canonical form."""
    if right == 0:
        raise ZeroDivisionError(f"dimension {left} modulo zero")
    if isinstance(left, int) and isinstance(right, int):
        return left % right
    if _exact(left, right) is not None:
        return 0
    if isinstance(right, int):
        return -_modulo_by(-left, -right) if right < 0 else _modulo_by(left, right)
    low, high = _interval(left)
    if low >= 0 and right.low > high:
        return left
    top = right.high - 1 if right.low >= 1 else math.inf
    return _operation("%", (left, right), (0 if right.low >= 1 else -math.inf, top))


def _modulo_by(left: DimLike, modulus: int) -> DimLike:
    """`left % modulus` for a positive integer: coefficients reduced, a common factor in front."""
    low, high = _interval(left)
    if low >= 0 and high < modulus:
        return left
    reduced = _collapse({m: c % modulus for m, c in _terms(left).items() if c % modulus})
    if isinstance(reduced, int):
        return reduced % modulus
    factor = math.gcd(modulus, *(c for _, c in reduced.terms))
    if factor > 1:
        inner = _collapse({m: c // factor for m, c in reduced.terms})
        return factor * _modulo(inner, modulus // factor)
    if reduced.low >= 0 and reduced.high < modulus:
        return reduced
    return _operation("%", (reduced, modulus), (0, modulus - 1))


def _extreme(kind: str, dims: tuple[DimLike, ...]) -> DimLike:
    """Maximum or minimum of at least one dimension."""
    sign = 1 if kind == "max" else -1
    kept: list[DimLike] = []
    for dim in _flattened(kind, dims):
        if any(_never_negative((other - dim) * sign) for other in kept):
            continue
        kept = [other for other in kept if not _never_negative((dim - other) * sign)]
        kept.append(dim)
    if len(kept) == 1:
        return kept[0]
    kept.sort(key=str)
    pick = max if kind == "max" else min
    lows, highs = zip(*map(_interval, kept))
    return _operation(kind, tuple(kept), (pick(lows), pick(highs)))


def _flattened(kind: str, dims: Iterable[DimLike]) -> Iterator[DimLike]:
    for dim in dims:
        if isinstance(dim, Dim) and len(dim.terms) == 1:
            monomial, coefficient = dim.terms[0]
            if coefficient == 1 and len(monomial) == 1 and monomial[0].kind == kind:
                yield from monomial[0].operands
                continue
        yield dim


def _never_negative(dim: DimLike) -> bool:
    return _interval(dim)[0] >= 0


def _operation(kind: str, operands: tuple[DimLike, ...], interval: Interval) -> Dim:
    if kind in ("max", "min"):
        text = f"{kind}({', '.join(map(str, operands))})"
    else:
        text = f"{_wrapped(operands[0])}{kind}{_wrapped(operands[1])}"
    return _dim({(Atom(kind, text, *interval, operands),): 1})


def _symbol_atoms(dim: DimLike) -> Iterator[Atom]:
    stack: list[DimLike] = [dim]
    while stack:
        top = stack.pop()
        if isinstance(top, Dim):
            for atom in (atom for monomial, _ in top.terms for atom in monomial):
                stack.extend(atom.operands)
                if atom.kind == "symbol":
                    yield atom


def _substitute_atom(atom: Atom, mapping: Mapping[str, DimLike]) -> DimLike:
    if atom.kind == "symbol":
        value = mapping.get(atom.name)
        if value is None:
            return _dim({(atom,): 1})
        low, high = _interval(value)
        if high < atom.low or low > atom.high:
            top = "" if atom.high == math.inf else atom.high
            raise InvalidGraph(f"dimension {atom.text} = {value} is outside {atom.low}..{top}")
        return value
    operands = [substitute(operand, mapping) for operand in atom.operands]
    if atom.kind == "//":
        return _floordiv(*operands)
    if atom.kind == "%":
        return _modulo(*operands)
    return _extreme(atom.kind, tuple(operands))


def _quoted(name: str) -> str:
    """A symbol's name in the text form: bare if it is an identifier, else in single quotes."""
    if name.isidentifier() and name.isascii() and name not in ("max", "min"):
        return name
    escaped = name.replace("\\", "\\\\").replace("'", "\\'").replace("\n", "\\n")
    return f"'{escaped}'"


def _wrapped(operand: DimLike) -> str:
    """An operand of // or %: in parentheses unless it is a symbol or a natural number."""
    if isinstance(operand, int):
        return str(operand) if operand >= 0 else f"({operand})"
    (monomial, coefficient), *others = operand.terms
    bare = not others and coefficient == 1 and len(monomial) == 1
    return operand.text if bare and monomial[0].kind not in ("//", "%") else f"({operand.text})"


def _polynomial_text(terms: Iterable[tuple[Monomial, int]]) -> str:
    text = ""
    for monomial, coefficient in terms:
        sign = ("-" if coefficient < 0 else "") if not text else " - " if coefficient < 0 else " + "
        text += sign + _term_text(monomial, coefficient)
    return text


def _term_text(monomial: Monomial, coefficient: int) -> str:
    """A term without its sign, which the caller writes."""
    if len(monomial) == 1 and coefficient == 1:
        return monomial[0].text
    parts = [f"({a.text})" if a.kind in ("//", "%") else a.text for a in monomial]
    return "*".join(parts if parts and abs(coefficient) == 1 else [str(abs(coefficient)), *parts])
