"""Element-wise ops against ONNX and against exact values."""

from __future__ import annotations

import math

import ml_dtypes
import numpy as np
import pytest

from planish.ir.dim import Dim
from planish.ir.errors import InvalidGraph
from planish.ir.ops import op_def
from planish.ir.types import DType, tensor

#: ours → ONNX's name and the range of random inputs
UNARY = {
    "neg": ("Neg", -9, 9),
    "abs": ("Abs", -9, 9),
    "sqrt": ("Sqrt", -1, 9),
    "exp": ("Exp", -20, 20),
    "log": ("Log", -1, 50),
    "sin": ("Sin", -9, 9),
    "cos": ("Cos", -9, 9),
    "tan": ("Tan", -1.5, 1.5),
    "asin": ("Asin", -1.2, 1.2),
    "acos": ("Acos", -1.2, 1.2),
    "atan": ("Atan", -9, 9),
    "sinh": ("Sinh", -9, 9),
    "cosh": ("Cosh", -9, 9),
    "tanh": ("Tanh", -9, 9),
    "asinh": ("Asinh", -9, 9),
    "acosh": ("Acosh", 0.5, 9),
    "atanh": ("Atanh", -1.1, 1.1),
    "sigmoid": ("Sigmoid", -40, 40),
    "erf": ("Erf", -5, 5),
    "floor": ("Floor", -9, 9),
    "ceil": ("Ceil", -9, 9),
    "round": ("Round", -9, 9),
    "sign": ("Sign", -9, 9),
    "reciprocal": ("Reciprocal", -9, 9),
    "relu": ("Relu", -9, 9),
    "hard_swish": ("HardSwish", -5, 5),
    "mish": ("Mish", -20, 40),
    "softplus": ("Softplus", -20, 40),
}


@pytest.mark.parametrize(("name", "case"), UNARY.items(), ids=UNARY.keys())
def test_unary(name, case, run_op, onnx_op, rng):
    onnx_name, low, high = case
    x = rng.uniform(low, high, (7, 33)).astype(np.float32)
    with np.errstate(all="ignore"):
        expected = onnx_op(onnx_name, x)
    np.testing.assert_allclose(run_op(name, x), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", UNARY)
def test_nan_stays_nan(name, run_op):
    assert np.isnan(run_op(name, np.float32(np.nan)))


@pytest.mark.parametrize("approximate", ["none", "tanh"])
def test_gelu(approximate, run_op, onnx_op, rng):
    x = rng.uniform(-6, 6, (7, 33)).astype(np.float32)
    expected = onnx_op("Gelu", x, approximate=approximate)
    found = run_op("gelu", x, approximate=approximate)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)
    assert np.isnan(run_op("gelu", np.float32(np.nan), approximate=approximate))


def test_silu(run_op, onnx_op, rng):
    x = rng.uniform(-9, 9, (7, 33)).astype(np.float32)
    expected = x * onnx_op("Sigmoid", x)
    np.testing.assert_allclose(run_op("silu", x), expected, rtol=1e-5, atol=1e-6)
    assert np.isnan(run_op("silu", np.float32(np.nan)))


def test_gelu_of_an_unknown_form():
    with pytest.raises(InvalidGraph, match="approximate must be one of none, tanh, got 'sin'"):
        op_def("gelu").infer([tensor("float32", (2,))], {"approximate": "sin"})


def test_activations_far_out(run_op):
    """Where exp(x) overflows, and where the result is much smaller than 1."""
    x = np.array([-60, 1000], np.float32)
    np.testing.assert_allclose(run_op("softplus", x), [np.exp(-60.0), 1000], rtol=1e-6)
    np.testing.assert_allclose(run_op("mish", x), [-60 * np.exp(-60.0), 1000], rtol=1e-6)
    np.testing.assert_allclose(run_op("silu", x), [-60 * np.exp(-60.0), 1000], rtol=1e-6)


BINARY = {
    "add": "Add",
    "sub": "Sub",
    "mul": "Mul",
    "div": "Div",
    "equal": "Equal",
    "less": "Less",
    "less_equal": "LessOrEqual",
    "greater": "Greater",
    "greater_equal": "GreaterOrEqual",
}


@pytest.mark.parametrize("dtype", ["float32", "float64", "int32", "int64"])
@pytest.mark.parametrize("name", BINARY)
def test_binary(name, dtype, run_op, onnx_op, rng):
    x = (rng.standard_normal((4, 1, 6)) * 9).astype(dtype)
    y = (rng.standard_normal((5, 6)) * 3).astype(dtype)
    y[y == 0] = 2
    ours = run_op(name, x, y)
    np.testing.assert_allclose(ours, onnx_op(BINARY[name], x, y), rtol=1e-6)


@pytest.mark.parametrize("name", ["maximum", "minimum"])
@pytest.mark.parametrize("dtype", ["float32", "int64", "uint8"])
def test_extremes_propagate_nan(name, dtype, run_op, onnx_op, rng):
    x = (rng.uniform(0, 99, (8, 9))).astype(dtype)
    y = (rng.uniform(0, 99, (9,))).astype(dtype)
    if dtype == "float32":
        x[2, 3] = y[5] = np.nan
    expected = onnx_op("Max" if name == "maximum" else "Min", x, y)
    np.testing.assert_array_equal(run_op(name, x, y), expected)


