"""Blocked tensors: [N, C, *S] as [N, C/b, *S, b], channels in whole blocks."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import numpy as np
from networkx.utils import UnionFind

from planish.ir.builder import make_node
from planish.ir.graph import Constant, Graph, Node, Value, constant
from planish.ir.op import OpKind
from planish.ir.ops import op_def
from planish.passes.layout.packing import pack_channels

#: Filling up the groups of a convolution may make its channels so many times as many.
_MOST_PADDING = 1.5

#: Half blocks are for channels that whole ones would make so many times as many.
_HALVED = 1.15

#: Ops of one tensor that leave its channels as they are, besides element-wise ones.
KEEPS_CHANNELS = frozenset(
    (
        *("pool", "pad", "gather", "softmax", "log_softmax", "slice", "reshape"),
        *("reduce_sum", "reduce_mean", "reduce_max", "reduce_min", "transpose", "broadcast_to"),
    )
)


class Blocking:
    """Blocks of `block` channels or half as many, and of how many segments channels consist.

    24 channels are 3 blocks of 8 rather than 2 of 16, where `halves` says that vectors of half the
    width lose nothing. Segments are equal parts that begin with a block each, so that a grouped
    convolution finds every group in blocks of its own: 60 channels in 3 segments are 3 times 20, in
    blocks of 16 6 blocks. Surplus channels of the last block of a segment hold arbitrary finite
    values.
    """

    def __init__(self, graph: Graph, block: int, *, halves: bool = False) -> None:
        self.block = block
        families = _families(graph)
        self._segments = _segments(graph, families, block)
        self._halved = _halved(graph, families, block // 2) if halves else frozenset()

    def block_of(self, value: Value) -> int:
        """The channels of a block of a value."""
        return self.block // 2 if value in self._halved else self.block

    def segments(self, value: Value) -> int:
        """The segments of the channels of a value."""
        return self._segments.get(value, 1)

    def blocks(self, value: Value) -> int:
        """The blocks of the channels of a value."""
        segments, block = self.segments(value), self.block_of(value)
        return segments * -(-value.type.static_shape[1] // (segments * block))

    def has_surplus(self, value: Value) -> bool:
        """True if not all channels of the blocks are channels of the value."""
        return self.blocks(value) * self.block_of(value) != value.type.static_shape[1]

    def shape(self, value: Value) -> tuple[int, ...]:
        """The shape of a value in blocks."""
        batch, _, *spatial = value.type.static_shape
        return (batch, self.blocks(value), *spatial, self.block_of(value))

    def nbytes(self, value: Value) -> int:
        """The bytes of a value in blocks."""
        return math.prod(self.shape(value)) * value.type.dtype.itemsize

    def is_renaming(self, value: Value) -> bool:
        """True if a value has the same elements in the same order in either layout."""
        spatial = math.prod(value.type.static_shape[2:])
        return spatial == 1 and not self.has_surplus(value)

    def is_beginning(self, value: Value) -> bool:
        """True if the elements of a value are the first ones of its blocks, in the same order."""
        batch, _, *spatial = value.type.static_shape
        return math.prod((batch, *spatial)) == 1 and self.segments(value) == 1

    def pack(self, plain: Value, like: Value, provenance: Sequence[str], fill: float = 0) -> Value:
        """`plain`, which has the channels of `like`, in blocks; surplus of constants is `fill`."""
        segments, block = self.segments(like), self.block_of(like)
        if isinstance(plain, Constant):
            data = pack_channels(np.asarray(plain.data), block, segments, fill)
            return constant(data, plain.name)
        if block == self.block_of(plain) and self.is_renaming(plain):
            return reshaped(plain, self.shape(plain), provenance)
        return self.pack_segments(plain, segments, provenance, block)

    def pack_segments(
        self, plain: Value, segments: int, provenance: Sequence[str], block: int = 0
    ) -> Value:
        """`plain` in blocks of other segments than all who read it share."""
        attrs = {"axis": 1, "block": block or self.block, "segments": segments}
        return make_node("pack", [plain], attrs, (), provenance).output

    def unpack(self, blocks: Value, like: Value, provenance: Sequence[str]) -> Value:
        """`blocks`, which is `like` in blocks, in plain layout."""
        if self.is_renaming(like):
            return reshaped(blocks, like.type.static_shape, provenance)
        if self.is_beginning(like):
            return beginning(blocks, like.type.static_shape, provenance, [like.name])
        return self.unpack_segments(blocks, like, self.segments(like), provenance)

    def unpack_segments(
        self, blocks: Value, like: Value, segments: int, provenance: Sequence[str]
    ) -> Value:
        """`blocks`, which is `like` in blocks of so many segments, in plain layout."""
        size = like.type.static_shape[1]
        block = self.block_of(like)
        attrs = {"axis": 1, "block": block, "segments": segments, "size": size}
        return make_node("unpack", [blocks], attrs, (), provenance, [like.name]).output


def reshaped(value: Value, shape: tuple[int, ...], provenance: Sequence[str] = ()) -> Value:
    """A value under another shape; itself if it has that shape."""
    if value.type.static_shape == shape:
        return value
    if isinstance(value, Constant):
        return constant(np.asarray(value.data).reshape(shape), value.name)
    return make_node("reshape", [value], {"shape": shape}, (), provenance).output


def beginning(
    value: Value, shape: tuple[int, ...], provenance: Sequence[str], names: Sequence[str] = ()
) -> Value:
    """The first elements of a value under a shape [1, C, 1, …]: a slice that may be a view."""
    padded = reshaped(value, (1, value.type.elements, *shape[2:]), provenance)
    attrs = {"starts": (0,) * len(shape), "stops": shape, "steps": (1,) * len(shape)}
    return make_node("slice", [padded], attrs, (), provenance, names).output


def has_channels(value: Value) -> bool:
    """True if a value may be in blocks: of static shape, with channels and spatial dimensions."""
    return value.type.rank >= 3 and value.type.is_static and value.type.elements > 0


def is_depthwise(node: Node) -> bool:
    """True if a convolution has one kernel for each channel, and makes one channel of it."""
    channels = node.inputs[0].type.shape[1]
    out, per_group = node.inputs[1].type.shape[:2]
    return bool(node.attrs["groups"] == channels == out and per_group == 1 and channels != 1)


def merged_groups(node: Node, block: int) -> int:
    """The groups of a convolution, so many of them taken as one as fill whole blocks.

    32 groups of 4 channels are 8 of 16, most of whose weights are zero. Groups stay apart if it is
    less work to fill up each to whole blocks.
    """
    groups, (out, channels) = int(node.attrs["groups"]), node.inputs[1].type.static_shape[:2]
    sizes = (channels, out // groups)
    filled = max(-(-size // block) * block / size for size in sizes)
    for together in range(1, min(groups, int(filled)) + 1):
        if groups % together == 0 and not any(size * together % block for size in sizes):
            return groups // together
    return groups


def _families(graph: Graph) -> UnionFind:
    """Values that share their channels, like the operands of an addition."""
    families = UnionFind()
    for node in graph.nodes:
        for value in _same_channels(node):
            families.union(node.outputs[0], value)
    return families


def _segments(graph: Graph, families: UnionFind, block: int) -> dict[Value, int]:
    """For values whose channels a grouped convolution wants in segments how many.

    A family has segments if all grouped convolutions that touch it want the same ones.
    """
    wanted: dict[Value, set[int]] = {}
    for node, value in _grouped_values(graph):
        groups = merged_groups(node, block)
        wanted.setdefault(families[value], set()).add(_wanted(value, groups, block))
    agreed = {family: next(iter(wants)) for family, wants in wanted.items() if len(wants) == 1}
    agreed = {family: segments for family, segments in agreed.items() if segments > 1}
    if not agreed:
        return {}
    values = [value for value in graph.values() if value in families.parents]
    return {v: agreed[families[v]] for v in values if families[v] in agreed}


def _grouped_values(graph: Graph) -> Iterator[tuple[Node, Value]]:
    """Grouped convolutions, each with its operand and its result."""
    for node in graph.nodes:
        if node.op == "conv" and node.attrs["groups"] > 1 and not is_depthwise(node):
            yield from ((node, v) for v in (node.inputs[0], node.output) if has_channels(v))


def _halved(graph: Graph, families: UnionFind, half: int) -> frozenset[Value]:
    """Values in half blocks: those of convolutions that would be filled up much, and their kin.

    Parts and wholes of concats and slices have blocks of one size.
    """
    fixed = {families[value] for _, value in _grouped_values(graph)}
    found: set[Value] = set()
    for node in graph.nodes:
        if node.op == "conv" and has_channels(node.output):
            found.update(families[v] for v in (node.output,) if _is_filled_up(v, half))
    related = [
        {families[value] for value in (*node.inputs, node.output)}
        for node in graph.nodes
        if node.op in ("concat", "slice") and _divides_channels(node, half)
    ]
    found -= fixed
    while True:
        joined = [kin for kin in related if kin & found and not kin & fixed and not kin <= found]
        if not joined:
            break
        found.update(*joined)
    return frozenset(value for value in graph.values() if families[value] in found)


def _is_filled_up(value: Value, half: int) -> bool:
    channels = value.type.static_shape[1]
    filled = -(-channels // (2 * half)) * 2 * half
    return channels % half == 0 and filled >= _HALVED * channels


def _divides_channels(node: Node, half: int) -> bool:
    """True if a concat or slice has channels of whole half blocks on all sides."""
    values = (*node.inputs, node.output)
    return all(has_channels(v) and v.type.static_shape[1] % half == 0 for v in values)


def _same_channels(node: Node) -> Iterator[Value]:
    """The operands whose channels are those of the result."""
    result = node.outputs[0]
    if len(node.outputs) != 1 or not has_channels(result):
        return
    elementwise = op_def(node.op).kind is OpKind.ELEMENTWISE
    depthwise = node.op == "conv" and is_depthwise(node)
    if elementwise or depthwise or node.op in KEEPS_CHANNELS:
        channels = result.type.static_shape[1]
        varying = [value for value in node.inputs if not isinstance(value, Constant)]
        yield from (
            value
            for value in varying
            if has_channels(value) and value.type.static_shape[1] == channels
        )


def _wanted(value: Value, groups: int, block: int) -> int:
    """The segments of a value that a convolution of so many groups wants; 1 if none are needed."""
    channels = value.type.static_shape[1] // groups
    padded = -(-channels // block) * block
    return groups if channels != padded <= _MOST_PADDING * channels else 1
