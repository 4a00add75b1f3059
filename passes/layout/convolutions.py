"""Convolutions and matmuls by constants in the forms that have fast kernels."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from planish.ir.builder import make_node
from planish.ir.graph import Attrs, Constant, Node, Value, constant
from planish.ir.types import DType
from planish.passes.layout.blocking import (
    Blocking,
    has_channels,
    is_depthwise,
    merged_groups,
    reshaped,
)
from planish.passes.layout.forms import Form, pad_blocks
from planish.passes.layout.packing import (
    merge_groups,
    pack_conv,
    pack_depthwise,
    pack_panels,
    panel_width,
)

#: Input channels up to this many are read in place: packing three channels gains nothing.
UNBLOCKED_CHANNELS = 4

#: Surplus channels of the input are left out of the loops if they are this share of the work.
_SURPLUS = 1 / 8

#: Output channels of a group up to which plain convolutions have vectors along rows of pixels.
FEW_CHANNELS = 8


@dataclass(frozen=True, slots=True)
class PlainForm:
    """Another form of a node in plain layout; `build` makes the result from the operands."""

    name: str
    build: Callable[[Sequence[Value]], Value]


def blocked_conv(node: Node, blocking: Blocking) -> Form | str:
    """A convolution on blocks, or why it cannot be: 2-D float32 with constant weights.

    before: %1 = conv(%x, @w)            # N C H W
    after:  %1 = pad(%x)                 # N C/16 H W 16
            %2 = blocked_conv(%1, @w2)   # weights O/16 I/16 KH KW 16 16
    """
    x, w = node.inputs
    if not isinstance(w, Constant):
        return "its weights are computed"
    if x.type.rank != 4 or not (has_channels(x) and has_channels(node.output)):
        return "it has no two spatial dimensions of known size"
    if x.type.dtype is not DType.FLOAT32:
        return f"it is of {x.type.dtype.value}"
    if is_depthwise(node):
        return _depthwise(node, w, blocking)
    return _dense(node, w, blocking) if node.attrs["groups"] == 1 else _grouped(node, w, blocking)


def holds_groups(value: Value, groups: int, blocking: Blocking) -> bool:
    """True if every group of channels begins with a block."""
    segments, per_group = blocking.segments(value), value.type.static_shape[1] // groups
    return segments in (1, groups) and (segments == groups or per_group % blocking.block == 0)


def depth_block(channels: int, block: int) -> int:
    """Input channels of one step of a convolution: a block, or a part of it that leaves no surplus.

    10 channels in blocks of 16 are 5 steps of 2 instead of one of 16.
    """
    surplus = -channels % block
    return math.gcd(channels, block) if surplus >= _SURPLUS * (channels + surplus) else block


def _dense(node: Node, w: Constant, blocking: Blocking) -> Form:
    x, out = node.inputs[0], node.output
    in_place = x.type.static_shape[1] <= UNBLOCKED_CHANNELS
    segments, block = 1 if in_place else blocking.segments(x), blocking.block_of(x)
    depth = block if segments > 1 else depth_block(x.type.static_shape[1], block)
    if in_place:
        depth = 1

    def build(inputs: Sequence[Value]) -> Value:
        source = inputs[0]
        if in_place:
            source = reshaped(source, (*source.type.static_shape, 1), node.provenance)
        data, out_segments = np.asarray(w.data), blocking.segments(out)
        packed = pack_conv(data, depth, blocking.block_of(out), segments, out_segments)
        return _product_of_blocks("blocked_conv", node, source, constant(packed, w.name), 1)

    return Form((not in_place, False), build)


def _grouped(node: Node, w: Constant, blocking: Blocking) -> Form:
    """A convolution whose groups begin with a block each.

    Where those of its operand or result do not, it converts them for itself.
    """
    x, out, groups = node.inputs[0], node.output, merged_groups(node, blocking.block)
    reads, gives = (holds_groups(value, groups, blocking) for value in (x, out))
    depth = depth_block(x.type.static_shape[1] // groups, blocking.block)

    def build(inputs: Sequence[Value]) -> Value:
        source = inputs[0]
        if not reads:
            source = blocking.pack_segments(source, groups, node.provenance)
        merged = merge_groups(np.asarray(w.data), node.attrs["groups"], groups)
        weights = constant(pack_conv(merged, depth, blocking.block, 1, groups), w.name)
        blocks = _product_of_blocks("blocked_conv", node, source, weights, groups)
        if gives:
            return blocks
        return blocking.unpack_segments(blocks, out, groups, node.provenance)

    return Form((reads, False), build, gives_blocks=gives)


def _depthwise(node: Node, w: Constant, blocking: Blocking) -> Form:
    segments, block = blocking.segments(node.output), blocking.block_of(node.output)

    def build(inputs: Sequence[Value]) -> Value:
        packed = constant(pack_depthwise(np.asarray(w.data), block, segments), w.name)
        return _product_of_blocks("blocked_depthwise_conv", node, inputs[0], packed)

    return Form((True, False), build)


def _product_of_blocks(
    op: str, node: Node, source: Value, weights: Constant, groups: int | None = None
) -> Value:
    """A convolution over padded blocks."""
    attrs = {name: node.attrs[name] for name in ("strides", "dilations")}
    if groups is not None:
        attrs["groups"] = groups
    padded = pad_blocks(source, _padding(node), node.provenance)
    return make_node(op, [padded, weights], attrs, (), node.provenance).output


def _padding(node: Node) -> Attrs:
    """Zero padding of H and W as a node of its own: convolution loops stay free of guards."""
    before, after = node.attrs["before"], node.attrs["after"]
    return {"before": (0, 0, *before, 0), "after": (0, 0, *after, 0), "mode": "constant"}


def has_rows(node: Node) -> bool:
    """True if a convolution in plain layout has vectors along rows of pixels, for few channels."""
    if not all(map(has_channels, (*node.inputs, node.output))):
        return False
    channels = node.output.type.static_shape[1] // node.attrs["groups"]
    return bool(node.attrs["strides"][-1] == 1 and channels <= FEW_CHANNELS)


def padded_rows(node: Node) -> PlainForm | None:
    """A convolution along rows, its padding a node of its own: loops then have no guards.

    None for other convolutions, and where there is no padding.
    """
    if not has_rows(node) or not any((*node.attrs["before"], *node.attrs["after"])):
        return None
    widths = {side: (0, 0, *node.attrs[side]) for side in ("before", "after")}
    none = dict.fromkeys(widths, (0,) * len(node.attrs["before"]))

    def build(inputs: Sequence[Value]) -> Value:
        padded = make_node("pad", inputs[:1], widths, (), node.provenance).output
        names = [node.output.name]
        operands, attrs = [padded, inputs[1]], {**node.attrs, **none}
        return make_node("conv", operands, attrs, (), node.provenance, names).output

    return PlainForm("convolution along rows", build)


# --- matmuls


def matmul_panels(node: Node, lanes: int) -> PlainForm | None:
    """A matmul by a constant, packed to panels; None for other nodes.

    before: %1 = matmul(%x, @w)             # w: K N
    after:  %1 = packed_matmul(%x, @w2)     # w2: N/32 K 32
    """
    if node.op != "matmul":
        return None
    b = node.inputs[1]
    if not isinstance(b, Constant) or b.type.rank != 2 or not b.type.dtype.is_float:
        return None

    def build(inputs: Sequence[Value]) -> Value:
        return _product(node, inputs[0], np.asarray(b.data), b.name, lanes, node.output.name)

    return PlainForm("matmul by packed panels", build)


def conv_as_matmul(node: Node, lanes: int) -> PlainForm | None:
    """A convolution with one output pixel, which reads every input element once, as a matmul.

    before: %1 = conv(%x, @w)          # x: N C 1 1
    after:  %1 = reshape(packed_matmul(reshape(%x), @w2))
    """
    if node.op != "conv" or node.attrs["groups"] != 1 or not _covers(node):
        return None
    x, w = node.inputs
    if not isinstance(w, Constant) or not x.type.dtype.is_float:
        return None
    rows = (x.type.static_shape[0], w.type.elements // w.type.static_shape[0])

    def build(inputs: Sequence[Value]) -> Value:
        flat = reshaped(inputs[0], rows, node.provenance)
        matrix = np.asarray(w.data).reshape(-1, rows[1]).T
        product = _product(node, flat, matrix, w.name, lanes)
        return reshaped(product, node.output.type.static_shape, node.provenance)

    return PlainForm("convolution as a matmul", build)


def _covers(node: Node) -> bool:
    """True if the kernel is as large as the image, without padding."""
    x, w = node.inputs
    if not (has_channels(x) and has_channels(node.output)):
        return False
    window = zip(x.type.static_shape[2:], w.type.static_shape[2:], node.attrs["dilations"])
    whole = all(size == kernel and (kernel == 1 or step == 1) for size, kernel, step in window)
    return whole and not any((*node.attrs["before"], *node.attrs["after"]))


def _product(node: Node, a: Value, b: np.ndarray, name: str, lanes: int, result: str = "") -> Value:
    columns = b.shape[1]
    panels = pack_panels(b, panel_width(columns, lanes))
    names = [result] if result else ()
    inputs = [a, constant(panels, name)]
    attrs = {"size": columns}
    return make_node("packed_matmul", inputs, attrs, (), node.provenance, names).output
