"""Trigonometric functions and their inverses, for float32; float64 calls libm."""

from __future__ import annotations

import math

from tvm import tirx

from planish.targets.expressions.vector_math.arithmetic import Steps, double, in_single_or_libm
from planish.targets.expressions.view import Expr

#: (sin(r) - r) / r^3 and (cos(r) - 1 + r^2 / 2) / r^4 in r^2, for |r| <= pi/4.
_SIN = (-0.16666655, 0.008332187, -0.00019517895)
_COS = (0.041666646, -0.001388731, 2.4432331e-05)
#: (atan(t) - t) / t^3 in t^2, for 0 <= t <= 1.
_ATAN = (
    *(-0.33333328, 0.19999716, -0.14280343, 0.11061233, -0.08821462),
    *(0.06763649, -0.044983257, 0.022777617, -0.007425363, 0.0011345221),
)
#: (asin(t) - t) / t^3 in t^2, for 0 <= t <= 1/2.
_ASIN = (0.16666752, 0.0749531, 0.04546902, 0.024185503, 0.042157013)

#: pi in two floats.
_PI_HIGH, _PI_LOW = 3.1415927410125732, -8.742277657347586e-08

#: 2/pi in three parts, the first two of 29 bits, whose products with a float32 are exact in
#: float64. One row of parts for each range of |x|, which begins at the number before it: bits of
#: 2/pi whose products are multiples of 4, that is whole turns, are left out there.
_TWO_OVER_PI = tuple(
    (begin, tuple(map(float.fromhex, parts)))
    for begin, parts in (
        (0.0, ("0x1.45f306dp-1", "0x1.9391054p-30", "0x1.4fe13abe8fa9ap-59")),
        (2.0**53, ("0x1.c9c882ap-29", "0x1.4fe13aap-59", "0x1.e8fa9a6ee06dbp-87")),
        (2.0**78, ("0x1.4a7f09dp-54", "0x1.7d1f534p-84", "0x1.bb81b6c52b328p-113")),
        (2.0**103, ("0x1.abe8fa9p-79", "0x1.4ddc0dbp-108", "0x1.8a5664f10e41p-138")),
    )
)
#: Added to a float64, they leave multiples of 4 and of 1.
_FOURS, _ONES = 1.5 * 2.0**54, 1.5 * 2.0**52


def sin(x: Expr) -> Expr:
    """sin(x), ±0 and subnormals kept, NaN at infinities; float32 within 2 ULP for every x."""
    return in_single_or_libm(x, _sin, "sin")


def cos(x: Expr) -> Expr:
    """cos(x), NaN at infinities; float32 within 2 ULP for every x."""
    return in_single_or_libm(x, _cos, "cos")


def tan(x: Expr) -> Expr:
    """tan(x), ±0 and subnormals kept, NaN at infinities; float32 within 5 ULP for every x."""
    return in_single_or_libm(x, _tan, "tan")


def asin(x: Expr) -> Expr:
    """asin(x), ±0 and subnormals kept, NaN beyond ±1; float32 within 3 ULP."""
    return in_single_or_libm(x, _asin, "asin")


def acos(x: Expr) -> Expr:
    """acos(x), NaN beyond ±1; float32 within 2 ULP."""
    return in_single_or_libm(x, _acos, "acos")


def atan(x: Expr) -> Expr:
    """atan(x), ±0 and subnormals kept; float32 within 2 ULP."""
    return in_single_or_libm(x, _atan, "atan")


def _sin(s: Steps, x: Expr) -> Expr:
    quadrant, sine, cosine = _in_quadrant(s, x)
    value = tirx.Select(_odd(s, quadrant), cosine, sine)
    return _negated(s, value, _sign(s, x) ^ _sign_of_two(s, quadrant))


def _cos(s: Steps, x: Expr) -> Expr:
    quadrant, sine, cosine = _in_quadrant(s, x)
    value = tirx.Select(_odd(s, quadrant), sine, cosine)
    return _negated(s, value, _sign_of_two(s, quadrant + s.whole(1)))


def _tan(s: Steps, x: Expr) -> Expr:
    quadrant, sine, cosine = _in_quadrant(s, x)
    odd = _odd(s, quadrant)
    quotient = tirx.Select(odd, cosine, sine) / tirx.Select(odd, sine, cosine)
    return _negated(s, quotient, _sign(s, x) ^ _sign_of_two(s, quadrant + quadrant))


