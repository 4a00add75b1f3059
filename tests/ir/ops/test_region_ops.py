"""The types of ops that hold graphs, and what they refuse."""

from __future__ import annotations

import pytest

from planish.ir.builder import emit
from planish.ir.dim import Dim
from planish.ir.errors import InvalidGraph
from planish.ir.graph import Graph, Input
from planish.ir.ops import op_def
from planish.ir.ops.region import region_types
from planish.ir.types import tensor

VECTOR = tensor("float32", (3,))
FLAG, COUNT = tensor("bool", ()), tensor("int64", ())


def body(inputs, outputs) -> Graph:
    """A graph of those input types whose outputs are inputs by number."""
    values = tuple(Input(type_, f"x{i}") for i, type_ in enumerate(inputs))
    return Graph(values, tuple(values[i] for i in outputs), tuple(f"y{i}" for i in outputs))


def test_if():
    same = body([VECTOR], [0])
    assert region_types("if", [FLAG, VECTOR], {}, [same, same]) == (VECTOR,)


def test_loop():
    trips = Dim.symbol("trips")
    graph = body([COUNT, FLAG, VECTOR, COUNT], [1, 2, 3])
    attrs = {"carried": 1, "trips": trips}
    found = region_types("loop", [COUNT, FLAG, VECTOR, COUNT], attrs, [graph])
    assert found == (VECTOR, tensor("int64", (trips,)))


def test_scan():
    graph = body([COUNT, VECTOR], [0, 1])
    attrs = {"carried": 1, "input_axes": (0,), "output_axes": (1,)}
    attrs |= {"input_reverse": (False,), "output_reverse": (False,)}
    rows = tensor("float32", (7, 3))
    found = region_types("scan", [COUNT, rows], attrs, [graph])
    assert found == (COUNT, tensor("float32", (3, 7)))


def test_kernel():
    x = Input(VECTOR, "x")
    graph = Graph((x,), (emit("less", x, x),), ("y",))
    assert region_types("kernel", [VECTOR], {}, [graph]) == (tensor("bool", (3,)),)


LOOP = {"carried": 1, "trips": 4}
SCAN = {"carried": 0, "input_axes": (0,), "output_axes": (0,)}
SCAN |= {"input_reverse": (False,), "output_reverse": (False,)}


@pytest.mark.parametrize(
    ("op", "inputs", "attrs", "graphs", "message"),
    [
        ("if", [FLAG], {}, [body([], [])], "if holds 2 graphs, got 1"),
        ("kernel", [], {}, [], "kernel holds 1 graph, got 0"),
        (
            "if",
            [COUNT],
            {},
            [body([], [])] * 2,
            r"the condition must be .bool\[\]., got .int64\[\].",
        ),
        ("if", [FLAG, COUNT], {}, [body([VECTOR], [0])] * 2, "inputs of the then graph must be"),
        (
            "if",
            [FLAG, COUNT, VECTOR],
            {},
            [body([COUNT, VECTOR], [0]), body([COUNT, VECTOR], [1])],
            "outputs of the else graph must be",
        ),
        (
            "loop",
            [COUNT, FLAG, VECTOR],
            LOOP,
            [body([COUNT, FLAG, VECTOR], [1, 0])],
            "first outputs",
        ),
        (
            "loop",
            [COUNT, FLAG, VECTOR],
            LOOP | {"trips": None},
            [body([COUNT, FLAG, VECTOR], [1, 2, 2])],
            "needs the attribute trips",
        ),
        ("scan", [], SCAN, [body([], [])], "input_axes names 1 scanned inputs, got 0"),
        ("scan", [VECTOR], SCAN, [body([COUNT], [0])], "the inputs of the body must be"),
    ],
)
def test_refusals(op, inputs, attrs, graphs, message):
    with pytest.raises(InvalidGraph, match=message):
        region_types(op, inputs, attrs, graphs)


def test_the_op_table_points_to_what_needs_graphs():
    definition = op_def("loop")
    with pytest.raises(InvalidGraph, match="use region_types"):
        definition.infer([], {})
    with pytest.raises(InvalidGraph, match="run_node"):
        definition.reference([], {})
    with pytest.raises(InvalidGraph, match="node_cost"):
        definition.cost([], [], {})
    with pytest.raises(InvalidGraph, match="loops are those of the ops in its graphs"):
        definition.axes([], [], {})
