"""Activations and rotary embeddings are imported as the ops that they are."""

from __future__ import annotations

import numpy as np
import pytest
from onnx_models import import_and_compare, input_of, model, node

from planish.ir.errors import InvalidModel, UnsupportedModel
from planish.ir.onnx import import_model

RNG = np.random.default_rng(5)


@pytest.mark.parametrize(
    ("onnx_op", "opset", "attributes", "op"),
    [
        ("Gelu", 20, {}, "gelu"),
        ("Gelu", 20, {"approximate": "tanh"}, "gelu"),
        ("HardSwish", 14, {}, "hard_swish"),
        ("Mish", 18, {}, "mish"),
        ("Softplus", 18, {}, "softplus"),
        ("Swish", 24, {}, "silu"),
    ],
)
def test_an_activation_is_one_op(onnx_op, opset, attributes, op):
    x = RNG.standard_normal((3, 7), np.float32) * 4
    nodes = [node(onnx_op, "x", "y", **attributes)]
    graph = import_and_compare(model(nodes, [input_of("x", x)], ["y"], opset=opset), {"x": x})
    assert [found.op for found in graph.nodes] == [op]


def test_swish_with_a_factor_is_arithmetic():
    x = RNG.standard_normal((3, 7), np.float32)
    nodes = [node("Swish", "x", "y", alpha=1.702)]
    graph = import_and_compare(model(nodes, [input_of("x", x)], ["y"], opset=24), {"x": x})
    assert [found.op for found in graph.nodes] == ["mul", "sigmoid", "mul"]


def test_an_unknown_approximation_is_refused():
    x = np.zeros((2,), np.float32)
    nodes = [node("Gelu", "x", "y", name="act", approximate="fast")]
    proto = model(nodes, [input_of("x", x)], ["y"], opset=20)
    with pytest.raises(UnsupportedModel, match="its approximation 'fast' is neither none nor tanh"):
        import_model(proto)


def _rotary(shape, **attributes):
    """A model of one RotaryEmbedding with tables by position, and what to feed it."""
    width = attributes.get("rotary_embedding_dim", 8)
    feeds = {
        "x": RNG.standard_normal(shape, np.float32),
        "c": RNG.standard_normal((9, width // 2), np.float32),
        "s": RNG.standard_normal((9, width // 2), np.float32),
        "p": RNG.integers(0, 9, (2, 5)),
    }
    nodes = [node("RotaryEmbedding", "x c s p", "y", name="rope", **attributes)]
    inputs = [input_of(name, array) for name, array in feeds.items()]
    return model(nodes, inputs, ["y"], opset=23), feeds


@pytest.mark.parametrize("interleaved", [0, 1])
@pytest.mark.parametrize(
    ("shape", "attributes"),
    [
        ((2, 3, 5, 8), {}),
        ((2, 3, 5, 8), {"rotary_embedding_dim": 6}),
        ((2, 5, 24), {"num_heads": 3}),
    ],
    ids=str,
)
def test_rotary_embedding(shape, attributes, interleaved):
    proto, feeds = _rotary(shape, interleaved=interleaved, **attributes)
    graph = import_and_compare(proto, feeds)
    ops = {found.op for found in graph.nodes}
    assert ops <= {"rotary_embedding", "gather", "reshape"}
    (found,) = (found for found in graph.nodes if found.op == "rotary_embedding")
    assert found.attrs["width"] == attributes.get("rotary_embedding_dim", 8)


def test_rotary_embedding_of_rows_that_do_not_part_into_heads():
    proto, _ = _rotary((2, 5, 24), num_heads=5)
    with pytest.raises(InvalidModel, match=r"'rope' .*splits rows of 24 into 5 heads"):
        import_model(proto)
