"""Resize: nearest, linear or cubic interpolation along each dimension, as ONNX defines it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from planish.ir.errors import InvalidGraph
from planish.ir.graph import Attrs
from planish.ir.op import AttrSpec, OpDef, OpKind, Types
from planish.ir.ops import shapes
from planish.ir.ops.attributes import NO, REQUIRED_INTS, REQUIRED_TEXT
from planish.ir.ops.precision import narrow, quiet, widen
from planish.ir.types import TensorType

MODES = {"nearest": 1, "linear": 2, "cubic": 4}  # and the input elements of one output element
NEAREST = ("round_prefer_floor", "round_prefer_ceil", "floor", "ceil")
COORDINATES = (
    "half_pixel",
    "half_pixel_symmetric",
    "pytorch_half_pixel",
    "align_corners",
    "asymmetric",
)


def _infer_resize(inputs: Types, attrs: Attrs) -> tuple[TensorType, ...]:
    (x,) = inputs
    shapes.number_dtype(inputs)
    shapes.need_per_dimension(attrs, ("sizes", "scales"), x.rank)
    for name, known in (("mode", MODES), ("coordinate", COORDINATES), ("nearest", NEAREST)):
        if attrs[name] not in known:
            raise InvalidGraph(f"{name} must be one of {', '.join(known)}, got '{attrs[name]}'")
    if any(size < 1 for size in attrs["sizes"]) or any(scale <= 0 for scale in attrs["scales"]):
        raise InvalidGraph(f"sizes {attrs['sizes']} and scales {attrs['scales']} must be positive")
    if any(size == 0 for size in x.shape):
        raise InvalidGraph(f"{x} has no element to interpolate")
    return (TensorType(x.dtype, tuple(attrs["sizes"])),)


def coordinates(size: int, out: int, scale: float, transform: str) -> np.ndarray:
    """The place in an input of `size` elements of each of `out` output elements, in float64."""
    x = np.arange(out, dtype=np.float64)
    if transform == "asymmetric":
        return np.asarray(x / scale)
    if transform == "align_corners":
        return np.asarray(x * (size - 1) / max(out - 1, 1))
    if transform == "pytorch_half_pixel" and out == 1:
        return np.zeros(1)
    place = (x + 0.5) / scale - 0.5
    if transform == "half_pixel_symmetric":  # centres the part that the floor of size·scale drops
        place += size / 2 * (1 - out / (size * scale))
    return place


def taps(size: int, out: int, scale: float, attrs: Attrs) -> tuple[np.ndarray, np.ndarray]:
    """Indices and weights [out, taps] of the input elements that make each output element.

    Indices beyond the border are clamped to it; with exclude_outside their weight is 0 and the
    others are scaled to a sum of 1.
    """
    place = coordinates(size, out, scale, attrs["coordinate"])
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
        weights = _cubic(np.abs(ratio - np.arange(-1, 3)), attrs["cubic_a"])
    if attrs["exclude_outside"]:
        weights = np.where((index >= 0) & (index < size), weights, 0.0)
        weights /= weights.sum(axis=1, keepdims=True)
    return np.clip(index, 0, size - 1).astype(np.int64), weights


def _nearest(place: np.ndarray, rounding: str) -> np.ndarray:
    if rounding == "floor":
        chosen = np.floor(place)
    elif rounding == "ceil":
        chosen = np.ceil(place)
    elif rounding == "round_prefer_floor":
        chosen = np.ceil(place - 0.5)
    else:
        chosen = np.floor(place + 0.5)
    return np.asarray(chosen, dtype=np.int64)


def _cubic(distance: np.ndarray, a: float) -> np.ndarray:
    """Keys' kernel (1981): weights of elements at a distance of up to 2."""
    near = ((a + 2) * distance - (a + 3)) * distance * distance + 1
    far = ((distance - 5) * distance + 8) * distance * a - 4 * a
    return np.where(distance <= 1, near, np.where(distance < 2, far, 0.0))


def _resized(x: TensorType, attrs: Attrs) -> list[int]:
    """The dimensions that change."""
    sizes, scales = attrs["sizes"], attrs["scales"]
    return [i for i in range(x.rank) if sizes[i] != x.shape[i] or scales[i] != 1.0]


def _resize(arrays: Sequence[np.ndarray], attrs: Attrs) -> tuple[np.ndarray, ...]:
    """Interpolation is separable, so that one dimension after the other is resized."""
    x = arrays[0]
    nearest = attrs["mode"] == "nearest"
    result = x if nearest else widen(x).astype(np.float64)
    for axis, (out, scale) in enumerate(zip(attrs["sizes"], attrs["scales"])):
        if out == x.shape[axis] and scale == 1.0:
            continue
        index, weights = taps(x.shape[axis], out, scale, attrs)
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
    dimensions = len(_resized(inputs[0], attrs))
    return 0 if count == 1 else 2 * outputs[0].elements * count**dimensions


OPS: tuple[OpDef, ...] = (
    OpDef(
        "resize",
        "x interpolated to `sizes`; scales[i] is the exact ratio of output to input places",
        OpKind.COMPOSITE,
        (1, 1),
        _infer_resize,
        quiet(_resize),
        {
            "sizes": REQUIRED_INTS,
            "scales": REQUIRED_INTS,
            "mode": REQUIRED_TEXT,
            "coordinate": REQUIRED_TEXT,
            "nearest": AttrSpec((str,), "round_prefer_floor"),
            "cubic_a": AttrSpec((float,), -0.75),
            "exclude_outside": NO,
        },
        _resize_flops,
    ),
)
