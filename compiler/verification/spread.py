"""A bound from what rounding does to the reference itself, where it moves it visibly.

A model that takes steps (rounds to 8 bits, compares, picks a maximum) or amplifies small errors
has no result that is right to five digits: two orders of one sum already differ by more. How far
the reference moves when its numbers are off by a millionth says how far a right artefact may be.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from planish.tolerances import Difference, bound, compare, describe

#: By how much an artefact may be further off than the farthest of a few perturbed references: the
#: most of a few draws is less than the most of all. A single element varies more than a quantile.
_FURTHER, _SINGLE_FURTHER = 2.0, 4.0

#: The most of an output's variation that an error may be (its length by that of the output less its
#: mean). Zeros and halves, a factor of two, a flipped sign, a shifted axis are off by more.
MOST = 1 / 3

#: So many times the spread of the first few draws is not made up for by more of them.
_HOPELESS = 50.0

#: Integers of more elements than these may differ where no perturbed reference does.
_FEW = 16

_QUANTILES = (0.5, 0.75, 0.9, 0.97)


def compare_spread(
    actual: np.ndarray, expected: np.ndarray, plain: np.ndarray, moved: Sequence[np.ndarray]
) -> Difference:
    """Compares with `expected` by how far the `moved` results lie from the `plain` one.

    All have one shape and type. Places where the results are not of one kind (finite, an infinity,
    NaN) are left out. The error, its quantiles, and its parts along each axis may be a little more
    than those of the moved results. Whether that is so much that a gross fault would pass tells
    `is_gross`.
    """
    found = compare(actual, expected, sharp=True)
    if found.ok or not moved or actual.shape != expected.shape or actual.dtype != expected.dtype:
        return found
    same = alike(expected, [plain, *moved])
    if (kind(actual) != kind(expected))[same].any():
        return found
    usable = same & (kind(expected) == 0) & (kind(actual) == 0)
    reason = _beyond(_error(actual, expected, usable), expected, usable, plain, moved)
    if reason and expected.dtype.kind in "iub":
        reason = _unexplained(actual, expected, plain, moved)
    return describe(actual, expected, f"{found.reason}; {reason}" if reason else "")


def kind(array: np.ndarray) -> np.ndarray:
    """Of each element: 0 finite, 1 or -1 an infinity, 2 NaN."""
    wide = _wide(array)
    if wide.dtype.kind == "c":
        return np.where(np.isfinite(wide), 0, 2)
    return np.where(np.isnan(wide), 2, np.where(np.isinf(wide), np.sign(wide), 0))


def alike(expected: np.ndarray, others: Sequence[np.ndarray]) -> np.ndarray:
    """Where all results are of the kind of `expected`."""
    wanted = kind(expected)
    same = np.ones(expected.shape, bool)
    for other in others:
        same &= kind(other) == wanted
    return same


def is_gross(actual: np.ndarray, expected: np.ndarray) -> bool:
    """Whether the finite part of the error is as long as a gross fault's."""
    usable = (kind(expected) == 0) & (kind(actual) == 0)
    if actual.dtype.kind == "b" or not usable.any():
        return False
    wide = _wide(expected)[usable]
    varied, whole = _length(wide - wide.mean()), _length(wide)
    most = max(MOST * (varied if varied > 1e-6 * whole else whole), _length(bound(expected)))
    return _length(_error(actual, expected, usable)) > most


def is_hopeless(
    actual: np.ndarray, expected: np.ndarray, plain: np.ndarray, moved: Sequence[np.ndarray]
) -> bool:
    """Whether the error is so much longer than the first moved results' that no more are needed."""
    usable = alike(expected, [plain]) & (kind(expected) == 0) & (kind(actual) == 0)
    allowed = spread_length(plain, moved) + _length(bound(expected))
    return _length(_error(actual, expected, usable)) > _HOPELESS * allowed


def spread_length(plain: np.ndarray, moved: Sequence[np.ndarray]) -> float:
    """The length of the moved results' largest error."""
    usable = alike(plain, moved) & (kind(plain) == 0)
    return max(_length(_error(other, plain, usable)) for other in moved)


def _error(array: np.ndarray, expected: np.ndarray, usable: np.ndarray) -> np.ndarray:
    with np.errstate(all="ignore"):
        return np.where(usable, np.abs(_wide(array) - _wide(expected)), 0.0)


def _beyond(
    off: np.ndarray,
    expected: np.ndarray,
    usable: np.ndarray,
    plain: np.ndarray,
    moved: Sequence[np.ndarray],
) -> str:
    """What about the error `off` is larger than the others' allow; empty if nothing is."""
    given = np.where(usable, bound(expected, sharp=True), 0.0)
    spreads = [dict(_figures(_error(other, plain, usable))) for other in moved]
    allowed = dict(_figures(given))
    for name, (figure, further) in _figures(off):
        limit = allowed[name][0] + further * max(spread[name][0] for spread in spreads)
        if figure > limit:
            return f"the error's {name} is {figure:.3g}, allowed are {limit:.3g}"
    return ""


def _figures(error: np.ndarray) -> Iterator[tuple[str, tuple[float, float]]]:
    """Figures of an error by name, and how much further than another's each may be."""
    yield "length", (_length(error), _FURTHER)
    for share, value in zip(_QUANTILES, np.quantile(error, _QUANTILES)):
        yield f"quantile {share}", (float(value), _FURTHER)
    yield "largest element", (float(error.max(initial=0.0)), _SINGLE_FURTHER)
    squares = np.square(error)
    for axis, size in enumerate(error.shape):
        if 1 < size < error.size:
            rest = tuple(other for other in range(error.ndim) if other != axis)
            worst = float(np.sqrt(squares.sum(axis=rest).max()))
            yield f"largest length along axis {axis}", (worst, _SINGLE_FURTHER)


def _unexplained(
    actual: np.ndarray, expected: np.ndarray, plain: np.ndarray, moved: Sequence[np.ndarray]
) -> str:
    """For numbers that only name something: what is wrong with how many differ.

    A value is explained if one of the other results has it at the same place.
    """
    results = [plain, *moved]
    different = int(_FURTHER * max(int((other != plain).sum()) for other in moved))
    open_ = max(_unlike(results[i], results[:i] + results[i + 1 :]) for i in range(len(results)))
    few = 0 if expected.size <= _FEW else int(_FURTHER * open_)
    found, unlike = int((actual != expected).sum()), _unlike(actual, [expected, *results])
    if expected.size > _FEW:
        different = min(different, int(MOST * expected.size))
    if found > different or unlike > few:
        return (
            f"{unlike} of them are so in no perturbed reference; allowed are {different} that "
            f"differ and {few} of these"
        )
    return ""


def _unlike(array: np.ndarray, results: Sequence[np.ndarray]) -> int:
    """How many elements are in none of the results at their place."""
    return int(np.logical_and.reduce([array != other for other in results]).sum())


def _length(values: np.ndarray) -> float:
    return float(np.linalg.norm(values))


def _wide(array: np.ndarray) -> np.ndarray:
    return array.astype(np.complex128 if array.dtype.kind == "c" else np.float64)
