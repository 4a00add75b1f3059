"""Attention: a tile of query rows in the lanes, register tiles of keys and of value columns."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from planish.autotune.spaces.space import (
    Choices,
    Space,
    Steps,
    anchor_of,
    is_parallel,
    padded_share,
)
from planish.ir.graph import Node
from planish.ir.ops.attention import Sizes
from planish.ir.target import Target

#: Vectors that hold neither products nor rows: an element of K or V, and what the compiler needs.
_SPARE_REGISTERS = 2
#: Under a causal mask, blocks of keys that no row of a tile sees are left out.
_CAUSAL_BLOCK = 128
#: One vector of rows loads an element of K or V for each product, two load it for every other.
_SINGLE_VECTOR_COST = 1.2


def _sizes(kernel: Node) -> Sizes:
    anchor = anchor_of(kernel)
    assert anchor is not None
    return Sizes.of(anchor.attrs)


def _lanes(kernel: Node, target: Target) -> int:
    return target.lanes(max(4, kernel.outputs[0].type.dtype.itemsize))


def _blocks(kernel: Node, target: Target, rows: int) -> tuple[int, ...]:
    """Keys of a block whose scores fill a quarter of L1 up to all of it, or half of L2."""
    itemsize = max(4, kernel.outputs[0].type.dtype.itemsize)
    keys = _sizes(kernel).keys
    fits = (target.l1 // 4, target.l1 // 2, target.l1, target.l2 // 2)
    found = {min(keys, max(1, room // (rows * itemsize))) for room in fits}
    return tuple(sorted(found | {min(keys, _CAUSAL_BLOCK)}))


def options(kernel: Node, target: Target) -> Mapping[str, tuple[Any, ...]]:
    """Choices: `lanes` × `vectors` (rows of a tile), `keys` and `values` (register tiles of the
    two products), `block` (keys under one maximum), `parallel`."""
    lanes = _lanes(kernel, target)
    most = target.vector_registers - _SPARE_REGISTERS - 1
    sizes = _sizes(kernel)
    return {
        "lanes": (lanes,),
        "vectors": (1, 2, 3, 4),
        "keys": tuple(range(1, min(most, sizes.keys) + 1)),
        "values": tuple(range(1, min(most, sizes.value_depth) + 1)),
        "block": _blocks(kernel, target, lanes),
        "parallel": (False, True),
    }


def pick(kernel: Node, target: Target) -> Choices:
    """Two vectors of rows unless that pads more; register tiles that divide what they tile."""
    sizes, lanes = _sizes(kernel), _lanes(kernel, target)
    two = padded_share(sizes.queries, 2 * lanes)
    one = padded_share(sizes.queries, lanes) * _SINGLE_VECTOR_COST
    vectors = 2 if two <= one else 1
    most = max(1, (target.vector_registers - _SPARE_REGISTERS - vectors) // vectors)
    blocks = _blocks(kernel, target, lanes * vectors)
    within = [n for n in blocks if n * lanes * vectors * 4 <= target.l1] or [blocks[0]]
    anchor = anchor_of(kernel)
    assert anchor is not None
    causal = anchor.attrs["causal"] is not None
    return {
        "lanes": lanes,
        "vectors": vectors,
        "keys": _register_tile(sizes.keys, most),
        "values": _register_tile(sizes.value_depth, most),
        "block": min(max(within), _CAUSAL_BLOCK) if causal else max(within),
        "parallel": is_parallel(kernel, target),
    }


def _register_tile(extent: int, most: int) -> int:
    """The largest divisor of `extent` that fills half the registers, else as many as fit."""
    whole = [n for n in range(most // 2, most + 1) if n and extent % n == 0]
    return max(whole, default=min(extent, most))


def directives(kernel: Node, target: Target, choices: Choices) -> Steps:
    """The emitter reads the choices."""
    return []


SPACE = Space("attention", ("attention",), options, pick, directives)
