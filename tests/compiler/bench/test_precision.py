"""Errors against float64: the exact result, and the measure."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from planish.bench.precision import error_of, exact_outputs, in_float64
from planish.ir.builder import emit
from planish.ir.errors import UnsupportedModel
from planish.ir.graph import Constant, Graph, Input
from planish.ir.onnx import import_model
from planish.ir.reference import evaluate
from planish.ir.types import DType, tensor
from tests.compiler.small_models import perceptron


def test_exact_outputs_are_those_of_float64_arithmetic(tmp_path: Path) -> None:
    path = perceptron(tmp_path / "small.onnx", op="Tanh")
    graph = import_model(path)
    x = np.random.default_rng(3).standard_normal((2, 12)).astype("f4")
    weights = {t.name: numpy_helper.to_array(t) for t in onnx.load(path).graph.initializer}
    w, b, v = (weights[name].astype("f8") for name in "wbv")
    expected = np.tanh(x.astype("f8") @ w + b) @ v
    exact = exact_outputs(graph, {"x": x})
    np.testing.assert_allclose(exact["y"], expected, rtol=1e-13)
    single = evaluate(graph, {"x": x})
    assert 1e-9 < error_of(single, exact).largest < 1e-5


def test_floats_become_float64_and_others_stay() -> None:
    x = Input(tensor("float32", (3,)), "x")
    i = Input(tensor("int64", (2,)), "i")
    half = emit("cast", x, to=DType.FLOAT16)
    back = emit("cast", half, to=DType.FLOAT32)
    byte = emit("cast", back, to=DType.UINT8)
    graph = in_float64(Graph((x, i), (back, byte, emit("gather", x, i, axis=0)), ("a", "b", "c")))
    assert [value.type.dtype for value in graph.inputs] == [DType.FLOAT64, DType.INT64]
    assert [v.type.dtype for v in graph.outputs] == [DType.FLOAT64, DType.UINT8, DType.FLOAT64]
    # Nothing rounds on the way: 1 + 2**-20 is no float16.
    given = {"x": np.array([1 + 2**-20, 2.0, 3.0]), "i": np.array([2, 0])}
    found = evaluate(graph, given)
    np.testing.assert_array_equal(found["a"], given["x"])
    np.testing.assert_array_equal(found["c"], [3.0, 1 + 2**-20])


def test_weights_become_float64_once(tmp_path: Path) -> None:
    graph = in_float64(import_model(perceptron(tmp_path / "small.onnx")))
    weights = [value for value in graph.values() if isinstance(value, Constant)]
    assert len(weights) == 3
    assert {value.data.dtype for value in weights} == {np.dtype("f8")}


def test_control_flow_is_refused() -> None:
    inner = Input(tensor("float32", (2,)), "inner")
    branch = Graph((inner,), (emit("neg", inner),), ("out",))
    x, c = Input(tensor("float32", (2,)), "x"), Input(tensor("bool", ()), "c")
    from planish.ir.builder import make_node

    node = make_node("if", (c, x), {}, (branch, branch), ("choose",))
    with pytest.raises(UnsupportedModel, match=r"'choose'.*does not open control flow"):
        in_float64(Graph((c, x), (node.output,), ("y",)))


def test_error_is_of_the_worst_output_and_of_its_magnitude() -> None:
    exact = {"big": np.array([1000.0, -2000.0]), "small": np.array([0.01, 0.0]), "n": np.arange(3)}
    found = {
        "big": np.array([1000.2, -2000.0], "f4"),
        "small": np.array([0.01, 0.0001]),
        "n": np.arange(3) + 5,  # integers are compared by the tolerances, not here
    }
    error = error_of(found, exact)
    assert error.largest == pytest.approx(0.01)
    assert error.rms == pytest.approx(0.01)
    assert error_of(exact, exact).largest == 0


def test_no_number_is_an_infinite_error() -> None:
    exact = {"y": np.array([1.0, np.inf])}
    assert error_of({"y": np.array([1.0, 7.0])}, exact).largest == 0
    assert error_of({"y": np.array([np.nan, np.inf])}, exact).largest == math.inf


def test_reference_of_a_reduction_keeps_float64() -> None:
    model = helper.make_model(
        helper.make_graph(
            [helper.make_node("Softmax", ["x"], ["y"], axis=-1)],
            "softmax",
            [helper.make_tensor_value_info("x", TensorProto.FLOAT, (4, 33))],
            [helper.make_tensor_value_info("y", TensorProto.FLOAT, (4, 33))],
        ),
        opset_imports=[helper.make_opsetid("", 17)],
        ir_version=9,
    )
    x = np.random.default_rng(6).standard_normal((4, 33)).astype("f4")
    exact = exact_outputs(import_model(model), {"x": x})["y"]
    assert exact.dtype == np.float64
    np.testing.assert_allclose(exact.sum(axis=1), 1, rtol=1e-15)
