"""Recurrent cells against ONNX's LSTM, GRU and RNN."""

from __future__ import annotations

import numpy as np
import pytest

from planish.ir.errors import InvalidGraph

T, B, I, H = 5, 3, 4, 6  # noqa: E741  time, batch, input and hidden size


def weights(rng, gates):
    """x[T, B, I], W[1, gH, I], R[1, gH, H], biases[1, 2gH], h0[1, B, H]."""
    shapes = [(T, B, I), (1, gates * H, I), (1, gates * H, H), (1, 2 * gates * H), (1, B, H)]
    return [rng.standard_normal(shape).astype(np.float32) * 0.7 for shape in shapes]


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("peepholes", [False, True])
def test_lstm(reverse, peepholes, run_op, onnx_op, rng):
    x, w, r, bias, h0 = weights(rng, 4)
    c0 = rng.standard_normal((1, B, H), np.float32)
    p = rng.standard_normal((1, 3 * H), np.float32) * np.float32(peepholes)
    direction = "reverse" if reverse else "forward"
    y, h, c = onnx_op(
        "LSTM",
        *(x, w, r, bias, None, h0, c0, p),
        results=3,
        hidden_size=H,
        direction=direction,
        faulty="onnx" if reverse or peepholes else None,
    )
    gates = x @ w[0].T + bias[0, : 4 * H] + bias[0, 4 * H :]
    found = run_op("lstm", gates, r[0], h0[0], c0[0], p[0], reverse=reverse)
    for ours, theirs in zip(found, (y[:, 0], h[0], c[0])):
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("linear", [False, True])
def test_gru(reverse, linear, run_op, onnx_op, rng):
    x, w, r, bias, h0 = weights(rng, 3)
    direction = "reverse" if reverse else "forward"
    y, h = onnx_op(
        "GRU",
        *(x, w, r, bias, None, h0),
        results=2,
        hidden_size=H,
        direction=direction,
        linear_before_reset=int(linear),
        faulty="onnx" if reverse else None,
    )
    gates = x @ w[0].T + bias[0, : 3 * H]
    found = run_op(
        "gru", gates, r[0], bias[0, 3 * H :], h0[0], reverse=reverse, linear_before_reset=linear
    )
    for ours, theirs in zip(found, (y[:, 0], h[0])):
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("activation", ["tanh", "relu"])
def test_rnn(reverse, activation, run_op, onnx_op, rng):
    x, w, r, bias, h0 = weights(rng, 1)
    direction = "reverse" if reverse else "forward"
    y, h = onnx_op(
        "RNN",
        *(x, w, r, bias, None, h0),
        results=2,
        hidden_size=H,
        direction=direction,
        activations=[activation.title()],
        faulty="onnx" if reverse or activation == "relu" else None,
    )
    gates = x @ w[0].T + bias[0, :H] + bias[0, H:]
    found = run_op("rnn", gates, r[0], h0[0], reverse=reverse, activation=activation)
    for ours, theirs in zip(found, (y[:, 0], h[0])):
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("name", "shapes", "message"),
    [
        ("lstm", [(T, B, 3 * H), (4 * H, H), (B, H), (B, H), (3 * H,)], "the gates' width and 4"),
        ("lstm", [(T, B, 4 * H), (4 * H, H), (B, H), (1, H), (3 * H,)], "the shape of c0"),
        ("lstm", [(T, B, 4 * H), (4 * H, H), (B, H), (B, H), (H,)], "the peephole weights"),
        ("gru", [(T, B, 3 * H), (3 * H, H), (2 * H,), (B, H)], "the recurrence bias"),
        ("rnn", [(T, H), (H, H), (B, H)], "must have rank 3"),
    ],
)
def test_refusals(name, shapes, message, run_op):
    with pytest.raises(InvalidGraph, match=message):
        run_op(name, *(np.ones(shape, np.float32) for shape in shapes))
