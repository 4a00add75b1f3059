"""x^y: IEEE 754's table of special cases, and the bound over bases and exponents of all sizes."""

from __future__ import annotations

import math
from functools import cache

import numpy as np
import pytest

from planish.ir.target import Target
from tests.targets.vector_math_kernels import LEVELS, ULP, Emulated, Loaded, runner, ulps

INF, NAN = math.inf, math.nan
MAX, TINY = float(np.finfo(np.float32).max), 2.0**-149
#: 2^24 - 1 is the largest odd integer; from 2^24 on, all are even.
SPECIAL = (
    *(0.0, 1.0, INF, NAN, 2.0, 3.0, 0.5, 1.5, 1 / 3, 2.0**23 + 1, 2.0**24 - 1, 2.0**24),
    *(2.0**23 - 0.5, TINY, 2.0**-126, MAX, 1e9, 1e30, 1 + 2.0**-23, 1 - 2.0**-24),
)
#: Base, exponent, result.
TABLE = [
    *((x, y, 1.0) for x in (0.0, -0.0, INF, -INF, NAN, 1.0, -1.0, -2.5) for y in (0.0, -0.0)),
    *((1.0, y, 1.0) for y in (INF, -INF, NAN, 3.5, MAX)),
    *((-1.0, y, 1.0) for y in (INF, -INF, 2.0, 2.0**24)),
    *((-1.0, y, -1.0) for y in (3.0, -7.0, 2.0**24 - 1)),
    *((0.0, 3.0, 0.0), (-0.0, 3.0, -0.0), (-0.0, 2.0, 0.0), (-0.0, 2.5, 0.0)),
    *((0.0, -3.0, INF), (-0.0, -3.0, -INF), (-0.0, -2.0, INF), (-0.0, -2.5, INF)),
    *((0.0, INF, 0.0), (0.0, -INF, INF), (-0.0, INF, 0.0), (-0.0, -INF, INF)),
    *((INF, 0.5, INF), (INF, -0.5, 0.0), (-INF, 3.0, -INF), (-INF, 2.0, INF)),
    *((-INF, 2.5, INF), (-INF, -3.0, -0.0), (-INF, -2.0, 0.0), (-INF, -2.5, 0.0)),
    *((0.5, INF, 0.0), (-0.5, INF, 0.0), (0.5, -INF, INF), (2.0, INF, INF), (-2.0, -INF, 0.0)),
    *((-2.0, 0.5, NAN), (-MAX, -1.5, NAN), (-TINY, 1 / 3, NAN), (NAN, 1.0, NAN), (2.0, NAN, NAN)),
    *((-2.0, 3.0, -8.0), (-2.0, -2.0, 0.25), (2.0, 127.0, 2.0**127), (2.0, 128.0, INF)),
    *((2.0, -149.0, TINY), (2.0, -151.0, 0.0), (-2.0, -149.0, -TINY), (-10.0, 39.0, -INF)),
]


@cache
def pairs() -> tuple[np.ndarray, np.ndarray]:
    """The special numbers crossed, any bases whose powers are floats, and small ones."""
    rng, count = np.random.default_rng(11), 100_000
    special = np.array([*SPECIAL, *(-x for x in SPECIAL)])
    cross = [axis.ravel() for axis in np.meshgrid(special, special)]
    bases = rng.integers(1, 0x7F800000, count, dtype=np.uint32).view(np.float32)
    exponents = rng.uniform(-155, 155, count) / np.log2(np.where(bases == 1, 2, bases))
    near_one, large = np.exp(rng.uniform(-1, 1, count)), rng.uniform(-100, 100, count)
    negative, whole = -rng.uniform(0, 50, count), rng.integers(-20, 20, count)
    x = np.concatenate([cross[0], bases, near_one, negative]).astype(np.float32)
    y = np.concatenate([cross[1], exponents, large, whole]).astype(np.float32)
    return x, y


@pytest.fixture(scope="module", params=LEVELS, ids=lambda target: target.name)
def kernels(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Loaded | Emulated:
    target: Target = request.param
    return runner(target, tmp_path_factory.mktemp("vec"))


def test_ieee_special_cases(kernels: Loaded | Emulated) -> None:
    x, y, expected = (np.ascontiguousarray(c) for c in np.array(TABLE, np.float32).T)
    actual = kernels.call("power", x, y)
    signed = ~np.isnan(expected)
    wrong = (actual != expected) & signed | (signed == np.isnan(actual))
    wrong |= signed & (np.signbit(actual) != np.signbit(expected))
    found = [f"{x[i]}^{y[i]} = {actual[i]}, not {expected[i]}" for i in np.flatnonzero(wrong)]
    assert not found, "\n".join(found)


def test_the_stated_bound_holds(kernels: Loaded | Emulated) -> None:
    x, y = pairs()
    with np.errstate(all="ignore"):
        truth = np.power(x.astype(np.float64), y.astype(np.float64))
    actual = kernels.call("power", x, y)
    errors = ulps(actual, truth)
    worst = int(errors.argmax())
    assert errors[worst] <= ULP["power"], f"{x[worst]!r}^{y[worst]!r}: {errors[worst]:.3f} ULP"
    compared = ~np.isnan(truth)
    np.testing.assert_array_equal(np.signbit(actual[compared]), np.signbit(truth[compared]))
