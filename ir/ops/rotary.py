"""Rotary position embedding: pairs of elements of a row turned by the angles of its position."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from planish.ir.errors import InvalidGraph
from planish.ir.graph import Attrs
from planish.ir.op import OpDef, OpKind, Types
from planish.ir.ops import shapes
from planish.ir.ops.attributes import NO, REQUIRED_INT
from planish.ir.ops.precision import rounded
from planish.ir.types import TensorType

Arrays = Sequence[np.ndarray]


def _infer(inputs: Types, attrs: Attrs) -> tuple[TensorType, ...]:
    x, *tables = inputs
    shapes.float_dtype(inputs)
    width, extent = attrs["width"], x.shape[-1] if x.rank else 0
    if not isinstance(extent, int) or not 2 <= width <= extent or width % 2:
        raise InvalidGraph(f"width must be even and in 2..{extent}, got {width}")
    for table in tables:
        if not table.rank or table.shape[-1] not in (width, width // 2):
            raise InvalidGraph(
                f"tables must have rows of {width} or {width // 2} elements, got {table}"
            )
        lead = x.shape[:-1]
        if shapes.broadcast([lead, table.shape[:-1]]) != lead:
            raise InvalidGraph(f"table {table} does not broadcast to the rows of {x}")
    return (x,)


def _rotate(arrays: Arrays, attrs: Attrs) -> np.ndarray:
    x, cos, sin = (array.astype(np.float64) for array in arrays)
    width, interleaved = attrs["width"], attrs["interleaved"]
    a, b = _pairs(x[..., :width], width, interleaved)
    cos_a, cos_b = _pairs(cos, width, interleaved)
    sin_a, sin_b = _pairs(sin, width, interleaved)
    turned = (a * cos_a - b * sin_a, b * cos_b + a * sin_b)
    result = x.copy()
    for half, target in zip(turned, _pairs(result[..., :width], width, interleaved)):
        target[...] = half
    return result


def _pairs(rows: np.ndarray, width: int, interleaved: bool) -> tuple[np.ndarray, np.ndarray]:
    """Views of the first and the second elements of all pairs; half a row serves for both."""
    if rows.shape[-1] < width:
        return rows, rows
    if interleaved:
        return rows[..., 0::2], rows[..., 1::2]
    return rows[..., : width // 2], rows[..., width // 2 :]


def _flops(inputs: Types, outputs: Types, attrs: Attrs) -> int:
    """Two products and a sum for each element that is turned."""
    rows = inputs[0].elements // inputs[0].static_shape[-1]
    return 3 * rows * int(attrs["width"])


OPS: tuple[OpDef, ...] = (
    OpDef(
        "rotary_embedding",
        "x with the pairs (a, b) among the first `width` elements of each row turned to "
        "(a·cos - b·sin, b·cos + a·sin): elements i and i + width/2, interleaved 2i and 2i + 1; "
        "cos and sin broadcast, in rows of `width`, or of width/2 for both elements of a pair",
        OpKind.MOVEMENT,  # fused as such: an element of the result is read from two places
        (3, 3),
        _infer,
        rounded(_rotate),
        {"width": REQUIRED_INT, "interleaved": NO},
        _flops,
    ),
)
