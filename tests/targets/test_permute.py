"""Register tiles of transposed layouts: every size and order, whatever hangs over."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from planish.autotune.default_schedules import schedule_at
from planish.autotune.spaces import Choices, space_of
from planish.ir.builder import emit
from planish.ir.graph import Graph, Input, Node, Value, with_inputs
from planish.ir.reference import evaluate
from planish.ir.types import tensor
from planish.passes.fuse import fuse
from planish.passes.local import with_schedule
from planish.targets.hardware import find_target
from tests.targets.compiled import HOST, random_inputs, run_compiled

#: Shape, permutation: rows and columns of any remainder by tiles and squares, outer digits, images.
_TURNED = (
    ((49, 37), (1, 0)),
    ((96, 272), (1, 0)),
    ((3, 50, 70), (0, 2, 1)),
    ((1, 14, 14, 64), (0, 3, 1, 2)),
    ((7, 5, 33, 6), (1, 3, 0, 2)),
)
_Shape = tuple[int, ...]


def _kernel(shape: _Shape, perm: _Shape, dtype: str = "float32") -> Node:
    x = Input(tensor(dtype, shape), "x")
    (kernel,) = fuse(Graph((x,), (emit("transpose", x, perm=perm),)), HOST).nodes
    return kernel


def _points(kernel: Node) -> Iterator[Choices]:
    """One point for each tile, order and sharing."""
    points, seen = space_of(kernel).points(kernel, HOST), set()
    for i in np.flatnonzero(points["tile"] > 0):
        point = {name: values[i].item() for name, values in points.items()}
        what = (point["tile"], point["order"], point["share"])
        if what not in seen and point["parallel"]:
            seen.add(what)
            yield point


@pytest.mark.parametrize("dtype", ["float32", "float64", "float16", "int8"])
def test_every_tile_and_order_is_right(dtype: str, tmp_path: Path) -> None:
    inputs: list[Input] = []
    outputs: list[Value] = []
    drawn: dict[str, Choices] = {}
    for shape, perm in _TURNED:
        for point in _points(_kernel(shape, perm, dtype)):
            inputs.append(Input(tensor(dtype, shape), f"x{len(inputs)}"))
            outputs.append(emit("transpose", inputs[-1], perm=perm))
            drawn[inputs[-1].name] = point

    def scheduled(node: Node, given: tuple[Value, ...]) -> Sequence[Value] | None:
        kernel = with_inputs(node, given)
        (x,) = kernel.inputs
        assert isinstance(x, Input)
        return with_schedule(kernel, schedule_at(kernel, HOST, drawn[x.name])).outputs

    names = tuple(f"y{i}" for i in range(len(outputs)))
    graph = Graph(tuple(inputs), tuple(outputs), names)
    arrays = random_inputs(graph, np.random.default_rng(3))
    actual = run_compiled(fuse(graph, HOST).rebuild(scheduled), arrays, tmp_path)
    for name, expected in evaluate(graph, arrays).items():
        wrong = drawn[f"x{name[1:]}"]
        assert np.array_equal(actual[name], expected), (expected.shape, wrong)
    assert {point["order"] for point in drawn.values()} == {"read", "written"}


@pytest.mark.parametrize("target", ["x86-64-v4", "x86-64-v3", "neoverse-n1"])
def test_lines_follow_each_other_in_the_tensor_of_the_distant_rows(target: str) -> None:
    """And no transpose, however large, is taken element by element."""
    one_core = replace(find_target(target), cores=1)
    expected = {
        ((128, 1024), (1, 0)): "read",
        ((1024, 128), (1, 0)): "written",
        ((1, 64, 56, 56), (0, 2, 3, 1)): "read",
        ((1, 56, 56, 64), (0, 3, 1, 2)): "written",
        ((64, 1001), (1, 0)): "read",  # no row of the source begins with a line
        ((1001, 64), (1, 0)): "written",
    }
    for (shape, perm), order in expected.items():
        kernel = _kernel(shape, perm)
        assert space_of(kernel).pick(kernel, one_core)["order"] == order, shape
    for size in (512, 1000, 2048):
        kernel = _kernel((size, size), (1, 0))
        assert space_of(kernel).pick(kernel, one_core)["tile"] == one_core.lanes(4)
