"""Random kernels at random points of their spaces: refused with a reason, or right.

`PLANISH_RANDOM_KERNELS` is how many the slow test takes of each space, `PLANISH_RANDOM_SEED` the
number of the first, `PLANISH_RANDOM_POINTS` at how many points it takes each. A failure prints the
graph, which a golden file can begin with, and the point of each kernel.
"""

from __future__ import annotations

import itertools
import math
import os
import random
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from planish.autotune.default_schedules import schedule_at
from planish.autotune.spaces import SPACES, space_of
from planish.ir.errors import ScheduleError
from planish.ir.graph import Graph, Node, Value, with_inputs
from planish.ir.reference import evaluate
from planish.passes.local import loop_nest, with_schedule
from planish.passes.pipeline import run_pipeline
from planish.targets.lowering import lower_kernel
from planish.tolerances import compare
from tests.autotune.random_kernels import GENERATORS, random_graph, spelled
from tests.targets.compiled import HOST, random_inputs, run_compiled

#: Graphs of each space in the unmarked test, and in the slow one.
_QUICK, _MANY = 5, int(os.environ.get("PLANISH_RANDOM_KERNELS", "500"))
_FIRST = int(os.environ.get("PLANISH_RANDOM_SEED", "0"))
_POINTS = int(os.environ.get("PLANISH_RANDOM_POINTS", "2"))
#: Graphs in one artefact.
_BATCH = 50
#: Points that are tried until one is not refused.
_TRIED = 60
#: Copies of a body: LLVM takes minutes for thousands of them, each with a long epilogue.
_MOST_UNROLLED = 256


@dataclass(frozen=True, slots=True)
class Case:
    """A random graph, and what the passes make of it with a random point for each kernel."""

    name: str
    graph: Graph
    kernels: Graph

    def text(self) -> str:
        """The graph, and the points of its kernels."""
        points = [
            f"# {node.attrs['name']}: {node.attrs['schedule'].to_json()}"
            for node in self.kernels.nodes
            if node.op == "kernel"
        ]
        return "\n".join([f"# {self.name}", spelled(self.graph), *points])


def _refusal(kernel: Node) -> str:
    """Why the kernel's schedule is not legal, as the lowering says; empty if it is.

    What the passes know of loops (which is nothing of emitted ones) agrees.
    """
    refused = _error(lower_kernel, kernel)
    if kernel.attrs["schedule"].directives:
        known = _error(loop_nest, kernel)
        assert bool(known) == bool(refused), f"loop nest: '{known}', lowering: '{refused}'"
    return refused


def _error(function: Callable[[Node], object], kernel: Node) -> str:
    try:
        function(kernel)
    except ScheduleError as error:
        return str(error)
    return ""


def _scheduled(kernel: Node, rng: random.Random) -> Node:
    """The kernel at the first legal one of random points of its space."""
    points, refused = space_of(kernel).points(kernel, HOST), list[str]()
    count = len(next(iter(points.values()), [None]))
    for number in rng.sample(range(count), min(count, _TRIED)):
        point = {name: values[number].item() for name, values in points.items()}
        try:
            candidate = with_schedule(kernel, schedule_at(kernel, HOST, point))
        except ScheduleError as error:
            refused.append(str(error))
            continue
        reason = _refusal(candidate)
        if not reason and _unrolled(candidate) <= _MOST_UNROLLED:
            return candidate
        refused.append(reason or "too much code")
    raise AssertionError(f"{kernel.where()}: no legal point; refused are {refused[:3]}")


def _unrolled(kernel: Node) -> int:
    """How often the body of a stage is written out, at most."""
    if not kernel.attrs["schedule"].directives:
        return 1
    stages = loop_nest(kernel).stages.values()
    kinds = [[loop.extent for loop in s.loops if loop.kind == "unrolled"] for s in stages]
    return max(math.prod(extents) for extents in kinds)


def case(space: str, seed: int, point: int = 0) -> Case:
    """The random graph of that seed, each of its kernels at a random legal point."""
    graph, rng = random_graph(space, seed), random.Random(f"{seed} {point}")

    def rewrite(node: Node, inputs: tuple[Value, ...]) -> Sequence[Value] | None:
        if node.op != "kernel":
            return None
        return _scheduled(with_inputs(node, inputs), rng).outputs

    kernels = run_pipeline(graph, HOST, verify=False).rebuild(rewrite)
    return Case(graph.output_names[0], graph, kernels)


def _wrong(drawn: Iterable[tuple[str, int]], folder: Path, point: int = 0) -> list[str]:
    """The (space, seed) whose kernels cannot be drawn, compiled, or are wrong, as text."""
    cases, wrong = list[Case](), list[str]()
    for space, seed in drawn:
        try:
            cases.append(case(space, seed, point))
        except Exception as error:
            wrong.append(f"# {space}{seed}\n{spelled(random_graph(space, seed))}{error}")
    # Left behind if the artefact brings the process down.
    (folder / "cases.txt").write_text("\n\n".join(one.text() for one in cases))
    return wrong + _differing(cases, folder)


def _differing(cases: Sequence[Case], folder: Path) -> list[str]:
    """The cases that cannot be compiled or are wrong, as text; one artefact holds them all."""
    graphs = [found.kernels for found in cases]
    joined = Graph(
        tuple(value for graph in graphs for value in graph.inputs),
        tuple(value for graph in graphs for value in graph.outputs),
        tuple(name for graph in graphs for name in graph.output_names),
    )
    inputs = random_inputs(joined, np.random.default_rng(5))
    try:
        actual = run_compiled(joined, inputs, folder)
    except Exception as error:
        if len(cases) == 1:
            return [f"{cases[0].text()}\n{error}"]
        alone = (_differing([one], folder / one.name) for one in cases)
        return [text for texts in alone for text in texts]
    wrong = []
    for found in cases:
        given = {value.name: inputs[value.name] for value in found.graph.inputs}
        expected = evaluate(found.graph, given)[found.name]
        difference = compare(actual[found.name], expected)
        if not difference.ok:
            wrong.append(f"{found.text()}\n{difference}")
    return wrong


def test_every_space_is_drawn_from() -> None:
    assert set(GENERATORS) == set(SPACES)
    drawn = {
        space_of(node).name
        for space in GENERATORS
        for seed in range(3)
        for node in run_pipeline(random_graph(space, seed), HOST, verify=False).nodes
        if node.op == "kernel"
    }
    assert drawn == set(SPACES)


def test_random_kernels(tmp_path: Path) -> None:
    wrong = _wrong(itertools.product(GENERATORS, range(_QUICK)), tmp_path)
    assert not wrong, f"{len(wrong)} wrong\n" + "\n\n".join(wrong)


@pytest.mark.slow
@pytest.mark.parametrize("space", GENERATORS)
def test_many_random_kernels(space: str, tmp_path: Path) -> None:
    wrong: list[str] = []
    seeds = range(_FIRST, _FIRST + _MANY)
    for begin, point in itertools.product(range(0, _MANY, _BATCH), range(_POINTS)):
        folder = tmp_path / f"{begin}_{point}"
        folder.mkdir()
        drawn = ((space, seed) for seed in seeds[begin : begin + _BATCH])
        wrong += _wrong(drawn, folder, point)
    assert not wrong, f"{len(wrong)} wrong of {_MANY} at {_POINTS}\n" + "\n\n".join(wrong)
