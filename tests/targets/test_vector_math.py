"""The elementary functions against float64, over the whole of float32, for every kind of target."""

from __future__ import annotations

import math
import re
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from tvm import tirx

from planish.ir.target import Target
from planish.targets.expressions import vector_math
from tests.targets.vector_math_kernels import (
    EXACT,
    HOST,
    IN_FLOAT64,
    LEVELS,
    ULP,
    Emulated,
    Loaded,
    link,
    mapped,
    nonpositive_bound,
    runner,
    ulps,
)

DOCUMENT = Path(__file__).parents[2] / "docs" / "vector-math.md"
TINY, MAX = 2.0**-149, float(np.finfo(np.float32).max)
INF, NAN = math.inf, math.nan
#: Where results end, saturate or become subnormal, and where a reduction has a border.
EDGES = (
    *(0.0, 1.0, TINY, 2.0**-126, 2.0**-126 - TINY, MAX, INF, NAN),
    *(87.33654, 88.72283, 89.415985, 90.0, 103.27892, 103.97207, 104.0, 110.0),  # e^x
    *(2 / 3, 4 / 3, 9.010913, 10.0, 20.0, 40.0, 3.9192059, 4.0, 0.5, 2.0, 3.0),
    *(8.0, 10.3, 11.0, 13.9, 14.2, 14.5, 2.0**24, 2.0**25, 2.0**30, 2.0**60, 2.0**64),
    *(2.0**53, 2.0**78, 2.0**103, math.pi / 4, math.pi / 2, math.pi, 3 * math.pi / 2),
    # The float32 nearest to multiples of pi/2, by the part of pi/2 that is left (found by trying
    # all): where a reduction loses most digits.
    *(16367173 * 2.0**72, 10741887 * 2.0**11, 16573937 * 2.0**-16, 10057457 * 2.0**62),
    *(11617958 * 2.0**17, 16367173 * 2.0**73, 16367173 * 2.0**74, 10741887 * 2.0**12),
)

#: Pairs of argument and result.
SPECIAL = {
    "acos": [(1.0, 0.0), (-INF, NAN), (INF, NAN), (1.0000001, NAN), (-1.0000001, NAN)],
    "acosh": [(1.0, 0.0), (0.99999994, NAN), (-3.0, NAN), (-INF, NAN), (INF, INF), (NAN, NAN)],
    "asin": [(-0.0, -0.0), (0.0, 0.0), (-TINY, -TINY), (INF, NAN), (-1.0000001, NAN)],
    "asinh": [(-0.0, -0.0), (0.0, 0.0), (-TINY, -TINY), (INF, INF), (-INF, -INF), (NAN, NAN)],
    "atan": [(-0.0, -0.0), (0.0, 0.0), (-TINY, -TINY), (NAN, NAN)],
    "atanh": [(-0.0, -0.0), (TINY, TINY), (1.0, INF), (-1.0, -INF), (1.0000001, NAN), (INF, NAN)],
    "cos": [(-0.0, 1.0), (0.0, 1.0), (INF, NAN), (-INF, NAN), (NAN, NAN)],
    "cosh": [(-0.0, 1.0), (INF, INF), (-INF, INF), (89.5, INF), (NAN, NAN)],
    "erf": [(-INF, -1.0), (-0.0, -0.0), (0.0, 0.0), (-TINY, -TINY), (INF, 1.0), (NAN, NAN)],
    "exp": [(-INF, 0.0), (-0.0, 1.0), (0.0, 1.0), (INF, INF), (NAN, NAN), (89.0, INF)],
    "expm1": [(-INF, -1.0), (-0.0, -0.0), (TINY, TINY), (INF, INF), (NAN, NAN)],
    "gelu": [(-0.0, -0.0), (0.0, 0.0), (INF, INF), (-INF, NAN), (-15.0, -0.0), (NAN, NAN)],
    "gelu_tanh": [(-0.0, -0.0), (0.0, 0.0), (INF, INF), (-INF, NAN), (-12.0, -0.0)],
    "log": [(-INF, NAN), (-1.0, NAN), (-0.0, -INF), (0.0, -INF), (1.0, 0.0), (INF, INF)],
    "log1p": [(-INF, NAN), (-1.0, -INF), (-0.0, -0.0), (TINY, TINY), (-2.0, NAN), (INF, INF)],
    "mish": [(-0.0, -0.0), (0.0, 0.0), (INF, INF), (-INF, NAN), (MAX, MAX), (-MAX, -0.0)],
    "sigmoid": [(-INF, 0.0), (-0.0, 0.5), (0.0, 0.5), (-104.0, 0.0), (INF, 1.0), (NAN, NAN)],
    "silu": [(-0.0, -0.0), (0.0, 0.0), (INF, INF), (-INF, NAN), (MAX, MAX), (-MAX, -0.0)],
    "sin": [(-0.0, -0.0), (0.0, 0.0), (-TINY, -TINY), (INF, NAN), (-INF, NAN), (NAN, NAN)],
    "sinh": [(-0.0, -0.0), (-TINY, -TINY), (INF, INF), (-INF, -INF), (-89.5, -INF)],
    "softplus": [(-INF, 0.0), (INF, INF), (MAX, MAX), (-105.0, 0.0), (NAN, NAN)],
    "tan": [(-0.0, -0.0), (0.0, 0.0), (-TINY, -TINY), (INF, NAN), (-INF, NAN), (NAN, NAN)],
    "tanh": [(-INF, -1.0), (-0.0, -0.0), (0.0, 0.0), (-TINY, -TINY), (INF, 1.0), (NAN, NAN)],
}


