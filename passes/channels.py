"""Constants along the output channels of convolutions and matrix products."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from planish.ir.builder import emit
from planish.ir.graph import Constant, Node, Value, constant
from planish.ir.types import TensorType
from planish.passes.rewrite import Refusal
from planish.passes.rounding import refuse_factor, refuse_overflow, round_weights

#: Ops that are linear in their second input, their weights.
LINEAR = ("conv", "conv_transpose", "matmul")


def reads_constant_weights(node: Node) -> bool:
    """True if the weights are a constant of a floating-point type."""
    weights = node.inputs[1]
    return isinstance(weights, Constant) and weights.type.dtype.is_float


def channel_dim(linear: Node) -> int:
    """The dimension of the output that the weights' output channels run along."""
    return linear.output.type.rank - 1 if linear.op == "matmul" else 1


def input_channel_dim(linear: Node) -> int:
    """The dimension of the first operand that the weights' input channels run along."""
    return linear.inputs[0].type.rank - 1 if linear.op == "matmul" else 1


def per_channel(data: np.ndarray, type_: TensorType, dim: int) -> np.ndarray | None:
    """`data` as float64[channels] if, broadcast to `type_`, it varies along `dim` only."""
    channels = type_.shape[dim]
    if data.ndim > type_.rank or not isinstance(channels, int):
        return None
    aligned = data.reshape((1,) * (type_.rank - data.ndim) + data.shape)
    if any(extent != 1 for i, extent in enumerate(aligned.shape) if i != dim):
        return None
    if aligned.shape[dim] not in (1, channels):
        return None
    return np.broadcast_to(aligned.reshape(-1).astype(np.float64), (channels,))


def along_channels(vector: np.ndarray, type_: TensorType, dim: int) -> Constant:
    """A constant of the element type of `type_` that broadcasts `vector` along `dim`."""
    shape = (-1,) + (1,) * (type_.rank - 1 - dim)
    with np.errstate(all="ignore"):
        return constant(vector.astype(type_.dtype.numpy).reshape(shape))


def add_along_channels(product: Value, vector: np.ndarray, dim: int) -> Value | Refusal:
    """The product plus float64[channels] along `dim`; a Refusal where that overflows."""
    refusal = refuse_overflow(vector, product.type.dtype)
    return refusal or emit("add", product, along_channels(vector, product.type, dim))


def scale_channels(linear: Node, factor: np.ndarray) -> Value | Refusal:
    """The same product with its output channels scaled by `factor`, float64[channels].

    The new weights are rounded once. A Refusal where `planish.passes.rounding` has one.
    """
    return _with_weights(linear, linear.inputs[0], factor, _scaled)


def scale_inputs(linear: Node, x: Value, factor: np.ndarray) -> Value | Refusal:
    """The product, a conv or matmul, of x with its input channels scaled by `factor`, float64.

    The new weights are rounded once. A Refusal where `planish.passes.rounding` has one.
    """
    return _with_weights(linear, x, factor, _scaled_inputs)


def _with_weights(
    linear: Node,
    x: Value,
    factor: np.ndarray,
    scaled: Callable[[Node, np.ndarray, np.ndarray], np.ndarray],
) -> Value | Refusal:
    weights = linear.inputs[1]
    assert isinstance(weights, Constant)
    refusal = refuse_factor(factor, weights.type.dtype)
    if refusal is not None:
        return refusal
    with np.errstate(all="ignore"):
        wide = scaled(linear, weights.data.astype(np.float64), factor)
    data = round_weights(wide, weights.type.dtype, _neighbours(linear))
    if isinstance(data, Refusal):
        return data
    return emit(linear.op, x, constant(data, weights.name), **linear.attrs)


def _neighbours(linear: Node) -> tuple[tuple[int, ...], ...]:
    """The axes along which the weights of an output channel lie, and those of an input channel."""
    rank = linear.inputs[1].type.rank
    if linear.op == "matmul":
        return (rank - 2,), (rank - 1,)
    window = tuple(range(2, rank))
    return (1, *window), (0, *window)


def largest_row(linear: Node) -> float:
    """The largest Euclidean norm of the weights of one output channel."""
    weights = linear.inputs[1]
    assert isinstance(weights, Constant)
    outputs = {"matmul": weights.type.rank - 1, "conv": 0, "conv_transpose": 1}[linear.op]
    others = tuple(axis for axis in range(weights.type.rank) if axis != outputs)
    with np.errstate(all="ignore"):
        squares = np.square(weights.data.astype(np.float64)).sum(axis=others)
    return float(np.sqrt(squares.max(initial=0.0)))


def response(linear: Node, addend: np.ndarray) -> np.ndarray:
    """What a conv without padding, or a matmul, makes of one number for each input channel.

    float64[output channels]; the weights of a matmul are one matrix.
    """
    weights = linear.inputs[1]
    assert isinstance(weights, Constant)
    with np.errstate(all="ignore"):
        terms = weights.data.astype(np.float64) * _along_inputs(linear, addend)
        axes = (0,) if linear.op == "matmul" else tuple(range(1, terms.ndim))
        return np.asarray(terms.sum(axes))


def _along_inputs(linear: Node, vector: np.ndarray) -> np.ndarray:
    """One number for each input channel, so that it broadcasts to the weights."""
    weights = linear.inputs[1]
    if linear.op == "matmul":  # [K, N]
        return vector[:, None]
    groups = linear.attrs["groups"]  # [O, C/groups, *K]; the O/groups rows of a group together
    rows = np.repeat(vector.reshape(groups, -1), weights.type.static_shape[0] // groups, axis=0)
    return rows.reshape(*rows.shape, *(1,) * (weights.type.rank - 2))


def _scaled(linear: Node, weights: np.ndarray, factor: np.ndarray) -> np.ndarray:
    if linear.op == "matmul":
        return np.asarray(weights * factor)
    if linear.op == "conv":
        return np.asarray(weights * factor.reshape(-1, *(1,) * (weights.ndim - 1)))
    groups = linear.attrs["groups"]  # weights [C, O/groups, *K]: a group's channels stand together
    grouped = weights.reshape(groups, -1, *weights.shape[1:])
    spread = factor.reshape(groups, 1, -1, *(1,) * (weights.ndim - 2))
    return np.asarray(grouped * spread).reshape(weights.shape)


def _scaled_inputs(linear: Node, weights: np.ndarray, factor: np.ndarray) -> np.ndarray:
    return np.asarray(weights * _along_inputs(linear, factor))
