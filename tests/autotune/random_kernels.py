"""Random graphs that the passes turn into kernels of each schedule space."""

from __future__ import annotations

import math
import random
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from planish.ir.builder import emit, make_node
from planish.ir.graph import Constant, Graph, Input, Value, constant
from planish.ir.ops.attention import dense
from planish.ir.parse import random_data
from planish.ir.text import print_graph
from planish.ir.types import DType, tensor

#: Sizes with every remainder by the widths of vectors, and primes.
SIZES = (1, 2, 3, 4, 5, 7, 8, 11, 13, 16, 17, 19, 24, 31, 32, 33, 48)
FLOATS = ("float32", "float32", "float32", "float64", "float16")
NUMBERS = (*FLOATS, "int32", "int64", "int8", "uint8")
#: Safe for every real number, and smooth or exact: no rounding error grows beyond the tolerances.
_UNARY = ("relu", "neg", "abs", "sigmoid", "tanh", "sin", "cos", "erf", "exp", "floor", "sign")
_SMOOTH = ("relu", "neg", "abs", "sigmoid", "tanh", "sin", "erf")
#: Safe for sums of thousands too: the rounding error of such a sum is large for a sine.
_OF_SUMS = tuple(word for word in _SMOOTH if word != "sin")
_BINARY = ("add", "sub", "mul", "maximum", "minimum")


@dataclass(slots=True)
class Draw:
    """The random choices of one graph, and the inputs that it takes so far.

    Names of inputs begin with `prefix`, so that graphs can be joined into one.
    """

    rng: random.Random
    prefix: str = ""
    inputs: list[Input] = field(default_factory=list)
    seeds: int = 0

    def of(self, values: Sequence[int]) -> int:
        """One of the numbers."""
        return self.rng.choice(values)

    def word(self, words: Sequence[str]) -> str:
        """One of the words."""
        return self.rng.choice(words)

    def chance(self, share: float) -> bool:
        """True for that share of the draws."""
        return self.rng.random() < share

    def shape(self, rank: int, most: int = 6000) -> tuple[int, ...]:
        """Sizes of a tensor of at most `most` elements."""
        shape: list[int] = []
        for _ in range(rank):
            room = most // math.prod(shape)
            shape.append(self.of([n for n in SIZES if n <= room]))
        self.rng.shuffle(shape)
        return tuple(shape)

    def input(self, *shape: int, dtype: str = "float32") -> Input:
        """A new input of the graph."""
        value = Input(tensor(dtype, shape), f"{self.prefix}x{len(self.inputs)}")
        self.inputs.append(value)
        return value

    def data(
        self, *shape: int, dtype: str = "float32", low: float = -1, high: float = 1
    ) -> Constant:
        """A constant that the text form spells as random(seed, low, high); its name says so."""
        self.seeds += 1
        array = random_data(tensor(dtype, shape), self.seeds, low, high)
        return constant(array, f"random({self.seeds}, {low}, {high})")


# --- what may follow an anchor


def _epilogue(draw: Draw, x: Value, unary: Sequence[str] = _SMOOTH) -> Value:
    """Up to three element-wise ops: smooth ones, and ones with constants and tensors."""
    for _ in range(draw.of((0, 1, 1, 2, 3))):
        x = _elementwise(draw, x, unary)
    return x


def _elementwise(draw: Draw, x: Value, unary: Sequence[str]) -> Value:
    dtype, shape = x.type.dtype, x.type.static_shape
    if dtype is DType.BOOL:
        return emit("xor", x, draw.data(*_broadcastable(draw, shape), dtype="bool"))
    kind = draw.of((0, 1, 1, 2, 3))
    if kind == 0:
        words = unary if dtype.is_float else ("relu", "abs")
        return emit(draw.word(words), x)
    if kind == 3:
        condition = draw.input(*_broadcastable(draw, shape), dtype="bool")
        other = draw.data(*_broadcastable(draw, shape), dtype=dtype.value, low=0, high=3)
        return emit("where", condition, x, other)
    low = -2 if dtype.is_float else 0
    other_shape = shape if kind == 2 else _broadcastable(draw, shape)
    if kind == 2 and draw.chance(0.7):
        operand: Value = draw.input(*other_shape, dtype=dtype.value)
    else:
        operand = draw.data(*other_shape, dtype=dtype.value, low=low, high=3)
    pair = (x, operand) if draw.chance(0.7) else (operand, x)
    return emit(draw.word(_BINARY), *pair)


