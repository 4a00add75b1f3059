"""Winograd's convolution against the direct one, and what it refuses."""

from __future__ import annotations

import numpy as np
import pytest

from planish.ir.errors import InvalidGraph
from planish.ir.ops.movement import pack_array, unpack_array
from planish.ir.ops.winograd import transformed_weights


@pytest.mark.parametrize(("height", "width"), [(1, 1), (2, 2), (5, 4), (6, 9)])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_winograd_conv_is_conv(height, width, dtype, run_op, rng):
    x = rng.standard_normal((2, 8, height + 2, width + 2)).astype(dtype)
    w = rng.standard_normal((12, 8, 3, 3)).astype(dtype)
    window = dict.fromkeys(("strides", "dilations"), (1, 1))
    none = dict.fromkeys(("before", "after"), (0, 0))
    plain = run_op("conv", x, w, **window, **none, groups=1)
    u = transformed_weights(pack_array(pack_array(w, 1, 4), 0, 6))
    assert (u.dtype, u.shape) == (w.dtype, (2, 4, 4, 2, 4, 6))
    result = unpack_array(run_op("winograd_conv", pack_array(x, 1, 4), u), 1, 12)
    tolerance = 1e-5 if dtype == "float32" else 1e-12
    np.testing.assert_allclose(result, plain, rtol=tolerance, atol=10 * tolerance)


def test_transformed_weights_are_rounded_once(rng):
    """Weights of zero stay zero: they meet surplus channels, which hold anything."""
    w = rng.standard_normal((1, 1, 3, 3, 2, 2)).astype(np.float32)
    w[:, :, :, :, 1] = 0
    u = transformed_weights(w)
    wide = transformed_weights(w.astype(np.float64))
    np.testing.assert_array_equal(u, wide.astype(np.float32))
    assert not u[..., 1, :].any()


@pytest.mark.parametrize(
    ("x", "u", "dtype", "message"),
    [
        ((1, 2, 6, 6, 4), (3, 3, 3, 2, 4, 8), "float32", "of 4 x 4 are needed, got 3 x 3"),
        ((1, 2, 6, 6, 4), (3, 4, 4, 1, 4, 8), "float32", "channel blocks of data and weights"),
        ((1, 2, 6, 6, 4), (3, 4, 4, 2, 8, 8), "float32", "channels of a block in data and weig"),
        ((1, 2, 2, 6, 4), (3, 4, 4, 2, 4, 8), "float32", "window of 3 elements does not fit"),
        ((1, 2, 6, 6, 4), (3, 4, 4, 2, 4, 8), "int32", "of floating-point numbers, got int32"),
    ],
)
def test_refusals(x, u, dtype, message, run_op, rng):
    arrays = [rng.integers(-9, 9, shape).astype(dtype) for shape in (x, u)]
    with pytest.raises(InvalidGraph, match=f"winograd_conv: .*{message}"):
        run_op("winograd_conv", *arrays)
