"""Converters of ops that change the shape only: reshape, transpose, concat, split, tile."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate

from planish.ir.dim import Dim, DimLike
from planish.ir.errors import InvalidModel, UnsupportedModel
from planish.ir.graph import Value
from planish.ir.onnx.call import Call, product
from planish.ir.ops.shapes import broadcast
from planish.ir.wording import fix_by_dims


def reshape(call: Call) -> Value:
    """Reshape: 0 copies a dimension (unless allowzero), one -1 takes what is left."""
    x, target = call.value(0), list(call.sizes(1, "shape"))
    keep_zero = bool(call.integer("allowzero", 0))
    shape = x.type.shape
    for axis, dim in enumerate(target):
        if dim == 0 and not keep_zero:
            if axis >= len(shape):
                raise InvalidModel(
                    f"node '{call.label}' (Reshape) copies dimension {axis} of {x.type}"
                )
            target[axis] = shape[axis]
    open_axes = [axis for axis, dim in enumerate(target) if dim == -1]
    if len(open_axes) > 1:
        raise InvalidModel(f"node '{call.label}' (Reshape) leaves two dimensions open: {target}")
    if open_axes:
        rest = product([dim for dim in target if dim != -1])
        if rest == 0:
            raise InvalidModel(f"node '{call.label}' (Reshape): -1 in {target} is not defined")
        target[open_axes[0]] = product(shape) // rest
    return call.reshape(x, target)


def flatten(call: Call) -> Value:
    """Flatten to two dimensions, split before `axis`."""
    x, axis = call.value(0), call.integer("axis", 1)
    shape = x.type.shape
    at = axis if axis == len(shape) else call.axis(axis, len(shape))
    return call.reshape(x, (product(shape[:at]), product(shape[at:])))


def squeeze_by_attribute(call: Call) -> Value:
    """Squeeze before opset 13."""
    return _squeeze(call, call.integers("axes", None))


def squeeze(call: Call) -> Value:
    """Squeeze since opset 13: the axes are an optional input."""
    return _squeeze(call, None if call.optional(1) is None else call.ints(1, "axes"))


def _squeeze(call: Call, axes: Sequence[int] | None) -> Value:
    x = call.value(0)
    shape = x.type.shape
    if axes is None:
        dropped = {axis for axis, dim in enumerate(shape) if dim == 1}
    else:
        dropped = set(call.axes(axes, len(shape)))
    for axis in dropped:
        if shape[axis] != 1 and isinstance(shape[axis], int):
            raise InvalidModel(f"node '{call.label}' (Squeeze) drops axis {axis} of {x.type}")
    return call.reshape(x, [dim for axis, dim in enumerate(shape) if axis not in dropped])


def unsqueeze_by_attribute(call: Call) -> Value:
    """Unsqueeze before opset 13."""
    return unsqueezed(call, call.value(0), call.integers("axes"))


def unsqueeze(call: Call) -> Value:
    """Unsqueeze since opset 13: the axes are an input."""
    return unsqueezed(call, call.value(0), call.ints(1, "axes"))


def unsqueezed(call: Call, x: Value, axes: Sequence[int]) -> Value:
    """`x` with a dimension of 1 at each of `axes`, which count in the result."""
    rank = x.type.rank + len(axes)
    added = call.axes(axes, rank)
    rest = iter(x.type.shape)
    return call.reshape(x, [1 if axis in added else next(rest) for axis in range(rank)])


def transpose(call: Call) -> Value:
    """Transpose; without `perm` all axes are reversed."""
    x = call.value(0)
    perm = call.integers("perm", tuple(reversed(range(x.type.rank))))
    if sorted(perm) != list(range(x.type.rank)):
        raise InvalidModel(f"node '{call.label}' (Transpose) has perm {perm} for {x.type}")
    return call.transpose(x, perm)


def concat(call: Call) -> Value:
    """Concat along one axis."""
    values = call.values()
    axis = call.axis(call.integer("axis"), values[0].type.rank)
    return values[0] if len(values) == 1 else call.emit("concat", *values, axis=axis)


def split_by_attribute(call: Call) -> list[Value | None]:
    """Split before opset 13: equal parts, or sizes in an attribute."""
    return _split(call, call.integers("split", None), len(call.wanted))


def split(call: Call) -> list[Value | None]:
    """Split since opset 13: sizes are an optional input; num_outputs since 18."""
    sizes = None if call.optional(1) is None else call.ints(1, "split")
    return _split(call, sizes, call.integer("num_outputs", len(call.wanted)))


def _split(call: Call, sizes: Sequence[int] | None, parts: int) -> list[Value | None]:
    x = call.value(0)
    axis = call.axis(call.integer("axis", 0), x.type.rank)
    dim = x.type.shape[axis]
    if sizes is None:
        sizes = _equal_parts(call, dim, parts)
    elif min(sizes, default=0) < 0 or (isinstance(dim, int) and sum(sizes) != dim):
        raise InvalidModel(
            f"node '{call.label}' (Split) splits axis {axis} of {x.type} into {list(sizes)}"
        )
    stops = list(accumulate(sizes))
    return [call.crop(x, axis, stop - size, stop) for size, stop in zip(sizes, stops)]


def _equal_parts(call: Call, dim: DimLike, parts: int) -> list[int]:
    """Sizes of parts, of which the last may be smaller."""
    if isinstance(dim, Dim):
        raise UnsupportedModel(f"splits the dynamic dimension {dim}; {fix_by_dims()}")
    size = -(-dim // max(1, parts))
    if parts < 1 or size * (parts - 1) > dim:
        raise InvalidModel(f"node '{call.label}' (Split) splits {dim} elements into {parts} parts")
    return [size] * (parts - 1) + [dim - size * (parts - 1)]


def expand(call: Call) -> Value:
    """Expand: broadcast in both directions."""
    x, target = call.value(0), call.sizes(1, "shape")
    return call.broadcast(x, broadcast([x.type.shape, target]))


def tile(call: Call) -> Value:
    """Tile: a new axis before each repeated one, broadcast and merged."""
    x, repeats = call.value(0), call.sizes(1, "repeats")
    shape = x.type.shape
    if len(repeats) != len(shape):
        raise InvalidModel(f"node '{call.label}' (Tile) has {len(repeats)} repeats for {x.type}")
    apart: list[DimLike] = []
    spread: list[DimLike] = []
    for dim, times in zip(shape, repeats):
        if times != 1:
            apart.append(1)
            spread.append(times)
        apart.append(dim)
        spread.append(dim)
    wide = call.broadcast(call.reshape(x, apart), spread)
    return call.reshape(wide, [dim * times for dim, times in zip(shape, repeats)])


def depth_to_space(call: Call) -> Value:
    """DepthToSpace of [N, C, H, W]; DCR order unless the mode says CRD."""
    x, block, mode = call.value(0), _block(call), _mode(call)
    n, depth, height, width = _image(call, x)
    rest = depth // block**2
    if mode == "DCR":
        apart = call.reshape(x, (n, block, block, rest, height, width))
        moved = call.transpose(apart, (0, 3, 4, 1, 5, 2))
    else:
        apart = call.reshape(x, (n, rest, block, block, height, width))
        moved = call.transpose(apart, (0, 1, 4, 2, 5, 3))
    return call.reshape(moved, (n, rest, height * block, width * block))


def space_to_depth(call: Call) -> Value:
    """SpaceToDepth of [N, C, H, W]; the mode came with opset 28."""
    x, block, mode = call.value(0), _block(call), _mode(call)
    n, depth, height, width = _image(call, x)
    apart = call.reshape(x, (n, depth, height // block, block, width // block, block))
    order = (0, 3, 5, 1, 2, 4) if mode == "DCR" else (0, 1, 3, 5, 2, 4)
    moved = call.transpose(apart, order)
    return call.reshape(moved, (n, depth * block**2, height // block, width // block))


def _block(call: Call) -> int:
    block = call.integer("blocksize")
    if block < 1:
        raise InvalidModel(f"node '{call.label}' ({call.op}) has the block size {block}")
    return block


def _mode(call: Call) -> str:
    mode = call.text("mode", "DCR")
    if mode not in ("DCR", "CRD"):
        raise UnsupportedModel(f"its mode '{mode}' is neither DCR nor CRD")
    return mode


def _image(call: Call, x: Value) -> tuple[DimLike, DimLike, DimLike, DimLike]:
    if x.type.rank != 4:
        raise UnsupportedModel(f"takes a tensor of rank 4, got {x.type}")
    n, depth, height, width = x.type.shape
    return n, depth, height, width
