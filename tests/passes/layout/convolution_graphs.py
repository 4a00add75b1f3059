"""Random small networks of convolutions and what stands between them, in float32."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from hypothesis import strategies as st

from planish.ir.builder import emit
from planish.ir.graph import Constant, Graph, Input, Value, constant
from planish.ir.types import DType, tensor

Draw = Callable[[Any], Any]


def _data(draw: Draw, *shape: int) -> Constant:
    rng = np.random.default_rng(draw(st.integers(0, 1000)))
    return constant((rng.standard_normal(shape) / np.sqrt(np.prod(shape[1:]))).astype("float32"))


def _conv(draw: Draw, x: Value, pool: list[Value]) -> Value:
    channels, *sizes = x.type.static_shape[1:]
    groups = draw(st.sampled_from([g for g in (1, 1, 2, channels) if channels % g == 0]))
    kernel = draw(st.sampled_from([k for k in (1, 3) if k <= min(sizes)]))
    pad = draw(st.integers(0, kernel // 2))
    per_group = 1 if groups == channels else draw(st.sampled_from((2, 4, 5, 8)))
    w = _data(draw, groups * per_group, channels // groups, kernel, kernel)
    stride, pads = draw(st.integers(1, 2)), (pad, pad)
    window = {"strides": (stride, stride), "dilations": (1, 1), "before": pads, "after": pads}
    return emit("conv", x, w, groups=groups, provenance=("Conv",), **window)


def _elementwise(draw: Draw, x: Value, pool: list[Value]) -> Value:
    return emit(draw(st.sampled_from(("relu", "exp", "tanh"))), emit("clip", x, _ONE, _TWO))


def _bias(draw: Draw, x: Value, pool: list[Value]) -> Value:
    op = draw(st.sampled_from(("add", "mul", "sub")))
    return emit(op, x, _data(draw, x.type.static_shape[1], 1, 1))


def _add(draw: Draw, x: Value, pool: list[Value]) -> Value:
    return emit("add", x, draw(st.sampled_from([v for v in pool if v.type == x.type])))


def _excite(draw: Draw, x: Value, pool: list[Value]) -> Value:
    squeezed = emit("reduce_mean", x, axes=(2, 3), keepdims=True)
    w = _data(draw, x.type.static_shape[1], x.type.static_shape[1], 1, 1)
    none = {"strides": (1, 1), "dilations": (1, 1), "before": (0, 0), "after": (0, 0)}
    return emit("mul", x, emit("sigmoid", emit("conv", squeezed, w, groups=1, **none)))


def _concat(draw: Draw, x: Value, pool: list[Value]) -> Value:
    alike = [v for v in pool if v.type.shape[2:] == x.type.shape[2:]]
    return emit("concat", x, draw(st.sampled_from(alike)), axis=1)


def _slice(draw: Draw, x: Value, pool: list[Value]) -> Value:
    shape = x.type.static_shape
    start = draw(st.sampled_from([c for c in (0, 4, 8) if c < shape[1]]))
    return emit("slice", x, starts=(0, start, 0, 0), stops=shape, steps=(1, 1, 1, 1))


def _space(draw: Draw, x: Value, pool: list[Value]) -> Value:
    batch, channels, height, width = x.type.static_shape
    kind = draw(st.sampled_from(("pool", "transpose", "gather", "pad", "softmax", "lines")))
    if kind == "pool":
        ones, window = (1,) * 4, (1, 1, min(2, height), 1)
        attrs = {"window": window, "strides": ones, "before": (0,) * 4, "after": (0,) * 4}
        return emit("pool", x, kind="max", dilations=ones, **attrs)
    if kind == "transpose":
        last = emit("relu", emit("transpose", x, perm=(0, 2, 3, 1)))
        return emit("transpose", last, perm=(0, 3, 1, 2))
    if kind == "gather":
        return emit("gather", x, constant(np.arange(width).repeat(2)[:16]), axis=3)
    if kind == "pad":
        return emit("pad", x, before=(0, 0, 1, 0), after=(0, 0, 0, 1), value=0.5)
    if kind == "softmax":
        return emit("softmax", x, axis=draw(st.integers(1, 3)))
    flat = emit("tanh", emit("reshape", x, shape=(batch, channels, height * width)))
    return emit("reshape", flat, shape=x.type.shape)


def _shuffle(draw: Draw, x: Value, pool: list[Value]) -> Value:
    batch, channels, *sizes = x.type.static_shape
    groups = 2 if channels % 2 == 0 else 1
    parts = emit("reshape", x, shape=(batch, groups, channels // groups, *sizes))
    swapped = emit("transpose", parts, perm=(0, 2, 1, 3, 4))
    return emit("reshape", swapped, shape=x.type.shape)


_ONE, _TWO = (constant(np.float32(number)) for number in (-1.0, 2.0))
_KINDS = (
    _conv,
    _conv,
    _conv,
    _elementwise,
    _bias,
    _add,
    _excite,
    _concat,
    _slice,
    _space,
    _shuffle,
)


@st.composite
def networks(draw: Draw, fewest: int = 2, most: int = 10) -> Graph:
    """A network with one input [1 or 2, C, H, W] and one or two outputs."""
    shape = [draw(st.integers(1, 2)), draw(st.sampled_from((3, 8, 10, 16)))]
    shape += [draw(st.sampled_from((1, 5, 12))) for _ in range(2)]
    x = Input(tensor(DType.FLOAT32, shape), "x")
    pool: list[Value] = [x]
    for _ in range(draw(st.integers(fewest, most))):
        source = pool[-1] if draw(st.integers(0, 2)) else draw(st.sampled_from(pool))
        made = draw(st.sampled_from(_KINDS))(draw, source, pool)
        if made.type.elements <= 20_000:
            pool.append(made)
    outputs = (pool[-1], draw(st.sampled_from(pool)))[: draw(st.integers(1, 2))]
    return Graph((x,), outputs, tuple(f"y{i}" for i in range(len(outputs))))
