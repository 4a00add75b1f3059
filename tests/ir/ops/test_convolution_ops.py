"""Convolutions and matrix products against ONNX, blocked forms against plain ones."""

from __future__ import annotations

import numpy as np
import pytest

from planish.ir.errors import InvalidGraph
from planish.ir.ops import convolution
from planish.ir.ops.movement import pack_array, unpack_array

#: data, weights, strides, dilations, before, after, groups
CONVOLUTIONS = {
    "3x3": ((2, 5, 9, 8), (7, 5, 3, 3), (1, 1), (1, 1), (1, 1), (1, 1), 1),
    "1x1": ((1, 6, 4, 5), (8, 6, 1, 1), (1, 1), (1, 1), (0, 0), (0, 0), 1),
    "strided": ((1, 3, 11, 14), (4, 3, 5, 3), (2, 3), (1, 1), (2, 0), (1, 2), 1),
    "dilated": ((1, 4, 12, 13), (6, 4, 3, 2), (1, 2), (2, 3), (2, 1), (2, 1), 1),
    "grouped": ((2, 6, 7, 7), (9, 2, 3, 3), (1, 1), (1, 1), (1, 1), (1, 1), 3),
    "depthwise": ((1, 8, 10, 9), (8, 1, 3, 3), (2, 2), (1, 1), (1, 0), (1, 2), 8),
    "multiplier": ((1, 4, 6, 6), (8, 1, 3, 3), (1, 1), (1, 1), (0, 0), (0, 0), 4),
    "1d": ((3, 4, 17), (5, 4, 4), (2,), (3,), (3,), (1,), 1),
    "3d": ((1, 3, 5, 6, 7), (4, 3, 2, 3, 3), (1, 2, 1), (1, 1, 2), (0, 1, 2), (1, 1, 2), 1),
}


@pytest.mark.parametrize("case", CONVOLUTIONS.values(), ids=CONVOLUTIONS.keys())
def test_conv(case, run_op, onnx_op, rng):
    shape, kernel, strides, dilations, before, after, groups = case
    x = rng.standard_normal(shape, np.float32)
    w = rng.standard_normal(kernel, np.float32)
    ours = run_op(
        "conv",
        x,
        w,
        strides=strides,
        dilations=dilations,
        before=before,
        after=after,
        groups=groups,
    )
    theirs = onnx_op(
        "Conv",
        x,
        w,
        strides=strides,
        dilations=dilations,
        pads=(*before, *after),
        group=groups,
    )
    np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-4)


def test_conv_in_strips_is_the_same(run_op, rng, monkeypatch):
    x = rng.standard_normal((2, 3, 13, 9), np.float32)
    w = rng.standard_normal((4, 3, 3, 3), np.float32)
    attrs = {"strides": (2, 1), "dilations": (1, 2), "before": (1, 1), "after": (1, 1), "groups": 1}
    whole = run_op("conv", x, w, **attrs)
    monkeypatch.setattr(convolution, "_COLUMN_BYTES", 3000)
    np.testing.assert_allclose(run_op("conv", x, w, **attrs), whole, rtol=1e-6, atol=1e-6)


#: data, weights, strides, dilations, before, after, output padding, groups
TRANSPOSED = {
    "unit": ((1, 3, 5, 4), (3, 6, 3, 3), (1, 1), (1, 1), (0, 0), (0, 0), (0, 0), 1),
    "doubling": ((2, 4, 5, 6), (4, 5, 2, 2), (2, 2), (1, 1), (0, 0), (0, 0), (0, 0), 1),
    "cropped": ((1, 4, 5, 6), (4, 2, 4, 3), (2, 2), (1, 1), (1, 0), (1, 2), (1, 0), 1),
    "dilated": ((1, 2, 4, 4), (2, 3, 3, 2), (3, 1), (2, 2), (1, 1), (0, 1), (0, 0), 1),
    "grouped": ((1, 6, 4, 4), (6, 2, 3, 3), (2, 2), (1, 1), (1, 1), (1, 1), (1, 1), 3),
    "1d": ((2, 3, 9), (3, 4, 5), (3,), (1,), (2,), (1,), (1,), 1),
}


