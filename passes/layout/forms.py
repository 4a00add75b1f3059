"""How each op works on blocks: which operands it reads in blocks, and the op that results."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from planish.ir.builder import make_node
from planish.ir.graph import Attrs, Constant, Node, Value
from planish.ir.op import OpKind
from planish.ir.ops import op_def
from planish.passes.layout.blocking import Blocking, beginning, has_channels, reshaped


@dataclass(frozen=True, slots=True)
class Form:
    """An op on blocks.

    `reads` tells for each operand whether it is read in blocks; `build` makes the result from the
    operands as they are read. `gives_blocks` is False where the result is in plain layout.
    """

    reads: tuple[bool, ...]
    build: Callable[[Sequence[Value]], Value]
    gives_blocks: bool = True


#: Element-wise ops whose result stays finite on the arbitrary values of surplus channels.
FINITE = frozenset(
    (
        *("add", "sub", "mul", "neg", "abs", "sign", "floor", "ceil", "round"),
        *("maximum", "minimum", "clip", "relu", "sigmoid", "tanh", "erf", "sin", "cos", "atan"),
        *("equal", "less", "less_equal", "greater", "greater_equal", "not", "and", "or", "where"),
        *("gelu", "silu", "hard_swish", "softplus", "mish"),
    )
)


def form_of(node: Node, blocking: Blocking) -> Form | None:
    """The op of a node on blocks (convolutions aside); None if it knows plain layout only."""
    if len(node.outputs) != 1 or not node.inputs or not node.output.type.is_static:
        return None
    if op_def(node.op).kind is OpKind.ELEMENTWISE:
        return _elementwise(node, blocking)
    if node.op == "concat":
        return _concat(node, blocking)
    if node.op not in _ATTRS or not has_channels(node.inputs[0]):
        return None
    if not has_channels(node.output):
        return _reduce_to_rows(node, blocking) if node.op.startswith("reduce") else None
    if not _keeps_channels(node, blocking):
        return None
    attrs = _ATTRS[node.op](node, blocking)
    return None if attrs is None else _on_first(node, attrs)


def _on_first(node: Node, attrs: Attrs) -> Form:
    """The same op with other attributes, its first operand in blocks."""

    def build(inputs: Sequence[Value]) -> Value:
        if node.op == "pad":
            return pad_blocks(inputs[0], attrs, node.provenance)
        return make_node(node.op, inputs, attrs, (), node.provenance).output

    return Form((True, *(False for _ in node.inputs[1:])), build)


def pad_blocks(x: Value, attrs: Attrs, provenance: Sequence[str]) -> Value:
    """Padding of blocks; `x` itself if there is none."""
    if not any((*attrs["before"], *attrs["after"])):
        return x
    return make_node("pad", [x], attrs, (), provenance).output


# --- element-wise ops


def _elementwise(node: Node, blocking: Blocking) -> Form | None:
    out = node.output
    if not has_channels(out):
        return None
    reads = tuple(_is_alike(value, out) for value in node.inputs)
    if not any(reads) or not all(_fits(value, out) for value in node.inputs):
        return None
    if blocking.has_surplus(out) and not _stays_finite(node):
        return None

    def build(inputs: Sequence[Value]) -> Value:
        fill = 1 if node.op == "div" else 0  # of constants: 0 / 0 would not be finite
        operands = [
            value if read else _beside(value, out, blocking, node, fill)
            for value, read in zip(inputs, reads)
        ]
        return make_node(node.op, operands, node.attrs, (), node.provenance).output

    return Form(reads, build)


def _is_alike(value: Value, out: Value) -> bool:
    """True if an operand has the channels of the result and varies."""
    if isinstance(value, Constant) or value.type.rank != out.type.rank or not has_channels(value):
        return False
    channels = value.type.static_shape[1]
    return channels == out.type.static_shape[1] and (
        channels > 1 or value.type.shape == out.type.shape
    )


def _aligned(value: Value, out: Value) -> tuple[int, ...]:
    return (1,) * (out.type.rank - value.type.rank) + value.type.static_shape


def _fits(value: Value, out: Value) -> bool:
    return value.type.is_static and _aligned(value, out)[1] in (1, out.type.static_shape[1])


def _stays_finite(node: Node) -> bool:
    if node.op == "div":
        divisor = node.inputs[1]
        return isinstance(divisor, Constant) and bool(np.all(divisor.data != 0))
    if node.op == "cast":
        given, to = node.inputs[0].type.dtype, node.attrs["to"]
        return not to.is_float or (
            to.itemsize >= given.itemsize if given.is_float else to.itemsize > 2
        )
    return node.op in FINITE


def _beside(value: Value, out: Value, blocking: Blocking, node: Node, fill: float) -> Value:
    """A constant, or an operand that is broadcast, in the shape that fits beside blocks."""
    if value.type.elements == 1:
        return reshaped(value, (), node.provenance)
    shape = _aligned(value, out)
    if shape[1] == 1:
        return reshaped(value, (*shape, 1), node.provenance)
    return blocking.pack(reshaped(value, shape, node.provenance), out, node.provenance, fill)


# --- concat


def _concat(node: Node, blocking: Blocking) -> Form | None:
    if not all(map(has_channels, (*node.inputs, node.output))):
        return None
    axis = node.attrs["axis"] % node.output.type.rank
    values = (*node.inputs, node.output)
    if len({blocking.block_of(value) for value in values}) > 1:
        return None
    if axis == 1:
        whole = not any(map(blocking.has_surplus, node.inputs[:-1]))
        if not whole or any(blocking.segments(value) > 1 for value in values):
            return None
    elif len({blocking.segments(value) for value in values}) > 1:
        return None

    def build(inputs: Sequence[Value]) -> Value:
        return make_node("concat", inputs, {"axis": axis}, (), node.provenance).output

    return Form((True,) * len(node.inputs), build)


# --- ops of H and W: their attributes over blocks, or None where they touch channels


def _keeps_channels(node: Node, blocking: Blocking) -> bool:
    x, out = node.inputs[0], node.output
    if blocking.block_of(x) != blocking.block_of(out):
        return False
    if x.type.static_shape[1] == out.type.static_shape[1]:
        return blocking.segments(x) == blocking.segments(out)
    return node.op == "slice" and blocking.segments(x) == blocking.segments(out) == 1


def _pool(node: Node, blocking: Blocking) -> Attrs | None:
    ones, zeros = ("window", "strides", "dilations"), ("before", "after", "counted_after")
    extend = {**dict.fromkeys(ones, 1), **dict.fromkeys(zeros, 0)}
    if node.attrs["window"][1] != 1 or node.attrs["strides"][1] != 1:
        return None
    longer = {
        name: (*node.attrs[name], value)
        for name, value in extend.items()
        if node.attrs[name] is not None
    }
    return {**node.attrs, **longer}


def _reduce(node: Node, blocking: Blocking) -> Attrs | None:
    axes = tuple(axis % node.inputs[0].type.rank for axis in node.attrs["axes"])
    return {**node.attrs, "axes": axes} if min(axes) >= 2 else None


def _reduce_to_rows(node: Node, blocking: Blocking) -> Form | None:
    """A reduction of all spatial dimensions, [N,C,*S] → [N,C], which is in plain layout."""
    x = node.inputs[0]
    attrs = _reduce(node, blocking)
    if attrs is None or attrs["keepdims"] or node.output.type.rank != 2:
        return None
    if blocking.has_surplus(x) and blocking.segments(x) > 1:
        return None

    def build(inputs: Sequence[Value]) -> Value:
        rows = make_node(node.op, inputs, attrs, (), node.provenance).output  # [N, C/b, b]
        shape = node.output.type.static_shape
        if not blocking.has_surplus(x):
            return reshaped(rows, shape, node.provenance)
        if shape[0] == 1:
            return beginning(rows, shape, node.provenance)
        channels = {"axis": 1, "block": blocking.block_of(x), "size": shape[1]}
        return make_node("unpack", [rows], channels, (), node.provenance).output

    return Form((True,), build, gives_blocks=False)


def _pad(node: Node, blocking: Blocking) -> Attrs | None:
    before, after = node.attrs["before"], node.attrs["after"]
    if before[1] or after[1]:
        return None
    return {**node.attrs, "before": (*before, 0), "after": (*after, 0)}


def _gather(node: Node, blocking: Blocking) -> Attrs | None:
    axis = node.attrs["axis"] % node.inputs[0].type.rank
    return {"axis": axis} if axis >= 2 and node.inputs[1].type.rank == 1 else None


def _softmax(node: Node, blocking: Blocking) -> Attrs | None:
    axis = node.attrs["axis"] % node.inputs[0].type.rank
    return {**node.attrs, "axis": axis} if axis >= 2 else None


def _slice(node: Node, blocking: Blocking) -> Attrs | None:
    """Whole blocks of channels, or all of them."""
    x = node.inputs[0]
    starts, stops, steps = (node.attrs[name] for name in ("starts", "stops", "steps"))
    start, stop, size, block = starts[1], stops[1], x.type.static_shape[1], blocking.block_of(x)
    if steps[1] != 1 or start % block or (stop % block and stop != size):
        return None
    last = blocking.blocks(x) if stop == size else stop // block
    return {
        "starts": (starts[0], start // block, *starts[2:], 0),
        "stops": (stops[0], last, *stops[2:], block),
        "steps": (*steps, 1),
    }


def _transpose(node: Node, blocking: Blocking) -> Attrs | None:
    perm = node.attrs["perm"]
    return {"perm": (*perm, len(perm))} if tuple(perm[:2]) == (0, 1) else None


def _shape(node: Node, blocking: Blocking) -> Attrs | None:
    """Reshape and broadcast_to that leave batch and channels as they are."""
    before, after = node.inputs[0].type.static_shape, node.output.type.static_shape
    same = before[:2] == after[:2] and (node.op == "reshape" or len(before) == len(after))
    return {"shape": blocking.shape(node.output)} if same else None


_ATTRS: Mapping[str, Callable[[Node, Blocking], Attrs | None]] = {
    "pool": _pool,
    **dict.fromkeys(("reduce_sum", "reduce_mean", "reduce_max", "reduce_min"), _reduce),
    "pad": _pad,
    "gather": _gather,
    **dict.fromkeys(("softmax", "log_softmax"), _softmax),
    "slice": _slice,
    "transpose": _transpose,
    **dict.fromkeys(("reshape", "broadcast_to"), _shape),
}
