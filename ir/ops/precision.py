"""In which precision the numpy reference computes each element type."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from planish.ir.graph import Attrs
from planish.ir.op import Reference
from planish.ir.types import DType

_WORKING = {
    dtype.numpy: np.dtype(np.float32)
    for dtype in DType
    if dtype.is_float and dtype not in (DType.FLOAT32, DType.FLOAT64)
} | {
    dtype.numpy: np.dtype(np.int32) for dtype in (DType.INT4, DType.INT2, DType.UINT4, DType.UINT2)
}


def widen(array: np.ndarray) -> np.ndarray:
    """Narrow floats as float32, sub-byte integers as int32; other arrays as they are."""
    working = _WORKING.get(array.dtype)
    return array if working is None else array.astype(working)


def accumulator(dtype: np.dtype) -> np.dtype:
    """The type in which sums of `dtype` are taken: float64 for floats; integers wrap in theirs."""
    return np.dtype(np.float64) if DType.of(dtype).is_float else _WORKING.get(dtype, dtype)


def narrow(array: np.ndarray, dtype: np.dtype) -> np.ndarray:
    """`array` (or numpy scalar) rounded to `dtype`; integers wrap."""
    found = np.asarray(array)
    return found if found.dtype == dtype else found.astype(dtype)


def quiet(function: Reference) -> Reference:
    """`function` without numpy's floating-point warnings: NaN and infinity are results here."""

    def run(arrays: Sequence[np.ndarray], attrs: Attrs) -> tuple[np.ndarray, ...]:
        with np.errstate(all="ignore"):
            return function(arrays, attrs)

    return run


def rounded(function: Callable[[Sequence[np.ndarray], Attrs], np.ndarray]) -> Reference:
    """A one-output reference that computes on widened arrays and rounds to the first's type."""

    def run(arrays: Sequence[np.ndarray], attrs: Attrs) -> tuple[np.ndarray, ...]:
        with np.errstate(all="ignore"):
            result = function([widen(array) for array in arrays], attrs)
            return (narrow(result, arrays[0].dtype),)

    return run
