"""float16 over all its values, and float64 against the wider type that the machine has."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import numpy as np
import pytest

from planish.ir.ops.activation import GELU_CUBIC, GELU_SLOPE
from tests.targets.vector_math_kernels import (
    EXACT,
    HOST,
    IN_FLOAT64,
    ULP,
    Loaded,
    functions,
    link,
    ulps,
)

#: Computed in float32 and rounded: the half of a unit, and what float32 was off.
HALF = 0.502
#: The bits of a float64's fraction, and more.
WIDE = np.finfo(np.longdouble).nmant >= 63


@pytest.fixture(scope="module", params=["float16", "float64"])
def kernels(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Loaded:
    folder = tmp_path_factory.mktemp("vec")
    return Loaded(link(functions(request.param), HOST, folder, "-lm", "-lc", "-lgcc"))


@cache
def _everywhere() -> np.ndarray:
    """Random bit patterns of float64, and the ranges in which functions are not trivial."""
    rng = np.random.default_rng(5)
    patterns = rng.integers(0, 1 << 64, 30_000, dtype=np.uint64).view(np.float64)
    dense = [rng.uniform(-size, size, 30_000) for size in (1, 6, 760)]
    special = [0.0, 1.0, 5e-324, 2.0**-1022, 709.78, 709.79, 710.4, 745.1, 745.2, np.inf, np.nan]
    return np.concatenate([patterns, *dense, special, np.negative(special)])


@pytest.mark.parametrize("kernels", ["float16"], indirect=True)
@pytest.mark.parametrize("name", EXACT)
def test_every_float16(name: str, kernels: Loaded) -> None:
    x = np.arange(1 << 16, dtype=np.uint16).view(np.float16)
    with np.errstate(all="ignore"):
        errors = ulps(kernels.call(name, x), EXACT[name](x.astype(np.float64)))
    worst = int(errors.argmax())
    assert errors[worst] <= HALF, f"{name}({x[worst]!r}) is {errors[worst]:.4f} ULP off"


@pytest.mark.parametrize("kernels", ["float16"], indirect=True)
def test_powers_of_float16(kernels: Loaded) -> None:
    patterns = np.random.default_rng(2).integers(0, 1 << 16, (2, 1 << 18), dtype=np.uint16)
    x, y = patterns.view(np.float16)
    with np.errstate(all="ignore"):
        errors = ulps(kernels.call("power", x, y), np.power(x.astype("f8"), y.astype("f8")))
    assert errors.max() <= HALF


@pytest.mark.skipif(not WIDE, reason="no type wider than float64")
@pytest.mark.parametrize("kernels", ["float64"], indirect=True)
@pytest.mark.parametrize("name", IN_FLOAT64)
def test_float64_keeps_to_the_bound(name: str, kernels: Loaded) -> None:
    x = _everywhere()
    with np.errstate(all="ignore"):
        errors = ulps(kernels.call(name, x), EXACT[name](x.astype(np.longdouble)))
    worst = int(errors.argmax())
    assert errors[worst] <= ULP[name], f"{name}({x[worst]!r}) is {errors[worst]:.3f} ULP off"


@pytest.mark.skipif(not WIDE, reason="no type wider than float64")
@pytest.mark.parametrize("kernels", ["float64"], indirect=True)
def test_the_tanh_form_loses_what_its_exponent_does(kernels: Loaded) -> None:
    x = _everywhere()
    with np.errstate(invalid="ignore"):  # signalling NaNs among the patterns
        wide = x.astype(np.longdouble)
    with np.errstate(all="ignore"):
        errors = ulps(kernels.call("gelu_tanh", x), EXACT["gelu_tanh"](wide))
        exponent = np.abs(2 * GELU_SLOPE * (x + GELU_CUBIC * x**3))
    allowed = np.where(exponent < 800, 4 + 2 * exponent, 1)  # -0 beyond, NaN at -inf
    excess = np.where(np.isnan(x), errors, errors - allowed)
    assert excess.max() <= 0, f"gelu_tanh({x[excess.argmax()]!r}) is off"


@pytest.mark.parametrize("kernels", ["float64"], indirect=True)
@pytest.mark.parametrize("name", sorted(set(EXACT) - {*IN_FLOAT64, "gelu_tanh"}))
def test_float64_by_libm(name: str, kernels: Loaded) -> None:
    x = np.random.default_rng(4).uniform(-3, 3, 4096)
    with np.errstate(invalid="ignore"):
        errors = ulps(kernels.call(name, x), EXACT[name](x).astype(np.longdouble))
    assert errors.max() <= 16  # the reference is in float64 too


@pytest.mark.parametrize("kernels", ["float64"], indirect=True)
def test_powers_of_float64(kernels: Loaded) -> None:
    x, y = np.random.default_rng(6).uniform(-3, 3, (2, 4096))
    x, y = np.abs(x), np.ascontiguousarray(y)
    assert ulps(kernels.call("power", x, y), np.power(x, y).astype(np.longdouble)).max() <= 2


def test_float64_without_libm(tmp_path: Path) -> None:
    own = {name: kernel for name, kernel in functions("float64").items() if name in IN_FLOAT64}
    assert link(own, HOST, tmp_path).exists()  # fails on an undefined symbol
