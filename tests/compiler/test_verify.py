"""Verification accepts what rounding explains, refuses faults, and tells what is wrong."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from planish.ir.builder import emit
from planish.ir.graph import Graph, Input
from planish.ir.onnx import import_model
from planish.ir.reference import evaluate
from planish.ir.types import tensor
from planish.verification import references
from planish.verify import model_inputs, verify

X = Input(tensor("float32", (4, 8)), "x")
GRAPH = Graph((X,), (emit("add", X, X),), ("y",))
MODEL = helper.make_model(
    helper.make_graph(
        [helper.make_node("Add", ["x", "x"], ["y"])],
        "twice",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [4, 8])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [4, 8])],
    ),
    opset_imports=[helper.make_opsetid("", 18)],
    ir_version=8,
)


def _off(inputs: dict[str, np.ndarray], error: float, seed: int = 0) -> dict[str, np.ndarray]:
    """The right result, each element off by a random part of `error`."""
    exact = 2.0 * inputs["x"].astype(np.float64)
    noise = np.random.default_rng(seed).uniform(-error, error, exact.shape)
    return {"y": (exact + noise).astype(np.float32)}


@pytest.mark.parametrize(
    ("own", "ours", "right"),
    [
        (0.0, 0.0, True),
        (0.0, 0.1, False),  # the reference is exact, so the artefact is wrong
        (0.04, 1e-6, True),  # nearer to the result in float64 than the reference
        (0.04, 0.5, False),
        (10.0, 10.0, False),  # a reference that is all wrong excuses nothing
    ],
)
def test_an_inexact_reference_is_no_measure(
    monkeypatch: pytest.MonkeyPatch, own: float, ours: float, right: bool
) -> None:
    monkeypatch.setattr(
        references.OnnxruntimeReference,
        "_run",
        lambda self, form, make, inputs: _off(inputs, own, seed=1),
    )
    assert verify(lambda inputs: _off(inputs, ours), GRAPH, MODEL).ok == right


def test_what_is_wrong_is_told() -> None:
    found = verify(lambda inputs: {"y": inputs["x"]}, GRAPH, MODEL)
    assert not found.ok
    told = found.failure()
    assert told.startswith("output 'y' of the artefact differs from onnxruntime ")
    assert " on random inputs: 32 of 32 elements are out of tolerance" in told
    assert "0.5 of the largest value, and the bound is from how far the reference moves" in told


@pytest.mark.parametrize("shape", [(8, 4), (4, 7), (4, 8, 1), ()])
def test_other_shapes_and_types_are_told(shape: tuple[int, ...]) -> None:
    found = verify(lambda inputs: {"y": np.zeros(shape, "f4")}, GRAPH, MODEL)
    assert f"expected float32[4, 8], got float32{list(shape)}" in found.failure()
    found = verify(lambda inputs: {"y": np.zeros((4, 8), "f2")}, GRAPH, MODEL)
    assert "expected float32[4, 8], got float16[4, 8]" in found.failure()


def quantised(layers: int, width: int, seed: int) -> onnx.ModelProto:
    """Layers of products with int8 weights, each result rounded to 8 bits."""
    rng = np.random.default_rng(seed)
    nodes, tensors = [], []

    def keep(name: str, array: np.ndarray) -> str:
        tensors.append(numpy_helper.from_array(array, name))
        return name

    last = "x"
    for i in range(layers):
        scale = keep(f"s{i}", np.float32(rng.uniform(0.02, 0.03)))
        zero = keep(f"z{i}", np.int8(rng.integers(-3, 4)))
        weights = keep(f"w{i}", rng.integers(-127, 128, (width, width)).astype("i1"))
        weight_scale = keep(f"t{i}", np.float32(1.7 / 127 / width**0.5))
        nodes += [
            helper.make_node("QuantizeLinear", [last, scale, zero], [f"q{i}"]),
            helper.make_node("DequantizeLinear", [f"q{i}", scale, zero], [f"d{i}"]),
            helper.make_node("DequantizeLinear", [weights, weight_scale], [f"v{i}"]),
            helper.make_node("MatMul", [f"d{i}", f"v{i}"], [f"m{i}"]),
            helper.make_node("Tanh" if i % 2 else "Relu", [f"m{i}"], [f"a{i}"]),
        ]
        last = f"a{i}"
    graph = helper.make_graph(
        nodes,
        "quantised",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [3, width])],
        [helper.make_tensor_value_info(last, TensorProto.FLOAT, [3, width])],
        tensors,
    )
    opset = [helper.make_opsetid("", 18)]
    return helper.make_model(graph, opset_imports=opset, ir_version=8)


def _in_other_order(graph: Graph) -> Graph:
    """The same computation in double precision between the steps: as right as the reference."""
    from planish.bench.precision import in_float64

    return in_float64(graph)


@pytest.mark.parametrize("seed", range(3))
def test_steps_are_judged_by_what_rounding_does_to_the_reference(seed: int) -> None:
    model = quantised(8, 48, seed)
    graph = import_model(model)
    other = _in_other_order(graph)

    def right(inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        wide = {name: array.astype("f8") for name, array in inputs.items()}
        return {name: array.astype("f4") for name, array in evaluate(other, wide).items()}

    assert verify(right, graph, model).ok
    for spoil in (_zero_channel, _double, _negate, _roll):
        spoilt = import_model(_spoilt(model, spoil, seed))
        found = verify(lambda inputs, spoilt=spoilt: evaluate(spoilt, inputs), graph, model)
        assert not found.ok, spoil.__name__


def _zero_channel(weights: np.ndarray) -> np.ndarray:
    weights[:, :5] = 0  # any single one may be behind a ReLU that never opens
    return weights


def _double(weights: np.ndarray) -> np.ndarray:
    return np.clip(weights.astype("i2") * 2, -127, 127).astype("i1")


def _negate(weights: np.ndarray) -> np.ndarray:
    return -weights


def _roll(weights: np.ndarray) -> np.ndarray:
    return np.roll(weights, 1, axis=1)


def _spoilt(model: onnx.ModelProto, spoil, seed: int) -> onnx.ModelProto:  # type: ignore[no-untyped-def]
    """The model with the weights of one of its layers wrong."""
    wrong = onnx.ModelProto()
    wrong.CopyFrom(model)
    names = [t for t in wrong.graph.initializer if t.name.startswith("w")]
    chosen = names[np.random.default_rng(seed).integers(len(names))]
    weights = spoil(numpy_helper.to_array(chosen).copy())
    chosen.CopyFrom(numpy_helper.from_array(weights, chosen.name))
    return wrong


def test_a_model_of_small_outputs_has_no_floor() -> None:
    model = onnx.ModelProto()
    model.CopyFrom(MODEL)
    small = numpy_helper.from_array(np.full((1, 8), 1e-8, "f4"), "c")
    model.graph.initializer.append(small)
    model.graph.node[0].CopyFrom(helper.make_node("Mul", ["x", "c"], ["y"]))
    graph = import_model(model)
    assert verify(lambda inputs: evaluate(graph, inputs), graph, model).ok
    inputs = model_inputs(graph, 0)
    for factor in (0, 2, -1):
        wrong = {"y": np.float32(factor) * evaluate(graph, inputs)["y"]}
        assert not verify(lambda given, wrong=wrong: wrong, graph, model).ok
