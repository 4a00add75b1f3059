"""Winograd's convolution compiled: edges, epilogues, places, and how exact it is."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from planish.autotune.spaces import space_of
from planish.ir.builder import emit
from planish.ir.graph import Graph, Node, Value, constant
from planish.ir.ops.winograd import transformed_weights
from planish.ir.reference import evaluate
from planish.ir.types import DType
from planish.passes.fuse import fuse
from planish.passes.local import with_schedule
from tests.targets.compiled import HOST, Cases, run_compiled

RNG = np.random.default_rng(17)
LANES = HOST.lanes(4)


def weights(outputs: int, channels: int) -> np.ndarray:
    """w[O/b, C/b, 3, 3, b, b] that keeps the variance of what it multiplies."""
    shape = (outputs, channels, 3, 3, LANES, LANES)
    scale = (9 * channels * LANES) ** -0.5
    return (RNG.standard_normal(shape) * scale).astype(np.float32)


def conv(x: Value, outputs: int) -> Value:
    w = weights(outputs, x.type.static_shape[1])
    return emit("winograd_conv", x, constant(transformed_weights(w)))


def test_images_of_every_size(tmp_path: Path) -> None:
    """A single pixel, odd rows and columns, tiles that are moved back, several images."""
    cases = Cases()
    for height, width in ((1, 1), (1, 5), (2, 2), (3, 2), (5, 4), (7, 7), (6, 13), (11, 27)):
        x = cases.input(1 + height % 2, 2, height + 2, width + 2, LANES)
        cases.add(f"{height}x{width}", conv(x, 3))
    cases.check(tmp_path)


def test_epilogues(tmp_path: Path) -> None:
    """Operands of every shape, a result that is read twice, one in padding, a product with zero."""
    cases = Cases()
    x = cases.input(1, 2, 11, 10, LANES)
    y = conv(x, 4)
    biased = emit("add", y, constant(RNG.standard_normal((1, 4, 1, 1, LANES)).astype("float32")))
    residual = emit("relu", emit("add", biased, cases.input(*y.type.static_shape)))
    cases.add("residual", residual)
    cases.add("swish", emit("mul", conv(x, 2), emit("sigmoid", conv(x, 2))))
    twice = conv(x, 2)
    cases.add("twice", emit("mul", twice, emit("sigmoid", twice)))
    cases.add("zero", emit("mul", conv(x, 2), constant(np.float32(0))))
    sides = {"before": (0, 0, 1, 1, 0), "after": (0, 0, 1, 2, 0)}
    cases.add("padded", emit("pad", emit("relu", conv(x, 2)), **sides))
    cases.check(tmp_path)


def test_it_overwrites_a_residual_only_where_no_tile_overlaps(tmp_path: Path) -> None:
    """A chain of residual blocks: an overlapping tile would add the residual twice."""
    for size in (8, 9):
        cases = Cases()
        image = cases.input(1, 2, size, size, LANES)
        y: Value = emit("relu", image)
        sides = {"before": (0, 0, 1, 1, 0), "after": (0, 0, 1, 1, 0)}
        for _ in range(3):
            y = emit("relu", emit("add", conv(emit("pad", y, **sides), 2), y))
        cases.add("chain", y)
        folder = tmp_path / str(size)
        folder.mkdir()
        cases.check(folder)


def _at_all_shares(graph: Graph) -> list[Graph]:
    """The graph's only kernel under every way to share its work."""
    (kernel,) = fuse(graph, HOST).nodes
    space, found = space_of(kernel), list[Graph]()
    for share in ("rows", "channels"):
        for group in (1, 4):
            point = {"p": 3, "oc": 2, "group": group, "share": share, "parallel": True}
            node: Node = with_schedule(kernel, space.schedule(kernel, HOST, point))
            found.append(Graph(graph.inputs, node.outputs, graph.output_names))
    return found


def test_shares_compute_the_same_bits(tmp_path: Path) -> None:
    cases = Cases()
    cases.add("y", emit("relu", conv(cases.input(2, 2, 10, 14, LANES), 4)))
    graph, inputs = cases.graph(), cases.random_inputs()
    results = []
    for number, variant in enumerate(_at_all_shares(graph)):
        (tmp_path / str(number)).mkdir()
        results.append(run_compiled(variant, inputs, tmp_path / str(number))["y"])
    for other in results[1:]:
        np.testing.assert_array_equal(other, results[0])


def test_error_is_at_most_twice_that_of_the_direct_sum(tmp_path: Path) -> None:
    """Against float64, on data of either sign and on what a relu leaves."""
    cases = Cases()
    exact = {}
    for name, channels in (("shallow", 1), ("deep", 16)):
        x = cases.input(1, channels, 18, 18, LANES)
        w = weights(2, channels)
        for sign, data in (("any", x), ("positive", emit("relu", x))):
            unit = {"strides": (1, 1), "dilations": (1, 1)}
            direct = emit("blocked_conv", data, constant(w), **unit)
            cases.add(f"{name}_{sign}_direct", direct)
            u = constant(transformed_weights(w))
            cases.add(f"{name}_{sign}_winograd", emit("winograd_conv", data, u))
            wide = emit("cast", data, to=DType.FLOAT64)
            exact[f"{name}_{sign}"] = emit(
                "blocked_conv", wide, constant(w.astype(np.float64)), **unit
            )
    graph, inputs = cases.graph(), cases.random_inputs()
    found = run_compiled(graph, inputs, tmp_path)
    truth = evaluate(Graph(graph.inputs, tuple(exact.values()), tuple(exact)), inputs)
    for name, expected in truth.items():
        direct, winograd = (
            np.sqrt(np.mean((found[f"{name}_{kind}"] - expected) ** 2))
            for kind in ("direct", "winograd")
        )
        assert 0 < winograd <= 2 * direct, f"{name}: {winograd} against {direct}"
