"""scatter_elements and scatter_nd: a copy of the data, then the updates one after another.

Updates of one element must be combined in their order, so that the parts which run in parallel
never meet: each owns a range of one dimension along which an update stays in its place.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, ExitStack

from tvm import tirx
from tvm.tirx.script import builder as T

from planish.ir.graph import Node
from planish.targets.emitters.function import Buffer, choice, function, tasks
from planish.targets.expressions.elementwise import maximum, minimum
from planish.targets.expressions.movement import wrapped
from planish.targets.expressions.opaque import add, multiply
from planish.targets.expressions.view import Expr

Put = Callable[[Expr, Expr], None]
"""Combines an update into the element at a place."""

_COMBINE: dict[str, Callable[[Expr, Expr], Expr]] = {
    "none": lambda old, new: new,
    "add": add,
    "mul": multiply,
    "max": maximum,
    "min": minimum,
}

#: Parts at most of the dimension that is shared among threads, and elements of one at least.
_PARTS, _SMALLEST_PART = 16, 16


def scatter_elements(kernel: Node) -> tirx.PrimFunc:
    """Parallel over the longest dimension but the axis."""
    (node,) = kernel.regions[0].nodes
    axis = node.attrs["axis"]
    data, indices = (value.type.static_shape for value in node.inputs[:2])
    shared = max((d for d in range(len(data)) if d != axis), key=indices.__getitem__, default=axis)
    parts = _parts(kernel, indices[shared]) if shared != axis else 1

    def scatter(index: Buffer, updates: Buffer, put: Put) -> None:
        with ExitStack() as stack:
            part = stack.enter_context(tasks(kernel, parts))
            at = [
                stack.enter_context(_range(extent, parts if d == shared else 1, part))
                for d, extent in enumerate(indices)
            ]
            source = _offset(indices, at)
            place = [*at]
            place[axis] = wrapped(index[source], data[axis])
            put(_offset(data, place), updates[source])

    return _scatter(kernel, scatter)


def scatter_nd(kernel: Node) -> tirx.PrimFunc:
    """Parallel over the slice that one index tuple selects."""
    (node,) = kernel.regions[0].nodes
    data, indices = (value.type.static_shape for value in node.inputs[:2])
    depth = indices[-1]
    count, length = math.prod(indices[:-1]), math.prod(data[depth:])
    parts = _parts(kernel, length)

    def scatter(index: Buffer, updates: Buffer, put: Put) -> None:
        with tasks(kernel, parts) as part, T.serial(0, count) as update:
            chosen = [wrapped(index[update * depth + d], data[d]) for d in range(depth)]
            row = T.bind(_offset(data[:depth], chosen) * length)
            with _range(length, parts, part) as i:
                put(row + i, updates[update * length + i])

    return _scatter(kernel, scatter)


def _scatter(kernel: Node, scatter: Callable[[Buffer, Buffer, Put], None]) -> tirx.PrimFunc:
    """Copies data to the result and scatters into that; all buffers are seen flat."""
    (node,) = kernel.regions[0].nodes
    reduction, dtype = node.attrs["reduction"], node.output.type.dtype.value
    count = node.output.type.elements
    # Half-precision sums round at each of the updates; they are kept wider until the last.
    wide = "float32" if dtype == "float16" and reduction in ("add", "mul") else dtype

    def build(node: Node, data: Buffer, indices: Buffer, updates: Buffer, result: Buffer) -> None:
        target = result if wide == dtype else T.alloc_buffer((count,), wide)

        def put(place: Expr, update: Expr) -> None:
            at = T.bind(place)
            new = _COMBINE[reduction](target[at], update.astype(wide))
            T.buffer_store(target, new, [at])

        _copy(kernel, data, target, count, wide)
        scatter(indices, updates, put)
        if target is not result:
            _copy(kernel, target, result, count, dtype)

    flat = [(value.type.elements,) for value in (*node.inputs, *node.outputs)]
    return function(kernel, build, flat)


def _copy(kernel: Node, source: Buffer, target: Buffer, count: int, dtype: str) -> None:
    lanes = int(choice(kernel, "lanes"))
    with tasks(kernel, count // lanes) as block, T.vectorized(0, lanes) as v:
        at = block * lanes + v
        T.buffer_store(target, source[at].astype(dtype), [at])
    with T.serial(count // lanes * lanes, count) as at:
        T.buffer_store(target, source[at].astype(dtype), [at])


def _parts(kernel: Node, extent: int) -> int:
    """In how many parts a dimension is scattered to."""
    if not choice(kernel, "parallel"):
        return 1
    return max(1, min(_PARTS, extent // _SMALLEST_PART))


def _range(extent: int, parts: int, part: Expr) -> AbstractContextManager[Expr]:
    """The loop over one of several parts of a dimension."""
    if parts == 1:
        return T.serial(0, extent)  # type: ignore[no-any-return]
    size = -(-extent // parts)
    return T.serial(part * size, tirx.min(part * size + size, extent))  # type: ignore[no-any-return]


def _offset(shape: Sequence[int], at: Sequence[Expr]) -> Expr:
    """Where the element at `at` lies in memory."""
    flat: Expr = tirx.const(0, "int32")
    for extent, index in zip(shape, at):
        flat = flat * extent + index
    return flat
