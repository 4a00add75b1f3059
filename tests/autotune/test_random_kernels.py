"""Random kernels at random points of their spaces: refused with a reason, or right.

The slow test takes many of each space, in batches that workers share:

    make slow TESTS=tests/autotune/test_random_kernels.py

`PLANISH_RANDOM_KERNELS` is how many it takes of each space, `PLANISH_RANDOM_SEED` the number of the
first, `PLANISH_RANDOM_POINTS` at how many points it takes each. A failure prints the graph, which a
golden file can begin with, and the point of each kernel.
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
#: Graphs in one artefact, which is one test.
_BATCH = 50
#: Points that are tried until one is not refused.
_TRIED = 60
#: Copies of a body: LLVM takes minutes for thousands of them, each with a long epilogue.
_MOST_UNROLLED = 256


@dataclass(frozen=True, slots=True)
class Case:
    """A random graph, and what the passes make of it, for some points of each of its kernels."""

    name: str
    graph: Graph
    compiled: tuple[Graph, ...]

    def text(self, point: int) -> str:
        """The graph, and what its kernels have at one of the points."""
        points = [
            f"# {node.attrs['name']}: {node.attrs['schedule'].to_json()}"
            for node in self.compiled[point].nodes
            if node.op == "kernel"
        ]
        return "\n".join([f"# {self.name}", spelled(self.graph), *points])

    def texts(self) -> str:
        """The graph and its points, one after the other."""
        return "\n\n".join(self.text(point) for point in range(len(self.compiled)))


def _refusal(kernel: Node) -> str:
    """Why the kernel's schedule is not legal; empty if it is.

    What the passes know of loops (which is nothing of emitted ones) says it; the lowering refuses
    the same ones. That it takes all others is left to the compilation.
    """
    if not kernel.attrs["schedule"].directives:
        return _error(lower_kernel, kernel)
    refused = _error(loop_nest, kernel)
    assert not refused or _error(lower_kernel, kernel), f"the lowering takes it: {refused}"
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


def case(space: str, seed: int, points: int = 1) -> Case:
    """The random graph of that seed, each of its kernels at random legal points."""
    graph = random_graph(space, seed)
    fused = run_pipeline(graph, HOST, verify=False)
    compiled = (_at_random(fused, random.Random(f"{seed} {point}")) for point in range(points))
    return Case(graph.output_names[0], graph, tuple(compiled))


def _at_random(graph: Graph, rng: random.Random) -> Graph:
    def rewrite(node: Node, inputs: tuple[Value, ...]) -> Sequence[Value] | None:
        if node.op != "kernel":
            return None
        return _scheduled(with_inputs(node, inputs), rng).outputs

    return graph.rebuild(rewrite)


def _wrong(drawn: Iterable[tuple[str, int]], folder: Path, points: int = 1) -> list[str]:
    """The (space, seed) whose kernels cannot be drawn, compiled, or are wrong, as text."""
    cases, wrong = list[Case](), list[str]()
    for space, seed in drawn:
        try:
            cases.append(case(space, seed, points))
        except Exception as error:
            wrong.append(f"# {space}{seed}\n{spelled(random_graph(space, seed))}{error}")
    # Left behind if the artefact brings the process down.
    (folder / "cases.txt").write_text("\n\n".join(one.texts() for one in cases))
    return wrong + _differing(cases, folder)


def _differing(cases: Sequence[Case], folder: Path) -> list[str]:
    """The cases that cannot be compiled or are wrong, as text; one artefact holds them all."""
    given = [value for one in cases for value in one.compiled[0].inputs]
    outputs = {
        f"{one.name}_{point}": graph.outputs[0]
        for one in cases
        for point, graph in enumerate(one.compiled)
    }
    joined = Graph(tuple(given), tuple(outputs.values()), tuple(outputs))
    inputs = random_inputs(joined, np.random.default_rng(5))
    try:
        actual = run_compiled(joined, inputs, folder)
    except Exception as error:
        if len(cases) == 1:
            return [f"{cases[0].texts()}\n{error}"]
        alone = (_differing([one], folder / one.name) for one in cases)
        return [text for texts in alone for text in texts]
    wrong = []
    for one in cases:
        own = {value.name: inputs[value.name] for value in one.graph.inputs}
        expected = evaluate(one.graph, own)[one.name]
        for point in range(len(one.compiled)):
            difference = compare(actual[f"{one.name}_{point}"], expected)
            if not difference.ok:
                wrong.append(f"{one.text(point)}\n{difference}")
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
@pytest.mark.parametrize("first", range(_FIRST, _FIRST + _MANY, _BATCH))
@pytest.mark.parametrize("space", GENERATORS)
def test_many_random_kernels(space: str, first: int, tmp_path: Path) -> None:
    seeds = range(first, min(first + _BATCH, _FIRST + _MANY))
    wrong = _wrong(((space, seed) for seed in seeds), tmp_path, _POINTS)
    assert not wrong, f"{len(wrong)} wrong of {len(seeds)} at {_POINTS}\n" + "\n\n".join(wrong)
