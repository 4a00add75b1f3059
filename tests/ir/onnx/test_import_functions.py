"""Ops that ONNX defines by a function body, at every opset; AffineGrid, whose body is not used."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx_models import import_and_compare, input_of, model, node

from planish.ir.errors import InvalidModel, UnsupportedModel
from planish.ir.onnx import import_model
from planish.ir.onnx.functions import schema_function
from planish.ir.onnx.model import NEWEST_OPSET
from planish.ir.reference import evaluate

RNG = np.random.default_rng(11)
SCORES = RNG.normal(size=(3, 5, 2)).astype(np.float32)
LABELS = RNG.integers(0, 5, (3, 2))
WEIGHTS = RNG.uniform(0.5, 2, 5).astype(np.float32)


@pytest.mark.parametrize("opset", [12, 13, 14, 17, 18, 21, 22, 25, NEWEST_OPSET])
@pytest.mark.parametrize("op", ["NegativeLogLikelihoodLoss", "SoftmaxCrossEntropyLoss"])
@pytest.mark.parametrize("reduction", ["none", "sum", "mean"])
def test_losses(op: str, opset: int, reduction: str):
    for weighted, attributes in [(False, {}), (True, {"ignore_index": 2})]:
        operands, inputs = "x t w" if weighted else "x t", [input_of("x", SCORES)]
        inputs += [input_of("t", LABELS)]
        loss = node(op, operands, "y", reduction=reduction, **attributes)
        weights = {"w": WEIGHTS} if weighted else {}
        proto = model([loss], inputs, ["y"], weights, opset)
        import_and_compare(proto, {"x": SCORES, "t": LABELS})


def test_every_op_with_a_body_has_one_at_every_opset():
    """ONNX gives a body for the opset it was written for, and for no later one, if asked."""
    checked = 0
    for schema in onnx.defs.get_all_schemas_with_history():
        if schema.domain or not schema.has_function:
            continue
        for opset in range(schema.since_version, NEWEST_OPSET + 1):
            call = onnx.helper.make_node(schema.name, ["x"] * schema.min_input, ["y"])
            if onnx.defs.get_schema(schema.name, opset).has_function:
                body = schema_function(call, opset, [])
                assert body is not None, (schema.name, opset)
                assert body.node
                checked += 1
    assert checked > 200


def affine_grid(size: tuple[int, ...], corners: int, dtype: type = np.float32) -> onnx.ModelProto:
    rank = len(size) - 2
    theta = np.zeros((size[0], rank, rank + 1), dtype)
    call = node("AffineGrid", "t s", "y", align_corners=corners)
    return model([call], [input_of("t", theta)], ["y"], {"s": np.int64(size)}, opset=20)


@pytest.mark.parametrize("corners", [0, 1])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_affine_grid(corners: int, dtype: type):
    for size in [(1, 3, 4, 2), (1, 1, 2, 2), (3, 1, 2, 5), (1, 2, 3, 4, 2), (2, 1, 2, 2, 2)]:
        rank = len(size) - 2
        theta = RNG.normal(size=(size[0], rank, rank + 1)).astype(dtype)
        got = evaluate(import_model(affine_grid(size, corners, dtype)), {"t": theta})["y"]
        assert got.shape == (size[0], *size[2:], rank)
        assert got.dtype == dtype
        for place in np.ndindex(got.shape[:-1]):
            unit = [
                2 * i / (n - 1) - 1 if corners else (2 * i + 1) / n - 1
                for i, n in zip(place[1:], size[2:])
            ]
            expected = theta[place[0]] @ np.array([*reversed(unit), 1.0])
            np.testing.assert_allclose(got[place], expected, 1e-4, 1e-5)


def test_affine_grid_of_one_element():
    """An axis of one element is in the middle, or at 1 with corners aligned, as onnxruntime's."""
    for size, rank in [((1, 1, 1, 1), 2), ((2, 1, 1, 1, 1), 3)]:
        theta = np.concatenate([np.eye(rank), np.zeros((rank, 1))], axis=1, dtype=np.float32)
        feeds = {"t": np.broadcast_to(theta, (size[0], *theta.shape)).copy()}
        for corners in (0, 1):
            got = evaluate(import_model(affine_grid(size, corners)), feeds)["y"]
            np.testing.assert_array_equal(got, np.full(got.shape, corners, np.float32))


@pytest.mark.parametrize("size", [(1, 1, 3), (1, 1, 0, 2), (2, 1, 3, 2, 2, 2), (1, 1, -1, 2)])
def test_affine_grid_refusals(size: tuple[int, ...]):
    proto = affine_grid((1, 1, 2, 2), 0)
    proto.graph.initializer[0].CopyFrom(onnx.numpy_helper.from_array(np.int64(size), "s"))
    with pytest.raises(InvalidModel, match="AffineGrid"):
        import_model(proto)


def test_a_function_with_the_name_of_an_op_does_not_replace_it():
    opsets = [onnx.helper.make_opsetid("", 18)]
    impostor = onnx.helper.make_function("", "Relu", ["a"], ["b"], [node("Neg", "a", "b")], opsets)
    later = onnx.helper.make_function("", "Swish", ["a"], ["b"], [node("Abs", "a", "b")], opsets)
    x = np.float32([-1, 2])
    for op, function, expected in [("Relu", impostor, [0, 2]), ("Swish", later, [1, 2])]:
        proto = model([node(op, "x", "y")], [input_of("x", x)], ["y"], functions=[function])
        assert evaluate(import_model(proto), {"x": x})["y"].tolist() == expected


def test_attributes_that_onnx_builds_no_body_for():
    call = node("SequenceMap", "x", "y", name="n", body=1)
    with pytest.raises(
        UnsupportedModel, match=r"'n' \(SequenceMap\): ONNX builds no function body"
    ):
        import_model(model([call], [input_of("x", SCORES)], ["y"]))


def test_operator_sets_of_no_version():
    for domain in ("", "x"):
        for version in (-1, 2**40, -(2**63)):
            sets = [onnx.helper.make_opsetid("", 18)] * bool(domain)
            proto = model([node("Relu", "x", "y")], [input_of("x", SCORES)], ["y"])
            del proto.opset_import[:]
            proto.opset_import.extend([*sets, onnx.helper.make_opsetid(domain, version)])
            with pytest.raises(InvalidModel, match="which is no version"):
                import_model(proto)


@pytest.mark.parametrize("op", ["ReduceSum", "ReduceMax", "ArgMax"])
def test_keepdims_is_one_or_not(op: str):
    for number, rank in [(1, 3), (0, 2), (2, 2), (2**62, 2), (-1, 2)]:
        attributes = {"axis": 1} if op == "ArgMax" else {}
        operands = "x" if op == "ArgMax" else "x a"
        call = node(op, operands, "y", keepdims=number, **attributes)
        proto = model([call], [input_of("x", SCORES)], ["y"], {"a": np.int64([1])})
        assert import_model(proto).outputs[0].type.rank == rank


def test_sizes_are_integers():
    for op in ("ReduceSum", "Reshape", "Expand", "Tile"):
        for bad in (np.float32([np.nan]), np.float32([1]), np.array([True])):
            proto = model(
                [node(op, "x a", "y", name="n")], [input_of("x", SCORES)], ["y"], {"a": bad}
            )
            with pytest.raises(InvalidModel, match=r"'n'.*takes integers"):
                import_model(proto)
