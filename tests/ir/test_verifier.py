"""The verifier finds planted faults."""

from __future__ import annotations

import numpy as np
import pytest

from planish.ir.builder import emit, make_node
from planish.ir.errors import InvalidGraph
from planish.ir.graph import Constant, Graph, Input, Node, Result, Value, constant
from planish.ir.types import tensor
from planish.ir.verifier import verify

_TYPE = tensor("float32", (2, 3))


def _x(name: str = "x") -> Input:
    return Input(_TYPE, name)


def _graph_of(node: Node, *inputs: Input) -> Graph:
    return Graph(inputs, node.outputs, name="g")


def _wrong_type() -> Graph:
    x = _x()
    return _graph_of(Node("relu", [x], [tensor("float32", (3, 2))], provenance=["Relu_3"]), x)


def _stray_input() -> Graph:
    x, stray = _x(), _x("stray")
    return _graph_of(make_node("add", [x, stray], provenance=["Add_1"]), x)


def _stray_output() -> Graph:
    return Graph((_x(),), (_x("stray"),), ("y",), "g")


def _input_twice() -> Graph:
    x = _x()
    return Graph((x, x), (x,), name="g")


def _with_constant(c: Value) -> Graph:
    x = _x()
    return _graph_of(Node("add", [x, c], [_TYPE], provenance=["Add_2"]), x)


def _read_only(data: np.ndarray) -> np.ndarray:
    data.flags.writeable = False
    return data


def _unknown_attr() -> Graph:
    x = _x()
    return _graph_of(Node("relu", [x], [_TYPE], {"alpha": 1.0}), x)


def _missing_attr() -> Graph:
    x = _x()
    return _graph_of(Node("pad", [x], [_TYPE], {"before": (0, 0), "after": (0, 0)}), x)


def _arity() -> Graph:
    x = _x()
    return _graph_of(Node("add", [x], [_TYPE]), x)


def _unknown_op() -> Graph:
    x = _x()
    return _graph_of(Node("rely", [x], [_TYPE], provenance=["R"]), x)


def _number_of_outputs() -> Graph:
    x = _x()
    return Graph((x,), (Node("relu", [x], [_TYPE, _TYPE]).outputs[0],), name="g")


def _forged_result() -> Graph:
    x = _x()
    relu = make_node("relu", [x])
    return _graph_of(make_node("neg", [Result(_TYPE, "", relu, 0)]), x)


def _kernel(body: Graph, *inputs: Value) -> Graph:
    types = [value.type for value in body.outputs]
    attrs = {"name": "k", "schedule": None}
    node = Node("kernel", inputs, types, attrs, [body], provenance=["Relu_0"])
    return _graph_of(node, *(v for v in dict.fromkeys(inputs) if isinstance(v, Input)))


def _kernel_arity() -> Graph:
    x = _x()
    return _kernel(Graph((x,), (emit("relu", x),)), _x(), _x())


def _kernel_type() -> Graph:
    x = _x()
    return _kernel(Graph((x,), (emit("relu", x),)), Input(tensor("float32", (3, 3)), "x"))


def _fault_in_a_region() -> Graph:
    x, stray = _x(), _x("stray")
    return _kernel(Graph((x,), (emit("add", x, stray),), name="body"), _x())


@pytest.mark.parametrize(
    ("graph", "message"),
    [
        (_wrong_type(), r"graph 'g', relu \(from 'Relu_3'\) says it gives \(float32\[3, 2\]\); "),
        (_stray_input(), "add .*'Add_1'.*, input 1 reads the Input 'stray' of another graph"),
        (_stray_output(), "output 'y' reads the Input 'stray' of another graph"),
        (_input_twice(), "graph 'g' has the same Input twice"),
        (
            _with_constant(Constant(_TYPE, "w", _read_only(np.ones((3, 2), np.float32)))),
            r"'Add_2'.*the constant 'w' is float32\[2, 3\], but its data is float32\[3, 2\]",
        ),
        (
            _with_constant(Constant(_TYPE, "w", _read_only(np.ones((2, 3))))),
            r"'Add_2'.*but its data is float64\[2, 3\]",
        ),
        (
            _with_constant(Constant(_TYPE, "", np.ones((2, 3), np.float32))),
            "'Add_2'.*the data of a constant is writeable",
        ),
        (_with_constant(Value(_TYPE, "v")), "is a Value: no Input, Constant or Result"),
        (_unknown_attr(), "relu has no attribute alpha"),
        (_missing_attr(), "pad lacks the attribute mode, value"),
        (_arity(), "add takes 2 to 2 inputs, got 1"),
        (_unknown_op(), r"rely \(from 'R'\).*no op 'rely'"),
        (_number_of_outputs(), "relu says it gives .*inferred is"),
        (_forged_result(), "neg, input 0 is no output of the node it names, relu"),
        (_kernel_arity(), "kernel .*'Relu_0'.*the inputs of the body must be"),
        (_kernel_type(), "kernel .*'Relu_0'.*the inputs of the body must be"),
        (_fault_in_a_region(), "graph 'body', add, input 1 reads the Input 'stray'"),
    ],
)
def test_planted_fault(graph: Graph, message: str) -> None:
    with pytest.raises(InvalidGraph, match=message):
        verify(graph)


def test_a_right_graph_passes() -> None:
    x = _x()
    w = constant(np.arange(6, dtype=np.float32).reshape(3, 2))
    y = emit("matmul", x, w)
    a = _x("a")
    body = Graph((a,), (emit("relu", a),))
    kernel = make_node("kernel", [x], {"name": "k"}, [body])
    verify(Graph((x,), (y, kernel.output, x, w)))
