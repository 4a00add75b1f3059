"""Random float32 graphs of sixty ops and more, shaped like networks: one integer for each op.

A graph is made from a list of integers, each of which decides one op and its attributes, so that
hypothesis can delete and lessen them. Sample arrays are computed along the way: an op whose
result would be enormous, or would magnify rounding, is followed by what tames it.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence

import numpy as np
from hypothesis import strategies as st

from planish.ir.builder import emit
from planish.ir.graph import Constant, Graph, Input, Result, Value, constant
from planish.ir.parse import random_data
from planish.ir.reference import run_node
from planish.ir.types import tensor

#: Ops of a graph at least, before any pass.
FEWEST_OPS = 60
_LARGEST = 4000  # elements of a value
_COMPARISONS = ("less", "less_equal", "greater", "greater_equal")


class _Growing:
    """A graph under construction: its values so far, and an array for each."""

    def __init__(self, shapes: Sequence[tuple[int, ...]]) -> None:
        self.inputs = [Input(tensor("float32", s), f"x{i}") for i, s in enumerate(shapes)]
        self.pool: list[Value] = [*self.inputs]
        self.arrays: dict[Value, np.ndarray] = {
            v: random_data(v.type, i) for i, v in enumerate(self.inputs)
        }
        self.random = random.Random(0)

    def emit(self, op: str, *inputs: Value, **attrs: object) -> Value:
        made = emit(op, *inputs, **attrs)
        given = [v.data if isinstance(v, Constant) else self.arrays[v] for v in made.node.inputs]
        with np.errstate(all="ignore"):
            (self.arrays[made],) = run_node(made.node, given)
        return made

    def keep(self, made: Value) -> None:
        """Enter a value into the pool, tamed where it is large."""
        if 0 < made.type.elements <= _LARGEST:
            largest = np.abs(self.arrays[made]).max()
            self.pool.append(made if largest < 50 else self.emit("tanh", made))

    def one_of(self, *choices: object) -> object:
        return self.random.choice(choices)

    def below(self, top: int, low: int = 0) -> int:
        """An integer in low … top."""
        return self.random.randint(low, top)

    def flip(self) -> bool:
        return self.random.random() < 0.5

    def data(self, *shape: int, low: float = -1.0, high: float = 1.0) -> Constant:
        rng = np.random.RandomState(self.below(1 << 20))
        return constant((low + (high - low) * rng.random_sample(shape)).astype("float32"))

    def like(self, x: Value) -> Value:
        return self.random.choice([v for v in self.pool if v.type == x.type])


Grow = Callable[[_Growing, Value], Value]


def _unary(g: _Growing, x: Value) -> Value:
    op = g.one_of("relu", "neg", "abs", "sigmoid", "tanh", "sin", "cos", "erf", "atan")
    return g.emit(str(op), x)


def _positive(g: _Growing, x: Value) -> Value:
    op = g.one_of("sqrt", "log", "exp", "reciprocal")
    return g.emit(str(op), g.emit("add", g.emit("sigmoid", x), g.data(low=0.5, high=1.0)))


def _gelu(g: _Growing, x: Value) -> Value:
    half, one = constant(np.float32(0.5)), constant(np.float32(1))
    inner = g.emit("erf", g.emit("mul", x, constant(np.float32(0.70710677))))
    return g.emit("mul", g.emit("mul", x, half), g.emit("add", inner, one))


def _silu(g: _Growing, x: Value) -> Value:
    return g.emit("mul", x, g.emit("sigmoid", x))


def _hard_swish(g: _Growing, x: Value) -> Value:
    three, six = constant(np.float32(3)), constant(np.float32(6))
    line = g.emit("minimum", g.emit("relu", g.emit("add", x, three)), six)
    return g.emit("div", g.emit("mul", x, line), six)


def _rotary(g: _Growing, x: Value) -> Value:
    """Rows turned, in halves or interleaved; a value whose rows have no pairs is negated."""
    shape = x.type.static_shape
    half, zeros, ones = shape[-1] // 2, (0,) * (len(shape) - 1), (1,) * (len(shape) - 1)
    if shape[-1] % 2 or not half:
        return g.emit("neg", x)
    cos, sin = (g.data(*shape[-2:-1], shape[-1]) for _ in range(2))
    if g.flip():
        parts = [
            g.emit("slice", x, starts=(*zeros, k), stops=shape, steps=(*ones, 2)) for k in (0, 1)
        ]
        columns = [g.emit("reshape", part, shape=(*shape[:-1], half, 1)) for part in parts]
        mixed = g.emit("concat", g.emit("neg", columns[1]), columns[0], axis=len(shape))
        quarter = g.emit("reshape", mixed, shape=shape)
    else:
        first, second = (
            g.emit(
                "slice",
                x,
                starts=(*zeros, k * half),
                stops=(*shape[:-1], (k + 1) * half),
                steps=(*ones, 1),
            )
            for k in (0, 1)
        )
        quarter = g.emit("concat", g.emit("neg", second), first, axis=len(shape) - 1)
    return g.emit("add", g.emit("mul", x, cos), g.emit("mul", quarter, sin))


def _clip(g: _Growing, x: Value) -> Value:
    low, high = constant(np.float32(0)), constant(np.float32(g.below(6, 1)))
    return g.emit("minimum", g.emit("maximum", x, low), high)


def _with_constant(g: _Growing, x: Value) -> Value:
    shape = x.type.static_shape
    forms = [(), shape[-1:], shape, (*shape[1:2], *(1,) * max(0, len(shape) - 2))]
    c = g.data(*g.random.choice(forms), low=0.5, high=2.0)
    if g.flip():
        c = constant(np.full((), g.one_of(0.0, 1.0, -1.0, 2.0), np.float32))
    op = str(g.one_of("add", "sub", "mul", "maximum", "minimum", "div"))
    if op == "div" and not np.all(c.data):
        op = "mul"
    return g.emit(op, c, x) if op != "div" and g.flip() else g.emit(op, x, c)


def _binary(g: _Growing, x: Value) -> Value:
    op = str(g.one_of("add", "sub", "mul", "maximum", "minimum"))
    other = g.like(x)
    return g.emit(op, x, other) if op != "mul" else g.emit(op, x, g.emit("tanh", other))


def _broadcasting(g: _Growing, x: Value) -> Value:
    """Against a value with single elements where x has many."""
    axes = tuple(d for d in range(x.type.rank) if g.flip()) or (0,)
    other = g.emit("reduce_mean", g.like(x), axes=axes, keepdims=True)
    return g.emit(str(g.one_of("add", "sub", "mul")), x, other)


def _where(g: _Growing, x: Value) -> Value:
    """Continuous in what is compared, so that a last digit cannot flip much."""
    other = g.like(x)
    condition = g.emit(str(g.one_of(*_COMPARISONS)), x, other)
    if g.flip():
        return g.emit("where", g.emit("not", condition), x, other)
    return g.emit("where", condition, x, other)


def _mask(g: _Growing, x: Value) -> Value:
    """Selected by a model input, which no pass changes."""
    source = g.random.choice(g.inputs)
    count = x.type.static_shape[-1]
    flat = g.emit("reshape", source, shape=(source.type.elements,))
    row = g.emit("gather", flat, constant(np.arange(count) % source.type.elements), axis=0)
    condition = g.emit("greater", row, constant(np.float32(0.1)))
    return g.emit("where", condition, x, constant(np.float32(g.one_of(0, -2))))


def _reshape(g: _Growing, x: Value) -> Value:
    shape = list(x.type.static_shape)
    kind = g.below(2)
    if kind == 0 and len(shape) < 5:
        shape.insert(g.below(len(shape)), 1)
    elif kind == 1:
        shape = [n for n in shape if n != 1] or [1]
    elif len(shape) > 1:
        at = g.below(len(shape) - 2)
        shape[at : at + 2] = [shape[at] * shape[at + 1]]
    return g.emit("reshape", x, shape=tuple(shape))


def _to_image(g: _Growing, x: Value) -> Value:
    """Back to four dimensions, where convolutions are."""
    shape = x.type.static_shape
    while len(shape) > 4:
        shape = (shape[0] * shape[1], *shape[2:])
    return g.emit("reshape", x, shape=(1,) * (4 - len(shape)) + shape)


def _transpose(g: _Growing, x: Value) -> Value:
    order = list(range(x.type.rank))
    g.random.shuffle(order)
    if x.type.rank == 4 and g.flip():
        order = list(g.random.choice([(0, 2, 3, 1), (0, 3, 1, 2)]))
    return g.emit("transpose", x, perm=tuple(order))


def _broadcast(g: _Growing, x: Value) -> Value:
    shape = tuple(g.below(3, 1) if n == 1 else n for n in x.type.static_shape)
    return g.emit("broadcast_to", x, shape=shape)


def _slice(g: _Growing, x: Value) -> Value:
    starts, stops, steps = [], [], []
    for size in x.type.static_shape:
        start = g.below(min(2, size - 1))
        backwards = g.below(4) == 0
        starts.append(size - 1 - start if backwards else start)
        stops.append(-1 if backwards else size)
        steps.append(-1 if backwards else g.below(2, 1) if size > 6 else 1)
    return g.emit("slice", x, starts=tuple(starts), stops=tuple(stops), steps=tuple(steps))


def _pad(g: _Growing, x: Value) -> Value:
    mode = str(g.one_of("constant", "constant", "edge", "reflect"))
    room = [min(2, n - 1) if mode == "reflect" else 2 for n in x.type.static_shape]
    before, after = (tuple(g.below(n) if g.flip() else 0 for n in room) for _ in range(2))
    attrs: dict[str, object] = {"value": g.one_of(0.0, 1.0)} if mode == "constant" else {}
    return g.emit("pad", x, before=before, after=after, mode=mode, **attrs)


def _concat(g: _Growing, x: Value) -> Value:
    parts = [x, *(g.like(x) for _ in range(g.below(2)))]
    return g.emit("concat", *parts, axis=g.below(x.type.rank - 1))


def _split(g: _Growing, x: Value) -> Value:
    """Halves that meet again."""
    axis = g.below(x.type.rank - 1)
    shape = x.type.static_shape
    middle, zeros, steps = shape[axis] // 2, (0,) * len(shape), (1,) * len(shape)
    if not middle:
        return g.emit("neg", x)
    first = g.emit(
        "slice", x, starts=zeros, stops=(*shape[:axis], middle, *shape[axis + 1 :]), steps=steps
    )
    starts = (*zeros[:axis], middle, *zeros[axis + 1 :])
    second = g.emit("slice", x, starts=starts, stops=shape, steps=steps)
    return g.emit("concat", g.emit("relu", second), first, axis=axis)


def _gather(g: _Growing, x: Value) -> Value:
    axis = g.below(x.type.rank - 1)
    size = x.type.static_shape[axis]
    shape = g.random.choice([(), (1,), (3,), (size,), (2, 2)])
    if x.type.rank > 3:
        shape = g.random.choice([(2,), (size,)])
    elif x.type.rank == 1:
        shape = (size,)
    index = np.random.RandomState(g.below(99)).randint(-size, size, shape)
    return g.emit("gather", x, constant(np.asarray(index, np.int64)), axis=axis)


def _reduce(g: _Growing, x: Value) -> Value:
    axes = tuple(d for d in range(x.type.rank) if g.below(2) == 0) or (x.type.rank - 1,)
    op = str(g.one_of("reduce_mean", "reduce_max", "reduce_min", "reduce_sum"))
    keep = g.flip() or len(axes) >= x.type.rank - 1
    return g.emit(op, x, axes=axes, keepdims=keep)


def _softmax(g: _Growing, x: Value) -> Value:
    return g.emit(str(g.one_of("softmax", "log_softmax")), x, axis=g.below(x.type.rank - 1))


def _layer_norm(g: _Growing, x: Value) -> Value:
    axis = g.below(x.type.rank - 1, max(0, x.type.rank - 2))
    inner = x.type.static_shape[axis:]
    spread = g.arrays[x].std(axis=tuple(range(axis, x.type.rank)))
    if spread.min() < 0.1:  # it would magnify what rounding left
        return g.emit("tanh", x)
    scale, bias = g.data(*inner, low=0.5), g.data(*inner)
    return g.emit("layer_norm", x, scale, bias, axis=axis, epsilon=1e-5)


def _matmul(g: _Growing, x: Value) -> Value:
    weights = g.data(x.type.static_shape[-1], g.below(20, 1), low=-0.7, high=0.7)
    made = g.emit("matmul", x, weights)
    return g.emit("add", made, g.data(made.type.static_shape[-1])) if g.flip() else made


def _attention(g: _Growing, x: Value) -> Value:
    """softmax(x xᵀ) x."""
    other = g.emit("transpose", x, perm=(*range(x.type.rank - 2), x.type.rank - 1, x.type.rank - 2))
    scale = constant(np.float32(0.25))
    scores = g.emit("mul", g.emit("matmul", g.emit("tanh", x), g.emit("tanh", other)), scale)
    return g.emit("matmul", g.emit("softmax", scores, axis=x.type.rank - 1), x)


def _batch_norm(g: _Growing, x: Value) -> Value:
    shape = x.type.static_shape[1:2]
    parameters = (g.data(*shape, low=0.5), g.data(*shape), g.data(*shape), g.data(*shape, low=0.5))
    return g.emit("batch_norm", x, *parameters, epsilon=1e-3)


def _window(g: _Growing, extents: Sequence[int], most: int) -> tuple[int, ...]:
    return tuple(g.below(min(most, n), 1) for n in extents)


def _conv(g: _Growing, x: Value) -> Value:
    channels, *extents = x.type.static_shape[1:]
    groups = int(g.random.choice([n for n in (1, 1, 1, 2, channels) if channels % n == 0]))
    out = groups * g.below(2, 1) if groups > 1 and g.flip() else groups * g.below(3, 1) * 2
    if groups == 1:
        out = g.below(20, 1)
    window, dilations = _window(g, extents, 3), _window(g, extents, 2)
    reach = tuple(d * (k - 1) for d, k in zip(dilations, window))
    attrs = {
        "strides": tuple(g.below(2, 1) if n > 5 else 1 for n in extents),
        "dilations": dilations,
        "before": reach if g.flip() else tuple(r // 2 for r in reach),
        "after": tuple(r - r // 2 for r in reach),
        "groups": groups,
    }
    per_group = channels // groups
    scale = float(1.5 / np.sqrt(per_group * np.prod(window)))
    made = g.emit("conv", x, g.data(out, per_group, *window, low=-scale, high=scale), **attrs)
    if g.flip():
        made = g.emit("add", made, g.data(out, *(1,) * len(extents)))
    return g.emit("relu", made) if g.flip() else made


def _conv_transpose(g: _Growing, x: Value) -> Value:
    channels, *extents = x.type.static_shape[1:]
    if max(extents) > 9:
        return g.emit("relu", x)
    rank = len(extents)
    window = tuple(g.below(3, 1) for _ in extents)
    attrs = {name: (0,) * rank for name in ("before", "after", "output_padding")}
    attrs |= {"strides": tuple(g.below(2, 1) for _ in extents), "dilations": (1,) * rank}
    weights = g.data(channels, g.below(6, 1), *window, low=-0.5, high=0.5)
    return g.emit("conv_transpose", x, weights, groups=1, **attrs)


def _pool(g: _Growing, x: Value) -> Value:
    window = (1, 1, *_window(g, x.type.static_shape[2:], 3))
    before, after = (tuple(g.below(w - 1) for w in window) for _ in range(2))
    attrs = {
        "kind": g.one_of("max", "average"),
        "window": window,
        "strides": (1, 1, *_window(g, x.type.static_shape[2:], 2)),
        "dilations": (1,) * x.type.rank,
        "before": before,
        "after": after,
        "include_pad": g.flip(),
    }
    return g.emit("pool", x, **attrs)


def _resize(g: _Growing, x: Value) -> Value:
    extents = x.type.static_shape[2:]
    if max(extents) > 9:
        return g.emit("neg", x)
    scales = tuple(float(g.random.choice([1.0, 2.0, 1.5])) for _ in extents)
    sizes = tuple(int(n * s) for n, s in zip(extents, scales))
    return g.emit(
        "resize",
        x,
        sizes=(*x.type.static_shape[:2], *sizes),
        scales=(1.0, 1.0, *scales),
        mode=g.one_of("nearest", "linear", "cubic"),
        coordinate=g.one_of("half_pixel", "asymmetric", "align_corners"),
        nearest="floor",
    )


_ANY: tuple[Grow, ...] = (
    _unary, _unary, _positive, _gelu, _silu, _hard_swish, _rotary, _clip, _with_constant,
    _with_constant, _with_constant,
    _binary, _binary, _binary, _broadcasting, _where, _mask, _reshape, _transpose, _broadcast,
    _slice, _pad, _concat, _split, _gather, _reduce, _softmax, _layer_norm,
)  # fmt: skip
_ROWS: tuple[Grow, ...] = (_matmul, _matmul, _attention)
_CHANNELS: tuple[Grow, ...] = (_batch_norm,)
_SPATIAL: tuple[Grow, ...] = (_conv, _conv, _conv, _conv, _conv_transpose, _pool, _pool, _resize)


def _kinds(x: Value) -> list[Grow]:
    kinds = [*_ANY]
    if x.type.rank >= 2:
        kinds += [*_ROWS, *_CHANNELS]
    if x.type.rank in (3, 4):
        kinds += _SPATIAL * 2
    elif x.type.rank != 4:
        kinds += [_to_image] * 6
    return kinds


def large_graph(numbers: Sequence[int]) -> Graph:
    """The graph that a list of integers makes, one op or idiom for each.

    All values that nothing reads are outputs, and some inner ones too.
    """
    first = random.Random(numbers[0])
    shapes = [
        (first.randint(1, 2), first.choice([3, 4, 8, 12]), first.randint(4, 9), first.randint(4, 9))
    ]
    shapes += [shapes[0]] if first.random() < 0.5 else [(first.randint(2, 9), 12)]
    g = _Growing(shapes)
    for number in numbers:
        g.random = random.Random(number)
        x = g.pool[-1] if g.below(4) else g.random.choice(g.pool)
        if x.type.rank > 4 or x.type.rank == 0:
            x = g.pool[0]
        g.keep(g.random.choice(_kinds(x))(g, x))
    return _closed(g)


def _closed(g: _Growing) -> Graph:
    read = {value for made in g.pool if isinstance(made, Result) for value in made.node.inputs}
    ends = [value for value in g.pool if isinstance(value, Result) and value not in read]
    inner = [value for value in g.pool[:: max(1, len(g.pool) // 3)] if isinstance(value, Result)]
    outputs = tuple(dict.fromkeys([*ends, *inner]))
    names = tuple(f"y{i}" for i in range(len(outputs)))
    return Graph(tuple(g.inputs), outputs, names)


#: For graphs of FEWEST_OPS ops and more (an integer may make several).
numbers = st.lists(st.integers(0, 2**30), min_size=FEWEST_OPS, max_size=80)