def _broadcastable(draw: Draw, shape: tuple[int, ...]) -> tuple[int, ...]:
    """A shape that broadcasts to `shape`: a scalar, one or several of its dimensions."""
    if draw.chance(0.3):
        return ()
    kept = tuple(n if draw.chance(0.6) else 1 for n in shape)
    return kept[draw.of(range(len(kept) + 1)) :] if draw.chance(0.3) else kept


# --- the spaces


def conv(draw: Draw) -> Value:
    """Blocked convolutions: dense, 1x1, depthwise, the first layer; strided, dilated, padded."""
    kind = draw.word(("dense", "dense", "pointwise", "depthwise", "first"))
    channels = 3 if kind == "first" else draw.of((1, 5, 8, 13, 16, 17, 24, 32, 40))
    kernel = [1, 1] if kind == "pointwise" else [draw.of((1, 2, 3, 3, 5)) for _ in range(2)]
    dilations = [draw.of((1, 1, 1, 2)) for _ in range(2)]
    reach = [d * (k - 1) for d, k in zip(dilations, kernel)]
    before, after = ([draw.of(range(r + 1)) for r in reach] for _ in range(2))
    if draw.chance(0.2):
        before = [b + 1 for b in before]
    image = [draw.of([n for n in range(1, 24) if n + b > r]) for b, r in zip(before, reach)]
    x: Value = draw.input(draw.of((1, 1, 2)), channels, *image)
    if draw.chance(0.4):  # a kernel that can write into the padded tensor
        x = emit("relu", emit("add", x, draw.data(channels, 1, 1)))
    groups = channels if kind == "depthwise" else 1
    outputs = channels if kind == "depthwise" else draw.of((1, 6, 8, 16, 24, 33, 48, 64))
    attrs = {"strides": tuple(draw.of((1, 1, 2, 3)) for _ in range(2)), "groups": groups}
    weight = draw.data(outputs, channels // groups, *kernel)
    padding = {"before": tuple(before), "after": tuple(after), "dilations": tuple(dilations)}
    y = _epilogue(draw, emit("conv", x, weight, **padding, **attrs))
    if draw.chance(0.3):  # writes into the next one's padding
        weight = draw.data(draw.of((8, 13, 32)), outputs, 3, 3)
        same = dict.fromkeys(("before", "after", "strides", "dilations"), (1, 1))
        y = emit("conv", y, weight, groups=1, **same)
    return y


def winograd(draw: Draw) -> Value:
    """Transformed convolutions of any size, and 3x3 ones that become such, padded or not."""
    if draw.chance(0.5):
        block = draw.of((8, 16))
        image = [draw.of(range(3, 20)) for _ in range(2)]
        channels, outputs = draw.of((1, 2, 3)), draw.of((1, 2, 4))
        x: Value = draw.input(draw.of((1, 2)), channels, *image, block)
        u = draw.data(outputs, 4, 4, channels, block, block)
        return _epilogue(draw, emit("winograd_conv", x, u))
    channels, outputs = draw.of((16, 32, 48)), draw.of((8, 16, 24, 33, 64))
    image = [draw.of((9, 10, 12, 13, 16, 19)) for _ in range(2)]
    x = draw.input(draw.of((1, 1, 2)), channels, *image)
    if draw.chance(0.4):  # a kernel that can write into the padded tensor
        x = emit("relu", emit("add", x, draw.data(channels, 1, 1)))
    window = {side: tuple(draw.of((0, 1, 1)) for _ in range(2)) for side in ("before", "after")}
    unit = dict.fromkeys(("strides", "dilations"), (1, 1))
    weight = draw.data(outputs, channels, 3, 3)
    return _epilogue(draw, emit("conv", x, weight, groups=1, **window, **unit))


def matmul(draw: Draw) -> Value:
    """Products by constants, which are packed, and of two tensors; skinny, batched, broadcast."""
    rows = draw.of(range(1, 17)) if draw.chance(0.6) else draw.of((17, 29, 32, 48, 77))
    depth, columns = draw.of((1, 3, 8, 16, 33, 64, 100)), draw.of((1, 5, 8, 16, 31, 48, 64, 80))
    batch = tuple(draw.of((1, 2, 3)) for _ in range(draw.of((0, 0, 1, 2))))
    if draw.chance(0.5):
        x = draw.input(*batch, rows, depth)
        return _epilogue(draw, emit("matmul", x, draw.data(depth, columns)))
    dtype = draw.word((*FLOATS, "int32"))
    left = draw.input(*batch, rows, depth, dtype=dtype)
    others = tuple(n if draw.chance(0.7) else 1 for n in batch)
    right: Value = draw.input(*others, depth, columns, dtype=dtype)
    if draw.chance(0.3):
        swapped = (*range(len(batch)), len(batch) + 1, len(batch))
        turned = draw.input(*others, columns, depth, dtype=dtype)
        right = emit("transpose", turned, perm=swapped)
    return _epilogue(draw, emit("matmul", left, right))


def rows(draw: Draw) -> Value:
    """Softmax, norms and indices of extremes over any axis, reductions of the last dimensions."""
    rank, dtype = draw.of((1, 2, 3, 4)), draw.word(FLOATS)
    shape = draw.shape(rank)
    op = draw.word(("softmax", "log_softmax", "layer_norm", "rms_norm", "reduce", "reduce", "arg"))
    if op in ("reduce", "arg"):
        dtype = draw.word(NUMBERS)
    x: Value = draw.input(*shape, dtype=dtype)
    if draw.chance(0.4):
        x = emit("add", x, draw.data(*_broadcastable(draw, shape), dtype=dtype, low=0, high=2))
    axis = draw.of(range(rank))
    if op == "reduce":
        return _epilogue(draw, _reduction(draw, x, tuple(range(axis, rank))), _OF_SUMS)
    if op == "arg":
        attrs = {"axis": axis, "keepdims": draw.chance(0.5), "last": draw.chance(0.5)}
        return emit(draw.word(("arg_max", "arg_min")), x, **attrs)
    if "softmax" in op:
        return _epilogue(draw, emit(op, x, axis=axis))
    scale = draw.data(*shape[axis:], dtype=dtype, low=0.5, high=1.5)
    given = [x, scale]
    if op == "layer_norm":
        given.append(draw.data(*shape[axis:], dtype=dtype))
    return _epilogue(draw, emit(op, *given, axis=axis, epsilon=1e-3))


def _reduction(draw: Draw, x: Value, axes: tuple[int, ...]) -> Value:
    kinds = ["sum", "mean", "max", "min"]
    if x.type.dtype is DType.FLOAT64:
        kinds.append("prod")
    return emit(f"reduce_{draw.word(kinds)}", x, axes=axes, keepdims=draw.chance(0.5))


def window(draw: Draw) -> Value:
    """Reductions of any dimensions, and pooling."""
    if draw.chance(0.4):
        rank = draw.of((2, 3, 4, 5))
        x = draw.input(*draw.shape(rank, 3000), dtype=draw.word(NUMBERS))
        first = draw.of(range(rank - 1))
        others = [axis for axis in range(rank) if axis != first and draw.chance(0.3)]
        axes = tuple(sorted({first, *others}))
        if axes[-1] == rank - 1:
            axes = tuple(axis for axis in axes if axis != rank - 2) or (0,)
        return _epilogue(draw, _reduction(draw, x, axes), _OF_SUMS)
    image, attrs = _windows(draw, draw.of((1, 2, 2, 3)))
    x = draw.input(draw.of((1, 2)), draw.of((1, 3, 8, 16, 17)), *image, dtype=draw.word(NUMBERS))
    given = {name: (1, 1, *values) for name, values in attrs.items()}
    given |= {name: (0, 0, *attrs[name]) for name in ("before", "after")}
    pooled = draw.word(("max", "average", "sum"))
    return _epilogue(draw, emit("pool", x, kind=pooled, include_pad=draw.chance(0.5), **given))


def _windows(draw: Draw, rank: int) -> tuple[list[int], dict[str, tuple[int, ...]]]:
    """An image, and the attributes of windows over it that hold at least one of its elements."""
    size = [draw.of((1, 2, 3, 3)) for _ in range(rank)]
    dilations = [draw.of((1, 1, 2)) for _ in range(rank)]
    reach = [d * (k - 1) for d, k in zip(dilations, size)]
    before, after = ([draw.of(range(k)) for k in size] for _ in range(2))
    image = [draw.of(range(r + 1, 10 if rank == 3 else 20)) for r in reach]
    strides = [draw.of((1, 1, 2, 3)) for _ in range(rank)]
    names = ("window", "dilations", "before", "after", "strides")
    values = (size, dilations, before, after, strides)
    return image, {name: tuple(numbers) for name, numbers in zip(names, values)}


def plain_conv(draw: Draw) -> Value:
    """Convolutions that are not blocked: groups, one and three dimensions, other types."""
    rank = draw.of((1, 2, 2, 3))
    dtype = draw.word(("float32", "float64", "float16") if rank != 2 else ("float64", "float16"))
    image, attrs = _windows(draw, rank)
    groups, each, out = draw.of((1, 2, 3)), draw.of((1, 4, 5)), draw.of((1, 3, 8))
    x = draw.input(draw.of((1, 2)), groups * each, *image, dtype=dtype)
    weight = draw.data(groups * out, each, *attrs.pop("window"), dtype=dtype)
    return _epilogue(draw, emit("conv", x, weight, groups=groups, **attrs))


def pointwise(draw: Draw) -> Value:
    """Chains of element-wise ops, broadcasts and movement, of any type; or of movement alone."""
    if draw.chance(0.3):
        moved: Value = draw.input(*draw.shape(draw.of((2, 3, 4))), dtype=draw.word(NUMBERS))
        for _ in range(draw.of((1, 1, 2, 3))):
            moved = draw.rng.choice((_transpose, _transpose, _blocks, _reshape))(draw, moved)
        return moved
    shape = draw.shape(draw.of((0, 1, 2, 3, 4, 5)))
    x: Value = draw.input(*shape, dtype=draw.word((*NUMBERS, "bool")))
    for _ in range(draw.of(range(1, 7))):
        x = draw.rng.choice(_STEPS)(draw, x)
    return x


def _any_elementwise(draw: Draw, x: Value) -> Value:
    return _elementwise(draw, x, _UNARY if x.type.dtype is not DType.FLOAT16 else _SMOOTH)


def _transpose(draw: Draw, x: Value) -> Value:
    perm = list(range(x.type.rank))
    draw.rng.shuffle(perm)
    return emit("transpose", x, perm=tuple(perm))


def _concat(draw: Draw, x: Value) -> Value:
    if not x.type.rank or x.type.elements > 4000:
        return x
    axis = draw.of(range(x.type.rank))
    shape = list(x.type.static_shape)
    shape[axis] = draw.of((1, 3, 8, 16))
    parts = [x, draw.input(*shape, dtype=x.type.dtype.value)]
    draw.rng.shuffle(parts)
    return emit("concat", *parts, axis=axis)


def _slice(draw: Draw, x: Value) -> Value:
    starts, stops, steps = [], [], []
    for n in x.type.static_shape:
        begin = draw.of(range(n))
        backward = draw.chance(0.2)
        starts.append(begin)
        stops.append(-1 if backward else draw.of(range(begin + 1, n + 1)))
        steps.append(draw.of((-1, -2)) if backward else draw.of((1, 1, 2)))
    return emit("slice", x, starts=tuple(starts), stops=tuple(stops), steps=tuple(steps))


def _pad(draw: Draw, x: Value) -> Value:
    if not x.type.rank or x.type.elements > 4000 or x.type.dtype is DType.BOOL:
        return x
    before, after = (tuple(draw.of((0, 0, 1, 3)) for _ in x.type.shape) for _ in range(2))
    mode = draw.word(("constant", "constant", "edge", "reflect", "wrap"))
    if mode == "constant":
        return emit("pad", x, before=before, after=after, value=float(draw.of((0, 1))))
    limits = [min(1, int(n) - 1) for n in x.type.shape]
    before, after = (tuple(map(min, widths, limits)) for widths in (before, after))
    return emit("pad", x, before=before, after=after, mode=mode)


def _reshape(draw: Draw, x: Value) -> Value:
    shape = list(x.type.static_shape)
    cut = draw.of(range(len(shape) + 1))
    if draw.chance(0.5):
        return emit("reshape", x, shape=(*shape[:cut], 1, *shape[cut:]))
    return emit("reshape", x, shape=(math.prod(shape[:cut]), math.prod(shape[cut:])))


def _blocks(draw: Draw, x: Value) -> Value:
    if not x.type.rank or x.type.rank > 4 or x.type.elements > 4000:
        return x
    axis, block = draw.of(range(x.type.rank)), draw.of((4, 8, 16))
    packed = emit("pack", x, axis=axis, block=block)
    if draw.chance(0.5):
        return packed
    turned = emit("transpose", packed, perm=(*reversed(range(x.type.rank)), x.type.rank))
    attrs = {"axis": x.type.rank - 1 - axis, "block": block}
    return emit("unpack", turned, size=x.type.static_shape[axis], **attrs)


def _gather(draw: Draw, x: Value) -> Value:
    if not x.type.rank or x.type.elements > 4000:
        return x
    axis = draw.of(range(x.type.rank))
    size = x.type.static_shape[axis]
    index = draw.data(draw.of((1, 4, 17)), dtype="int64", low=-size, high=size)
    return emit("gather", x, index, axis=axis)


_STEPS: tuple[Callable[[Draw, Value], Value], ...] = (
    *(_any_elementwise,) * 5,
    *(_transpose,) * 2,
    _concat,
    _slice,
    _pad,
    _reshape,
    _blocks,
    _gather,
)


def attention(draw: Draw) -> Value:
    """Heads, groups, masks and causal ones."""
    group, dtype = draw.of((1, 1, 2, 3)), draw.word(("float32", "float32", "float16", "float64"))
    b, h = draw.of((1, 2)), group * draw.of((1, 2))
    m, n = draw.of((1, 7, 16, 33, 50)), draw.of((1, 5, 16, 48, 131))
    d, dv = draw.of((1, 4, 13, 16, 32)), draw.of((1, 5, 8, 32))
    shapes = {"q": (b, h, m, d), "k": (b, h // group, n, d), "v": (b, h // group, n, dv)}
    given: list[Value] = [draw.input(*shape, dtype=dtype) for shape in shapes.values()]
    attrs = {name: dense(shape) for name, shape in shapes.items()}
    causal = draw.of((0, 2, abs(n - m))) if draw.chance(0.3) else None
    if causal is None and draw.chance(0.4):
        mask = draw.rng.choice(((1, 1, 1, n), (b, 1, m, n), (1, h, m, 1)))
        given.append(draw.input(*mask, dtype=dtype))
    return emit(
        "attention",
        *given,
        sizes=(b, h, m, n, d, dv),
        group=group,
        causal=causal,
        scale=float(1 / math.sqrt(d)),
        heads_inside=draw.chance(0.5),
        **attrs,
    )


def loops(draw: Draw) -> Value:
    """Recurrent cells, scatters, sorts and running sums."""
    kind = draw.word(("lstm", "gru", "rnn", "scatter", "top_k", "cumsum"))
    if kind in ("lstm", "gru", "rnn"):
        return _recurrent(draw, kind)
    x = draw.input(*draw.shape(draw.of((1, 2, 3, 4))), dtype=draw.word((*FLOATS, "int32", "int64")))
    axis = draw.of(range(x.type.rank))
    size = x.type.static_shape[axis]
    if kind == "cumsum":
        attrs = {"exclusive": draw.chance(0.5), "reverse": draw.chance(0.5)}
        return emit("cumsum", x, axis=axis, **attrs)
    if kind == "top_k":
        attrs = {"axis": axis, "k": draw.of(range(1, size + 1)), "largest": draw.chance(0.5)}
        return make_node("top_k", [x], attrs).outputs[draw.of((0, 1))]
    index = draw.data(*x.type.static_shape, dtype="int64", low=-size, high=size)
    updates = draw.input(*x.type.static_shape, dtype=x.type.dtype.value)
    reduction = draw.word(("none", "max", "min", "add"))
    return emit("scatter_elements", x, index, updates, axis=axis, reduction=reduction)


def _recurrent(draw: Draw, kind: str) -> Value:
    steps, batch, n = draw.of((1, 3, 5)), draw.of((1, 2, 3)), draw.of((1, 5, 8, 16, 37))
    gates = {"lstm": 4, "gru": 3, "rnn": 1}[kind]
    given: list[Value] = [draw.input(steps, batch, gates * n)]
    given.append(draw.data(gates * n, n, low=-0.5, high=0.5))
    if kind == "gru":
        given.append(draw.data(3 * n))
    given.append(draw.input(batch, n))
    if kind == "lstm":
        given += [draw.input(batch, n), draw.data(3 * n)]
    node = make_node(kind, given, {"reverse": draw.chance(0.5)})
    return node.outputs[draw.of(range(len(node.outputs)))]


#: Space → a random value that it schedules.
GENERATORS: dict[str, Callable[[Draw], Value]] = {
    "pointwise": pointwise,
    "conv": conv,
    "winograd": winograd,
    "plain_conv": plain_conv,
    "matmul": matmul,
    "rows": rows,
    "window": window,
    "attention": attention,
    "loops": loops,
}


def random_graph(space: str, seed: int) -> Graph:
    """A graph with one output, around a kernel of the space; the same for the same seed."""
    draw = Draw(random.Random(f"{space} {seed}"), f"{space}{seed}_")
    value = GENERATORS[space](draw)
    used = [x for x in draw.inputs if x in set(Graph((), (value,)).values())]
    return Graph(tuple(used), (value,), (f"{space}{seed}",))


def spelled(graph: Graph) -> str:
    """The text form with `random(…)` in place of data: a golden file can begin with it."""
    return re.sub(r'"(random\([^"]*\))" = data\("[^"]*"\)', r"= \1", print_graph(graph))
