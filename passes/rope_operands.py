"""Rules of `recognize_rope`: parts of rows, tables by half, transposes behind the embedding."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from planish.ir.builder import emit, make_node
from planish.ir.graph import Constant, Node, Result, Value, constant
from planish.ir.op import OpKind
from planish.ir.ops import op_def
from planish.passes.attention_operands import producer
from planish.passes.pattern import Match, op, value
from planish.passes.rewrite import Refusal, Rule

#: Steps back from a table to where its halves are seen to be equal.
_LONGEST = 16


@dataclass(frozen=True, slots=True)
class Part:
    """Elements start, start + step, … (`count`) of the rows of `source`, times `sign`."""

    source: Value
    start: int
    step: int
    count: int
    sign: int = 1
    nodes: tuple[Node, ...] = ()


def part_of(value: Value) -> Part:
    """What part of the rows of which tensor a value is; of itself, if of no other."""
    sign, nodes = 1, []
    found = value
    while isinstance(found, Result):
        node = found.node
        part = _sliced(node, value)
        if part is not None:
            source, start, step = part
            nodes.append(node)
            if isinstance(source, Result) and source.type != node.inputs[0].type:
                nodes.append(source.node)
            return Part(source, start, step, value.type.static_shape[-1], sign, tuple(nodes))
        if node.op == "neg":
            sign = -sign
        elif node.op != "reshape" or not _keeps_rows(node, value):
            break
        nodes.append(node)
        found = node.inputs[0]
    return Part(value, 0, 1, value.type.static_shape[-1] if value.type.rank else 1)


def _keeps_rows(node: Node, value: Value) -> bool:
    """True if a reshape only puts in, or leaves out, ones of what is `value` by elements."""
    inner = node.inputs[0].type
    return inner.is_static and _solid(inner.static_shape) == _solid(value.type.static_shape)


def _solid(shape: Sequence[int]) -> list[int]:
    return [n for n in shape if n != 1]


def _sliced(node: Node, value: Value) -> tuple[Value, int, int] | None:
    """Source, start and step, if the node cuts elements of rows so that they are `value`."""
    if node.op != "slice":
        return None
    source = node.inputs[0]
    shape, out = source.type.static_shape, node.output.type.static_shape
    starts, steps = node.attrs["starts"], node.attrs["steps"]
    cut = [axis for axis, (n, m) in enumerate(zip(shape, out)) if n != m or steps[axis] != 1]
    if len(cut) != 1 or steps[cut[0]] < 1 or starts[cut[0]] < 0:
        return None
    (axis,) = cut
    row = value.type.static_shape
    if axis == len(shape) - 1 and out == row:
        return source, starts[axis], steps[axis]
    split = producer(source, "reshape")  # of rows into [first or second, …] or […, first or second]
    if split is None or out[axis] != 1 or axis < len(shape) - 2:
        return None
    whole = split.inputs[0]
    if whole.type.shape != (*shape[:-2], shape[-2] * shape[-1]) or row[:-1] != shape[:-2]:
        return None
    last = axis == len(shape) - 1
    if row[-1] != shape[-2 if last else -1]:
        return None
    return (whole, starts[axis], shape[-1]) if last else (whole, starts[axis] * shape[-1], 1)


# --- only a part of each row is turned


def _first_part(match: Match) -> Value | None:
    """concat(rotary(x[:w]), x[w:]) turns the first w elements of x."""
    root, node = match.root, match.node("rotary")
    axis = root.output.type.rank - 1
    if root.attrs["axis"] != axis or not root.output.type.is_static:
        return None
    x, cos, sin = node.inputs
    first, rest = part_of(x), part_of(match["rest"])
    width = x.type.static_shape[-1]
    if first.source is not rest.source or first.source.type != root.output.type:
        return None
    places = [(part.start, part.step, part.sign) for part in (first, rest)]
    if places != [(0, 1, 1), (width, 1, 1)] or node.attrs["width"] != width:
        return None
    return emit("rotary_embedding", first.source, cos, sin, **node.attrs)


# --- transposes


def _behind_rotary(match: Match) -> Value | Refusal | None:
    """rotary(transpose(x)) = transpose(rotary(x)), where the tables follow without a copy."""
    node, perm = match.root, match.node("transpose").attrs["perm"]
    rank = len(perm)
    if perm[-1] != rank - 1 or not node.output.type.is_static:
        return None
    back = [perm.index(axis) for axis in range(rank)]
    tables = [_follow(table, back) for table in node.inputs[1:]]
    if any(table is None for table in tables):
        return Refusal("a table would have to be transposed in memory")
    known = [table for table in tables if table is not None]
    turned = emit("rotary_embedding", match["x"], *known, **node.attrs)
    return emit("transpose", turned, perm=perm)


def _follow(table: Value, perm: Sequence[int]) -> Value | None:
    """The table with its dimensions permuted, if only ones change places."""
    shape = (1,) * (len(perm) - table.type.rank) + table.type.static_shape
    kept = [axis for axis in perm if shape[axis] != 1]
    if any(a > b for a, b in pairwise(kept)):
        return None
    moved = tuple(shape[axis] for axis in perm)
    if isinstance(table, Constant):
        return constant(np.asarray(table.data).reshape(moved), table.name)
    return table if moved == table.type.shape else emit("reshape", table, shape=moved)


# --- parts of wider products


def _heads_of_wider_rows(match: Match) -> Value | None:
    """rotary(reshape(y[a:b], heads)) reads the heads where they lie among those of y."""
    node, cut = match.root, match.node("slice")
    part = part_of(cut.output)
    shape = match["heads"].type.static_shape
    depth = shape[-1]
    source = part.source.type.static_shape
    if part.source is cut.output or shape[:-2] != source[:-1] or part.step != 1:
        return None
    if part.start % depth or source[-1] % depth or part.count != shape[-2] * depth:
        return None
    heads = emit("reshape", part.source, shape=(*source[:-1], source[-1] // depth, depth))
    first = part.start // depth
    starts = (*(0,) * (len(shape) - 2), first, 0)
    stops = (*shape[:-2], first + shape[-2], depth)
    own = emit("slice", heads, starts=starts, stops=stops, steps=(1,) * len(shape))
    return emit("rotary_embedding", own, *node.inputs[1:], **node.attrs)


# --- tables


def _halve_tables(match: Match) -> Value | None:
    """Tables whose two elements of a pair are equal are read by half."""
    node = match.root
    x, *tables = node.inputs
    width, interleaved = node.attrs["width"], node.attrs["interleaved"]
    halves = [_half(table, width, interleaved) for table in tables]
    if all(half is table for half, table in zip(halves, tables)):
        return None
    return make_node("rotary_embedding", [x, *halves], node.attrs).output


def _half(table: Value, width: int, interleaved: bool) -> Value:
    """The first elements of all pairs of a table with equal ones, else the table."""
    if table.type.shape[-1] != width or not _has_twins(table, interleaved):
        return table
    shape = table.type.static_shape
    if isinstance(table, Constant):
        rows = np.asarray(table.data)
        half = rows[..., 0::2] if interleaved else rows[..., : width // 2]
        return constant(np.ascontiguousarray(half), table.name)
    stops = (*shape[:-1], width - 1 if interleaved else width // 2)
    steps = (*(1,) * (len(shape) - 1), 2 if interleaved else 1)
    return emit("slice", table, starts=(0,) * len(shape), stops=stops, steps=steps)


def _has_twins(table: Value, interleaved: bool) -> bool:
    """True if both elements of each pair of a row are known to be equal."""
    stack = [table]
    for _ in range(_LONGEST):
        if not stack:
            return True
        found = stack.pop()
        if not found.type.rank or found.type.shape[-1] == 1:
            continue
        if isinstance(found, Constant):
            if not _is_doubled(np.asarray(found.data), interleaved):
                return False
            continue
        if not isinstance(found, Result) or not found.type.is_static:
            return False
        if _doubles(found.node) if interleaved else _repeats(found.node):
            continue
        inner = _row_operands(found.node)
        if inner is None:
            return False
        stack += inner
    return False


def _is_doubled(rows: np.ndarray, interleaved: bool) -> bool:
    half = rows.shape[-1] // 2
    if interleaved:
        return bool((rows[..., 0::2] == rows[..., 1::2]).all())
    return bool((rows[..., :half] == rows[..., half:]).all())


def _repeats(node: Node) -> bool:
    """concat(f, f) along the rows."""
    last = node.output.type.rank - 1
    return (
        node.op == "concat"
        and node.attrs["axis"] == last
        and len(node.inputs) == 2
        and node.inputs[0] is node.inputs[1]
    )


def _doubles(node: Node) -> bool:
    """[..., h, 1] broadcast to [..., h, 2], then joined to rows of 2h."""
    spread = producer(node.inputs[0], "broadcast_to") if node.op == "reshape" else None
    if spread is None or spread.output.type.rank < 2:
        return False
    *_, count, two = spread.output.type.static_shape
    row = node.output.type.static_shape[-1]
    return two == 2 and row == 2 * count and spread.inputs[0].type.shape[-1] == 1


def _row_operands(node: Node) -> Sequence[Value] | None:
    """What the rows of a node are made of element by element; None if not so."""
    if op_def(node.op).kind is OpKind.ELEMENTWISE:
        return node.inputs
    before, after = node.inputs[0].type, node.outputs[0].type
    if not before.rank or before.shape[-1] != after.shape[-1]:
        return None
    last = before.rank - 1
    if (
        node.op in ("reshape", "broadcast_to")
        or (node.op == "transpose" and node.attrs["perm"][-1] == last)
        or (node.op == "gather" and node.attrs["axis"] != last)
        or (node.op == "slice" and node.attrs["steps"][-1] == 1)
    ):
        return node.inputs[:1]
    return None


def _is_split(node: Node) -> bool:
    return node.output.type.is_static and node.output.type.rank == node.inputs[0].type.rank + 1


_X = value("x")
RULES: tuple[Rule, ...] = (
    Rule(
        "rotary embedding of a part",
        op("concat", op("rotary_embedding", name="rotary", single_use=True), value("rest")),
        _first_part,
    ),
    Rule("equal halves of tables", op("rotary_embedding"), _halve_tables),
    Rule(
        "rotary embedding of a part of all heads",
        op(
            "rotary_embedding",
            op("reshape", op("slice", name="slice"), where=_is_split, name="heads"),
            value("cos"),
            value("sin"),
        ),
        _heads_of_wider_rows,
    ),
    Rule(
        "transpose after rotary embedding",
        op(
            "rotary_embedding",
            op("transpose", _X, single_use=True, name="transpose"),
            value("cos"),
            value("sin"),
        ),
        _behind_rotary,
    ),
)
