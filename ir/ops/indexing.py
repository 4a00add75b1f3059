"""Ops that read or write at indices which are data: gather, scatter, top-k."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from planish.ir.dim import bounds
from planish.ir.errors import InvalidGraph
from planish.ir.graph import Attrs
from planish.ir.op import AttrSpec, Axis, OpDef, OpKind, Types
from planish.ir.ops import shapes
from planish.ir.ops.attributes import REQUIRED_BOOL, REQUIRED_INT
from planish.ir.ops.precision import narrow, widen
from planish.ir.ops.shapes import no_flops
from planish.ir.types import DType, TensorType

Arrays = Sequence[np.ndarray]

_COMBINE: dict[str, Callable[..., Any] | None] = {
    "none": None,
    "add": np.add.at,
    "mul": np.multiply.at,
    "max": np.maximum.at,
    "min": np.minimum.at,
}


def _in_range(indices: np.ndarray, size: int, axis: int) -> np.ndarray:
    """Indices with negative ones counted from the end; InvalidGraph if one lies outside."""
    wrapped = np.where(indices < 0, indices + size, indices)
    outside = (wrapped < 0) | (wrapped >= size)
    if outside.any():
        found = int(indices[outside].flat[0])
        raise InvalidGraph(f"index {found} lies outside axis {axis} of size {size}")
    return wrapped


def _infer_gather(inputs: Types, attrs: Attrs) -> tuple[TensorType, ...]:
    data, indices = inputs
    shapes.need_index_type(indices)
    axis = shapes.axis_of(attrs, data.rank)
    return (TensorType(data.dtype, data.shape[:axis] + indices.shape + data.shape[axis + 1 :]),)


def _gather(arrays: Arrays, attrs: Attrs) -> tuple[np.ndarray, ...]:
    data, indices = arrays
    axis = attrs["axis"]
    return (np.asarray(np.take(data, _in_range(indices, data.shape[axis], axis), axis=axis)),)


def _need_element_indices(data: TensorType, indices: TensorType, axis: int) -> None:
    """Indices have the data's rank and, but for the axis, at most its sizes."""
    shapes.need_index_type(indices)
    if indices.rank != data.rank:
        raise InvalidGraph(f"indices must have the rank of the data {data}, got {indices}")
    for dim, (size, count) in enumerate(zip(data.shape, indices.shape)):
        excess, _ = bounds(count - size)
        if dim != axis and excess is not None and excess > 0:
            raise InvalidGraph(f"indices {indices} reach beyond dimension {dim} of the data {data}")


def _infer_gather_elements(inputs: Types, attrs: Attrs) -> tuple[TensorType, ...]:
    data, indices = inputs
    _need_element_indices(data, indices, shapes.axis_of(attrs, data.rank))
    return (TensorType(data.dtype, indices.shape),)


def _element_places(data: np.ndarray, indices: np.ndarray, axis: int) -> tuple[np.ndarray, ...]:
    """An index array for each dimension: its own position, but `indices` along the axis."""
    places: list[np.ndarray] = list(np.indices(indices.shape, sparse=True))
    places[axis] = _in_range(indices, data.shape[axis], axis)
    return tuple(places)


def _gather_elements(arrays: Arrays, attrs: Attrs) -> tuple[np.ndarray, ...]:
    data, indices = arrays
    return (data[_element_places(data, indices, attrs["axis"])],)


def _index_depth(data: TensorType, indices: TensorType, batch_dims: int) -> int:
    """Number of leading data dimensions (after the batch) that one index tuple selects."""
    shapes.need_index_type(indices)
    if not 0 <= batch_dims < min(data.rank, indices.rank):
        raise InvalidGraph(f"batch_dims {batch_dims} does not fit {data} and {indices}")
    depth = indices.shape[-1]
    if not isinstance(depth, int):
        raise InvalidGraph(f"a static last dimension of the indices is needed, got {indices}")
    if not 1 <= depth <= data.rank - batch_dims:
        raise InvalidGraph(f"index tuples of {depth} entries do not fit the data {data}")
    return depth


