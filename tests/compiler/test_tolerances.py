"""The comparison rejects what is wrong, whatever the size of the numbers, and passes rounding."""

from __future__ import annotations

import numpy as np
import pytest

from planish.ir.types import DType
from planish.tolerances import TOLERANCES, compare

FLOATS = [dtype for dtype in TOLERANCES if dtype.is_float]
SPOILT = {
    "zeros": np.zeros_like,
    "a factor of two": lambda e: (e * 2).astype(e.dtype),
    "half": lambda e: (e / 2).astype(e.dtype),
    "a flipped sign": lambda e: (-e).astype(e.dtype),
    "a shifted axis": lambda e: np.roll(e, 1, axis=1),
    "swapped rows": lambda e: e[::-1].copy(),
    "NaN": lambda e: np.full_like(e, np.nan),
    "one NaN": lambda e: _with(e, np.nan),
    "one infinity": lambda e: _with(e, np.inf),
}


def _with(expected: np.ndarray, value: float) -> np.ndarray:
    actual = expected.copy()
    actual[1, 2] = value
    return actual


def _expected(dtype: DType, scale: float = 1.0) -> np.ndarray:
    rng = np.random.default_rng(1)
    return (scale * rng.standard_normal((4, 31))).astype(dtype.numpy)


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("spoil", SPOILT)
@pytest.mark.parametrize("scale", [1.0, 300.0])
def test_wrong_tensors_are_rejected(dtype: DType, spoil: str, scale: float) -> None:
    expected = _expected(dtype, scale)
    found = compare(SPOILT[spoil](expected), expected)
    assert not found.ok
    assert found.reason


@pytest.mark.parametrize("spoil", SPOILT)
def test_small_numbers_are_no_excuse(spoil: str) -> None:
    expected = _expected(DType.FLOAT32, 1e-4)
    assert not compare(SPOILT[spoil](expected), expected).ok


@pytest.mark.parametrize("dtype", FLOATS)
def test_rounding_passes(dtype: DType) -> None:
    expected = _expected(dtype)
    actual = (expected.astype(np.float64) * (1 + 1e-12)).astype(dtype.numpy)
    assert compare(actual, expected).ok


def test_another_order_of_summation_passes() -> None:
    rng = np.random.default_rng(2)
    a = rng.standard_normal((8, 4096)).astype("f4")
    b = rng.standard_normal((4096, 8)).astype("f4")
    one_by_one = np.zeros((8, 8), "f4")
    for k in range(4096):
        one_by_one += a[:, k : k + 1] * b[k]
    assert compare(one_by_one, a @ b).ok


def test_the_worst_element_is_named() -> None:
    expected = _expected(DType.FLOAT32)
    actual = expected.copy()
    actual[3, 7] += 0.5
    found = compare(actual, expected)
    assert found.worst == (3, 7)
    assert found.max_abs == pytest.approx(0.5, rel=1e-5)
    assert "1 of 124 elements are out of tolerance, the worst at [3, 7]" in found.reason


def test_nan_and_infinity_pass_where_the_reference_has_them() -> None:
    expected = _with(_expected(DType.FLOAT32), np.nan)
    expected[0, 0] = -np.inf
    assert compare(expected.copy(), expected).ok
    wrong_sign = expected.copy()
    wrong_sign[0, 0] = np.inf
    assert not compare(wrong_sign, expected).ok
    finite = expected.copy()
    finite[1, 2] = 0.0
    found = compare(finite, expected)
    assert not found.ok
    assert found.worst == (1, 2)


@pytest.mark.parametrize("dtype", ["int64", "int32", "bool", "uint8"])
def test_integers_and_bools_are_exact(dtype: str) -> None:
    expected = np.random.default_rng(3).integers(0, 2, (3, 5)).astype(dtype)
    assert compare(expected.copy(), expected).ok
    actual = expected.copy()
    actual[2, 1] = 1 - actual[2, 1]
    found = compare(actual, expected)
    assert not found.ok
    assert found.worst == (2, 1)
    assert "1 of 15 elements differ, the first at [2, 1]" in found.reason


def test_large_integers_that_round_to_one_double_differ() -> None:
    expected = np.array([2**60], "int64")
    assert not compare(expected + 1, expected).ok


def test_shape_and_type_must_agree() -> None:
    expected = _expected(DType.FLOAT32)
    assert "expected float32[4, 31], got float32[31, 4]" in compare(expected.T, expected).reason
    assert "got float64[4, 31]" in compare(expected.astype("f8"), expected).reason


def test_floor_is_for_references_that_are_no_better() -> None:
    expected = _expected(DType.FLOAT32)
    actual = expected + np.float32(2e-3)
    assert not compare(actual, expected).ok
    assert compare(actual, expected, floor=3e-3).ok


def test_empty_and_scalar_tensors() -> None:
    assert compare(np.zeros((0, 3), "f4"), np.zeros((0, 3), "f4")).ok
    assert compare(np.float32(2).reshape(()), np.float32(2).reshape(())).ok
    assert not compare(np.float32(2).reshape(()), np.float32(3).reshape(())).ok
