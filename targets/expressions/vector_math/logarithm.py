"""Functions made of ln(x), for float32 and float64 by one algorithm."""

from __future__ import annotations

from tvm import tirx

from planish.targets.expressions.vector_math.arithmetic import Steps, in_formats
from planish.targets.expressions.vector_math.exponential import LN2, scaled_exp
from planish.targets.expressions.view import Expr

#: (ln(1+f) - f + f^2/2) / f^3 for |f| <= 1/3.
_LOG1P = {
    "float32": (
        *(0.333332151, -0.249998048, 0.200104445, -0.16680181),
        *(0.140053391, -0.121883452, 0.139867231, -0.128744751),
    ),
    "float64": (
        *(0.3333333333333333, -0.24999999999999997, 0.20000000000007292, -0.16666666666673666),
        *(0.1428571428355438, -0.12499999997926427, 0.11111111358713932, -0.10000000237702213),
        *(0.09090894718066429, -0.08333319535532793, 0.07692785032479323, -0.07143315368653255),
        *(0.06657072104827297, -0.06240790135220156, 0.06000536404796987, -0.056689908564085956),
        *(0.04400369243064005, -0.041719942790984996, 0.08082022805989439, -0.07730769182002217),
    ),
}
_TWO_THIRDS = {"float32": 0x3F2AAAAB, "float64": 0x3FE5555555555555}
#: From this x on, x^2 + 1 is x^2 even in a square root, and is finite.
_LARGE = {"float32": 2.0**30, "float64": 2.0**60}
_UNDERFLOWN = {"float32": 104.0, "float64": 746.0}


def log(x: Expr) -> Expr:
    """ln(x), -inf at ±0 and NaN below; within 1 ULP, subnormal x included."""

    def build(s: Steps, v: Expr) -> Expr:
        e, f = exponent_and_fraction(s, v)
        return _with_ends(s, v, v, _log_of(s, e, f))

    return in_formats(x, build)


def log1p(x: Expr) -> Expr:
    """ln(1 + x), ±0 and subnormals kept, NaN below -1; within 2 ULP."""

    def build(s: Steps, v: Expr) -> Expr:
        return s.with_sign_of(v, _log1p(s, v))

    return in_formats(x, build)


def asinh(x: Expr) -> Expr:
    """ln(x + sqrt(x^2 + 1)), ±0 and subnormals kept; within 3 ULP."""

    def build(s: Steps, v: Expr) -> Expr:
        size = s.let("size", tirx.abs(v))
        large = size > s.real(_LARGE[s.format.dtype])
        bounded = s.let("bounded", s.at_most(size, _LARGE[s.format.dtype]))
        square = s.let("square", bounded * bounded)
        rest = square / (tirx.sqrt(square + s.real(1)) + s.real(1))
        y = s.let("y", tirx.Select(large, size, size + rest))
        doubled = tirx.Select(large, s.real(sum(LN2[s.format.dtype])), s.real(0))
        return s.with_sign_of(v, _log1p(s, y) + doubled)

    return in_formats(x, build)


def acosh(x: Expr) -> Expr:
    """ln(x + sqrt(x^2 - 1)), NaN below 1; within 3 ULP."""

    def build(s: Steps, v: Expr) -> Expr:
        t = s.let("t", v - s.real(1))
        large = v > s.real(_LARGE[s.format.dtype])
        bounded = s.let("bounded", s.at_most(t, _LARGE[s.format.dtype]))
        root = tirx.sqrt(bounded * (bounded + s.real(2)))
        y = s.let("y", tirx.Select(large, t, t + root))
        doubled = tirx.Select(large, s.real(sum(LN2[s.format.dtype])), s.real(0))
        result = s.let("result", _log1p(s, y) + doubled)
        return tirx.Select(v < s.real(1), s.real(float("nan")), result)

    return in_formats(x, build)