@pytest.mark.parametrize("case", TRANSPOSED.values(), ids=TRANSPOSED.keys())
def test_conv_transpose(case, run_op, onnx_op, rng):
    shape, kernel, strides, dilations, before, after, extra, groups = case
    x = rng.standard_normal(shape, np.float32)
    w = rng.standard_normal(kernel, np.float32)
    ours = run_op(
        "conv_transpose",
        x,
        w,
        strides=strides,
        dilations=dilations,
        before=before,
        after=after,
        output_padding=extra,
        groups=groups,
    )
    theirs = onnx_op(
        "ConvTranspose",
        x,
        w,
        strides=strides,
        dilations=dilations,
        pads=(*before, *after),
        output_padding=extra,
        group=groups,
        faulty="onnx" if groups > 1 else None,  # takes one output channel of each group
    )
    np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("a", "b"),
    [((4, 5), (5, 6)), ((2, 3, 4, 5), (5, 6)), ((3, 1, 4, 5), (2, 5, 6)), ((1, 7), (7, 1))],
)
@pytest.mark.parametrize("dtype", ["float32", "float64", "int32", "int64", "uint32"])
def test_matmul(a, b, dtype, run_op, onnx_op, rng):
    x = (rng.standard_normal(a) * 20).astype(dtype)
    y = (rng.standard_normal(b) * 20).astype(dtype)
    np.testing.assert_allclose(
        run_op("matmul", x, y), onnx_op("MatMul", x, y), rtol=1e-4, atol=1e-4
    )


def test_integer_matmul_wraps_beyond_float64(run_op):
    big = np.full((2, 3), 2**40 + 1, np.int64)
    expected = np.matmul(big, big.T)
    assert np.array_equal(run_op("matmul", big, np.ascontiguousarray(big.T)), expected)
    eights = np.full((1, 200), 100, np.int8)
    assert run_op("matmul", eights, eights.T)[0, 0] == np.int64(200 * 100 * 100).astype(np.int8)


@pytest.mark.parametrize(("channels", "outputs", "ib", "ob"), [(16, 32, 8, 16), (6, 10, 4, 4)])
def test_blocked_conv_is_conv(channels, outputs, ib, ob, run_op, rng):
    x = rng.standard_normal((2, channels, 8, 9), np.float32)
    w = rng.standard_normal((outputs, channels, 3, 2), np.float32)
    window = {"strides": (2, 1), "dilations": (1, 2)}
    plain = run_op("conv", x, w, **window, before=(0, 0), after=(0, 0), groups=1)
    packed = run_op("pack", run_op("pack", w, axis=1, block=ib), axis=0, block=ob)
    blocked = run_op("blocked_conv", run_op("pack", x, axis=1, block=ib), packed, **window)
    result = run_op("unpack", blocked, axis=1, block=ob, size=outputs)
    np.testing.assert_allclose(result, plain, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("groups", "inputs", "outputs", "depth"),
    [(2, 8, 4, 4), (3, 5, 6, 4), (4, 3, 2, 1), (1, 6, 4, 2)],
)
def test_groups_of_blocked_conv_are_those_of_conv(groups, inputs, outputs, depth, run_op, rng):
    """Channels of a group, in segments of whole blocks of 4; weights `depth` of them at a time."""
    x = rng.standard_normal((2, groups * inputs, 7, 6), np.float32)
    w = rng.standard_normal((groups * outputs, inputs, 3, 1), np.float32)
    window = {"strides": (1, 2), "dilations": (2, 1)}
    plain = run_op("conv", x, w, **window, before=(0, 0), after=(0, 0), groups=groups)
    weights = pack_array(pack_array(w, 1, depth), 0, 4, groups)
    blocked = run_op("blocked_conv", pack_array(x, 1, 4, groups), weights, **window, groups=groups)
    np.testing.assert_allclose(
        unpack_array(blocked, 1, groups * outputs, groups), plain, rtol=1e-4, atol=1e-4
    )


