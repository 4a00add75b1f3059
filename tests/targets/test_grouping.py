"""Launch groups: what is put side by side, that memory keeps it apart, and that results agree."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from planish.artefact.loading import load
from planish.autotune.default_schedules import assign_default_schedules, default_schedule
from planish.cli.inspecting import inspect
from planish.driver import compile_graph
from planish.ir.builder import emit, make_node
from planish.ir.graph import Graph, Input, Node, Value, constant, with_inputs
from planish.ir.reference import evaluate
from planish.ir.types import tensor
from planish.passes.fuse import fuse
from planish.passes.local import with_schedule
from planish.passes.pipeline import run_pipeline
from planish.targets import grouping
from planish.targets.emitters import EMITTERS
from planish.targets.grouping import Launch, balanced, is_serial, launches, nanoseconds, saved
from planish.targets.lowering import lower_kernel
from planish.targets.memory import one_by_one, plan_memory
from planish.tolerances import compare
from tests.targets.compiled import HOST, random_inputs
from tests.targets.large_graphs import large_graph
from tests.targets.test_memory import check_by_replay

ONE_CORE = dataclasses.replace(HOST, cores=1)


def _scheduled(graph: Graph) -> Graph:
    """Kernels with 100,000 elements and more for all threads, the others for one."""

    def rewrite(node: Node, inputs: tuple[Value, ...]) -> Sequence[Value] | None:
        if node.op != "kernel":
            return None
        target = HOST if node.inputs[0].type.elements >= 100_000 else ONE_CORE
        return with_schedule(with_inputs(node, inputs), default_schedule(node, target)).outputs

    return fuse(graph, HOST).rebuild(rewrite)


def _branches(*rows: int, wide: int = 1000) -> Graph:
    """For each number of rows an input of its own → softmax → softmax → sum; all sums added.

    A last branch of `wide` rows is for all threads, and needs the most memory.
    """
    inputs = [Input(tensor("float32", (n, 100)), f"x{i}") for i, n in enumerate((wide, *rows))]
    sums = []
    for x in inputs:
        branch = emit("softmax", emit("softmax", x, axis=0), axis=1)
        sums.append(emit("reduce_sum", branch, axes=(0,), keepdims=True))
    total = sums[0]
    for part in sums[1:]:
        total = emit("softmax", emit("add", total, part), axis=1)
    return Graph(tuple(inputs), (total,))


def _groups(order: Sequence[Launch]) -> list[Launch]:
    return [launch for launch in order if len(launch.lanes) > 1]


def _is_topological(order: Sequence[Launch]) -> bool:
    """True if each kernel runs after, and not beside, all that it needs."""
    done: set[Node] = set()
    for launch in order:
        if not all(grouping._producers(kernel) <= done for kernel in launch.kernels):
            return False
        done.update(launch.kernels)
    return True


def test_independent_kernels_are_one_launch(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    graph = _scheduled(_branches(150, 150, 140))
    order = launches(graph, HOST)
    groups = _groups(order)
    assert [len(group.kernels) for group in groups] == [3, 3]
    assert [len(group.lanes) for group in groups] == [2, 2]
    assert _is_topological(order)
    assert all(is_serial(k) and nanoseconds(k) > grouping.LAUNCH for k in groups[0].kernels)

    compile_graph(graph, tmp_path / "artefact", HOST, "branches")
    inspect(tmp_path / "artefact", check=False, as_json=False)
    shown = capsys.readouterr().out
    assert [shown.count(f" {group}.{lane} ") for group in (0, 1) for lane in (0, 1)] == [2, 1, 2, 1]
    inputs = random_inputs(graph, np.random.default_rng(0))
    expected = evaluate(graph, inputs)
    with load(tmp_path / "artefact", threads=3) as model:
        lanes = [kernel.lane for kernel in model.kernels]
        assert {lane for lane in lanes if lane} == {(g, n) for g in range(2) for n in range(2)}
        assert [lane for lane in lanes if lane] == sorted(lane for lane in lanes if lane)
        for threads in (1, 2, 3):
            actual = model.run(inputs, threads=threads)
            assert all(compare(actual[name], expected[name]).ok for name in expected)
        names = [name for name, _ in model.profile(inputs)]
        assert names == [kernel.name for kernel in model.kernels]
        assert all(seconds > 0 for _, seconds in model.profile(inputs))


def test_what_makes_no_group(monkeypatch: pytest.MonkeyPatch) -> None:
    graph = _scheduled(_branches(150, 150, 140))
    assert _groups(launches(graph, ONE_CORE)) == []
    small = _scheduled(_branches(20, 20, 20))
    assert _groups(launches(small, HOST)) == []
    large = _scheduled(_branches(1000, 1000, 1000))
    assert not any(is_serial(k) for k in large.nodes if k.output.type.elements >= 100_000)
    assert _groups(launches(large, HOST)) == []
    monkeypatch.setattr(grouping, "ENABLED", False)
    assert _groups(launches(graph, HOST)) == []


def test_recurrent_cells_have_one_thread() -> None:
    n, data = 16, np.random.default_rng(1)
    state = Input(tensor("float32", (2, n)), "state")
    for op, gates in (("lstm", 4), ("gru", 3), ("rnn", 1)):
        x = Input(tensor("float32", (5, 2, gates * n)), "x")
        r = constant(data.standard_normal((gates * n, n)).astype("float32"))
        bias = [] if op == "rnn" else [constant(data.standard_normal(3 * n).astype("float32"))]
        given = [x, r, state, state, *bias] if op == "lstm" else [x, r, *bias, state]
        node = make_node(op, given)
        graph = _scheduled(Graph((x, state), (node.outputs[0],)))
        for kernel in graph.nodes:
            assert is_serial(kernel)
            assert "parallel" not in lower_kernel(kernel).func.script()
    assert {"lstm", "gru", "rnn"} == grouping.SERIAL_EMITTERS <= set(EMITTERS)


def test_a_chain_is_no_group() -> None:
    value: Value = Input(tensor("float32", (150, 100)), "x")
    graph_input = value
    for axis in (0, 1, 0, 1):
        value = emit("softmax", value, axis=axis)
    assert isinstance(graph_input, Input)
    graph = _scheduled(Graph((graph_input,), (value,)))
    assert all(is_serial(k) and nanoseconds(k) > grouping.LAUNCH for k in graph.nodes)
    assert _groups(launches(graph, HOST)) == []


def test_a_group_does_not_take_memory() -> None:
    """Three results at once would be more than is ever alive one by one: two go side by side."""
    graph = _scheduled(_branches(150, 150, 140, wide=100))
    order = launches(graph, HOST)
    assert max(len(launch.kernels) for launch in order) == 2
    grouped = plan_memory(graph, [launch.kernels for launch in order])
    assert grouped.arena_bytes == plan_memory(graph).arena_bytes
    assert [tuple(step) for step in grouped.steps] == [launch.kernels for launch in order]


def test_lanes_are_balanced() -> None:
    kernels = [
        kernel
        for kernel in _scheduled(_branches(150, 90, 70, 80)).nodes
        if kernel.op == "kernel" and nanoseconds(kernel) > grouping.LAUNCH / 2
    ]
    lanes = balanced(kernels, 2)
    times = [sum(map(nanoseconds, lane)) for lane in lanes]
    assert sorted(k.attrs["name"] for lane in lanes for k in lane) == sorted(
        k.attrs["name"] for k in kernels
    )
    assert max(times) - min(times) <= max(map(nanoseconds, kernels))
    assert saved(lanes) == min(times)
    assert len(balanced(kernels[:1], 4)) == 1


@pytest.mark.parametrize("seed", range(15))
def test_groups_of_random_graphs(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """With launches that cost nothing there are many groups: in order, and apart in memory."""
    monkeypatch.setattr(grouping, "LAUNCH", 0)
    numbers = np.random.RandomState(seed).randint(0, 2**30, 65).tolist()
    graph = run_pipeline(large_graph(numbers), HOST, verify=False)
    graph = assign_default_schedules(graph, HOST)
    order = launches(graph, HOST)
    assert _is_topological(order)
    steps = [launch.kernels for launch in order]
    kernels = [kernel for step in steps for kernel in step]
    assert sorted(map(id, kernels)) == sorted(id(k) for s in one_by_one(graph) for k in s)
    plan = check_by_replay(graph, steps)
    assert plan.arena_bytes <= plan_memory(graph).arena_bytes


@pytest.mark.parametrize("seed", range(2))
def test_results_of_random_groups(
    seed: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(grouping, "LAUNCH", 0)
    numbers = np.random.RandomState(40 + seed).randint(0, 2**30, 65).tolist()
    graph = run_pipeline(large_graph(numbers), HOST, verify=False)
    graph = assign_default_schedules(graph, HOST)
    assert _groups(launches(graph, HOST))
    compile_graph(graph, tmp_path / "artefact", HOST, "random")
    inputs = random_inputs(graph, np.random.default_rng(seed))
    with np.errstate(all="ignore"):
        expected = evaluate(graph, inputs)
    with load(tmp_path / "artefact", threads=2) as model:
        for threads in (1, 2, 2, 2):
            actual = model.run(inputs, threads=threads)
            wrong = [n for n in expected if not compare(actual[n], expected[n]).ok]
            assert not wrong
