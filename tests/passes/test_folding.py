"""Where factors, addends and batch norms do not fold into weights."""

from __future__ import annotations

import numpy as np
import pytest
from random_graphs import TARGET

from planish.ir.builder import emit
from planish.ir.graph import Constant, Graph, Input, Value, constant
from planish.ir.types import tensor
from planish.passes.fold_batch_norm import fold_batch_norm
from planish.passes.fold_input_scale import fold_input_scale
from planish.passes.fold_scale import fold_scale
from planish.passes.pass_ import Pass
from planish.passes.trace import recording

RNG = np.random.default_rng(11)


def _input(*shape: int) -> Input:
    return Input(tensor("float32", shape), f"x{shape}")


def _data(*shape: int, scale: float = 1.0) -> Value:
    return constant((RNG.uniform(0.5, 1.5, shape) * scale).astype("float32"))


def _conv(x: Value, channels: int = 4, padding: int = 0, scale: float = 1.0) -> Value:
    weights = _data(channels, int(x.type.shape[1]), 3, 3, scale=scale)
    sides = {"before": (padding, padding), "after": (padding, padding)}
    return emit("conv", x, weights, strides=(1, 1), dilations=(1, 1), groups=1, **sides)


def _batch_norm(x: Value) -> Value:
    parameters = [_data(int(x.type.shape[1])) for _ in range(4)]
    return emit("batch_norm", x, *parameters, epsilon=1e-5)


def _refusals(run: Pass, x: Input, y: Value) -> set[str]:
    with recording() as events:
        run(Graph((x,), (y,)), TARGET)
    return {event.refused for event in events if event.refused}


X = _input(1, 4, 6, 6)
PADDED = {"before": (0, 0, 1, 0), "after": (0, 0, 0, 0)}
FORWARD = {
    "the factor varies along more than the channels": _conv(emit("mul", X, _data(6))),
    "the addend varies along more than the channels": _conv(emit("add", X, _data(6, 1))),
    "the addend would have to differ in the padding": _conv(
        emit("add", X, _data(4, 1, 1)), padding=1
    ),
    "the padding would differ between channels": _conv(
        emit("pad", emit("mul", X, _data(4, 1, 1)), value=1.0, **PADDED)
    ),
    "channels are padded": _conv(
        emit("pad", emit("mul", X, _data(4, 1, 1)), before=(0, 1, 0, 0), after=(0, 0, 0, 0))
    ),
    "it is padded twice, with different numbers": _conv(
        emit("pad", emit("add", X, _data()), **PADDED), padding=1
    ),
    "the scaled weights overflow": _conv(emit("mul", X, _data(4, 1, 1, scale=1e10)), scale=1e30),
}


@pytest.mark.parametrize("reason", FORWARD)
def test_what_scales_an_input_stays(reason: str) -> None:
    assert _refusals(fold_input_scale, X, FORWARD[reason]) == {reason}


def test_the_constants_of_a_chain_are_rounded_once() -> None:
    """Weights and bias behind four steps, terms cancelling, are their float64 values rounded."""
    weights, bias, other, first, second = (
        RNG.uniform(low, 1.5, shape).astype("float32")
        for low, shape in ((0.5, (4, 4, 3, 3)), (-1.5, (4, 1, 1)), *[(0.5, (4, 1, 1))] * 3)
    )
    sides = {"before": (0, 0), "after": (0, 0)}
    y = emit("conv", X, constant(weights), strides=(1, 1), dilations=(1, 1), groups=1, **sides)
    steps = (("add", bias), ("mul", first), ("add", other), ("mul", second))
    for name, data in (*steps, ("add", -other * second)):
        y = emit(name, y, constant(data))
    after = fold_scale(Graph((X,), (y,)), TARGET)

    wide = [data.astype("float64") for data in (weights, bias, first, other, second)]
    w, b, s, c, d = wide
    total = ((b * s) + c) * d + (-other * second).astype("float64")
    assert [node.op for node in after.nodes] == ["conv", "add"]
    expected = ((w * (s * d).reshape(4, 1, 1, 1)), total)
    for node, value in zip(after.nodes, expected):
        (found,) = (v for v in node.inputs if isinstance(v, Constant))
        np.testing.assert_array_equal(found.data, value.astype("float32"))


def _half(x: Value) -> Value:
    return emit("slice", x, starts=(0,) * 4, stops=(1, 2, 4, 4), steps=(1,) * 4)


BACKWARD = {
    "channels that are padded": emit("pad", _conv(X), before=(0, 1, 0, 0), after=(0, 0, 0, 0)),
    "padding that would differ between channels": emit("pad", _conv(X), **PADDED),
    "a concat whose larger part has no weights": emit(
        "concat", _half(X), _half(X), _conv(X, 2), axis=1
    ),
    "a sum of which one operand has no weights": emit(
        "add", _conv(X), emit("slice", X, starts=(0,) * 4, stops=(1, 4, 4, 4), steps=(1,) * 4)
    ),
}


@pytest.mark.parametrize("obstacle", BACKWARD)
def test_a_batch_norm_stays_behind(obstacle: str) -> None:
    """It becomes a factor and an addend there, and the weights are what they were."""
    before = BACKWARD[obstacle]
    after = fold_batch_norm(Graph((X,), (_batch_norm(before),)), TARGET)
    assert [node.op for node in after.nodes[-2:]] == ["mul", "add"]
    assert after.nodes[-2].inputs[0] is before
