"""3x3 convolution by Winograd's minimal filtering F(2x2, 3x3), in blocked layout.

Patches of 4x4 pixels, two apart, give 2x2 pixels of the result each: patch and kernel are
transformed, multiplied element by element (summed over channels), and transformed back. That is 16
products where the direct sum has 36 (Lavin and Gray, 2015, "Fast Algorithms for Convolutional
Neural Networks"). All entries of the transforms of data are 0, 1 and -1, and those of the kernel's
0, 1/2 and 1, so that its error is about that of the direct sum.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from planish.ir.errors import InvalidGraph
from planish.ir.graph import Attrs
from planish.ir.op import Axis, OpDef, OpKind, Types
from planish.ir.ops import shapes
from planish.ir.ops.precision import rounded
from planish.ir.types import TensorType

#: Rows and columns of a patch, of what it gives, and of the kernel.
PATCH, STEP, TAPS = 4, 2, 3
#: Vector additions that transform a patch of the input, and back one of the result.
INPUT_ADDITIONS, OUTPUT_ADDITIONS = 32, 24

_INPUT = np.array([[1, 0, -1, 0], [0, 1, 1, 0], [0, -1, 1, 0], [0, 1, 0, -1]], np.float64)
_KERNEL = np.array([[1, 0, 0], [0.5, 0.5, 0.5], [0.5, -0.5, 0.5], [0, 0, 1]], np.float64)
_OUTPUT = np.array([[1, 1, 1, 0], [0, 1, -1, -1]], np.float64)


def transformed_weights(w: np.ndarray) -> np.ndarray:
    """u[O/ob, 4, 4, C/b, b, ob] of w[O/ob, C/b, 3, 3, b, ob], in float64, then in w's type."""
    exact = np.einsum("ih,ochwab,jw->oijcab", _KERNEL, w.astype(np.float64), _KERNEL, optimize=True)
    return np.ascontiguousarray(exact.astype(w.dtype))


def patches(height: int, width: int) -> int:
    """Patches of a result of that size; those that hang over an odd edge are whole ones too."""
    return -(-height // STEP) * -(-width // STEP)


def _infer(inputs: Types, attrs: Attrs) -> tuple[TensorType, ...]:
    x, u = inputs
    dtype = shapes.number_dtype(inputs)
    if not dtype.is_float:
        raise InvalidGraph(f"transforms are of floating-point numbers, got {dtype.value}")
    shapes.need_rank(x, 5, "data in layout [N, C/b, H, W, b]")
    shapes.need_rank(u, 6, "weights in layout [O/ob, 4, 4, C/b, b, ob]")
    blocks, rows, columns, channels, block, ob = u.static_shape
    if (rows, columns) != (PATCH, PATCH):
        raise InvalidGraph(f"transformed kernels of 4 x 4 are needed, got {rows} x {columns}")
    shapes.unify(x.shape[1], channels, "the channel blocks of data and weights")
    shapes.unify(x.shape[4], block, "the channels of a block in data and weights")
    sizes = tuple(shapes.window_count(size, TAPS, 1, 1, 0) for size in x.shape[2:4])
    return (TensorType(dtype, (x.shape[0], blocks, *sizes, ob)),)


def _winograd_conv(arrays: Sequence[np.ndarray], attrs: Attrs) -> np.ndarray:
    """By its own algorithm in float64: that the weights are rounded transforms is kept."""
    x, u = (array.astype(np.float64) for array in arrays)
    height, width = (size - TAPS + 1 for size in x.shape[2:4])
    odd = [(0, size % STEP) for size in (height, width)]
    whole = np.pad(x, [(0, 0), (0, 0), *odd, (0, 0)])
    windows = sliding_window_view(whole, (PATCH, PATCH), axis=(2, 3))[:, :, ::STEP, ::STEP]
    rows = _transformed(np.moveaxis(windows, (-2, -1), (0, 1)), _INPUT)
    v = np.swapaxes(_transformed(np.swapaxes(rows, 0, 1), _INPUT), 0, 1)
    products = np.einsum("ijnchwb,oijcbk->ijnohwk", v, u, optimize=True)
    rows = _transformed(products, _OUTPUT)
    y = np.swapaxes(_transformed(np.swapaxes(rows, 0, 1), _OUTPUT), 0, 1)
    y = y.transpose(2, 3, 4, 0, 5, 1, 6)  # rsnohwk → nohrwsk
    n, blocks, rows, _, columns, _, ob = y.shape
    return np.asarray(y.reshape(n, blocks, rows * STEP, columns * STEP, ob)[:, :, :height, :width])


def _transformed(x: np.ndarray, matrix: np.ndarray) -> np.ndarray:
    """matrix · x along the first axis, by additions of what is not 0 times: 0 · inf is NaN."""
    rows = [sum((c * x[i] for i, c in enumerate(row) if c), np.zeros_like(x[0])) for row in matrix]
    return np.stack(rows)


def _flops(inputs: Types, outputs: Types, attrs: Attrs) -> int:
    """What the algorithm does, not the direct sum that it saves."""
    n, blocks, height, width, ob = outputs[0].static_shape
    channels, count = inputs[0].static_shape[1] * inputs[0].static_shape[4], patches(height, width)
    products = 2 * PATCH * PATCH * channels * blocks * ob
    transforms = INPUT_ADDITIONS * channels + OUTPUT_ADDITIONS * blocks * ob
    return n * count * (products + transforms)


def _loops(inputs: Types, outputs: Types, attrs: Attrs) -> tuple[Axis, ...]:
    """n, oc, oh, ow, oci | i, j (a patch), ic, ici."""
    kept = map(Axis, ("n", "oc", "oh", "ow", "oci"), outputs[0].static_shape)
    _, rows, columns, channels, block, _ = inputs[1].static_shape
    extents = {"i": rows, "j": columns, "ic": channels, "ici": block}
    return (*kept, *(Axis(name, extent, reduce=True) for name, extent in extents.items()))


OPS: tuple[OpDef, ...] = (
    OpDef(
        "winograd_conv",
        "3x3 conv of x[N, C/b, H, W, b], unpadded, by transformed weights [O/ob, 4, 4, C/b, b, ob]",
        OpKind.CONTRACTION,
        (2, 2),
        _infer,
        rounded(_winograd_conv),
        {},
        _flops,
        _loops,
    ),
)
