"""Resize as one small matrix for each axis: for cropping (roi) and filtering against aliasing.

The resize op of the IR has neither; both are rare, and every mode of Resize is separable. Source:
the definition of Resize-19 in onnx/defs/tensor.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from planish.ir.errors import UnsupportedModel
from planish.ir.graph import Value, constant
from planish.ir.onnx.call import Call


@dataclass(frozen=True, slots=True)
class Sampling:
    """How one axis is read; `start` and `end` are its roi as fractions of the axis."""

    size: int
    resized: int
    scale: float
    coordinate: str
    start: float = 0.0
    end: float = 1.0

    def positions(self) -> np.ndarray:
        """Where each output element reads, in elements of the input."""
        i = np.arange(self.resized, dtype=np.float64)
        last = self.size - 1
        if self.coordinate == "tf_crop_and_resize":
            if self.resized == 1:
                return np.full(1, 0.5 * (self.start + self.end) * last)
            return self.start * last + i * (self.end - self.start) * last / (self.resized - 1)
        if self.coordinate == "align_corners":
            return i * last / max(1, self.resized - 1)
        if self.coordinate == "asymmetric":
            return i / self.scale
        if self.coordinate == "tf_half_pixel_for_nn":
            return (i + 0.5) / self.scale
        if self.coordinate == "pytorch_half_pixel" and self.resized == 1:
            return np.zeros(1)
        middle = (i + 0.5) / self.scale - 0.5
        if self.coordinate == "half_pixel_symmetric":
            length = self.scale * self.size
            return middle + self.size / 2 * (1 - self.resized / length)
        return middle


@dataclass(frozen=True, slots=True)
class Filter:
    """Interpolation mode and its parameters."""

    mode: str  # nearest, linear or cubic
    nearest: str
    cubic_a: float
    antialias: bool
    exclude_outside: bool


def resample(
    call: Call, x: Value, samplings: dict[int, Sampling], filter_: Filter, fill: float
) -> Value:
    """`x` with the axes of `samplings` resized; reads outside a roi'd axis give `fill`."""
    inside: list[tuple[int, np.ndarray]] = []
    y = x
    for axis, sampling in samplings.items():
        weights = _matrix(sampling, filter_)
        matrix = call.array(weights.T, x.type.dtype)
        order = [i for i in range(x.type.rank) if i != axis] + [axis]
        moved = call.emit("matmul", _as_matrix(call, call.transpose(y, order)), matrix)
        shape = tuple(y.type.shape[i] for i in order[:-1])
        back = np.argsort(order).tolist()
        y = call.transpose(call.reshape(moved, (*shape, sampling.resized)), back)
        if sampling.coordinate == "tf_crop_and_resize":
            positions = sampling.positions()
            inside.append((axis, (positions >= 0) & (positions <= sampling.size - 1)))
    for axis, mask in inside:
        if not mask.all():
            spread = tuple(len(mask) if i == axis else 1 for i in range(x.type.rank))
            y = call.emit("where", constant(mask.reshape(spread)), y, call.like(fill, y))
    return y


def _as_matrix(call: Call, x: Value) -> Value:
    """`x` with all dimensions but the last merged into rows."""
    shape = call.static_shape(x)
    return call.reshape(x, (math.prod(shape[:-1]), shape[-1]))


def _matrix(sampling: Sampling, filter_: Filter) -> np.ndarray:
    """[resized, size] weights; a row sums to one."""
    positions = sampling.positions()
    if filter_.mode == "nearest":
        taps = _rounded(positions, filter_.nearest)[:, None]
        weights = np.ones_like(taps, dtype=np.float64)
    else:
        squeeze = min(1.0, sampling.scale) if filter_.antialias else 1.0
        reach = int(np.ceil((1 if filter_.mode == "linear" else 2) / squeeze)) + 1
        offsets = np.arange(-reach, reach + 1)
        taps = np.floor(positions).astype(np.int64)[:, None] + offsets
        distances = np.abs(taps - positions[:, None]) * squeeze
        weights = _kernel(distances, filter_)
    if filter_.exclude_outside:
        weights = weights * ((taps >= 0) & (taps < sampling.size))
    weights = weights / weights.sum(axis=1, keepdims=True)
    matrix = np.zeros((sampling.resized, sampling.size))
    rows = np.broadcast_to(np.arange(sampling.resized)[:, None], taps.shape)
    np.add.at(matrix, (rows, np.clip(taps, 0, sampling.size - 1)), weights)
    return matrix


def _kernel(distance: np.ndarray, filter_: Filter) -> np.ndarray:
    """Weight at a distance: the hat, or Keys' cubic with parameter a."""
    if filter_.mode == "linear":
        hat: np.ndarray = np.maximum(1 - distance, 0)
        return hat
    a, d = filter_.cubic_a, distance
    near: np.ndarray = ((a + 2) * d - (a + 3)) * d * d + 1
    far = ((a * d - 5 * a) * d + 8 * a) * d - 4 * a
    return np.where(d <= 1, near, np.where(d < 2, far, 0.0))


def _rounded(positions: np.ndarray, how: str) -> np.ndarray:
    rules: dict[str, np.ndarray] = {
        "round_prefer_floor": np.ceil(positions - 0.5),
        "round_prefer_ceil": np.floor(positions + 0.5),
        "floor": np.floor(positions),
        "ceil": np.ceil(positions),
    }
    if how not in rules:
        raise UnsupportedModel(f"its nearest_mode '{how}' is not known")
    return rules[how].astype(np.int64)
