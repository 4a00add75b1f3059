"""Converters of ops that make tensors from sizes: constants, shapes, ranges, triangles."""

from __future__ import annotations

import math

import numpy as np

from planish.ir.dim import Dim, DimLike, dim_max
from planish.ir.errors import InvalidModel, UnsupportedModel
from planish.ir.graph import Value, constant
from planish.ir.onnx.call import Call, product
from planish.ir.onnx.sizes import sizes_value
from planish.ir.onnx.storage import dtype_of
from planish.ir.types import DType, TensorType
from planish.ir.wording import fix_by_dims


def constant_node(call: Call) -> Value:
    """Constant: a tensor, or since opset 12 numbers in attributes."""
    if call.has("value"):
        return constant(call.tensor("value"))
    if call.has("value_float"):
        return call.scalar(call.number("value_float"), DType.FLOAT32)
    if call.has("value_int"):
        return call.scalar(call.integer("value_int"), DType.INT64)
    if call.has("value_floats"):
        return call.array(call.numbers("value_floats"), DType.FLOAT32)
    if call.has("value_ints"):
        return call.array(call.integers("value_ints"), DType.INT64)
    raise UnsupportedModel("holds a string or sparse tensor")


def constant_of_shape(call: Call) -> Value:
    """ConstantOfShape: one number repeated, a float 0 by default."""
    fill = call.tensor("value") if call.has("value") else np.zeros(1, np.float32)
    return call.broadcast(constant(fill.reshape(())), call.sizes(0, "input"))


def shape(call: Call) -> Value:
    """Shape, since opset 15 of the dimensions start..end-1."""
    dims = call.value(0).type.shape
    window = slice(call.integer("start", 0), call.integer("end", len(dims)))
    return _sizes(dims[window], len(dims[window]))


def size(call: Call) -> Value:
    """Size: the number of elements."""
    return _sizes((product(call.value(0).type.shape),), None)


def _sizes(dims: tuple[DimLike, ...], length: int | None) -> Value:
    contents = np.empty(len(dims), object)
    contents[:] = dims
    return sizes_value(contents if length is not None else contents.reshape(()), DType.INT64)


def number_range(call: Call) -> Value:
    """Range; with a symbolic length as a running sum of ones."""
    dtype = call.value(0).type.dtype
    start, limit, delta = (_bound(call, index) for index in range(3))
    if not delta or isinstance(delta, Dim):
        raise UnsupportedModel(f"steps by {delta}")
    if not isinstance(start, Dim) and not isinstance(limit, Dim):
        count = _count(start, limit, delta)
        call.fits(TensorType(DType.INT64, (count,)))
        steps = np.arange(count).astype(dtype.numpy)  # start + i · delta, not a running sum
        first, step = (np.asarray(bound).astype(dtype.numpy) for bound in (start, delta))
        return constant(np.asarray(first + steps * step, dtype.numpy))
    if isinstance(start, float) or isinstance(limit, float) or isinstance(delta, float):
        raise UnsupportedModel(f"its length depends on {start} and {limit}; {fix_by_dims('them')}")
    length = dim_max(0, -((start - limit) // delta))
    ones = call.broadcast(call.scalar(1, dtype), (length,))
    positions = call.emit("cumsum", ones, axis=0, exclusive=True, reverse=False)
    scaled = call.emit("mul", positions, call.scalar(delta, dtype))
    if isinstance(start, Dim):
        raise UnsupportedModel(f"starts at {start}; {fix_by_dims()}")
    return call.emit("add", scaled, call.scalar(start, dtype))


def _count(start: float, limit: float, delta: float) -> int:
    """Elements of a range, by integers exactly; UnsupportedModel where no number bounds it."""
    if isinstance(start, int) and isinstance(limit, int) and isinstance(delta, int):
        return max(0, -((start - limit) // delta))
    if not all(map(math.isfinite, (start, limit, delta))):
        raise UnsupportedModel(f"counts from {start} to {limit} by {delta}")
    return max(0, math.ceil((limit - start) / delta))


def _bound(call: Call, index: int) -> int | float | Dim:
    found = call.contents(call.value(index))
    if found is None or found.size != 1:
        raise UnsupportedModel("its length is computed at run time")
    bound = found.reshape(-1)[0]
    if isinstance(bound, Dim):
        return bound
    return int(bound) if call.value(index).type.dtype.is_integer else float(bound)


def triangle(call: Call) -> Value:
    """Trilu: the upper or lower triangle of matrices, zero elsewhere."""
    x, upper = call.value(0), bool(call.integer("upper", 1))
    k = 0 if call.optional(1) is None else call.one(1, "k")
    if x.type.rank < 2:
        raise InvalidModel(f"node '{call.label}' ({call.op}) takes matrices, got {x.type}")
    rows, columns = call.static_shape(x)[-2:]
    call.fits(TensorType(DType.INT64, (rows, columns)))
    offset = np.arange(columns)[None, :] - np.arange(rows)[:, None]
    mask = offset >= k if upper else offset <= k
    return call.emit("where", constant(mask), x, call.like(0, x))


def eye_like(call: Call) -> Value:
    """EyeLike: ones on one diagonal of a matrix."""
    x = call.value(0)
    dtype = x.type.dtype
    if call.has("dtype"):
        dtype = dtype_of(call.integer("dtype"), f"'{call.label}'")
    if x.type.rank != 2:
        raise InvalidModel(f"node '{call.label}' ({call.op}) takes a matrix, got {x.type}")
    rows, columns = call.static_shape(x)
    call.fits(TensorType(DType.FLOAT64, (rows, columns)))
    return constant(np.eye(rows, columns, call.integer("k", 0)).astype(dtype.numpy))
