"""Graphs as real exporters write them: order, names, functions, branches, unsupported parts."""

from __future__ import annotations

import time

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper
from onnx_models import import_and_compare, model, node, value

from planish.ir.errors import InvalidModel, UnsupportedModel
from planish.ir.graph import Result
from planish.ir.onnx import import_model
from planish.ir.reference import evaluate

RNG = np.random.default_rng(2)
X = RNG.normal(size=(3, 4)).astype("f4")


def of(nodes, outputs=("y",), weights=None, **arguments) -> onnx.ModelProto:
    return model(nodes, [value("x", [3, 4])], outputs, weights, **arguments)


def test_nodes_in_any_order():
    nodes = [node("Relu", "b", "y"), node("Neg", "a", "b"), node("Exp", "x", "a")]
    found = evaluate(import_model(of(nodes)), {"x": X})["y"]
    np.testing.assert_allclose(found, np.maximum(-np.exp(X), 0))


def test_names_and_provenance():
    nodes = [node("Gelu", "x", "a", name="act"), node("Relu", "a", "y"), node("Relu", "y", "z")]
    graph = import_model(of(nodes, ["z", "y"], opset=20))
    assert graph.output_names == ("z", "y")
    assert [output.name for output in graph.outputs] == ["z", "y"]
    assert {name for n in graph.nodes for name in n.provenance} == {"act", "Relu_1", "Relu_2"}
    first_relu = graph.outputs[1]
    assert isinstance(first_relu, Result)
    assert first_relu.node.inputs[0].name == "a"
    assert graph.inputs[0].name == "x"


def test_output_that_is_an_input_or_shared():
    nodes = [node("Identity", "x", "same"), node("Relu", "x", "r"), node("Identity", "r", "s")]
    graph = import_model(of(nodes, ["same", "r", "s"]))
    assert graph.outputs[0] is graph.inputs[0]
    assert graph.outputs[1] is graph.outputs[2]
    assert graph.output_names == ("same", "r", "s")


def test_duplicate_node_names_and_empty_output_names():
    nodes = [
        node("Dropout", "x", "a _", name="n"),
        node("Relu", "a", "b", name="n"),
        node("Split", "b", "_ y", name="n", axis=1, num_outputs=2),
    ]
    graph = import_and_compare(of(nodes), {"x": X})
    assert graph.outputs[0].type.shape == (3, 2)


def test_cycle():
    nodes = [
        node("Add", "x c", "a", name="first"),
        node("Relu", "a", "b", name="second"),
        node("Neg", "b", "c", name="third"),
        node("Abs", "c", "y", name="after"),
    ]
    with pytest.raises(InvalidModel, match="a cycle through the nodes") as error:
        import_model(of(nodes))
    assert all(f"'{name}'" in str(error.value) for name in ("first", "second", "third"))
    assert "after" not in str(error.value)


@pytest.mark.parametrize(
    ("nodes", "message"),
    [
        (
            [node("Add", "x nowhere", "y", name="n")],
            r"node 'n' \(Add\) reads 'nowhere', which no node",
        ),
        ([node("Relu", "x", "z")], "graph output 'y' is not defined"),
        (
            [node("Relu", "x", "y", name="n"), node("Neg", "x", "y", name="m")],
            "'y' is written by two nodes, 'n' and 'm'",
        ),
        ([node("Relu", "x", "x", name="n"), node("Neg", "x", "y")], "node 'n' writes 'x'"),
        ([node("Add", "x", "y", name="n")], r"node 'n' \(Add\) lacks its input 1"),
        ([node("Concat", "x x", "y", name="n")], "lacks the attribute 'axis'"),
        ([node("Concat", "x x", "y", name="n", axis=2)], "has axis 2 for a tensor of rank 2"),
        (
            [node("Concat", "x x", "y", name="n", axis=1.0)],
            "attribute 'axis' of node 'n' .* is of type FLOAT, expected INT",
        ),
        ([node("MatMul", "x x", "y", name="n")], r"node 'n' \(MatMul\): matmul \(from 'n'\)"),
    ],
)
def test_invalid(nodes, message):
    with pytest.raises(InvalidModel, match=message):
        import_model(of(nodes))


