"""Random inputs stay in the range of what they index."""

from __future__ import annotations

import numpy as np
import pytest

from planish.inputs import index_bounds, random_inputs
from planish.ir.builder import emit, make_node
from planish.ir.graph import Graph, Input, Value, constant
from planish.ir.types import DType, tensor

TABLE = constant(np.random.default_rng(0).standard_normal((30, 7)).astype("f4"), "table")


def _graph(source: Input, *outputs: Value) -> Graph:
    return Graph((source,), outputs)


def test_an_index_is_bounded_by_the_axis_it_points_into() -> None:
    ids = Input(tensor("int64", (2, 5)), "ids")
    assert index_bounds(_graph(ids, emit("gather", TABLE, ids, axis=0))) == {"ids": 30}
    assert index_bounds(_graph(ids, emit("gather", TABLE, ids, axis=1))) == {"ids": 7}


def test_the_bound_is_found_behind_ops_that_hand_an_index_on() -> None:
    ids = Input(tensor("float32", (2, 5)), "ids")
    flat = emit("reshape", emit("cast", ids, to=DType.INT64), shape=(10,))
    both = emit("concat", flat, constant(np.zeros(3, "int64")), axis=0)
    negative = emit("less", both, constant(np.zeros((), "int64")))
    wrapped = emit("where", negative, constant(np.zeros(13, "int64")), both)
    assert index_bounds(_graph(ids, emit("gather", TABLE, wrapped, axis=0))) == {"ids": 30}


def test_the_least_extent_counts() -> None:
    ids = Input(tensor("int32", (4,)), "ids")
    small = constant(np.arange(12, dtype="f4").reshape(3, 4))
    outputs = emit("gather", TABLE, ids, axis=0), emit("gather", small, ids, axis=0)
    assert index_bounds(_graph(ids, *outputs)) == {"ids": 3}


def test_data_and_conditions_are_no_indices() -> None:
    data = Input(tensor("int64", (4, 4)), "data")
    picked = emit("gather", data, constant(np.array([1, 2])), axis=0)
    chosen = emit("where", emit("equal", data, data), data, data)
    assert index_bounds(_graph(data, picked, chosen)) == {}


def test_gather_nd_points_into_several_axes() -> None:
    ids = Input(tensor("int64", (6, 2)), "ids")
    node = make_node("gather_nd", [TABLE, ids])
    assert index_bounds(_graph(ids, node.output)) == {"ids": 7}


def test_random_inputs_fit_and_repeat() -> None:
    specs = [
        ("ids", "int64", (50,)),
        ("mask", "int64", (50,)),
        ("flag", "bool", (50,)),
        ("image", "uint8", (500,)),
        ("x", "float16", (3, 4)),
        ("floating ids", "float32", (50,)),
    ]
    bounds = {"ids": 9, "floating ids": 4}
    first, second = (random_inputs(specs, bounds, seed=3) for _ in range(2))
    for name, dtype, shape in specs:
        assert first[name].dtype == np.dtype(dtype)
        assert first[name].shape == shape
        np.testing.assert_array_equal(first[name], second[name])
    assert set(first["ids"]) == set(range(9))
    assert set(first["mask"]) == {0, 1}
    assert set(first["flag"]) == {False, True}
    assert first["image"].min() < 20 < 235 < first["image"].max()
    assert set(first["floating ids"]) == {0.0, 1.0, 2.0, 3.0}
    assert (random_inputs(specs, bounds, seed=4)["x"] != first["x"]).any()


@pytest.mark.parametrize("dtype", ["float32", "int32", "bool"])
def test_scalars_are_arrays(dtype: str) -> None:
    (drawn,) = random_inputs([("s", dtype, ())], {}).values()
    assert isinstance(drawn, np.ndarray)
    assert drawn.shape == ()
