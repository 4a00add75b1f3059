"""Every option of every schedule space gives a kernel that is right."""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from planish.autotune.spaces import SPACES, space_of
from planish.ir.builder import emit
from planish.ir.errors import ScheduleError
from planish.ir.graph import Graph, Input, Node, constant
from planish.ir.types import tensor
from planish.passes.fuse import fuse
from planish.passes.local import loop_nest, with_schedule
from planish.targets.lowering import lower_kernel
from tests.targets.anchor_kernels import anchor_kernels, joined
from tests.targets.compiled import HOST, Cases, check_against_reference, random_inputs

KERNELS = anchor_kernels(HOST)
#: Points of a space that are compiled for each kernel.
_SAMPLED = 3


def _points(kernel: Node, seed: int) -> Iterator[dict[str, Any]]:
    """The legal ones: the default with each option in turn, then random points."""
    space, rng = space_of(kernel), random.Random(seed)
    options, default = space.options(kernel, HOST), space.pick(kernel, HOST)
    alone = [default | {name: value} for name, values in options.items() for value in values]
    rng.shuffle(alone)
    yield from (point for point in alone if space.is_legal(kernel, HOST, point))
    while True:
        point = {name: rng.choice(values) for name, values in options.items()}
        if space.is_legal(kernel, HOST, point):
            yield point


def test_kernels_cover_the_spaces() -> None:
    found = {space_of(kernel).name for kernel in KERNELS.values()}
    assert found | {"loops", "attention"} == set(SPACES)  # those two are written by emitters


@pytest.mark.parametrize("name", KERNELS)
def test_the_pick_is_an_option(name: str) -> None:
    kernel = KERNELS[name]
    space = space_of(kernel)
    options, picked = space.options(kernel, HOST), space.pick(kernel, HOST)
    assert set(picked) == set(options)
    for choice, value in picked.items():
        assert value in options[choice], f"{choice}={value} is not among {options[choice]}"


def _legal(kernel: Node, seed: int, most: int) -> list[Node]:
    """The kernel under points of its space; what is refused is refused before building."""
    space, found = space_of(kernel), list[Node]()
    for _, point in zip(range(most), _points(kernel, seed)):
        candidate = with_schedule(kernel, space.schedule(kernel, HOST, point))
        try:
            loop_nest(candidate)
        except ScheduleError:
            with pytest.raises(ScheduleError, match="do not fit an axis"):
                lower_kernel(candidate)
            continue
        found.append(candidate)
    return found


@pytest.mark.parametrize("name", KERNELS)
def test_every_option_is_legal(name: str) -> None:
    tried = 120
    assert len(_legal(KERNELS[name], 1, tried)) == tried


def test_sampled_options_compute_the_same(tmp_path: Path) -> None:
    kernels: dict[str, Node] = {}
    for index, (name, kernel) in enumerate(KERNELS.items()):
        if not name.endswith("_epilogue"):
            legal = _legal(kernel, index, _SAMPLED)
            kernels.update((f"{name}_{i}", point) for i, point in enumerate(legal))
    _check(kernels, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("name", KERNELS)
def test_all_options_compute_the_same(name: str, tmp_path: Path) -> None:
    _check({f"{name}_{i}": k for i, k in enumerate(_legal(KERNELS[name], 3, 60))}, tmp_path)


def test_rows_with_nan_and_infinities(tmp_path: Path) -> None:
    """Whole vectors and tails; the maximum of softmax may lose a NaN, its result must not."""
    cases = Cases()
    x = cases.input(5, 77)
    rows = np.random.default_rng(4).standard_normal((5, 77)).astype("float32")
    rows[0, 3] = rows[0, 40] = rows[1, 76] = np.nan
    rows[2, 5], rows[3, 7], rows[4] = np.inf, -np.inf, -np.inf
    for axis in (0, 1):
        cases.add(f"softmax{axis}", emit("softmax", x, axis=axis))
        cases.add(f"log_softmax{axis}", emit("log_softmax", x, axis=axis))
        for op, last in itertools.product(("arg_max", "arg_min"), (False, True)):
            index = emit(op, x, axis=axis, keepdims=last, last=last)
            cases.add(f"{op}{axis}{last}", index)
    cases.check(tmp_path, x0=rows)


@pytest.mark.parametrize("columns", [64, 77])
def test_rows_taken_together(columns: int, tmp_path: Path) -> None:
    """Ties, NaN and infinities in lanes of their own and in the rest; rows in two dimensions."""
    x = Input(tensor("float32", (2, 4, columns)), "x")
    weights = constant(np.linspace(-1, 1, columns).astype("float32"))
    values = {"norm": emit("layer_norm", x, weights, weights, axis=2, epsilon=1e-5)}
    values["norm_relu"] = emit("relu", values["norm"])
    for op, last in itertools.product(("arg_max", "arg_min"), (False, True)):
        values[f"{op}{last}"] = emit(op, x, axis=2, keepdims=last, last=last)
    rows = np.random.default_rng(5).integers(-2, 3, (2, 4, columns)).astype("float32")
    rows[1, 0, [5, 20]] = rows[1, 1, columns - 1] = np.nan
    rows[1, 2], rows[1, 3, 7] = -np.inf, np.inf
    found: dict[str, Node] = {}
    for name, value in values.items():
        (kernel,) = fuse(Graph((x,), (value,)), HOST).nodes
        space = space_of(kernel)
        options, default = space.options(kernel, HOST), space.pick(kernel, HOST)
        assert max(options["together"]) == (2 if "norm" in name else 4)
        for lanes, together in itertools.product(options["lanes"], options["together"]):
            point = default | {"lanes": lanes, "together": together}
            if space.is_legal(kernel, HOST, point):
                scheduled = with_schedule(kernel, space.schedule(kernel, HOST, point))
                found[f"{name}_{lanes}_{together}"] = scheduled
    graph = joined(found)
    check_against_reference(graph, {value.name: rows for value in graph.inputs}, tmp_path)


def _check(kernels: dict[str, Node], folder: Path) -> None:
    graph = joined(kernels)
    check_against_reference(graph, random_inputs(graph, np.random.default_rng(2)), folder)
