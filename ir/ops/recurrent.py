"""Recurrent cells over a sequence; the products with the inputs are a matmul before them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np

from planish.ir.errors import InvalidGraph
from planish.ir.graph import Attrs
from planish.ir.op import AttrSpec, Axis, OpDef, OpKind, Types
from planish.ir.ops import shapes
from planish.ir.ops.attributes import NO
from planish.ir.ops.elementwise import sigmoid
from planish.ir.ops.precision import narrow, widen
from planish.ir.types import TensorType

Arrays = Sequence[np.ndarray]

_ACTIVATIONS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "tanh": np.tanh,
    "relu": lambda x: np.maximum(x, 0),
}


def _infer_cell(inputs: Types, gates: int, states: int) -> tuple[TensorType, ...]:
    """y and the final states, from gates_x[T, B, gates·H] and r[gates·H, H]."""
    dtype = shapes.float_dtype(inputs)
    gates_x, r = inputs[:2]
    shapes.need_rank(gates_x, 3, "the input's part of the gates")
    shapes.need_rank(r, 2, "the recurrence weights")
    hidden = r.shape[1]
    if not isinstance(hidden, int):
        raise InvalidGraph(f"static recurrence weights are needed, got {r}")
    length, batch, width = gates_x.shape
    shapes.unify(width, gates * hidden, f"the gates' width and {gates} times the hidden size")
    shapes.unify(r.shape[0], gates * hidden, "the rows of the recurrence weights and the gates")
    state = TensorType(dtype, (batch, hidden))
    return (TensorType(dtype, (length, batch, hidden)),) + (state,) * states


def _need_state(state: TensorType, like: TensorType, what: str) -> None:
    shapes.unify_shapes(like.shape, state.shape, f"the shape of {what} and [batch, hidden]")


def _need_vector(vector: TensorType, count: int, state: TensorType, what: str) -> None:
    shapes.unify_shapes((count * state.shape[1],), vector.shape, f"the size of {what}")


def _steps(length: int, reverse: bool) -> Iterator[int]:
    return iter(range(length - 1, -1, -1) if reverse else range(length))


def _infer_lstm(inputs: Types, attrs: Attrs) -> tuple[TensorType, ...]:
    outputs = _infer_cell(inputs, 4, 2)
    for state, what in zip(inputs[2:4], ("h0", "c0")):
        _need_state(state, outputs[1], what)
    _need_vector(inputs[4], 3, outputs[1], "the peephole weights")
    return outputs


def _lstm(arrays: Arrays, attrs: Attrs) -> tuple[np.ndarray, ...]:
    gates_x, r, h, c, peephole = map(widen, arrays)
    hidden = r.shape[1]
    p_i, p_o, p_f = np.split(peephole, 3)
    y = np.empty((*gates_x.shape[:2], hidden), gates_x.dtype)
    for t in _steps(gates_x.shape[0], attrs["reverse"]):
        i, o, f, g = np.split(gates_x[t] + h @ r.T, 4, axis=1)
        c = sigmoid(f + p_f * c) * c + sigmoid(i + p_i * c) * np.tanh(g)
        h = sigmoid(o + p_o * c) * np.tanh(c)
        y[t] = h
    return _rounded(arrays[0].dtype, y, h, c)


def _rounded(dtype: np.dtype, *arrays: np.ndarray) -> tuple[np.ndarray, ...]:
    return tuple(narrow(array, dtype) for array in arrays)


def _infer_gru(inputs: Types, attrs: Attrs) -> tuple[TensorType, ...]:
    outputs = _infer_cell(inputs, 3, 1)
    _need_vector(inputs[2], 3, outputs[1], "the recurrence bias")
    _need_state(inputs[3], outputs[1], "h0")
    return outputs


def _gru(arrays: Arrays, attrs: Attrs) -> tuple[np.ndarray, ...]:
    gates_x, r, bias, h = map(widen, arrays)
    hidden = r.shape[1]
    y = np.empty((*gates_x.shape[:2], hidden), gates_x.dtype)
    r_zr, r_h = r[: 2 * hidden], r[2 * hidden :]
    b_zr, b_h = bias[: 2 * hidden], bias[2 * hidden :]
    for t in _steps(gates_x.shape[0], attrs["reverse"]):
        x_zr, x_h = gates_x[t, :, : 2 * hidden], gates_x[t, :, 2 * hidden :]
        z, reset = np.split(sigmoid(x_zr + h @ r_zr.T + b_zr), 2, axis=1)
        if attrs["linear_before_reset"]:
            candidate = np.tanh(x_h + reset * (h @ r_h.T + b_h))
        else:
            candidate = np.tanh(x_h + (reset * h) @ r_h.T + b_h)
        h = (1 - z) * candidate + z * h
        y[t] = h
    return _rounded(arrays[0].dtype, y, h)


def _infer_rnn(inputs: Types, attrs: Attrs) -> tuple[TensorType, ...]:
    outputs = _infer_cell(inputs, 1, 1)
    _need_state(inputs[2], outputs[1], "h0")
    if attrs["activation"] not in _ACTIVATIONS:
        known = ", ".join(_ACTIVATIONS)
        raise InvalidGraph(f"activation must be one of {known}, got '{attrs['activation']}'")
    return outputs


def _rnn(arrays: Arrays, attrs: Attrs) -> tuple[np.ndarray, ...]:
    gates_x, r, h = map(widen, arrays)
    activation = _ACTIVATIONS[attrs["activation"]]
    y = np.empty(gates_x.shape, gates_x.dtype)
    for t in _steps(gates_x.shape[0], attrs["reverse"]):
        h = activation(gates_x[t] + h @ r.T)
        y[t] = h
    return _rounded(arrays[0].dtype, y, h)


def _flops(inputs: Types, outputs: Types, attrs: Attrs) -> int:
    """The recurrent products, and about ten operations for each gate's element."""
    length, batch, width = inputs[0].static_shape
    return length * batch * width * (2 * inputs[1].static_shape[1] + 10)


def _loops(inputs: Types, outputs: Types, attrs: Attrs) -> tuple[Axis, ...]:
    """t (in sequence), b, h | k over the previous hidden state."""
    length, batch, hidden = outputs[0].static_shape
    return (Axis("t", length), Axis("b", batch), Axis("h", hidden), Axis("k", hidden, reduce=True))


_KIND = OpKind.EMITTED

OPS: tuple[OpDef, ...] = (
    OpDef(
        "lstm",
        "gates_x[T,B,4H] in order i,o,f,c, r[4H,H], h0[B,H], c0[B,H], peephole[3H] in order i,o,f "
        "→ y[T,B,H], h[B,H], c[B,H]; sigmoid and tanh",
        _KIND,
        (5, 5),
        _infer_lstm,
        _lstm,
        {"reverse": NO},
        _flops,
        _loops,
    ),
    OpDef(
        "gru",
        "gates_x[T,B,3H] in order z,r,h, r[3H,H], rb[3H], h0[B,H] → y[T,B,H], h[B,H]; "
        "sigmoid and tanh",
        _KIND,
        (4, 4),
        _infer_gru,
        _gru,
        {"reverse": NO, "linear_before_reset": NO},
        _flops,
        _loops,
    ),
    OpDef(
        "rnn",
        "gates_x[T,B,H], r[H,H], h0[B,H] → y[T,B,H], h[B,H]; tanh or relu",
        _KIND,
        (3, 3),
        _infer_rnn,
        _rnn,
        {"reverse": NO, "activation": AttrSpec((str,), "tanh")},
        _flops,
        _loops,
    ),
)
