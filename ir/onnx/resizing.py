"""Converters of Resize and Upsample in all their versions."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from planish.ir.errors import InvalidModel, UnsupportedModel
from planish.ir.graph import Value, constant
from planish.ir.onnx.call import Call
from planish.ir.onnx.resampling import Filter, Sampling, filtered
from planish.ir.ops.resize import COORDINATES, NEAREST
from planish.ir.types import DType, TensorType

_MODES = {"nearest": "nearest", "linear": "linear", "bilinear": "linear", "cubic": "cubic"}
_CROP = "tf_crop_and_resize"
_POLICIES = {"not_larger": np.min, "not_smaller": np.max}


@dataclass(frozen=True, slots=True)
class _Target:
    """What an axis becomes: its output size, and the scale by which places are computed."""

    size: int
    scale: float


def upsample_by_attribute(call: Call) -> Value:
    """Upsample 7: scales in an attribute."""
    return _upsample(call, call.numbers("scales"))


def upsample(call: Call) -> Value:
    """Upsample 9 and Resize 10: scales in input 1."""
    return _upsample(call, call.known(1, "scales").reshape(-1).tolist())


def _upsample(call: Call, scales: Sequence[float]) -> Value:
    """Output i reads input i / scale; nearest rounds it down, or up where the axis shrinks.

    The versions before 11 say nothing of rounding; onnxruntime's rule is that of ONNX's tests.
    """
    x, mode = call.value(0), _mode(call)
    targets = _scaled(call, range(x.type.rank), scales)
    up = {axis: _sampling(call, axis, t, "asymmetric") for axis, t in targets.items()}
    if all(sampling.changes_nothing for sampling in up.values()):
        return x
    down = {axis: up.pop(axis) for axis, target in targets.items() if target.scale < 1}
    for samplings, nearest in ((down, "ceil"), (up, "floor")):
        x = _emit(call, x, samplings, Filter(mode, nearest, -0.75, False))
    return x


def resize(call: Call) -> Value:
    """Resize since opset 11: scales or sizes, for some axes since 18."""
    filter_ = Filter(
        _mode(call),
        call.text("nearest_mode", "round_prefer_floor"),
        call.number("cubic_coeff_a", -0.75),
        bool(call.integer("exclude_outside", 0)),
    )
    if filter_.mode == "nearest" and filter_.nearest not in NEAREST:
        raise UnsupportedModel(f"its nearest_mode '{filter_.nearest}' is not known")
    x, fill = call.value(0), call.number("extrapolation_value", 0.0)
    antialias = bool(call.integer("antialias", 0)) and filter_.mode != "nearest"
    samplings = _samplings(call)
    if all(sampling.changes_nothing for sampling in samplings.values()):
        return x
    y = filtered(call, x, samplings, filter_) if antialias else _emit(call, x, samplings, filter_)
    return _extrapolated(call, y, samplings, fill)


def _mode(call: Call) -> str:
    mode = call.text("mode", "nearest")
    if mode not in _MODES:
        raise UnsupportedModel(f"its mode '{mode}' is not known")
    return _MODES[mode]


def _samplings(call: Call) -> dict[int, Sampling]:
    """How each of the resized axes is read."""
    coordinate = call.text("coordinate_transformation_mode", "half_pixel")
    policy = call.text("keep_aspect_ratio_policy", "stretch")
    if coordinate not in COORDINATES:
        raise UnsupportedModel(f"its coordinate transformation '{coordinate}' is not known")
    shape = call.static_shape(call.value(0))
    axes = [call.axis(axis, len(shape)) for axis in call.integers("axes", tuple(range(len(shape))))]
    if len(set(axes)) < len(axes):
        raise InvalidModel(f"node '{call.label}' (Resize) names an axis twice: {axes}")
    roi = _roi(call, len(axes)) if coordinate == _CROP else [(0.0, 1.0)] * len(axes)
    wished = call.optional(3)
    if wished is not None and call.static_shape(wished) != (0,):
        targets = _sized(call, axes, call.ints(3, "sizes"), policy)
    elif call.optional(2) is not None:
        targets = _scaled(call, axes, call.known(2, "scales").reshape(-1).tolist())
    else:
        raise InvalidModel(f"node '{call.label}' (Resize) has neither scales nor sizes")
    return {
        axis: _sampling(call, axis, targets[axis], coordinate, *part)
        for axis, part in zip(axes, roi)
    }


def _sampling(
    call: Call, axis: int, target: _Target, coordinate: str, start: float = 0.0, end: float = 1.0
) -> Sampling:
    size = call.static_shape(call.value(0))[axis]
    if not size:
        raise UnsupportedModel("resizes an empty tensor")
    if target.size < 1 or not 0 < target.scale < math.inf:
        raise InvalidModel(
            f"node '{call.label}' ({call.op}) resizes {size} elements to {target.size}, "
            f"by {target.scale:g}"
        )
    call.fits(TensorType(DType.FLOAT64, (target.size, 4)))  # elements and weights of an output
    if not (math.isfinite(start) and math.isfinite(end)):
        raise InvalidModel(f"node '{call.label}' ({call.op}) has the roi {start} to {end}")
    return Sampling(size, target.size, target.scale, coordinate, start, end)


def _roi(call: Call, axes: int) -> list[tuple[float, float]]:
    """Start and end of each axis, as fractions of it."""
    roi = call.known(1, "roi").astype(np.float64).reshape(-1).tolist()
    if len(roi) != 2 * axes:
        raise InvalidModel(f"node '{call.label}' (Resize) has {len(roi)} roi for {axes} axes")
    return list(zip(roi[:axes], roi[axes:]))


def _need_one_an_axis(call: Call, found: int, axes: Sequence[int]) -> None:
    if found != len(axes):
        raise InvalidModel(
            f"node '{call.label}' ({call.op}) has {found} scales or sizes for {len(axes)} axes "
            f"of {call.value(0).type}"
        )


def _scaled(call: Call, axes: Sequence[int], scales: Sequence[float]) -> dict[int, _Target]:
    """Output sizes by scales: the product in float32 without its fraction, as in onnxruntime.

    ONNX says floor(size * scale) and leaves the precision open: 30 * 0.7 is 21 in float32 and
    20.99… in float64. Where the model declares another size that rounding can explain, that is
    what its exporter computed, and the rest of the model is made for it.
    """
    _need_one_an_axis(call, len(scales), axes)
    declared, targets = call.declared_shape(0), {}
    shape = call.static_shape(call.value(0))
    for axis, scale in zip(axes, scales):
        with np.errstate(all="ignore"):
            single = np.float32(scale)
            product = float(single * np.float32(shape[axis]))
        if not math.isfinite(product):
            raise InvalidModel(f"node '{call.label}' ({call.op}) has the scale {scale}")
        size = int(product)
        stated = declared[axis] if declared and len(declared) == len(shape) else None
        if stated is not None and abs(stated - shape[axis] * float(single)) < 1:
            size = stated
        targets[axis] = _Target(size, float(single))
    return targets


def _sized(
    call: Call, axes: Sequence[int], sizes: Sequence[int], policy: str
) -> dict[int, _Target]:
    """Output size and scale of each axis; the policies keep the ratio of the axes."""
    _need_one_an_axis(call, len(sizes), axes)
    shape = call.static_shape(call.value(0))
    dims = np.asarray([shape[axis] for axis in axes], np.float32)
    if not dims.all():
        raise UnsupportedModel("resizes an empty tensor")
    scales = np.asarray(sizes, np.float32) / dims
    if policy != "stretch":
        if policy not in _POLICIES:
            raise UnsupportedModel(f"its keep_aspect_ratio_policy '{policy}' is not known")
        scales = np.full(len(axes), _POLICIES[policy](scales), np.float32)
        sizes = [math.floor(float(size) + 0.5) for size in scales * dims]
    return {axis: _Target(size, float(scale)) for axis, size, scale in zip(axes, sizes, scales)}


def _emit(call: Call, x: Value, samplings: Mapping[int, Sampling], filter_: Filter) -> Value:
    if not samplings:
        return x
    axes = [
        samplings.get(axis, Sampling(size, size, 1.0, ""))
        for axis, size in enumerate(call.static_shape(x))
    ]
    coordinate = next(iter(samplings.values())).coordinate
    cropped = coordinate == _CROP
    return call.emit(
        "resize",
        x,
        sizes=tuple(axis.resized for axis in axes),
        scales=tuple(axis.scale for axis in axes),
        roi=(*(axis.start for axis in axes), *(axis.end for axis in axes)) if cropped else None,
        mode=filter_.mode,
        coordinate=coordinate,
        nearest=filter_.nearest,
        cubic_a=filter_.cubic_a,
        exclude_outside=filter_.exclude_outside,
    )


def _extrapolated(call: Call, y: Value, samplings: Mapping[int, Sampling], fill: float) -> Value:
    """`y` with `fill` wherever a crop reads outside the input."""
    for axis, sampling in samplings.items():
        if sampling.coordinate != _CROP:
            continue
        places = sampling.places()
        mask = (places >= 0) & (places <= sampling.size - 1)
        if not mask.all():
            spread = tuple(len(mask) if i == axis else 1 for i in range(y.type.rank))
            y = call.emit("where", constant(mask.reshape(spread)), y, call.like(fill, y))
    return y
