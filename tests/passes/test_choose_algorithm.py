"""What decides between direct sums and Winograd's algorithm, beside what golden files show."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from planish.ir.builder import emit
from planish.ir.graph import Graph, Input, Value, constant
from planish.ir.types import tensor
from planish.passes.choose_algorithm import choose_algorithm
from planish.passes.fuse import fuse
from planish.passes.trace import recording
from tests.passes.random_graphs import TARGET

RNG = np.random.default_rng(23)


def _layer(x: Value, blocks: int) -> Value:
    """A 3x3 convolution over blocks of 8 channels."""
    w = RNG.standard_normal((blocks, x.type.static_shape[1], 3, 3, 8, 8)).astype(np.float32)
    return emit("blocked_conv", x, constant(w), strides=(1, 1), dilations=(1, 1))


def _image(blocks: int, size: int) -> Input:
    return Input(tensor("float32", (1, blocks, size + 2, size + 2, 8)), "x")


def test_few_pixels_do_not_pay_for_weights_from_memory() -> None:
    """16/9 as many weights: where they fit L3 they are there from the run before."""
    x = _image(8, 6)
    graph = Graph((x,), (_layer(x, 8),))
    kept = replace(TARGET, l3=1 << 24)
    assert [node.op for node in choose_algorithm(graph, kept).nodes] == ["winograd_conv"]
    with recording() as events:
        assert choose_algorithm(graph, replace(TARGET, l3=1 << 17)) is graph
    (refused,) = [event.refused for event in events]
    assert refused == "0.74 times as fast by the estimate, 1.1 are needed"
    large = _image(8, 40)
    graph = Graph((large,), (_layer(large, 8),))
    after = choose_algorithm(graph, replace(TARGET, l3=1 << 17))
    assert [node.op for node in after.nodes] == ["winograd_conv"]


def test_the_epilogue_joins_its_kernel() -> None:
    """Bias, residual, activation, and the padding of the next convolution."""
    x, other = _image(2, 16), Input(tensor("float32", (1, 2, 16, 16, 8)), "other")
    bias = constant(RNG.standard_normal((1, 2, 1, 1, 8)).astype(np.float32))
    y = emit("relu", emit("add", emit("add", _layer(x, 2), bias), other))
    sides = {"before": (0, 0, 1, 1, 0), "after": (0, 0, 1, 1, 0)}
    graph = Graph((x, other), (_layer(emit("pad", y, **sides), 2),))
    kernels = fuse(choose_algorithm(graph, TARGET), TARGET).nodes
    ops = [[node.op for node in kernel.regions[0].nodes] for kernel in kernels]
    assert ops == [["winograd_conv", "add", "add", "relu", "pad"], ["winograd_conv"]]