@cache
def points() -> np.ndarray:
    """300 random float32 of each exponent and sign, the busy ranges more densely, the edges."""
    rng = np.random.default_rng(7)
    fractions = rng.integers(0, 1 << 23, (512, 300), dtype=np.uint32)
    signs_and_exponents = np.arange(512, dtype=np.uint32)[:, None] << 23
    everywhere = (signs_and_exponents | fractions).ravel().view(np.float32)
    dense = [rng.uniform(-size, size, 50_000) for size in (1, 6, 30, 110)]
    steps = np.arange(-3, 4)
    near = (np.array(EDGES, np.float32).view(np.int32)[:, None] + steps).astype(np.uint32)
    edges = near.ravel().view(np.float32)
    single = [values.astype(np.float32) for values in dense]
    return np.concatenate([everywhere, *single, edges, -edges])


@cache
def exact(name: str) -> np.ndarray:
    with np.errstate(all="ignore"):
        return EXACT[name](points().astype(np.float64))


@pytest.fixture(scope="module", params=LEVELS, ids=lambda target: target.name)
def kernels(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Loaded | Emulated:
    target: Target = request.param
    return runner(target, tmp_path_factory.mktemp("vec"))


@pytest.mark.parametrize("name", EXACT)
def test_the_stated_bound_holds_over_all_of_float32(name: str, kernels: Loaded | Emulated) -> None:
    errors = ulps(kernels.call(name, points()), exact(name))
    worst = int(errors.argmax())
    assert errors[worst] <= ULP[name], f"{name}({points()[worst]!r}) is {errors[worst]:.3f} ULP off"


@pytest.mark.parametrize("name", EXACT)
def test_zeros_infinities_and_subnormals(name: str, kernels: Loaded | Emulated) -> None:
    arguments, expected = np.array(SPECIAL[name], np.float32).T
    actual = kernels.call(name, np.ascontiguousarray(arguments))
    np.testing.assert_array_equal(actual, expected)
    signed = ~np.isnan(expected)
    np.testing.assert_array_equal(np.signbit(actual[signed]), np.signbit(expected[signed]))


def test_exponentials_of_differences_from_a_maximum(
    kernels: Loaded | Emulated, request: pytest.FixtureRequest
) -> None:
    target: Target = request.node.callspec.params["kernels"]
    x = -np.abs(points())
    y = kernels.call("exp_nonpositive", x)
    np.testing.assert_array_equal(y[x < -88], 0)
    np.testing.assert_array_equal(np.isnan(y), np.isnan(x))
    np.testing.assert_array_equal(y[x == 0], 1)
    normal = x >= -87.33
    errors = ulps(y[normal], np.exp(x[normal].astype(np.float64)))
    excess = errors - nonpositive_bound(x[normal], target)
    worst = int(excess.argmax())
    assert excess[worst] <= 0, f"e^{x[normal][worst]!r} is {errors[worst]:.3f} ULP off"


def test_the_measure_of_errors_rejects_what_is_wrong() -> None:
    truth = np.array([1.0, 2.0**-149, np.inf, np.nan, 1.0])
    wrong = np.array([1 + 2.0**-22, 0.0, MAX, 1.0, np.nan], np.float32)
    np.testing.assert_array_equal(ulps(wrong, truth), [2, 1, np.inf, np.inf, np.inf])
    np.testing.assert_array_equal(ulps(truth.astype(np.float32), truth), np.zeros(5))


def test_the_sample_has_every_exponent_and_the_neighbours_of_edges() -> None:
    patterns = points().view(np.uint32)
    assert set(patterns >> 23) == set(range(512))
    ends = np.array([1.0, -0.5, MAX, TINY], np.float32)
    assert np.isin([ends, np.nextafter(ends, np.float32(0))], points()).all()


@pytest.mark.parametrize("name", ULP)
def test_docstrings_and_the_table_state_the_bounds(name: str) -> None:
    document = getattr(vector_math, name).__doc__
    assert f"within {ULP[name]:g} ULP" in document
    row = re.search(rf"^\| `{name}` \|.*$", DOCUMENT.read_text(), re.MULTILINE)
    assert row is not None, f"docs/vector-math.md has no row for {name}"
    _, _, _, single, double, _ = (cell.strip() for cell in row[0].split("|", 5))
    assert single == f"{ULP[name]:g}"
    own = f"{ULP[name]:g}" if name in IN_FLOAT64 else "libm"
    assert double == ("4 + 2 abs(z)" if name == "gelu_tanh" else own)


def test_the_table_lists_every_function() -> None:
    every = {*ULP, "exp_nonpositive"}  # whose bound is no number
    assert set(re.findall(r"^\| `(\w+)` \|", DOCUMENT.read_text(), re.MULTILINE)) == every
    assert set(vector_math.__all__) == every


def test_a_result_survives_unrolling_and_a_reader_of_its_own(tmp_path: Path) -> None:
    def gate(x: tirx.Var) -> tirx.Let:
        value = vector_math.tanh(x)
        held = tirx.Var("held", value.ty)
        return tirx.Let(held, value, held * vector_math.sigmoid(held) + held)

    kernel = Loaded(link({"gate": mapped(gate, unrolled=4)}, HOST, tmp_path))
    x = np.random.default_rng(3).standard_normal(1 << 14).astype(np.float32)
    held = np.tanh(x.astype(np.float64))
    expected = held / (1 + np.exp(-held)) + held
    np.testing.assert_allclose(kernel.call("gate", x), expected, rtol=1e-6)
