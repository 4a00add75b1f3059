"""Several stages over the same rows: softmax and normalisations."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from planish.ir.graph import Attrs
from planish.ir.op import Axis, OpDef, OpKind, Types
from planish.ir.ops import shapes
from planish.ir.ops.attributes import REQUIRED_FLOAT, REQUIRED_INT
from planish.ir.ops.precision import rounded
from planish.ir.types import TensorType

Arrays = Sequence[np.ndarray]


def _infer_softmax(inputs: Types, attrs: Attrs) -> tuple[TensorType, ...]:
    shapes.float_dtype(inputs)
    shapes.axis_of(attrs, inputs[0].rank)
    return (inputs[0],)


def _softmax(arrays: Arrays, attrs: Attrs) -> np.ndarray:
    shifted = _shifted(arrays[0], attrs["axis"])
    powers = np.exp(shifted)
    return np.asarray(powers / powers.sum(attrs["axis"], keepdims=True))


def _log_softmax(arrays: Arrays, attrs: Attrs) -> np.ndarray:
    shifted = _shifted(arrays[0], attrs["axis"])
    return np.asarray(shifted - np.log(np.exp(shifted).sum(attrs["axis"], keepdims=True)))


def _shifted(x: np.ndarray, axis: int) -> np.ndarray:
    """x less its maximum, so that exp cannot overflow; in float64 as all sums here."""
    wide = x.astype(np.float64)
    return np.asarray(wide - wide.max(axis, keepdims=True, initial=-np.inf))


def _softmax_flops(inputs: Types, outputs: Types, attrs: Attrs) -> int:
    """Maximum, difference, exponential, sum, quotient."""
    return 5 * inputs[0].elements


def _softmax_loops(inputs: Types, outputs: Types, attrs: Attrs) -> tuple[Axis, ...]:
    """The output's loops, and r0 for the passes over the axis."""
    extent = inputs[0].static_shape[attrs["axis"]]
    return shapes.output_loops(outputs[0]) + shapes.reduce_loops((extent,))


def _infer_layer_norm(inputs: Types, attrs: Attrs) -> tuple[TensorType, ...]:
    x, scale, bias = inputs
    shapes.float_dtype(inputs)
    expected = x.shape[shapes.axis_of(attrs, x.rank) :]
    for parameter in (scale, bias):
        shapes.unify_shapes(expected, parameter.shape, "normalised dimensions and parameters")
    return (x,)


def _layer_norm(arrays: Arrays, attrs: Attrs) -> np.ndarray:
    x, scale, bias = (array.astype(np.float64) for array in arrays)
    axes = tuple(range(attrs["axis"], x.ndim))
    centred = x - x.mean(axes, keepdims=True)
    variance = (centred * centred).mean(axes, keepdims=True)
    return np.asarray(centred / np.sqrt(variance + attrs["epsilon"]) * scale + bias)


def _infer_rms_norm(inputs: Types, attrs: Attrs) -> tuple[TensorType, ...]:
    x, scale = inputs
    shapes.float_dtype(inputs)
    expected = x.shape[shapes.axis_of(attrs, x.rank) :]
    shapes.unify_shapes(expected, scale.shape, "normalised dimensions and parameters")
    return (x,)


def _rms_norm(arrays: Arrays, attrs: Attrs) -> np.ndarray:
    x, scale = (array.astype(np.float64) for array in arrays)
    mean = (x * x).mean(tuple(range(attrs["axis"], x.ndim)), keepdims=True)
    return np.asarray(x / np.sqrt(mean + attrs["epsilon"]) * scale)


def _rms_norm_flops(inputs: Types, outputs: Types, attrs: Attrs) -> int:
    """Square and sum, quotient, scale."""
    return 4 * inputs[0].elements


def _layer_norm_flops(inputs: Types, outputs: Types, attrs: Attrs) -> int:
    """Sum, difference, square and sum, quotient, scale and bias."""
    return 7 * inputs[0].elements


def _layer_norm_loops(inputs: Types, outputs: Types, attrs: Attrs) -> tuple[Axis, ...]:
    extents = inputs[0].static_shape[attrs["axis"] :]
    return shapes.output_loops(outputs[0]) + shapes.reduce_loops(extents)


def _infer_batch_norm(inputs: Types, attrs: Attrs) -> tuple[TensorType, ...]:
    x, *parameters = inputs
    shapes.float_dtype(inputs)
    if x.rank < 2:
        shapes.need_rank(x, 2, "the data (or more)")
    for parameter in parameters:
        shapes.unify_shapes((x.shape[1],), parameter.shape, "channels and parameters")
    return (x,)


def _batch_norm(arrays: Arrays, attrs: Attrs) -> np.ndarray:
    x = arrays[0].astype(np.float64)
    channel = (-1,) + (1,) * (x.ndim - 2)
    scale, bias, mean, variance = (
        array.astype(np.float64).reshape(channel) for array in arrays[1:]
    )
    return np.asarray((x - mean) / np.sqrt(variance + attrs["epsilon"]) * scale + bias)


def _batch_norm_flops(inputs: Types, outputs: Types, attrs: Attrs) -> int:
    """Difference, quotient, scale and bias; the square root is one per channel."""
    return 4 * inputs[0].elements


_KIND = OpKind.COMPOSITE

OPS: tuple[OpDef, ...] = (
    OpDef(
        "softmax",
        "exp(x) over its sum along the axis",
        _KIND,
        (1, 1),
        _infer_softmax,
        rounded(_softmax),
        {"axis": REQUIRED_INT},
        _softmax_flops,
        _softmax_loops,
    ),
    OpDef(
        "log_softmax",
        "Logarithm of softmax",
        _KIND,
        (1, 1),
        _infer_softmax,
        rounded(_log_softmax),
        {"axis": REQUIRED_INT},
        _softmax_flops,
        _softmax_loops,
    ),
    OpDef(
        "layer_norm",
        "x to mean 0 and variance 1 over the dimensions from the axis on, times scale, plus bias",
        _KIND,
        (3, 3),
        _infer_layer_norm,
        rounded(_layer_norm),
        {"axis": REQUIRED_INT, "epsilon": REQUIRED_FLOAT},
        _layer_norm_flops,
        _layer_norm_loops,
    ),
    OpDef(
        "rms_norm",
        "x / sqrt(mean(x²) + epsilon) · scale over the dimensions from the axis on",
        _KIND,
        (2, 2),
        _infer_rms_norm,
        rounded(_rms_norm),
        {"axis": REQUIRED_INT, "epsilon": REQUIRED_FLOAT},
        _rms_norm_flops,
        _layer_norm_loops,
    ),
    OpDef(
        "batch_norm",
        "(x - mean) / sqrt(var + epsilon) · scale + bias for each channel (dimension 1)",
        _KIND,
        (5, 5),
        _infer_batch_norm,
        rounded(_batch_norm),
        {"epsilon": REQUIRED_FLOAT},
        _batch_norm_flops,
    ),
)
