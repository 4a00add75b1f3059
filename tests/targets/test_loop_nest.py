"""The loop nests that local passes reason about are those that TVM makes."""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tvm import tirx

from planish.autotune.spaces import space_of
from planish.ir.errors import ScheduleError
from planish.ir.graph import Node
from planish.ir.schedule import Directive, Schedule
from planish.passes.local import with_schedule
from planish.passes.local.loop_nest import LoopNest, loop_nest
from planish.passes.local.stages import stages_of
from planish.targets import lowering, replay
from planish.targets.expressions.view import Stages
from tests.targets.anchor_kernels import anchor_kernels, joined
from tests.targets.compiled import HOST, check_against_reference, random_inputs

KERNELS = anchor_kernels(HOST)
#: Those that are compiled, not only replayed.
COMPILED = [name for name in KERNELS if not name.endswith("_epilogue")][::2]


def schedules(kernel: Node, most: int) -> Iterator[Node]:
    """The kernel under legal points of its space: each option once, then random ones."""
    space = space_of(kernel)
    options, default = space.options(kernel, HOST), space.pick(kernel, HOST)
    points = [default | {name: value} for name, values in options.items() for value in values]
    rng = random.Random(0)
    points += [{name: rng.choice(values) for name, values in options.items()} for _ in range(99)]
    legal = [point for point in points if space.is_legal(kernel, HOST, point)]
    distinct = {tuple(sorted(point.items())): point for point in legal}
    for point in itertools.islice(distinct.values(), most):
        yield with_schedule(kernel, space.schedule(kernel, HOST, point))


def tvm_stages(kernel: Node) -> tuple[Stages, Any]:
    """The stages that lowering begins with, and the function."""
    stages = Stages()
    (body,) = kernel.regions
    return stages, lowering._expressions(body, stages, kernel.attrs["schedule"])


def tvm_loops(state: replay.Replay) -> dict[str, dict[str, Any]]:
    """Stage → loop → extent, as TVM has them."""
    inits = [name for name in state.blocks if name.endswith(".init")]
    return {
        name: {axis: state.schedule.get(loop).extent for axis, loop in state.named(name).items()}
        for name in (*state.axes, *inits)
    }


@pytest.mark.parametrize("name", KERNELS)
def test_stages_agree_with_lowering(name: str) -> None:
    for kernel in schedules(KERNELS[name], 20):
        stages, _ = tvm_stages(kernel)
        found = {stage.name: stage for stage in stages_of(kernel)}
        assert list(found) == list(stages.tensors)
        for stage, tensor in stages.tensors.items():
            reduced = [int(axis.dom.extent) for axis in tensor.op.reduce_axis]
            loops = found[stage].loops
            assert found[stage].axes == stages.axes[stage]
            assert {loop.name for loop in loops if loop.reduced} == stages.reduced[stage]
            assert [loop.extent for loop in loops] == [*map(int, tensor.shape), *reduced]


@pytest.mark.parametrize("name", KERNELS)
def test_loops_agree_with_replay(name: str) -> None:
    for kernel in schedules(KERNELS[name], 12):
        stages, func = tvm_stages(kernel)
        state = replay.start(func, stages)
        replay.apply(state, kernel.attrs["schedule"].directives)
        nest, expected = loop_nest(kernel), tvm_loops(state)
        assert set(nest.stages) == set(expected)
        for stage, loops in expected.items():
            assert list(nest.stages[stage].axes) == list(loops), stage
            for axis, extent in loops.items():
                assert nest.stages[stage].loop(axis).extent == extent, f"{stage}.{axis}"


def proposals(nest: LoopNest, rng: random.Random) -> tuple[Any, ...]:
    """A directive with known names, most likely not legal."""
    stage = nest.stages[rng.choice(list(nest.stages))]
    other = nest.stages[rng.choice(list(nest.stages))]
    axis, under = rng.choice(stage.axes or ("d0",)), rng.choice(other.axes or ("d0",))
    at = stage.axes.index(axis) if stage.axes else 0
    order = rng.sample(stage.axes, len(stage.axes))
    fresh = rng.randrange(10**6)
    steps: list[tuple[Any, ...]] = [
        ("split", stage.name, axis, rng.choice([2, 3, 4, 8]), f"o{fresh}", f"i{fresh}"),
        ("fuse", stage.name, stage.axes[at : at + 2], f"f{fresh}"),
        ("reorder", stage.name, tuple(order[: rng.randint(2, 4)])),
        ("vectorize", stage.name, axis),
        ("parallel", stage.name, axis),
        ("unroll", stage.name, axis),
        ("inline", stage.name),
        ("compute_at", stage.name, other.name, under),
        ("reverse_compute_at", stage.name, other.name, under),
        ("set_scope", stage.name, "local"),
        ("decompose_reduction", stage.name, axis),
    ]
    return rng.choice(steps)


def random_schedule(kernel: Node, seed: int, proposed: int = 60) -> tuple[LoopNest, Schedule]:
    """The legal ones among random directives, and the loops after them."""
    rng = random.Random(seed)
    plan = replace(kernel.attrs["schedule"], directives=())
    nest = loop_nest(with_schedule(kernel, plan))
    taken: list[Directive] = []
    for _ in range(proposed):
        name, *args = proposals(nest, rng)
        step = Directive(name, tuple(args))
        try:
            nest = nest.after(step)
        except ScheduleError:
            continue
        taken.append(step)
    return nest, replace(plan, directives=tuple(taken))


@pytest.mark.parametrize("name", KERNELS)
def test_tvm_takes_what_we_call_legal(name: str) -> None:
    for seed in range(8):
        nest, plan = random_schedule(KERNELS[name], seed)
        stages, func = tvm_stages(with_schedule(KERNELS[name], plan))
        state = replay.start(func, stages)
        replay.apply(state, plan.directives)
        for stage in nest.stages.values():
            for loop in stage.loops:
                extent = state.schedule.get(state.loop(stage.name, loop.name)).extent
                exact = isinstance(extent, tirx.IntImm) and not loop.guarded
                assert not exact or extent <= loop.extent, f"{stage.name}.{loop.name}"


def _is_small(nest: LoopNest) -> bool:
    """True if neither the code of unrolled loops nor its vectors are huge."""
    most = {"unrolled": 8, "vectorized": 32, "serial": 10**9, "parallel": 10**9}
    return all(loop.extent <= most[loop.kind] for s in nest.stages.values() for loop in s.loops)


def test_legal_schedules_compute_the_same(tmp_path: Path) -> None:
    kernels: dict[str, Node] = {}
    for index, name in enumerate(COMPILED):
        drawn = (random_schedule(KERNELS[name], 1000 * index + i) for i in itertools.count())
        plan = next(plan for nest, plan in drawn if _is_small(nest))
        kernels[name] = with_schedule(KERNELS[name], plan)
    graph = joined(kernels)
    check_against_reference(graph, random_inputs(graph, np.random.default_rng(0)), tmp_path)
