"""Inputs with open dimensions, fixed by name or shape, and shapes that stay symbolic."""

from __future__ import annotations

import numpy as np
import pytest
from onnx import TensorProto, helper
from onnx_models import compare, model, node, value

from planish.ir.errors import InvalidModel, UnsupportedModel
from planish.ir.onnx import import_model
from planish.ir.reference import evaluate
from planish.ir.wording import on_command_line

RNG = np.random.default_rng(3)


def two_inputs():
    """a [batch, 3, ?] and b [batch, 1, 1], added."""
    return model(
        [node("Add", "a b", "y")],
        [value("a", ["batch", 3, None]), value("b", ["batch", 1, 1])],
        ["y"],
    )


def test_dim_fixes_a_name_everywhere():
    graph = import_model(two_inputs(), dims={"batch": 2, "a.2": 5})
    assert [v.type.shape for v in graph.inputs] == [(2, 3, 5), (2, 1, 1)]
    assert graph.outputs[0].type.shape == (2, 3, 5)


def test_shape_fixes_the_names_of_other_inputs():
    graph = import_model(two_inputs(), shapes={"a": (4, 3, 7)})
    assert [v.type.shape for v in graph.inputs] == [(4, 3, 7), (4, 1, 1)]


def test_open_dimensions_are_listed_with_the_options():
    with pytest.raises(UnsupportedModel) as error:
        import_model(two_inputs())
    message = str(error.value)
    assert "'batch', 'a.2' of input 'a'; 'batch' of input 'b'" in message
    assert "dims={'batch': 1, 'a.2': 128}" in message
    assert "shapes={'a': (1, 3, 128)}" in message
    assert "--" not in message
    with on_command_line(), pytest.raises(UnsupportedModel) as error:
        import_model(two_inputs())
    assert "e.g. --dim batch=1 --dim a.2=128, or" in str(error.value)
    assert str(error.value).endswith("e.g. --shape a=1,3,128")


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ({"dims": {"batches": 1}}, "no such dimension; its open dimensions are 'a.2', 'batch'"),
        ({"dims": {"a.1": 4}}, r"dims=\{'a.1': 4\}, but that dimension is 3 in the model"),
        ({"dims": {"batch": -1}}, r"dims=\{'batch': -1\}: a dimension is at least 0"),
        ({"shapes": {"c": (1,)}}, "no such input; its inputs are 'a', 'b'"),
        ({"shapes": {"a": (1, 4, 1)}}, "dimension 1 of input 'a' is 3 in the model"),
        ({"shapes": {"a": (1, 3)}}, r"has 2 dimensions, but .* 'a' 3: \[batch, 3, a.2\]"),
        ({"shapes": {"a": (1, 3, -2)}}, "a dimension is at least 0"),
        (
            {"shapes": {"a": (1, 3, 2), "b": (2, 1, 1)}},
            r"'b': \(2, 1, 1\)\} makes dimension 'batch' 2, but shapes=.*, 2\)\} makes it 1",
        ),
        (
            {"dims": {"batch": 3}, "shapes": {"a": (1, 3, 2)}},
            r"\(1, 3, 2\)\} makes dimension 'batch' 1, but dims=\{'batch': 3\} makes it 3",
        ),
    ],
)
def test_contradictions(how, message):
    with pytest.raises(InvalidModel, match=message):
        import_model(two_inputs(), **how)


def test_unknown_sizes_of_exporters_are_anonymous():
    """-1, 0 and "?" mean that a size is not known; two of them need not be equal."""
    proto = model([node("Relu", "x", "y")], [value("x", [-1, 0, "?", "?"])], ["y"])
    graph = import_model(proto, shapes={"x": (1, 3, 48, 192)})
    assert graph.outputs[0].type.shape == (1, 3, 48, 192)
    graph = import_model(proto, dynamic=True)
    assert str(graph.inputs[0].type) == "float32['x.0', 'x.1', 'x.2', 'x.3']"


def test_input_without_a_shape():
    proto = model([node("Relu", "x", "y")], [value("x", None)], ["y"])
    with pytest.raises(
        UnsupportedModel, match=r"'x' has no shape in the model; .* shapes=.'x': .1, "
    ):
        import_model(proto)
    assert import_model(proto, shapes={"x": (2,)}).outputs[0].type.shape == (2,)