def _in_quadrant(s: Steps, x: Expr) -> tuple[Expr, Expr, Expr]:
    """q, sin(r), cos(r) with |x| = q pi/2 + r, |r| <= pi/4 (q modulo a power of two)."""
    quadrant, r = _reduced(s, x)
    square = s.let("square", r * r)
    sine = s.let("sine", r + r * square * s.polynomial(square, _SIN))
    tail = square * square * s.polynomial(square, _COS)
    cosine = s.let("cosine", s.real(1) - square * s.real(0.5) + tail)
    return quadrant, sine, cosine


def _reduced(s: Steps, x: Expr) -> tuple[Expr, Expr]:
    """q as an integer (modulo 2^31), and r, of `_in_quadrant`.

    M. Payne and R. Hanek, "Radian reduction for trigonometric functions" (1983), without integers:
    the products with the first two parts are exact, and so are the sums until almost nothing is
    left, which is 2^-30 at least.
    """
    size = s.let("size", tirx.abs(x))
    wide = s.let("wide", size.astype("float64"))
    first, second, third = (s.let("turns", wide * _part(s, size, k)) for k in range(3))
    fours = s.let("fours", first + double(_FOURS))
    first = s.let("first", first - (fours - double(_FOURS)))
    ones = s.let("ones", first + second + double(_ONES))
    turns = ((first - (ones - double(_ONES))) + second) + third
    quadrant = s.let("quadrant", tirx.reinterpret("int64", ones).astype("int32"))
    return quadrant, s.let("r", (turns * double(math.pi / 2)).astype("float32"))


def _part(s: Steps, size: Expr, index: int) -> Expr:
    result = double(_TWO_OVER_PI[0][1][index])
    for begin, parts in _TWO_OVER_PI[1:]:
        result = tirx.Select(size >= s.real(begin), double(parts[index]), result)
    return result


def _odd(s: Steps, quadrant: Expr) -> Expr:
    return tirx.NE(quadrant & s.whole(1), s.whole(0))


def _sign(s: Steps, x: Expr) -> Expr:
    return s.bits(x) & s.whole(s.format.sign_mask)


def _sign_of_two(s: Steps, n: Expr) -> Expr:
    """The sign bit where n has the bit 2."""
    return tirx.shift_left(n & s.whole(2), s.whole(30))


def _negated(s: Steps, x: Expr, sign: Expr) -> Expr:
    """-x where `sign` is the sign bit, x where it is 0."""
    return s.from_bits(s.bits(x) ^ sign)


def _asin(s: Steps, x: Expr) -> Expr:
    large, part = _arc(s, x)
    # pi/2 = 2 (pi/4): asin(t) = pi/2 - 2 asin(sqrt((1 - t) / 2)).
    from_right = s.real(_PI_HIGH / 2) - (part * s.real(2) - s.real(_PI_LOW / 2))
    return s.with_sign_of(x, tirx.Select(large, from_right, part))


def _acos(s: Steps, x: Expr) -> Expr:
    large, part = _arc(s, x)
    twice = s.let("twice", part * s.real(2))
    from_left = s.real(_PI_HIGH) - (twice - s.real(_PI_LOW))
    near_ends = tirx.Select(x < s.real(0), from_left, twice)
    inside = s.real(_PI_HIGH / 2) - (s.with_sign_of(x, part) - s.real(_PI_LOW / 2))
    return tirx.Select(large, near_ends, inside)


def _arc(s: Steps, x: Expr) -> tuple[Expr, Expr]:
    """Whether |x| is above 1/2, and asin of |x|, or there of sqrt((1 - |x|) / 2)."""
    size = s.let("size", tirx.abs(x))
    large = size > s.real(0.5)
    square = tirx.Select(large, (s.real(1) - size) * s.real(0.5), size * size)
    square = s.let("square", square)
    t = s.let("t", tirx.Select(large, tirx.sqrt(square), size))
    return large, s.let("part", t + t * square * s.polynomial(square, _ASIN))


def _atan(s: Steps, x: Expr) -> Expr:
    size = s.let("size", tirx.abs(x))
    large = size > s.real(1)
    divisor = tirx.Select(large, size, s.real(1))
    t = s.let("t", tirx.Select(large, s.real(1), size) / divisor)
    square = s.let("square", t * t)
    part = s.let("part", t + t * square * s.polynomial(square, _ATAN))
    from_right = s.real(_PI_HIGH / 2) - (part - s.real(_PI_LOW / 2))
    return s.with_sign_of(x, tirx.Select(large, from_right, part))