@pytest.mark.parametrize("fmod", [False, True])
@pytest.mark.parametrize("dtype", ["int32", "int8", "uint8", "float32"])
def test_mod(dtype, fmod, run_op, onnx_op, rng):
    if dtype == "float32" and not fmod:
        pytest.skip("ONNX has no float Mod without fmod")
    x = rng.uniform(-100, 100, (6, 7)).astype(np.int64).astype(dtype)
    y = rng.uniform(1, 9, (6, 7)).astype(dtype) * np.where(rng.uniform(size=(6, 7)) < 0.5, 1, -1)
    y = y.astype(dtype)
    np.testing.assert_allclose(run_op("mod", x, y, fmod=fmod), onnx_op("Mod", x, y, fmod=int(fmod)))


def test_pow(run_op, onnx_op, rng):
    x = rng.uniform(0, 4, (5, 6)).astype(np.float32)
    y = rng.uniform(-3, 3, (6,)).astype(np.float32)
    np.testing.assert_allclose(run_op("pow", x, y), onnx_op("Pow", x, y), rtol=1e-5)


def test_integer_corner_cases(run_op):
    a, b = np.array([7, -7, 7, -7, 5]), np.array([2, 2, -2, -2, 0])
    assert run_op("div", a, b).tolist() == [3, -3, -3, 3, 0]
    base, exponent = np.array([2, 2, 1, -1, -1, 3]), np.array([5, -1, -7, -3, -2, 0])
    assert run_op("pow", base, exponent).tolist() == [32, 0, 1, -1, 1, 1]
    assert run_op("relu", np.array([-2, 3], np.int8)).tolist() == [0, 3]


@pytest.mark.parametrize(
    ("name", "onnx_name"), [("and", "And"), ("or", "Or"), ("xor", "Xor")], ids=str
)
def test_logic(name, onnx_name, run_op, onnx_op, rng):
    x, y = rng.uniform(size=(4, 5)) < 0.5, rng.uniform(size=5) < 0.5
    np.testing.assert_array_equal(run_op(name, x, y), onnx_op(onnx_name, x, y))
    np.testing.assert_array_equal(run_op("not", x), onnx_op("Not", x))


@pytest.mark.parametrize(
    ("name", "onnx_name"),
    [("bitwise_and", "BitwiseAnd"), ("bitwise_or", "BitwiseOr"), ("bitwise_xor", "BitwiseXor")],
)
@pytest.mark.parametrize("dtype", ["int32", "uint8", "int64"])
def test_bitwise(name, onnx_name, dtype, run_op, onnx_op, rng):
    x = rng.integers(0, 100, (4, 5)).astype(dtype)
    y = rng.integers(0, 100, (5,)).astype(dtype)
    np.testing.assert_array_equal(run_op(name, x, y), onnx_op(onnx_name, x, y))
    np.testing.assert_array_equal(run_op("bitwise_not", x), onnx_op("BitwiseNot", x))


@pytest.mark.parametrize("direction", ["left", "right"])
@pytest.mark.parametrize("dtype", ["uint8", "uint32", "uint64"])
def test_shift(direction, dtype, run_op, onnx_op, rng):
    x = rng.integers(0, 256, (4, 5)).astype(dtype)
    y = rng.integers(0, 8, (5,)).astype(dtype)
    expected = onnx_op("BitShift", x, y, direction=direction.upper())
    np.testing.assert_array_equal(run_op(f"shift_{direction}", x, y), expected)


@pytest.mark.parametrize("positive", [False, True])
@pytest.mark.parametrize("negative", [False, True])
def test_is_inf_and_is_nan(positive, negative, run_op, onnx_op):
    x = np.array([1, np.inf, -np.inf, np.nan, 0], np.float32)
    signs = {"detect_positive": int(positive), "detect_negative": int(negative)}
    ours = run_op("is_inf", x, positive=positive, negative=negative)
    np.testing.assert_array_equal(ours, onnx_op("IsInf", x, **signs))
    np.testing.assert_array_equal(run_op("is_nan", x), onnx_op("IsNaN", x))


def test_where(run_op, onnx_op, rng):
    condition = rng.uniform(size=(4, 1)) < 0.5
    x, y = rng.standard_normal((1, 5), np.float32), rng.standard_normal((3, 4, 5), np.float32)
    np.testing.assert_array_equal(
        run_op("where", condition, x, y), onnx_op("Where", condition, x, y)
    )


def test_clip_order_and_nan(run_op):
    x = np.array([1, 5, 9, np.nan], np.float32)
    found = run_op("clip", x, np.float32(3), np.float32(7))
    np.testing.assert_array_equal(found, np.array([3, 5, 7, np.nan], np.float32))
    assert run_op("clip", np.float32(5), np.float32(8), np.float32(2)) == 2


