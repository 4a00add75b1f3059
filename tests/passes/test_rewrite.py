"""The rewrite engine."""

from __future__ import annotations

import time

import numpy as np
import pytest
from random_graphs import TARGET, assert_same_results

from planish.ir.builder import emit, make_node
from planish.ir.errors import InvalidGraph
from planish.ir.graph import Graph, Input, Value, constant
from planish.ir.types import tensor
from planish.ir.verifier import verify
from planish.passes.eliminate_common_subexpressions import eliminate_common_subexpressions
from planish.passes.fold_constants import fold_constants
from planish.passes.pattern import Match, const, op, value
from planish.passes.rewrite import Event, Refusal, Rule, rewrite
from planish.passes.simplify import simplify


def _input(*shape: int, name: str = "x") -> Input:
    return Input(tensor("float32", shape), name)


def _ops(graph: Graph) -> list[str]:
    return [node.op for node in graph.nodes]


def _keep_x(match: Match) -> Value:
    return match["x"]


_DOUBLE_NEG = Rule("double neg", op("neg", op("neg", value("x"))), _keep_x)


def test_same_object_when_nothing_matches() -> None:
    x = _input(3)
    graph = Graph((x,), (emit("relu", x),))
    assert rewrite(graph, [_DOUBLE_NEG]) is graph


def test_fixed_point_over_a_chain_and_all_users_see_it() -> None:
    x = _input(3)
    y: Value = x
    for _ in range(7):
        y = emit("neg", y)
    graph = Graph((x,), (emit("relu", y), emit("abs", y)))
    after = rewrite(graph, [_DOUBLE_NEG])
    assert sorted(_ops(after)) == ["abs", "neg", "relu"]
    assert_same_results(graph, after)


def test_what_a_rule_builds_is_rewritten_in_turn() -> None:
    x = _input(3)
    to_two_negs = Rule(
        "relu to negs", op("relu", value("x")), lambda m: emit("neg", emit("neg", m["x"]))
    )
    graph = Graph((x,), (emit("relu", x),))
    assert rewrite(graph, [to_two_negs, _DOUBLE_NEG]).outputs == (x,)


def test_refusals_are_recorded_once_with_rule_node_and_reason() -> None:
    x = _input(3)
    refuses = Rule("no", op("relu", value("x")), lambda m: Refusal("it is Tuesday"))
    relu = make_node("relu", [x], provenance=["Relu_7"]).output
    graph = Graph((x,), (emit("neg", emit("neg", relu)),))
    trace: list[Event] = []
    after = rewrite(graph, [refuses, _DOUBLE_NEG], trace=trace)
    assert after.outputs == (relu,)
    assert trace == [
        Event("double neg", "neg"),
        Event("no", "relu (from 'Relu_7')", "it is Tuesday"),
    ]


def test_single_use_is_asked_of_inner_nodes_and_told() -> None:
    x = _input(3)
    relu = make_node("relu", [x], provenance=["R"]).output
    rule = Rule("fuse", op("neg", op("relu", value("x"), single_use=True)), _keep_x)
    trace: list[Event] = []
    shared = Graph((x,), (emit("neg", relu), relu))
    assert rewrite(shared, [rule], trace=trace) is shared
    assert trace == [Event("fuse", "neg", "relu (from 'R') has other users")]
    assert rewrite(Graph((x,), (emit("neg", relu),)), [rule]).outputs == (x,)


def test_uses_follow_the_rewriting() -> None:
    """A second user that is rewritten away no longer holds a value."""
    x = _input(3)
    relu = emit("relu", x)
    drop = Rule("drop", op("mul", value("a"), value("x"), commutative=False), _keep_x)
    fuse = Rule("fuse", op("neg", op("relu", value("x"), single_use=True)), _keep_x)
    graph = Graph((x,), (emit("mul", relu, x), emit("neg", relu)))
    assert rewrite(graph, [drop, fuse]).outputs == (x, x)


def test_new_nodes_carry_the_provenance_of_all_matched() -> None:
    x = _input(3)
    inner = make_node("abs", [x], provenance=["A"]).output
    outer = make_node("neg", [inner], provenance=["B"], names=["out"]).output
    rule = Rule(
        "pair",
        op("neg", op("abs", value("x"))),
        lambda m: emit("sin", emit("cos", m["x"])),
    )
    after = rewrite(Graph((x,), (outer,)), [rule])
    assert [(n.op, n.provenance, n.output.name) for n in after.nodes] == [
        ("cos", ("A", "B"), ""),
        ("sin", ("A", "B"), "out"),
    ]


def test_commutative_patterns_backtrack() -> None:
    """x must be one value: of the four orders only one fits."""
    x, y = _input(3), _input(3, name="y")
    c = constant(np.float32([2.0, 3.0, 4.0]))
    pattern = op(
        "add", op("mul", value("x"), const("c"), commutative=True), value("x"), commutative=True
    )
    found: list[Match] = []

    def build(match: Match) -> None:
        found.append(match)

    graph = Graph((x, y), (emit("add", y, emit("mul", c, y)), emit("add", y, emit("mul", c, x))))
    assert rewrite(graph, [Rule("xc+x", pattern, build)]) is graph
    assert [(m["x"], m["c"]) for m in found] == [(y, c)]


def test_attributes_and_conditions() -> None:
    x = _input(2, 3)
    rule = Rule("t", op("transpose", value("x"), attrs={"perm": (0, 1)}), _keep_x)
    other = emit("transpose", x, perm=(1, 0))
    assert rewrite(Graph((x,), (emit("transpose", x, perm=(0, 1)),)), [rule]).outputs == (x,)
    graph = Graph((x,), (other,))
    assert rewrite(graph, [rule]) is graph


def test_rules_that_undo_each_other_are_an_error() -> None:
    x = _input(3)
    there = Rule("there", op("relu", value("x")), lambda m: emit("abs", m["x"]))
    back = Rule("back", op("abs", value("x")), lambda m: emit("relu", m["x"]))
    with pytest.raises(InvalidGraph, match=r"does not settle: .* undo each other: back, there"):
        rewrite(Graph((x,), (emit("relu", x),)), [there, back])


def test_a_rule_must_keep_the_type() -> None:
    x = _input(2, 3)
    rule = Rule("bad", op("relu", value("x")), lambda m: emit("transpose", m["x"], perm=(1, 0)))
    with pytest.raises(
        InvalidGraph, match=r"rule 'bad' at relu replaces float32\[2, 3\] by float32\[3, 2\]"
    ):
        rewrite(Graph((x,), (emit("relu", x),)), [rule])


def _long_graph(length: int) -> Graph:
    x = _input(4, 4)
    y: Value = x
    zero, two = constant(np.float32(0)), constant(np.full((1, 4), 2, np.float32))
    for i in range(length // 5):
        y = emit("add", emit("neg", y), zero)
        y = emit("mul", emit("reshape", y, shape=(16,)), constant(np.float32(i % 7 + 0.5)))
        y = emit("sigmoid", emit("add", emit("reshape", y, shape=(4, 4)), emit("neg", two)))
    return Graph((x,), (y,))


def test_time_grows_linearly_with_the_number_of_nodes() -> None:
    seconds = {}
    for length in (1_000, 10_000):
        graph = _long_graph(length)
        start = time.process_time()
        for run in (fold_constants, simplify, eliminate_common_subexpressions):
            graph = run(graph, TARGET)
        verify(graph)
        seconds[length] = time.process_time() - start
    assert seconds[10_000] < 30 * seconds[1_000] + 1
