"""Rules of `recognize_attention`: operands are read, and results written, where they lie."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from planish.ir.builder import emit, make_node
from planish.ir.graph import Attr, Constant, Node, Result, Value
from planish.ir.op import OpKind
from planish.ir.ops import op_def
from planish.ir.ops.attention import Sizes, Strides
from planish.ir.types import DType
from planish.passes.pattern import Match, op
from planish.passes.rewrite import Refusal, Rule
from planish.passes.rounding import refuse_factor


def producer(found: Value, name: str) -> Node | None:
    """The node that computes a value, if it is of this op."""
    return found.node if isinstance(found, Result) and found.node.op == name else None


def scaled(node: Node) -> tuple[Value, float] | None:
    """The value that a node multiplies by, or divides by, a number, and the factor."""
    if node.op not in ("mul", "div"):
        return None
    pairs = (node.inputs, node.inputs[::-1]) if node.op == "mul" else (node.inputs,)
    for inner, number in pairs:
        single = isinstance(number, Constant) and number.data.size == 1
        if single and inner.type == node.outputs[0].type:
            assert isinstance(number, Constant)
            factor = float(number.data.item())
            if factor != 0:
                return inner, factor if node.op == "mul" else 1 / factor
    return None


def refuse_scale(scale: float, dtype: DType) -> Refusal | None:
    """Why an attention must not scale its scores by so much in place of what it reads."""
    return refuse_factor(np.array([scale]), dtype)


def _attention(node: Node, inputs: Sequence[Value], **changed: Attr) -> Value:
    return make_node("attention", inputs, {**node.attrs, **changed}).output


def _through_operand(match: Match) -> Value | None:
    """Read through the first operand that only rearranges, or scales, another value."""
    node = match.root
    sizes = Sizes.of(node.attrs)
    for number, (name, extents) in enumerate(zip("qkv", (sizes.q, sizes.k, sizes.v))):
        operand = node.inputs[number]
        if not isinstance(operand, Result):
            continue
        inputs = [*node.inputs]
        factor = scaled(operand.node) if name in "qk" else None
        if factor is not None:
            scale = node.attrs["scale"] * factor[1]
            if refuse_scale(scale, operand.type.dtype) is None:
                inputs[number] = factor[0]
                return _attention(node, inputs, scale=scale)
        strides = _behind(operand.node, node.attrs[name], extents)
        if strides is not None:
            inputs[number] = operand.node.inputs[0]
            return _attention(node, inputs, **{name: strides})
    return None


def _behind(view: Node, strides: Strides, extents: Sequence[int]) -> Strides | None:
    """Where the elements that are read from a view lie in its input; None if not at strides."""
    if view.op == "reshape":
        return strides
    lying = _lying(view)
    if lying is None:
        return None
    start, steps = lying
    shape = view.output.type.static_shape
    places = _places(strides, extents, shape)
    if places is None:
        return None
    at, moves = places
    offset = start + sum(i * step for i, step in zip(at, steps))
    return (offset, *(sum(m * step for m, step in zip(move, steps)) for move in moves))


def _lying(view: Node) -> tuple[int, list[int]] | None:
    """Offset and strides, in the memory of a view's input, of the view's dimensions."""
    inner = view.inputs[0].type.static_shape if view.inputs else ()
    dense = [math.prod(inner[axis + 1 :]) for axis in range(len(inner))]
    if view.op == "transpose":
        return 0, [dense[axis] for axis in view.attrs["perm"]]
    if view.op == "slice":
        starts, steps = view.attrs["starts"], view.attrs["steps"]
        if min(steps) < 1:
            return None
        offset = sum(start * stride for start, stride in zip(starts, dense))
        return offset, [step * stride for step, stride in zip(steps, dense)]
    if view.op == "broadcast_to":
        outer = view.output.type.static_shape
        missing = len(outer) - len(inner)
        kept = [stride if n > 1 else 0 for n, stride in zip(inner, dense)]
        return 0, [0] * missing + kept
    return None


def _places(
    strides: Strides, extents: Sequence[int], shape: Sequence[int]
) -> tuple[list[int], list[list[int]]] | None:
    """An offset and strides in a dense tensor as indices of its dimensions: where the offset is,
    and how far each stride moves each index; None if some index would leave its dimension."""
    at = [int(i) for i in np.unravel_index(strides[0], tuple(shape))]
    dense = [math.prod(shape[axis + 1 :]) for axis in range(len(shape))]
    last, moves = [*at], []
    for stride, extent in zip(strides[1:], extents):
        left, move = stride if extent > 1 else 0, [0] * len(shape)
        for axis, (step, size) in enumerate(zip(dense, shape)):
            if size > 1:
                move[axis], left = divmod(left, step)
                last[axis] += move[axis] * (extent - 1)
        moves.append(move)
    return (at, moves) if all(i < n for i, n in zip(last, shape)) else None


def _group_heads(match: Match) -> Value | None:
    """Keys and values that are repeated for several query heads are read once for each group."""
    node = match.root
    sizes = Sizes.of(node.attrs)
    if sizes.group > 1:
        return None
    repeated = [producer(operand, "broadcast_to") for operand in node.inputs[1:3]]
    if any(view is None for view in repeated):
        return None
    for group in range(sizes.heads, 1, -1):
        if sizes.heads % group:
            continue
        found: dict[str, Attr] = {}
        for name, view in zip("kv", repeated):
            assert view is not None
            offset, batch, head, row, column = node.attrs[name]
            extents = (sizes.k if name == "k" else sizes.v)[2:]
            split = (offset, batch, head * group, head, row, column)
            within = (sizes.batch, sizes.heads // group, group, *extents)
            moved = _behind(view, split, within)
            if moved is not None and moved[3] == 0:
                found[name] = (offset, batch, head * group, row, column)
        if len(found) == 2:
            return _attention(node, node.inputs, group=group, **found)
    return None


def _exchange_heads(match: Match) -> Value:
    """The transpose of rows and heads after an attention is a way to store its result."""
    node = match.node("attention")
    return _attention(node, node.inputs, heads_inside=not node.attrs["heads_inside"])


def _broadcast_mask(match: Match) -> Value | None:
    """A mask need not be broadcast: the attention does it."""
    node = match.root
    view = producer(node.inputs[3], "broadcast_to") if len(node.inputs) > 3 else None
    if view is None or view.inputs[0].type.rank != 4:
        return None
    return _attention(node, [*node.inputs[:3], view.inputs[0]])


def _one_row_of_mask(match: Match) -> Value | None:
    """Of a mask with equal rows one is read: its elements lie side by side for the lanes."""
    node = match.root
    if len(node.inputs) < 4 or node.inputs[3].type.shape[2] == 1:
        return None
    mask = node.inputs[3]
    if _varies(mask, 2 - mask.type.rank):
        return None
    stops = tuple(1 if axis == 2 else n for axis, n in enumerate(mask.type.static_shape))
    one = emit("slice", mask, starts=(0,) * 4, stops=stops, steps=(1,) * 4)
    return _attention(node, [*node.inputs[:3], one])


def _varies(value: Value, axis: int) -> bool:
    """False if the elements along an axis, counted from the end, are known to be equal."""
    stack, seen = [value], {value}
    while stack:
        found = stack.pop()
        if found.type.rank < -axis or found.type.shape[axis] == 1:
            continue
        if isinstance(found, Constant):
            data = np.moveaxis(np.asarray(found.data), axis, 0)
            if (data != data[:1]).any():
                return True
            continue
        if not isinstance(found, Result) or not _keeps_places(found.node):
            return True
        stack.extend(v for v in found.node.inputs if v not in seen)
        seen.update(found.node.inputs)
    return False


def _keeps_places(node: Node) -> bool:
    return node.op == "broadcast_to" or op_def(node.op).kind is OpKind.ELEMENTWISE


RULES: tuple[Rule, ...] = (
    Rule("repeated heads", op("attention"), _group_heads),
    Rule("attention reads through views", op("attention"), _through_operand),
    Rule("attention broadcasts its mask", op("attention"), _broadcast_mask),
    Rule("attention reads one row of its mask", op("attention"), _one_row_of_mask),
    Rule(
        "attention stores transposed",
        op(
            "transpose",
            op("attention", single_use=True, name="attention"),
            attrs={"perm": (0, 2, 1, 3)},
        ),
        _exchange_heads,
    ),
)
