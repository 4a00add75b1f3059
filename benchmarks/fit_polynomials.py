"""Prints coefficients of planish.targets.expressions.vector_math (needs mpmath).

A fit makes the largest weighted error of `sum(c[k] * t(x)**k)` against `function(x)` small; the
weight is that of the final function's relative error. For float32, weighted least squares on
Chebyshev nodes are repeated with Lawson's iteration of the weights, which tends to the minimax
error; coefficients are then rounded one by one from the lowest power, and the others fitted again
after each, so that they make up for it. For float64, where least squares in float64 are not exact
enough, mpmath interpolates in Chebyshev nodes, which is nearly minimax.

    python benchmarks/fit_polynomials.py
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import mpmath
import numpy as np

Function = Callable[[mpmath.mpf], mpmath.mpf]
LAWSON_ROUNDS = 60


@dataclass(frozen=True, slots=True)
class Fit:
    """`function` on an interval, with the weight of its error, in powers of `variable`."""

    function: Function
    interval: tuple[float, float]
    terms: int
    weight: Function
    variable: Function = lambda x: x
    nodes: int = 2000
    rounded: bool = True
    """Coefficients are float32, not float64."""


def mills(a: mpmath.mpf) -> mpmath.mpf:
    """The tail of the normal distribution above a, times e^(a^2/2)."""
    return mpmath.erfc(a / mpmath.sqrt(2)) / 2 * mpmath.exp(a * a / 2)


def square(x: mpmath.mpf) -> mpmath.mpf:
    return x * x


# Intervals begin above 0 where the function is 0/0 there.
FITS = {
    "exp_nonpositive": Fit(
        lambda r: mpmath.expm1(r) / r if r else mpmath.mpf(1),
        (-math.log(2) / 2 - 1e-4, math.log(2) / 2 + 1e-4),
        5,
        lambda r: abs(r) * mpmath.exp(-r),
    ),
    "sin": Fit(
        lambda r: (mpmath.sin(r) - r) / r**3,
        (1e-3, math.pi / 4 + 1e-3),
        3,
        lambda r: r**3 / mpmath.sin(r),
        square,
    ),
    "cos": Fit(
        lambda r: (mpmath.cos(r) - 1 + r * r / 2) / r**4,
        (1e-3, math.pi / 4 + 1e-3),
        3,
        lambda r: r**4 / mpmath.cos(r),
        square,
    ),
    "atan": Fit(
        lambda t: (mpmath.atan(t) - t) / t**3,
        (1e-3, 1.0),
        10,
        lambda t: t**3 / mpmath.atan(t),
        square,
    ),
    "asin": Fit(
        lambda t: (mpmath.asin(t) - t) / t**3,
        (1e-3, 0.5),
        5,
        lambda t: t**3 / mpmath.asin(t),
        square,
    ),
    "mills": Fit(
        lambda a: mills(a) * (a + 2.5),
        (0.0, 14.5),
        10,
        lambda a: 1 / (mills(a) * (a + 2.5)),
        lambda a: a / (a + 2.5),
        nodes=600,
    ),
    "log2": Fit(
        lambda f: mpmath.log(1 + f, 2) / f,
        (-1 / 3 - 1e-9, 1 / 3 + 1e-9),
        13,
        lambda f: f / mpmath.log(1 + f, 2),
        rounded=False,
    ),
    "exp2": Fit(
        lambda r: mpmath.mpf(2) ** r, (-0.5, 0.5), 7, lambda r: mpmath.mpf(2) ** -r, rounded=False
    ),
}

#: Function, interval, number of terms.
INTERPOLATED: dict[str, tuple[Function, tuple[float, float], int]] = {
    "expm1 (float64)": (
        lambda r: (mpmath.expm1(r) - r) / r**2,
        (-math.log(2) / 2 - 1e-12, math.log(2) / 2),
        11,
    ),
    "log1p (float64)": (
        lambda f: (mpmath.log1p(f) - f + f * f / 2) / f**3,
        (-1 / 3 - 1e-12, 1 / 3),
        20,
    ),
}


def fitted(fit: Fit) -> tuple[list[float], float]:
    """The coefficients and the largest weighted error."""
    low, high = fit.interval
    angles = np.pi * (np.arange(fit.nodes) + 0.5) / fit.nodes
    nodes = [mpmath.mpf(float(x)) for x in (low + high + (high - low) * np.cos(angles)) / 2]
    target, weight, variable = (
        np.array([float(f(x)) for x in nodes]) for f in (fit.function, fit.weight, fit.variable)
    )
    powers = variable[:, None] ** np.arange(fit.terms)
    if not fit.rounded:
        coefficients = list(_lawson(powers, target, weight))
    else:
        coefficients, rest = [], target
        for k in range(fit.terms):
            coefficients.append(float(np.float32(_lawson(powers[:, k:], rest, weight)[0])))
            rest = rest - coefficients[-1] * powers[:, k]
    error = np.abs((powers @ np.array(coefficients) - target) * weight).max()
    return coefficients, float(error)


def _lawson(matrix: np.ndarray, target: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """The coefficients with the smallest of the largest errors met."""
    scale = np.abs(matrix).max(axis=0)
    importance = np.ones(len(target))
    least, best = math.inf, np.zeros(matrix.shape[1])
    for _ in range(LAWSON_ROUNDS):
        row = np.sqrt(importance) * weight
        found = np.linalg.lstsq(matrix / scale * row[:, None], target * row, rcond=None)[0] / scale
        error = np.abs((matrix @ found - target) * weight)
        if error.max() < least:
            least, best = error.max(), found
        importance *= error / error.max() + 1e-3
        importance /= importance.max()
    return best


def main() -> None:
    mpmath.mp.prec = 200
    for name, fit in FITS.items():
        coefficients, error = fitted(fit)
        kind = np.float32 if fit.rounded else np.float64
        print(f"{name}: error {error * 2**24:.3f} of 2^-24")
        print("   ", ", ".join(str(kind(c)) for c in coefficients))
    for name, (function, interval, terms) in INTERPOLATED.items():
        highest_first = mpmath.chebyfit(function, interval, terms)
        print(f"{name}:\n   ", ", ".join(repr(float(c)) for c in reversed(highest_first)))


if __name__ == "__main__":
    main()
