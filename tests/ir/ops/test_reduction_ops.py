"""Reductions, pooling and cumulative sums against ONNX."""

from __future__ import annotations

import numpy as np
import pytest

from planish.ir.dim import Dim
from planish.ir.errors import InvalidGraph
from planish.ir.ops import op_def
from planish.ir.types import tensor

REDUCTIONS = {
    "reduce_sum": "ReduceSum",
    "reduce_mean": "ReduceMean",
    "reduce_max": "ReduceMax",
    "reduce_min": "ReduceMin",
    "reduce_prod": "ReduceProd",
}


@pytest.mark.parametrize("name", REDUCTIONS)
@pytest.mark.parametrize("axes", [(0,), (1, 2), (0, 1, 2, 3)], ids=str)
@pytest.mark.parametrize("keepdims", [True, False])
def test_reduce(name, axes, keepdims, run_op, onnx_op, rng):
    x = rng.standard_normal((3, 4, 5, 6), np.float32)
    expected = onnx_op(REDUCTIONS[name], x, np.array(axes), keepdims=int(keepdims))
    found = run_op(name, x, axes=axes, keepdims=keepdims)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", ["reduce_sum", "reduce_max", "reduce_min", "reduce_mean"])
@pytest.mark.parametrize("dtype", ["int32", "int64"])
def test_reduce_integers(name, dtype, run_op, onnx_op, rng):
    x = rng.integers(-90, 90, (5, 7)).astype(dtype)
    # onnxruntime rounds the mean of integers down or to zero depending on the axes
    faulty = "onnxruntime" if name == "reduce_mean" else None
    expected = onnx_op(REDUCTIONS[name], x, np.array([1]), keepdims=0, faulty=faulty)
    np.testing.assert_array_equal(run_op(name, x, axes=(1,), keepdims=False), np.trunc(expected))


def test_sums_do_not_lose_small_terms(run_op):
    x = np.full(1 << 20, 0.1, np.float32)
    x[0] = 1e6
    exact = np.float32(np.sum(x.astype(np.float64)))
    assert run_op("reduce_sum", x, axes=(0,), keepdims=False) == exact
    assert run_op("cumsum", x, axis=0)[-1] == exact


@pytest.mark.parametrize("name", REDUCTIONS)
def test_nan_and_empty(name, run_op):
    assert np.isnan(run_op(name, np.array([1, np.nan], np.float32), axes=(0,), keepdims=False))
    empty = run_op(name, np.zeros((2, 0), np.float32), axes=(1,), keepdims=False)
    identity = {"sum": 0, "prod": 1, "max": -np.inf, "min": np.inf, "mean": np.nan}
    np.testing.assert_array_equal(empty, [identity[name.removeprefix("reduce_")]] * 2)


def test_bool_extremes(run_op):
    x = np.array([[True, False], [True, True]])
    assert run_op("reduce_max", x, axes=(0,), keepdims=False).tolist() == [True, True]
    assert run_op("reduce_min", x, axes=(0,), keepdims=False).tolist() == [True, False]


@pytest.mark.parametrize("name", ["arg_max", "arg_min"])
@pytest.mark.parametrize("axis", [0, 1])
@pytest.mark.parametrize("last", [False, True])
@pytest.mark.parametrize("keepdims", [False, True])
def test_arg(name, axis, last, keepdims, run_op, onnx_op, rng):
    x = rng.integers(0, 4, (6, 7)).astype(np.float32)  # with ties
    attrs = {"axis": axis, "keepdims": int(keepdims), "select_last_index": int(last)}
    expected = onnx_op(name.title().replace("_", ""), x, **attrs)
    found = run_op(name, x, axis=axis, keepdims=keepdims, last=last)
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("exclusive", [False, True])
@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("axis", [0, 1])
@pytest.mark.parametrize("dtype", ["float32", "int32"])
def test_cumsum(exclusive, reverse, axis, dtype, run_op, onnx_op, rng):
    x = (rng.standard_normal((5, 6)) * 9).astype(dtype)
    attrs = {"exclusive": exclusive, "reverse": reverse}
    expected = onnx_op("CumSum", x, np.array(axis), **{k: int(v) for k, v in attrs.items()})
    np.testing.assert_allclose(
        run_op("cumsum", x, axis=axis, **attrs), expected, rtol=1e-4, atol=1e-5
    )


#: shape, window, strides, dilations, before, after (all of the spatial dimensions)
POOLS = {
    "2x2": ((1, 3, 8, 6), (2, 2), (2, 2), (1, 1), (0, 0), (0, 0)),
    "padded": ((2, 3, 9, 8), (3, 3), (2, 1), (1, 1), (1, 1), (1, 1)),
    "uneven": ((1, 2, 9, 8), (3, 4), (1, 2), (1, 1), (0, 2), (2, 1)),
    "dilated": ((1, 2, 12, 11), (3, 2), (1, 2), (2, 3), (1, 1), (2, 1)),
    "1d": ((2, 4, 15), (4,), (3,), (1,), (1,), (2,)),
    "3d": ((1, 2, 5, 6, 7), (2, 3, 2), (1, 2, 2), (1, 1, 1), (0, 1, 0), (1, 1, 1)),
}


