"""The arena: what is alive at once never overlaps, and little is wasted."""

from __future__ import annotations

import os
from collections.abc import Sequence
from itertools import combinations
from pathlib import Path

import numpy as np
import onnx.backend.test
import pytest

from planish.autotune.default_schedules import assign_default_schedules
from planish.ir.builder import emit
from planish.ir.graph import Graph, Input, Node, Value, constant
from planish.ir.onnx import import_model
from planish.ir.types import tensor
from planish.passes.pipeline import run_pipeline
from planish.targets.memory import (
    Buffer,
    MemoryPlan,
    assign_offsets,
    largest_live_set,
    lifetimes,
    plan_memory,
)
from planish.targets.plan import ALIGNMENT
from tests.targets.compiled import HOST
from tests.targets.large_graphs import large_graph

_LIGHT = Path(onnx.backend.test.__file__).parent / "data" / "light"


def _kernels(graph: Graph) -> Graph:
    return assign_default_schedules(run_pipeline(graph, HOST, verify=False), HOST)


def _random_graph(seed: int) -> Graph:
    return large_graph(np.random.RandomState(seed).randint(0, 2**30, 65).tolist())


def _touched(plan: MemoryPlan, value: Value) -> tuple[str, int, int] | None:
    """(space, begin, end) of a value in memory; None for a buffer of the caller's own."""
    place = plan.place(value)
    if place.space not in ("arena", "weights"):
        return place.space, place.offset_or_index, place.offset_or_index + 1
    begin = place.offset_or_index
    return place.space, begin, begin + value.type.nbytes


def check_by_replay(graph: Graph, steps: Sequence[Sequence[Node]] | None = None) -> MemoryPlan:
    """Follows the steps in order: what a kernel reads is what was last written there.

    The kernels of a step all read before any of them writes, and their results are apart: but for
    that of a kernel in place, which only then may lie where the step reads.
    """
    plan = plan_memory(graph, steps)
    written: dict[tuple[str, int], Value] = {}  # (space, 64 bytes) → the value that wrote them
    for step in plan.steps:
        read: dict[tuple[str, int], list[tuple[Node, int]]] = {}
        for node in step:
            for number, value in enumerate(node.inputs):
                source = plan.views.of(value).owner
                for chunk in _chunks(plan, value):
                    owner = written.get(chunk)
                    assert owner is None or plan.views.of(owner).owner is source, value.name
                    read.setdefault(chunk, []).append((node, number))
        fresh: set[tuple[str, int]] = set()
        for node in step:
            allowed = [(node, plan.in_place[node])] if node in plan.in_place else []
            for value in node.outputs:
                for chunk in _chunks(plan, value):
                    assert chunk not in fresh
                    assert read.get(chunk, allowed) == allowed, value.name
                    fresh.add(chunk)
                    written[chunk] = value
    for value in graph.outputs:
        for chunk in _chunks(plan, value):
            assert plan.views.of(written[chunk]).owner is plan.views.of(value).owner
    return plan


def _chunks(plan: MemoryPlan, value: Value) -> list[tuple[str, int]]:
    space, begin, end = _touched(plan, value) or ("", 0, 0)
    if space not in ("arena", "weights"):
        return [(space, begin)]
    assert space != "arena" or end <= plan.arena_bytes
    return [(space, at) for at in range(begin // ALIGNMENT, -(-end // ALIGNMENT))]


@pytest.mark.parametrize("seed", range(30))
def test_nothing_alive_is_overwritten(seed: int) -> None:
    graph = _kernels(_random_graph(seed))
    plan = check_by_replay(graph)
    assert plan.arena_bytes >= plan.lower_bound
    for value in graph.values():
        place = plan.place(value)
        if place.space in ("arena", "weights"):
            assert place.offset_or_index % ALIGNMENT == 0
    again = plan_memory(graph)
    assert [again.place(v) for v in graph.values()] == [plan.place(v) for v in graph.values()]


def test_offsets_of_random_buffers() -> None:
    rng = np.random.default_rng(5)
    for count in (0, 1, 2, 17, 60):
        buffers = []
        for _ in range(count):
            first = int(rng.integers(0, 40))
            nbytes = int(rng.choice([0, 1, 63, 64, 65, 1000, 4096]))
            value = Input(tensor("uint8", (nbytes,)), "")
            buffers.append(Buffer(value, nbytes, first, first + int(rng.integers(0, 9))))
        offsets = assign_offsets(buffers)
        placed = list(zip(buffers, offsets))
        for (a, begin), (b, other) in combinations(placed, 2):
            together = a.first <= b.last and b.first <= a.last
            apart = begin + max(a.nbytes, 1) <= other or other + max(b.nbytes, 1) <= begin
            assert apart or not together
        end = max((begin + b.nbytes for b, begin in placed), default=0)
        assert end <= 1.25 * largest_live_set(buffers)


def test_largest_live_set() -> None:
    value = Input(tensor("uint8", (1,)), "")
    buffers = [Buffer(value, 100, 0, 2), Buffer(value, 64, 1, 1), Buffer(value, 200, 3, 4)]
    assert largest_live_set(buffers) == 256
    assert largest_live_set([]) == 0


def test_equal_constants_are_stored_once() -> None:
    x = Input(tensor("float32", (4, 8)), "x")
    data = np.arange(8, dtype=np.float32)
    first = emit("softmax", emit("add", x, constant(data)), axis=1)
    second = emit("softmax", emit("mul", x, constant(data.copy())), axis=0)
    third = emit("sub", x, constant(data + 1))
    plan = plan_memory(_kernels(Graph((x,), (first, second, third))))
    assert plan.weights_bytes == 2 * ALIGNMENT
    assert [offset for offset, _ in plan.weights] == [0, ALIGNMENT]


def test_outputs_and_inputs_are_the_callers() -> None:
    x = Input(tensor("float32", (4, 8)), "x")
    graph = _kernels(Graph((x,), (emit("relu", x), emit("reshape", x, shape=(8, 4)))))
    plan = plan_memory(graph)
    assert plan.arena_bytes == 0
    assert plan.place(x).space == "input"
    assert [plan.place(v).space for v in graph.outputs] == ["output", "output"]
    assert lifetimes(plan.steps, plan.views, {})[0].first == 0


@pytest.mark.parametrize(
    "name",
    [
        "squeezenet",
        *(pytest.param(n, marks=pytest.mark.slow) for n in ("shufflenet", "inception_v1")),
    ],
)
def test_arena_is_near_the_lower_bound(name: str) -> None:
    graph = _kernels(import_model(os.fspath(_LIGHT / f"light_{name}.onnx")))
    plan = check_by_replay(graph)
    assert plan.lower_bound > 0
    assert plan.arena_bytes <= 1.05 * plan.lower_bound


def test_reshaped_operands_of_a_concat_lie_in_it() -> None:
    """The concat is the memory that both results are written to, whatever order views come in."""
    x = Input(tensor("float32", (1, 64)), "x")
    w = constant(np.random.default_rng(0).standard_normal((64, 64)).astype("float32"))
    first = emit("matmul", x, w)
    parts = [emit("reshape", y, shape=(1, 1, 64)) for y in (first, emit("matmul", first, w))]
    both = emit("reshape", emit("concat", *parts, axis=1), shape=(1, 2, 64, 1))
    graph = Graph((x,), (emit("transpose", emit("relu", both), perm=(3, 2, 1, 0)),))
    fused = _kernels(graph)
    assert [node.op for node in fused.nodes].count("concat") == 1
    check_by_replay(fused)
