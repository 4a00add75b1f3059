"""Every rule of `simplify` fires, and is exact on NaN, infinities, zeros and denormals."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from planish.ir.builder import emit
from planish.ir.graph import Graph, Input, Value, constant
from planish.ir.reference import evaluate
from planish.ir.types import DType, tensor
from planish.ir.verifier import verify
from planish.passes import simplify_arithmetic, simplify_movement
from planish.passes.rewrite import Event, rewrite

_RULES = simplify_arithmetic.RULES + simplify_movement.RULES
_SPECIAL = [np.nan, np.inf, -np.inf, 0.0, -0.0, 1e-42, -1e-42, 3e38, -3e38, 1.5, -2.5, 7.0]
_FLAT = {"starts": (0, 0, 0), "steps": (1, 1, 1)}

#: IEEE leaves the sign open for the larger of 0 and -0, ONNX for a sum of one -0.
_SIGN_OF_ZERO_IS_OPEN = ("maximum(x, 0)", "reduction of ones")

Make = Callable[[Value, Value], Value]


def _c(*numbers: float) -> Value:
    return constant(np.array(numbers if len(numbers) > 1 else numbers[0], np.float32))


CASES: dict[str, Make] = {
    "x + 0": lambda x, y: emit("add", _c(-0.0), x),
    "x - 0": lambda x, y: emit(
        "cast",
        emit("sub", emit("cast", x, to=DType.INT32), constant(np.int32(0))),
        to=DType.FLOAT32,
    ),
    "x * 1": lambda x, y: emit("mul", x, _c(1, 1, 1)),
    "x / 1": lambda x, y: emit("div", x, _c(1)),
    "x ** 1": lambda x, y: emit("pow", x, _c(1)),
    "x ** 2": lambda x, y: emit("pow", x, _c(2)),
    "x ** 3": lambda x, y: emit("pow", x, _c(3)),
    "x ** 0.5": lambda x, y: emit("pow", emit("mul", x, x), _c(0.5)),
    "x ** -1": lambda x, y: emit("pow", x, _c(-1)),
    "-0 - x": lambda x, y: emit("sub", _c(-0.0), x),
    "x * -1": lambda x, y: emit("mul", x, _c(-1)),
    "1 / x": lambda x, y: emit("div", _c(1), x),
    "--x": lambda x, y: emit("neg", emit("neg", x)),
    "x + -y": lambda x, y: emit("add", emit("neg", x), y),
    "x - -y": lambda x, y: emit("sub", x, emit("neg", y)),
    "x - c": lambda x, y: emit("sub", x, _c(3)),
    "x / 2**n": lambda x, y: emit("div", x, _c(2, -0.25, 2.0**100)),
    "maximum(x, 0)": lambda x, y: emit("maximum", _c(0), x),
    "relu of x >= 0": lambda x, y: emit("relu", emit("exp", x)),
    "abs of x >= 0": lambda x, y: emit("abs", emit("relu", x)),
    "abs(-x)": lambda x, y: emit("abs", emit("neg", x)),
    "rounded twice": lambda x, y: emit("floor", emit("round", x)),
    "relu(maximum)": lambda x, y: emit("relu", emit("maximum", x, _c(-1, 2, np.nan))),
    "maximum(relu)": lambda x, y: emit("maximum", emit("relu", x), _c(0, 2, 1)),
    "maximum twice": lambda x, y: emit("maximum", emit("maximum", x, _c(1)), _c(0, 2, np.nan)),
    "minimum twice": lambda x, y: emit("minimum", emit("minimum", x, _c(1)), _c(0, 2, np.nan)),
    "x with itself": lambda x, y: emit("maximum", x, x),
    "not not x": lambda x, y: emit("not", emit("not", emit("less", x, y))),
    "cast to the same": lambda x, y: emit("cast", x, to=DType.FLOAT32),
    "cast twice": lambda x, y: emit("cast", emit("cast", x, to=DType.FLOAT64), to=DType.FLOAT16),
    "where(c, x, x)": lambda x, y: emit("where", emit("less", x, y), x, x),
    "where(not c)": lambda x, y: emit("where", emit("not", emit("less", x, y)), x, y),
    "same shape": lambda x, y: emit("reshape", x, shape=(1, 4, 3)),
    "reshape twice": lambda x, y: emit("reshape", emit("reshape", x, shape=(12,)), shape=(4, 3)),
    "identity transpose": lambda x, y: emit("transpose", x, perm=(0, 1, 2)),
    "transpose twice": lambda x, y: emit(
        "transpose", emit("transpose", x, perm=(1, 2, 0)), perm=(1, 2, 0)
    ),
    "transpose of ones": lambda x, y: emit("transpose", x, perm=(1, 0, 2)),
    "whole slice": lambda x, y: emit("slice", x, **_FLAT, stops=(1, 4, 3)),
    "slice twice": lambda x, y: emit(
        "slice",
        emit("slice", x, starts=(0, 1, 0), stops=(1, 4, 3), steps=(1, 1, 2)),
        starts=(0, 0, 1),
        stops=(1, 3, 2),
        steps=(1, 2, 1),
    ),
    "pad by nothing": lambda x, y: emit("pad", x, before=(0, 0, 0), after=(0, 0, 0)),
    "pad twice": lambda x, y: emit(
        "pad", emit("pad", x, before=(0, 1, 0), after=(0, 0, 2)), before=(1, 1, 0), after=(0, 0, 0)
    ),
    "resize by one": lambda x, y: emit(
        "resize", x, sizes=(1, 4, 3), scales=(1.0,) * 3, mode="linear", coordinate="half_pixel"
    ),
    "concat of one part": lambda x, y: emit("concat", x, axis=1),
    "broadcast twice": lambda x, y: emit(
        "broadcast_to", emit("broadcast_to", x, shape=(2, 4, 3)), shape=(3, 2, 4, 3)
    ),
    "reduction of ones": lambda x, y: emit("reduce_mean", x, axes=(0,), keepdims=False),
    "gather of one index": lambda x, y: emit("gather", x, constant(np.array([-2])), axis=1),
    "unpack(pack)": lambda x, y: emit(
        "unpack", emit("pack", x, axis=1, block=3), axis=1, block=3, size=4
    ),
    "pack(unpack)": lambda x, y: emit(
        "pack", emit("unpack", x, axis=0, block=3, size=3), axis=0, block=3
    ),
    "op(broadcast_to)": lambda x, y: emit("neg", emit("broadcast_to", x, shape=(2, 4, 3))),
    "op broadcasts itself": lambda x, y: emit(
        "mul",
        emit("broadcast_to", emit("slice", x, **_FLAT, stops=(1, 1, 3)), shape=(1, 4, 3)),
        y,
    ),
    "op(reshape)": lambda x, y: emit(
        "add", emit("reshape", x, shape=(4, 1, 3)), emit("reshape", y, shape=(4, 1, 3))
    ),
}


def test_every_rule_has_a_case() -> None:
    assert {rule.name for rule in _RULES} == set(CASES)
    assert len({rule.name for rule in _RULES}) == len(_RULES)


@pytest.mark.parametrize("name", CASES)
def test_rule_is_exact(name: str) -> None:
    x, y = (Input(tensor("float32", (1, 4, 3)), label) for label in "xy")
    before = Graph((x, y), (CASES[name](x, y),), ("out",))
    trace: list[Event] = []
    (rule,) = (rule for rule in _RULES if rule.name == name)
    after = rewrite(before, [rule], trace=trace)
    assert name in {event.rule for event in trace if event.refused is None}
    verify(after)
    rng = np.random.default_rng(0)
    data = np.array(_SPECIAL, np.float32)
    for _ in range(5):
        arrays = {label: rng.permutation(data).reshape(1, 4, 3) for label in "xy"}
        expected, found = evaluate(before, arrays)["out"], evaluate(after, arrays)["out"]
        if name == "x ** 3":
            np.testing.assert_allclose(found, expected, rtol=3e-7, atol=1e-44)
        else:
            np.testing.assert_array_equal(found, expected)
            if found.dtype.kind == "f" and name not in _SIGN_OF_ZERO_IS_OPEN:
                known = ~np.isnan(expected)
                np.testing.assert_array_equal(np.signbit(found)[known], np.signbit(expected)[known])


@pytest.mark.parametrize(
    "make",
    [
        lambda x: emit("div", x, _c(3)),
        lambda x: emit("div", x, _c(2.0**-149)),
        lambda x: emit("mul", x, _c(0)),
        lambda x: emit("add", x, _c(0)),
        lambda x: emit("sub", _c(0), x),
        lambda x: emit("pow", x, _c(0.5)),
        lambda x: emit("pow", emit("add", emit("mul", x, x), _c(-1)), _c(0.5)),
        lambda x: emit("relu", emit("abs", emit("cast", x, to=DType.INT32))),
        lambda x: emit("maximum", emit("relu", x), _c(1, np.nan, 0)),
        lambda x: emit("cast", emit("cast", x, to=DType.FLOAT16), to=DType.FLOAT64),
        lambda x: emit("cast", emit("cast", x, to=DType.INT32), to=DType.FLOAT32),
        lambda x: emit("slice", x, starts=(0, 3, 0), stops=(1, -1, 3), steps=(1, -1, 1)),
        lambda x: emit("add", x, constant(np.zeros((2, 1, 1), np.float32))),
    ],
)
def test_what_is_not_exact_stays(make: Callable[[Value], Value]) -> None:
    x = Input(tensor("float32", (1, 4, 3)), "x")
    graph = Graph((x,), (make(x),))
    assert rewrite(graph, _RULES) is graph
