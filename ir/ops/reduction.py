"""Reductions: each output element from a set of input elements."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from planish.ir.errors import InvalidGraph
from planish.ir.graph import Attrs
from planish.ir.op import Axis, OpDef, OpKind, Types
from planish.ir.ops import shapes
from planish.ir.ops.attributes import NO, REQUIRED_BOOL, REQUIRED_INT, REQUIRED_INTS
from planish.ir.ops.elementwise import divide
from planish.ir.ops.precision import accumulator, narrow, rounded, widen
from planish.ir.types import DType, TensorType

Arrays = Sequence[np.ndarray]


def _axes(attrs: Attrs, rank: int) -> tuple[int, ...]:
    axes: tuple[int, ...] = attrs["axes"]
    if list(axes) != sorted(set(axes)) or any(not 0 <= axis < rank for axis in axes):
        raise InvalidGraph(f"axes must be sorted, distinct and in 0..{rank - 1}, got {axes!r}")
    return axes


def _reduced_shape(x: TensorType, axes: Sequence[int], keepdims: bool) -> shapes.Shape:
    dims = ((1 if i in axes else dim) for i, dim in enumerate(x.shape) if keepdims or i not in axes)
    return tuple(dims)


def _infer_reduce(inputs: Types, attrs: Attrs) -> tuple[TensorType, ...]:
    (x,) = inputs
    shapes.number_dtype(inputs)
    return (TensorType(x.dtype, _reduced_shape(x, _axes(attrs, x.rank), attrs["keepdims"])),)


def _infer_extreme(inputs: Types, attrs: Attrs) -> tuple[TensorType, ...]:
    (x,) = inputs
    if x.dtype is not DType.BOOL:
        return _infer_reduce(inputs, attrs)
    return (TensorType(x.dtype, _reduced_shape(x, _axes(attrs, x.rank), attrs["keepdims"])),)


def lowest(dtype: np.dtype) -> Any:
    """The identity of max: -inf, the least integer, or False."""
    return _limit(dtype, -np.inf, "min")


def highest(dtype: np.dtype) -> Any:
    """The identity of min: inf, the greatest integer, or True."""
    return _limit(dtype, np.inf, "max")


def _limit(dtype: np.dtype, infinity: float, bound: str) -> Any:
    if dtype.kind == "b":
        return bound == "max"
    return dtype.type(infinity) if dtype.kind == "f" else getattr(np.iinfo(dtype), bound)


def _sum(x: np.ndarray, attrs: Attrs) -> np.ndarray:
    kind = accumulator(x.dtype)
    return np.asarray(np.sum(x, attrs["axes"], kind, keepdims=attrs["keepdims"]))


def _product(x: np.ndarray, attrs: Attrs) -> np.ndarray:
    kind = accumulator(x.dtype)
    return np.asarray(np.prod(x, attrs["axes"], kind, keepdims=attrs["keepdims"]))


def _mean(x: np.ndarray, attrs: Attrs) -> np.ndarray:
    """Integers toward zero, as integer division is."""
    total = _sum(x, attrs)
    count = np.prod([x.shape[axis] for axis in attrs["axes"]], dtype=np.int64)
    if total.dtype.kind == "f":
        return divide(total, np.asarray(count, total.dtype))
    wide = np.uint64 if total.dtype.kind == "u" else np.int64  # the type need not hold the count
    return divide(total.astype(wide), np.asarray(count, wide))


def _maximum(x: np.ndarray, attrs: Attrs) -> np.ndarray:
    least = lowest(x.dtype)
    return np.asarray(np.max(x, attrs["axes"], keepdims=attrs["keepdims"], initial=least))


def _minimum(x: np.ndarray, attrs: Attrs) -> np.ndarray:
    greatest = highest(x.dtype)
    return np.asarray(np.min(x, attrs["axes"], keepdims=attrs["keepdims"], initial=greatest))


def _input_elements(inputs: Types, outputs: Types, attrs: Attrs) -> int:
    return inputs[0].elements


def _reduce_loops(inputs: Types, outputs: Types, attrs: Attrs) -> tuple[Axis, ...]:
    extents = (inputs[0].static_shape[axis] for axis in attrs["axes"])
    return shapes.output_loops(outputs[0]) + shapes.reduce_loops(extents)


def _reduce(
    name: str, function: Callable[[np.ndarray, Attrs], np.ndarray], summary: str, infer: Any
) -> OpDef:
    def reference(arrays: Arrays, attrs: Attrs) -> np.ndarray:
        return function(arrays[0], attrs)

    attrs = {"axes": REQUIRED_INTS, "keepdims": REQUIRED_BOOL}
    return OpDef(
        name,
        summary,
        OpKind.REDUCTION,
        (1, 1),
        infer,
        rounded(reference),
        attrs,
        _input_elements,
        _reduce_loops,
    )


def _infer_arg(inputs: Types, attrs: Attrs) -> tuple[TensorType, ...]:
    (x,) = inputs
    shapes.number_dtype(inputs)
    axis = shapes.axis_of(attrs, x.rank)
    if x.shape[axis] == 0:
        raise InvalidGraph(f"axis {axis} of {x} has no element to choose")
    return (TensorType(DType.INT64, _reduced_shape(x, (axis,), attrs["keepdims"])),)


def _arg(choose: Callable[..., Any]) -> Callable[[Arrays, Attrs], tuple[np.ndarray, ...]]:
    def reference(arrays: Arrays, attrs: Attrs) -> tuple[np.ndarray, ...]:
        x, axis = widen(arrays[0]), attrs["axis"]
        if attrs["last"]:
            found = x.shape[axis] - 1 - choose(np.flip(x, axis), axis, keepdims=attrs["keepdims"])
        else:
            found = choose(x, axis, keepdims=attrs["keepdims"])
        return (np.asarray(found, dtype=np.int64),)

    return reference


def _arg_loops(inputs: Types, outputs: Types, attrs: Attrs) -> tuple[Axis, ...]:
    extent = inputs[0].static_shape[attrs["axis"]]
    return shapes.output_loops(outputs[0]) + shapes.reduce_loops((extent,))


def _infer_cumsum(inputs: Types, attrs: Attrs) -> tuple[TensorType, ...]:
    shapes.number_dtype(inputs)
    shapes.axis_of(attrs, inputs[0].rank)
    return (inputs[0],)


def _cumsum(arrays: Arrays, attrs: Attrs) -> tuple[np.ndarray, ...]:
    x, axis = arrays[0], attrs["axis"]
    wide = widen(x)
    ordered = np.flip(wide, axis) if attrs["reverse"] else wide
    with np.errstate(all="ignore"):
        total = np.cumsum(ordered, axis, accumulator(wide.dtype))
        if attrs["exclusive"]:
            head = [slice(None)] * x.ndim
            head[axis] = slice(0, -1)
            first = np.zeros_like(np.take(total, np.arange(min(1, x.shape[axis])), axis))
            total = np.concatenate([first, total[tuple(head)]], axis)
        return (narrow(np.flip(total, axis) if attrs["reverse"] else total, x.dtype),)


_ARG_ATTRS = {"axis": REQUIRED_INT, "keepdims": REQUIRED_BOOL, "last": NO}

OPS: tuple[OpDef, ...] = (
    _reduce("reduce_sum", _sum, "Sum over the axes", _infer_reduce),
    _reduce("reduce_mean", _mean, "Mean over the axes, integers toward zero", _infer_reduce),
    _reduce("reduce_max", _maximum, "Largest over the axes, NaN if there is one", _infer_extreme),
    _reduce("reduce_min", _minimum, "Smallest over the axes, NaN if there is one", _infer_extreme),
    _reduce("reduce_prod", _product, "Product over the axes", _infer_reduce),
    OpDef(
        "arg_max",
        "Index of the largest element along the axis, the first or last of equals",
        OpKind.REDUCTION,
        (1, 1),
        _infer_arg,
        _arg(np.argmax),
        _ARG_ATTRS,
        _input_elements,
        _arg_loops,
    ),
    OpDef(
        "arg_min",
        "Index of the smallest element along the axis, the first or last of equals",
        OpKind.REDUCTION,
        (1, 1),
        _infer_arg,
        _arg(np.argmin),
        _ARG_ATTRS,
        _input_elements,
        _arg_loops,
    ),
    OpDef(
        "cumsum",
        "Running sum along the axis, without the element itself if exclusive",
        OpKind.EMITTED,
        (1, 1),
        _infer_cumsum,
        _cumsum,
        {"axis": REQUIRED_INT, "exclusive": NO, "reverse": NO},
        _input_elements,
    ),
)
