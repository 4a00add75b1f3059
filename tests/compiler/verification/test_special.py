"""Verification looks at NaN, infinities, extremes and indices outside."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from onnx import ModelProto, TensorProto, helper

from planish.ir.onnx import import_model
from planish.ir.reference import evaluate
from planish.verify import Arrays, verify

SHAPE = (6, 16)


def model(
    *nodes: tuple[str, list[str], str], dtype: int = TensorProto.FLOAT, out: int | None = None
) -> ModelProto:
    """A model of element-wise nodes on the inputs x and y; its output is the last node's."""
    made = [helper.make_node(op, reads, [writes]) for op, reads, writes in nodes]
    read = {name for _, reads, _ in nodes for name in reads}
    inputs = [helper.make_tensor_value_info(n, dtype, SHAPE) for n in ("x", "y") if n in read]
    result = helper.make_tensor_value_info(nodes[-1][2], out or dtype, SHAPE)
    graph = helper.make_graph(made, "special", inputs, [result])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)


BOOL, INT64, INT32 = TensorProto.BOOL, TensorProto.INT64, TensorProto.INT32

#: Model → what a compiler that knows no NaN, no wrap-around or no sign of zero makes of it.
FAULTS: dict[str, tuple[ModelProto, Callable[[Arrays], np.ndarray]]] = {
    "not less": (
        model(("Less", ["x", "y"], "a"), ("Not", ["a"], "b"), out=BOOL),
        lambda given: given["x"] >= given["y"],
    ),
    "equal to itself": (
        model(("Equal", ["x", "x"], "a"), out=BOOL),
        lambda given: np.ones(SHAPE, bool),
    ),
    "minus itself": (model(("Sub", ["x", "x"], "a")), lambda given: np.zeros(SHAPE, "f4")),
    "zero by it": (
        model(("Sub", ["y", "y"], "z"), ("Mul", ["z", "x"], "a")),
        lambda given: np.zeros(SHAPE, "f4"),
    ),
    "wrap-around": (
        model(("Add", ["x", "y"], "a"), ("Greater", ["a", "x"], "b"), dtype=INT32, out=BOOL),
        lambda given: given["y"] > 0,
    ),
    "doubled without end": (
        model(("Add", ["x", "x"], "a"), ("Greater", ["a", "y"], "b"), dtype=INT64, out=BOOL),
        lambda given: 2.0 * given["x"] > given["y"],
    ),
}


@pytest.mark.parametrize("name", FAULTS)
def test_faults_that_random_inputs_do_not_show(name: str) -> None:
    proto, wrong = FAULTS[name]
    graph = import_model(proto)
    right = verify(lambda given: evaluate(graph, given), graph, proto)
    assert right.ok
    assert {run.name for run in right.runs} >= {"random inputs", "extreme values"}
    with np.errstate(all="ignore"):
        found = verify(lambda given: {graph.output_names[0]: wrong(given)}, graph, proto)
    assert not found.ok
    assert "where all references agree" in found.failure()


def test_what_nobody_defines_is_no_fault() -> None:
    cast = helper.make_node("Cast", ["x"], ["a"], to=INT32)
    relu = helper.make_node("Relu", ["x"], ["r"])
    info = helper.make_tensor_value_info
    graph = helper.make_graph(
        [cast, relu],
        "undefined",
        [info("x", TensorProto.FLOAT, SHAPE)],
        [info("a", INT32, SHAPE), info("r", TensorProto.FLOAT, SHAPE)],
    )
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
    imported = import_model(proto)

    def other(given: Arrays) -> Arrays:
        found = dict(evaluate(imported, given))
        x = given["x"]
        found["a"] = np.where(np.isfinite(x), found["a"], 77).astype("i4")
        found["r"] = np.fmax(x, 0)  # drops NaN
        return found

    assert verify(other, imported, proto).ok
    wrong = verify(lambda given: {**other(given), "a": other(given)["a"] + 1}, imported, proto)
    assert not wrong.ok


def test_subnormals_may_be_zeros() -> None:
    proto = model(("Less", ["x", "y"], "a"), out=BOOL)
    graph = import_model(proto)

    def flushed(given: Arrays) -> Arrays:
        small = {n: np.where(np.abs(a) < 1e-37, np.float32(0), a) for n, a in given.items()}
        return evaluate(graph, small)

    assert verify(flushed, graph, proto).ok


def test_indices_outside_are_clamped() -> None:
    info = helper.make_tensor_value_info
    table = np.random.default_rng(1).standard_normal((11, 3)).astype("f4")
    graph = helper.make_graph(
        [helper.make_node("Gather", ["t", "i"], ["y"])],
        "rows",
        [info("i", INT64, [40])],
        [info("y", TensorProto.FLOAT, [40, 3])],
        [helper.make_tensor("t", TensorProto.FLOAT, table.shape, table.ravel())],
    )
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
    imported = import_model(proto)
    clamped = verify(lambda given: {"y": table[np.clip(given["i"], -11, 10)]}, imported, proto)
    assert clamped.ok
    assert clamped.runs[-1].name == "indices out of range"
    assert "clamped" in clamped.runs[-1].reference
    assert not verify(lambda given: {"y": table[given["i"] % 11]}, imported, proto).ok
