"""What to fix open dimensions to, and what is told before anybody is asked for that."""

from __future__ import annotations

import numpy as np
import pytest
from onnx import TensorProto, helper
from onnx_models import model, node, value

from planish.ir.errors import InvalidModel, PlanishNote, UnsupportedModel
from planish.ir.onnx import import_model, suggest_sizes
from planish.ir.wording import on_command_line

RNG = np.random.default_rng(4)


def relu(shape, name="x", dtype=1):
    """One op on an input of a shape."""
    op = "Relu" if dtype == 1 else "Abs"
    return model([node(op, name, "y")], [value(name, shape, dtype)], ["y"])


@pytest.mark.parametrize(
    ("proto", "sizes"),
    [
        (relu(["batch", 3, "height", "width"]), {"batch": 1, "height": 224, "width": 224}),
        (relu([None, 3, None, None]), {"x.0": 1, "x.2": 224, "x.3": 224}),
        (relu(["N", "H", "W", 3]), {"N": 1, "H": 224, "W": 224}),
        (relu(["p", "q", "u", "v"]), {"p": 1, "q": 3, "u": 224, "v": 224}),
        (relu([1, 3, "w", 224]), {"w": 224}),
        (relu(["batch_size", "seq_length"], dtype=7), {"batch_size": 1, "seq_length": 128}),
        (relu(["sequence", "batch", 16]), {"sequence": 128, "batch": 1}),
        (relu(["batch", "seq", 384]), {"batch": 1, "seq": 128}),
        (relu([None, None], dtype=7), {"x.0": 1, "x.1": 128}),
        (relu([None, None], name="audio"), {"audio.0": 1, "audio.1": 16000}),
        (relu(["batch", "past + seq"], dtype=7), {"batch": 1, "past + seq": 256}),
        (relu(["b", 3, "num_frames", "h", "w"]), {"b": 1, "num_frames": 128, "h": 224, "w": 224}),
        (relu(["b", 3, "z", "y", "x"]), {"b": 1, "z": 16, "y": 224, "x": 224}),
        (relu(["n"]), {"n": 1}),
    ],
)  # fmt: skip
def test_sizes_that_make_sense(proto, sizes):
    assert suggest_sizes(proto) == sizes
    graph = import_model(proto, dims=sizes)
    assert all(value.type.is_static for value in graph.inputs)
    with pytest.raises(UnsupportedModel) as error:
        import_model(proto)
    for name, size in sizes.items():
        assert f"{name!r}: {size}" in str(error.value)


@pytest.mark.parametrize("side", [28, 32, 64, 256, 299])
def test_sizes_fit_the_weights_behind_a_flatten(side):
    weights = {"w": RNG.standard_normal((3 * side * side, 5)).astype("f4")}
    nodes = [node("Flatten", "x", "flat"), node("MatMul", "flat w", "y")]
    proto = model(nodes, [value("x", ["batch", 3, "h", "w_"])], ["y"], weights)
    sizes = suggest_sizes(proto)
    assert sizes == {"batch": 1, "h": side, "w_": side}
    with pytest.raises(UnsupportedModel, match=f"'h': {side}, 'w_': {side}}}, or whole inputs, "):
        import_model(proto)
    assert import_model(proto, dims=sizes).outputs[0].type.shape == (1, 5)


def test_sizes_fit_learned_positions():
    table = RNG.standard_normal((1, 77, 8)).astype("f4")
    proto = model(
        [node("Add", "x table", "y")], [value("x", ["batch", "seq", 8])], ["y"], {"table": table}
    )
    assert suggest_sizes(proto) == {"batch": 1, "seq": 77}


def test_sizes_are_asked_for_what_is_left():
    proto = relu(["batch", 3, "height", "width"])
    assert suggest_sizes(proto, dims={"height": 64}) == {"batch": 1, "width": 224}
    with pytest.raises(UnsupportedModel, match=r"shapes=\{'x': \(1, 3, 64, 224\)\}") as error:
        import_model(proto, dims={"height": 64})
    assert "'batch', 'width' of input 'x'" in str(error.value)


def test_names_are_quoted_for_a_shell():
    with on_command_line(), pytest.raises(UnsupportedModel, match="--dim 'my batch=1'"):
        import_model(relu(["my batch", 3]))


@pytest.mark.parametrize("shape", [["batch", 3, "h", "w"], [None, None], None])
@pytest.mark.parametrize("how", [{}, {"dynamic": True}])
def test_unsupported_ops_are_told_before_sizes_are_asked_for(shape, how):
    nodes = [
        node("StringConcat", "x x", "a", name="first"),
        node("Relu", "a", "b"),
        node("NoSuchOp", "b", "c", name="second"),
        node("Unneeded", "b", "d", name="dead"),
        node("TopK", "c c", "e f", name="fine"),
        helper.make_node("Custom", ["e"], ["y"], "third", domain="my.domain"),
    ]
    imports = [helper.make_opsetid("", 21), helper.make_opsetid("my.domain", 1)]
    proto = model(nodes, [value("x", shape)], ["y"], opset_imports=imports)
    with pytest.raises(UnsupportedModel) as error:
        import_model(proto, **how)
    message = str(error.value)
    assert message.startswith("3 parts of the model cannot be compiled:")
    for part in ("'first' (StringConcat)", "'second' (NoSuchOp)", "'third' (my.domain.Custom)"):
        assert f"node {part}: this op is not supported" in message
    assert "dims" not in message
    assert "dead" not in message


def test_what_sizes_cannot_help_is_told_before_they_are_asked_for():
    # Of an op that is known: what is refused is found by importing it at the sizes suggested.
    proto = model(
        [node("AveragePool", "x", "y", name="pool", kernel_shape=[2, 2], my_own=1)],
        [value("x", ["batch", 3, "h", "w"])],
        ["y"],
    )
    with pytest.raises(UnsupportedModel, match=r"node 'pool' \(AveragePool\).*my_own"):
        import_model(proto)


def test_input_without_a_shape():
    proto = model([node("Add", "x z", "y")], [value("x", None), value("z", ["n"])], ["y"])
    with pytest.raises(UnsupportedModel) as error:
        import_model(proto)
    assert (
        "input 'x' has no shape in the model; give one, e.g. shapes={'x': (1, 3, 224, 224)}"
        in str(error.value)
    )
    assert "'n' of input 'z'. Fix each, e.g. dims={'n': 1}" in str(error.value)
    graph = import_model(proto, shapes={"x": (2, 4)}, dims={"n": 4})
    assert graph.outputs[0].type.shape == (2, 4)


def test_a_dim_of_a_static_model_is_a_note():
    proto = relu([2, 3])
    with pytest.warns(PlanishNote, match=r"dims=\{'batch': 4\} changes nothing: the model "):
        graph = import_model(proto, dims={"batch": 4})
    assert graph.inputs[0].type.shape == (2, 3)
    # The size that it has is no contradiction, another is.
    assert import_model(proto, dims={"x.0": 2}).inputs[0].type.shape == (2, 3)
    with pytest.raises(InvalidModel, match=r"dims=\{'x.0': 4\}, but that dimension is 2 in"):
        import_model(proto, dims={"x.0": 4})


def test_sizes_of_a_whole_model_are_static():
    proto = relu([TensorProto.FLOAT, 3])
    assert suggest_sizes(proto) == {}
