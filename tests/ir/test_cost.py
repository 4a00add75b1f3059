"""Work of nodes that hold graphs."""

from __future__ import annotations

import pytest

from planish.ir.builder import emit, make_node
from planish.ir.cost import graph_flops, node_cost
from planish.ir.dim import Dim
from planish.ir.errors import InvalidGraph
from planish.ir.graph import Graph, Input, Node
from planish.ir.types import tensor


def squares(ops: int) -> Graph:
    x = Input(tensor("float32", (10,)), "x")
    value = x
    for _ in range(ops):
        value = emit("mul", value, x)
    return Graph((x,), (value,), ("y",))


def test_kernel_and_plain_node():
    graph = squares(3)
    assert graph_flops(graph) == 30
    kernel = make_node("kernel", [Input(tensor("float32", (10,)), "x")], {"name": "k"}, [graph])
    cost = node_cost(kernel)
    assert (cost.flops, cost.bytes) == (30, 80)
    assert node_cost(graph.nodes[0]).bytes == 120


def test_if_takes_the_larger_branch_and_loops_repeat():
    x, condition = Input(tensor("float32", (10,)), "x"), Input(tensor("bool", ()), "c")
    branch = Node("if", [condition, x], [x.type], {}, [squares(1), squares(4)])
    assert node_cost(branch).flops == 40
    count = Input(tensor("int64", ()), "n")
    for trips, flops in ((5, 50), (0, 0)):
        loop = Node("loop", [count, condition], [], {"carried": 0, "trips": trips}, [squares(1)])
        assert node_cost(loop).flops == flops
    unknown = {"carried": 0, "trips": Dim.symbol("t")}
    with pytest.raises(InvalidGraph, match="loop: the number of trips is not known"):
        node_cost(Node("loop", [count, condition], [], unknown, [squares(1)]))
    rows = Input(tensor("float32", (10, 7)), "rows")
    scan = Node("scan", [rows], [], {"carried": 0, "input_axes": (1,)}, [squares(2)])
    assert node_cost(scan).flops == 7 * 20


def test_symbolic_shapes_have_no_cost():
    x = Input(tensor("float32", (Dim.symbol("n"),)), "x")
    with pytest.raises(InvalidGraph, match="symbolic dimensions where a static shape is needed"):
        node_cost(emit("neg", x).node)
