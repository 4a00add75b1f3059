"""Movement ops: each output element is one input element, or a fill."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from planish.ir.dim import Dim, DimLike, bounds, dim_max
from planish.ir.errors import InvalidGraph
from planish.ir.graph import Attrs
from planish.ir.op import AttrSpec, OpDef, OpKind, Types
from planish.ir.ops import shapes
from planish.ir.ops.attributes import REQUIRED_DIM, REQUIRED_INT, REQUIRED_INTS
from planish.ir.ops.shapes import no_flops, unify, unify_shapes
from planish.ir.types import TensorType

Arrays = Sequence[np.ndarray]

PAD_MODES = {"constant": "constant", "reflect": "reflect", "edge": "edge", "wrap": "wrap"}


def static(attr: Sequence[DimLike]) -> tuple[int, ...]:
    """An attribute as ints; InvalidGraph if a symbol is left in it."""
    if any(isinstance(entry, Dim) for entry in attr):
        raise InvalidGraph(f"a static shape is needed to compute, got {shapes.show(tuple(attr))}")
    return tuple(int(entry) for entry in attr)  # type: ignore[arg-type]


def _infer_reshape(inputs: Types, attrs: Attrs) -> tuple[TensorType, ...]:
    (x,) = inputs
    shape = tuple(attrs["shape"])
    if any(isinstance(dim, int) and dim < 0 for dim in shape):
        raise InvalidGraph(f"shape must be resolved, got {shapes.show(shape)}")
    unify(
        shapes.product(x.shape),
        shapes.product(shape),
        f"the element counts of {x} and {shapes.show(shape)}",
    )
    return (TensorType(x.dtype, shape),)


def _reshape(arrays: Arrays, attrs: Attrs) -> tuple[np.ndarray, ...]:
    return (arrays[0].reshape(static(attrs["shape"])),)


def _infer_transpose(inputs: Types, attrs: Attrs) -> tuple[TensorType, ...]:
    (x,) = inputs
    perm = attrs["perm"]
    if sorted(perm) != list(range(x.rank)):
        raise InvalidGraph(f"perm must be a permutation of {x.rank} axes, got {perm!r}")
    return (TensorType(x.dtype, tuple(x.shape[axis] for axis in perm)),)


def _transpose(arrays: Arrays, attrs: Attrs) -> tuple[np.ndarray, ...]:
    return (arrays[0].transpose(attrs["perm"]),)


def _infer_broadcast_to(inputs: Types, attrs: Attrs) -> tuple[TensorType, ...]:
    (x,) = inputs
    shape = tuple(attrs["shape"])
    if len(shape) < x.rank or shapes.broadcast([x.shape, shape]) != shape:
        raise InvalidGraph(f"{x} does not broadcast to {shapes.show(shape)}")
    return (TensorType(x.dtype, shape),)


def _broadcast_to(arrays: Arrays, attrs: Attrs) -> tuple[np.ndarray, ...]:
    return (np.broadcast_to(arrays[0], static(attrs["shape"])),)


def _infer_slice(inputs: Types, attrs: Attrs) -> tuple[TensorType, ...]:
    (x,) = inputs
    shapes.need_per_dimension(attrs, ("starts", "stops", "steps"), x.rank)
    ranges = zip(x.shape, attrs["starts"], attrs["stops"], attrs["steps"])
    return (TensorType(x.dtype, tuple(_slice_length(*entry) for entry in ranges)),)


def _slice_length(size: DimLike, start: DimLike, stop: DimLike, step: int) -> DimLike:
    if step == 0:
        raise InvalidGraph("the step of a slice must not be 0")
    if isinstance(size, int) and isinstance(start, int) and isinstance(stop, int):
        inside = (
            0 <= start <= size and 0 <= stop <= size
            if step > 0
            else -1 <= start < size and -1 <= stop < size
        )
        if not inside:
            raise InvalidGraph(f"slice {start}:{stop}:{step} leaves a dimension of {size}")
        return len(range(start, stop, step))
    length = (stop - start + step - 1) // step if step > 0 else (start - stop - step - 1) // -step
    low, _ = bounds(length)
    return length if low is not None and low >= 0 else dim_max(length, 0)


def _slice(arrays: Arrays, attrs: Attrs) -> tuple[np.ndarray, ...]:
    starts, stops = static(attrs["starts"]), static(attrs["stops"])
    # A stop of -1 means "past index 0", which numpy spells None.
    entries = zip(starts, stops, attrs["steps"])
    return (arrays[0][tuple(slice(a, b if b >= 0 else None, c) for a, b, c in entries)],)


def _infer_concat(inputs: Types, attrs: Attrs) -> tuple[TensorType, ...]:
    dtype = shapes.common_dtype(inputs)
    axis = shapes.axis_of(attrs, inputs[0].rank)
    shape = inputs[0].shape
    for t in inputs[1:]:
        if t.rank != len(shape):
            raise InvalidGraph(f"inputs must have equal ranks, got {inputs[0]} and {t}")
        kept = (*t.shape[:axis], shape[axis], *t.shape[axis + 1 :])
        shape = unify_shapes(shape, kept, "dimensions other than the axis")
    length: DimLike = 0
    for t in inputs:
        length = length + t.shape[axis]
    return (TensorType(dtype, (*shape[:axis], length, *shape[axis + 1 :])),)


def _concat(arrays: Arrays, attrs: Attrs) -> tuple[np.ndarray, ...]:
    return (np.concatenate(arrays, axis=attrs["axis"]),)


def _infer_pad(inputs: Types, attrs: Attrs) -> tuple[TensorType, ...]:
    (x,) = inputs
    shapes.need_per_dimension(attrs, ("before", "after"), x.rank)
    mode = attrs["mode"]
    if mode not in PAD_MODES:
        raise InvalidGraph(f"mode must be one of {', '.join(PAD_MODES)}, got '{mode}'")
    widths = list(zip(attrs["before"], attrs["after"]))
    if mode != "constant" and any(isinstance(n, int) and n < 0 for pair in widths for n in pair):
        raise InvalidGraph(f"only mode 'constant' can crop, got {mode} with {widths!r}")
    for size, pair in zip(x.shape, widths):
        _need_source(mode, size, pair)
    for size, pair in zip(x.shape, widths):
        _, most = bounds(size + sum(n for n in pair if isinstance(n, int) and n < 0))
        if most is not None and most < 0:
            raise InvalidGraph(f"{x} is cropped by more than it has: {widths!r}")
    shape = tuple(size + before + after for size, (before, after) in zip(x.shape, widths))
    return (TensorType(x.dtype, shape),)


def _need_source(mode: str, size: DimLike, pair: tuple[DimLike, DimLike]) -> None:
    """Modes that copy elements need some: reflect one more than the padding, the others one."""
    if mode == "constant" or not isinstance(size, int):
        return
    widest = max((n for n in pair if isinstance(n, int)), default=0)
    if widest > 0 and size < (widest + 1 if mode == "reflect" else 1):
        raise InvalidGraph(f"a dimension of {size} is too small to {mode} {widest} elements")


def pad_array(
    x: np.ndarray, before: Sequence[int], after: Sequence[int], fill: float
) -> np.ndarray:
    """`x` with constant padding; negative widths crop."""
    crop = tuple(slice(max(-b, 0), size - max(-a, 0)) for size, b, a in zip(x.shape, before, after))
    if all(width <= 0 for width in (*before, *after)):
        return x[crop]
    shape = [size + b + a for size, b, a in zip(x.shape, before, after)]
    padded = np.full(shape, np.asarray(fill).astype(x.dtype), dtype=x.dtype)
    inside = tuple(slice(max(b, 0), n - max(a, 0)) for n, b, a in zip(shape, before, after))
    padded[inside] = x[crop]
    return padded


def _pad(arrays: Arrays, attrs: Attrs) -> tuple[np.ndarray, ...]:
    before, after = static(attrs["before"]), static(attrs["after"])
    if attrs["mode"] == "constant":
        return (pad_array(arrays[0], before, after, attrs["value"]),)
    mode: str = PAD_MODES[attrs["mode"]]
    return (np.pad(arrays[0], list(zip(before, after)), mode=mode),)  # type: ignore[call-overload]


def _infer_pack(inputs: Types, attrs: Attrs) -> tuple[TensorType, ...]:
    (x,) = inputs
    axis = shapes.axis_of(attrs, x.rank)
    block, blocks = _block(attrs), _blocks(x.shape[axis], attrs)
    return (TensorType(x.dtype, (*x.shape[:axis], blocks, *x.shape[axis + 1 :], block)),)


def pack_array(x: np.ndarray, axis: int, block: int, segments: int = 1) -> np.ndarray:
    """[.., C, ..] → [.., s·ceil(C / s / block), .., block], each of s segments zero padded."""
    before, after = x.shape[:axis], x.shape[axis + 1 :]
    parts = x.reshape(*before, segments, x.shape[axis] // segments, *after)
    more = [0] * parts.ndim
    more[axis + 1] = -parts.shape[axis + 1] % block
    padded = pad_array(parts, [0] * parts.ndim, more, 0)
    split = padded.reshape(*before, segments * padded.shape[axis + 1] // block, block, *after)
    return np.moveaxis(split, axis + 1, -1)


def _pack(arrays: Arrays, attrs: Attrs) -> tuple[np.ndarray, ...]:
    return (pack_array(arrays[0], attrs["axis"], attrs["block"], attrs["segments"]),)


def _infer_unpack(inputs: Types, attrs: Attrs) -> tuple[TensorType, ...]:
    (x,) = inputs
    axis, block, size = shapes.axis_of(attrs, x.rank - 1), _block(attrs), attrs["size"]
    unify(x.shape[-1], block, "the last dimension and block")
    unify(x.shape[axis], _blocks(size, attrs), "the number of blocks and ceil(size / block)")
    return (TensorType(x.dtype, (*x.shape[:axis], size, *x.shape[axis + 1 : -1])),)


def unpack_array(x: np.ndarray, axis: int, size: int, segments: int = 1) -> np.ndarray:
    """The inverse of `pack_array`."""
    merged = np.moveaxis(x, -1, axis + 1)
    before, after = x.shape[:axis], x.shape[axis + 1 : -1]
    parts = merged.reshape(*before, segments, x.shape[axis] // segments * x.shape[-1], *after)
    inside = parts[(slice(None),) * (axis + 1) + (slice(size // segments),)]
    return inside.reshape(*before, size, *after)


def _unpack(arrays: Arrays, attrs: Attrs) -> tuple[np.ndarray, ...]:
    (size,) = static((attrs["size"],))
    return (unpack_array(arrays[0], attrs["axis"], size, attrs["segments"]),)


def _block(attrs: Attrs) -> int:
    block = int(attrs["block"])
    if block < 1:
        raise InvalidGraph(f"block must be at least 1, got {block}")
    return block


def _blocks(size: DimLike, attrs: Attrs) -> DimLike:
    """The blocks of a dimension whose segments begin with a block each."""
    segments, block = int(attrs["segments"]), _block(attrs)
    if segments < 1 or (isinstance(size, int) and size % segments):
        raise InvalidGraph(f"{size} elements do not divide into {segments} segments")
    return (size // segments + block - 1) // block * segments


_KIND = OpKind.MOVEMENT
_SLICE_ATTRS = {"starts": REQUIRED_INTS, "stops": REQUIRED_INTS, "steps": REQUIRED_INTS}
_PAD_ATTRS = {
    "before": REQUIRED_INTS,
    "after": REQUIRED_INTS,
    "mode": AttrSpec((str,), "constant"),
    "value": AttrSpec((bool, int, float), 0),
}
_PACK_ATTRS = {"axis": REQUIRED_INT, "block": REQUIRED_INT, "segments": AttrSpec((int,), 1)}

OPS: tuple[OpDef, ...] = (
    OpDef(
        "reshape",
        "The same elements in row-major order under another shape",
        _KIND,
        (1, 1),
        _infer_reshape,
        _reshape,
        {"shape": REQUIRED_INTS},
        no_flops,
    ),
    OpDef(
        "transpose",
        "Dimension i of the result is dimension perm[i] of x",
        _KIND,
        (1, 1),
        _infer_transpose,
        _transpose,
        {"perm": REQUIRED_INTS},
        no_flops,
    ),
    OpDef(
        "broadcast_to",
        "x repeated to a shape as numpy broadcasts",
        _KIND,
        (1, 1),
        _infer_broadcast_to,
        _broadcast_to,
        {"shape": REQUIRED_INTS},
        no_flops,
    ),
    OpDef(
        "slice",
        "Every step-th element from start to before stop; a stop of -1 is past index 0",
        _KIND,
        (1, 1),
        _infer_slice,
        _slice,
        _SLICE_ATTRS,
        no_flops,
    ),
    OpDef(
        "concat",
        "The inputs one after another along the axis",
        _KIND,
        (1, None),
        _infer_concat,
        _concat,
        {"axis": REQUIRED_INT},
        no_flops,
    ),
    OpDef(
        "pad",
        "x with `before` and `after` more elements in each dimension; negative widths crop",
        _KIND,
        (1, 1),
        _infer_pad,
        _pad,
        _PAD_ATTRS,
        no_flops,
    ),
    OpDef(
        "pack",
        "Blocks of a dimension as a new last one, each segment zero padded: [N, C] → [N, C/b, b]",
        _KIND,
        (1, 1),
        _infer_pack,
        _pack,
        _PACK_ATTRS,
        no_flops,
    ),
    OpDef(
        "unpack",
        "The inverse of pack, with the dimension's size before padding",
        _KIND,
        (1, 1),
        _infer_unpack,
        _unpack,
        {**_PACK_ATTRS, "size": REQUIRED_DIM},
        no_flops,
    ),
)
