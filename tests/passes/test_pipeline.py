"""Running passes in order."""

from __future__ import annotations

import pytest
from random_graphs import TARGET

from planish.ir.builder import emit
from planish.ir.errors import PassError, UnsupportedModel
from planish.ir.graph import Graph, Input, Node
from planish.ir.target import Target
from planish.ir.types import tensor
from planish.passes.pass_ import Step
from planish.passes.pipeline import run_pipeline


def _graph() -> Graph:
    x = Input(tensor("float32", (2, 3)), "x")
    return Graph((x,), (emit("relu", x),))


def break_types(graph: Graph, target: Target) -> Graph:
    """Claims a type that relu does not give."""
    wrong = Node("relu", graph.inputs, [tensor("float32", (3, 2))], provenance=["Relu_0"])
    return Graph(graph.inputs, wrong.outputs)


def crash(graph: Graph, target: Target) -> Graph:
    """Fails."""
    raise KeyError("lost")


def refuse(graph: Graph, target: Target) -> Graph:
    """Meets a model that it cannot take."""
    raise UnsupportedModel("node 'Foo_1': no")


def append_neg(graph: Graph, target: Target) -> Graph:
    """Negates the output."""
    return Graph(graph.inputs, (emit("neg", graph.outputs[0]),))


def keep(graph: Graph, target: Target) -> Graph:
    """Changes nothing."""
    return graph


def test_an_invalid_graph_names_the_pass_and_the_node() -> None:
    with pytest.raises(PassError, match=r"pass 'break_types' left an invalid graph: .*Relu_0.*"):
        run_pipeline(_graph(), TARGET, [Step(keep, "."), Step(break_types, ".")])
    run_pipeline(_graph(), TARGET, [Step(break_types, ".")], verify=False)


def test_a_crash_names_the_pass() -> None:
    with pytest.raises(PassError, match="pass 'crash' failed on graph 'main': KeyError: 'lost'"):
        run_pipeline(_graph(), TARGET, [Step(crash, ".")])


def test_unsupported_models_are_the_users_to_hear() -> None:
    with pytest.raises(UnsupportedModel, match="Foo_1"):
        run_pipeline(_graph(), TARGET, [Step(refuse, ".")])


def test_observer_sees_each_step() -> None:
    seen: list[tuple[str, bool]] = []

    def observe(name: str, before: Graph, after: Graph, seconds: float) -> None:
        assert seconds >= 0
        seen.append((name, before is after))

    after = run_pipeline(
        _graph(), TARGET, [Step(append_neg, "."), Step(keep, ".")], observer=observe
    )
    assert seen == [("append_neg", False), ("keep", True)]
    assert [node.op for node in after.nodes] == ["relu", "neg"]
