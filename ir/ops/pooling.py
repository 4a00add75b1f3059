"""Pooling: maximum, average or sum over strided, dilated windows."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from planish.ir.errors import InvalidGraph
from planish.ir.graph import Attrs
from planish.ir.op import Axis, OpDef, OpKind, Types
from planish.ir.ops import shapes
from planish.ir.ops.attributes import NO, OPTIONAL_INTS, REQUIRED_INTS, REQUIRED_TEXT
from planish.ir.ops.movement import pad_array
from planish.ir.ops.precision import accumulator, narrow, widen
from planish.ir.ops.reduction import lowest
from planish.ir.types import TensorType

KINDS = ("max", "average", "sum")

_PER_DIMENSION = ("window", "strides", "dilations", "before", "after")


def _infer_pool(inputs: Types, attrs: Attrs) -> tuple[TensorType, ...]:
    (x,) = inputs
    shapes.number_dtype(inputs)
    if attrs["kind"] not in KINDS:
        raise InvalidGraph(f"kind must be one of {', '.join(KINDS)}, got '{attrs['kind']}'")
    shapes.need_per_dimension(attrs, _PER_DIMENSION, x.rank)
    shapes.need_positive(attrs, ("window", "strides", "dilations"))
    if attrs["counted_after"] is not None:
        shapes.need_per_dimension(attrs, ("counted_after",), x.rank)
    if any(n < 0 for n in (*attrs["before"], *attrs["after"])):
        raise InvalidGraph(f"padding must not be negative: {attrs['before']}, {attrs['after']}")
    padding = [b + a for b, a in zip(attrs["before"], attrs["after"])]
    entries = zip(x.shape, attrs["window"], attrs["strides"], attrs["dilations"], padding)
    return (TensorType(x.dtype, tuple(shapes.window_count(*entry) for entry in entries)),)


def _pool(arrays: Sequence[np.ndarray], attrs: Attrs) -> tuple[np.ndarray, ...]:
    """Windows are boxes, so that one dimension after the other can be pooled."""
    x = widen(arrays[0])
    maximum = attrs["kind"] == "max"
    combine: np.ufunc = np.maximum if maximum else np.add
    total = x if maximum else x.astype(accumulator(x.dtype))
    fill = lowest(total.dtype) if maximum else 0
    with np.errstate(all="ignore"):
        for axis in range(x.ndim):
            total = _pool_axis(total, axis, attrs, combine, fill)
        if attrs["kind"] == "average":
            divisor = _counts(x.shape, total.shape, attrs)
            total = total / divisor if total.dtype.kind == "f" else np.trunc(total / divisor)
        return (narrow(total, arrays[0].dtype),)


def _pool_axis(
    x: np.ndarray, axis: int, attrs: Attrs, combine: np.ufunc, fill: float
) -> np.ndarray:
    window, stride, dilation, before, after = (attrs[name][axis] for name in _PER_DIMENSION)
    if (window, stride, before, after) == (1, 1, 0, 0):
        return x
    widths = [0] * x.ndim
    left, right = widths.copy(), widths.copy()
    left[axis], right[axis] = before, after
    padded = pad_array(x, left, right, fill)
    count = (padded.shape[axis] - (window - 1) * dilation - 1) // stride + 1
    total: np.ndarray | None = None
    for offset in range(0, window * dilation, dilation):
        part = slice(offset, offset + (count - 1) * stride + 1, stride)
        piece = padded[(slice(None),) * axis + (part,)]
        total = piece if total is None else combine(total, piece)
    assert total is not None  # a window has at least one element
    return total


def _counts(shape: Sequence[int], out: Sequence[int], attrs: Attrs) -> np.ndarray:
    """How many elements each window's average divides by: the product of a count per dimension."""
    counted_after = attrs["counted_after"] or attrs["after"]
    total = np.ones((), dtype=np.int64)
    for axis, size in enumerate(shape):
        window, stride, dilation, before, _ = (attrs[name][axis] for name in _PER_DIMENSION)
        low, high = (-before, size + counted_after[axis]) if attrs["include_pad"] else (0, size)
        starts = np.arange(out[axis])[:, None] * stride - before
        places = starts + np.arange(window) * dilation
        counts = ((places >= low) & (places < high)).sum(axis=1)
        total = total[..., None] * counts
    return np.asarray(total)


def _pool_flops(inputs: Types, outputs: Types, attrs: Attrs) -> int:
    return outputs[0].elements * math.prod(attrs["window"])


def _pool_loops(inputs: Types, outputs: Types, attrs: Attrs) -> tuple[Axis, ...]:
    """The output's loops d0.., and r0.. for the windows of more than one element, in order."""
    extents = (window for window in attrs["window"] if window > 1)
    return shapes.output_loops(outputs[0]) + shapes.reduce_loops(extents)


OPS: tuple[OpDef, ...] = (
    OpDef(
        "pool",
        "Maximum, average or sum over windows; attributes have one entry per dimension of x, and "
        "counted_after is the part of `after` that include_pad counts (None: all of it)",
        OpKind.REDUCTION,
        (1, 1),
        _infer_pool,
        _pool,
        {
            "kind": REQUIRED_TEXT,
            **dict.fromkeys(_PER_DIMENSION, REQUIRED_INTS),
            "include_pad": NO,
            "counted_after": OPTIONAL_INTS,
        },
        _pool_flops,
        _pool_loops,
    ),
)
