"""Express transposed convolutions by convolutions."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain

from planish.ir.builder import emit
from planish.ir.graph import Graph, Node, Value
from planish.ir.target import Target
from planish.passes.pattern import Match, op
from planish.passes.rewrite import Rule, rewrite


def lower_conv_transpose(graph: Graph, target: Target) -> Graph:
    """Remove every `conv_transpose`.

    Where the kernel is as large as the stride, without padding, dilation or groups, each input
    pixel makes a block of the output, so a 1x1 convolution makes the blocks as channels:

        conv_transpose(x[N,C,H,W], w[C,O,kh,kw])  →  depth_to_space(conv(x, w'[O·kh·kw,C,1,1]))

    Otherwise stride-1 zeros are put between the pixels of the input, and a convolution with
    flipped kernels runs over it. Exact but for the order of sums.
    """
    return rewrite(graph, RULES)


def _depth_to_space(match: Match) -> Value:
    x, w = match.root.inputs
    batch, channels, *extents = x.type.shape
    _, out_channels, *window = w.type.static_shape
    rank = len(window)
    blocks = emit("transpose", w, perm=(*range(1, rank + 2), 0))
    rows = blocks.type.elements // w.type.static_shape[0]
    pointwise = emit("reshape", blocks, shape=(rows, channels, *(1,) * rank))
    ones, zeros = (1,) * rank, (0,) * rank
    product = emit(
        "conv", x, pointwise, strides=ones, dilations=ones, before=zeros, after=zeros, groups=1
    )
    apart = emit("reshape", product, shape=(batch, out_channels, *window, *extents))
    # [N, O, kh, kw, H, W] → [N, O, H, kh, W, kw]
    pairs = chain.from_iterable((2 + rank + i, 2 + i) for i in range(rank))
    beside = emit("transpose", apart, perm=(0, 1, *pairs))
    return emit("reshape", beside, shape=match.root.output.type.shape)


def _interleave_zeros(match: Match) -> Value:
    node = match.root
    x, w = node.inputs
    attrs = node.attrs
    window = w.type.static_shape[2:]
    reach = [d * (k - 1) for d, k in zip(attrs["dilations"], window)]
    before = [r - b for r, b in zip(reach, attrs["before"])]
    after = [r - a + extra for r, a, extra in zip(reach, attrs["after"], attrs["output_padding"])]
    spread = _spread(x, attrs["strides"])
    # What follows the last pixel in `spread` are zeros as padding is, stride - 1 of them.
    after = [a - (s - 1) for a, s in zip(after, attrs["strides"])]
    if min(before + after) < 0:
        crop_before, crop_after = ([min(0, p) for p in pads] for pads in (before, after))
        spread = emit("pad", spread, before=(0, 0, *crop_before), after=(0, 0, *crop_after))
        before, after = ([max(0, p) for p in pads] for pads in (before, after))
    return emit(
        "conv",
        spread,
        _flipped(w, attrs["groups"]),
        strides=(1,) * len(window),
        dilations=attrs["dilations"],
        before=tuple(before),
        after=tuple(after),
        groups=attrs["groups"],
    )


def _spread(x: Value, strides: Sequence[int]) -> Value:
    """x with stride-1 zeros after every element of the spatial dimensions."""
    if max(strides) == 1:
        return x
    batch, channels, *extents = x.type.shape
    apart = chain.from_iterable((extent, 1) for extent in extents)
    columns = emit("reshape", x, shape=(batch, channels, *apart))
    after = chain.from_iterable((0, stride - 1) for stride in strides)
    padded = emit("pad", columns, before=(0,) * columns.type.rank, after=(0, 0, *after))
    together = (extent * stride for extent, stride in zip(extents, strides))
    return emit("reshape", padded, shape=(batch, channels, *together))


def _flipped(w: Value, groups: int) -> Value:
    """Weights [C, O/g, *K] of a transposed convolution as [O, C/g, *K] of a convolution."""
    channels, outs, *window = w.type.static_shape
    rank = len(window)
    grouped = emit("reshape", w, shape=(groups, channels // groups, outs, *window))
    swapped = emit("transpose", grouped, perm=(0, 2, 1, *range(3, rank + 3)))
    merged = emit("reshape", swapped, shape=(groups * outs, channels // groups, *window))
    return emit(
        "slice",
        merged,
        starts=(0, 0, *(k - 1 for k in window)),
        stops=(groups * outs, channels // groups, *(-1 for _ in window)),
        steps=(1, 1, *(-1 for _ in window)),
    )


def _makes_blocks(node: Node) -> bool:
    attrs = node.attrs
    plain = not any((*attrs["before"], *attrs["after"], *attrs["output_padding"]))
    window = node.inputs[1].type.static_shape[2:]
    undilated = all(d == 1 for d in attrs["dilations"])
    return plain and undilated and attrs["groups"] == 1 and window == tuple(attrs["strides"])


RULES = (
    Rule("depth to space", op("conv_transpose", where=_makes_blocks), _depth_to_space),
    Rule("zeros between", op("conv_transpose"), _interleave_zeros),
)
