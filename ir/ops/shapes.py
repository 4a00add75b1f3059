"""Checks and arithmetic on shapes and element types that the op families share."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from planish.ir.dim import Dim, DimLike, bounds, dim_max
from planish.ir.errors import InvalidGraph
from planish.ir.graph import Attrs
from planish.ir.op import Axis, Types
from planish.ir.types import DType, TensorType

Shape = tuple[DimLike, ...]

INDEX_TYPES = (DType.INT32, DType.INT64)


def is_number(dtype: DType) -> bool:
    """True for what arithmetic is defined on: real floats and integers."""
    return dtype.is_float or dtype.is_integer


def common_dtype(types: Types) -> DType:
    """The element type of all `types`; InvalidGraph if they differ."""
    first = types[0].dtype
    if any(t.dtype is not first for t in types):
        found = ", ".join(t.dtype.value for t in types)
        raise InvalidGraph(f"inputs must have one element type, got {found}")
    return first


def float_dtype(types: Types) -> DType:
    """As `common_dtype`, floating-point only."""
    dtype = common_dtype(types)
    if not dtype.is_float:
        raise InvalidGraph(f"needs floating-point tensors, got {types[0]}")
    return dtype


def number_dtype(types: Types) -> DType:
    """As `common_dtype`, floats and integers only."""
    dtype = common_dtype(types)
    if not is_number(dtype):
        raise InvalidGraph(f"needs tensors of numbers, got {types[0]}")
    return dtype


def need_rank(type_: TensorType, rank: int, what: str) -> None:
    """InvalidGraph unless `type_` has `rank` dimensions."""
    if type_.rank != rank:
        raise InvalidGraph(f"{what} must have rank {rank}, got {type_}")


def need_index_type(type_: TensorType) -> None:
    """InvalidGraph unless the elements are int32 or int64."""
    if type_.dtype not in INDEX_TYPES:
        raise InvalidGraph(f"indices must be int32 or int64, got {type_}")


def axis_of(attrs: Attrs, rank: int, name: str = "axis") -> int:
    """The axis attribute, which is normalised: 0..rank-1."""
    axis = int(attrs[name])
    if not 0 <= axis < rank:
        raise InvalidGraph(f"{name} must be in 0..{rank - 1} for rank {rank}, got {axis}")
    return axis


def need_per_dimension(attrs: Attrs, names: Iterable[str], rank: int) -> None:
    """InvalidGraph unless each attribute has one entry for each of `rank` dimensions."""
    for name in names:
        if len(attrs[name]) != rank:
            raise InvalidGraph(f"{name} must have {rank} entries, got {attrs[name]!r}")


def need_positive(attrs: Attrs, names: Iterable[str]) -> None:
    """InvalidGraph unless all entries of each attribute are at least 1."""
    for name in names:
        if any(entry < 1 for entry in attrs[name]):
            raise InvalidGraph(f"{name} must be at least 1, got {attrs[name]!r}")


def product(shape: Iterable[DimLike]) -> DimLike:
    """Number of elements of a shape."""
    total: DimLike = 1
    for dim in shape:
        total = total * dim
    return total


def unify(a: DimLike, b: DimLike, what: str) -> DimLike:
    """The size of two dimensions that must be equal; the more definite one if one is symbolic.

    InvalidGraph only where they cannot be equal: two symbols may turn out to be.
    """
    difference = a - b
    low, high = bounds(difference)
    if (low is not None and low > 0) or (high is not None and high < 0):
        raise InvalidGraph(f"{what} must agree, got {a} and {b}")
    return b if isinstance(a, Dim) and isinstance(b, int) else a


def unify_shapes(a: Shape, b: Shape, what: str) -> Shape:
    """`unify` for each dimension; the ranks must be equal."""
    if len(a) != len(b):
        raise InvalidGraph(f"{what} must have equal ranks, got {show(a)} and {show(b)}")
    return tuple(unify(x, y, what) for x, y in zip(a, b))


def broadcast(shapes: Sequence[Shape]) -> Shape:
    """The shape to which numpy broadcasts `shapes`.

    A symbol against a number above 1 gives the number; two different symbols are InvalidGraph,
    since either could be 1.
    """
    rank = max(map(len, shapes))
    padded = [(1,) * (rank - len(shape)) + shape for shape in shapes]
    return tuple(_broadcast_dim(dims, shapes) for dims in zip(*padded))


def _broadcast_dim(dims: Sequence[DimLike], shapes: Sequence[Shape]) -> DimLike:
    different = {dim for dim in dims if dim != 1}
    if not different:
        return 1
    numbers = {dim for dim in different if isinstance(dim, int)}
    candidates = numbers or different
    if len(candidates) > 1:
        raise InvalidGraph(f"shapes {' and '.join(map(show, shapes))} do not broadcast")
    result = candidates.pop()
    for dim in different:
        low, high = bounds(dim)
        one_is_possible = (low is None or low <= 1) and (high is None or high >= 1)
        if not one_is_possible:
            unify(dim, result, "broadcast dimensions")
    return result


def window_count(
    size: DimLike, window: int, stride: int, dilation: int, padding: DimLike
) -> DimLike:
    """Positions of a dilated window over `size` plus `padding` elements."""
    reach = (window - 1) * dilation + 1
    count = (size + padding - reach) // stride + 1
    low, _ = bounds(count)
    if isinstance(count, int) and count < 1:
        raise InvalidGraph(
            f"a window of {reach} elements does not fit into {size} plus {padding} of padding"
        )
    return count if low is not None and low >= 0 else dim_max(count, 0)


def show(shape: Shape) -> str:
    """A shape for messages."""
    return f"[{', '.join(map(str, shape))}]"


def no_flops(inputs: Types, outputs: Types, attrs: Attrs) -> int:
    """For ops that only move data."""
    return 0


def output_loops(output: TensorType) -> tuple[Axis, ...]:
    """One loop d0, d1, … for each output dimension."""
    return tuple(Axis(f"d{i}", extent) for i, extent in enumerate(output.static_shape))


def reduce_loops(extents: Iterable[int]) -> tuple[Axis, ...]:
    """Reduction loops r0, r1, …"""
    return tuple(Axis(f"r{i}", extent, reduce=True) for i, extent in enumerate(extents))
