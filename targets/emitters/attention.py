"""Attention, one task for each tile of query rows: the scores of a tile never leave the cache.

Lanes are query rows throughout. Scores lie as [key, row], so that both products take one element of
K or V as it lies in memory times a vector of rows, and maximum, exponential and sum need no
operation across lanes. Only the tile of Q and the tile of the result are transposed, once each.
Keys come in blocks under a running maximum and sum (Milakov and Gimelshein, 2018): scratch stays
within a cache however many keys there are.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass

from tvm import tirx
from tvm.tirx.script import builder as T

from planish.ir.graph import Node
from planish.ir.ops.attention import Sizes
from planish.targets.emitters.function import Buffer, choice, function, tasks
from planish.targets.expressions.elementwise import const, is_nan, maximum
from planish.targets.expressions.vector_math import exp
from planish.targets.expressions.view import Expr, with_names

_WIDE = {"float16": "float32"}

Key = Callable[[Expr, Expr], Expr]
"""An element of K or V by row and column."""


@dataclass(frozen=True, slots=True)
class _Tile:
    """A tile of query rows: `vectors` of `lanes` rows from row `first` of head `h`, batch `b`."""

    sizes: Sizes
    dtype: str
    vectors: int
    lanes: int
    b: Expr
    h: Expr
    first: Expr

    @property
    def rows(self) -> int:
        """Rows of the tile; those past the last query repeat it."""
        return self.vectors * self.lanes

    def row(self, lane: Expr) -> Expr:
        """The query of a lane."""
        return tirx.min(self.first + lane, self.sizes.queries - 1)

    def buffer(self, *shape: int) -> Buffer:
        """Scratch with a vector of all rows for each element of `shape`."""
        return T.alloc_buffer((*shape, self.rows), self.dtype)

    def each(self, store: Callable[[Expr], None]) -> None:
        """Run `store(lane)` for all lanes, in vectors."""
        with T.unroll(0, self.vectors) as u, T.vectorized(0, self.lanes) as v:
            store(u * self.lanes + v)

    def fill(self, buffer: Buffer, at: Sequence[Expr], value: float) -> None:
        """Set a vector of all rows to a number."""
        self.each(lambda r: T.buffer_store(buffer, const(value, self.dtype), [*at, r]))


def attention(kernel: Node) -> tirx.PrimFunc:
    """Parallel over batch, heads and tiles of query rows."""
    (node,) = kernel.regions[0].nodes
    sizes = Sizes.of(node.attrs)
    dtype = node.output.type.dtype.value
    vectors, lanes = int(choice(kernel, "vectors")), int(choice(kernel, "lanes"))
    count = -(-sizes.queries // (vectors * lanes))

    def build(node: Node, q: Buffer, k: Buffer, v: Buffer, *rest: Buffer) -> None:
        *mask, out = rest
        with tasks(kernel, sizes.batch * sizes.heads * count) as task:
            head = tirx.floordiv(task, count)
            b, h = tirx.floordiv(head, sizes.heads), tirx.floormod(head, sizes.heads)
            first = tirx.floormod(task, count) * (vectors * lanes)
            tile = _Tile(sizes, _WIDE.get(dtype, dtype), vectors, lanes, b, h, first)
            _tile(kernel, node, tile, q, k, v, mask, out)

    inputs = [(value.type.elements,) for value in node.inputs[:3]]
    masks = [value.type.static_shape for value in node.inputs[3:]]
    return function(kernel, build, [*inputs, *masks, sizes.output(node.attrs["heads_inside"])])


def _tile(
    kernel: Node, node: Node, tile: _Tile, q: Buffer, k: Buffer, v: Buffer,
    mask: Sequence[Buffer], out: Buffer,
) -> None:  # fmt: skip
    sizes, block = tile.sizes, min(int(choice(kernel, "block")), tile.sizes.keys)
    query = _transposed_queries(node, tile, q)
    state = _State(tile, tile.buffer(), tile.buffer(), tile.buffer(sizes.value_depth))
    state.start()
    scores = tile.buffer(block)
    key, value = (_element(node, tile, name, x) for name, x in (("k", k), ("v", v)))

    def several(start: Expr, size: int) -> None:
        with _seen(node, tile, start):
            peak = tile.buffer()
            tile.each(lambda r: T.buffer_store(peak, state.peak[r], [r]))
            keys = int(choice(kernel, "keys"))

            if mask and _has_rows(mask[0]):
                _transpose_mask(tile, mask[0], scores, start, size)

            def rows(i: Expr, n: int) -> None:
                _scores(node, tile, scores, peak, query, key, mask, start, i, n)

            _in_tiles(size, keys, rows)
            state.exponentials(scores, peak, size)

            def columns(j: Expr, n: int) -> None:
                state.add(scores, value, start, size, j, n)

            _in_tiles(sizes.value_depth, int(choice(kernel, "values")), columns)

    _in_tiles(sizes.keys, block, several)
    state.finish(node, out)


def _in_tiles(extent: int, size: int, build: Callable[[Expr, int], None]) -> None:
    """`build(start, size)` over whole tiles, then over what is left: every extent is static."""
    whole = extent // size
    if whole:
        with T.serial(0, whole) as t:
            build(t * size, size)
    if extent % size:
        build(tirx.const(whole * size, "int32"), extent % size)


def _seen(node: Node, tile: _Tile, start: Expr) -> AbstractContextManager[object]:
    """Nothing of a block is computed whose first key no row of the tile sees."""
    stack = ExitStack()
    if node.attrs["causal"] is not None:
        last = tile.first + (tile.rows - 1 + node.attrs["causal"])
        stack.enter_context(T.If(start <= last))
        stack.enter_context(T.Then())
    return stack


def _element(node: Node, tile: _Tile, name: str, buffer: Buffer) -> Key:
    offset, batch, head, row, column = node.attrs[name]
    shared = tirx.floordiv(tile.h, tile.sizes.group)
    base = T.bind(tile.b * batch + shared * head + offset)
    return lambda i, j: buffer[base + i * row + j * column].astype(tile.dtype)


def _transposed_queries(node: Node, tile: _Tile, q: Buffer) -> Buffer:
    """The tile of q·scale as [depth, row]."""
    offset, batch, head, row, column = node.attrs["q"]
    base = T.bind(tile.b * batch + tile.h * head + offset)
    scale = const(node.attrs["scale"], tile.dtype)
    query = tile.buffer(tile.sizes.depth)
    with T.serial(0, tile.rows) as r:
        start = T.bind(base + tile.row(r) * row)
        with T.serial(0, tile.sizes.depth) as d:
            element = q[start + d * column].astype(tile.dtype)
            T.buffer_store(query, element * scale, [d, r])
    return query


def _scores(
    node: Node, tile: _Tile, scores: Buffer, peak: Buffer, query: Buffer, key: Key,
    mask: Sequence[Buffer], start: Expr, i: Expr, count: int,
) -> None:  # fmt: skip
    """Scores of `count` keys from key start + i, and the maximum so far."""
    products = tile.buffer(count)
    with T.unroll(0, count) as t:
        tile.fill(products, [t], 0)
    with T.serial(0, tile.sizes.depth) as d, T.unroll(0, count) as t:
        element = T.bind(key(start + i + t, d))
        tile.each(
            lambda r: T.buffer_store(products, products[t, r] + element * query[d, r], [t, r])
        )
    with T.unroll(0, count) as t:
        n = start + i + t

        def store(r: Expr) -> None:
            score = products[t, r]
            for added in mask:
                here = scores[i + t, r] if _has_rows(added) else _mask(tile, added, r, n)
                score = score + here
            if node.attrs["causal"] is not None:
                hidden = n > tile.row(r) + node.attrs["causal"]
                score = with_names(
                    [score],
                    lambda s: tirx.Select(hidden, const(-math.inf, tile.dtype), s),
                )
            T.buffer_store(scores, score, [i + t, r])

        tile.each(store)
        tile.each(
            lambda r: T.buffer_store(peak, with_names([peak[r], scores[i + t, r]], maximum), [r])
        )


def _has_rows(mask: Buffer) -> bool:
    return int(mask.shape[2]) > 1


def _transpose_mask(tile: _Tile, mask: Buffer, scores: Buffer, start: Expr, size: int) -> None:
    """Put a mask where its scores will be: single elements cost less than gathering lanes."""
    with T.serial(0, tile.rows) as r, T.serial(0, size) as i:
        T.buffer_store(scores, _mask(tile, mask, r, start + i), [i, r])


def _mask(tile: _Tile, mask: Buffer, lane: Expr, key: Expr) -> Expr:
    places = (tile.b, tile.h, tile.row(lane), key)
    at = [0 if int(n) == 1 else place for n, place in zip(mask.shape, places)]
    return mask[*at].astype(tile.dtype)


@dataclass(frozen=True, slots=True)
class _State:
    """What the blocks of keys so far gave: maximum, sum of exponentials, sum of values."""

    tile: _Tile
    peak: Buffer
    total: Buffer
    sums: Buffer

    def start(self) -> None:
        """Nothing seen yet."""
        self.tile.fill(self.peak, [], -math.inf)
        self.tile.fill(self.total, [], 0)
        with T.serial(0, self.tile.sizes.value_depth) as j:
            self.tile.fill(self.sums, [j], 0)

    def exponentials(self, scores: Buffer, peak: Buffer, size: int) -> None:
        """Scores become exponentials under the new maximum; what was summed is scaled to it."""
        tile, dtype = self.tile, self.tile.dtype
        shift, scale = tile.buffer(), tile.buffer()
        least = const(-math.inf, dtype)

        def finite(x: Expr) -> Expr:  # rows that saw nothing yet: exp(-inf - 0) is 0, not NaN
            return tirx.Select(tirx.EQ(x, least), const(0, dtype), x)

        tile.each(lambda r: T.buffer_store(shift, with_names([peak[r]], finite), [r]))
        tile.each(lambda r: T.buffer_store(scale, exp(self.peak[r] - shift[r]), [r]))
        tile.each(lambda r: T.buffer_store(self.peak, peak[r], [r]))
        tile.each(lambda r: T.buffer_store(self.total, self.total[r] * scale[r], [r]))
        with T.serial(0, tile.sizes.value_depth) as j:
            tile.each(lambda r: T.buffer_store(self.sums, self.sums[j, r] * scale[r], [j, r]))
        with T.serial(0, size) as i:
            tile.each(lambda r: T.buffer_store(scores, exp(scores[i, r] - shift[r]), [i, r]))
            tile.each(lambda r: T.buffer_store(self.total, self.total[r] + scores[i, r], [r]))

    def add(self, scores: Buffer, value: Key, start: Expr, size: int, j: Expr, count: int) -> None:
        """Add exponentials times values in `count` columns from column j."""
        tile = self.tile
        sums = tile.buffer(count)
        with T.unroll(0, count) as t:
            tile.each(lambda r: T.buffer_store(sums, self.sums[j + t, r], [t, r]))
        with T.serial(0, size) as i, T.unroll(0, count) as t:
            element = T.bind(value(start + i, j + t))
            tile.each(lambda r: T.buffer_store(sums, sums[t, r] + element * scores[i, r], [t, r]))
        with T.unroll(0, count) as t:
            tile.each(lambda r: T.buffer_store(self.sums, sums[t, r], [j + t, r]))

    def finish(self, node: Node, out: Buffer) -> None:
        """Divide, and store the tile of the result transposed."""
        tile, depth = self.tile, self.tile.sizes.value_depth
        guarded, dtype = node.attrs["guarded"], node.output.type.dtype.value
        one, zero = const(1, tile.dtype), const(0, tile.dtype)

        def inverse(total: Expr) -> Expr:
            return one / total

        tile.each(lambda r: T.buffer_store(self.peak, with_names([self.total[r]], inverse), [r]))

        def divided(product: Expr, total: Expr) -> Expr:
            if not guarded:
                return product
            nothing = tirx.Or(tirx.EQ(total, zero), is_nan(total))
            return tirx.Select(nothing, zero, product)

        with T.serial(0, depth) as j:

            def divide(r: Expr) -> None:
                operands = [self.sums[j, r] * self.peak[r], self.total[r]]
                T.buffer_store(self.sums, with_names(operands, divided), [j, r])

            tile.each(divide)
        rows = tirx.min(tile.sizes.queries - tile.first, tile.rows)
        with T.serial(0, rows) as r, T.serial(0, depth) as j:
            m = tile.first + r
            at = [m, tile.h] if node.attrs["heads_inside"] else [tile.h, m]
            T.buffer_store(out, self.sums[j, r].astype(dtype), [tile.b, *at, j])