def test_opset_imports():
    def importing(*versions: int) -> onnx.ModelProto:
        imports = [helper.make_opsetid(d, v) for d, v in zip(("", "ai.onnx"), versions)]
        return of([node("Relu", "x", "y")], opset_imports=imports)

    import_model(importing(18, 18))
    with pytest.raises(InvalidModel, match=r"'ai.onnx' twice, with versions 18 and 17"):
        import_model(importing(18, 17))
    with pytest.raises(UnsupportedModel, match="uses opset 6; opsets 7 to"):
        import_model(importing(6))
    with pytest.raises(UnsupportedModel, match="uses opset 99"):
        import_model(importing(99))
    with pytest.raises(InvalidModel, match="imports no operator set"):
        import_model(of([node("Relu", "x", "y")], opset_imports=[]))


def test_everything_unsupported_is_listed_once():
    nodes = [
        node("Unique", "x", "a", name="one"),
        node("Relu", "a", "b", name="depends"),
        node("FusedGelu", "b", "c", name="two", domain="com.microsoft"),
        node("Softmax", "x", "d", name="fine"),
        node("MaxPool", "image", "e indices", name="three", kernel_shape=[2, 2]),
        node("NonMaxSuppression", "c d", "f", name="four"),
        node("Sum", "b c d f", "y", name="depends too"),
        node("Unique", "x", "dead", name="dead"),
        node("Abs", "indices", "z", name="last"),
        node("Relu", "e", "w", extra=1, name="five"),
    ]
    inputs = [value("x", [3, 4]), value("image", [1, 1, 4, 4])]
    proto = model(nodes, inputs, ["y", "z", "w"])
    proto.opset_import.add(domain="com.microsoft", version=1)
    with pytest.raises(UnsupportedModel) as error:
        import_model(proto)
    assert str(error.value).splitlines() == [
        "4 parts of the model cannot be compiled:",
        "  node 'one' (Unique): this op is not supported",
        "  node 'two' (com.microsoft.FusedGelu): this op is not supported",
        "  node 'three' (MaxPool): its output 1 ('indices') is not supported",
        "  node 'four' (NonMaxSuppression): this op is not supported",
    ]


@pytest.mark.parametrize(
    ("nodes", "reason"),
    [
        ([node("Relu", "x", "y", name="n", extra=1)], "its attribute 'extra' is not supported"),
        ([node("Thing", "x", "y", name="n", domain="my")], "does not import its operator set 'my'"),
        (
            [node("Cast", "x", "y", name="n", to=TensorProto.STRING)],
            "node 'n' .Cast.: casts to strings",
        ),
        ([node("NonZero", "x", "y", name="n")], "its operand 'X' is computed at run time"),
        ([node("Loop", "_ _ x", "y", name="n")], "loops are not compiled yet"),
    ],
)
def test_unsupported(nodes, reason):
    with pytest.raises(UnsupportedModel, match=reason) as error:
        import_model(of(nodes))
    assert "node 'n'" in str(error.value)


def test_functions_of_the_model():
    scale = helper.make_function(
        "my",
        "Scale",
        ["a", "b", "unused"],
        ["r"],
        [
            helper.make_node("Constant", [], ["k"]),
            node("LeakyRelu", "a", "l"),
            node("Add", "l b", "s"),
            node("Mul", "s k", "r", name="times"),
        ],
        [helper.make_opsetid("", 18)],
        attributes=["alpha"],
    )
    scale.node[0].attribute.append(helper.make_attribute("value_float", 3.0))
    reference = scale.node[1].attribute.add(name="alpha", ref_attr_name="alpha")
    reference.type = onnx.AttributeProto.FLOAT
    twice = helper.make_function(
        "my",
        "Twice",
        ["a"],
        ["r"],
        [node("Scale", "a a", "t", domain="my", alpha=0.5), node("Scale", "t a", "r", domain="my")],
        [helper.make_opsetid("", 18), helper.make_opsetid("my", 1)],
    )
    proto = of([node("Twice", "x", "y", domain="my", name="call")], functions=[scale, twice])
    proto.opset_import.add(domain="my", version=1)
    graph = import_model(proto)

    def computed(a, b, alpha):
        return (np.where(a < 0, a * np.float32(alpha), a) + b) * 3

    expected = computed(computed(X, X, 0.5), X, 0.01)
    np.testing.assert_allclose(evaluate(graph, {"x": X})["y"], expected, rtol=1e-5)
    names = {name for n in graph.nodes for name in n.provenance}
    assert {"call/Scale_0/times", "call/Scale_1/times"} <= names


