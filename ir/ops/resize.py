"""Resize: nearest, linear or cubic interpolation along each dimension, as ONNX defines it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from planish.ir.errors import InvalidGraph
from planish.ir.graph import Attrs
from planish.ir.op import AttrSpec, OpDef, OpKind, Types
from planish.ir.ops import shapes
from planish.ir.ops.attributes import NO, OPTIONAL_INTS, REQUIRED_INTS, REQUIRED_TEXT
from planish.ir.ops.precision import narrow, quiet, widen
from planish.ir.types import DType, TensorType

MODES = {"nearest": 1, "linear": 2, "cubic": 4}  # and the input elements of one output element
NEAREST = ("round_prefer_floor", "round_prefer_ceil", "floor", "ceil")
COORDINATES = (
    "half_pixel",
    "half_pixel_symmetric",
    "pytorch_half_pixel",
    "align_corners",
    "asymmetric",
    "tf_half_pixel_for_nn",
    "tf_crop_and_resize",
)


def _infer_resize(inputs: Types, attrs: Attrs) -> tuple[TensorType, ...]:
    (x,) = inputs
    shapes.number_dtype(inputs)
    shapes.need_per_dimension(attrs, ("sizes", "scales"), x.rank)
    if attrs["roi"] is not None and len(attrs["roi"]) != 2 * x.rank:
        raise InvalidGraph(f"roi must have {2 * x.rank} entries, got {attrs['roi']!r}")
    for name, known in (("mode", MODES), ("coordinate", COORDINATES), ("nearest", NEAREST)):
        if attrs[name] not in known:
            raise InvalidGraph(f"{name} must be one of {', '.join(known)}, got '{attrs[name]}'")
    if any(size < 1 for size in attrs["sizes"]) or not all(s > 0 for s in attrs["scales"]):
        raise InvalidGraph(f"sizes {attrs['sizes']} and scales {attrs['scales']} must be positive")
    if any(size == 0 for size in x.shape):
        raise InvalidGraph(f"{x} has no element to interpolate")
    return (TensorType(x.dtype, tuple(attrs["sizes"])),)


def coordinates(
    size: int, out: int, scale: float, transform: str, roi: tuple[float, float] = (0.0, 1.0)
) -> np.ndarray:
    """The place in an input of `size` elements of each of `out` output elements.

    `roi` is the part of the axis that a crop reads, as fractions. The rule is computed in float32,
    operation by operation as onnxruntime and PyTorch do: in float64 a place that falls between two
    elements would be rounded to the other one. The result is float64 for exact arithmetic with it.
    """
    single = np.float32
    x, length, last = np.arange(out, dtype=single), single(out), single(size) - single(1)
    step, half = single(scale), single(0.5)
    if transform == "asymmetric":
        place = x / step
    elif transform == "tf_half_pixel_for_nn":
        place = (x + half) / step
    elif transform == "tf_crop_and_resize":
        start, end = single(roi[0]), single(roi[1])
        if out == 1:
            place = np.full(1, 0.5 * float(start + end) * float(last), single)
        else:
            place = start * last + (x * (end - start) * last) / (length - single(1))
    elif transform == "align_corners":
        place = x * last / (length - single(1)) if out > 1 else x
    elif transform == "pytorch_half_pixel" and out == 1:
        place = x
    elif transform == "half_pixel_symmetric":  # centres what the floor of size * scale drops
        shift = single(size) / single(2) * (single(1) - length / (step * single(size)))
        place = (float(shift) + (x.astype(np.float64) + 0.5) / float(step) - 0.5).astype(single)
    else:
        place = (x + half) / step - half
    return np.asarray(place, np.float64)


def taps(x: TensorType, axis: int, attrs: Attrs) -> tuple[np.ndarray, np.ndarray]:
    """Indices and weights [out, taps] of the elements of `x` that make each output element.

    Indices beyond the border are clamped to it; with exclude_outside their weight is 0 and the
    others are scaled to a sum of 1.
    """
    size, out = x.static_shape[axis], attrs["sizes"][axis]
    roi = _part(x, axis, attrs)
    place = coordinates(size, out, attrs["scales"][axis], attrs["coordinate"], roi)
    if attrs["mode"] == "nearest":
        index = _nearest(place, attrs["nearest"])[:, None]
        return np.clip(index, 0, size - 1), np.ones((out, 1))
    base = np.floor(place)
    ratio = (place - base)[:, None]
    if attrs["mode"] == "linear":
        index = base[:, None] + np.arange(2)
        weights = np.concatenate([1 - ratio, ratio], axis=1)
    else:
        index = base[:, None] + np.arange(-1, 3)
        weights = cubic_weight(np.abs(ratio - np.arange(-1, 3)), attrs["cubic_a"])
    if attrs["exclude_outside"]:
        weights = np.where((index >= 0) & (index < size), weights, 0.0)
        weights /= weights.sum(axis=1, keepdims=True)
    return np.clip(index, 0, size - 1).astype(np.int64), weights


#: A place this near to the middle of two elements is in the middle, as in onnxruntime:
#: float32 coordinates miss it by an ulp or two (microsoft/onnxruntime#28291).
_TIE = np.float32(1e-6)


def _nearest(place: np.ndarray, rounding: str) -> np.ndarray:
    chosen = np.ceil(place) if rounding == "ceil" else np.floor(place)
    if rounding.startswith("round"):
        past = place - chosen - 0.5
        tie = np.abs(past) <= _TIE
        chosen = chosen + np.where(tie, rounding == "round_prefer_ceil", past > 0)
    return np.asarray(chosen, np.int64)


def cubic_weight(distance: np.ndarray, a: float) -> np.ndarray:
    """Keys' kernel (1981): weights of elements at a distance of up to 2."""
    near = ((a + 2) * distance - (a + 3)) * distance * distance + 1
    far = ((distance - 5) * distance + 8) * distance * a - 4 * a
    return np.where(distance <= 1, near, np.where(distance < 2, far, 0.0))


