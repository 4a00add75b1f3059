"""What may be folded into constants: the one rule about factors, weights and sums that round.

Folding computes in float64 and rounds once. It is refused where the folded model could differ
from the model as written by more than the roundings that every order of operations has:

- A factor beyond FACTOR_EXPONENT changes what over- and underflows on the way.
- A weight that falls among the subnormal numbers keeps fewer digits, and kernels flush it to zero.
  It may, if what it loses is far below the roundings of the largest weight of the same output
  channel, and of the same input channel: trained weights hold some numbers near zero.
- A large addend before or behind weights rounds what it is added to: (x + 12582912) - 12582912 is
  the nearest whole number. Where it is large beside what the weights give, it stays.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from planish.ir.types import DType
from planish.passes.rewrite import Refusal

#: Factors from 2^-n to 2^n fold (and 0): about half of the range of normal numbers, so that only
#: data in the outer half could over- or underflow elsewhere than in the model as written.
FACTOR_EXPONENT = {DType.FLOAT64: 500, DType.FLOAT32: 60, DType.BFLOAT16: 60, DType.FLOAT16: 10}
#: Bits of the significand.
PRECISION = {DType.FLOAT64: 53, DType.FLOAT32: 24, DType.BFLOAT16: 8, DType.FLOAT16: 11}
#: The least normal number.
_LEAST = {
    DType.FLOAT64: 2.0**-1022,
    DType.FLOAT32: 2.0**-126,
    DType.BFLOAT16: 2.0**-126,
    DType.FLOAT16: 2.0**-14,
}
#: An addend may be 2^n times as large as what the weights tell of what it is added to. Behind it,
#: results have its size, so that a tolerance covers what it rounds; …
_LARGE = {DType.FLOAT64: 23, DType.FLOAT32: 8, DType.BFLOAT16: 4, DType.FLOAT16: 5}
#: … but where another one takes it away again, digits of the tolerance must be left.
_LARGE_IN_SUM = {DType.FLOAT64: 23, DType.FLOAT32: 8, DType.BFLOAT16: 2, DType.FLOAT16: 2}
#: The same for an addend before weights, times the norm of a row of them. What the weights make of
#: it is taken from sums that then are so much larger: normalised data are about 1, images about 3.
_LARGE_BEFORE = {DType.FLOAT64: 30, DType.FLOAT32: 6, DType.BFLOAT16: 1, DType.FLOAT16: 1}


def refuse_factor(factor: np.ndarray, dtype: DType) -> Refusal | None:
    """Why a factor, float64, must stay where it is; None if it may move to weights of `dtype`."""
    exponent = FACTOR_EXPONENT.get(dtype)
    if exponent is None:
        return Refusal(f"factors do not fold into {dtype.value}")
    if not np.isfinite(factor).all():
        return Refusal("the factor is not finite")
    size = np.abs(factor[factor != 0])
    if size.size and not (2.0**-exponent <= size.min() and size.max() <= 2.0**exponent):
        return Refusal(
            f"a factor of {_extreme(size):.3g} changes what overflows or vanishes on the way"
        )
    return None


def _extreme(size: np.ndarray) -> float:
    logarithm = np.log2(size)
    return float(size[np.abs(logarithm).argmax()])


def round_weights(
    wide: np.ndarray, dtype: DType, neighbours: Sequence[tuple[int, ...]]
) -> np.ndarray | Refusal:
    """Weights, float64, rounded to `dtype`; a Refusal if one overflows or loses digits.

    Each entry of `neighbours` are axes along which the weights of one channel lie: those that a
    lost weight is compared with.
    """
    with np.errstate(all="ignore"):
        data = wide.astype(dtype.numpy)
        found = data.astype(np.float64)
    if not np.isfinite(found).all():
        return Refusal("the scaled weights overflow")
    size = np.abs(wide)
    small = (size < _LEAST[dtype]) & (wide != 0)
    if not small.any():
        return data
    lost = np.where(small, size if dtype in _FLUSHED else np.abs(found - wide), 0.0)
    half = 2.0 ** -PRECISION[dtype]
    for axes in neighbours:
        largest = size.max(axis=axes, keepdims=True)
        if (lost > largest * (half / 16)).any():
            return Refusal("the scaled weights would lose digits below the least normal number")
    return data


#: Types whose subnormal numbers kernels flush to zero; float16 is computed in float32.
_FLUSHED = (DType.FLOAT32, DType.BFLOAT16, DType.FLOAT64)


def refuse_overflow(wide: np.ndarray, dtype: DType) -> Refusal | None:
    """Why numbers, float64, are no constant of `dtype`: one is not finite there."""
    with np.errstate(all="ignore"):
        rounded = wide.astype(dtype.numpy).astype(np.float64)
    return None if np.isfinite(rounded).all() else Refusal("the folded addend overflows")


def loses_digits(wide: np.ndarray, dtype: DType) -> bool:
    """True if a number, float64, overflows in `dtype` or lies below its least normal number."""
    size = np.abs(wide)
    return refuse_overflow(wide, dtype) is not None or bool(
        ((size < _LEAST.get(dtype, np.inf)) & (size > 0)).any()
    )


def refuse_addend(addend: np.ndarray, norm: float, dtype: DType) -> Refusal | None:
    """Why an addend behind weights whose largest row has `norm` must stay before what follows."""
    return _refuse_large(float(np.abs(addend).max(initial=0.0)), norm, _LARGE.get(dtype))


def refuse_addend_before(addend: np.ndarray, norm: float, dtype: DType) -> Refusal | None:
    """Why an addend before such weights must not become one behind them."""
    return _refuse_large(
        float(np.abs(addend).max(initial=0.0)) * norm, 1.0, _LARGE_BEFORE.get(dtype)
    )


def _refuse_large(size: float, beside: float, exponent: int | None) -> Refusal | None:
    if exponent is None:
        return Refusal("the type has too few digits")
    if not np.isfinite(size):
        return Refusal("the addend is not finite")
    if beside == 0 or size <= beside * 2.0**exponent:
        return None
    return Refusal("the addend is so large that it rounds what it is added to")


def refuse_sum(first: np.ndarray, second: np.ndarray, norm: float, dtype: DType) -> Refusal | None:
    """Why two addends behind weights must not become one."""
    total = np.abs(first + second)
    size = np.maximum(np.abs(first), np.abs(second))
    exponent = _LARGE_IN_SUM.get(dtype)
    if exponent is None or not np.isfinite(total).all():
        return Refusal("the sum of the addends is not finite")
    if norm == 0 or (size <= 2.0**exponent * np.maximum(total, norm)).all():
        return None
    return Refusal("the first addend is so large that it rounds what it is added to")


def may_join_addends(first: np.ndarray, second: np.ndarray, total: np.ndarray) -> bool:
    """True if (x + first) + second is x + total for any x, but for a unit in the last place.

    They have one sign, so that no sum on the way is much larger than the last one or x, and
    `total`, rounded, is exact.
    """
    exact = total.astype(np.float64) == first + second
    return bool((np.isfinite(first + second) & (first * second >= 0) & exact).all())


def may_join_factors(
    first: np.ndarray, second: np.ndarray, product: np.ndarray, dtype: DType
) -> bool:
    """True if (x · first) · second is x · product for any x, but for a unit in the last place.

    Both enlarge or both lessen: then nothing over- or underflows on the way that would not at the
    end. `product` is rounded.
    """
    a, b, both = np.abs(first), np.abs(second), np.abs(product.astype(np.float64))
    one_way = ((a >= 1) & (b >= 1)) | ((a <= 1) & (b <= 1))
    least = _LEAST.get(dtype, np.inf)
    kept = np.isfinite(both) & ((both >= least) | (a == 0) | (b == 0))
    return bool((one_way & kept).all())
