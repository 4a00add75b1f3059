"""What passes recognise or rearrange keeps NaN and infinities where the model has them."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from random_graphs import TARGET

from planish.ir.builder import emit
from planish.ir.graph import Constant, Graph, Input, Value, constant
from planish.ir.ops.winograd import transformed_weights
from planish.ir.reference import evaluate
from planish.ir.types import DType, tensor
from planish.passes.merge_siblings import merge_siblings
from planish.passes.pass_ import Pass
from planish.passes.recognize_activations import recognize_activations
from planish.passes.recognize_attention import recognize_attention
from planish.passes.recognize_norms import recognize_norms
from planish.passes.simplify import simplify
from planish.passes.space_to_depth import space_to_depth
from planish.passes.split_reductions import split_reductions


def _c(number: float, dtype: str = "float32") -> Constant:
    return constant(np.asarray(number, dtype))


def _ops(run: Pass, x: Input, y: Value) -> list[str]:
    return [node.op for node in run(Graph((x,), (y,)), TARGET).nodes]


def _gelu(x: Value, half: float = 0.5, one: float = 1.0, root: float = np.sqrt(2)) -> Value:
    dtype = x.type.dtype.value
    bent = emit("add", emit("erf", emit("div", x, _c(root, dtype))), _c(one, dtype))
    return emit("mul", emit("mul", x, _c(half, dtype)), bent)


def _hard_swish(x: Value, three: float = 3.0, six: float = 6.0, by: float = 6.0) -> Value:
    dtype = x.type.dtype.value
    line = emit("relu", emit("add", x, _c(three, dtype)))
    return emit("div", emit("mul", x, emit("minimum", line, _c(six, dtype))), _c(by, dtype))


def _silu(x: Value, slope: float = 1.0) -> Value:
    return emit("mul", x, emit("sigmoid", emit("mul", x, _c(slope, x.type.dtype.value))))


def _layer_norm(x: Value, part: float = 1 / 8) -> Value:
    dtype = x.type.dtype.value

    def mean(y: Value) -> Value:
        total = emit("reduce_sum", y, axes=(1,), keepdims=True)
        return emit("mul", total, _c(part, dtype))

    centred = emit("sub", x, mean(x))
    deviation = emit("add", mean(emit("mul", centred, centred)), _c(1e-5, dtype))
    return emit("div", centred, emit("sqrt", deviation))


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_constants_of_an_activation_are_its_own(dtype: str) -> None:
    x = Input(tensor(dtype, (4, 8)), "x")
    off = {"float16": 1.002, "float32": 1.00002, "float64": 1 + 1e-9}[dtype]
    exact = {"gelu": _gelu(x), "hard_swish": _hard_swish(x), "layer_norm": _layer_norm(x)}
    for name, y in exact.items():
        run = recognize_norms if name == "layer_norm" else recognize_activations
        assert _ops(run, x, y) == [name]
    for y in (
        _gelu(x, half=0.5 * off),
        _gelu(x, one=off),
        _gelu(x, root=np.sqrt(2) * off),
        _hard_swish(x, three=3 * off),
        _hard_swish(x, six=6 * off),
        _hard_swish(x, by=6 * off),
        _silu(x, slope=off),
    ):
        found = _ops(recognize_activations, x, y)
        assert not {"gelu", "hard_swish", "silu"} & set(found)
    assert "layer_norm" not in _ops(recognize_norms, x, _layer_norm(x, off / 8))


def test_numbers_that_cancel_or_are_extreme_make_no_activation() -> None:
    """As polynomials these are GELU and SiLU; the sums round, the products over- and underflow."""
    x = Input(tensor("float32", (4, 8)), "x")
    moved = emit("sub", emit("add", x, _c(12582912)), _c(12582912))
    scaled = emit("mul", emit("mul", x, _c(1e30)), _c(1e-30))
    gone = emit("add", x, emit("div", x, _c(np.inf)))
    for y in (moved, scaled, gone):
        assert "silu" not in _ops(recognize_activations, x, emit("mul", x, emit("sigmoid", y)))
        bent = emit("add", emit("erf", emit("div", y, _c(np.sqrt(2)))), _c(1))
        gelu = emit("mul", emit("mul", x, _c(0.5)), bent)
        assert "gelu" not in _ops(recognize_activations, x, gelu)


def _softplus(x: Value) -> Value:
    return emit("log", emit("add", emit("exp", x), _c(1)))


def _softmax(x: Value) -> Value:
    powers = emit("exp", x)
    return emit("div", powers, emit("reduce_sum", powers, axes=(1,), keepdims=True))


SPECIAL = [np.nan, np.inf, -np.inf, 0.0, -0.0, 5e37, -5e37, 200.0, -200.0, 1e-42, 1.5, -2.5]

EXPRESSIONS: dict[str, Callable[[Value], Value]] = {
    "softplus": _softplus,
    "softplus by log1p": lambda x: emit("log1p", emit("exp", x)),
    "softplus by halves": lambda x: emit(
        "add", emit("relu", x), _softplus(emit("neg", emit("abs", x)))
    ),
    "mish": lambda x: emit("mul", x, emit("tanh", _softplus(x))),
    "silu": _silu,
    "silu as quotient": lambda x: emit("div", x, emit("add", emit("exp", emit("neg", x)), _c(1))),
    "sigmoid": lambda x: emit("reciprocal", emit("add", emit("exp", emit("neg", x)), _c(1))),
    "gelu": _gelu,
    "hard_swish": _hard_swish,
    "softmax": _softmax,
    "softmax of differences": lambda x: _softmax(
        emit("sub", x, emit("reduce_max", x, axes=(1,), keepdims=True))
    ),
    "reciprocal of x + 0": lambda x: emit("reciprocal", emit("add", x, _c(0))),
    "reciprocal of 0 - x": lambda x: emit("reciprocal", emit("sub", _c(0), x)),
    "reciprocal of x - 0": lambda x: emit("reciprocal", emit("sub", x, _c(0))),
    "x - x": lambda x: emit("sub", x, x),
    "x * 0": lambda x: emit("mul", x, _c(0)),
    "0 / x": lambda x: emit("div", _c(0), x),
    "x / x": lambda x: emit("div", x, x),
    "x ** 0": lambda x: emit("pow", x, _c(0)),
    "x ** 0.5": lambda x: emit("pow", x, _c(0.5)),
    "root squared": lambda x: emit("mul", emit("sqrt", x), emit("sqrt", x)),
    "exp of log": lambda x: emit("exp", emit("log", x)),
    "max(x, -inf)": lambda x: emit("maximum", x, _c(-np.inf)),
    "low above high": lambda x: emit("minimum", emit("maximum", x, _c(3)), _c(-1)),
    "clip, low above high": lambda x: emit("clip", x, _c(3), _c(-1)),
    "not less": lambda x: emit("cast", emit("not", emit("less", x, _c(0))), to=DType.FLOAT32),
    "not equal": lambda x: emit("cast", emit("not", emit("equal", x, x)), to=DType.FLOAT32),
    "relu twice": lambda x: emit("relu", emit("relu", x)),
    "bounds of NaN": lambda x: emit("maximum", emit("relu", x), _c(np.nan)),
}


@pytest.mark.parametrize("name", EXPRESSIONS)
def test_special_values_stay(name: str) -> None:
    x = Input(tensor("float32", (12, 2)), "x")
    before = Graph((x,), (EXPRESSIONS[name](x),), ("y",))
    after = before
    for run in (simplify, recognize_activations, recognize_norms, simplify):
        after = run(after, TARGET)
    data = np.array([SPECIAL, [1.0] * 12], np.float32).T
    with np.errstate(all="ignore"):
        expected, found = (evaluate(g, {"x": data})["y"] for g in (before, after))
    np.testing.assert_allclose(found, expected, 1e-5, 1e-6)


def test_relu_of_the_least_integer() -> None:
    x = Input(tensor("int8", (3,)), "x")
    graph = Graph((x,), (emit("relu", emit("abs", x)),), ("y",))
    data = np.array([-128, -127, 5], np.int8)
    found = evaluate(simplify(graph, TARGET), {"x": data})["y"]
    np.testing.assert_array_equal(found, evaluate(graph, {"x": data})["y"])


def test_winograd_spreads_an_infinity_as_far_as_a_convolution() -> None:
    rng = np.random.default_rng(0)
    x, w = (
        Input(tensor("float32", s), n)
        for s, n in (((1, 1, 8, 8, 4), "x"), ((1, 4, 4, 1, 4, 4), "u"))
    )
    kernel = rng.standard_normal((1, 1, 3, 3, 4, 4)).astype(np.float32)
    direct = emit("blocked_conv", x, constant(kernel), strides=(1, 1), dilations=(1, 1))
    patches = emit("winograd_conv", x, w)
    for row, column in ((0, 0), (3, 4), (4, 3), (7, 7)):
        data = rng.standard_normal((1, 1, 8, 8, 4)).astype(np.float32)
        data[0, 0, row, column, 1] = np.nan
        expected = evaluate(Graph((x,), (direct,), ("y",)), {"x": data})["y"]
        found = evaluate(
            Graph((x, w), (patches,), ("y",)), {"x": data, "u": transformed_weights(kernel)}
        )["y"]
        np.testing.assert_allclose(found, expected, 1e-4, 1e-5)


@pytest.mark.parametrize("taps", [3, 4])
def test_columns_beside_a_window_do_not_meet_weights_of_zero(taps: int) -> None:
    x = Input(tensor("float32", (1, 2, 3, 12)), "x")
    w = np.random.default_rng(1).standard_normal((3, 2, 1, taps)).astype(np.float32)
    sides = {"before": (0, 0), "after": (0, 0)}
    y = emit("conv", x, constant(w), strides=(1, 2), dilations=(1, 1), groups=1, **sides)
    before = Graph((x,), (y,), ("y",))
    after = space_to_depth(before, TARGET)
    assert (after is before) == (taps == 3)
    for column in range(12):
        data = np.ones((1, 2, 3, 12), np.float32)
        data[0, 1, 1, column] = np.inf
        expected, found = (evaluate(g, {"x": data})["y"] for g in (before, after))
        np.testing.assert_allclose(found, expected, 1e-5)


@pytest.mark.parametrize("op", ["reduce_sum", "reduce_mean"])
def test_partial_sums_of_halves_do_not_overflow(op: str) -> None:
    x = Input(tensor("float16", (512, 3)), "x")
    before = Graph((x,), (emit(op, x, axes=(0,), keepdims=False),), ("y",))
    after = split_reductions(before, TARGET)
    assert after is not before
    data = np.full((512, 3), 9000.0, np.float16)
    data[256:] = -8999
    data[::7, 1:] += 1
    expected, found = (evaluate(g, {"x": data})["y"] for g in (before, after))
    np.testing.assert_array_equal(found, expected)


def test_scales_of_scores_that_are_extreme_stay() -> None:
    x = Input(tensor("float32", (1, 2, 5, 8)), "x")
    keys = emit("transpose", x, perm=(0, 1, 3, 2))

    def attention(*scales: float) -> Value:
        scores: Value = emit("matmul", emit("mul", x, _c(scales[0])), keys)
        for scale in scales[1:]:
            scores = emit("mul", scores, _c(scale))
        return emit("matmul", emit("softmax", scores, axis=3), x)

    assert "attention" in _ops(recognize_attention, x, attention(0.35, 0.35))
    for scales in ((1.0, 1e-30), (1.0, 1e12, 1e12), (1.0, np.inf), (1.0, np.nan)):
        assert "attention" not in _ops(recognize_attention, x, attention(*scales))


def test_siblings_that_divide_by_zeros_of_both_signs() -> None:
    x = Input(tensor("float32", (4, 64)), "x")
    rng = np.random.default_rng(2)
    products = [
        emit("matmul", x, constant(rng.standard_normal((64, 32)).astype(np.float32)))
        for _ in range(2)
    ]
    apart = [emit("div", y, _c(zero)) for y, zero in zip(products, (0.0, -0.0))]
    heads = [emit("attention", *[y] * 3, **_SELF) for y in apart]
    before = Graph((x,), tuple(heads), ("a", "b"))
    after = merge_siblings(before, TARGET)
    scales = [v.data for n in after.nodes if n.op == "div" for v in n.inputs[1:]]  # type: ignore[attr-defined]
    signs = {bool(sign) for data in scales for sign in np.signbit(np.atleast_1d(data))}
    assert after is not before
    assert signs == {False, True}


_ROWS = (0, 128, 32, 32, 1)
_SELF = {"sizes": (1, 1, 4, 4, 32, 32), "q": _ROWS, "k": _ROWS, "v": _ROWS}
