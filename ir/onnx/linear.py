"""Converters of matrix products: MatMul, Gemm, integer products."""

from __future__ import annotations

import numpy as np

from planish.ir.errors import InvalidModel
from planish.ir.graph import Value
from planish.ir.onnx.call import Call, Outputs, in_float32
from planish.ir.types import DType, TensorType


def matmul(call: Call) -> Value:
    """MatMul as numpy's."""
    return product_of(call, call.value(0), call.value(1))


def product_of(call: Call, a: Value, b: Value) -> Value:
    """numpy's matmul: an operand of rank 1 is a row or column, and its dimension goes away."""
    if not a.type.rank or not b.type.rank:
        raise InvalidModel(f"node '{call.label}' ({call.op}) multiplies {a.type} by {b.type}")
    row, column = a.type.rank == 1, b.type.rank == 1
    left = call.reshape(a, (1, *a.type.shape)) if row else a
    right = call.reshape(b, (*b.type.shape, 1)) if column else b
    result = call.emit("matmul", left, right)
    shape = list(result.type.shape)
    if column:
        del shape[-1]
    if row:
        del shape[-1 if column else -2]
    return call.reshape(result, shape)


def gemm(call: Call) -> Outputs:
    """Gemm: alpha · A' · B' + beta · C; C is optional since opset 11.

    Of halves in float32 where there are factors, for A' · B' may overflow before alpha.
    """
    plain = call.number("alpha", 1.0) == 1 and call.number("beta", 1.0) in (0, 1)
    return _gemm(call) if plain else in_float32(_gemm)(call)


def _gemm(call: Call) -> Value:
    a, b, c = call.value(0), call.value(1), call.optional(2)
    alpha, beta = call.number("alpha", 1.0), call.number("beta", 1.0)
    left = call.transpose(a, (1, 0)) if call.integer("transA", 0) else a
    right = call.transpose(b, (1, 0)) if call.integer("transB", 0) else b
    result = _scaled(call, call.emit("matmul", left, right), alpha)
    if c is None or beta == 0:
        return result
    return call.emit("add", result, _scaled(call, c, beta))


def _scaled(call: Call, x: Value, factor: float) -> Value:
    if factor == 1:
        return x
    if x.type.dtype.is_integer and factor != int(factor):  # the factor acts before truncation
        wide = call.emit("mul", call.cast(x, DType.FLOAT64), call.scalar(factor, DType.FLOAT64))
        return call.cast(wide, x.type.dtype)
    return call.emit("mul", x, call.like(factor, x))


def matmul_integer(call: Call) -> Value:
    """MatMulInteger: int32 product of 8-bit operands without their zero points."""
    a = without_zero_point(call, call.value(0), call.optional(2), -2)
    b = without_zero_point(call, call.value(1), call.optional(3), -1)
    return product_of(call, a, b)


def without_zero_point(call: Call, x: Value, zero: Value | None, axis: int) -> Value:
    """`x` as int32 less its zero point, which is one number or one for each index of `axis`."""
    wide = call.cast(x, DType.INT32)
    if zero is None:
        return wide
    offset = call.cast(zero, DType.INT32)
    if offset.type.rank == 1:
        one = offset.type.shape == (1,)
        behind = 0 if one else x.type.rank - 1 - axis % x.type.rank
        offset = call.reshape(offset, () if one else (*offset.type.shape, *(1,) * behind))
    return call.emit("sub", wide, offset)


def affine_grid(call: Call) -> Value:
    """AffineGrid: theta times the homogeneous places of a regular grid, in two or three dimensions.

    ONNX's function body is not used: it squeezes a batch of 1 away, and divides by zero where
    corners are aligned on an axis of one element. Such an axis is at 1, as in onnxruntime.
    """
    theta, size = call.value(0), call.ints(1, "size")
    corners = bool(call.integer("align_corners", 0))
    spatial = size[2:]
    batch, rank = size[0], len(spatial)
    if len(size) not in (4, 5) or min(size) < 1 or not theta.type.dtype.is_float:
        raise InvalidModel(f"node '{call.label}' (AffineGrid) has theta {theta.type}, size {size}")
    if theta.type.shape != (batch, rank, rank + 1):
        raise InvalidModel(
            f"node '{call.label}' (AffineGrid) has theta {theta.type} for size {list(size)}, "
            f"expected [{batch}, {rank}, {rank + 1}]"
        )
    call.fits(TensorType(theta.type.dtype, (*spatial, rank + 1)))
    axes = [_grid_axis(length, corners) for length in spatial]
    places = [*reversed(np.meshgrid(*axes, indexing="ij")), np.ones(spatial)]  # x, y, (z,) 1
    base = call.array(np.stack(places).reshape(rank + 1, -1), theta.type.dtype)
    moved = call.transpose(call.emit("matmul", theta, base), (0, 2, 1))
    return call.reshape(moved, (batch, *spatial, rank))


def _grid_axis(length: int, corners: bool) -> np.ndarray:
    """Places from -1 to 1: of the corners, or of the middles of `length` equal parts."""
    if length == 1:
        return np.ones(1) if corners else np.zeros(1)
    ends = np.linspace(-1.0, 1.0, length)
    return ends if corners else ends * (length - 1) / length
