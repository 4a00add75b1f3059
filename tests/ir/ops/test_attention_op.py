"""Attention and RMS norm: their references, and what is refused."""

from __future__ import annotations

import numpy as np
import pytest

from planish.ir.errors import InvalidGraph
from planish.ir.ops.attention import dense

SIZES = (1, 2, 3, 4, 5, 6)
ATTRS = {"sizes": SIZES, "q": dense((1, 2, 3, 5)), "k": dense((1, 2, 4, 5))}
ATTRS |= {"v": dense((1, 2, 4, 6))}


def operands(rng):
    return [rng.standard_normal(s, np.float32) for s in ((1, 2, 3, 5), (1, 2, 4, 5), (1, 2, 4, 6))]


def softmax(x):
    powers = np.exp(x - x.max(-1, keepdims=True))
    return powers / powers.sum(-1, keepdims=True)


def test_attention(run_op, rng):
    q, k, v = operands(rng)
    mask = rng.standard_normal((1, 1, 3, 4), np.float32)
    scores = q @ k.swapaxes(2, 3) * 0.3 + mask
    found = run_op("attention", q, k, v, mask, scale=0.3, **ATTRS)
    np.testing.assert_allclose(found, softmax(scores) @ v, rtol=1e-5, atol=1e-6)
    scores[..., np.triu_indices(3, 2, 4)[0], np.triu_indices(3, 2, 4)[1]] = -np.inf
    found = run_op("attention", q, k, v, mask, scale=0.3, causal=1, heads_inside=True, **ATTRS)
    expected = (softmax(scores) @ v).swapaxes(1, 2)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


def test_rows_that_see_nothing(run_op, rng):
    q, k, v = operands(rng)
    mask = np.zeros((1, 1, 3, 1), np.float32)
    mask[0, 0, 1] = -np.inf
    assert np.isnan(run_op("attention", q, k, v, mask, **ATTRS)[0, :, 1]).all()
    guarded = run_op("attention", q, k, v, mask, guarded=True, **ATTRS)
    assert not guarded[0, :, 1].any()
    assert guarded[0, :, 0].all()


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"sizes": (1, 2, 3)}, r"sizes must be \(batch, heads, .*, got \(1, 2, 3\)"),
        ({"group": 3}, "group must divide 2 heads, got .* and 3"),
        ({"k": (1, *ATTRS["k"][1:])}, "k=.* reads element 40 of float32"),
        ({"q": (0, 1, 1, -1, 1)}, "q must be an offset and four strides, none negative"),
    ],
)
def test_attention_refuses(changed, message, run_op, rng):
    with pytest.raises(InvalidGraph, match=message):
        run_op("attention", *operands(rng), **ATTRS | changed)


def test_attention_refuses_a_mask_that_does_not_broadcast(run_op, rng):
    mask = np.zeros((1, 3, 1, 1), np.float32)
    with pytest.raises(InvalidGraph, match=r"do(es)? not broadcast"):
        run_op("attention", *operands(rng), mask, **ATTRS)


@pytest.mark.parametrize("axis", [1, 2])
def test_rms_norm(axis, run_op, rng):
    x = rng.standard_normal((3, 5, 40), np.float32) * 2 + 1
    scale = rng.standard_normal(x.shape[axis:], np.float32)
    mean = np.square(x).mean(tuple(range(axis, 3)), keepdims=True)
    found = run_op("rms_norm", x, scale, axis=axis, epsilon=1e-3)
    np.testing.assert_allclose(found, x / np.sqrt(mean + 1e-3) * scale, rtol=1e-5, atol=1e-6)