CASTS = [
    (source, to)
    for source in ("float32", "float64", "int64", "int32", "uint8", "bool")
    for to in ("float32", "float64", "float16", "int64", "int32", "int8", "uint8", "bool")
]


@pytest.mark.parametrize(("source", "to"), CASTS, ids=lambda name: name)
def test_cast(source, to, run_op, onnx_op, rng):
    x = rng.uniform(0 if "u" in source + to else -100, 100, 50)
    x[:5] = 0
    x = x.astype(source)
    code = DType(to).numpy
    expected = onnx_op("Cast", x, to=_onnx_code(code))
    np.testing.assert_array_equal(run_op("cast", x, to=DType(to)), expected)


def _onnx_code(dtype: np.dtype) -> int:
    from onnx import helper

    return int(helper.np_dtype_to_tensor_dtype(dtype))


def test_cast_to_narrow_types(run_op):
    x = np.array([1.0, -1e9, 1e9, np.inf, np.nan, 0.3], np.float32)
    eight = run_op("cast", x, to=DType.FLOAT8_E4M3FN).astype(np.float32)
    np.testing.assert_array_equal(eight, np.array([1, -448, 448, 448, np.nan, 0.3125], np.float32))
    wide = run_op("cast", x, to=DType.FLOAT8_E5M2).astype(np.float32)
    np.testing.assert_array_equal(wide[:5], np.array([1, -57344, 57344, 57344, np.nan], np.float32))
    four = run_op("cast", np.array([-8, 7, 9, -9.7], np.float32), to=DType.INT4)
    assert four.astype(int).tolist() == [-8, 7, -7, 7]
    assert run_op("cast", four, to=DType.INT32).tolist() == [-8, 7, -7, 7]
    assert run_op("cast", np.array([np.nan, 0.0, -0.1]), to=DType.BOOL).tolist() == [1, 0, 1]


@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16, ml_dtypes.float8_e4m3fn])
def test_narrow_floats_compute_in_float32(dtype, run_op, rng):
    x = rng.uniform(-3, 3, 100).astype(dtype)
    expected = (1 / (1 + np.exp(-x.astype(np.float64)))).astype(np.float32).astype(dtype)
    found = run_op("sigmoid", x)
    assert found.dtype == dtype
    np.testing.assert_array_equal(found.astype(np.float32), expected.astype(np.float32))


def test_erf_is_exact_to_float64(run_op):
    x = np.concatenate([np.linspace(-7, 7, 20001), [1e-300, -1e-9, 0.46875, 4, np.inf, -np.inf]])
    expected = np.array([math.erf(value) for value in x])
    np.testing.assert_allclose(run_op("erf", x), expected, rtol=1e-15, atol=0)
    assert np.signbit(run_op("erf", np.float64(-0.0)))


def test_sigmoid_and_log1p_keep_small_values(run_op):
    assert run_op("sigmoid", np.float32(-100)) == np.exp(np.float32(-100))
    assert run_op("log1p", np.float32(1e-10)) == np.float32(1e-10)


def test_symbolic_broadcast():
    n = Dim.symbol("n", 1)
    x, y = tensor("float32", (n, 1, 3)), tensor("float32", (4, 3))
    assert op_def("add").infer([x, y], {}) == (tensor("float32", (n, 4, 3)),)
    assert op_def("add").infer([tensor("float32", (n,)), tensor("float32", (5,))], {}) == (
        tensor("float32", (5,)),
    )


@pytest.mark.parametrize(
    ("name", "arrays", "message"),
    [
        ("add", [np.float32(1), np.float64(1)], "one element type, got float32, float64"),
        ("add", [np.ones(3), np.ones(4)], r"shapes \[3\] and \[4\] do not broadcast"),
        ("add", [True, False], "needs tensors of numbers, got bool"),
        ("exp", [np.ones(2, np.int32)], r"exp: needs floating-point tensors, got int32\[2\]"),
        ("and", [np.ones(1), np.ones(1)], "needs bool tensors"),
        ("bitwise_not", [True], "needs integer tensors"),
        ("where", [np.ones(1), np.ones(1), np.ones(1)], "needs a bool condition"),
        ("where", [True, np.ones(1), np.ones(1, np.int32)], "one element type"),
    ],
)
def test_refusals(name, arrays, message, run_op):
    with pytest.raises(InvalidGraph, match=message):
        run_op(name, *arrays)


def test_two_symbols_do_not_broadcast():
    x, y = (tensor("float32", (Dim.symbol(name),)) for name in "nm")
    with pytest.raises(InvalidGraph, match=r"shapes \[n\] and \[m\] do not broadcast"):
        op_def("add").infer([x, y], {})
    three = tensor("float32", (3,))
    with pytest.raises(InvalidGraph, match="broadcast dimensions must agree, got n and 3"):
        op_def("add").infer([tensor("float32", (Dim.symbol("n", 5),)), three], {})


def test_strings_cannot_be_cast(run_op):
    with pytest.raises(InvalidGraph, match="converts numbers and bool, not string to float32"):
        run_op("cast", np.array(["a"], object), to=DType.FLOAT32)