def atanh(x: Expr) -> Expr:
    """ln((1 + x) / (1 - x)) / 2, ±0 and subnormals kept, NaN beyond ±1; within 3 ULP."""

    def build(s: Steps, v: Expr) -> Expr:
        size = s.let("size", tirx.abs(v))
        y = s.let("y", (size + size) / (s.real(1) - size))
        return s.with_sign_of(v, _log1p(s, y) * s.real(0.5))

    return in_formats(x, build)


def softplus(x: Expr) -> Expr:
    """ln(1 + e^x) = max(x, 0) + ln(1 + e^-|x|); within 3 ULP, subnormal results included."""

    def build(s: Steps, v: Expr) -> Expr:
        size = s.let("size", s.at_most(tirx.abs(v), _UNDERFLOWN[s.format.dtype]))
        small = s.let("small", scaled_exp(s, s.let("negative", s.real(0) - size)).value())
        u = s.let("u", small + s.real(1))
        return s.at_least(v, 0.0) + _log1p_finite(s, small, u)

    return in_formats(x, build)


def exponent_and_fraction(s: Steps, x: Expr) -> tuple[Expr, Expr]:
    """Floats e and f with x = (1 + f) * 2^e, |f| <= 1/3, for a variable x.

    Any finite numbers for what is not positive and finite.
    """
    # Subnormals are made normal first. No variable: TVM's analyzer fails on one with bool lanes.
    bits = s.format.fraction_bits
    tiny = x < s.real(2.0 ** (1 - s.format.bias))
    normal = tirx.Select(tiny, x * s.real(1 << bits), x)
    biased, f = _integer_exponent(s, normal)
    e = s.to_real(biased) - tirx.Select(tiny, s.real(bits), s.real(0))
    return s.let("e", e), f


def _integer_exponent(s: Steps, x: Expr) -> tuple[Expr, Expr]:
    """The integer e, and f, of a normal x; from the bits."""
    bits, base = s.format.fraction_bits, _TWO_THIRDS[s.format.dtype]
    shifted = s.let("shifted", s.bits(x) - s.whole(base))
    m = s.from_bits((shifted & s.whole((1 << bits) - 1)) + s.whole(base))
    e = s.let("exponent", tirx.shift_right(shifted, s.whole(bits)))
    return e, s.let("f", m - s.real(1))


def _log_of(s: Steps, e: Expr, f: Expr) -> Expr:
    """e ln(2) + ln(1 + f)."""
    high, low = LN2[s.format.dtype]
    square = s.let("square", f * f)
    tail = f * s.polynomial(f, _LOG1P[s.format.dtype]) - s.real(0.5)
    correction = s.let("correction", square * tail + e * s.real(low))
    return e * s.real(high) + (f + correction)


def _with_ends(s: Steps, x: Expr, u: Expr, finite: Expr) -> Expr:
    """ln(u), given as `finite` for positive finite u; x is what infinity and NaN are taken from."""
    infinity = s.real(float("inf"))
    below = tirx.Select(tirx.EQ(u, s.real(0)), s.real(float("-inf")), s.real(float("nan")))
    # The garbage that 0, negatives, infinity and NaN made of the bits ends here.
    return tirx.Select(u > s.real(0), tirx.Select(u < infinity, finite, x), below)


def _log1p(s: Steps, x: Expr) -> Expr:
    """ln(1 + x) for a variable x; the sign of zero is lost."""
    u = s.let("u", x + s.real(1))
    return _with_ends(s, x, u, _log1p_finite(s, x, u))


def _log1p_finite(s: Steps, x: Expr, u: Expr) -> Expr:
    """ln(1 + x), for u = 1 + x as rounded, finite and positive."""
    # What the rounding took (Knuth's two-sum) is put back into f, on the scale of which it counts.
    taken = s.let("taken", u - s.real(1))
    lost = (s.real(1) - (u - taken)) + (x - taken)
    e, f = _integer_exponent(s, u)
    # With u beyond 2^64, `lost` is 1 at most: scaled by any small number, it is nothing.
    scale = s.power_of_two(s.whole(s.format.bias) - tirx.min(e, s.whole(64)))
    return _log_of(s, s.let("e", s.to_real(e)), s.let("whole_f", f + lost * scale))
