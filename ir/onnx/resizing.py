"""Converters of Resize and Upsample in all their versions."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

import numpy as np

from planish.ir.errors import InvalidModel, UnsupportedModel
from planish.ir.graph import Value
from planish.ir.onnx.call import Call
from planish.ir.onnx.resampling import Filter, Sampling, resample

_MODES = {"nearest": "nearest", "linear": "linear", "bilinear": "linear", "cubic": "cubic"}
_CROP = "tf_crop_and_resize"
_COORDINATES = frozenset(
    {
        "half_pixel",
        "half_pixel_symmetric",
        "pytorch_half_pixel",
        "align_corners",
        "asymmetric",
        "tf_half_pixel_for_nn",
        _CROP,
    }
)


def upsample_by_attribute(call: Call) -> Value:
    """Upsample 7: scales in an attribute."""
    return _upsample(call, call.numbers("scales"))


def upsample(call: Call) -> Value:
    """Upsample 9 and Resize 10: scales in input 1."""
    return _upsample(call, call.known(1, "scales").reshape(-1).tolist())


def _upsample(call: Call, scales: Sequence[float]) -> Value:
    """Output i reads input i / scale, rounded down."""
    x = call.value(0)
    shape = call.static_shape(x)
    if len(scales) != len(shape):
        raise InvalidModel(f"node '{call.label}' ({call.op}) has {len(scales)} scales for {x.type}")
    axes = [
        Sampling(dim, math.floor(dim * scale), float(scale), "asymmetric")
        for dim, scale in zip(shape, scales)
    ]
    _require_sizes(call, axes)
    return _emit(call, axes, Filter(_mode(call), "floor", -0.75, False, False))


def resize(call: Call) -> Value:
    """Resize since opset 11: scales or sizes, for some axes since 18."""
    filter_ = Filter(
        _mode(call),
        call.text("nearest_mode", "round_prefer_floor"),
        call.number("cubic_coeff_a", -0.75),
        bool(call.integer("antialias", 0)),
        bool(call.integer("exclude_outside", 0)),
    )
    x, fill = call.value(0), call.number("extrapolation_value", 0.0)
    samplings = _samplings(call)
    whole = [
        samplings.get(axis, Sampling(dim, dim, 1.0, "asymmetric"))
        for axis, dim in enumerate(call.static_shape(x))
    ]
    aliased = filter_.antialias and filter_.mode != "nearest"
    if aliased or any(sampling.coordinate == _CROP for sampling in whole):
        if not x.type.dtype.is_float:
            raise UnsupportedModel(f"crops or filters {x.type.dtype.value}")
        return resample(call, x, samplings, filter_, fill)
    return _emit(call, whole, filter_)


def _mode(call: Call) -> str:
    mode = call.text("mode", "nearest")
    if mode not in _MODES:
        raise UnsupportedModel(f"its mode '{mode}' is not known")
    return _MODES[mode]


def _samplings(call: Call) -> dict[int, Sampling]:
    """How each of the resized axes is read."""
    coordinate = call.text("coordinate_transformation_mode", "half_pixel")
    policy = call.text("keep_aspect_ratio_policy", "stretch")
    if coordinate not in _COORDINATES:
        raise UnsupportedModel(f"its coordinate transformation '{coordinate}' is not known")
    shape = call.static_shape(call.value(0))
    if 0 in shape:
        raise UnsupportedModel("resizes an empty tensor")
    given = call.integers("axes", tuple(range(len(shape))))
    axes = [call.axis(axis, len(shape)) for axis in given]
    roi = _roi(call, len(axes)) if coordinate == _CROP else [(0.0, 1.0)] * len(axes)
    dims = [shape[axis] for axis in axes]
    wished = call.optional(3)
    if wished is not None and call.static_shape(wished) != (0,):
        pairs = _fitted(dims, call.ints(3, "sizes"), policy)
    elif call.optional(2) is not None:
        scales = call.known(2, "scales").reshape(-1).tolist()
        pairs = [
            (math.floor(dim * (end - start) * scale), scale)
            for dim, scale, (start, end) in zip(dims, scales, roi)
        ]
    else:
        raise InvalidModel(f"node '{call.label}' (Resize) has neither scales nor sizes")
    if len(pairs) != len(axes):
        raise InvalidModel(
            f"node '{call.label}' (Resize) has {len(pairs)} scales or sizes for {len(axes)} axes"
        )
    samplings = {
        axis: Sampling(dim, size, float(scale), coordinate, start, end)
        for axis, dim, (size, scale), (start, end) in zip(axes, dims, pairs, roi)
    }
    _require_sizes(call, samplings.values())
    return samplings


def _require_sizes(call: Call, samplings: Iterable[Sampling]) -> None:
    for sampling in samplings:
        if sampling.resized < 1 or not sampling.scale > 0:
            raise InvalidModel(
                f"node '{call.label}' ({call.op}) resizes {sampling.size} elements to "
                f"{sampling.resized}, by {sampling.scale:g}"
            )


def _roi(call: Call, axes: int) -> list[tuple[float, float]]:
    """Start and end of each axis, as fractions of it."""
    roi = call.known(1, "roi").astype(np.float64).reshape(-1).tolist()
    if len(roi) != 2 * axes:
        raise InvalidModel(f"node '{call.label}' (Resize) has {len(roi)} roi for {axes} axes")
    return list(zip(roi[:axes], roi[axes:]))


def _fitted(dims: Sequence[int], sizes: Sequence[int], policy: str) -> list[tuple[int, float]]:
    """Output size and scale of each axis; the policies keep the ratio of the axes."""
    if policy == "stretch":
        return [(size, size / dim) for size, dim in zip(sizes, dims)]
    if policy not in ("not_larger", "not_smaller"):
        raise UnsupportedModel(f"its keep_aspect_ratio_policy '{policy}' is not known")
    pick = min if policy == "not_larger" else max
    scale = pick(size / dim for size, dim in zip(sizes, dims))
    return [(math.floor(dim * scale + 0.5), scale) for dim in dims]


def _emit(call: Call, axes: Sequence[Sampling], filter_: Filter) -> Value:
    coordinates = [axis.coordinate for axis in axes if axis.size != axis.resized]
    return call.emit(
        "resize",
        call.value(0),
        sizes=tuple(axis.resized for axis in axes),
        scales=tuple(axis.scale for axis in axes),
        mode=filter_.mode,
        coordinate=coordinates[0] if coordinates else "asymmetric",
        nearest=filter_.nearest,
        cubic_a=filter_.cubic_a,
        exclude_outside=filter_.exclude_outside,
    )
