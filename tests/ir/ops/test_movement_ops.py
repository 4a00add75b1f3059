"""Movement ops against ONNX or numpy, and their symbolic shapes."""

from __future__ import annotations

import numpy as np
import pytest

from planish.ir.dim import Dim
from planish.ir.errors import InvalidGraph
from planish.ir.ops import op_def
from planish.ir.types import TensorType, tensor

N = Dim.symbol("n", 1)


def infer(name: str, *shapes: tuple, **attrs: object) -> TensorType:
    complete = {key: spec.default for key, spec in op_def(name).attrs.items()} | attrs
    return op_def(name).infer([tensor("float32", shape) for shape in shapes], complete)[0]


@pytest.mark.parametrize("dtype", ["float32", "int64", "bool"])
def test_reshape_transpose_and_broadcast(dtype, run_op, rng):
    x = rng.integers(0, 2, (4, 1, 6)).astype(dtype)
    np.testing.assert_array_equal(run_op("reshape", x, shape=(3, 8)), x.reshape(3, 8))
    np.testing.assert_array_equal(run_op("transpose", x, perm=(2, 0, 1)), x.transpose(2, 0, 1))
    expected = np.broadcast_to(x, (2, 4, 5, 6))
    np.testing.assert_array_equal(run_op("broadcast_to", x, shape=(2, 4, 5, 6)), expected)


SLICES = {
    "plain": ((1, 0, 2), (4, 6, 5), (1, 2, 3)),
    "backwards": ((4, 5, 6), (-1, 0, 2), (-1, -2, -3)),
    "empty": ((2, 0, 0), (2, 6, 7), (1, 1, 1)),
    "all": ((0, 0, 0), (5, 6, 7), (1, 1, 1)),
}


@pytest.mark.parametrize(("starts", "stops", "steps"), SLICES.values(), ids=SLICES.keys())
def test_slice(starts, stops, steps, run_op, onnx_op, rng):
    x = rng.standard_normal((5, 6, 7), np.float32)
    far = [stop if stop >= 0 else -100 for stop in stops]  # ONNX's -1 is the last element
    axes = np.arange(3)
    expected = onnx_op("Slice", x, np.array(starts), np.array(far), axes, np.array(steps))
    found = run_op("slice", x, starts=starts, stops=stops, steps=steps)
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_concat(axis, run_op, rng):
    shapes = [[2, 3, 4] for _ in range(3)]
    for i, shape in enumerate(shapes):
        shape[axis] = i + 1
    arrays = [rng.standard_normal(shape, np.float32) for shape in shapes]
    np.testing.assert_array_equal(
        run_op("concat", *arrays, axis=axis), np.concatenate(arrays, axis)
    )
    np.testing.assert_array_equal(run_op("concat", arrays[0], axis=axis), arrays[0])


@pytest.mark.parametrize("mode", ["constant", "reflect", "edge", "wrap"])
@pytest.mark.parametrize("dtype", ["float32", "int32"])
def test_pad(mode, dtype, run_op, onnx_op, rng):
    x = (rng.standard_normal((2, 5, 6)) * 9).astype(dtype)
    before, after = (0, 2, 4), (1 if mode != "reflect" else 0, 4, 3)
    value = np.array(7, dtype)
    fill = [value] if mode == "constant" else []
    expected = onnx_op("Pad", x, np.array([*before, *after]), *fill, mode=mode)
    found = run_op("pad", x, before=before, after=after, mode=mode, value=7)
    np.testing.assert_array_equal(found, expected)


