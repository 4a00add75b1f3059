"""Converters of Slice and Pad, whose operands moved from attributes to inputs."""

from __future__ import annotations

from collections.abc import Sequence

from planish.ir.dim import Dim, DimLike, dim_max, dim_min
from planish.ir.errors import InvalidModel, UnsupportedModel
from planish.ir.graph import Value
from planish.ir.onnx.call import Call
from planish.ir.wording import fix_by_dims

# Exporters write "to the end" as the largest int32 or int64, or as 10⁹ (jax2tf); a symbolic
# dimension cannot be compared with those, but no real one is as large.
_FAR = 10**9


def slice_by_attributes(call: Call) -> Value:
    """Slice before opset 10."""
    starts, stops = call.integers("starts"), call.integers("ends")
    axes = call.integers("axes", tuple(range(len(starts))))
    return _slice(call, starts, stops, axes, (1,) * len(starts))


def slice_by_inputs(call: Call) -> Value:
    """Slice since opset 10."""
    starts, stops = call.sizes(1, "starts"), call.sizes(2, "ends")
    axes = tuple(range(len(starts))) if call.optional(3) is None else call.ints(3, "axes")
    steps = (1,) * len(starts) if call.optional(4) is None else call.ints(4, "steps")
    return _slice(call, starts, stops, axes, steps)


def _slice(
    call: Call,
    starts: Sequence[DimLike],
    stops: Sequence[DimLike],
    axes: Sequence[int],
    steps: Sequence[int],
) -> Value:
    x = call.value(0)
    shape = x.type.shape
    if not len(starts) == len(stops) == len(axes) == len(steps) or 0 in steps:
        raise InvalidModel(
            f"node '{call.label}' (Slice) has starts {list(starts)}, ends {list(stops)}, "
            f"axes {list(axes)} and steps {list(steps)}"
        )
    call.axes(axes, len(shape))
    firsts: list[DimLike] = [0] * len(shape)
    lasts: list[DimLike] = list(shape)
    strides = [1] * len(shape)
    for start, stop, axis, step in zip(starts, stops, axes, steps):
        at = call.axis(axis, len(shape))
        strides[at] = step
        firsts[at], lasts[at] = _range(start, stop, step, shape[at])
        if firsts[at] == lasts[at]:  # nothing is taken, from wherever
            firsts[at], lasts[at], strides[at] = 0, 0, 1
    if not any(firsts) and tuple(lasts) == shape and set(strides) <= {1}:
        return x
    return call.emit("slice", x, starts=tuple(firsts), stops=tuple(lasts), steps=tuple(strides))


def _range(start: DimLike, stop: DimLike, step: int, dim: DimLike) -> tuple[DimLike, DimLike]:
    """Start and stop as Python's slice.indices gives them, for symbolic dimensions too."""
    low, high = (0, dim) if step > 0 else (-1, dim - 1)
    first, last = (_clamp(bound, low, high, dim) for bound in (start, stop))
    if step > 0:
        return first, dim_max(first, last)
    return first, dim_min(first, last)


def _clamp(bound: DimLike, low: int, high: DimLike, dim: DimLike) -> DimLike:
    if isinstance(bound, int):
        if bound >= _FAR:
            return high
        if bound <= -_FAR:
            return low
        if bound < 0:
            bound = bound + dim
    elif bound.lo is None or bound.lo < 0:
        if bound.hi is None or bound.hi >= 0:
            raise UnsupportedModel(f"slices at {bound}, whose sign is open; {fix_by_dims()}")
        bound = bound + dim
    return dim_max(low, dim_min(bound, high))


def pad_by_attributes(call: Call) -> Value:
    """Pad before opset 11."""
    value = call.number("value", 0.0)
    return _pad(call, call.integers("pads"), value, None)


def pad_by_inputs(call: Call) -> Value:
    """Pad since opset 11; the axes are an input since 18."""
    value: float = 0
    if call.optional(2) is not None:
        value = call.known(2, "constant_value").reshape(-1)[0].item()
    axes = None if call.optional(3) is None else call.ints(3, "axes")
    return _pad(call, call.ints(1, "pads"), value, axes)


def _pad(call: Call, pads: Sequence[int], value: float, axes: Sequence[int] | None) -> Value:
    x, mode = call.value(0), call.text("mode", "constant")
    rank = x.type.rank
    if mode not in ("constant", "reflect", "edge", "wrap"):
        raise UnsupportedModel(f"its mode '{mode}' is not known")
    over = tuple(range(rank)) if axes is None else tuple(call.axis(axis, rank) for axis in axes)
    if len(pads) != 2 * len(over):
        raise InvalidModel(f"node '{call.label}' (Pad) has pads {list(pads)} for {x.type}")
    before, after = [0] * rank, [0] * rank
    for i, axis in enumerate(over):
        before[axis], after[axis] = pads[i], pads[i + len(over)]
    if not any(before) and not any(after):
        return x
    if mode != "constant":
        x = _cropped(call, x, before, after)
        before, after = [max(0, n) for n in before], [max(0, n) for n in after]
        value = 0
    return call.emit("pad", x, before=tuple(before), after=tuple(after), mode=mode, value=value)


def _cropped(call: Call, x: Value, before: Sequence[int], after: Sequence[int]) -> Value:
    """`x` without what negative pads take away."""
    for axis, (front, back) in enumerate(zip(before, after)):
        stop = x.type.shape[axis] + min(0, back)
        if isinstance(stop, Dim) and stop.lo is None:
            raise UnsupportedModel(f"crops the dynamic dimension {x.type.shape[axis]}")
        x = call.crop(x, axis, max(0, -front), stop)
    return x
