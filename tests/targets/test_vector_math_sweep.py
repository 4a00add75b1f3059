"""Every float32 through every function of one argument: minutes for each function."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator

import numpy as np
import pytest

from planish.ir.target import Target
from tests.targets.vector_math_kernels import (
    EXACT,
    LEVELS,
    ULP,
    Emulated,
    Loaded,
    nonpositive_bound,
    runner,
    ulps,
)

CHUNK = 1 << 22
#: Without and with fused multiply-add; wider vectors compute the same.
ARITHMETICS = [target for target in LEVELS if target.name in ("x86-64-v2", "x86-64-v3")]
#: Below 2^-126.5, exp_nonpositive is 0.
_FLUSHED = np.float64(-126.5 * math.log(2))


@pytest.fixture(scope="module", params=ARITHMETICS, ids=lambda target: target.name)
def kernels(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Loaded | Emulated:
    target: Target = request.param
    return runner(target, tmp_path_factory.mktemp("vec"))


def _patterns(begin: int, end: int) -> Iterator[np.ndarray]:
    """The float32 with those bits, in chunks."""
    for start in range(begin, end, CHUNK):
        bits = np.arange(start, min(start + CHUNK, end), dtype=np.uint64)
        yield bits.astype(np.uint32).view(np.float32)


@pytest.mark.slow
@pytest.mark.parametrize("name", EXACT)
def test_every_float32(name: str, kernels: Loaded | Emulated) -> None:
    worst, where = 0.0, 0.0
    for x in _patterns(0, 1 << 32):
        with np.errstate(all="ignore"):
            errors = ulps(kernels.call(name, x), EXACT[name](x.astype(np.float64)))
        at = int(errors.argmax())
        if errors[at] > worst:
            worst, where = float(errors[at]), float(x[at])
    print(f"{name}: {worst:.3f} ULP at {where!r}")
    assert worst <= ULP[name], f"{name}({where!r}) is {worst:.3f} ULP off"


@pytest.mark.slow
def test_exponential_of_every_difference_from_a_maximum(
    kernels: Loaded | Emulated, request: pytest.FixtureRequest
) -> None:
    """The bound where e^x is no less than 2^-126.5, 0 below; NaN, and nothing else, is NaN."""
    target: Target = request.node.callspec.params["kernels"]
    worst, where, nearest, at = 0.0, 0.0, 0.0, 0.0
    for x in itertools.chain([np.zeros(1, np.float32)], _patterns(1 << 31, 1 << 32)):
        y = kernels.call("exp_nonpositive", x)
        np.testing.assert_array_equal(np.isnan(y), np.isnan(x))
        np.testing.assert_array_equal(y[x < _FLUSHED], 0)
        kept = x > _FLUSHED
        if not kept.any():
            continue
        wide = x[kept].astype(np.float64)
        errors = ulps(y[kept], np.exp(wide))
        share = errors / nonpositive_bound(wide, target)
        most, closest = int(errors.argmax()), int(share.argmax())
        if errors[most] > worst:
            worst, where = float(errors[most]), float(wide[most])
        if share[closest] > nearest:
            nearest, at = float(share[closest]), float(wide[closest])
    print(f"{worst:.3f} ULP at {where!r}; {nearest:.3f} of the bound at {at!r}")
    assert nearest <= 1, f"e^{at!r} is {nearest:.3f} times as far off as stated"
