"""Running one op of ours, and the ONNX op that it is compared with."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
import onnx.reference
import pytest
from onnx import helper

from planish.ir.builder import make_node
from planish.ir.graph import Input
from planish.ir.reference import run_node
from planish.ir.types import DType, TensorType

OPSET = 22  # the newest that every onnxruntime we allow runs


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(20240607)


@pytest.fixture
def run_op() -> Callable[..., Any]:
    """`run_op(name, *arrays, **attrs)`: the reference's result, or a tuple of several.

    Asserts that the results have the inferred types.
    """

    def run(name: str, *arrays: Any, **attrs: Any) -> Any:
        data = [np.asarray(array) for array in arrays]
        inputs = [
            Input(TensorType(DType.of(x.dtype), x.shape), f"x{i}") for i, x in enumerate(data)
        ]
        node = make_node(name, inputs, attrs)
        results = run_node(node, data)
        assert all(isinstance(y, np.ndarray) for y in results)
        found = [(DType.of(y.dtype), y.shape) for y in results]
        assert found == [(v.type.dtype, v.type.static_shape) for v in node.outputs]
        return results[0] if len(results) == 1 else results

    return run


@pytest.fixture(params=["onnx", "onnxruntime"])
def onnx_op(request: pytest.FixtureRequest) -> Callable[..., Any]:
    """`onnx_op(type, *arrays, results=1, **attrs)`: what ONNX's reference and onnxruntime give.

    `faulty` names an engine that is known to be wrong, or lacks the type, and is skipped.
    """
    if request.param == "onnxruntime":
        pytest.importorskip("onnxruntime")

    def run(
        op_type: str, *arrays: Any, results: int = 1, faulty: str | None = None, **attrs: Any
    ) -> Any:
        if request.param == faulty:
            pytest.skip(f"{faulty} does not compute this {op_type}")
        feeds = {f"x{i}": np.asarray(x) for i, x in enumerate(arrays) if x is not None}
        names = [f"x{i}" if x is not None else "" for i, x in enumerate(arrays)]
        outputs = [f"y{i}" for i in range(results)]
        inputs = [
            helper.make_tensor_value_info(
                name, helper.np_dtype_to_tensor_dtype(x.dtype), list(x.shape)
            )
            for name, x in feeds.items()
        ]
        node = helper.make_node(op_type, names, outputs, **attrs)
        undeclared = [onnx.ValueInfoProto(name=name) for name in outputs]
        graph = helper.make_graph([node], "one_op", inputs, undeclared)
        model = helper.make_model(
            graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=10
        )
        found = _engine(request.param, model)(feeds)
        return found[0] if results == 1 else tuple(found)

    return run


def _engine(name: str, model: onnx.ModelProto) -> Callable[[dict[str, np.ndarray]], list[Any]]:
    if name == "onnx":
        evaluator = onnx.reference.ReferenceEvaluator(model)
        return lambda feeds: evaluator.run(None, feeds)
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    return lambda feeds: session.run(None, feeds)
