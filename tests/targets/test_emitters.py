"""Kernels that emitters write compute what their references compute."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from planish.ir.builder import emit, make_node
from planish.ir.graph import Value, constant
from tests.targets.compiled import Cases, run_compiled

RNG = np.random.default_rng(11)


def weights(*shape: int) -> Value:
    return constant(RNG.standard_normal(shape).astype("float32"))


@pytest.mark.parametrize("hidden", [8, 37, 64])
@pytest.mark.parametrize("reverse", [False, True])
def test_recurrent(tmp_path: Path, hidden: int, reverse: bool) -> None:
    cases = Cases()
    n, steps, batch = hidden, 4, 2
    small = constant(RNG.standard_normal((4 * n, n)).astype("float32") / 4)
    state = cases.input(batch, n)
    gates = cases.input(steps, batch, 4 * n)
    inputs = [gates, small, state, cases.input(batch, n), weights(3 * n)]
    for result in make_node("lstm", inputs, {"reverse": reverse}).outputs:
        cases.add(f"lstm{result.index}", result)
    gates = cases.input(steps, batch, 3 * n)
    r = constant(np.asarray(small.data[: 3 * n]))
    for linear in (False, True):
        attrs = {"reverse": reverse, "linear_before_reset": linear}
        for result in make_node("gru", [gates, r, weights(3 * n), state], attrs).outputs:
            cases.add(f"gru{linear}{result.index}", result)
    r = constant(np.asarray(small.data[:n]))
    gates = cases.input(steps, batch, n)
    for activation in ("tanh", "relu"):
        attrs = {"reverse": reverse, "activation": activation}
        for result in make_node("rnn", [gates, r, state], attrs).outputs:
            cases.add(f"rnn{activation}{result.index}", result)
    cases.check(tmp_path)


def add_top_k(cases: Cases, x: Value, axis: int, k: int, largest: bool) -> None:
    attrs = {"axis": axis, "k": k, "largest": largest}
    for result in make_node("top_k", [x], attrs).outputs:
        cases.add(f"{x.name}_{axis}_{k}_{largest}_{result.index}", result)


@pytest.mark.parametrize("largest", [False, True])
def test_top_k(tmp_path: Path, largest: bool) -> None:
    """Small integers, so that many are equal."""
    cases = Cases()
    for dtype in ("float32", "int64"):
        x, row = cases.input(3, 7, 5, dtype=dtype), cases.input(2, 40, dtype=dtype)
        for axis, k in ((0, 3), (1, 7), (2, 1)):
            add_top_k(cases, x, axis, k, largest)
        for k in (1, 3, 40):
            add_top_k(cases, row, 1, k, largest)
    add_top_k(cases, cases.input(16, dtype="uint8"), 0, 5, largest)
    cases.check(tmp_path)


@pytest.mark.parametrize("dtype", ["float32", "float64", "float16"])
def test_top_k_orders_nan_infinity_and_zeros(tmp_path: Path, dtype: str) -> None:
    cases = Cases()
    row = [[np.nan, 1, -np.inf, 0.0, -0.0, np.inf, np.nan, -1, 1, 0.0]]
    x = cases.input(1, 10, dtype=dtype)
    for largest in (False, True):
        for k in (3, 10):
            add_top_k(cases, x, 1, k, largest)
    cases.check(tmp_path, x0=np.array(row, dtype))


@pytest.mark.parametrize("dtype", ["int64", "uint64", "int32", "uint32", "int8"])
def test_top_k_orders_extreme_integers(tmp_path: Path, dtype: str) -> None:
    cases = Cases()
    low, high = np.iinfo(dtype).min, np.iinfo(dtype).max
    x = cases.input(9, dtype=dtype)
    for largest in (False, True):
        add_top_k(cases, x, 0, 9, largest)
    cases.check(tmp_path, x0=np.array([high, low, 0, 1, high - 1, low, 5, high, low + 1], dtype))


def test_top_k_of_long_rows(tmp_path: Path) -> None:
    """Heaps on the stack of several threads, and beyond it."""
    cases = Cases()
    x, rows = cases.input(1, 30000), cases.input(9, 5000, 1)
    add_top_k(cases, x, 1, 30000, True)
    add_top_k(cases, x, 1, 100, False)
    add_top_k(cases, rows, 1, 700, True)
    cases.check(tmp_path, x0=np.sort(RNG.standard_normal((1, 30000)).astype("float32")))


@pytest.mark.parametrize("reverse", [False, True])
def test_cumsum(tmp_path: Path, reverse: bool) -> None:
    cases = Cases()
    for dtype in ("float32", "int64", "int32", "float16"):
        x = cases.input(3, 4, 70, dtype=dtype)
        for exclusive in (False, True):
            for axis in range(3):
                y = emit("cumsum", x, axis=axis, exclusive=exclusive, reverse=reverse)
                cases.add(f"{dtype}_{axis}_{exclusive}", y)
    cases.check(tmp_path)


def test_cumsum_keeps_digits_and_wraps(tmp_path: Path) -> None:
    cases = Cases()
    cases.add("long", emit("cumsum", cases.input(4, 40000), axis=1))
    cases.add("bytes", emit("cumsum", cases.input(300, dtype="uint8"), axis=0))
    data = np.full((4, 40000), 0.1, "float32") * np.array([[1], [-1], [1], [-1]], "float32")
    cases.check(tmp_path, x0=data, x1=np.full(300, 7, "uint8"))


REDUCTIONS = ("none", "add", "mul", "max", "min")


def random_indices(*shape: int, size: int, dtype: str = "int64") -> np.ndarray:
    return RNG.integers(-size, size, shape).astype(dtype)


@pytest.mark.parametrize("dtype", ["float32", "int64", "int32", "float16"])
def test_scatter_with_repeated_indices(tmp_path: Path, dtype: str) -> None:
    cases, given = Cases(), {}
    shape, counts = (6, 5, 9), (4, 5, 7)
    x, updates = cases.input(*shape, dtype=dtype), cases.input(*counts, dtype=dtype)
    for axis, size in enumerate(shape):
        index = cases.input(*counts, dtype="int32" if axis else "int64")
        given[index.name] = random_indices(*counts, size=size, dtype="int32" if axis else "int64")
        for op in REDUCTIONS:
            y = emit("scatter_elements", x, index, updates, axis=axis, reduction=op)
            cases.add(f"elements_{axis}_{op}", y)
    for depth in (1, 2, 3):
        index, updates = (
            cases.input(3, 4, depth, dtype="int64"),
            cases.input(3, 4, *shape[depth:], dtype=dtype),
        )
        places = [random_indices(3, 4, size=size) for size in shape[:depth]]
        given[index.name] = np.stack(places, -1)
        for op in REDUCTIONS:
            cases.add(f"nd_{depth}_{op}", emit("scatter_nd", x, index, updates, reduction=op))
    cases.check(tmp_path, **given)


def test_parallel_scatter(tmp_path: Path) -> None:
    """Each thread has a part of a dimension that is not indexed; 1003 is no multiple of parts."""
    cases = Cases()
    x, index, updates = cases.input(40, 1003), cases.input(60, 1003, dtype="int64"), None
    updates = cases.input(60, 1003)
    cases.add("first", emit("scatter_elements", x, index, updates, axis=0, reduction="add"))
    rows = cases.input(60, 1, dtype="int64")
    cases.add("nd", emit("scatter_nd", x, rows, updates, reduction="none"))
    cases.check(tmp_path, x1=random_indices(60, 1003, size=40), x3=random_indices(60, 1, size=40))


def test_scatter_of_bool_and_nan(tmp_path: Path) -> None:
    cases = Cases()
    mask = cases.input(4, 6, dtype="bool")
    index = constant(np.array([[0, -1], [2, 2]]))
    flags = constant(np.array([[True, False], [False, True]]))
    cases.add("mask", emit("scatter_elements", mask, index, flags, axis=1, reduction="none"))
    x = cases.input(1, 6)
    index = constant(np.array([[1, 1, 3, 3]]))
    for op in ("max", "min"):
        updates = constant(np.array([[2, np.nan, np.nan, 1]], "float32"))
        cases.add(op, emit("scatter_elements", x, index, updates, axis=1, reduction=op))
    cases.check(tmp_path)


def test_operands_of_one_element(tmp_path: Path) -> None:
    """Constants of one element are buffers for an emitter, not literals."""
    cases = Cases()
    x = cases.input(1, 3)
    one = constant(np.array([[3.0]], "float32"))
    index = constant(np.array([[-1]]))
    cases.add("scatter", emit("scatter_elements", x, index, one, axis=1, reduction="none"))
    cases.add("cumsum", emit("cumsum", constant(np.array([3.0], "float32")), axis=0))
    square, column = cases.input(4, 4), cases.input(4, 4, dtype="int64")
    y = emit("scatter_elements", square, column, square, axis=1, reduction="add")
    cases.add("same", y)
    cases.check(tmp_path, x2=np.array([[0, 1, 1, 3]] * 4))


def test_wrong_indices_stay_inside(tmp_path: Path) -> None:
    """What is out of range goes to the first or last place: nothing else is read or written."""
    cases = Cases()
    x, index, updates = cases.input(4), cases.input(3, dtype="int64"), cases.input(3)
    cases.add("elements", emit("scatter_elements", x, index, updates, axis=0, reduction="add"))
    pairs, square = cases.input(2, 2, dtype="int64"), cases.input(3, 3)
    cases.add("nd", emit("scatter_nd", square, pairs, cases.input(2), reduction="add"))
    cases.add("gather", emit("gather", x, index, axis=0))
    cases.add("gather_nd", emit("gather_nd", square, pairs, batch_dims=0))
    cases.add("gather_elements", emit("gather_elements", x, index, axis=0))
    inputs = cases.random_inputs()
    inputs[index.name] = np.array([2**40, -(2**63), -5])
    inputs[pairs.name] = np.array([[2**32 + 1, -(2**40)], [-4, 3]])
    found = run_compiled(cases.graph(), inputs, tmp_path)
    data, square_data = inputs[x.name], inputs[square.name]
    values, changes = inputs[updates.name], inputs["x5"]
    expected = data.copy()
    expected[3] += values[0]
    expected[0] += values[1] + values[2]
    np.testing.assert_allclose(found["elements"], expected, rtol=1e-5, atol=1e-6)
    expected = square_data.copy()
    expected[2, 0] += changes[0]
    expected[0, 2] += changes[1]
    np.testing.assert_allclose(found["nd"], expected, rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(found["gather"], data[[3, 0, 0]])
    np.testing.assert_array_equal(found["gather_elements"], data[[3, 0, 0]])
    np.testing.assert_array_equal(found["gather_nd"], square_data[[2, 0], [0, 2]])
