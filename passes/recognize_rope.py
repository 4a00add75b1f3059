"""Turns the slices, negations and concats of rotary position embeddings into one op."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from planish.ir.builder import emit
from planish.ir.graph import Graph, Node, Result, Value
from planish.ir.target import Target
from planish.passes.attention_operands import producer
from planish.passes.pattern import Match, op
from planish.passes.rewrite import Rule, rewrite
from planish.passes.rope_operands import RULES, Part, part_of
from planish.passes.simplify_movement import RESHAPES


def recognize_rope(graph: Graph, target: Target) -> Graph:
    """Rewrite rotary embeddings, of halves or interleaved, of whole rows or their first part.

    before: %1 = slice(%x, starts=[0, 4], …)   %2 = neg(%1)   %3 = slice(%x, stops=[7, 4], …)
            %4 = concat(%2, %3, axis=1)        %5 = mul(%x, %cos)
            %6 = mul(%4, %sin)                 %7 = add(%5, %6)
    after:  %7 = rotary_embedding(%x, %cos, %sin, width=8)

    The halves may also be multiplied apart and joined at the end. Transposes of rows and heads
    move behind the embedding, where an attention reads through them; tables whose halves are
    known to be equal are read, and computed, by half.
    """
    return rewrite(graph, (*_RULES, *RULES, *RESHAPES))


# --- x·cos + turn(x)·sin


def _by_turning(match: Match) -> Value | None:
    """The sum of a product with x and a product with x turned by a quarter."""
    for plain, turned in (match.root.inputs, match.root.inputs[::-1]):
        for quarter, sin in _factors(turned):
            found = _quarter_turn(quarter)
            if found is None:
                continue
            row, interleaved, nodes = found
            for x, cos in _factors(plain):
                if row.is_of(x) and x.type == match.root.output.type:
                    return _rotary(x, cos, sin, interleaved, (*_nodes(plain, turned), *nodes))
    return None


def _factors(value: Value) -> Iterator[tuple[Value, Value]]:
    node = producer(value, "mul")
    if node is not None:
        yield node.inputs[0], node.inputs[1]
        yield node.inputs[1], node.inputs[0]


def _nodes(*values: Value) -> list[Node]:
    return [value.node for value in values if isinstance(value, Result)]


def _quarter_turn(value: Value) -> tuple[_Row, bool, list[Node]] | None:
    """What is turned, whether pairs are interleaved, and the nodes, of (-b, a) put together."""
    outer = producer(value, "reshape")
    concat = producer(outer.inputs[0] if outer else value, "concat")
    joined = None if concat is None else _joined(concat)
    if concat is None or joined is None or joined.shape != value.type.shape:
        return None
    b, a = part_of(joined.first), part_of(joined.second)
    row = _row_of(a, b, joined)
    if row is None or (a.sign, b.sign) != (1, -1):
        return None
    return row, joined.interleaved, [*_nodes(value), concat, *b.nodes, *a.nodes]


@dataclass(frozen=True, slots=True)
class _Joined:
    """Two halves [..., h] that are the rows of `shape`, [..., 2h], after each other or mixed."""

    first: Value
    second: Value
    interleaved: bool
    shape: tuple[int, ...]


def _joined(concat: Node) -> _Joined | None:
    last = concat.output.type.rank - 1
    if len(concat.inputs) != 2 or concat.attrs["axis"] != last:
        return None
    first, second = concat.inputs
    *lead, extent = concat.output.type.static_shape
    if first.type != second.type:
        return None
    if extent > 2 or not lead:
        return _Joined(first, second, False, (*lead, extent))
    first, second = (emit("reshape", half, shape=tuple(lead)) for half in (first, second))
    return _Joined(first, second, True, (*lead[:-1], 2 * lead[-1]))


@dataclass(frozen=True, slots=True)
class _Row:
    """`width` elements from `start` on of the rows of `source`."""

    source: Value
    start: int
    width: int

    def is_of(self, x: Value) -> bool:
        """True if x is these elements."""
        if x is self.source:
            return self.start == 0 and self.width == x.type.shape[-1]
        part = part_of(x)
        found = (part.source, part.start, part.step, part.count, part.sign)
        return found == (self.source, self.start, 1, self.width, 1)

    def cut(self) -> Value:
        """These elements, the source itself if they are all."""
        shape = self.source.type.static_shape
        if shape[-1] == self.width:
            return self.source
        starts = (*(0,) * (len(shape) - 1), self.start)
        stops = (*shape[:-1], self.start + self.width)
        return emit("slice", self.source, starts=starts, stops=stops, steps=(1,) * len(shape))


def _row_of(a: Part, b: Part, joined: _Joined) -> _Row | None:
    """The row that a and b are the first and second elements of all pairs of."""
    *lead, width = joined.shape
    shape = a.source.type.static_shape
    if a.source is not b.source or shape[:-1] != tuple(lead) or a.start + width > shape[-1]:
        return None
    distance, step = (1, 2) if joined.interleaved else (width // 2, 1)
    if (a.step, a.count) != (step, width // 2) or (b.step, b.count) != (a.step, a.count):
        return None
    return _Row(a.source, a.start, width) if b.start == a.start + distance else None


# --- (a·cos - b·sin, a·sin + b·cos)


def _by_pairs(match: Match) -> Value | None:
    """The two turned halves, joined."""
    root = match.root
    joined = _joined(root)
    if joined is None:
        return None
    real, imaginary = _of_half(joined.first, "sub"), _of_half(joined.second, "add")
    if real is None or imaginary is None:
        return None
    for left, cos in _factors(real.inputs[0]):
        for right, sin in _factors(real.inputs[1]):
            a, b = part_of(left), part_of(right)
            row = _row_of(a, b, joined)
            if row is None or (a.sign, b.sign) != (1, 1):
                continue
            if not _is_sum(imaginary, ((left, sin), (right, cos))):
                continue
            inner = _nodes(*real.inputs, *imaginary.inputs)
            every = (real, imaginary, *inner, *a.nodes, *b.nodes)
            turned = _rotary(row.cut(), cos, sin, joined.interleaved, every)
            return turned and emit("reshape", turned, shape=root.output.type.shape)
    return None


def _of_half(half: Value, name: str) -> Node | None:
    """The node of a half, before the reshapes that give it a dimension of one and take it."""
    while isinstance(half, Result) and half.node.op == "reshape":
        half = half.node.inputs[0]
    return producer(half, name)


def _is_sum(node: Node, products: Sequence[tuple[Value, Value]]) -> bool:
    """True if a node adds these two products."""
    found = [set(_factors(value)) for value in node.inputs]
    return any(
        first in one and second in other
        for one, other in (found, found[::-1])
        for first, second in (products,)
    )


def _rotary(
    x: Value, cos: Value, sin: Value, interleaved: bool, nodes: Sequence[Node]
) -> Value | None:
    """The embedding, if the tables fit it."""
    names = [name for node in reversed(nodes) for name in node.provenance]
    width = x.type.static_shape[-1]
    lead = x.type.shape[:-1]
    for table in (cos, sin):
        if not table.type.rank or table.type.shape[-1] not in (width, width // 2):
            return None
        padded = (1,) * (len(lead) + 1 - table.type.rank) + table.type.shape[:-1]
        if len(padded) != len(lead) or any(n not in (1, m) for n, m in zip(padded, lead)):
            return None
    attrs = {"width": width, "interleaved": interleaved}
    return emit("rotary_embedding", x, cos, sin, provenance=names, **attrs)


def _is_float_row(node: Node) -> bool:
    type_ = node.outputs[0].type
    return type_.is_static and type_.rank > 0 and type_.dtype.is_float and type_.elements > 0


_RULES: tuple[Rule, ...] = (
    Rule("rotary embedding", op("add", where=_is_float_row), _by_turning),
    Rule("rotary embedding of pairs", op("concat", where=_is_float_row), _by_pairs),
)
