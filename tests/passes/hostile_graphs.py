"""Small random graphs with hostile numbers: infinities, NaN, -0, extremes, numbers that round.

As in `large_random_graphs` an integer decides each op. `wrong` tells what a change of a graph does
to its results, beyond what one rounding more or less at any of its ops could do.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence

import ml_dtypes
import numpy as np

from planish.ir.builder import emit
from planish.ir.graph import Constant, Graph, Input, Node, Value, constant
from planish.ir.op import OpKind
from planish.ir.ops import op_def
from planish.ir.reference import run_node
from planish.ir.types import DType, tensor

FLOATS = (DType.FLOAT32, DType.FLOAT32, DType.FLOAT16, DType.BFLOAT16, DType.FLOAT64)
INTEGERS = (DType.INT32, DType.INT64, DType.INT8, DType.UINT8, DType.UINT32, DType.INT16)
_NUMBERS = (
    *(0.0, -0.0, 1.0, -1.0, 2.0, 0.5, 3.0, 0.1, -7.0, 1e-3, 1e-4, 1e4, 1e-8, 1e8, 255.0),
    *(1e-20, 1e20, 1e-30, 1e30, -1e30, 12582912.0, -12582912.0, 1536.0, 65504.0, 3e38, 1e-42),
    *(np.inf, -np.inf, np.nan),
)
_LARGEST = 300  # elements of a value
_COMPARISONS = ("less", "less_equal", "greater", "greater_equal", "equal")
#: Ops whose results are exact: they choose, move, or change a sign.
_EXACT = frozenset(
    (
        *("neg", "abs", "relu", "maximum", "minimum", "clip", "where"),
        *("sign", "floor", "ceil", "round", "not", "is_nan", "is_inf"),
    )
)


class _Growing:
    """A graph under construction in one element type."""

    def __init__(self, dtype: DType, shapes: Sequence[tuple[int, ...]]) -> None:
        self.dtype = dtype
        self.inputs = [Input(tensor(dtype, s), f"x{i}") for i, s in enumerate(shapes)]
        self.pool: list[Value] = [*self.inputs]
        self.random = random.Random(0)

    def one_of(self, *choices: object) -> str:
        return str(self.random.choice(choices))

    def flip(self) -> bool:
        return self.random.random() < 0.5

    def array(self, data: object) -> Constant:
        with np.errstate(all="ignore"):
            return constant(np.asarray(data).astype(self.dtype.numpy))

    def data(self, *shape: int, size: float = 1.0) -> Constant:
        rng = np.random.RandomState(self.random.randrange(1 << 20))
        return self.array(rng.uniform(-1.5, 1.5, shape) * size)

    def hostile(self, x: Value) -> Constant:
        """A constant that broadcasts to x: one number, or one for each channel, or all."""
        shape = x.type.static_shape
        forms = [(), (), shape[-1:], shape, (*shape[1:2], *(1,) * max(0, len(shape) - 2))]
        form = self.random.choice(forms)
        if self.dtype.is_integer:
            return constant(_integers(self.random, self.dtype, form))
        if self.random.random() < 0.6:
            return self.array(np.full(form, self.random.choice(_NUMBERS)))
        numbers = [self.random.choice(_NUMBERS) for _ in range(int(np.prod(form)))]
        return self.array(np.reshape(numbers, form))

    def like(self, x: Value) -> Value:
        return self.random.choice([v for v in self.pool if v.type == x.type])


def _integers(source: random.Random, dtype: DType, shape: tuple[int, ...]) -> np.ndarray:
    info = np.iinfo(dtype.numpy)
    known = [0, 1, 2, 3, 7, 31, info.min, info.max, info.min + 1, info.max // 2 + 1]
    known += [-1, -2, -3] if info.min else []
    numbers = [
        source.choice(known) if source.random() < 0.7 else source.randint(info.min, info.max)
        for _ in range(int(np.prod(shape)))
    ]
    return np.array(numbers, dtype.numpy).reshape(shape)


Grow = Callable[[_Growing, Value], Value]


def _with_constant(g: _Growing, x: Value) -> Value:
    ops = ["add", "sub", "mul", "maximum", "minimum"]
    ops += ["div", "mod"] if g.dtype.is_integer else ["div", "div"]
    op, c = g.one_of(*ops), g.hostile(x)
    pair = (x, c) if g.random.random() < 0.7 else (c, x)
    made = emit(op, *pair, **({"fmod": g.flip()} if op == "mod" else {}))
    return made if made.type == x.type else x


def _twice(g: _Growing, x: Value) -> Value:
    """Two constants of ops that undo each other."""
    first, second = g.random.choice(
        [("add", "sub"), ("mul", "div"), ("mul", "mul"), ("add", "add")]
    )
    c = g.hostile(x)
    if (first, second) == ("mul", "mul") and not g.dtype.is_integer:
        with np.errstate(all="ignore"):
            d = g.array(1 / c.data.astype(np.float64))
    else:
        d = c if g.flip() else g.hostile(x)
    middle = emit(first, x, c)
    if middle.type != x.type:
        return x
    if g.flip() and not g.dtype.value.startswith("u"):
        middle = emit("neg", middle)
    made = emit(second, middle, d)
    return made if made.type == x.type else x


def _power(g: _Growing, x: Value) -> Value:
    choices = (0, 1, 2, 3) if g.dtype.is_integer else (0.0, 1.0, 2.0, 3.0, 0.5, -1.0, -0.5, 1.5)
    base = emit("mul", x, x) if g.flip() else x
    return emit("pow", base, g.array(g.random.choice(choices)))


def _binary(g: _Growing, x: Value) -> Value:
    return emit(g.one_of("add", "sub", "mul", "maximum", "minimum"), x, g.like(x))


def _unary(g: _Growing, x: Value) -> Value:
    if g.dtype.is_integer:
        ops = ["abs", "relu"] + ([] if g.dtype.value.startswith("u") else ["neg", "sign"])
        return emit(g.one_of(*ops), x)
    ops = "neg neg abs relu sqrt exp log sigmoid tanh erf floor round reciprocal sign softplus"
    return emit(g.one_of(*ops.split()), x)


def _select(g: _Growing, x: Value) -> Value:
    other = g.like(x) if g.flip() else g.hostile(x)
    condition = emit(g.one_of(*_COMPARISONS), x, other)
    if g.flip():
        condition = emit("not", condition)
    made = emit("where", condition, x, x if g.random.random() < 0.2 else other)
    return made if made.type == x.type else x


def _clip(g: _Growing, x: Value) -> Value:
    low, high = (g.array(g.hostile(x).data.reshape(-1)[0]) for _ in range(2))
    if g.flip():
        return emit("clip", x, low, high)
    return emit("minimum", emit("maximum", emit("relu", x) if g.flip() else x, low), high)


def _cast(g: _Growing, x: Value) -> Value:
    """Through another type and back, where that is defined for all numbers."""
    if g.dtype.is_integer:
        other = g.random.choice(INTEGERS)
        return emit("cast", emit("cast", x, to=other), to=g.dtype)
    other = g.random.choice([DType.BOOL, *FLOATS])
    return emit("cast", emit("cast", x, to=other), to=g.dtype)


def _move(g: _Growing, x: Value) -> Value:
    shape = x.type.static_shape
    kind = g.random.randrange(4)
    if kind == 0:
        return emit("reshape", x, shape=(1, *shape) if len(shape) < 4 else (int(np.prod(shape)),))
    if kind == 1:
        return emit("transpose", x, perm=tuple(g.random.sample(range(len(shape)), len(shape))))
    if kind == 2:
        return emit("concat", x, g.like(x), axis=g.random.randrange(len(shape)))
    before = tuple(g.random.randrange(2) for _ in shape)
    fill = float(g.random.choice((0.0, 1.0, -2.0)))
    return emit("pad", x, before=before, after=before[::-1], value=fill)


def _reduce(g: _Growing, x: Value) -> Value:
    op = g.one_of("reduce_sum", "reduce_mean", "reduce_max", "reduce_min")
    return emit(op, x, axes=(g.random.randrange(x.type.rank),), keepdims=True)


def _weights(g: _Growing, *shape: int) -> Constant:
    return g.data(*shape, size=g.random.choice((1.0, 1.0, 1e-2, 1e-4, 1e3, 1e-20, 1e20)))


def _linear(g: _Growing, x: Value) -> Value:
    """A product with weights, and perhaps what scales and shifts it, on either side."""
    if g.flip():
        x = emit(g.one_of("mul", "add", "sub"), x, g.array(g.random.choice(_NUMBERS[:24])))
    shape = x.type.static_shape
    if len(shape) < 2:
        return emit("relu", x)
    spatial: tuple[int, ...] = ()
    if len(shape) == 4 and g.flip():
        spatial = (1, 1)
        ones, pad = (1, 1), (g.random.randrange(2),) * 2
        w = _weights(g, 3, shape[1], *(min(3, n) for n in shape[2:]))
        attrs = {"strides": ones, "dilations": ones, "before": pad, "after": pad, "groups": 1}
        y = emit("conv", x, w, **attrs)
    else:
        y = emit("matmul", x, _weights(g, shape[-1], 3))
    for _ in range(g.random.randrange(3)):
        size = g.random.choice((1.0, 1e-2, 1e-8, 1e8, 1e3))
        c = g.data(3, *spatial, size=size) if g.flip() else g.data(size=size)
        made = emit(g.one_of("mul", "add", "sub", "div"), y, c)
        y = made if made.type == y.type else y
    return y


def _batch_norm(g: _Growing, x: Value) -> Value:
    shape = x.type.static_shape[1:2]
    scale, bias, mean, var = (
        g.data(*shape, size=g.random.choice((1.0, 1e-4, 1e3))) for _ in "sbmv"
    )
    return emit("batch_norm", x, scale, bias, mean, emit("abs", var), epsilon=1e-5)


def _activation(g: _Growing, x: Value) -> Value:
    """As exporters write them, with numbers of their own, or nearly."""
    near = g.random.choice((1.0, 1.0, 1.0, 1.00002, 1.01))
    half, one = g.array(0.5 * near), g.array(1.0)
    kind = g.random.randrange(6)
    if kind == 0:
        bent = emit("add", emit("erf", emit("div", x, g.array(np.sqrt(2)))), one)
        return emit("mul", emit("mul", x, bent), half)
    if kind == 1:
        return emit("mul", x, emit("sigmoid", emit("mul", x, g.array(near))))
    if kind == 2:
        line = emit("relu", emit("add", x, g.array(3 * near)))
        return emit("div", emit("mul", x, emit("minimum", line, g.array(6))), g.array(6))
    if kind == 3:
        return emit("div", x, emit("add", emit("exp", emit("neg", x)), one))
    if kind == 4:
        soft = emit("log", emit("add", emit("exp", x), one))
        return emit("mul", x, emit("tanh", soft)) if g.flip() else soft
    total = emit("add", emit("mul", x, half), g.array(3e5))
    return emit("mul", x, emit("sigmoid", emit("sub", total, g.array(3e5))))


def _softmax(g: _Growing, x: Value) -> Value:
    axis = x.type.rank - 1
    if g.flip():
        x = emit("sub", x, emit("reduce_max", x, axes=(axis,), keepdims=True))
    powers = emit("exp", x)
    return emit("div", powers, emit("reduce_sum", powers, axes=(axis,), keepdims=True))


_BOTH: tuple[Grow, ...] = (
    _with_constant, _with_constant, _with_constant, _twice, _twice, _binary, _unary, _unary,
    _select, _clip, _cast, _move, _power,
)  # fmt: skip
_FLOAT: tuple[Grow, ...] = (_reduce, _linear, _linear, _activation, _softmax)


def hostile_graph(numbers: Sequence[int]) -> Graph:
    """The graph that a list of integers makes; the first one chooses the element type."""
    first = random.Random(numbers[0])
    dtype = first.choice(FLOATS if first.random() < 0.75 else INTEGERS)
    rank = first.choice((2, 2, 3, 4))
    shape = tuple(first.randint(1, 4) for _ in range(rank))
    g = _Growing(dtype, [shape] * first.randint(1, 2))
    for number in numbers:
        g.random = random.Random(number)
        x = g.pool[-1] if g.random.random() < 0.8 else g.random.choice(g.pool)
        kinds = _BOTH if dtype.is_integer else _BOTH + _FLOAT
        if not dtype.is_integer and x.type.rank > 1:
            kinds = (*kinds, _batch_norm)
        made = g.random.choice(kinds)(g, x)
        if 0 < made.type.elements <= _LARGEST and made.type.rank <= 4:
            g.pool.append(made)
    return Graph(tuple(g.inputs), (g.pool[-1], g.pool[len(g.pool) // 2]), ("y", "z"))


# --- what a graph gives, and how far that may move


def hostile_inputs(graph: Graph, seed: int) -> list[np.ndarray]:
    """Arrays of ordinary numbers with hostile ones among them; milder where products meet them."""
    source = random.Random(seed)
    found = []
    for value in graph.inputs:
        shape, dtype = value.type.static_shape, value.type.dtype
        if dtype.is_integer:
            found.append(_integers(source, dtype, shape))
            continue
        rng = np.random.RandomState(source.randrange(1 << 20))
        data = rng.standard_normal(shape) * source.choice((1.0, 1.0, 10.0, 0.01))
        flat = data.reshape(-1)
        for place in range(flat.size):
            if source.random() < 0.15:
                flat[place] = source.choice(_NUMBERS)
        with np.errstate(all="ignore"):
            found.append(data.astype(dtype.numpy))
    return found


def _is_float(array: np.ndarray) -> bool:
    return DType.of(array.dtype).is_float


#: Magnitudes, as powers of two, within which folding a factor elsewhere changes no over- or
#: underflow (`planish.passes.rounding`).
_INNER = {DType.FLOAT64: 400, DType.FLOAT32: 56, DType.BFLOAT16: 56, DType.FLOAT16: 4}
_PRECISION = {DType.FLOAT64: 53, DType.FLOAT32: 24, DType.BFLOAT16: 8, DType.FLOAT16: 11}
_OF_LARGEST = {
    DType.FLOAT64: 2.0**-30,
    DType.FLOAT32: 2.0**-16,
    DType.BFLOAT16: 2.0**-5,
    DType.FLOAT16: 2.0**-8,
}
_MEETS = (OpKind.CONTRACTION, OpKind.REDUCTION, OpKind.COMPOSITE)


def _run(
    graph: Graph, arrays: Sequence[np.ndarray], noise: np.random.RandomState | None = None
) -> tuple[list[np.ndarray], bool]:
    """The outputs, perhaps each float of each op a little off; and whether all stayed inside."""
    held: dict[Value, np.ndarray] = dict(zip(graph.inputs, arrays))
    inside = True
    for node in graph.nodes:
        given = [v.data if isinstance(v, Constant) else held[v] for v in node.inputs]
        for value, array in zip(node.outputs, run_node(node, given)):
            held[value] = array if noise is None else _off(node, array, noise)
            inside &= _stays_inside(array)
    results = [v.data if isinstance(v, Constant) else held[v] for v in graph.outputs]
    return results, inside


def _stays_inside(array: np.ndarray) -> bool:
    if not _is_float(array):
        return True
    wide = np.abs(array.astype(np.float64))
    known = wide[np.isfinite(wide) & (wide > 0)]
    reach = 2.0 ** _INNER[DType.of(array.dtype)]
    return not known.size or bool(known.max() < reach and known.min() > 1 / reach)


def _off(node: Node, array: np.ndarray, noise: np.random.RandomState) -> np.ndarray:
    if not _is_float(array) or node.op in _EXACT or op_def(node.op).kind is OpKind.MOVEMENT:
        return array
    dtype = DType.of(array.dtype)
    wide = array.astype(np.float64)
    step = np.maximum(np.abs(wide) * 2.0 ** (2 - _PRECISION[dtype]), float(_least(array.dtype)) * 4)
    with np.errstate(all="ignore"):
        return np.where(wide == 0, wide, wide + noise.choice((-1, 1), wide.shape) * step).astype(
            array.dtype
        )


def _least(dtype: np.dtype) -> object:
    return ml_dtypes.finfo(dtype).smallest_subnormal


def wrong(before: Graph, after: Graph, seed: int) -> str:
    """What of the results of `after` is not that of `before`; empty if nothing.

    NaN and infinities are where they were, integers equal, and floats within a few times of what
    roundings at each op of `before` move. Graphs of products, sums and norms are compared to what a
    tolerance leaves of their largest result, and where no number on the way is extreme: their
    factors may act before or behind.
    """
    arrays = hostile_inputs(before, seed)
    expected, inside = _run(before, arrays)
    meets = any(op_def(node.op).kind in _MEETS for node in before.nodes)
    if meets and not inside:
        return ""
    with np.errstate(all="ignore"):
        found, _ = _run(after, arrays)
        noises = [_run(before, arrays, np.random.RandomState(k))[0] for k in range(4)]
    for number, (right, got) in enumerate(zip(expected, found)):
        if (got.shape, got.dtype) != (right.shape, right.dtype):
            return f"output {number}: {got.dtype}{got.shape} for {right.dtype}{right.shape}"
        moved = [noise[number] for noise in noises]
        bad = _differs(right, got, moved, meets)
        if bad.any():
            place = tuple(int(i) for i in np.argwhere(bad)[0])
            return f"output {number} at {place}: {got[place]} for {right[place]} (seed {seed})"
    return ""


def _differs(
    right: np.ndarray, got: np.ndarray, moved: Sequence[np.ndarray], meets: bool
) -> np.ndarray:
    if not _is_float(right):
        settled = np.all([noise == right for noise in moved], axis=0)
        return np.asarray((got != right) & settled)
    dtype = right.dtype
    a, b = right.astype(np.float64), got.astype(np.float64)
    others = [noise.astype(np.float64) for noise in moved]
    kind, of_got, *kinds = (_kind(v) for v in (a, b, *others))
    settled = np.all([k == kind for k in kinds], axis=0)
    with np.errstate(all="ignore"):
        spread = np.max([np.abs(v - a) for v in others], axis=0)
        limit = 8 * spread + np.abs(a) * 2.0 ** (4 - _PRECISION[DType.of(dtype)])
        limit = limit + 16 * float(_least(dtype))  # type: ignore[arg-type]
        if meets:
            largest = np.abs(a[np.isfinite(a)]).max(initial=0.0)
            limit = limit + largest * _OF_LARGEST[DType.of(dtype)]
        far = np.abs(a - b) > limit
    return np.asarray(settled & ((kind != of_got) | ((kind == 0) & far)))


def _kind(wide: np.ndarray) -> np.ndarray:
    """0 for numbers, 2 for NaN, 1 and -1 for infinities."""
    signs = np.where(np.isinf(wide), np.sign(wide), 0.0)
    return np.asarray(np.where(np.isnan(wide), 2.0, signs))
