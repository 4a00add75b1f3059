"""Random graphs of small static tensors, full of what the passes look for."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from hypothesis import strategies as st

from planish.ir.builder import emit
from planish.ir.graph import Constant, Graph, Input, Value, constant
from planish.ir.parse import random_data
from planish.ir.reference import evaluate
from planish.ir.target import Target
from planish.ir.types import DType, tensor

TARGET = Target(
    name="test",
    arch="x86_64",
    triple="x86_64-linux-gnu",
    cpu="x86-64-v3",
    features=("avx2", "fma"),
    vector_bytes=32,
    vector_registers=16,
    l1=32768,
    l2=1 << 20,
    l3=1 << 24,
    cores=2,
)

# float64 throughout: the passes may reorder sums, and a tight tolerance then still holds.
_DTYPE = DType.FLOAT64
Draw = Callable[[Any], Any]


def _data(draw: Draw, shape: tuple[int, ...], low: float = -1.5, high: float = 1.5) -> Constant:
    rng = np.random.default_rng(draw(st.integers(0, 1000)))
    return constant(rng.uniform(low, high, shape))


def _unary(draw: Draw, x: Value, pool: list[Value]) -> Value:
    kinds = ("relu", "neg", "abs", "sigmoid", "tanh", "sin", "silu", "hard_swish")
    return emit(draw(st.sampled_from(kinds)), x)


def _activation(draw: Draw, x: Value, pool: list[Value]) -> Value:
    """GELU, SiLU or hard swish as arithmetic."""
    one, half = constant(np.array(1.0)), constant(np.array(0.5))
    kind = draw(st.sampled_from(("erf", "sigmoid", "clip")))
    if kind == "erf":
        step = emit("add", emit("erf", emit("div", x, constant(np.sqrt(np.array(2.0))))), one)
        return emit("mul", emit("mul", x, half), step)
    if kind == "sigmoid":
        return emit("mul", emit("sigmoid", x), x)
    three, six = constant(np.array(3.0)), constant(np.array(6.0))
    line = emit("relu", emit("add", x, three))
    return emit("div", emit("mul", x, emit("minimum", line, six)), six)


def _with_constant(draw: Draw, x: Value, pool: list[Value]) -> Value:
    shape = draw(
        st.sampled_from(
            ((), x.type.shape[-1:], (*x.type.shape[1:2], *(1,) * (x.type.rank - 2)), x.type.shape)
        )
    )
    number = draw(st.sampled_from((0.0, 1.0, -1.0, 2.0, 0.5, 3.0, None)))
    c = _data(draw, shape, 0.5) if number is None else constant(np.full(shape, number))
    op = draw(st.sampled_from(("add", "sub", "mul", "maximum", "minimum", "div")))
    if op == "div":
        c = constant(np.where(c.data == 0, 4.0, c.data))
    pair = (x, c) if op == "div" or draw(st.booleans()) else (c, x)
    return emit(op, *pair)


def _binary(draw: Draw, x: Value, pool: list[Value]) -> Value:
    same = [v for v in pool if v.type == x.type]
    op = draw(st.sampled_from(("add", "sub", "mul", "maximum", "minimum")))
    return emit(op, x, draw(st.sampled_from(same)))


def _power(draw: Draw, x: Value, pool: list[Value]) -> Value:
    return emit("pow", emit("tanh", x), constant(np.array(draw(st.sampled_from((1.0, 2.0, 3.0))))))


def _reshape(draw: Draw, x: Value, pool: list[Value]) -> Value:
    shape = list(x.type.static_shape)
    if draw(st.booleans()) and x.type.rank < 5:
        shape.insert(draw(st.integers(0, len(shape))), 1)
    elif draw(st.booleans()):
        shape = [s for s in shape if s != 1] or [1]
    else:
        cut = draw(st.integers(0, len(shape)))
        shape = [int(np.prod(shape[:cut])), int(np.prod(shape[cut:]))]
    return emit("reshape", x, shape=tuple(shape))


def _transpose(draw: Draw, x: Value, pool: list[Value]) -> Value:
    return emit("transpose", x, perm=tuple(draw(st.permutations(range(x.type.rank)))))


def _broadcast(draw: Draw, x: Value, pool: list[Value]) -> Value:
    shape = tuple(draw(st.sampled_from((1, 2))) if s == 1 else s for s in x.type.static_shape)
    more = (draw(st.sampled_from((1, 2))),) if x.type.rank < 4 else ()
    return emit("broadcast_to", x, shape=(*more, *shape))


def _slice(draw: Draw, x: Value, pool: list[Value]) -> Value:
    starts, stops, steps = [], [], []
    for size in x.type.static_shape:
        start = draw(st.integers(0, size - 1))
        if draw(st.booleans()):
            stop, step = size, draw(st.integers(1, 2))
        else:
            stop, step = -1, -1
        starts.append(start)
        stops.append(stop)
        steps.append(step)
    return emit("slice", x, starts=tuple(starts), stops=tuple(stops), steps=tuple(steps))


def _pad(draw: Draw, x: Value, pool: list[Value]) -> Value:
    before, after = (tuple(draw(st.integers(0, 1)) for _ in x.type.shape) for _ in range(2))
    fill = draw(st.sampled_from((0.0, 1.0)))
    return emit("pad", x, before=before, after=after, value=fill)


def _reduce(draw: Draw, x: Value, pool: list[Value]) -> Value:
    axis = draw(st.integers(0, x.type.rank - 1))
    op = draw(st.sampled_from(("reduce_mean", "reduce_max")))
    return emit(op, x, axes=(axis,), keepdims=True)


def _cast(draw: Draw, x: Value, pool: list[Value]) -> Value:
    return emit("cast", emit("cast", x, to=DType.FLOAT64), to=_DTYPE)


def _concat(draw: Draw, x: Value, pool: list[Value]) -> Value:
    same = [v for v in pool if v.type == x.type]
    parts = [x] if draw(st.booleans()) else [x, draw(st.sampled_from(same))]
    return emit("concat", *parts, axis=draw(st.integers(0, x.type.rank - 1)))


def _constants_only(draw: Draw, x: Value, pool: list[Value]) -> Value:
    weight = emit("mul", _data(draw, x.type.static_shape), _data(draw, ()))
    return emit("add", x, emit("neg", weight))


def _matmul(draw: Draw, x: Value, pool: list[Value]) -> Value:
    columns = draw(st.integers(1, 4))
    return emit("matmul", x, _data(draw, (int(x.type.shape[-1]), columns)))


def _batch_norm(draw: Draw, x: Value, pool: list[Value]) -> Value:
    shape = (int(x.type.shape[1]),)
    scale, bias, mean = (_data(draw, shape) for _ in range(3))
    return emit("batch_norm", x, scale, bias, mean, _data(draw, shape, 0.5), epsilon=1e-3)


def _per_dim(draw: Draw, rank: int, low: int, high: int) -> tuple[int, ...]:
    return tuple(draw(st.integers(low, high)) for _ in range(rank))


def _conv(draw: Draw, x: Value, pool: list[Value]) -> Value:
    channels, *extents = x.type.static_shape[1:]
    rank = len(extents)
    groups = draw(st.sampled_from([g for g in (1, 2, channels) if channels % g == 0]))
    window, strides, dilations = (_per_dim(draw, rank, 1, top) for top in (3, 2, 2))
    reach = tuple(d * (k - 1) for d, k in zip(dilations, window))
    weight = _data(draw, (2 * groups, channels // groups, *window))
    same = {"strides": strides, "dilations": dilations, "groups": groups}
    return emit("conv", x, weight, before=reach, after=_per_dim(draw, rank, 0, 2), **same)


def _conv_transpose(draw: Draw, x: Value, pool: list[Value]) -> Value:
    channels, *extents = x.type.static_shape[1:]
    rank = len(extents)
    zeros, ones, window = (0,) * rank, (1,) * rank, _per_dim(draw, rank, 1, 3)
    attrs = dict.fromkeys(("before", "after", "output_padding"), zeros)
    attrs |= {"strides": window, "dilations": ones}
    groups = 1
    if draw(st.booleans()):
        groups = draw(st.sampled_from([g for g in (1, 2, channels) if channels % g == 0]))
        attrs["strides"], attrs["dilations"] = (_per_dim(draw, rank, 1, 2) for _ in range(2))
        pairs = zip(attrs["strides"], attrs["dilations"], extents, window)
        sizes = [(n - 1) * s + d * (k - 1) + 1 for s, d, n, k in pairs]
        attrs["before"] = tuple(draw(st.integers(0, min(3, size - 1))) for size in sizes)
        attrs["output_padding"] = tuple(draw(st.integers(0, s - 1)) for s in attrs["strides"])
    weight = _data(draw, (channels, 2, *window))
    return emit("conv_transpose", x, weight, groups=groups, **attrs)


def _pool(draw: Draw, x: Value, pool: list[Value]) -> Value:
    rank = x.type.rank
    window = (1, 1, *(draw(st.integers(1, min(2, int(n)))) for n in x.type.shape[2:]))
    before, after = (tuple(draw(st.integers(0, w - 1)) for w in window) for _ in range(2))
    kind, ones = draw(st.sampled_from(("max", "average", "sum"))), (1,) * rank
    attrs = {"window": window, "strides": window, "before": before, "after": after}
    return emit("pool", x, kind=kind, dilations=ones, **attrs)


_ANY = (
    _unary, _activation, _with_constant, _with_constant, _binary, _power, _reshape, _transpose,
    _broadcast, _slice, _pad, _reduce, _cast, _concat, _constants_only,
)  # fmt: skip
_CHANNELS = (_batch_norm, _batch_norm)
_SPATIAL = (_conv, _conv, _conv_transpose, _conv_transpose, _pool)


@st.composite
def graphs(draw: Draw) -> Graph:
    """A graph with one or two inputs of rank 2 to 4 and one to three outputs."""
    shapes = st.lists(st.integers(1, 5), min_size=2, max_size=4)
    inputs = [Input(tensor(_DTYPE, draw(shapes)), f"x{i}") for i in range(draw(st.integers(1, 2)))]
    pool: list[Value] = [*inputs]
    for _ in range(draw(st.integers(4, 14))):
        x = pool[-1] if draw(st.integers(0, 3)) else draw(st.sampled_from(pool))
        kinds = [*_ANY]
        if x.type.rank >= 2:
            kinds += [_matmul, *_CHANNELS]
        if x.type.rank in (3, 4):
            kinds += _SPATIAL
        made = draw(st.sampled_from(kinds))(draw, x, pool)
        if made.type.elements <= 2000:
            pool.append(made)
    outputs = [pool[-1], *draw(st.lists(st.sampled_from(pool), max_size=2))]
    return Graph(tuple(inputs), tuple(outputs), tuple(f"y{i}" for i in range(len(outputs))))


def assert_same_results(before: Graph, after: Graph, rtol: float = 1e-9, seed: int = 0) -> None:
    """Both graphs give the same on the same random inputs, to `rtol` of the largest element."""
    inputs = {v.name: random_data(v.type, seed + i) for i, v in enumerate(before.inputs)}
    expected, found = evaluate(before, inputs), evaluate(after, inputs)
    assert list(expected) == list(found)
    for name, array in expected.items():
        assert (array.shape, array.dtype) == (found[name].shape, found[name].dtype), name
        scale = np.abs(array[np.isfinite(array)]).max(initial=0) if array.dtype.kind == "f" else 0
        np.testing.assert_allclose(found[name], array, rtol, rtol * scale, err_msg=name)