def test_inputs_that_are_not_tensors():
    sequence = helper.make_tensor_sequence_value_info("x", TensorProto.FLOAT, None)
    with pytest.raises(UnsupportedModel, match="input 'x' is sequence; only tensors"):
        import_model(model([node("SequenceLength", "x", "y")], [sequence], ["y"]))
    text = value("x", [2], TensorProto.STRING)
    with pytest.raises(UnsupportedModel, match="input 'x' is string"):
        import_model(model([node("Identity", "x", "y")], [text], ["y"]))


def attention():
    """Heads split off by sizes that Shape, Gather, Div and Concat compute, and a range mask."""
    nodes = [
        node("Shape", "x", "s"),
        node("Gather", "s zero", "batch", axis=0),
        node("Gather", "s one", "length", axis=0),
        node("Gather", "s two", "width", axis=0),
        node("Div", "width heads", "part"),
        *(node("Unsqueeze", f"{n} zeros", f"{n}1") for n in ("batch", "length", "part")),
        node("Concat", "batch1 length1 heads1 part1", "apart", axis=0),
        node("Reshape", "x apart", "h"),
        node("Transpose", "h", "t", perm=[0, 2, 1, 3]),
        node("Concat", "batch1 minus length1 part1", "back", axis=0),
        node("Reshape", "t back", "r"),
        node("Slice", "r zeros length1 two1", "k"),
        node("Range", "zero length step", "positions"),
        node("Cast", "positions", "p", to=TensorProto.FLOAT),
        node("Unsqueeze", "p minus", "q"),
        node("Mul", "k q", "y"),
    ]
    weights = {
        "zero": np.int64(0),
        "one": np.int64(1),
        "two": np.int64(2),
        "two1": np.array([2], np.int64),
        "step": np.int64(1),
        "heads": np.int64(4),
        "heads1": np.array([4], np.int64),
        "zeros": np.zeros(1, np.int64),
        "minus": -np.ones(1, np.int64),
    }
    return model(nodes, [value("x", ["b", "n", 8])], ["y"], weights)


def test_symbolic_sizes_fold():
    graph = import_model(attention(), dynamic=True)
    assert str(graph.outputs[0].type) == "float32[b, 4, n, 2]"
    for batch, length in ((1, 3), (2, 5)):
        x = RNG.normal(size=(batch, length, 8)).astype("f4")
        heads = x.reshape(batch, length, 4, 2).transpose(0, 2, 1, 3)
        # the reshape back keeps the order of elements
        expected = heads * np.arange(length, dtype="f4")[:, None]
        compare(evaluate(graph, {"x": x}), {"y": expected})
        fixed = import_model(attention(), shapes={"x": x.shape})
        compare(evaluate(fixed, {"x": x}), {"y": expected})


def test_sizes_as_data_are_refused_by_name():
    nodes = [
        node("Shape", "x", "s"),
        node("Cast", "s", "f", to=TensorProto.FLOAT, name="bad"),
        node("Mul", "x f", "y"),
    ]
    proto = model(nodes, [value("x", ["n"])], ["y"])
    with pytest.raises(
        UnsupportedModel, match=r"'bad' \(Cast\): computes cast on the size of a .* \(n\); fix it"
    ):
        import_model(proto, dynamic=True)
    assert import_model(proto, dims={"n": 1}).outputs[0].type.shape == (1,)


def test_sizes_as_an_output_are_refused():
    proto = model([node("Shape", "x", "s")], [value("x", ["n"])], ["s"])
    with pytest.raises(UnsupportedModel, match="output 's': its contents depend on a dynamic"):
        import_model(proto, dynamic=True)


def test_rules_that_hold_for_some_sizes_only():
    proto = model(
        [node("Add", "a b", "y", name="n")], [value("a", ["p"]), value("b", ["q"])], ["y"]
    )
    with pytest.raises(UnsupportedModel, match=r"node 'n' .*for all sizes .* fix them by dims="):
        import_model(proto, dynamic=True)
