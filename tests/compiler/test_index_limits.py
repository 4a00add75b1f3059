"""Indices out of range: held inside the tensor, and with `checked` an error that names them."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import planish
from planish.artefact.format import read_manifest
from planish.inputs import index_bounds, index_limits
from planish.ir.builder import emit
from planish.ir.errors import TensorError
from planish.ir.graph import Graph, Input, constant
from planish.ir.types import DType, tensor

TABLE = constant(np.zeros((30, 7), "f4"), "table")


def test_limits_behind_other_ops() -> None:
    """The input is followed as far as every element of it is an index."""
    ids = Input(tensor("int64", (2, 5)), "ids")
    two = constant(np.full((2, 5), 2))
    moved = emit("add", emit("reshape", emit("cast", ids, to=DType.INT32), shape=(2, 5)),
                 constant(np.full((), 2, "int32")))  # fmt: skip
    mixed = emit("add", ids, constant(np.arange(10).reshape(2, 5)))
    joined = emit("concat", ids, two, axis=0)
    sliced = emit("slice", ids, starts=(0, 0), stops=(2, 2), steps=(1, 1))
    mended = emit("maximum", ids, constant(np.zeros((), "int64")))
    for value, expected in (
        (ids, (-30, 30)),
        (moved, (-32, 28)),
        (emit("sub", ids, two), (-28, 32)),
        (joined, (-30, 30)),
        (mixed, None),
        (sliced, None),
        (mended, None),
    ):
        graph = Graph((ids,), (emit("gather", TABLE, value, axis=0),))
        assert index_limits(graph) == ({} if expected is None else {"ids": expected})
        if expected is not None:
            assert index_bounds(graph) == {"ids": expected[1]}
    several = [emit("gather", TABLE, value, axis=0) for value in (ids, moved)]
    assert index_limits(Graph((ids,), tuple(several))) == {"ids": (-30, 28)}


def test_checked_runs(tmp_path: Path) -> None:
    """Of every kind of op that points somewhere, with the values at the ends of the range."""
    rng = np.random.default_rng(0)
    table = rng.standard_normal((30, 4)).astype(np.float32)
    nodes = [
        helper.make_node("Add", ["ids", "two"], ["moved"]),
        helper.make_node("Gather", ["table", "moved"], ["picked"]),
        helper.make_node("ScatterElements", ["x", "rows", "u"], ["placed"], axis=0),
    ]
    inputs = {"ids": (TensorProto.INT64, [2, 3]), "x": (1, [6, 2]), "rows": (6, [3, 2]),
              "u": (1, [3, 2])}  # fmt: skip
    outputs = {"picked": (1, [2, 3, 4]), "placed": (1, [6, 2])}
    sides = [
        [helper.make_tensor_value_info(name, *kind) for name, kind in side.items()]
        for side in (inputs, outputs)
    ]
    weights = [numpy_helper.from_array(table, "table"), numpy_helper.from_array(np.array(2), "two")]
    graph = helper.make_graph(nodes, "points", *sides, weights)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)]), tmp_path / "m")
    planish.compile(tmp_path / "m", tmp_path / "a", log=False)
    limits = {"ids": [-32, 28], "rows": [-6, 6]}
    assert read_manifest(tmp_path / "a").options["input_limits"] == limits
    model = planish.load(tmp_path / "a", checked=True)
    rows = np.array([[0, 5], [-6, -1], [2, 2]], np.int32)
    good = {"ids": np.array([[-32, 27, 0], [1, -3, -2]]), "x": np.zeros((6, 2), np.float32),
            "rows": rows, "u": np.ones((3, 2), np.float32)}  # fmt: skip
    np.testing.assert_array_equal(model.run(good)["picked"], table[good["ids"] + 2])
    for name, value, told in (
        ("ids", 28, "-32 to 27"),
        ("ids", -33, "-32 to 27"),
        ("ids", np.iinfo(np.int64).min, "-32 to 27"),
        ("rows", 6, "-6 to 5"),
        ("rows", np.iinfo(np.int32).max, "-6 to 5"),
    ):
        wrong = good[name].copy()
        wrong[1, 1] = value
        bad = {**good, name: wrong}
        message = rf"input '{name}' of model .* holds {value} at \[1, 1\].*expected {told}"
        for checked in (model, model.clone(), pickle.loads(pickle.dumps(model))):
            with pytest.raises(TensorError, match=message):
                checked.run(bad)
        unchecked = planish.load(tmp_path / "a")
        with pytest.raises(TensorError, match=message):
            unchecked.run(bad, checked=True)
        held = model.run(bad, checked=False)
        assert np.isfinite(held["picked"]).all()
        assert held["placed"].sum() <= 6


def test_an_index_out_of_range_that_the_model_itself_computes(tmp_path: Path) -> None:
    """It is held inside the table, as if it were an input."""
    nodes = [
        helper.make_node("Add", ["three", "three"], ["six"]),
        helper.make_node("Gather", ["table", "six"], ["row"]),
        helper.make_node("Add", ["x", "row"], ["y"]),
    ]
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, (2,)) for name in "xy"]
    weights = [
        numpy_helper.from_array(np.array(3), "three"),
        numpy_helper.from_array(np.array([[1, 2], [3, 4]], np.float32), "table"),
    ]
    graph = helper.make_graph(nodes, "outside", ends[:1], ends[1:], weights)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    planish.compile(model, tmp_path / "a", verify=False, log=False)
    with planish.load(tmp_path / "a") as loaded:
        assert loaded.run({"x": np.zeros(2, np.float32)})["y"].tolist() == [3, 4]
