"""Turn the stride of narrow convolutions into channels."""

from __future__ import annotations

import numpy as np

from planish.ir.builder import emit
from planish.ir.graph import Graph, Node, Value, constant
from planish.ir.target import Target
from planish.passes.layout.convolutions import FEW_CHANNELS
from planish.passes.pattern import Match, const, op, value
from planish.passes.rewrite import Refusal, Rule, rewrite


def space_to_depth(graph: Graph, target: Target) -> Graph:
    """Rewrite convolutions with few channels so that they step along rows by one.

        %1: float32[1, 1, 1, 999] = conv(%0: float32[1, 1, 1, 2004], @w, strides=[1, 2])  # 8 taps
    →
        %1: float32[1, 1, 1, 1002, 2] = reshape(%0)
        %2: float32[1, 2, 1, 1002] = reshape(transpose(%1))
        %3: float32[1, 1, 1, 999] = conv(%2, @w2, strides=[1, 1])  # 4 taps of 2 channels

    Column `s·i + p` of the input becomes column `i` of channel `p`, and so do the taps: vectors
    then read neighbouring pixels. Sums are taken in another order; otherwise exact.
    """
    return rewrite(graph, RULES)


def _is_narrow(node: Node) -> bool:
    x, w = node.inputs
    if x.type.rank != 4 or node.attrs["groups"] != 1:
        return False
    outputs, inputs, _, taps = w.type.static_shape
    stride = node.attrs["strides"][1]
    return max(outputs, inputs) <= FEW_CHANNELS and 1 < stride <= taps


def _split(match: Match) -> Value | Refusal:
    node = match.root
    x, w = node.inputs[0], match.data("w")
    stride, attrs = node.attrs["strides"][1], node.attrs
    if attrs["dilations"][1] != 1:
        return Refusal("taps that are apart do not split into phases")
    if match.data("w").shape[3] % stride:
        return Refusal("a tap more, of weight 0, would make NaN of an infinity beside the window")
    batch, channels, height, width = x.type.static_shape
    outputs, _, rows, _ = w.shape
    before, after = attrs["before"][1], attrs["after"][1]
    total = before + width + after
    surplus = -total % stride
    if before or after or surplus:
        x = emit("pad", x, before=(0, 0, 0, before), after=(0, 0, 0, after + surplus))
    columns = (total + surplus) // stride
    phases = emit("reshape", x, shape=(batch, channels, height, columns, stride))
    apart = emit("transpose", phases, perm=(0, 1, 4, 2, 3))
    data = emit("reshape", apart, shape=(batch, channels * stride, height, columns))
    kernel = w.reshape(outputs, channels, rows, -1, stride).transpose(0, 1, 4, 2, 3)
    weights = constant(np.ascontiguousarray(kernel.reshape(outputs, channels * stride, rows, -1)))
    made = emit(
        "conv",
        data,
        weights,
        before=(attrs["before"][0], 0),
        after=(attrs["after"][0], 0),
        strides=(attrs["strides"][0], 1),
        dilations=(attrs["dilations"][0], 1),
        groups=1,
    )
    wanted = node.output.type.static_shape[3]
    if made.type.static_shape[3] == wanted:
        return made
    stops = (*node.output.type.static_shape[:3], wanted)
    return emit("slice", made, starts=(0,) * 4, stops=stops, steps=(1,) * 4)


RULES = (
    Rule(
        "narrow strided convolution", op("conv", value("x"), const("w"), where=_is_narrow), _split
    ),
)
