"""Convolutions, transposed and in blocked layouts."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from planish.ir.dim import DimLike
from planish.ir.errors import InvalidGraph
from planish.ir.graph import Attrs
from planish.ir.op import AttrSpec, Axis, OpDef, OpKind, Types
from planish.ir.ops import shapes
from planish.ir.ops.attributes import REQUIRED_INT, REQUIRED_INTS
from planish.ir.ops.contraction import multiply
from planish.ir.ops.movement import pack_array, pad_array, unpack_array
from planish.ir.ops.precision import rounded
from planish.ir.types import TensorType

Arrays = Sequence[np.ndarray]

_WINDOW = ("strides", "dilations", "before", "after")
_BLOCKED_WINDOW = ("strides", "dilations")
_COLUMN_BYTES = 64 << 20  # of the unfolded input held at once; more is done in strips of rows
_SPATIAL = {1: ("w",), 2: ("h", "w"), 3: ("d", "h", "w")}


def _need_window(attrs: Attrs, rank: int, names: Sequence[str] = _WINDOW) -> None:
    shapes.need_per_dimension(attrs, names, rank)
    shapes.need_positive(attrs, ("strides", "dilations"))


def _need_groups(attrs: Attrs, channels: DimLike) -> int:
    groups = int(attrs["groups"])
    if groups < 1 or (isinstance(channels, int) and channels % groups):
        raise InvalidGraph(f"{channels} channels do not divide into {groups} groups")
    return groups


def _spatial_rank(x: TensorType, w: TensorType) -> int:
    if not 3 <= x.rank <= 5:
        raise InvalidGraph(f"convolves 1, 2 or 3 spatial dimensions, got {x}")
    shapes.need_rank(w, x.rank, "the weights")
    if not all(isinstance(extent, int) for extent in w.shape):
        raise InvalidGraph(f"static weights are needed, got {w}")
    return x.rank - 2


def _infer_conv(inputs: Types, attrs: Attrs) -> tuple[TensorType, ...]:
    x, w = inputs
    dtype = shapes.number_dtype(inputs)
    rank = _spatial_rank(x, w)
    _need_window(attrs, rank)
    channels, *kernel = w.static_shape[1:]
    groups = _need_groups(attrs, w.static_shape[0])
    shapes.unify(x.shape[1], channels * groups, "the input channels of data and weights")
    return (
        TensorType(dtype, (x.shape[0], w.shape[0], *_window_shape(x.shape[2:], kernel, attrs))),
    )


def _window_shape(sizes: shapes.Shape, kernel: Sequence[int], attrs: Attrs) -> shapes.Shape:
    padding = [b + a for b, a in zip(attrs["before"], attrs["after"])]
    entries = zip(sizes, kernel, attrs["strides"], attrs["dilations"], padding)
    return tuple(shapes.window_count(*entry) for entry in entries)


def _windows(
    x: np.ndarray, kernel: Sequence[int], strides: Sequence[int], dilations: Sequence[int]
) -> np.ndarray:
    """A view [N, C, *kernel, *output] of x[N, C, *spatial], already padded."""
    rank = len(kernel)
    reach = tuple((k - 1) * d + 1 for k, d in zip(kernel, dilations))
    view = sliding_window_view(x, reach, axis=tuple(range(2, 2 + rank)))
    steps = [slice(None)] * 2 + [slice(None, None, step) for step in (*strides, *dilations)]
    positions, taps = range(2, 2 + rank), range(2 + rank, 2 + 2 * rank)
    return np.asarray(view[tuple(steps)].transpose(0, 1, *taps, *positions))


def convolve(
    x: np.ndarray, w: np.ndarray, strides: Sequence[int], dilations: Sequence[int], groups: int
) -> np.ndarray:
    """w[O, C/g, *K] over x[N, C, *S], already padded: unfolded to a matrix product."""
    windows = _windows(x, w.shape[2:], strides, dilations)
    rank = w.ndim - 2
    batch, (rows, *columns) = x.shape[0], windows.shape[2 + rank :]
    matrix = w.reshape(groups, w.shape[0] // groups, -1)
    row_bytes = math.prod(windows.shape) // max(rows, 1) * x.itemsize
    strip = max(1, _COLUMN_BYTES // max(row_bytes, 1))
    strips = []
    for start in range(0, rows, strip):
        part = windows[(slice(None),) * (2 + rank) + (slice(start, start + strip),)]
        unfolded = part.reshape(batch, groups, matrix.shape[2], -1)  # the only copy
        strips.append(
            multiply(matrix, unfolded).reshape(batch, w.shape[0], part.shape[2 + rank], *columns)
        )
    return strips[0] if len(strips) == 1 else np.concatenate(strips, axis=2)


def _conv(arrays: Arrays, attrs: Attrs) -> np.ndarray:
    x, w = arrays
    padded = pad_array(x, (0, 0, *attrs["before"]), (0, 0, *attrs["after"]), 0)
    return convolve(padded, w, attrs["strides"], attrs["dilations"], attrs["groups"])


def _conv_flops(inputs: Types, outputs: Types, attrs: Attrs) -> int:
    return 2 * outputs[0].elements * math.prod(inputs[1].static_shape[1:])


def _conv_loops(inputs: Types, outputs: Types, attrs: Attrs) -> tuple[Axis, ...]:
    """n, oc, oh, ow | ic (of one group), kh, kw; od and kd before them for three dimensions."""
    n, channels, *sizes = outputs[0].static_shape
    return _loops(n, channels, sizes, inputs[1].static_shape[1], inputs[1].static_shape[2:])


def _loops(
    n: int, oc: int, sizes: Sequence[int], ic: int, kernel: Sequence[int]
) -> tuple[Axis, ...]:
    names = _SPATIAL[len(sizes)]
    outer = (Axis(f"o{name}", extent) for name, extent in zip(names, sizes))
    inner = (Axis(f"k{name}", extent, reduce=True) for name, extent in zip(names, kernel))
    return (Axis("n", n), Axis("oc", oc), *outer, Axis("ic", ic, reduce=True), *inner)


def _infer_conv_transpose(inputs: Types, attrs: Attrs) -> tuple[TensorType, ...]:
    x, w = inputs
    dtype = shapes.number_dtype(inputs)
    rank = _spatial_rank(x, w)
    _need_window(attrs, rank, (*_WINDOW, "output_padding"))
    groups = _need_groups(attrs, w.static_shape[0])
    shapes.unify(x.shape[1], w.shape[0], "the input channels of data and weights")
    sizes = tuple(
        (size - 1) * stride + (k - 1) * dilation + 1 + extra - before - after
        for size, k, stride, dilation, before, after, extra in zip(
            x.shape[2:], w.static_shape[2:], *(attrs[name] for name in (*_WINDOW, "output_padding"))
        )
    )
    if any(isinstance(size, int) and size < 1 for size in sizes):
        raise InvalidGraph(f"the padding leaves nothing of the result: {shapes.show(sizes)}")
    return (TensorType(dtype, (x.shape[0], w.static_shape[1] * groups, *sizes)),)


def _conv_transpose(arrays: Arrays, attrs: Attrs) -> np.ndarray:
    """Each input element adds its multiple of the kernel into the result, one tap at a time."""
    x, w = arrays
    groups, strides, dilations = attrs["groups"], attrs["strides"], attrs["dilations"]
    batch, channels, *sizes = x.shape
    kernel, outputs = w.shape[2:], w.shape[1]
    matrix = w.reshape(groups, channels // groups, -1).transpose(0, 2, 1)
    taps = multiply(matrix, x.reshape(batch, groups, channels // groups, -1))
    taps = taps.reshape(batch, groups * outputs, *kernel, *sizes)
    full = [
        (size - 1) * stride + (k - 1) * dilation + 1 + extra
        for size, k, stride, dilation, extra in zip(
            sizes, kernel, strides, dilations, attrs["output_padding"]
        )
    ]
    total = np.zeros((batch, groups * outputs, *full), dtype=taps.dtype)
    for tap in itertools.product(*map(range, kernel)):
        starts = [t * d for t, d in zip(tap, dilations)]
        reach = [slice(a, a + (n - 1) * s + 1, s) for a, n, s in zip(starts, sizes, strides)]
        target: tuple[slice, ...] = (slice(None), slice(None), *reach)
        source: tuple[slice | int, ...] = (slice(None), slice(None), *tap)
        total[target] += taps[source]
    before, after = ([0, 0, *(-n for n in attrs[name])] for name in ("before", "after"))
    return pad_array(total, before, after, 0)


def _conv_transpose_flops(inputs: Types, outputs: Types, attrs: Attrs) -> int:
    return 2 * inputs[0].elements * math.prod(inputs[1].static_shape[1:])


def _conv_transpose_loops(inputs: Types, outputs: Types, attrs: Attrs) -> tuple[Axis, ...]:
    n, channels, *sizes = outputs[0].static_shape
    ic, _, *kernel = inputs[1].static_shape
    return _loops(n, channels, sizes, ic // attrs["groups"], kernel)


def _infer_blocked_conv(inputs: Types, attrs: Attrs) -> tuple[TensorType, ...]:
    x, w = inputs
    dtype = shapes.number_dtype(inputs)
    shapes.need_rank(x, 5, "data in layout [N, C/b, H, W, b]")
    shapes.need_rank(w, 6, "weights in layout [O/ob, IC/ib, KH, KW, ib, ob]")
    _need_window(attrs, 2, _BLOCKED_WINDOW)
    blocks, channels, kh, kw, ib, ob = w.static_shape
    groups = int(attrs["groups"])
    if groups < 1 or blocks % groups:
        raise InvalidGraph(f"{blocks} blocks of output channels do not divide into {groups} groups")
    _, own, _, _, block = x.static_shape
    if block % ib or groups * -(-channels * ib // block) != own:
        raise InvalidGraph(
            f"{groups} groups of {channels} x {ib} input channels are not {own} blocks of {block}"
        )
    sizes = _unpadded(x.shape[2:4], (kh, kw), attrs)
    return (TensorType(dtype, (x.shape[0], blocks, *sizes, ob)),)


def _unpadded(sizes: shapes.Shape, kernel: Sequence[int], attrs: Attrs) -> shapes.Shape:
    entries = zip(sizes, kernel, attrs["strides"], attrs["dilations"])
    return tuple(shapes.window_count(*entry, 0) for entry in entries)


def _blocked_conv(arrays: Arrays, attrs: Attrs) -> np.ndarray:
    x, w = arrays
    blocks, channels, kh, kw, ib, ob = w.shape
    groups = attrs["groups"]
    whole = x.reshape(x.shape[0], groups, -1, *x.shape[2:])
    data = [unpack_array(part, 1, channels * ib) for part in whole.transpose(1, 0, 2, 3, 4, 5)]
    plain = np.concatenate(data, axis=1)
    matrix = w.transpose(0, 5, 1, 4, 2, 3).reshape(blocks * ob, channels * ib, kh, kw)
    return pack_array(convolve(plain, matrix, attrs["strides"], attrs["dilations"], groups), 1, ob)


def _blocked_conv_flops(inputs: Types, outputs: Types, attrs: Attrs) -> int:
    _, channels, kh, kw, ib, _ = inputs[1].static_shape
    return 2 * outputs[0].elements * channels * kh * kw * ib


def _blocked_loops(output: TensorType) -> tuple[Axis, ...]:
    return tuple(map(Axis, ("n", "oc", "oh", "ow", "oci"), output.static_shape))


def _blocked_conv_loops(inputs: Types, outputs: Types, attrs: Attrs) -> tuple[Axis, ...]:
    """n, oc, oh, ow, oci | ic (blocks of one group), kh, kw, ici."""
    _, channels, kh, kw, ib, _ = inputs[1].static_shape
    extents = {"ic": channels, "kh": kh, "kw": kw, "ici": ib}
    inner = (Axis(name, extent, reduce=True) for name, extent in extents.items())
    return (*_blocked_loops(outputs[0]), *inner)


def _infer_blocked_depthwise_conv(inputs: Types, attrs: Attrs) -> tuple[TensorType, ...]:
    x, w = inputs
    dtype = shapes.number_dtype(inputs)
    shapes.need_rank(x, 5, "data in layout [N, C/b, H, W, b]")
    shapes.need_rank(w, 4, "weights in layout [C/b, KH, KW, b]")
    _need_window(attrs, 2, _BLOCKED_WINDOW)
    blocks, kh, kw, block = w.static_shape
    shapes.unify(x.shape[1], blocks, "the channel blocks of data and weights")
    shapes.unify(x.shape[4], block, "the channels of a block in data and weights")
    sizes = _unpadded(x.shape[2:4], (kh, kw), attrs)
    return (TensorType(dtype, (x.shape[0], blocks, *sizes, block)),)


def _blocked_depthwise_conv(arrays: Arrays, attrs: Attrs) -> np.ndarray:
    x, w = arrays
    channels = w.shape[0] * w.shape[3]
    plain, kernels = unpack_array(x, 1, channels), unpack_array(w, 0, channels)
    result = convolve(plain, kernels[:, None], attrs["strides"], attrs["dilations"], channels)
    return pack_array(result, 1, w.shape[3])


def _blocked_depthwise_flops(inputs: Types, outputs: Types, attrs: Attrs) -> int:
    _, kh, kw, _ = inputs[1].static_shape
    return 2 * outputs[0].elements * kh * kw


def _blocked_depthwise_loops(inputs: Types, outputs: Types, attrs: Attrs) -> tuple[Axis, ...]:
    _, kh, kw, _ = inputs[1].static_shape
    inner = (Axis("kh", kh, reduce=True), Axis("kw", kw, reduce=True))
    return (*_blocked_loops(outputs[0]), *inner)


_KIND = OpKind.CONTRACTION
_CONV_ATTRS = {**dict.fromkeys(_WINDOW, REQUIRED_INTS), "groups": REQUIRED_INT}
_BLOCKED_ATTRS = dict.fromkeys(_BLOCKED_WINDOW, REQUIRED_INTS)

OPS: tuple[OpDef, ...] = (
    OpDef(
        "conv",
        "Correlation of x[N, C, *S] with w[O, C/g, *K], zero padded; no bias",
        _KIND,
        (2, 2),
        _infer_conv,
        rounded(_conv),
        _CONV_ATTRS,
        _conv_flops,
        _conv_loops,
    ),
    OpDef(
        "conv_transpose",
        "The transposed map of conv: x[N, C, *S], w[C, O/g, *K], the padding cropped",
        _KIND,
        (2, 2),
        _infer_conv_transpose,
        rounded(_conv_transpose),
        {**_CONV_ATTRS, "output_padding": REQUIRED_INTS},
        _conv_transpose_flops,
        _conv_transpose_loops,
    ),
    OpDef(
        "blocked_conv",
        "conv of x[N, C/b, H, W, b] with w[O/ob, C/g/ib, KH, KW, ib, ob], ib | b, unpadded",
        _KIND,
        (2, 2),
        _infer_blocked_conv,
        rounded(_blocked_conv),
        {**_BLOCKED_ATTRS, "groups": AttrSpec((int,), 1)},
        _blocked_conv_flops,
        _blocked_conv_loops,
    ),
    OpDef(
        "blocked_depthwise_conv",
        "Each channel of x[N, C/b, H, W, b] with its kernel in w[C/b, KH, KW, b], unpadded",
        _KIND,
        (2, 2),
        _infer_blocked_depthwise_conv,
        rounded(_blocked_depthwise_conv),
        _BLOCKED_ATTRS,
        _blocked_depthwise_flops,
        _blocked_depthwise_loops,
    ),
)
