"""Functions made of e^x, for float32 and float64 by one algorithm."""

from __future__ import annotations

from dataclasses import dataclass

from tvm import tirx

from planish.targets.expressions.vector_math.arithmetic import Steps, in_formats, in_single
from planish.targets.expressions.view import Expr, dtype_of

#: (e^r - 1 - r) / r^2 for |r| <= ln(2)/2, weighted for e^r - 1.
_EXPM1 = {
    "float32": (0.49999997, 0.166665465, 0.0416674353, 0.00836626161, 0.00138706574),
    "float64": (
        0.5,
        0.1666666666666667,
        0.04166666666666667,
        0.008333333333326141,
        0.0013888888888883752,
        0.00019841269874800493,
        2.4801587325533363e-05,
        2.7557255425746435e-06,
        2.755727366134866e-07,
        2.510520637395716e-08,
        2.0914679376575196e-09,
    ),
}

_LOG2_E = 1.4426950408889634
#: ln(2) in two parts; the first has so few bits that its products with exponents are exact.
LN2 = {
    "float32": (0.693145751953125, 1.42860677e-06),
    "float64": (0.6931471805598903, 5.497923018708371e-14),
}
#: Arguments below the first give 0 as below, those above the other infinity, also times |x|.
_LIMITS = {"float32": (-110.0, 89.0), "float64": (-755.0, 710.0)}
#: (e^r - 1) / r for |r| <= ln(2)/2, weighted for e^r.
_EXP_SHORT = (0.9999997, 0.49999148, 0.16667654, 0.04189815, 0.008289204)
_LN2_SINGLE = 0.69314718056
#: An x whose 2^n, n being -127, has the bits of 0.
_FLUSHED = -88.0
#: Twice this x, e^x is so large that adding or subtracting 2 is lost.
_SATURATED = 20.0


def exp(x: Expr) -> Expr:
    """e^x; within 1.1 ULP, subnormal results included."""
    return in_formats(x, lambda s, v: scaled_exp(s, _limited(s, v)).value())


def exp_nonpositive(x: Expr) -> Expr:
    """e^x for x <= 0; within 2 + |x| / 16 ULP with fused multiply-add, else 3 + |x| ULP.

    For differences from a maximum, which their own rounding makes uncertain by |x| ULP of e^x.
    It is 1 at 0, and 0 where e^x is below 2^-126.5. float64: as `exp`.
    """
    if dtype_of(x) == "float64":
        return exp(x)

    def build(s: Steps, v: Expr) -> Expr:
        limited = s.let("limited", s.at_least(v, _FLUSHED))
        bits, n = _multiple(s, limited, s.format.bias)
        r = s.let("r", limited - n * s.real(_LN2_SINGLE))
        return s.polynomial(r, (1.0, *_EXP_SHORT)) * s.power_of_two(bits)

    return in_single(x, build)


def expm1(x: Expr) -> Expr:
    """e^x - 1, ±0 and subnormals kept; within 2 ULP."""

    def build(s: Steps, v: Expr) -> Expr:
        e = scaled_exp(s, _limited(s, v))
        return s.with_sign_of(v, e.minus(1))

    return in_formats(x, build)


def sinh(x: Expr) -> Expr:
    """(e^x - e^-x) / 2, ±0 and subnormals kept; within 3 ULP."""

    def build(s: Steps, v: Expr) -> Expr:
        # With h = (e^|x| - 1) / 2: no cancellation, so that one form serves all x.
        size = s.let("size", tirx.abs(v))
        capped = s.let("capped", s.at_most(size, _LIMITS[s.format.dtype][1] + 1))
        h = s.let("h", scaled_exp(s, capped, -1).minus(0.5))
        bounded = s.let("bounded", s.at_most(h, 2.0**60))  # infinity / infinity is NaN
        result = h + bounded / (bounded + bounded + s.real(1))
        # Half of the smallest subnormal is 0.
        return s.with_sign_of(v, tirx.Select(size < s.real(2.0**-100), size, result))

    return in_formats(x, build)


def cosh(x: Expr) -> Expr:
    """(e^x + e^-x) / 2; within 2 ULP."""

    def build(s: Steps, v: Expr) -> Expr:
        capped = s.let("capped", s.at_most(tirx.abs(v), _LIMITS[s.format.dtype][1] + 1))
        half = s.let("half", scaled_exp(s, capped, -1).value())
        return half + s.real(0.25) / half

    return in_formats(x, build)


def tanh(x: Expr) -> Expr:
    """(e^x - e^-x) / (e^x + e^-x), ±0 and subnormals kept; within 3 ULP."""

    def build(s: Steps, v: Expr) -> Expr:
        # tanh|x| = d / (d + 2) with d = e^(2|x|) - 1: no cancellation, one form for all x.
        twice = s.let("twice", tirx.abs(v) * s.real(2))
        d = s.let("d", expm1_small(s, s.let("capped", s.at_most(twice, 2 * _SATURATED))))
        return s.with_sign_of(v, d / (d + s.real(2)))

    return in_formats(x, build)


def sigmoid(x: Expr) -> Expr:
    """1 / (1 + e^-x); within 3 ULP, subnormal results included."""

    def build(s: Steps, v: Expr) -> Expr:
        # e^-x would overflow where the result is subnormal still; e^-|x| does not.
        size = s.let("size", s.at_most(tirx.abs(v), -_LIMITS[s.format.dtype][0]))
        small = s.let("small", scaled_exp(s, s.let("negative", s.real(0) - size)).value())
        return tirx.Select(v < s.real(0), small, s.real(1)) / (small + s.real(1))

    return in_formats(x, build)


