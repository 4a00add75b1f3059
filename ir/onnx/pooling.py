"""Converters of pools with windows; ceil_mode becomes more padding behind."""

from __future__ import annotations

from collections.abc import Sequence

from planish.ir.dim import DimLike
from planish.ir.errors import InvalidModel, UnsupportedModel
from planish.ir.graph import Value
from planish.ir.onnx.call import Call
from planish.ir.onnx.convolution import Window, window_of
from planish.ir.wording import fix_by_dims


def max_pool(call: Call) -> Value:
    """MaxPool without the output Indices."""
    call.ignore("storage_order")  # the order of Indices
    return _pool(call, call.value(0), "max", False)


def average_pool(call: Call) -> Value:
    """AveragePool; padding counts as elements if count_include_pad."""
    return _pool(call, call.value(0), "average", bool(call.integer("count_include_pad", 0)))


def lp_pool(call: Call) -> Value:
    """LpPool: (Σ |x|ᵖ)^(1/p) over each window."""
    x, p = call.value(0), call.integer("p", 2)
    if p < 1:
        raise InvalidModel(f"node '{call.label}' ({call.op}) takes a norm with p={p}")
    powers = call.emit("abs", x)
    if p == 2:
        powers = call.emit("mul", x, x)
    elif p != 1:
        powers = call.emit("pow", powers, call.like(p, x))
    total = _pool(call, powers, "sum", False)
    if p == 1:
        return total
    if p == 2:
        return call.emit("sqrt", total)
    return call.emit("pow", total, call.like(1 / p, x))


def local_response_norm(call: Call) -> Value:
    """LRN: x / (bias + alpha/size · Σ x² over `size` channels around)^beta."""
    x, size = call.value(0), call.integer("size")
    alpha, beta = call.number("alpha", 1e-4), call.number("beta", 0.75)
    bias = call.number("bias", 1.0)
    rank = x.type.rank

    def on_channels(number: int, other: int) -> tuple[int, ...]:
        return tuple(number if axis == 1 else other for axis in range(rank))

    squares = call.emit(
        "pool",
        call.emit("mul", x, x),
        kind="sum",
        window=on_channels(size, 1),
        strides=(1,) * rank,
        dilations=(1,) * rank,
        before=on_channels((size - 1) // 2, 0),
        after=on_channels(size // 2, 0),
    )
    scaled = call.emit("mul", squares, call.like(alpha / size, x))
    base = call.emit("add", scaled, call.like(bias, x))
    return call.emit("div", x, call.emit("pow", base, call.like(beta, x)))


def _pool(call: Call, x: Value, kind: str, include_pad: bool) -> Value:
    kernel = call.integers("kernel_shape")
    spatial = x.type.shape[2:]
    window = window_of(call, kernel, spatial)
    ceil = bool(call.integer("ceil_mode", 0))
    behind = _ceiled(window, spatial) if ceil else window.after
    counted = (0, 0, *window.after) if include_pad and behind != window.after else None
    return call.emit(
        "pool",
        x,
        kind=kind,
        window=(1, 1, *window.kernel),
        strides=(1, 1, *window.strides),
        dilations=(1, 1, *window.dilations),
        before=(0, 0, *window.before),
        after=(0, 0, *behind),
        include_pad=include_pad,
        counted_after=counted,
    )


def _ceiled(window: Window, spatial: Sequence[DimLike]) -> tuple[int, ...]:
    """Padding behind, enlarged where a last, partial window counts too.

    A window that would start behind the data and their padding in front is left out
    (onnx/defs/nn/utils, as in other frameworks).
    """
    after = []
    for axis, dim in enumerate(spatial):
        if not isinstance(dim, int):
            raise UnsupportedModel(f"ceil_mode on the dynamic dimension {dim}; {fix_by_dims()}")
        front, stride, reach = window.before[axis], window.strides[axis], window.reach(axis)
        steps = -(-(dim + front + window.after[axis] - reach) // stride) + 1
        if (steps - 1) * stride >= dim + front:
            steps -= 1
        after.append(max(window.after[axis], (steps - 1) * stride + reach - dim - front))
    return tuple(after)
