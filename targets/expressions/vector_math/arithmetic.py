"""Straight-line arithmetic on the parts of floats, in either of two formats."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from tvm import tirx

from planish.targets.expressions.view import Expr, dtype_of


@dataclass(frozen=True, slots=True)
class Format:
    """How a float type lies in an integer of its size."""

    dtype: str
    integer: str
    width: int
    fraction_bits: int
    bias: int

    @property
    def rounder(self) -> int:
        """Added to a small float, this leaves the nearest integer in the low bits of the sum.

        Unlike nearbyint and a conversion to int, it is no call on a CPU without a rounding
        instruction, and is defined for NaN (LLVM's conversion is not).
        """
        return 3 << (self.fraction_bits - 1)

    @property
    def rounder_bits(self) -> int:
        """The representation of `rounder` as an integer."""
        return (self.bias + self.fraction_bits) << self.fraction_bits | 1 << self.fraction_bits - 1

    @property
    def sign_mask(self) -> int:
        """The sign bit alone."""
        return -(1 << (self.width - 1))


SINGLE = Format("float32", "int32", 32, 23, 127)
DOUBLE = Format("float64", "int64", 64, 52, 1023)
FORMATS = {f.dtype: f for f in (SINGLE, DOUBLE)}


@dataclass(slots=True)
class Steps:
    """The named intermediate values of one expression, most of them in `format`.

    Names, since TVM would compute an expression again for each of its readers.
    """

    format: Format
    made: list[tuple[Expr, Expr]] = field(default_factory=list)

    def let(self, name: str, value: Expr) -> Expr:
        """A variable that holds `value`."""
        var = tirx.Var(name, value.ty)
        self.made.append((var, value))
        return var

    def around(self, body: Expr) -> Expr:
        """`body` with the variables bound."""
        for var, value in reversed(self.made):
            body = tirx.Let(var, value, body)
        return body

    def real(self, value: float) -> Expr:
        """A constant of the float type."""
        return tirx.const(value, self.format.dtype)

    def whole(self, value: int) -> Expr:
        """A constant of the integer type."""
        return tirx.const(value, self.format.integer)

    def bits(self, x: Expr) -> Expr:
        """The integer that represents the float x."""
        return tirx.reinterpret(self.format.integer, x)

    def from_bits(self, bits: Expr) -> Expr:
        """The float that the integer represents."""
        return tirx.reinterpret(self.format.dtype, bits)

    def to_real(self, n: Expr) -> Expr:
        """A small integer as a float; x86 before AVX-512 converts int64 one by one."""
        if self.format is SINGLE:
            return n.astype("float32")
        biased = self.from_bits(n + self.whole(self.format.rounder_bits))
        return biased - self.real(self.format.rounder)

    def power_of_two(self, biased: Expr) -> Expr:
        """2^n from n + bias in the low bits; the shift drops those of a rounder above them."""
        return self.from_bits(tirx.shift_left(biased, self.whole(self.format.fraction_bits)))

    def polynomial(self, x: Expr, coefficients: Sequence[float]) -> Expr:
        """Horner's form: a chain, but loops run several vectors at once, and it is most exact."""
        return self.let("polynomial", horner(x, coefficients, self.real))

    def at_most(self, x: Expr, bound: float) -> Expr:
        """The smaller one of x and bound; NaN stays."""
        return tirx.Select(x > self.real(bound), self.real(bound), x)

    def at_least(self, x: Expr, bound: float) -> Expr:
        """The larger one of x and bound; NaN stays."""
        return tirx.Select(x < self.real(bound), self.real(bound), x)

    def with_sign_of(self, sign: Expr, size: Expr) -> Expr:
        """|size| with the sign of `sign`."""
        mask = self.format.sign_mask
        magnitude = self.bits(size) & self.whole(~mask)
        return self.from_bits(magnitude | (self.bits(sign) & self.whole(mask)))

    def nan_at_minus_infinity(self, x: Expr, value: Expr) -> Expr:
        """`value`, but NaN if x is -inf: what x * 0 is, if less than its limit."""
        at_end = tirx.EQ(x, self.real(float("-inf")))
        return tirx.Select(at_end, self.real(float("nan")), value)


def horner(x: Expr, coefficients: Sequence[float], constant: Callable[[float], Expr]) -> Expr:
    """The polynomial with the coefficients, lowest power first, as one expression."""
    result = constant(coefficients[-1])
    for coefficient in reversed(coefficients[:-1]):
        result = result * x + constant(coefficient)
    return result


def double(value: float) -> Expr:
    """A constant of type float64."""
    return tirx.const(value, "float64")


Build = Callable[[Steps, Expr], Expr]


def in_formats(x: Expr, build: Build) -> Expr:
    """`build` for float32 and float64; narrower floats go through float32."""
    if dtype_of(x) == "float64":
        return _built(x, DOUBLE, build)
    return in_single(x, build)


def in_single_or_libm(x: Expr, build: Build, name: str) -> Expr:
    """`build` for float32 and narrower floats; float64 calls libm's function `name`."""
    if dtype_of(x) == "float64":
        return libm(name, x)
    return in_single(x, build)


def in_single(x: Expr, build: Build) -> Expr:
    """`build` in float32, for an x of at most its width."""
    dtype = dtype_of(x)
    wide = x if dtype == "float32" else x.astype("float32")
    result = _built(wide, SINGLE, build)
    return result if dtype == "float32" else result.astype(dtype)


def libm(name: str, *args: Expr) -> Expr:
    """A call of the C library's function for float64."""
    return tirx.call_pure_extern("float64", name, *args)


def _built(x: Expr, format: Format, build: Build) -> Expr:
    steps = Steps(format)
    # Bound before any select: a select of loads would become a branch (RewriteUnsafeSelect).
    return steps.around(build(steps, steps.let("x", x)))