def silu(x: Expr) -> Expr:
    """x * sigmoid(x); within 4 ULP, subnormal results included; NaN at -inf, as the product is."""

    def build(s: Steps, v: Expr) -> Expr:
        bounded = s.let("bounded", s.at_least(v, _LIMITS[s.format.dtype][0]))
        e = scaled_exp(s, s.let("exponent", s.at_most(bounded, 2 * _SATURATED)))
        return s.nan_at_minus_infinity(v, e.gate(bounded))

    return in_formats(x, build)


def mish(x: Expr) -> Expr:
    """x * tanh(ln(1 + e^x)); within 5 ULP, subnormal results included; NaN at -inf, as silu."""

    def build(s: Steps, v: Expr) -> Expr:
        # tanh(ln(1 + e)) = e (e + 2) / (e (e + 2) + 2).
        bounded = s.let("bounded", s.at_least(v, _LIMITS[s.format.dtype][0]))
        e = scaled_exp(s, s.let("exponent", s.at_most(bounded, _SATURATED)))
        value = s.let("e", e.value())
        above = s.let("above", value + s.real(2))
        factor = above / (value * above + s.real(2)) * e.mantissa
        return s.nan_at_minus_infinity(v, bounded * factor * e.first * e.second)

    return in_formats(x, build)


@dataclass(frozen=True, slots=True)
class ScaledExp:
    """e^x * 2^shift as (1 + above_one) * first * second.

    Two steps of scale, since 2^n is no float for the n of subnormal and of the largest results.
    What is to be multiplied with a subnormal e^x comes before the steps, lest it be rounded twice.
    """

    steps: Steps
    above_one: Expr
    mantissa: Expr
    """1 + above_one."""
    first: Expr
    second: Expr
    inverse_second: Expr

    def value(self) -> Expr:
        """The number itself."""
        return self.mantissa * self.first * self.second

    def minus(self, subtrahend: float) -> Expr:
        """The number minus a power of two, exact near 0 where that is 2^shift."""
        rest = self.first - self.inverse_second * self.steps.real(subtrahend)
        return (self.above_one * self.first + rest) * self.second

    def gate(self, x: Expr) -> Expr:
        """x e / (1 + e) for the number e."""
        share = self.mantissa / (self.value() + self.steps.real(1))
        return x * share * self.first * self.second


def scaled_exp(s: Steps, x: Expr, shift: int = 0, minus: Expr | None = None) -> ScaledExp:
    """e^(x - minus) * 2^shift for a variable x within the limits and a small `minus`."""
    bits, n = _multiple(s, x, 2 * s.format.bias + shift)
    return _scaled(s, bits, _remainder(s, x, n, minus))


def scaled_exp_of_double(s: Steps, x: Expr) -> ScaledExp:
    """e^x in float32 for a variable x in float64, whose digits beyond float32's count."""
    log2_e, rounder = tirx.const(_LOG2_E, "float64"), s.format.rounder + 2 * s.format.bias
    rounded = s.let("rounded", (x * log2_e).astype("float32") + s.real(rounder))
    n = (rounded - s.real(rounder)).astype("float64")
    r = (x - n * tirx.const(0.6931471805599453, "float64")).astype("float32")
    return _scaled(s, s.let("bits", s.bits(rounded)), s.let("r", r))


def expm1_small(s: Steps, x: Expr) -> Expr:
    """e^x - 1 for a variable |x| < 80, with a small relative error also around 0."""
    bits, n = _multiple(s, x, s.format.bias)
    scale = s.let("scale", s.power_of_two(bits))
    return _expm1_reduced(s, _remainder(s, x, n)) * scale + (scale - s.real(1))


def _limited(s: Steps, x: Expr) -> Expr:
    low, high = _LIMITS[s.format.dtype]
    return s.let("limited", s.at_least(s.let("high", s.at_most(x, high)), low))


def _scaled(s: Steps, bits: Expr, r: Expr) -> ScaledExp:
    """From n + 2 bias in the low bits."""
    half = s.let("half", tirx.shift_right(bits, s.whole(1)))
    other = s.let("other", bits - half)
    above_one = s.let("above_one", _expm1_reduced(s, r))
    return ScaledExp(
        s,
        above_one,
        above_one + s.real(1),
        s.power_of_two(half),
        s.power_of_two(other),
        s.power_of_two(s.whole(2 * s.format.bias) - other),
    )


def _multiple(s: Steps, x: Expr, bias: int) -> tuple[Expr, Expr]:
    """n + bias in the low bits of an integer, and the float n, for n = round(x / ln(2))."""
    rounder = s.real(s.format.rounder + bias)
    rounded = s.let("rounded", x * s.real(_LOG2_E) + rounder)
    return s.let("bits", s.bits(rounded)), s.let("n", rounded - rounder)


def _remainder(s: Steps, x: Expr, n: Expr, minus: Expr | None = None) -> Expr:
    """x - minus - n ln(2)."""
    high, low = LN2[s.format.dtype]
    r = (x - n * s.real(high)) - n * s.real(low)
    return s.let("r", r if minus is None else r - minus)


def _expm1_reduced(s: Steps, r: Expr) -> Expr:
    """e^r - 1 for |r| <= ln(2)/2."""
    return r + (r * r) * s.polynomial(r, _EXPM1[s.format.dtype])
