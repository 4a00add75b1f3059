"""Chooses how convolutions on blocks are computed: as direct sums, or by Winograd's algorithm."""

from __future__ import annotations

import numpy as np

from planish.ir.builder import emit
from planish.ir.graph import Constant, Graph, Node, Value, constant
from planish.ir.ops.winograd import (
    INPUT_ADDITIONS,
    OUTPUT_ADDITIONS,
    PATCH,
    TAPS,
    patches,
    transformed_weights,
)
from planish.ir.target import Target
from planish.ir.types import DType
from planish.passes.pattern import Match, const, op, value
from planish.passes.rewrite import Refusal, Rule, rewrite

#: Weights that are larger, or not finite, stay: in sums of products infinities would meet.
_LARGEST = 2.0**60
#: How many times as fast as the direct sum Winograd's algorithm must be by the estimate.
_GAIN = 1.1
#: Bytes a cycle that a core reads from L3, and that all cores together read from memory.
_L3_BYTES, _DRAM_BYTES = 10.0, 4.0
#: Part of the shorter one of multiplying and reading that the longer one does not hide.
_EXPOSED = 0.3


def choose_algorithm(graph: Graph, target: Target) -> Graph:
    """Replace 3x3 convolutions of stride 1 by `winograd_conv` where that is quicker.

    before: %1 = blocked_conv(%x, @w)     # weights O/16 C/16 3 3 16 16
    after:  %1 = winograd_conv(%x, @u)    # weights O/16 4 4 C/16 16 16

    It multiplies 16 times for 4 pixels instead of 36 times, but transforms what it reads and gives,
    and has 16/9 as many weights to read. The estimate of both is the longer one of two times, and a
    part of the shorter one: that of vector multiply-adds and additions, over whole patches of 4
    pixels, shared among the cores; and that of reading the weights once, from L3 if all of the
    model's weights fit half of it, or else from memory, which the cores share. So deep layers of
    few pixels in large models stay direct.
    """
    weights = {found for found in graph.values() if isinstance(found, Constant)}
    resident = 2 * sum(found.type.nbytes for found in weights) <= target.l3

    def build(match: Match) -> Value | Refusal:
        gain = _gain(match.root, target, resident)
        if gain < _GAIN:
            return Refusal(f"{gain:.2f} times as fast by the estimate, {_GAIN} are needed")
        exact = transformed_weights(match.data("w").astype(np.float64))
        if not np.abs(exact).max(initial=0.0) < _LARGEST:
            return Refusal("sums of large weights would overflow")
        u = constant(exact.astype(match.data("w").dtype), match["w"].name)
        return emit("winograd_conv", match["x"], u)

    pattern = op("blocked_conv", value("x"), const("w"), where=_is_possible)
    return rewrite(graph, [Rule("Winograd's algorithm", pattern, build)])


def _is_possible(node: Node) -> bool:
    """True for 3x3, stride and dilation 1, whole blocks of channels that all outputs read."""
    x, w = (found.type for found in node.inputs)
    attrs = node.attrs
    static = all(isinstance(extent, int) for extent in x.shape)
    return (
        x.dtype is DType.FLOAT32
        and static
        and w.static_shape[2:4] == (TAPS, TAPS)
        and attrs["strides"] == attrs["dilations"] == (1, 1)
        and attrs["groups"] == 1
        and w.static_shape[4] == x.static_shape[4] > 1
    )


def _gain(node: Node, target: Target, resident: bool) -> float:
    """Cycles of the direct sum by those of Winograd's algorithm."""
    w = node.inputs[1].type
    batch, blocks, height, width, _ = node.output.type.static_shape
    depth, lanes = w.static_shape[1], w.static_shape[4]
    direct = height * width * TAPS**2 * depth * lanes * blocks
    products = PATCH**2 * depth * lanes * blocks
    additions = INPUT_ADDITIONS * depth + OUTPUT_ADDITIONS * blocks
    less = patches(height, width) * (products + additions)
    rate = _L3_BYTES * target.cores if resident else _DRAM_BYTES

    def cycles(vectors: int, nbytes: float) -> float:
        times = vectors / (target.fma_per_cycle * target.cores), nbytes / rate
        return max(times) + _EXPOSED * min(times)

    more = w.nbytes * PATCH**2 / TAPS**2
    return cycles(batch * direct, w.nbytes) / cycles(batch * less, more)
