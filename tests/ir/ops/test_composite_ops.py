"""Softmax, normalisations and resize against ONNX."""

from __future__ import annotations

import numpy as np
import pytest

from planish.ir.errors import InvalidGraph


@pytest.mark.parametrize(
    ("name", "onnx_name"), [("softmax", "Softmax"), ("log_softmax", "LogSoftmax")]
)
@pytest.mark.parametrize("axis", [0, 1, 2])
def test_softmax(name, onnx_name, axis, run_op, onnx_op, rng):
    x = rng.standard_normal((3, 4, 50), np.float32) * 30
    faulty = "onnx" if name == "log_softmax" else None  # log of a softmax that underflowed
    expected = onnx_op(onnx_name, x, axis=axis, faulty=faulty)
    np.testing.assert_allclose(run_op(name, x, axis=axis), expected, rtol=1e-4, atol=1e-6)


def test_softmax_of_masked_rows(run_op):
    x = np.array([[0, -np.inf, 0], [-np.inf] * 3, [1, np.nan, 1]], np.float32)
    expected = [[0.5, 0, 0.5], [np.nan] * 3, [np.nan] * 3]
    np.testing.assert_array_equal(run_op("softmax", x, axis=1), np.float32(expected))


@pytest.mark.parametrize("axis", [1, 2])
def test_layer_norm(axis, run_op, onnx_op, rng):
    x = rng.standard_normal((3, 5, 40), np.float32) * 2 + 10
    scale = rng.standard_normal(x.shape[axis:], np.float32)
    bias = rng.standard_normal(x.shape[axis:], np.float32)
    expected = onnx_op("LayerNormalization", x, scale, bias, axis=axis, epsilon=1e-3)
    found = run_op("layer_norm", x, scale, bias, axis=axis, epsilon=1e-3)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=2e-5)


@pytest.mark.parametrize("shape", [(4, 6), (2, 6, 5, 7)], ids=str)
def test_batch_norm(shape, run_op, onnx_op, rng):
    x = rng.standard_normal(shape, np.float32)
    scale, bias, mean = rng.standard_normal((3, 6), np.float32)
    variance = rng.uniform(0.1, 2, 6).astype(np.float32)
    expected = onnx_op("BatchNormalization", x, scale, bias, mean, variance, epsilon=1e-3)
    found = run_op("batch_norm", x, scale, bias, mean, variance, epsilon=1e-3)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


COORDINATES = ["half_pixel", "pytorch_half_pixel", "align_corners", "asymmetric"]


def resize_both(run_op, onnx_op, x, scales=None, sizes=None, faulty=None, **attrs):
    """Our result and ONNX's, by scales or by sizes."""
    names = {"coordinate": "coordinate_transformation_mode", "nearest": "nearest_mode"}
    names |= {"cubic_a": "cubic_coeff_a"}
    theirs = {names.get(key, key): value for key, value in attrs.items()}
    theirs = {key: int(value) if value is True else value for key, value in theirs.items()}
    if sizes is None:
        factors = np.array(scales, np.float32)
        expected = onnx_op("Resize", x, None, factors, faulty=faulty, **theirs)
        sizes = [int(np.floor(n * f)) for n, f in zip(x.shape, scales)]
    else:
        expected = onnx_op("Resize", x, None, None, np.array(sizes), faulty=faulty, **theirs)
        scales = [m / n for m, n in zip(sizes, x.shape)]
    found = run_op("resize", x, sizes=tuple(sizes), scales=tuple(map(float, scales)), **attrs)
    return found, expected


@pytest.mark.parametrize("coordinate", COORDINATES)
@pytest.mark.parametrize("mode", ["linear", "cubic"])
@pytest.mark.parametrize("sizes", [(1, 2, 9, 15), (1, 2, 4, 3), (1, 2, 1, 10)], ids=str)
def test_resize_to_sizes(coordinate, mode, sizes, run_op, onnx_op, rng):
    x = rng.standard_normal((1, 2, 6, 5), np.float32)
    # for one output element the specification says place 0, onnx's reference -0.5
    faulty = "onnx" if coordinate == "pytorch_half_pixel" and 1 in sizes[2:] else None
    found, expected = resize_both(
        run_op, onnx_op, x, sizes=sizes, mode=mode, coordinate=coordinate, faulty=faulty
    )
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("coordinate", COORDINATES)
@pytest.mark.parametrize("nearest", ["round_prefer_floor", "round_prefer_ceil", "floor", "ceil"])
@pytest.mark.parametrize("scales", [(1, 1, 2, 3), (1, 1, 0.5, 0.75), (1, 1, 1.5, 2.5)], ids=str)
def test_resize_nearest(coordinate, nearest, scales, run_op, onnx_op, rng):
    x = rng.standard_normal((1, 2, 6, 8), np.float32)
    found, expected = resize_both(
        run_op, onnx_op, x, scales=scales, mode="nearest", coordinate=coordinate, nearest=nearest
    )
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("mode", ["linear", "cubic"])
@pytest.mark.parametrize("scales", [(1, 1, 2.0, 2.0), (1, 1, 0.6, 1.7)], ids=str)
def test_resize_by_scales(mode, scales, run_op, onnx_op, rng):
    x = rng.standard_normal((1, 2, 7, 9), np.float32)
    found, expected = resize_both(
        run_op, onnx_op, x, scales=scales, mode=mode, coordinate="half_pixel"
    )
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


def test_resize_cubic_outside_excluded(run_op, onnx_op, rng):
    x = rng.standard_normal((1, 1, 5, 6), np.float32)
    found, expected = resize_both(
        run_op,
        onnx_op,
        x,
        sizes=(1, 1, 9, 4),
        mode="cubic",
        coordinate="half_pixel",
        cubic_a=-0.5,
        exclude_outside=True,
    )
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


def test_resize_half_pixel_symmetric(run_op, onnx_op, rng):
    x = rng.standard_normal((1, 1, 1, 7), np.float32)
    found, expected = resize_both(
        run_op,
        onnx_op,
        x,
        scales=(1, 1, 1, 1.3),
        mode="linear",
        coordinate="half_pixel_symmetric",
    )
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"mode": "area"}, "mode must be one of nearest, linear, cubic, got 'area'"),
        ({"coordinate": "bottom_up"}, "coordinate must be one of"),
        ({"roi": (0.0, 1.0)}, "roi must have 4 entries"),
        ({"sizes": (2, 0)}, "must be positive"),
        ({"sizes": (2,)}, "sizes must have 2 entries"),
    ],
)
def test_resize_refusals(change, message, run_op):
    attrs = {"sizes": (4, 6), "scales": (2.0, 2.0), "mode": "linear", "coordinate": "half_pixel"}
    with pytest.raises(InvalidGraph, match=message):
        run_op("resize", np.ones((2, 3), np.float32), **attrs | change)


def test_refusals(run_op):
    x = np.ones((2, 3), np.float32)
    with pytest.raises(
        InvalidGraph, match="normalised dimensions and parameters must agree, got 3"
    ):
        run_op("layer_norm", x, x[0, :2], x[0, :2], axis=1, epsilon=1e-5)
    with pytest.raises(InvalidGraph, match="channels and parameters must agree, got 3 and 2"):
        run_op("batch_norm", x, *[x[:, 0]] * 4, epsilon=1e-5)
    with pytest.raises(InvalidGraph, match="needs floating-point"):
        run_op("softmax", np.ones(3, int), axis=0)
