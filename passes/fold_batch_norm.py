"""Fold batch normalisation into the weights before it, or into a multiplication and an addition."""

from __future__ import annotations

import numpy as np

from planish.ir.builder import emit
from planish.ir.graph import Graph, Value, constant
from planish.ir.target import Target
from planish.ir.types import DType
from planish.passes import batch_norm_paths
from planish.passes.batch_norm_paths import PARAMETERS, scale_and_shift
from planish.passes.channels import (
    LINEAR,
    add_along_channels,
    along_channels,
    channel_dim,
    largest_row,
    per_channel,
    reads_constant_weights,
    scale_channels,
)
from planish.passes.pattern import Match, const, op, value
from planish.passes.rewrite import Refusal, Rule, rewrite
from planish.passes.rounding import loses_digits, refuse_addend


def fold_batch_norm(graph: Graph, target: Target) -> Graph:
    """Remove every `batch_norm`; with s = scale / sqrt(var + epsilon).

        %1 = conv(%0, @w)                          %1 = conv(%0, w·s)
        %2 = add(%1, @b)                    →      %2 = add(%1, (b - mean)·s + bias)
        %3 = batch_norm(%2, …, epsilon=…)

    The same for conv_transpose and matmul with constant weights, and without the `add`; also back
    through padding, concat and the addition of two such products. Where there is nothing to fold
    into, or it has other users, constant parameters become `mul` and `add`, others element-wise
    ops. The new weights are computed in float64 and rounded once.
    """
    return rewrite(graph, RULES)


def _fold_into_linear(match: Match) -> Value | Refusal | None:
    linear = match.node("linear")
    if channel_dim(linear) != 1:
        return Refusal("the channels of the batch norm are not those of the matrix product")
    scale, shift = scale_and_shift(match)
    if "b" in match.captured:
        before = per_channel(match.data("b"), linear.output.type, dim=1)
        if before is None:
            return Refusal("what is added in between varies along more than the channels")
        large = refuse_addend(before, largest_row(linear), linear.output.type.dtype)
        if large is not None:
            return large
        shift = shift + before * scale
    product = scale_channels(linear, scale)
    if isinstance(product, Refusal):
        return product
    return add_along_channels(product, shift, dim=1)


def _decompose_constant(match: Match) -> Value:
    """x·s + t, in a wider type where s or t would lose digits in that of x."""
    x, numbers = match["x"], scale_and_shift(match)
    dtype = x.type.dtype
    if any(loses_digits(vector, dtype) for vector in numbers):
        x = _cast(x, _WIDER.get(dtype, dtype))
    scale, shift = (along_channels(vector, x.type, 1) for vector in numbers)
    return _cast(emit("add", emit("mul", x, scale), shift), dtype)


#: What a batch norm is computed in where its own type has too few digits, or too narrow a range.
_WIDER = {
    DType.FLOAT16: DType.FLOAT32,
    DType.BFLOAT16: DType.FLOAT32,
    DType.FLOAT32: DType.FLOAT64,
}


def _cast(x: Value, dtype: DType) -> Value:
    return x if x.type.dtype is dtype else emit("cast", x, to=dtype)


def _decompose(match: Match) -> Value:
    """((x - mean) · (scale / sqrt(var + epsilon))) + bias; the order of the ONNX definition.

    Halves are computed in float32, where epsilon is not lost beside the variance.
    """
    dtype, epsilon = match["x"].type.dtype, match.root.attrs["epsilon"]
    wide = dtype if dtype in (DType.FLOAT32, DType.FLOAT64) else DType.FLOAT32
    x, *parameters = (_cast(v, wide) for v in match.root.inputs)
    scale, bias, mean, var = (
        emit("reshape", v, shape=(v.type.shape[0], *(1,) * (x.type.rank - 2))) for v in parameters
    )
    tiny = constant(np.asarray(epsilon, var.type.dtype.numpy))
    factor = emit("div", scale, emit("sqrt", emit("add", var, tiny)))
    return _cast(emit("add", emit("mul", emit("sub", x, mean), factor), bias), dtype)


_LINEAR = op(LINEAR, where=reads_constant_weights, single_use=True, name="linear")
_BIASED = op("add", _LINEAR, const("b"), commutative=True, single_use=True)

RULES = (
    Rule("fold into weights", op("batch_norm", _LINEAR, *PARAMETERS), _fold_into_linear),
    Rule("fold through bias", op("batch_norm", _BIASED, *PARAMETERS), _fold_into_linear),
    *batch_norm_paths.RULES,
    Rule("constant parameters", op("batch_norm", value("x"), *PARAMETERS), _decompose_constant),
    Rule("any parameters", op("batch_norm", *map(value, ("x", "s", "b", "m", "v"))), _decompose),
)
