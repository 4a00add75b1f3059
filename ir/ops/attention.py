"""Attention over strided operands: softmax(q·kᵀ·scale + mask)·v without the matrix of scores."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from planish.ir.errors import InvalidGraph
from planish.ir.graph import Attrs
from planish.ir.op import AttrSpec, Axis, OpDef, OpKind, Types
from planish.ir.ops import shapes
from planish.ir.ops.attributes import NO, REQUIRED_INTS
from planish.ir.ops.precision import rounded
from planish.ir.types import TensorType

Arrays = Sequence[np.ndarray]
Strides = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Sizes:
    """The extents of an attention; `group` query heads share a key and value head."""

    batch: int
    heads: int
    queries: int
    keys: int
    depth: int
    value_depth: int
    group: int

    @staticmethod
    def of(attrs: Attrs) -> Sizes:
        """The extents that the attributes state."""
        batch, heads, queries, keys, depth, value_depth = attrs["sizes"]
        return Sizes(batch, heads, queries, keys, depth, value_depth, attrs["group"])

    @property
    def scores(self) -> tuple[int, int, int, int]:
        """The shape of q·kᵀ."""
        return self.batch, self.heads, self.queries, self.keys

    @property
    def q(self) -> tuple[int, ...]:
        """Extents of the queries: batch, heads, rows, depth."""
        return self.batch, self.heads, self.queries, self.depth

    @property
    def k(self) -> tuple[int, ...]:
        """Extents of the keys."""
        return self.batch, self.heads // self.group, self.keys, self.depth

    @property
    def v(self) -> tuple[int, ...]:
        """Extents of the values."""
        return self.batch, self.heads // self.group, self.keys, self.value_depth

    def output(self, heads_inside: bool) -> tuple[int, ...]:
        """The shape of the result."""
        if heads_inside:
            return self.batch, self.queries, self.heads, self.value_depth
        return self.batch, self.heads, self.queries, self.value_depth


def dense(extents: Sequence[int]) -> Strides:
    """Offset 0 and the strides of a tensor that lies row by row, in elements."""
    return (0, *(math.prod(extents[axis + 1 :]) for axis in range(len(extents))))


def _infer(inputs: Types, attrs: Attrs) -> tuple[TensorType, ...]:
    dtype = shapes.float_dtype(inputs)
    if len(attrs["sizes"]) != 6:
        raise InvalidGraph(
            "sizes must be (batch, heads, queries, keys, depth, value depth), "
            f"got {attrs['sizes']!r}"
        )
    sizes = Sizes.of(attrs)
    if min(*attrs["sizes"], sizes.group) < 1 or sizes.heads % sizes.group:
        raise InvalidGraph(
            f"sizes must be at least 1 and group must divide {sizes.heads} heads, "
            f"got {attrs['sizes']!r} and {sizes.group}"
        )
    for name, operand, extents in zip("qkv", inputs, (sizes.q, sizes.k, sizes.v)):
        _check_strides(name, attrs[name], operand, extents)
    for mask in inputs[3:]:
        shapes.need_rank(mask, 4, "the mask")
        if shapes.broadcast([mask.shape, sizes.scores]) != sizes.scores:
            raise InvalidGraph(f"mask {mask} does not broadcast to {shapes.show(sizes.scores)}")
    return (TensorType(dtype, sizes.output(attrs["heads_inside"])),)


def _check_strides(name: str, strides: Strides, operand: TensorType, extents: Strides) -> None:
    if len(strides) != 5 or min(strides) < 0:
        raise InvalidGraph(
            f"{name} must be an offset and four strides, none negative, got {strides!r}"
        )
    last = strides[0] + sum((n - 1) * s for n, s in zip(extents, strides[1:]))
    if last >= operand.elements:
        raise InvalidGraph(f"{name}={strides!r} reads element {last} of {operand}")


def strided(array: np.ndarray, strides: Strides, extents: Sequence[int]) -> np.ndarray:
    """The view [batch, heads, rows, depth] of an operand."""
    flat = np.ascontiguousarray(array).reshape(-1)[strides[0] :]
    steps = [stride * flat.itemsize for stride in strides[1:]]
    return np.lib.stride_tricks.as_strided(flat, tuple(extents), steps, writeable=False)


def _attention(arrays: Arrays, attrs: Attrs) -> np.ndarray:
    sizes = Sizes.of(attrs)
    operands = zip(arrays[:3], "qkv", (sizes.q, sizes.k, sizes.v))
    q, k, v = (strided(x, attrs[name], e).astype(np.float64) for x, name, e in operands)
    k, v = (np.repeat(x, sizes.group, axis=1) for x in (k, v))
    scores = q @ k.swapaxes(2, 3) * attrs["scale"]
    for mask in arrays[3:]:
        scores = scores + mask
    if attrs["causal"] is not None:
        seen = np.tri(sizes.queries, sizes.keys, attrs["causal"], dtype=bool)
        scores = np.where(seen, scores, -np.inf)
    powers = np.exp(scores - scores.max(-1, keepdims=True))
    weights = powers / powers.sum(-1, keepdims=True)
    if attrs["guarded"]:
        weights = np.where(np.isnan(weights), 0.0, weights)
    result = weights @ v
    return np.asarray(result.swapaxes(1, 2) if attrs["heads_inside"] else result)


def _flops(inputs: Types, outputs: Types, attrs: Attrs) -> int:
    """Two products, and of each score scale, mask, maximum, exponential and sum."""
    sizes = Sizes.of(attrs)
    return math.prod(sizes.scores) * (2 * sizes.depth + 2 * sizes.value_depth + 5)


def _loops(inputs: Types, outputs: Types, attrs: Attrs) -> tuple[Axis, ...]:
    sizes = Sizes.of(attrs)
    names = ("b", "m", "h", "dv") if attrs["heads_inside"] else ("b", "h", "m", "dv")
    loops = tuple(Axis(*entry) for entry in zip(names, sizes.output(attrs["heads_inside"])))
    return (*loops, Axis("n", sizes.keys, reduce=True), Axis("d", sizes.depth, reduce=True))


OPS: tuple[OpDef, ...] = (
    OpDef(
        "attention",
        "softmax(q·kᵀ·scale + mask)·v for each batch and head; q, k and v are (offset, strides of "
        "batch, head, row, element) in their inputs; with causal=c, row m sees keys up to m + c; "
        "guarded: rows that see nothing give 0, not NaN; heads_inside: the result is [B,M,H,D]",
        OpKind.EMITTED,
        (3, 4),
        _infer,
        rounded(_attention),
        {
            "sizes": REQUIRED_INTS,
            "q": REQUIRED_INTS,
            "k": REQUIRED_INTS,
            "v": REQUIRED_INTS,
            "scale": AttrSpec((float,), 1.0),
            "group": AttrSpec((int,), 1),
            "causal": AttrSpec((int,)),
            "guarded": NO,
            "heads_inside": NO,
        },
        _flops,
        _loops,
    ),
)