def _infer_gather_nd(inputs: Types, attrs: Attrs) -> tuple[TensorType, ...]:
    data, indices = inputs
    batch = attrs["batch_dims"]
    depth = _index_depth(data, indices, batch)
    leading = shapes.unify_shapes(data.shape[:batch], indices.shape[:batch], "batch dimensions")
    shape = (*leading, *indices.shape[batch:-1], *data.shape[batch + depth :])
    return (TensorType(data.dtype, shape),)


def _tuple_places(data: np.ndarray, indices: np.ndarray, batch: int) -> tuple[np.ndarray, ...]:
    """Index arrays for the batch dimensions and for each entry of the index tuples."""
    outer = indices.shape[:-1]
    places: list[np.ndarray] = list(np.indices(outer, sparse=True))[:batch]
    for entry in range(indices.shape[-1]):
        axis = batch + entry
        places.append(_in_range(indices[..., entry], data.shape[axis], axis))
    return tuple(places)


def _gather_nd(arrays: Arrays, attrs: Attrs) -> tuple[np.ndarray, ...]:
    data, indices = arrays
    return (np.asarray(data[_tuple_places(data, indices, attrs["batch_dims"])]),)


def _need_reduction(data: TensorType, updates: TensorType, attrs: Attrs) -> None:
    shapes.common_dtype((data, updates))
    reduction = attrs["reduction"]
    if reduction not in _COMBINE:
        raise InvalidGraph(f"reduction must be one of {', '.join(_COMBINE)}, got '{reduction}'")
    if reduction != "none":
        shapes.number_dtype((data,))


def _infer_scatter_elements(inputs: Types, attrs: Attrs) -> tuple[TensorType, ...]:
    data, indices, updates = inputs
    _need_reduction(data, updates, attrs)
    _need_element_indices(data, indices, shapes.axis_of(attrs, data.rank))
    shapes.unify_shapes(indices.shape, updates.shape, "the shapes of indices and updates")
    return (data,)


def _infer_scatter_nd(inputs: Types, attrs: Attrs) -> tuple[TensorType, ...]:
    data, indices, updates = inputs
    _need_reduction(data, updates, attrs)
    depth = _index_depth(data, indices, 0)
    expected = indices.shape[:-1] + data.shape[depth:]
    shapes.unify_shapes(updates.shape, expected, "the shape of updates and that which they fill")
    return (data,)


def _scatter(
    data: np.ndarray, places: tuple[np.ndarray, ...], updates: np.ndarray, reduction: str
) -> tuple[np.ndarray, ...]:
    """Where index tuples repeat, "none" keeps the last update."""
    combine = _COMBINE[reduction]
    if combine is None:
        result = data.copy()
        result[places] = updates
        return (result,)
    wide = widen(data).copy()
    with np.errstate(all="ignore"):
        combine(wide, places, widen(updates))
        return (narrow(wide, data.dtype),)


def _scatter_elements(arrays: Arrays, attrs: Attrs) -> tuple[np.ndarray, ...]:
    data, indices, updates = arrays
    return _scatter(
        data, _element_places(data, indices, attrs["axis"]), updates, attrs["reduction"]
    )


def _scatter_nd(arrays: Arrays, attrs: Attrs) -> tuple[np.ndarray, ...]:
    data, indices, updates = arrays
    return _scatter(data, _tuple_places(data, indices, 0), updates, attrs["reduction"])


def _scatter_flops(inputs: Types, outputs: Types, attrs: Attrs) -> int:
    return 0 if attrs["reduction"] == "none" else inputs[2].elements


def _update_loops(inputs: Types, outputs: Types, attrs: Attrs) -> tuple[Axis, ...]:
    """Scatters loop over the updates."""
    return shapes.output_loops(inputs[2])


