"""The error function and the gate made of it."""

from __future__ import annotations

import math

from tvm import tirx

from planish.targets.expressions.vector_math.arithmetic import (
    DOUBLE,
    Steps,
    double,
    in_formats,
    in_single_or_libm,
    libm,
)
from planish.targets.expressions.vector_math.exponential import (
    expm1_small,
    scaled_exp,
    scaled_exp_of_double,
)
from planish.targets.expressions.view import Expr

#: ln(1 - erf(t)) / t for 0 <= t <= 4: the first number and, lest its rounding be felt, the rest of
#: it with the higher powers. The weight is small where 1 - erf(t) is.
_LOG_ERFC_HEAD = -1.12837923
_LOG_ERFC = (
    *(5.41201537e-08, -0.636619389, -0.102777757, 0.0191527866, 0.00016090204),
    *(-0.00166752306, 0.000633102027, -0.000117713971, 9.26422217e-06),
)

#: (a + 2.5) e^(a^2/2) P(Z > a), Z normal, as a polynomial in a / (a + 2.5), for 0 <= a <= 14.5.
_MILLS = (
    *(1.25, -1.2433922, 0.16960731, 0.29186806, 0.056014206),
    *(-0.14963037, 0.13770324, -0.3129697, 0.27947316, -0.07973309),
)
_MILLS_SHIFT = 2.5
#: Beyond it, the part of gelu that is not max(x, 0) is 0.
_GELU_END = 14.5

#: Of D. Hendrycks and K. Gimpel, "Gaussian Error Linear Units" (arXiv 1606.08415), twice, since
#: 1 + tanh(u) = 2 sigmoid(2u).
_SLOPE = 2 * math.sqrt(2 / math.pi)
_CUBIC = 0.044715 * _SLOPE
#: Beyond them, the tanh form is -0 and x.
_GELU_TANH_LIMITS = {"float32": (-11.0, 8.0), "float64": (-22.0, 8.0)}


def erf(x: Expr) -> Expr:
    """erf(x), ±0 kept; float32 within 3 ULP, float64 by libm."""
    return in_single_or_libm(x, _erf, "erf")


def gelu(x: Expr) -> Expr:
    """x (1 + erf(x / sqrt(2))) / 2; float32 within 6 ULP, also below 0 where little is left.

    NaN at -inf, as the product is. float64 calls libm's erfc.
    """
    return in_formats(x, _gelu)


def gelu_tanh(x: Expr) -> Expr:
    """x (1 + tanh(sqrt(2/pi) (x + 0.044715 x^3))) / 2; float32 within 4 ULP.

    NaN at -inf, as the product is. float64 within 4 + 2 |z| ULP, with sigmoid's argument z.
    """
    return in_formats(x, _gelu_tanh)


def _erf(s: Steps, x: Expr) -> Expr:
    # erf(t) = 1 - e^L(t), L(t) = ln(1 - erf(t)). L is smooth and L(t)/t is not 0, so that one
    # polynomial is enough: as a relative error, that of L is damped by L e^L / (1 - e^L) <= 1.
    t = s.let("t", s.at_most(s.let("size", tirx.abs(x)), 4.0))
    tail = s.let("tail", t * s.polynomial(t, _LOG_ERFC))
    exponent = s.let("exponent", t * s.real(_LOG_ERFC_HEAD) + tail)
    return s.with_sign_of(x, expm1_small(s, exponent))


def _gelu(s: Steps, x: Expr) -> Expr:
    """max(x, 0) - |x| P(Z > |x|): nothing cancels."""
    if s.format is DOUBLE:
        return x * s.real(0.5) * libm("erfc", x * s.real(-math.sqrt(0.5)))
    size = s.let("size", tirx.abs(x))
    a = s.let("a", s.at_most(size, _GELU_END))
    inverse = s.let("inverse", s.real(1) / (a + s.real(_MILLS_SHIFT)))
    t = s.let("t", a * inverse)
    ratio = s.let("ratio", s.polynomial(t, _MILLS) * inverse)
    # -a^2 / 2 to more digits than a float has: -high^2 / 2, exact, minus the rest.
    high = s.let("high", s.from_bits(s.bits(a) & s.whole(-1 << 12)))
    rest = (a - high) * (a + high) * s.real(0.5)
    e = scaled_exp(s, s.let("exponent", high * high * s.real(-0.5)), minus=rest)
    part = s.let("part", a * ratio * e.mantissa * e.first * e.second)
    result = tirx.Select(x < s.real(0), part * s.real(-1), x - part)
    return s.nan_at_minus_infinity(x, result)


def _gelu_tanh(s: Steps, x: Expr) -> Expr:
    low, high = _GELU_TANH_LIMITS[s.format.dtype]
    bounded = s.let("bounded", s.at_least(x, low))
    # In float64, since the absolute error of an exponent of 100 is the relative one of the result.
    wide = s.let("wide", s.at_most(bounded, high).astype("float64"))
    exponent = s.let("exponent", wide * (wide * wide * double(_CUBIC) + double(_SLOPE)))
    e = scaled_exp(s, exponent) if s.format is DOUBLE else scaled_exp_of_double(s, exponent)
    return s.nan_at_minus_infinity(x, e.gate(bounded))
