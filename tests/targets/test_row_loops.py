"""Rows that are fetched ahead, stored together, kept in tiles, and read once for two moments."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from planish.autotune.spaces import space_of
from planish.ir.builder import emit
from planish.ir.graph import Graph, Input, Node, Value, constant
from planish.ir.target import Target
from planish.ir.types import tensor
from planish.passes.fuse import fuse
from planish.passes.local import with_schedule
from planish.targets.codegen import build_assembly
from planish.targets.hardware import find_target
from planish.targets.lowering import lower_kernel
from tests.autotune.assembly import innermost_loops
from tests.targets.anchor_kernels import inputs_of, joined
from tests.targets.compiled import HOST, check_against_reference, run_compiled

_PREFETCH = {"x86-64-v4": "prefetcht0", "x86-64-v3": "prefetcht0", "neoverse-n1": "prfm"}


def _kernel(value: Value, target: Target, **choices: object) -> Node:
    """The one kernel of `value` at the pick, but for some choices."""
    (kernel,) = fuse(Graph(inputs_of(value), (value,)), target).nodes
    space = space_of(kernel)
    return with_schedule(
        kernel, space.schedule(kernel, target, space.pick(kernel, target) | choices)
    )


def _softmax(rows: int, columns: int) -> Value:
    return emit("softmax", Input(tensor("float32", (rows, columns)), "x"), axis=1)


def _layer_norm(rows: int, columns: int) -> Value:
    scale, bias = (np.linspace(begin, 1, columns).astype("float32") for begin in (-1, 0))
    x = Input(tensor("float32", (rows, columns)), "x")
    return emit("layer_norm", x, constant(scale), constant(bias), axis=1, epsilon=1e-5)


@pytest.mark.parametrize("name", _PREFETCH)
def test_the_next_row_is_fetched_where_rows_are_not_in_l1(name: str) -> None:
    target = replace(find_target(name), cores=1)
    for ahead in (False, True):
        kernel = _kernel(_softmax(256, 1024), target, ahead=ahead)
        loops = innermost_loops(build_assembly({"hot": lower_kernel(kernel)}, target))
        fetching = [loop for loop in loops if _PREFETCH[name] in str(loop)]
        assert len(fetching) == ahead
        for loop in fetching:  # a fetch for each vector that it reads and stores
            found = sum(i.mnemonic == _PREFETCH[name] for i in loop.instructions)
            assert found == loop.stores
    (near,) = fuse(Graph(inputs_of(_softmax(4, 64)), (_softmax(4, 64),)), target).nodes
    assert space_of(near).options(near, target)["ahead"] == (False,)


@pytest.mark.parametrize("name", _PREFETCH)
def test_rows_taken_together_are_loaded_before_one_is_stored(name: str) -> None:
    target = replace(find_target(name), cores=1)
    lanes = target.lanes(4)
    kernel = _kernel(_layer_norm(64, 64 * lanes), target, together=2, lanes=lanes, vector=lanes)
    loops = innermost_loops(build_assembly({"hot": lower_kernel(kernel)}, target))
    (last,) = (loop for loop in loops if loop.function == "hot" and loop.stores)
    stores = [bool(i.vector_stores) for i in last.instructions]
    loads = [bool(i.vector_loads) for i in last.instructions]
    begin = stores.index(True)
    assert sum(loads[:begin]) >= 4  # of two rows, the scale and the bias
    assert not any(loads[begin : begin + 2])


@pytest.mark.parametrize("columns", [17, 79, 197])
def test_what_two_tiles_hold_of_a_row_counts_once(columns: int, tmp_path: Path) -> None:
    """At all legal numbers of lanes, tiles and rows together."""
    value = _softmax(6, columns)
    (kernel,) = fuse(Graph(inputs_of(value), (value,)), HOST).nodes
    space, found = space_of(kernel), dict[str, Node]()
    points = space.points(kernel, HOST)
    for number in range(len(points["lanes"])):
        point = {name: values[number].item() for name, values in points.items()}
        if not point["parallel"]:
            found[f"point{number}"] = with_schedule(kernel, space.schedule(kernel, HOST, point))
    graph = joined(found)
    rows = np.random.default_rng(8).standard_normal((6, columns)).astype("float32")
    rows[1, columns - 16] = rows[2, columns - 1] = 9
    check_against_reference(graph, {value.name: rows for value in graph.inputs}, tmp_path)


def test_moments_of_one_pass_are_as_exact_as_those_of_two(tmp_path: Path) -> None:
    """Of rows far from 0, and of rows whose first elements stand far from all others."""
    columns = 1024
    value = _layer_norm(8, columns)
    (kernel,) = fuse(Graph(inputs_of(value), (value,)), HOST).nodes
    space, found = space_of(kernel), dict[str, Node]()
    for lanes in space.options(kernel, HOST)["lanes"]:
        point = space.pick(kernel, HOST) | {"lanes": lanes, "together": 1}
        found[str(lanes)] = with_schedule(kernel, space.schedule(kernel, HOST, point))
    one_pass = [name for name in found if columns <= 64 * int(name)]
    assert 0 < len(one_pass) < len(found)
    rows = np.random.default_rng(9).standard_normal((8, columns)).astype("float32")
    rows[:4] += 1000
    rows[4:, :16] = rows[4:, :16] * 100 + 1000
    graph = joined(found)
    actual = run_compiled(graph, {value.name: rows for value in graph.inputs}, tmp_path)
    scale, bias = (np.linspace(begin, 1, columns).astype("float32") for begin in (-1, 0))
    centred = rows.astype("float64") - rows.astype("float64").mean(1, keepdims=True)
    variance = (centred**2).mean(1, keepdims=True) + 1e-5
    expected = centred / np.sqrt(variance) * scale + bias
    errors = {n: np.abs(a - expected).max() for n, a in zip(found, actual.values(), strict=True)}
    two_passes = max(error for name, error in errors.items() if name not in one_pass)
    for name in one_pass:
        assert errors[name] <= 2 * two_passes + 1e-6, errors