def _infer_top_k(inputs: Types, attrs: Attrs) -> tuple[TensorType, ...]:
    (x,) = inputs
    shapes.number_dtype(inputs)
    axis, k = shapes.axis_of(attrs, x.rank), attrs["k"]
    missing, _ = bounds(k - x.shape[axis])
    if k < 0 or (missing is not None and missing > 0):
        raise InvalidGraph(f"k must be in 0..{x.shape[axis]}, got {k}")
    shape = (*x.shape[:axis], k, *x.shape[axis + 1 :])
    return TensorType(x.dtype, shape), TensorType(DType.INT64, shape)


def _top_k(arrays: Arrays, attrs: Attrs) -> tuple[np.ndarray, ...]:
    (x,) = arrays
    axis = attrs["axis"]
    wide = widen(x)
    if attrs["largest"]:
        # The reverse of a stable ascending sort of the reversed elements: descending, and equal
        # elements by lower index. Negating the elements instead would break unsigned integers.
        order = np.argsort(np.flip(wide, axis), axis=axis, kind="stable")
        order = x.shape[axis] - 1 - np.flip(order, axis)
    else:
        order = np.argsort(wide, axis=axis, kind="stable")
    indices = np.take(order, np.arange(attrs["k"]), axis=axis).astype(np.int64)
    return np.take_along_axis(x, indices, axis), indices


def _top_k_flops(inputs: Types, outputs: Types, attrs: Attrs) -> int:
    """Comparisons of a heap of k elements."""
    return inputs[0].elements * max(1, int(attrs["k"]).bit_length())


def _top_k_loops(inputs: Types, outputs: Types, attrs: Attrs) -> tuple[Axis, ...]:
    """The rows d0.., and the axis as r0."""
    axis, shape = attrs["axis"], inputs[0].static_shape
    rows = shape[:axis] + shape[axis + 1 :]
    loops = tuple(Axis(f"d{i}", extent) for i, extent in enumerate(rows))
    return loops + shapes.reduce_loops((shape[axis],))


_REDUCTION = AttrSpec((str,), "none")

OPS: tuple[OpDef, ...] = (
    OpDef(
        "gather",
        "Slices of the data at indices along the axis; negative indices count from the end",
        OpKind.MOVEMENT,
        (2, 2),
        _infer_gather,
        _gather,
        {"axis": REQUIRED_INT},
        no_flops,
    ),
    OpDef(
        "gather_elements",
        "Element i of the result is the data at i, its axis replaced by indices[i]",
        OpKind.MOVEMENT,
        (2, 2),
        _infer_gather_elements,
        _gather_elements,
        {"axis": REQUIRED_INT},
        no_flops,
    ),
    OpDef(
        "gather_nd",
        "Slices of the data at index tuples, which are the last dimension of the indices",
        OpKind.MOVEMENT,
        (2, 2),
        _infer_gather_nd,
        _gather_nd,
        {"batch_dims": AttrSpec((int,), 0)},
        no_flops,
    ),
    OpDef(
        "scatter_elements",
        "The data with updates[i] combined into i, its axis replaced by indices[i]",
        OpKind.EMITTED,
        (3, 3),
        _infer_scatter_elements,
        _scatter_elements,
        {"axis": REQUIRED_INT, "reduction": _REDUCTION},
        _scatter_flops,
        _update_loops,
    ),
    OpDef(
        "scatter_nd",
        "The data with slices of updates combined in at index tuples",
        OpKind.EMITTED,
        (3, 3),
        _infer_scatter_nd,
        _scatter_nd,
        {"reduction": _REDUCTION},
        _scatter_flops,
        _update_loops,
    ),
    OpDef(
        "top_k",
        "The k largest (or smallest) elements along the axis, sorted, and their indices",
        OpKind.EMITTED,
        (1, 1),
        _infer_top_k,
        _top_k,
        {"k": REQUIRED_INT, "axis": REQUIRED_INT, "largest": REQUIRED_BOOL},
        _top_k_flops,
        _top_k_loops,
    ),
)
