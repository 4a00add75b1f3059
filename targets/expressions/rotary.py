"""Tensor expression of rotary position embeddings: one pass over the rows, no copies of halves."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from tvm import tirx

from planish.ir.graph import Node
from planish.targets.expressions.elementwise import aligned, like
from planish.targets.expressions.view import Bindings, Expr, Indices, View


def rotary_embedding(
    node: Node, inputs: Sequence[View], bindings: Bindings
) -> Callable[[Indices], Expr]:
    """x[i]·cos[i] ± x[j]·sin[i], where j is the other element of i's pair."""
    x, cos, sin = inputs
    width, interleaved = node.attrs["width"], node.attrs["interleaved"]

    def turned(idx: Indices) -> Expr:
        lead, i = idx[:-1], idx[-1]
        other, is_first = _other(i, width, interleaved)
        c, s = (_entry(table, x.shape, idx, width, interleaved) for table in (cos, sin))
        partner = x.read((*lead, other))
        return x.read(idx) * c + partner * (s * tirx.Select(is_first, like(-1, s), like(1, s)))

    def read(idx: Indices) -> Expr:
        if width == x.shape[-1]:
            return turned(idx)
        rotated = bindings.scoped(lambda: turned(idx))
        kept = bindings.scoped(lambda: x.read(idx))
        return tirx.if_then_else(idx[-1] < width, rotated, kept)

    return read


def _other(i: Expr, width: int, interleaved: bool) -> tuple[Expr, Expr]:
    """The index of the other element of the pair, and whether i is the first one."""
    if interleaved:
        parity = tirx.floormod(i, 2)
        return i + 1 - parity * 2, tirx.EQ(parity, 0)
    return tirx.floormod(i + width // 2, width), i < width // 2


def _entry(
    table: View, shape: tuple[int, ...], idx: Indices, width: int, interleaved: bool
) -> Expr:
    """The element of a table, which broadcasts along all but the last dimension."""
    lead = aligned(table.shape[:-1], shape[:-1], idx[:-1])
    i = idx[-1]
    if table.shape[-1] < width:
        i = tirx.floordiv(i, 2) if interleaved else tirx.floormod(i, width // 2)
    return table.read((*lead, i))
