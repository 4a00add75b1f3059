"""Resize with a filter against aliasing, as one small matrix for each axis.

The resize op of the IR reads a fixed number of elements; a filter reads more the more an axis
shrinks. Source: the definition of Resize-19 in onnx/defs/tensor.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from planish.ir.errors import UnsupportedModel
from planish.ir.graph import Value
from planish.ir.onnx.call import Call
from planish.ir.ops.resize import coordinates, cubic_weight
from planish.ir.types import DType, TensorType


@dataclass(frozen=True, slots=True)
class Sampling:
    """How one axis is read; `start` and `end` are its roi as fractions of the axis."""

    size: int
    resized: int
    scale: float
    coordinate: str
    start: float = 0.0
    end: float = 1.0

    @property
    def changes_nothing(self) -> bool:
        """Whether the axis keeps its size and is no crop; onnxruntime copies a tensor of such
        axes even where its scales are not 1 (3 elements by 1.3)."""
        return self.size == self.resized and self.coordinate != "tf_crop_and_resize"

    def places(self) -> np.ndarray:
        """Where each output element reads, in elements of the input."""
        roi = self.start, self.end
        return coordinates(self.size, self.resized, self.scale, self.coordinate, roi)


@dataclass(frozen=True, slots=True)
class Filter:
    """Interpolation mode and its parameters."""

    mode: str  # nearest, linear or cubic
    nearest: str
    cubic_a: float
    exclude_outside: bool


def filtered(call: Call, x: Value, samplings: Mapping[int, Sampling], filter_: Filter) -> Value:
    """`x` with the axes of `samplings` resized, linear or cubic with antialias."""
    if not x.type.dtype.is_float:
        raise UnsupportedModel(f"filters {x.type.dtype.value} against aliasing")
    y = x
    for axis, sampling in samplings.items():
        if sampling.size == sampling.resized:  # onnxruntime and Pillow leave it as it is
            continue
        call.fits(TensorType(DType.FLOAT64, (sampling.resized, sampling.size)))
        matrix = call.array(_matrix(sampling, filter_).T, x.type.dtype)
        order = [i for i in range(x.type.rank) if i != axis] + [axis]
        moved = call.emit("matmul", _as_matrix(call, call.transpose(y, order)), matrix)
        shape = tuple(y.type.shape[i] for i in order[:-1])
        back = np.argsort(order).tolist()
        y = call.transpose(call.reshape(moved, (*shape, sampling.resized)), back)
    return y


def _as_matrix(call: Call, x: Value) -> Value:
    """`x` with all dimensions but the last merged into rows."""
    shape = call.static_shape(x)
    return call.reshape(x, (math.prod(shape[:-1]), shape[-1]))


def _matrix(sampling: Sampling, filter_: Filter) -> np.ndarray:
    """[resized, size] weights; a row sums to one."""
    places = sampling.places()
    squeeze = min(1.0, sampling.scale)
    reach = int(np.ceil((1 if filter_.mode == "linear" else 2) / squeeze)) + 1
    offsets = np.arange(-reach, reach + 1)
    taps = np.floor(places).astype(np.int64)[:, None] + offsets
    distances = np.abs(taps - places[:, None]) * squeeze
    if filter_.mode == "linear":
        weights = np.maximum(1 - distances, 0)
    else:
        weights = cubic_weight(distances, filter_.cubic_a)
    if filter_.exclude_outside:
        weights = weights * ((taps >= 0) & (taps < sampling.size))
    weights = weights / weights.sum(axis=1, keepdims=True)
    matrix = np.zeros((sampling.resized, sampling.size))
    rows = np.broadcast_to(np.arange(sampling.resized)[:, None], taps.shape)
    np.add.at(matrix, (rows, np.clip(taps, 0, sampling.size - 1)), weights)
    return matrix