def pool_attrs(window, strides, dilations, before, after):
    """Attributes for each dimension of the tensor from those of its spatial dimensions."""
    return {
        "window": (1, 1, *window),
        "strides": (1, 1, *strides),
        "dilations": (1, 1, *dilations),
        "before": (0, 0, *before),
        "after": (0, 0, *after),
    }


@pytest.mark.parametrize("case", POOLS.values(), ids=POOLS.keys())
@pytest.mark.parametrize("kind", ["max", "average", "average with padding"])
def test_pool(case, kind, run_op, onnx_op, rng):
    shape, window, strides, dilations, before, after = case
    x = rng.standard_normal(shape, np.float32) - 3  # below zero: zero padding would show
    attrs = {"kernel_shape": window, "strides": strides, "dilations": dilations}
    attrs |= {"pads": (*before, *after)}
    if kind == "max":
        expected = onnx_op("MaxPool", x, **attrs)
    else:
        counted = int(kind != "average")
        expected = onnx_op("AveragePool", x, count_include_pad=counted, **attrs)
    ours = pool_attrs(*case[1:])
    found = run_op("pool", x, kind=kind.split()[0], include_pad="with" in kind, **ours)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("include_pad", [False, True])
def test_pool_windows_over_the_end(include_pad, run_op, onnx_op, rng):
    """ceil_mode: the last windows reach beyond the padding, which must not count."""
    x = rng.standard_normal((1, 2, 7, 8), np.float32)
    attrs = {"kernel_shape": (3, 3), "strides": (3, 3), "pads": (1, 1, 1, 1), "ceil_mode": 1}
    expected = onnx_op("AveragePool", x, count_include_pad=int(include_pad), **attrs)
    ours = pool_attrs((3, 3), (3, 3), (1, 1), (1, 1), (1, 2))
    found = run_op(
        "pool", x, kind="average", include_pad=include_pad, counted_after=(0, 0, 1, 1), **ours
    )
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_pool_sum_and_integers(run_op, rng):
    x = rng.integers(-100, 100, (1, 1, 6, 6)).astype(np.int8)
    attrs = pool_attrs((2, 2), (2, 2), (1, 1), (1, 1), (1, 1))
    blocks = np.pad(x.astype(int), [(0, 0), (0, 0), (1, 1), (1, 1)])
    blocks = blocks.reshape(4, 2, 4, 2).transpose(0, 2, 1, 3).reshape(4, 4, 4)
    found = run_op("pool", x, kind="sum", **attrs)[0, 0]
    np.testing.assert_array_equal(found, blocks.sum(-1).astype(np.int8))
    low = np.full((1, 1, 2, 2), -128, np.int8)
    assert (run_op("pool", low, kind="max", **attrs) == -128).all()


def test_symbolic_shapes():
    n = Dim.symbol("n", 8)
    x = tensor("float32", (n, 3, 2 * n))
    (reduced,) = op_def("reduce_sum").infer([x], {"axes": (1,), "keepdims": True})
    assert reduced.shape == (n, 1, 2 * n)
    attrs = {"kind": "max", "include_pad": False, "counted_after": None}
    attrs |= {"window": (1, 1, 2), "strides": (1, 1, 2), "dilations": (1, 1, 1)}
    attrs |= {"before": (0, 0, 0), "after": (0, 0, 0)}
    assert op_def("pool").infer([x], attrs)[0].shape == (n, 3, n)


@pytest.mark.parametrize(
    ("name", "attrs", "message"),
    [
        (
            "reduce_sum",
            {"axes": (2,), "keepdims": True},
            r"axes must be sorted, distinct and in 0..1",
        ),
        ("reduce_sum", {"axes": (1, 0), "keepdims": True}, "axes must be sorted"),
        ("arg_max", {"axis": -1, "keepdims": True}, "axis must be in 0..1 for rank 2, got -1"),
        ("cumsum", {"axis": 2}, "axis must be in 0..1"),
        ("reduce_sum", {"keepdims": True}, "needs the attribute axes"),
        ("reduce_sum", {"axes": [1], "keepdims": True}, r"axes must be tuple, got \[1\]"),
    ],
)
def test_refusals(name, attrs, message, run_op):
    with pytest.raises(InvalidGraph, match=message):
        run_op(name, np.ones((2, 3), np.float32), **attrs)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"kind": "lp"}, "kind must be one of max, average, sum, got 'lp'"),
        ({"window": (1, 1, 9)}, "a window of 9 elements does not fit into 4 plus 0"),
        ({"before": (0, 0, -1)}, "padding must not be negative"),
        ({"strides": (1, 1, 0)}, "strides must be at least 1"),
    ],
)
def test_pool_refusals(change, message, run_op):
    attrs = pool_attrs((2,), (1,), (1,), (0,), (0,)) | {"kind": "max"} | change
    with pytest.raises(InvalidGraph, match=message):
        run_op("pool", np.ones((1, 2, 4), np.float32), **attrs)
