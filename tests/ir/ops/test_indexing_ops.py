"""Gathers, scatters and top-k against ONNX."""

from __future__ import annotations

import numpy as np
import pytest

from planish.ir.errors import InvalidGraph


@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize("indices", [(), (3,), (2, 4)], ids=str)
def test_gather(axis, indices, run_op, onnx_op, rng):
    x = rng.standard_normal((4, 5, 6), np.float32)
    places = rng.integers(-4, 4, indices)
    np.testing.assert_array_equal(
        run_op("gather", x, places, axis=axis), onnx_op("Gather", x, places, axis=axis)
    )


def test_gather_of_one_element_has_rank_0(run_op):
    x = np.array([3, 4, 5])
    assert run_op("gather", x, np.array(-1), axis=0) == 5
    assert run_op("gather_nd", x, np.array([1])) == 4


@pytest.mark.parametrize(
    ("axis", "shape"), [(0, (7, 5)), (1, (4, 3)), (0, (3, 2)), (1, (2, 9))], ids=str
)
def test_gather_elements(axis, shape, run_op, onnx_op, rng):
    x = rng.standard_normal((4, 5), np.float32)
    places = rng.integers(-4, 4, shape).astype(np.int32)
    expected = onnx_op("GatherElements", x, places, axis=axis, faulty="onnx")
    np.testing.assert_array_equal(run_op("gather_elements", x, places, axis=axis), expected)


@pytest.mark.parametrize(
    ("shape", "indices", "batch"),
    [((4, 5, 6), (7, 2), 0), ((4, 5, 6), (2, 3, 1), 0), ((3, 5, 6), (3, 1), 1),
     ((3, 5, 6), (3, 4, 2), 1), ((2, 3, 4, 5), (2, 3, 6, 1), 2), ((4, 4), (2, 2), 0)],
    ids=str,
)  # fmt: skip
def test_gather_nd(shape, indices, batch, run_op, onnx_op, rng):
    x = rng.standard_normal(shape, np.float32)
    places = rng.integers(-4, 4, indices)
    np.testing.assert_array_equal(
        run_op("gather_nd", x, places, batch_dims=batch),
        onnx_op("GatherND", x, places, batch_dims=batch),
    )


@pytest.mark.parametrize("reduction", ["none", "add", "mul", "max", "min"])
@pytest.mark.parametrize("axis", [0, 1])
@pytest.mark.parametrize("dtype", ["float32", "int64"])
def test_scatter_elements(reduction, axis, dtype, run_op, onnx_op, rng):
    x = (rng.standard_normal((6, 7)) * 9).astype(dtype)
    places = rng.integers(-6, 6, (4, 5))
    if reduction == "none":  # repeated places have no defined winner in ONNX
        places = np.argsort(rng.uniform(size=(6, 6)), axis)[:4, :5]
    updates = (rng.standard_normal((4, 5)) * 9).astype(dtype)
    np.testing.assert_allclose(
        run_op("scatter_elements", x, places, updates, axis=axis, reduction=reduction),
        onnx_op("ScatterElements", x, places, updates, axis=axis, reduction=reduction),
        rtol=1e-5,
    )


@pytest.mark.parametrize("reduction", ["none", "add", "mul", "max", "min"])
@pytest.mark.parametrize(("depth", "count"), [(1, 4), (2, 9), (3, 9)])
def test_scatter_nd(reduction, depth, count, run_op, onnx_op, rng):
    x = rng.standard_normal((6, 5, 4), np.float32)
    places = np.stack([rng.permutation(n) for n in (4, 4, 4)][:depth], axis=1)
    if reduction != "none":
        places = rng.integers(-4, 4, (count, depth))
    updates = rng.standard_normal((*places.shape[:-1], *x.shape[depth:]), np.float32)
    np.testing.assert_allclose(
        run_op("scatter_nd", x, places, updates, reduction=reduction),
        onnx_op("ScatterND", x, places, updates, reduction=reduction),
        rtol=1e-5,
    )


@pytest.mark.parametrize("largest", [True, False])
@pytest.mark.parametrize(("axis", "k"), [(0, 3), (1, 7), (1, 1)])
@pytest.mark.parametrize("dtype", ["float32", "int64"])
def test_top_k(largest, axis, k, dtype, run_op, onnx_op, rng):
    x = rng.integers(0, 9, (6, 7)).astype(dtype)  # with ties
    values, indices = onnx_op("TopK", x, np.array([k]), results=2, axis=axis, largest=int(largest))
    found = run_op("top_k", x, k=k, axis=axis, largest=largest)
    np.testing.assert_array_equal(found[0], values)
    np.testing.assert_array_equal(found[1], indices)


def test_top_k_of_unsigned_extremes(run_op):
    values, indices = run_op(
        "top_k", np.array([0, 255, 255, 1], np.uint8), k=3, axis=0, largest=True
    )
    assert (values.tolist(), indices.tolist()) == ([255, 255, 1], [1, 2, 3])


@pytest.mark.parametrize(
    ("name", "arrays", "attrs", "message"),
    [
        (
            "gather",
            [np.ones(4), np.array([4])],
            {"axis": 0},
            "index 4 lies outside axis 0 of size 4",
        ),
        ("gather", [np.ones(4), np.array([-5])], {"axis": 0}, "index -5 lies outside axis 0"),
        ("gather", [np.ones(4), np.ones(1)], {"axis": 0}, "indices must be int32 or int64"),
        ("gather_elements", [np.ones((2, 3)), np.ones((3, 3), int)], {"axis": 1}, "reach beyond"),
        ("gather_elements", [np.ones((2, 3)), np.ones(3, int)], {"axis": 1}, "must have the rank"),
        ("gather_nd", [np.ones((2, 3)), np.ones((1, 3), int)], {}, "index tuples of 3 entries"),
        ("gather_nd", [np.ones((2, 3)), np.ones((2, 1), int)], {"batch_dims": 2}, "batch_dims 2"),
        ("scatter_nd", [np.ones(3), np.ones((2, 1), int), np.ones(3)], {}, "shape of updates"),
        (
            "scatter_nd",
            [np.ones(3), np.ones((2, 1), int), np.ones(2)],
            {"reduction": "xor"},
            "one of",
        ),
        (
            "top_k",
            [np.ones(3)],
            {"k": 4, "axis": 0, "largest": True},
            r"k must be in 0\.\.3, got 4",
        ),
    ],
)
def test_refusals(name, arrays, attrs, message, run_op):
    with pytest.raises(InvalidGraph, match=message):
        run_op(name, *arrays, **attrs)