def resized_axes(x: TensorType, attrs: Attrs) -> list[int]:
    """The dimensions that change; one of scale 1 that keeps its size is left as it is."""
    sizes, scales = attrs["sizes"], attrs["scales"]
    return [
        axis
        for axis in range(x.rank)
        if sizes[axis] != x.shape[axis] or scales[axis] != 1.0 or _part(x, axis, attrs) != (0, 1)
    ]


def _part(x: TensorType, axis: int, attrs: Attrs) -> tuple[float, float]:
    """The fractions of an axis between which a crop reads."""
    roi = attrs["roi"]
    return (0.0, 1.0) if roi is None else (roi[axis], roi[axis + x.rank])


def _resize(arrays: Sequence[np.ndarray], attrs: Attrs) -> tuple[np.ndarray, ...]:
    """Interpolation is separable, so that one dimension after the other is resized."""
    x = arrays[0]
    nearest = attrs["mode"] == "nearest"
    result = x if nearest else widen(x).astype(np.float64)
    type_ = TensorType(DType.of(x.dtype), x.shape)
    for axis in resized_axes(type_, attrs):
        index, weights = taps(type_, axis, attrs)
        if nearest:
            result = np.take(result, index[:, 0], axis=axis)
            continue
        column = (-1,) + (1,) * (x.ndim - axis - 1)
        parts = (
            np.take(result, index[:, tap], axis=axis) * weights[:, tap].reshape(column)
            for tap in range(index.shape[1])
        )
        result = np.asarray(sum(parts))
    return (narrow(result, x.dtype),)


def _resize_flops(inputs: Types, outputs: Types, attrs: Attrs) -> int:
    """A multiplication and an addition for each input element read; nearest only moves."""
    count = MODES[attrs["mode"]]
    dimensions = len(resized_axes(inputs[0], attrs))
    return 0 if count == 1 else 2 * outputs[0].elements * count**dimensions


OPS: tuple[OpDef, ...] = (
    OpDef(
        "resize",
        "x interpolated to `sizes`; scales[i] is the ratio of output to input places; a crop "
        "reads axis i from the fraction roi[i] to roi[i + rank]",
        OpKind.COMPOSITE,
        (1, 1),
        _infer_resize,
        quiet(_resize),
        {
            "sizes": REQUIRED_INTS,
            "scales": REQUIRED_INTS,
            "roi": OPTIONAL_INTS,
            "mode": REQUIRED_TEXT,
            "coordinate": REQUIRED_TEXT,
            "nearest": AttrSpec((str,), "round_prefer_floor"),
            "cubic_a": AttrSpec((float,), -0.75),
            "exclude_outside": NO,
        },
        _resize_flops,
    ),
)
