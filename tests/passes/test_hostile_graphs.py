"""Every pass alone, and all of them, keep what hostile graphs compute: NaN, wrap-around, digits.

The nightly form draws PLANISH_RANDOM_GRAPHS graphs (2,000 by default), and new ones each time:

    PLANISH_RANDOM_GRAPHS=20000 pytest -m slow tests/passes/test_hostile_graphs.py
"""

from __future__ import annotations

import os
import random
import time

import pytest
from hostile_graphs import hostile_graph, wrong
from random_graphs import TARGET
from shrink import shrunk

from planish.ir.graph import Graph
from planish.ir.text import print_graph
from planish.passes.pass_ import Step
from planish.passes.pipeline import PIPELINE, run_pipeline

_STEPS = {step.name: step for step in reversed(PIPELINE)}
_NIGHTLY = int(os.environ.get("PLANISH_RANDOM_GRAPHS", "2000"))


def _wrong(graph: Graph, steps: list[Step]) -> str:
    """What the steps change in the results of a graph; empty if nothing."""
    try:
        after = run_pipeline(graph, TARGET, steps)
        if after is graph:
            return ""
        return next(filter(None, (wrong(graph, after, seed) for seed in range(3))), "")
    except Exception as error:
        return f"{type(error).__name__}: {error}"


def _check(numbers: list[int], alone: bool) -> None:
    graph = hostile_graph(numbers)
    steps = [list(PIPELINE), *([step] for step in _STEPS.values() if alone)]
    for chosen in steps:
        if _wrong(graph, chosen):
            small = shrunk(graph, lambda candidate: bool(_wrong(candidate, chosen)))  # noqa: B023
            names = ", ".join(step.name for step in chosen)
            raise AssertionError(f"{names}: {_wrong(small, chosen)}\n{print_graph(small)}")


def _numbers(source: random.Random) -> list[int]:
    return [source.randrange(1 << 30) for _ in range(source.randint(3, 14))]


@pytest.mark.filterwarnings("error")
def test_passes_preserve_results() -> None:
    source = random.Random(0)
    for _ in range(150):
        _check(_numbers(source), alone=source.random() < 0.1)


@pytest.mark.slow
@pytest.mark.filterwarnings("error")
def test_passes_preserve_results_nightly() -> None:
    source = random.Random(time.time_ns())
    for _ in range(_NIGHTLY):
        _check(_numbers(source), alone=True)
