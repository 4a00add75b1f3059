"""Every pass alone, and all of them, keep what random graphs of sixty ops and more compute.

The nightly form draws PLANISH_RANDOM_GRAPHS graphs (2,000 by default), and new ones each time:

    PLANISH_RANDOM_GRAPHS=2000 pytest -m slow tests/passes/test_large_random_graphs.py
"""

from __future__ import annotations

import os
from collections import Counter

import numpy as np
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from large_random_graphs import FEWEST_OPS, large_graph, numbers
from random_graphs import TARGET
from shrink import shrunk

from planish.ir.graph import Graph
from planish.ir.parse import random_data
from planish.ir.reference import evaluate
from planish.ir.text import print_graph
from planish.passes.pass_ import Step
from planish.passes.pipeline import PIPELINE, run_pipeline
from planish.tolerances import compare

_STEPS = {step.name: step for step in reversed(PIPELINE)}
_NIGHTLY = int(os.environ.get("PLANISH_RANDOM_GRAPHS", "2000"))


def _settings(examples: int, *, fresh: bool = False) -> settings:
    # `shrunk` is faster than hypothesis at making graphs small, and goes below FEWEST_OPS.
    return settings(
        max_examples=examples,
        deadline=None,
        derandomize=not fresh,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )


def _inputs(graph: Graph) -> dict[str, np.ndarray]:
    return {value.name: random_data(value.type, i) for i, value in enumerate(graph.inputs)}


def _wrong(graph: Graph, steps: list[Step]) -> str:
    """What the steps change in the results; empty if nothing."""
    try:
        after = run_pipeline(graph, TARGET, steps)
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    if after is graph:
        return ""
    inputs = _inputs(graph)
    with np.errstate(all="ignore"):
        expected, found = evaluate(graph, inputs), evaluate(after, inputs)
    for name, array in expected.items():
        difference = compare(found[name], array)
        if not difference.ok:
            return f"{name}: {difference.reason}"
    return ""


def _check(graph: Graph) -> None:
    assert len(graph.nodes) >= FEWEST_OPS
    for steps in ([], *([step] for step in _STEPS.values()), list(PIPELINE)):
        if _wrong(graph, steps):
            small = shrunk(graph, lambda candidate: bool(_wrong(candidate, steps)))  # noqa: B023
            names = ", ".join(step.name for step in steps)
            raise AssertionError(f"{names}: {_wrong(small, steps)}\n{print_graph(small)}")


@given(numbers=numbers)
@_settings(20)
def test_passes_preserve_results(numbers: list[int]) -> None:
    _check(large_graph(numbers))


@pytest.mark.slow
@given(numbers=numbers)
@_settings(_NIGHTLY, fresh=True)
def test_passes_preserve_results_nightly(numbers: list[int]) -> None:
    _check(large_graph(numbers))


def test_graphs_hold_what_networks_hold() -> None:
    rng = np.random.RandomState(0)
    graphs = [large_graph(rng.randint(0, 2**30, 65).tolist()) for _ in range(30)]
    ops = Counter(node.op for graph in graphs for node in graph.nodes)
    common = (
        "conv conv_transpose pool matmul reduce_mean reduce_max softmax layer_norm batch_norm "
        "concat slice transpose reshape broadcast_to where pad resize gather add mul"
    )
    assert not [op for op in common.split() if ops[op] < 5]
    assert any(ops[op] for op in ("less", "greater", "less_equal", "greater_equal"))
    for graph in graphs:
        assert len(graph.outputs) >= 2
        assert max(len(uses) for uses in graph.users().values()) >= 3


def test_shrinking_finds_the_node_at_fault() -> None:
    graph = large_graph(np.random.RandomState(1).randint(0, 2**30, 65).tolist())
    small = shrunk(graph, lambda g: any(node.op == "pool" for node in g.nodes))
    assert [node.op for node in small.nodes] == ["pool"]
    assert len(small.inputs) == len(small.outputs) == 1