def test_function_that_calls_itself():
    loop = helper.make_function(
        "my",
        "Loop",
        ["a"],
        ["r"],
        [node("Loop", "a", "r", domain="my")],
        [helper.make_opsetid("my", 1)],
    )
    proto = of([node("Loop", "x", "y", domain="my", name="call")], functions=[loop])
    proto.opset_import.add(domain="my", version=1)
    with pytest.raises(
        InvalidModel, match="the function 'Loop' calls itself at node 'call/Loop_0'"
    ):
        import_model(proto)


def test_long_chain_of_functions_does_not_recurse():
    count = 2000
    functions = [
        helper.make_function(
            "my",
            f"F{i}",
            ["a"],
            ["r"],
            [node(f"F{i + 1}", "a", "r", domain="my") if i < count - 1 else node("Relu", "a", "r")],
            [helper.make_opsetid("my", 1), helper.make_opsetid("", 18)],
        )
        for i in range(count)
    ]
    proto = of([node("F0", "x", "y", domain="my")], functions=functions)
    proto.opset_import.add(domain="my", version=1)
    assert len(import_model(proto).nodes) == 1


def test_schema_functions_keep_the_name_of_the_node():
    nodes = [node("SoftmaxCrossEntropyLoss", "x labels", "y", name="loss")]
    weights = {"labels": np.array([0, 3, 1])}
    graph = import_and_compare(of(nodes, weights=weights), {"x": X})
    assert {n.provenance for n in graph.nodes} == {("loss",)}


def branches(condition: str) -> list[onnx.NodeProto]:
    then = helper.make_graph(
        [node("Add", "x one", "t", name="inside")], "then", [], [value("t", None)]
    )
    other = helper.make_graph([node("Unique", "x", "e")], "else", [], [value("e", None)])
    return [
        node("Identity", "c", "one"),
        node("If", condition, "y", then_branch=then, else_branch=other, name="if"),
    ]


def test_branch_with_a_constant_condition_is_inlined():
    weights = {"c": np.float32(1), "yes": np.array([True])}
    graph = import_model(of(branches("yes"), weights=weights))
    np.testing.assert_allclose(evaluate(graph, {"x": X})["y"], X + 1)
    assert graph.nodes[0].provenance == ("if/inside",)


def test_branch_with_a_computed_condition_is_refused():
    nodes = [
        node("ReduceMax", "x", "m", keepdims=0),
        node("Greater", "m c", "cond"),
        *branches("cond"),
    ]
    with pytest.raises(UnsupportedModel, match=r"'if' \(If\): control flow whose condition is"):
        import_model(of(nodes, weights={"c": np.float32(1)}))


def test_shape_computations_fold_away():
    nodes = [
        node("Shape", "x", "s"),
        node("Gather", "s zero", "n"),
        node("Cast", "n", "f", to=TensorProto.FLOAT),
        node("Mul", "f half", "g"),
        node("Floor", "g", "h"),
        node("Cast", "h", "i", to=TensorProto.INT64),
        node("Unsqueeze", "i zeros", "u"),
        node("Concat", "u minus", "t", axis=0),
        node("Slice", "x zeros u zeros", "c"),
        node("Reshape", "x t2", "r"),
        node("Expand", "c one", "y"),
    ]
    weights = {
        "zero": np.int64(0),
        "zeros": np.zeros(1, np.int64),
        "half": np.float32(0.5),
        "minus": -np.ones(1, np.int64),
        "t2": np.array([4, -1], np.int64),
        "one": np.ones(3, np.int64),
    }
    graph = import_and_compare(of(nodes, ["y", "r"], weights), {"x": X})
    assert sorted(n.op for n in graph.nodes) == ["broadcast_to", "reshape", "slice"]
    assert graph.outputs[0].type.shape == (1, 1, 4)


def chain(count: int) -> bytes:
    """A chain of nodes, last first."""
    ops = ("Relu", "Add", "Mul")
    nodes = [
        node(ops[i % 3], f"v{i}" if i % 3 == 0 else f"v{i} c", f"v{i + 1}") for i in range(count)
    ]
    proto = model(
        nodes[::-1], [value("v0", [2, 2])], [f"v{count}"], {"c": np.ones((2, 2), np.float32)}
    )
    return proto.SerializeToString()


def test_twenty_thousand_nodes_in_about_linear_time():
    seconds = {}
    for count in (2_000, 20_000):
        data = chain(count)
        start = time.process_time()
        assert len(import_model(data).nodes) == count
        seconds[count] = time.process_time() - start
    assert seconds[20_000] < 25 * seconds[2_000], seconds
