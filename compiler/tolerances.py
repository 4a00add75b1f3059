"""The one table of numeric tolerances, and the comparison that uses it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from planish.ir.types import DType


@dataclass(frozen=True, slots=True)
class Tolerance:
    """How far a computed tensor may be from the expected one.

    Element-wise: |a - e| <= of_largest * max|e| + relative * |e| + floor. The first term is what
    rounding in long sums leaves, whatever the size of the single result; `floor` lets an exact zero
    be computed as a rounding error.
    """

    of_largest: float = 0.0
    relative: float = 0.0
    floor: float = 0.0


EXACT = Tolerance()

#: The part of the tolerance that a sharp comparison has.
SHARP = 0.1

#: Element type → tolerance; a type that is not listed must be equal. That is the arithmetic of the
#: model, in any order of summation. A float32 network of a hundred layers is within 1e-5 of its
#: largest output in any order (onnxruntime against itself: up to 5e-6 on the models measured, 2e-4
#: where logarithms of small numbers amplify it). What a model that rounds or amplifies may be off
#: is measured: see planish.verification.spread.
TOLERANCES: dict[DType, Tolerance] = {
    DType.FLOAT64: Tolerance(of_largest=1e-11, relative=1e-11, floor=1e-12),
    DType.FLOAT32: Tolerance(of_largest=3e-4, relative=1e-4, floor=1e-6),
    DType.FLOAT16: Tolerance(of_largest=4e-3, relative=4e-3, floor=1e-4),
    DType.BFLOAT16: Tolerance(of_largest=2e-2, relative=2e-2, floor=1e-3),
}


@dataclass(frozen=True, slots=True)
class Difference:
    """What a comparison found.

    `max_abs` and `max_rel` (of the largest expected magnitude) are over the places where both are
    finite; `worst` is the index that breaks the bound most (or comes nearest to it), `cosine` the
    cosine between the two as vectors; `reason` is empty if `ok`.
    """

    ok: bool
    max_abs: float
    max_rel: float
    cosine: float
    worst: tuple[int, ...]
    reason: str = ""


def tolerance(dtype: DType) -> Tolerance:
    """The table's entry."""
    return TOLERANCES.get(dtype, EXACT)


def bound(expected: np.ndarray, *, floor: float = 0.0, sharp: bool = False) -> np.ndarray:
    """How far each element may be off; 0 where the expected one is not finite.

    `sharp` is for who can measure what rounding does where it is exceeded: single and double
    precision get the tenth that right results hardly ever need, and the table's floor is no
    excuse for an output of small numbers only.
    """
    limit = tolerance(DType.of(expected.dtype))
    magnitude = np.abs(_wide(expected))
    finite = np.isfinite(magnitude)
    largest = float(magnitude[finite].max(initial=0.0))
    share = SHARP if sharp and expected.dtype.itemsize >= 4 else 1.0
    whole = share * limit.of_largest * largest
    own = min(limit.floor, whole) if sharp and largest else limit.floor
    elements = share * limit.relative * np.where(finite, magnitude, 0.0)
    return np.where(finite, whole + elements + max(own, floor), 0.0)


def compare(
    actual: np.ndarray, expected: np.ndarray, *, floor: float = 0.0, sharp: bool = False
) -> Difference:
    """Compares a computed tensor with the expected one, by the expected one's element type.

    NaN and infinities must stand at the same places in both. `floor` raises the table's absolute
    floor, for references that are known to be no better than that; `sharp` is as for `bound`.
    """
    if actual.shape != expected.shape or actual.dtype != expected.dtype:
        reason = f"expected {_spelt(expected)}, got {_spelt(actual)}"
        return Difference(False, np.inf, np.inf, 0.0, (), reason)
    if expected.size == 0:
        return Difference(True, 0.0, 0.0, 1.0, ())
    if tolerance(DType.of(expected.dtype)) == EXACT and floor == 0.0:
        return _compare_exact(actual, expected)
    return _compare_close(actual, expected, bound(expected, floor=floor, sharp=sharp))


def describe(actual: np.ndarray, expected: np.ndarray, reason: str) -> Difference:
    """The figures of a comparison that was decided in another way; it is ok without a reason."""
    found = compare(actual, expected)
    return Difference(not reason, found.max_abs, found.max_rel, found.cosine, found.worst, reason)


def _spelt(array: np.ndarray) -> str:
    return f"{array.dtype}{list(array.shape)}"


def _compare_exact(actual: np.ndarray, expected: np.ndarray) -> Difference:
    different = (actual != expected) & ~_both_nan(actual, expected)
    flat = int(np.argmax(different))
    worst = _index(flat, expected.shape)
    error = _max_finite(np.abs(_wide(actual) - _wide(expected)))
    relative = error / max(_max_finite(np.abs(_wide(expected))), 1e-300)
    cosine = _cosine(_wide(actual), _wide(expected))
    if not different.any():
        return Difference(True, 0.0, 0.0, 1.0, worst)
    reason = (
        f"{int(different.sum())} of {expected.size} elements differ, the first at {list(worst)}: "
        f"expected {expected[worst]}, got {actual[worst]}"
    )
    return Difference(False, error, relative, cosine, worst, reason)


def _compare_close(actual: np.ndarray, expected: np.ndarray, limit: np.ndarray) -> Difference:
    a, e = _wide(actual), _wide(expected)
    finite = np.isfinite(e)
    unlike = ~finite & (a != e) & ~_both_nan(a, e) | finite & ~np.isfinite(a)
    usable = finite & np.isfinite(a)
    error = np.where(usable, np.abs(np.where(usable, a, 0) - np.where(usable, e, 0)), 0)
    largest = _max_finite(np.abs(e))
    excess = np.where(unlike, np.inf, error - limit)
    worst = _index(int(np.argmax(excess)), e.shape)
    max_abs = float(error.max())
    max_rel = max_abs / max(largest, 1e-300)
    cosine = _cosine(np.where(usable, a, 0), np.where(usable, e, 0))
    reason = ""
    if excess[worst] > 0:
        count = int((excess > 0).sum())
        reason = (
            f"{count} of {e.size} elements are out of tolerance, the worst at {list(worst)}: "
            f"expected {expected[worst]}, got {actual[worst]}"
        )
    return Difference(not reason, max_abs, max_rel, cosine, worst, reason)


def _wide(array: np.ndarray) -> np.ndarray:
    """As float64, or complex128; integers beyond 2**53 lose digits, which only reports see."""
    return array.astype(np.complex128 if array.dtype.kind == "c" else np.float64)


def _both_nan(a: np.ndarray, e: np.ndarray) -> np.ndarray:
    return np.asarray((a != a) & (e != e))


def _index(flat: int, shape: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(int(i) for i in np.unravel_index(flat, shape))


def _max_finite(values: np.ndarray) -> float:
    finite = values[np.isfinite(values)]
    return float(finite.max()) if finite.size else 0.0


def _length(values: np.ndarray) -> float:
    return float(np.linalg.norm(values.ravel()))


def _cosine(a: np.ndarray, e: np.ndarray) -> float:
    lengths = _length(a) * _length(e)
    if lengths == 0.0:
        return 1.0 if _length(a) == _length(e) else 0.0
    return float(np.vdot(e, a).real / lengths)
