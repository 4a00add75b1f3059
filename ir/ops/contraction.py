"""Matrix products."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from planish.ir.errors import InvalidGraph
from planish.ir.graph import Attrs
from planish.ir.op import Axis, OpDef, OpKind, Types
from planish.ir.ops import shapes
from planish.ir.ops.attributes import REQUIRED_INT
from planish.ir.ops.movement import unpack_array
from planish.ir.ops.precision import rounded
from planish.ir.types import TensorType

Arrays = Sequence[np.ndarray]

_EXACT = 2**53  # integers up to here are exact in float64


def _infer_matmul(inputs: Types, attrs: Attrs) -> tuple[TensorType, ...]:
    a, b = inputs
    dtype = shapes.number_dtype(inputs)
    if a.rank < 2 or b.rank < 2:
        raise InvalidGraph(f"operands must have at least two dimensions, got {a} and {b}")
    shapes.unify(a.shape[-1], b.shape[-2], "the reduced dimensions")
    batch = shapes.broadcast([a.shape[:-2], b.shape[:-2]])
    return (TensorType(dtype, (*batch, a.shape[-2], b.shape[-1])),)


def multiply(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """np.matmul, integers by way of float64 where that is exact: numpy has no fast integer one."""
    if a.dtype.kind == "f" or not a.size or not b.size:
        return np.asarray(np.matmul(a, b))
    reach = _magnitude(a) * _magnitude(b) * a.shape[-1]
    if reach >= _EXACT:
        return np.asarray(np.matmul(a, b))
    return np.asarray(np.matmul(a.astype(np.float64), b.astype(np.float64)).astype(np.int64))


def _magnitude(x: np.ndarray) -> int:
    return max(abs(int(x.min())), abs(int(x.max())))


def _matmul(arrays: Arrays, attrs: Attrs) -> np.ndarray:
    return multiply(arrays[0], arrays[1])


def _matmul_flops(inputs: Types, outputs: Types, attrs: Attrs) -> int:
    return 2 * outputs[0].elements * inputs[0].static_shape[-1]


def _matmul_loops(inputs: Types, outputs: Types, attrs: Attrs) -> tuple[Axis, ...]:
    *batch, m, n = outputs[0].static_shape
    loops = tuple(Axis(f"b{i}", extent) for i, extent in enumerate(batch))
    k = inputs[0].static_shape[-1]
    return (*loops, Axis("m", m), Axis("n", n), Axis("k", k, reduce=True))


def _infer_packed_matmul(inputs: Types, attrs: Attrs) -> tuple[TensorType, ...]:
    a, b = inputs
    dtype = shapes.number_dtype(inputs)
    if a.rank < 2:
        raise InvalidGraph(f"a must have at least two dimensions, got {a}")
    shapes.need_rank(b, 3, "the packed matrix")
    shapes.unify(a.shape[-1], b.shape[1], "the reduced dimensions")
    size, (blocks, _, block) = attrs["size"], b.static_shape
    if size < 1 or blocks != -(-size // block):
        raise InvalidGraph(f"{b} does not hold {size} columns in blocks of {block}")
    return (TensorType(dtype, (*a.shape[:-1], size)),)


def _packed_matmul(arrays: Arrays, attrs: Attrs) -> np.ndarray:
    a, b = arrays
    columns = unpack_array(b, 0, attrs["size"])  # [N, K]
    return multiply(a, columns.T)


_KIND = OpKind.CONTRACTION

OPS: tuple[OpDef, ...] = (
    OpDef(
        "matmul",
        "a[.., M, K] · b[.., K, N], leading dimensions broadcast",
        _KIND,
        (2, 2),
        _infer_matmul,
        rounded(_matmul),
        {},
        _matmul_flops,
        _matmul_loops,
    ),
    OpDef(
        "packed_matmul",
        "a[.., M, K] · b, where b[ceil(N/nb), K, nb] holds columns in blocks and size is N",
        _KIND,
        (2, 2),
        _infer_packed_matmul,
        rounded(_packed_matmul),
        {"size": REQUIRED_INT},
        _matmul_flops,
        _matmul_loops,
    ),
)
