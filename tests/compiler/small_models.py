"""ONNX models that are small enough to compile in a test."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper


def perceptron(path: Path, *, batch: int | str = 2, op: str = "Relu") -> Path:
    """y = op(x · w + b) · v, x float32 (batch, 12), y (batch, 5); b is all that is negative."""
    rng = np.random.default_rng(7)
    weights = {
        "w": rng.standard_normal((12, 16)),
        "b": -rng.uniform(0.1, 0.5, 16),
        "v": rng.standard_normal((16, 5)),
    }
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["xw"], "first"),
        helper.make_node("Add", ["xw", "b"], ["sum"], "bias"),
        helper.make_node(op, ["sum"], ["hidden"], "activation"),
        helper.make_node("MatMul", ["hidden", "v"], ["y"], "second"),
    ]
    inputs = [helper.make_tensor_value_info("x", TensorProto.FLOAT, (batch, 12))]
    outputs = [helper.make_tensor_value_info("y", TensorProto.FLOAT, (batch, 5))]
    tensors = [numpy_helper.from_array(w.astype("f4"), name) for name, w in weights.items()]
    return save(path, nodes, inputs, outputs, tensors)


def embedding(path: Path) -> Path:
    """Looks 6 ids (int64) up in a table of 11 rows, and tells their sum: two outputs."""
    table = np.random.default_rng(8).standard_normal((11, 4)).astype("f4")
    nodes = [
        helper.make_node("Gather", ["table", "ids"], ["rows"], "look up", axis=0),
        helper.make_node("ReduceSum", ["rows"], ["sum"], "total", keepdims=0),
    ]
    inputs = [helper.make_tensor_value_info("ids", TensorProto.INT64, (6,))]
    outputs = [
        helper.make_tensor_value_info("rows", TensorProto.FLOAT, (6, 4)),
        helper.make_tensor_value_info("sum", TensorProto.FLOAT, ()),
    ]
    return save(path, nodes, inputs, outputs, [numpy_helper.from_array(table, "table")])


def own_op(path: Path, domain: str, op: str) -> Path:
    """y = op(x + x), x float32 (3, 21); op is of `domain` and has the attribute limit = 2."""
    nodes = [
        helper.make_node("Add", ["x", "x"], ["sum"], "twice"),
        helper.make_node(op, ["sum"], ["y"], "own", domain=domain, limit=2.0),
    ]
    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, (3, 21)) for name in "xy")
    save(path, nodes, [x], [y], [])
    model = onnx.load(path)
    model.opset_import.append(helper.make_opsetid(domain, 1))
    onnx.save(model, path)
    return path


def save(
    path: Path,
    nodes: list[onnx.NodeProto],
    inputs: list[onnx.ValueInfoProto],
    outputs: list[onnx.ValueInfoProto],
    tensors: list[onnx.TensorProto],
) -> Path:
    """Writes a model of opset 17."""
    graph = helper.make_graph(nodes, "small", inputs, outputs, tensors)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    onnx.save(model, path)
    return path
