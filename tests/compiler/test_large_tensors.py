"""Tensors whose bytes, but not elements, are beyond 2^31: kernels count elements in 32 bits."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

import planish

pytestmark = pytest.mark.slow


def compiled(
    folder: Path, nodes: list[onnx.NodeProto], shape: list[int], kinds: tuple[int, int]
) -> planish.Model:
    graph = helper.make_graph(
        nodes,
        "large",
        [helper.make_tensor_value_info("x", kinds[0], shape)],
        [helper.make_tensor_value_info("y", kinds[1], None)],
    )
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    onnx.save(proto, folder / "m.onnx")
    planish.compile(folder / "m.onnx", folder / "a", verify=False, log=False)
    return planish.load(folder / "a")


def test_stores_beyond_2_to_the_31_bytes(tmp_path: Path) -> None:
    """2.4 GB of float64 from 300 MB of int8."""
    count = 300_000_000
    cast = helper.make_node("Cast", ["x"], ["y"], to=TensorProto.DOUBLE)
    x = np.arange(count, dtype=np.uint32).astype(np.int8)
    with compiled(tmp_path, [cast], [count], (TensorProto.INT8, TensorProto.DOUBLE)) as model:
        y = model.run({"x": x})["y"]
    for start in range(0, count, 50_000_000):
        part = slice(start, start + 50_000_000)
        assert (y[part] == x[part]).all(), start


def test_loads_beyond_2_to_the_31_bytes(tmp_path: Path) -> None:
    """The last rows of 2.4 GB of float32, read in reverse and as sums."""
    rows, columns = 600, 1_000_000
    x = np.zeros((rows, columns), np.float32)
    x[:] = np.arange(rows)[:, None]
    x[:, -1] = 0.5
    nodes = [
        helper.make_node("Constant", [], [name], value_ints=[number])
        for name, number in [("first", -1), ("stop", -(2**63)), ("axis", 0), ("step", -1)]
    ]
    nodes += [
        helper.make_node("ReduceMax", ["x"], ["most"], axes=[1], keepdims=0),
        helper.make_node("Slice", ["most", "first", "stop", "axis", "step"], ["y"]),
    ]
    kinds = (TensorProto.FLOAT, TensorProto.FLOAT)
    with compiled(tmp_path, nodes, [rows, columns], kinds) as model:
        y = model.run({"x": x})["y"]
    expected = np.maximum(np.arange(rows), 0.5)[::-1]
    np.testing.assert_array_equal(y, expected.astype(np.float32))
