"""Rewrites that are wrong, to plant in a copy of the pipeline, and models to plant them for."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from onnx import ModelProto, numpy_helper

from planish.ir.builder import emit, make_node
from planish.ir.graph import Constant, Value, constant
from planish.passes.pattern import Match, const, op, value
from planish.passes.rewrite import Rule

LIGHT = Path(onnx.__file__).parent / "backend/test/data/light"


def light_model(name: str, seed: int = 5) -> ModelProto:
    """A real architecture of the onnx package, its constant weights replaced by random ones."""
    model = onnx.load(LIGHT / f"light_{name}.onnx")
    rng = np.random.default_rng(seed)
    shapes = {t.name: numpy_helper.to_array(t) for t in model.graph.initializer}
    for node in model.graph.node:
        if node.op_type == "Constant":
            shapes[node.output[0]] = numpy_helper.to_array(node.attribute[0].t)
    drawn = []
    kept = []
    for node in model.graph.node:
        if node.op_type != "ConstantOfShape" or node.input[0] not in shapes:
            kept.append(node)
            continue
        shape = [int(n) for n in shapes[node.input[0]]]
        fan = max(1, int(np.prod(shape[1:])))
        data = rng.standard_normal(shape) * (2 / fan) ** 0.5
        if len(shape) == 1:  # a bias, or of a batch norm: variances must be positive
            data = rng.uniform(0.5, 1.5, shape)
        drawn.append(numpy_helper.from_array(data.astype("f4"), node.output[0]))
    del model.graph.node[:]
    model.graph.node.extend(kept)
    model.graph.initializer.extend(drawn)
    model.ir_version = max(model.ir_version, 4)  # before 4, initializers are inputs as well
    return model


def _relu_as_abs(match: Match) -> Value:
    return emit("abs", match["x"])


def _forget_bias(match: Match) -> Value | None:
    bias = match["b"]
    return match["x"] if match["x"].type == match.root.output.type and bias.type.rank else None


def _swap_parts(match: Match) -> Value | None:
    """Turns around what a concat joins, where types allow; by names, or it would not settle."""
    first, second = match.root.inputs[0], match.root.inputs[-1]
    if first.type != second.type or first.name >= second.name:
        return None
    parts = [second, *match.root.inputs[1:-1], first]
    return make_node("concat", parts, match.root.attrs).output


def _other_epsilon(match: Match) -> Value | None:
    if match.root.attrs["epsilon"] > 0.1:
        return None
    return make_node("batch_norm", match.root.inputs, {"epsilon": 0.5}).output


def _double_weights(match: Match) -> Value | None:
    weights = match["w"]
    assert isinstance(weights, Constant)
    if weights.name.endswith("twice"):
        return None
    doubled = constant(weights.data * 2, f"{weights.name} twice")
    return make_node("conv", (match["x"], doubled, *match.root.inputs[2:]), match.root.attrs).output


def _max_to_mean(match: Match) -> Value | None:
    attrs = dict(match.root.attrs)
    if attrs["kind"] != "max":
        return None
    return make_node("pool", match.root.inputs, {**attrs, "kind": "average"}).output


WRONG = {
    "relu as abs": Rule("relu as abs", op("relu", value("x")), _relu_as_abs),
    "forget bias": Rule("forget bias", op("add", value("x"), const("b")), _forget_bias),
    "swap parts": Rule("swap parts", op("concat"), _swap_parts),
    "other epsilon": Rule("other epsilon", op("batch_norm"), _other_epsilon),
    "double weights": Rule("double weights", op("conv", value("x"), const("w")), _double_weights),
    "max to mean": Rule("max to mean", op("pool"), _max_to_mean),
}