def test_pad_crops(run_op, onnx_op, rng):
    x = rng.standard_normal((5, 6), np.float32)
    expected = onnx_op(
        "Pad", x, np.array([-1, 2, -2, -3]), np.float32(1.5), mode="constant", faulty="onnx"
    )
    found = run_op("pad", x, before=(-1, 2), after=(-2, -3), value=1.5)
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize(("size", "block"), [(16, 8), (13, 4), (3, 8)])
@pytest.mark.parametrize("axis", [0, 1, 2])
def test_pack_and_unpack(size, block, axis, run_op, rng):
    shape = [2, 3, 4]
    shape[axis] = size
    x = rng.standard_normal(shape, np.float32)
    packed = run_op("pack", x, axis=axis, block=block)
    moved = np.moveaxis(x, axis, 0)
    for channel in range(size):
        row = np.take(packed, channel // block, axis)[..., channel % block]
        np.testing.assert_array_equal(row, moved[channel])
    assert packed.sum() == pytest.approx(x.sum(), abs=1e-4)  # the rest is zero
    found = run_op("unpack", packed, axis=axis, block=block, size=size)
    np.testing.assert_array_equal(found, x)


@pytest.mark.parametrize(("size", "segments", "block"), [(12, 3, 8), (10, 2, 4), (16, 2, 4)])
def test_segments_begin_with_a_block(size, segments, block, run_op, rng):
    x = rng.standard_normal((2, size, 3), np.float32)
    attrs = {"axis": 1, "block": block, "segments": segments}
    packed = run_op("pack", x, **attrs)
    apart = [run_op("pack", part, axis=1, block=block) for part in np.split(x, segments, axis=1)]
    np.testing.assert_array_equal(packed, np.concatenate(apart, axis=1))
    np.testing.assert_array_equal(run_op("unpack", packed, size=size, **attrs), x)


def test_symbolic_shapes():
    assert infer("reshape", (N, 4, 6), shape=(N * 2, 12)).shape == (2 * N, 12)
    assert infer("transpose", (N, 4, 6), perm=(1, 2, 0)).shape == (4, 6, N)
    assert infer("broadcast_to", (N, 1), shape=(3, N, 5)).shape == (3, N, 5)
    assert infer("concat", (N, 4), (2, 4), (N, 4), axis=0).shape == (2 * N + 2, 4)
    assert infer("concat", (N, 4), (3, 2), axis=1).shape == (3, 6)
    assert infer("pad", (N, 3), before=(1, 0), after=(2, 0)).shape == (N + 3, 3)
    assert infer("pack", (N, 3), axis=0, block=8).shape == ((N + 7) // 8, 3, 8)
    assert infer("unpack", ((N + 7) // 8, 3, 8), axis=0, block=8, size=N).shape == (N, 3)
    sliced = infer("slice", (N, 9), starts=(0, 8), stops=(N, -1), steps=(2, -1))
    assert sliced.shape == ((N + 1) // 2, 9)
    backwards = infer("slice", (N,), starts=(N - 1,), stops=(-1,), steps=(-1,))
    assert backwards.shape == (N,)


REFUSALS = [
    ("reshape", (2, 3), {"shape": (4, 2)}, r"float32\[2, 3\] and \[4, 2\] must agree, got 6 and 8"),
    ("reshape", (2, 3), {"shape": (-1, 2)}, "shape must be resolved"),
    ("reshape", (N, 3), {"shape": (N + 1, 3)}, "must agree, got 3[*]n and 3[*]n [+] 3"),
    ("transpose", (2, 3), {"perm": (0, 0)}, "permutation of 2 axes"),
    ("broadcast_to", (2, 3), {"shape": (2, 4)}, "do not broadcast"),
    ("broadcast_to", (2, 3), {"shape": (3,)}, "does not broadcast to"),
    (
        "slice",
        (4,),
        {"starts": (0,), "stops": (5,), "steps": (1,)},
        "0:5:1 leaves a dimension of 4",
    ),
    ("slice", (4,), {"starts": (0,), "stops": (4,), "steps": (0,)}, "must not be 0"),
    ("concat", (2, 3), {"axis": 2}, "axis must be in 0..1 for rank 2, got 2"),
    ("pad", (4,), {"before": (4,), "after": (0,), "mode": "reflect"}, "too small to reflect 4"),
    (
        "pad",
        (4,),
        {"before": (-1,), "after": (0,), "mode": "edge"},
        "only mode 'constant' can crop",
    ),
    ("pad", (4,), {"before": (-3,), "after": (-3,)}, "cropped by more than it has"),
    ("pad", (4,), {"before": (-6,), "after": (5,)}, "cropped by more than it has"),
    ("pad", (4,), {"before": (0,), "after": (0,), "mode": "mirror"}, "mode must be one of"),
    ("pack", (4,), {"axis": 0, "block": 0}, "block must be at least 1"),
    ("pack", (9,), {"axis": 0, "block": 4, "segments": 2}, "9 elements .* into 2 segments"),
    ("pack", (9,), {"axis": 0, "block": 4, "segments": 0}, "9 elements .* into 0 segments"),
    ("unpack", (2, 4), {"axis": 0, "block": 4, "size": 9}, "must agree, got 2 and 3"),
    (
        "unpack",
        (2, 4),
        {"axis": 0, "block": 4, "segments": 4, "size": 8},
        "must agree, got 2 and 4",
    ),
]


@pytest.mark.parametrize(("name", "shape", "attrs", "message"), REFUSALS)
def test_refusals(name, shape, attrs, message):
    with pytest.raises(InvalidGraph, match=message):
        infer(name, shape, **attrs)


def test_concat_refuses_other_shapes():
    with pytest.raises(
        InvalidGraph, match="dimensions other than the axis must agree, got 3 and 4"
    ):
        infer("concat", (2, 3), (2, 4), axis=0)
    with pytest.raises(InvalidGraph, match="equal ranks"):
        infer("concat", (2, 3), (2,), axis=0)