@pytest.mark.parametrize(
    ("x", "w", "groups", "message"),
    [
        ((1, 4, 5, 5, 8), (3, 2, 1, 1, 8, 8), 2, "3 blocks .* do not divide into 2 groups"),
        (
            (1, 4, 5, 5, 8),
            (4, 4, 1, 1, 8, 8),
            2,
            "2 groups of 4 x 8 input channels are not 4 blocks of 8",
        ),
        ((1, 4, 5, 5, 8), (4, 4, 1, 1, 8, 8), 0, "4 blocks .* do not divide into 0 groups"),
    ],
)
def test_blocked_conv_refusals(x, w, groups, message, run_op, rng):
    arrays = (rng.standard_normal(shape, np.float32) for shape in (x, w))
    with pytest.raises(InvalidGraph, match=f"blocked_conv: .*{message}"):
        run_op("blocked_conv", *arrays, strides=(1, 1), dilations=(1, 1), groups=groups)


@pytest.mark.parametrize(("channels", "block"), [(16, 8), (10, 4)])
def test_blocked_depthwise_conv_is_conv(channels, block, run_op, rng):
    x = rng.standard_normal((1, channels, 8, 9), np.float32)
    w = rng.standard_normal((channels, 3, 3), np.float32)
    window = {"strides": (1, 2), "dilations": (2, 1)}
    plain = run_op("conv", x, w[:, None], **window, before=(0, 0), after=(0, 0), groups=channels)
    blocked = run_op(
        "blocked_depthwise_conv", pack_array(x, 1, block), pack_array(w, 0, block), **window
    )
    result = run_op("unpack", blocked, axis=1, block=block, size=channels)
    np.testing.assert_allclose(result, plain, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("n", "block"), [(32, 16), (21, 8)])
def test_packed_matmul_is_matmul(n, block, run_op, rng):
    a = rng.standard_normal((2, 3, 12), np.float32)
    b = rng.standard_normal((12, n), np.float32)
    packed = run_op("transpose", run_op("pack", b, axis=1, block=block), perm=(1, 0, 2))
    result = run_op("packed_matmul", a, packed, size=n)
    np.testing.assert_allclose(result, a @ b, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("name", "arrays", "attrs", "message"),
    [
        ("matmul", [(2, 3), (4, 5)], {}, "the reduced dimensions must agree, got 3 and 4"),
        ("matmul", [(3,), (3, 2)], {}, "at least two dimensions"),
        ("matmul", [(2, 4, 3), (3, 3, 2)], {}, "do not broadcast"),
        ("packed_matmul", [(2, 3), (2, 3, 8)], {"size": 17}, "does not hold 17 columns"),
    ],
)
def test_refusals(name, arrays, attrs, message, run_op, rng):
    with pytest.raises(InvalidGraph, match=message):
        run_op(name, *(rng.standard_normal(shape, np.float32) for shape in arrays), **attrs)


@pytest.mark.parametrize(
    ("shape", "kernel", "change", "message"),
    [
        (
            (1, 3, 5, 5),
            (4, 2, 3, 3),
            {},
            "input channels of data and weights must agree, got 3 and 2",
        ),
        ((1, 4, 5, 5), (3, 2, 3, 3), {"groups": 2}, "3 channels do not divide into 2 groups"),
        ((1, 2, 2, 5), (4, 2, 3, 3), {}, "window of 3 elements does not fit into 2 plus 0"),
        ((1, 2, 5, 5), (4, 2, 3, 3), {"strides": (1, 0)}, "strides must be at least 1"),
        ((1, 2, 5, 5), (4, 2, 3, 3), {"before": (1,)}, "before must have 2 entries"),
        ((1, 2), (4, 2), {}, "1, 2 or 3 spatial dimensions"),
    ],
)
def test_conv_refusals(shape, kernel, change, message, run_op, rng):
    attrs = dict.fromkeys(("strides", "dilations"), (1, 1)) | {"groups": 1}
    attrs |= dict.fromkeys(("before", "after"), (0, 0)) | change
    x, w = rng.standard_normal(shape, np.float32), rng.standard_normal(kernel, np.float32)
    with pytest.raises(InvalidGraph, match=f"conv: .*{message}"):
        run_op("conv", x, w, **attrs)
