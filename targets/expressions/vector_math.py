"""Elementary functions as straight-line arithmetic that a vectorised loop keeps in registers.

A call of libm inside a loop costs the loop its vectors. So float32 is computed here without calls
and without branches; float16 and bfloat16 go through float32; float64 calls libm.

A result defines variables, and TVM wants each defined once: who reads it twice binds it first.

The ULP bounds in the docstrings hold against the exact result, with or without fused
multiply-add, in rounding to nearest and with subnormals on. They need arithmetic as written:
LLVM's fast-math flags (off unless a target asks for them) would cancel `_ROUNDER`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from tvm import tirx

from planish.targets.expressions.view import Expr, dtype_of

# The coefficients, lowest power first, were made in float64 with numpy: least squares on 4,000
# Chebyshev nodes (Lawson's iteration of the weights, which tends to the minimax error), rounded to
# float32 one by one from the lowest power, the others fitted again after each. The weight is the
# relative error of the final function. In units of 2^-24, the approximation errors are 0.23 (exp),
# 0.08 (log) and 0.07 (erf).

#: (e^r - 1 - r) / r^2 for |r| <= ln(2)/2, weighted for e^r - 1.
_EXPM1 = (0.49999997, 0.166665465, 0.0416674353, 0.00836626161, 0.00138706574)

#: (ln(1+f) - f + f^2/2) / f^3 for |f| <= 1/3.
_LOG1P = (
    0.333332151,
    -0.249998048,
    0.200104445,
    -0.16680181,
    0.140053391,
    -0.121883452,
    0.139867231,
    -0.128744751,
)

#: ln(1 - erf(t)) / t for 0 <= t <= 4: the first number and, lest its rounding be felt, the rest of
#: it with the higher powers. The weight is small where 1 - erf(t) is.
_LOG_ERFC_HEAD = -1.12837923
_LOG_ERFC = (
    5.41201537e-08,
    -0.636619389,
    -0.102777757,
    0.0191527866,
    0.00016090204,
    -0.00166752306,
    0.000633102027,
    -0.000117713971,
    9.26422217e-06,
)

_LOG2_E = 1.44269502
#: ln(2) in two parts; the first has 15 bits, so that its products with exponents are exact.
_LN2_HIGH, _LN2_LOW = 0.693145751953125, 1.42860677e-06

#: Added to a small float, this leaves the nearest integer in the low bits of the sum. Unlike
#: nearbyint and a conversion to int, it is no call on a CPU without a rounding instruction, and
#: is defined for NaN (LLVM's conversion is not).
_ROUNDER = 3 << 22
_EXPONENT_BIAS, _FRACTION_BITS = 127, 23
_FRACTION_MASK, _SIGN_MASK = 0x7FFFFF, -0x80000000
_TWO_THIRDS_BITS = 0x3F2AAAAB
_SMALLEST_NORMAL = 2.0**-126


def exp(x: Expr) -> Expr:
    """e^x; float32 within 1.1 ULP, subnormal results included."""
    return _by_type(x, _exp32, tirx.exp)


def log(x: Expr) -> Expr:
    """ln(x), -inf at ±0 and NaN below; float32 within 1 ULP, subnormal x included."""
    return _by_type(x, _log32, tirx.log)


def tanh(x: Expr) -> Expr:
    """tanh(x), ±0 and subnormals kept; float32 within 3 ULP."""
    return _by_type(x, _tanh32, _tanh64)


def sigmoid(x: Expr) -> Expr:
    """1 / (1 + e^-x); float32 within 3 ULP, subnormal results included."""
    return _by_type(x, _sigmoid32, _sigmoid64)


def erf(x: Expr) -> Expr:
    """erf(x), ±0 kept; float32 within 3 ULP."""
    return _by_type(x, _erf32, tirx.erf)


@dataclass(slots=True)
class _Steps:
    """Named intermediate values: TVM would compute an expression again for each of its readers."""

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


def _by_type(
    x: Expr, single: Callable[[_Steps, Expr], Expr], double: Callable[[Expr], Expr]
) -> Expr:
    dtype = dtype_of(x)
    if dtype == "float64":
        return double(x)
    steps = _Steps()
    wide = x if dtype == "float32" else x.astype("float32")
    # Bound before any select: a select of loads would become a branch (RewriteUnsafeSelect).
    result = steps.around(single(steps, steps.let("x", wide)))
    return result if dtype == "float32" else result.astype(dtype)


def _exp32(steps: _Steps, x: Expr) -> Expr:
    # Beyond these bounds the result is 0 or infinity already. NaN fails both comparisons.
    high = steps.let("high", _capped(x, 89.0))
    return _scaled_exp(steps, tirx.Select(high < _f32(-104), _f32(-104), high))


def _log32(steps: _Steps, x: Expr) -> Expr:
    # x = m * 2^e with 2/3 <= m < 4/3, from the bits; subnormals are made normal first.
    tiny = x < _f32(_SMALLEST_NORMAL)  # no variable: TVM's analyzer fails on one with bool lanes
    normal = tirx.Select(tiny, x * _f32(1 << _FRACTION_BITS), x)
    bits = steps.let("bits", tirx.reinterpret("int32", normal) - _i32(_TWO_THIRDS_BITS))
    shifted = tirx.shift_right(bits, _i32(_FRACTION_BITS)).astype("float32")
    e = steps.let("e", shifted - tirx.Select(tiny, _f32(_FRACTION_BITS), _f32(0)))
    m = _float((bits & _i32(_FRACTION_MASK)) + _i32(_TWO_THIRDS_BITS))
    f = steps.let("f", m - _f32(1))
    square = steps.let("square", f * f)
    tail = f * _polynomial(steps, f, _LOG1P) - _f32(0.5)
    correction = steps.let("correction", square * tail + e * _f32(_LN2_LOW))
    finite = e * _f32(_LN2_HIGH) + (f + correction)
    infinity = _f32(float("inf"))
    below = tirx.Select(tirx.EQ(x, _f32(0)), _f32(float("-inf")), _f32(float("nan")))
    # The garbage that 0, negatives, infinity and NaN made of the bits ends here.
    return tirx.Select(x > _f32(0), tirx.Select(x < infinity, finite, x), below)


def _tanh32(steps: _Steps, x: Expr) -> Expr:
    # tanh|x| = d / (d + 2) with d = e^(2|x|) - 1: no cancellation, so that one form serves all x.
    double = tirx.abs(x) * _f32(2)
    d = steps.let("d", _expm1(steps, _capped(steps.let("double", double), 20.0)))
    return _with_sign_of(x, d / (d + _f32(2)))


def _tanh64(x: Expr) -> Expr:
    # TVM's own lowering, (1 - e^-2x) / (1 + e^-2x), has lost all digits by x = 1e-16.
    return tirx.call_pure_extern("float64", "tanh", x)


def _sigmoid32(steps: _Steps, x: Expr) -> Expr:
    # e^-x would overflow where the result is subnormal still; e^-|x| does not.
    size = steps.let("size", tirx.abs(x))
    small = steps.let("small", _scaled_exp(steps, _f32(0) - _capped(size, 104.0)))
    return tirx.Select(x < _f32(0), small, _f32(1)) / (small + _f32(1))


def _sigmoid64(x: Expr) -> Expr:
    one = tirx.const(1, "float64")
    return one / (one + tirx.exp(-x))


def _erf32(steps: _Steps, x: Expr) -> Expr:
    # erf(t) = 1 - e^L(t), L(t) = ln(1 - erf(t)). L is smooth and L(t)/t is not 0, so that one
    # polynomial is enough: as a relative error, that of L is damped by L e^L / (1 - e^L) <= 1.
    t = steps.let("t", _capped(steps.let("size", tirx.abs(x)), 4.0))
    tail = steps.let("tail", t * _polynomial(steps, t, _LOG_ERFC))
    exponent = steps.let("exponent", t * _f32(_LOG_ERFC_HEAD) + tail)
    return _with_sign_of(x, _expm1(steps, exponent))


def _scaled_exp(steps: _Steps, x: Expr) -> Expr:
    """e^x for -104 <= x <= 89, in two steps of scale: 2^n for n = -150 or 128 is no float32."""
    n, r = _reduced(steps, x, 2 * _EXPONENT_BIAS)
    first = steps.let("first", tirx.shift_right(n, _i32(1)))
    scaled = (_expm1_reduced(steps, r) + _f32(1)) * _power_of_two(first)
    return scaled * _power_of_two(n - first)


def _expm1(steps: _Steps, x: Expr) -> Expr:
    """e^x - 1 for |x| < 80, with a small relative error also around 0."""
    n, r = _reduced(steps, x, _EXPONENT_BIAS)
    scale = steps.let("scale", _power_of_two(n))
    return _expm1_reduced(steps, r) * scale + (scale - _f32(1))


def _reduced(steps: _Steps, x: Expr, bias: int) -> tuple[Expr, Expr]:
    """n + bias in the low 22 bits of an int32, and r, where x = n ln(2) + r, |r| <= ln(2)/2."""
    rounder = _f32(_ROUNDER + bias)
    rounded = steps.let("rounded", x * _f32(_LOG2_E) + rounder)
    n = steps.let("n", rounded - rounder)
    r = (x - n * _f32(_LN2_HIGH)) - n * _f32(_LN2_LOW)
    return steps.let("bits", tirx.reinterpret("int32", rounded)), steps.let("r", r)


def _expm1_reduced(steps: _Steps, r: Expr) -> Expr:
    """e^r - 1 for |r| <= ln(2)/2."""
    return r + (r * r) * _polynomial(steps, r, _EXPM1)


def _power_of_two(biased: Expr) -> Expr:
    """2^n from n + 127 in the low bits; the shift drops the bits of `_ROUNDER`."""
    return _float(tirx.shift_left(biased, _i32(_FRACTION_BITS)))


def _polynomial(steps: _Steps, x: Expr, coefficients: Sequence[float]) -> Expr:
    """Horner's form: a chain, but loops run several vectors at once, and it is the most exact."""
    result = _f32(coefficients[-1])
    for coefficient in reversed(coefficients[:-1]):
        result = result * x + _f32(coefficient)
    return steps.let("polynomial", result)


def _capped(x: Expr, bound: float) -> Expr:
    """The smaller one of x and bound; NaN stays."""
    return tirx.Select(x > _f32(bound), _f32(bound), x)


def _with_sign_of(sign: Expr, size: Expr) -> Expr:
    bits = tirx.reinterpret("int32", size) & _i32(~_SIGN_MASK)
    return _float(bits | (tirx.reinterpret("int32", sign) & _i32(_SIGN_MASK)))


def _float(bits: Expr) -> Expr:
    return tirx.reinterpret("float32", bits)


def _f32(value: float) -> Expr:
    return tirx.const(value, "float32")


def _i32(value: int) -> Expr:
    return tirx.const(value, "int32")
