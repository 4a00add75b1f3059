"""x^y for float32, through float64; float64 calls libm."""

from __future__ import annotations

from tvm import tirx

from planish.targets.expressions import opaque
from planish.targets.expressions.vector_math.arithmetic import (
    DOUBLE,
    SINGLE,
    Steps,
    double,
    horner,
    libm,
)
from planish.targets.expressions.vector_math.logarithm import exponent_and_fraction
from planish.targets.expressions.view import Expr, dtype_of

#: log2(1 + f) / f for |f| <= 1/3, to 2^-35.
_LOG2 = (
    *(1.4426950408923283, -0.721347519569307, 0.4808983439632262, -0.3606739786159375),
    *(0.2885394415671484, -0.24043366037478192, 0.20607597974896733, -0.18080606459980997),
    *(0.1608911204554693, -0.13746109611981244, 0.12356366196666003, -0.1661052982553036),
    0.1575392417334641,
)
#: 2^r for |r| <= 1/2, to 2^-29.
_EXP2 = (
    *(1.000000000554189, 0.6931472057371972, 0.2402264689047489, 0.05550328777080137),
    *(0.009618488974358581, 0.001339993118263978, 0.00015345807373932585),
)
#: 2^±200 is infinity and 0 in float32; beyond this y, every x^y is 0, 1 or infinity.
_EXPONENT_LIMIT, _Y_LIMIT = 200.0, 2.0**40


def power(x: Expr, y: Expr) -> Expr:
    """x^y of two floats of one type, as IEEE 754's pow; float32 within 0.6 ULP, float64 by libm.

    x^0 and 1^y are 1 also for NaN; (-1)^±inf is 1; finite x < 0 with y no integer give NaN; the
    result has x's sign (that of -0 and -inf too) where y is an odd integer.
    """
    dtype = dtype_of(x)
    if dtype == "float64":
        return libm("pow", x, y)
    steps = Steps(SINGLE)
    base = steps.let("x", x.astype("float32"))
    exponent = steps.let("y", y.astype("float32"))
    result = steps.around(_power(steps, base, exponent))
    return result if dtype == "float32" else result.astype(dtype)


def _power(s: Steps, x: Expr, y: Expr) -> Expr:
    size = s.let("magnitude", _exp2(s, s.let("product", _log2(s, x) * _bounded(s, y))))
    zero = s.real(0)
    whole = opaque.equal(tirx.floor(y), y)
    undefined = tirx.And(tirx.And(x < zero, x > s.real(float("-inf"))), tirx.Not(whole))
    half = s.let("half", y * s.real(0.5))
    odd = tirx.And(whole, opaque.not_equal(tirx.floor(half), half))
    sign = tirx.Select(odd, s.bits(x) & s.whole(SINGLE.sign_mask), s.whole(0))
    signed = s.let("signed", s.from_bits(s.bits(size) | sign))
    result = tirx.Select(undefined, s.real(float("nan")), signed)
    one = tirx.Or(tirx.EQ(y, zero), tirx.EQ(x, s.real(1)))
    return tirx.Select(one, s.real(1), result)


def _bounded(s: Steps, y: Expr) -> Expr:
    """y in float64, its infinities made finite: log2(1) times them is to be 0."""
    below = s.let("below", s.at_most(y, _Y_LIMIT))
    return s.at_least(below, -_Y_LIMIT).astype("float64")


def _log2(s: Steps, x: Expr) -> Expr:
    """log2|x| in float64; -inf at 0."""
    size = s.let("size", tirx.abs(x))
    e, f = exponent_and_fraction(s, size)
    wide = s.let("wide", f.astype("float64"))
    finite = wide * horner(wide, _LOG2, double) + e.astype("float64")
    ends = tirx.Select(tirx.EQ(size, s.real(0)), double(float("-inf")), size.astype("float64"))
    inside = tirx.And(size > s.real(0), size < s.real(float("inf")))
    return tirx.Select(inside, finite, ends)


def _exp2(s: Steps, x: Expr) -> Expr:
    """2^x in float32 of a variable x in float64; rounded once, subnormals too."""
    limit, rounder = double(_EXPONENT_LIMIT), double(DOUBLE.rounder)
    capped = s.let("capped", tirx.Select(x > limit, limit, x))
    bounded = s.let("bounded", tirx.Select(capped < -limit, -limit, capped))
    rounded = s.let("rounded", bounded + rounder)
    r = s.let("r", bounded - (rounded - rounder))
    bias = tirx.const(DOUBLE.bias, "int64")
    exponent = tirx.shift_left(tirx.reinterpret("int64", rounded) + bias, tirx.const(52, "int64"))
    scale = tirx.reinterpret("float64", exponent)
    return (horner(r, _EXP2, double) * scale).astype("float32")
