"""Ops of several steps on float16 and bfloat16: no step overflows or rounds digits away."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from onnx import ModelProto
from onnx_models import input_of, model, node

from planish.ir.onnx import import_model
from planish.ir.reference import evaluate

RNG = np.random.default_rng(16)
ROWS = RNG.uniform(100, 600, (2, 4, 16))
IMAGE = RNG.uniform(100, 600, (1, 4, 6, 6))
SMALL = RNG.uniform(-1e-3, 1e-3, (2, 4, 16))
QUERY, KEYS = RNG.uniform(-1, 1, (2, 3, 4, 8)), RNG.uniform(-1, 1, (2, 3, 6, 8))
AXES = {"axes": [2]}

#: op, attributes, opset, data, further operands
CASES: dict[str, tuple[str, dict[str, Any], int, np.ndarray, list[np.ndarray]]] = {
    "l2": ("ReduceL2", AXES, 13, ROWS * 40, []),
    "l2 of small numbers": ("ReduceL2", AXES, 13, SMALL, []),
    "log_sum": ("ReduceLogSum", AXES, 13, ROWS * 60, []),
    "log_sum_exp": ("ReduceLogSumExp", AXES, 13, ROWS * 50, []),
    "sum_square": ("ReduceSumSquare", AXES, 13, SMALL, []),
    "l2 norm": ("LpNormalization", {"axis": -1, "p": 2}, 13, ROWS, []),
    "l2 norm of small numbers": ("LpNormalization", {"axis": 1, "p": 2}, 13, SMALL, []),
    "l1 norm": ("LpNormalization", {"axis": -1, "p": 1}, 13, ROWS * 20, []),
    "global lp pool": ("GlobalLpPool", {"p": 3}, 13, IMAGE, []),
    "lp pool": ("LpPool", {"p": 2, "kernel_shape": [2, 2]}, 13, IMAGE * 20, []),
    "lrn": ("LRN", {"size": 3, "alpha": 0.1}, 13, IMAGE, []),
    "instance_norm": (
        "InstanceNormalization", {}, 13, IMAGE * 20, [np.ones(4), np.full(4, 0.5)],
    ),
    "instance_norm of small numbers": (
        "InstanceNormalization", {"epsilon": 1e-9}, 13, IMAGE * 1e-6, [np.ones(4), np.zeros(4)],
    ),
    "group_norm": ("GroupNormalization", {"num_groups": 2}, 21, IMAGE * 20, [np.ones(4)] * 2),
    "group_norm by group": (
        "GroupNormalization", {"num_groups": 2}, 18, IMAGE * 20, [np.ones(2)] * 2,
    ),
    "mean_variance": ("MeanVarianceNormalization", {}, 13, IMAGE * 20, []),
    "layer_norm": ("LayerNormalization", {}, 17, ROWS * 20, [np.ones(16)]),
    "softmax": ("Softmax", {"axis": -1}, 13, ROWS * 90, []),
    "attention": ("Attention", {}, 23, QUERY, [KEYS, KEYS[::-1]]),
    "attention of large scores": ("Attention", {}, 23, QUERY * 40, [KEYS * 90, KEYS * 40]),
    "mean": ("Mean", {}, 13, ROWS * 100, [ROWS * 90, ROWS * 80]),
    "sum": ("Sum", {}, 13, ROWS * 100, [ROWS * 90, -ROWS * 100]),
    "elu": ("Elu", {}, 13, SMALL, []),
    "celu": ("Celu", {"alpha": 2.0}, 13, SMALL, []),
    "selu": ("Selu", {}, 13, SMALL, []),
    "softsign": ("Softsign", {}, 13, ROWS * 100, []),
    "gemm": ("Gemm", {"alpha": 1e-3, "beta": 0.5}, 13, ROWS[0], [ROWS[1].T * 9, np.ones(4)]),
}  # fmt: skip


def _model(case: str, dtype: np.dtype) -> tuple[ModelProto, Mapping[str, np.ndarray]]:
    op, attributes, opset, data, more = CASES[case]
    names = [f"x{i}" for i in range(1 + len(more))]
    feeds = {name: array.astype(dtype) for name, array in zip(names, (data, *more))}
    nodes = [node(op, " ".join(names), "y", **attributes)]
    inputs = [input_of(name, array) for name, array in feeds.items()]
    return model(nodes, inputs, ["y"], opset=opset), feeds


@pytest.mark.parametrize("case", CASES)
def test_steps_of_halves_are_float32(case: str) -> None:
    for dtype, digits in ((np.dtype(np.float16), 1e-3), (np.dtype(ml_dtypes.bfloat16), 8e-3)):
        proto, feeds = _model(case, dtype)
        if case == "celu" and dtype != np.float16:  # float types of ONNX's Celu
            continue
        (found,) = evaluate(import_model(proto), dict(feeds)).values()
        assert found.dtype == dtype
        wide, _ = _model(case, np.dtype(np.float32))
        exact = {name: array.astype(np.float32) for name, array in feeds.items()}
        (expected,) = evaluate(import_model(wide), exact).values()
        with np.errstate(over="ignore"):
            expected = expected.astype(dtype).astype(np.float64)
        np.testing.assert_allclose(found.astype(np.float64), expected, digits, 1e-7)


def test_codes_of_16_bits_are_scaled_by_halves() -> None:
    codes = np.array([0, 3, 40000, 65535], np.uint16)
    scale, zero = np.float16(0.01), np.uint16(40001)
    pair = [
        node("DequantizeLinear", "q s z", "y"),
        node("QuantizeLinear", "y s z", "back"),
    ]
    weights = {"s": np.array(scale), "z": np.array(zero)}
    proto = model(pair, [input_of("q", codes)], ["y", "back"], weights, opset=21)
    found = evaluate(import_model(proto), {"q": codes})
    exact = (codes.astype(np.float64) - float(zero)) * float(scale)
    np.testing.assert_array_equal(found["y"], exact.astype(np.float16))
    nearest = np.rint(found["y"].astype(np.float32) / np.float32(scale)) + zero
    np.testing.assert_array_equal(found["back"], np.clip(nearest, 0, 65535).astype(np.uint16))


@pytest.mark.parametrize("name", ["float16", "float32", "float64"])
def test_infinities_pass_through_expansions(name: str) -> None:
    """As onnxruntime's: log Σ eˣ of inf, of -inf and of the least number; a slope of 0."""
    dtype = np.dtype(name)
    least = float(np.finfo(dtype).min)
    rows = [
        [1, np.inf, 2],
        [-np.inf] * 3,
        [least] * 3,
        [np.nan, 1, np.inf],
        [0, np.log(2), -np.inf],
    ]
    x = np.array(rows, dtype)
    nodes = [
        node("ReduceLogSumExp", "x", "total", axes=[1], keepdims=0),
        node("LeakyRelu", "x", "bent", alpha=0.0),
    ]
    found = evaluate(
        import_model(model(nodes, [input_of("x", x)], ["total", "bent"], opset=13)), {"x": x}
    )
    expected = np.array([np.inf, -np.inf, least, np.nan, np.log(3)])
    np.testing.assert_allclose(found["total"].astype(float), expected, 2e-3)
    with np.errstate(invalid="ignore"):
        bent = np.where(x < 0, x * dtype.type(0), x)
    np.testing.assert_array_equal(found["bent"], bent)
