"""Subnormal numbers as zeros, the way kernels take them unless a model keeps them."""

from __future__ import annotations

import numpy as np

#: Element type → (its bits as integers, the bit of the sign, those of the exponent). float16 and
#: below are not among them: kernels compute them in float32, of which they are ordinary numbers.
_LAYOUTS = {
    "float32": (np.uint32, 0x8000_0000, 0x7F80_0000),
    "float64": (np.uint64, 0x8000_0000_0000_0000, 0x7FF0_0000_0000_0000),
    "bfloat16": (np.uint16, 0x8000, 0x7F80),
}
#: Elements looked at together, so that large weights need no second copy of themselves.
_CHUNK = 1 << 20


def flush_subnormals(array: np.ndarray) -> np.ndarray:
    """The array with subnormal numbers replaced by zeros of their sign.

    It is the same object where there are none, which is nearly always, and for other element types.
    """
    layout = _LAYOUTS.get(array.dtype.name)
    if layout is None or array.size == 0:
        return array
    kind, sign, exponent = layout
    mantissa = (exponent & -exponent) - 1
    bits = np.ascontiguousarray(array).reshape(-1).view(kind)
    flushed: np.ndarray | None = None
    for begin in range(0, bits.size, _CHUNK):
        chunk = bits[begin : begin + _CHUNK]
        small = ((chunk & kind(exponent)) == 0) & ((chunk & kind(mantissa)) != 0)
        if small.any():
            flushed = bits.copy() if flushed is None else flushed
            part = flushed[begin : begin + _CHUNK]
            part[small] &= kind(sign)
    return array if flushed is None else flushed.view(array.dtype).reshape(array.shape)
