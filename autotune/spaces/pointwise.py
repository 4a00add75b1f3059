"""Kernels of element-wise ops and movement: flat or row loops, vector innermost.

Where a kernel only permutes and source and result have other innermost dimensions: register tiles.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from planish.autotune.analytic import Numbers, Work
from planish.autotune.spaces.space import LENGTHY, Choices, Points, Space, Steps
from planish.autotune.spaces.streams import (
    by_rows,
    from_others,
    in_vectors,
    instructions_of,
    moved,
    shares_rows,
    vectors_fit,
)
from planish.ir.graph import Node
from planish.ir.op import OpKind
from planish.ir.ops import op_def
from planish.ir.target import CACHE_LINE, Target
from planish.passes.fuse import inner_root, is_padded
from planish.passes.local.permutation import permutation, turned
from planish.passes.local.stages import vector_axis

#: Movement ops that choose between sources by index: a vector of them would become lane by lane
#: code, while LLVM unrolls the scalar loop well.
_BRANCHING = frozenset(("concat", "pad", "gather", "gather_elements", "gather_nd"))

#: Bytes of the pieces in which a tile's rows are read.
_PIECE = 16
#: Part of the time of moving a tensor that each doubling of the distance of its rows costs where
#: one line of a row comes after one of another, and what lines cost that hold parts of two pieces.
_FURTHER, _PARTIAL = 1 / 64, 0.25
#: Part of the time of fetching a line that each return to it takes, for tiles narrower than lines.
_AGAIN = 0.25
#: Tiles that a task takes, about.
_RUN = 16


def _is_flat(kernel: Node) -> bool:
    """True if every tensor is read in the order in which it lies in memory."""
    (body,) = kernel.regions
    shape = kernel.output.type.shape
    if is_padded(body) or len(shape) < 2:
        return False
    return all(
        op_def(node.op).kind is OpKind.ELEMENTWISE or node.op == "reshape" for node in body.nodes
    ) and all(value.type.shape == shape or value.type.elements == 1 for value in body.inputs)


def _innermost(kernel: Node) -> int:
    """The last axis of the result that has more than one element."""
    return vector_axis(inner_root(kernel.regions[0]).type.static_shape)


def _is_vectorizable(kernel: Node) -> bool:
    """True if a vector of the last axis is read from one place in each source."""
    (body,) = kernel.regions
    behind = kernel.output.type.rank - 1 - _innermost(kernel)  # axes of one element after it
    for node in body.nodes:
        last = node.output.type.rank - 1 - behind
        if not node.output.type.rank or (node.output is body.outputs[0] and is_padded(body)):
            continue
        if node.op == "pad" and not (node.attrs["before"][last] or node.attrs["after"][last]):
            continue
        if node.op == "concat" and node.attrs["axis"] % node.output.type.rank != last:
            continue
        if node.op == "gather" and node.attrs["axis"] % node.inputs[0].type.rank != (
            node.inputs[0].type.rank - 1 - behind
        ):
            continue
        if node.op in _BRANCHING or node.op in ("pack", "unpack", "reshape"):
            return False
        if node.op == "transpose" and node.attrs["perm"][last] != last:
            return False
    return True


def _lanes(kernel: Node, target: Target) -> int:
    sizes = [node.output.type.dtype.itemsize for node in kernel.regions[0].nodes]
    return target.lanes(max(sizes))


def _tiles(kernel: Node, target: Target) -> tuple[int, ...]:
    """Sizes of square register tiles that turn the source's innermost digit; none if none does."""
    digits = permutation(kernel.regions[0])
    column = turned(digits) if digits else None
    if not digits or column is None:
        return ()
    most = min(_lanes(kernel, target), column.extent, digits[-1].extent)
    return tuple(size for size in (4, 8, 16) if size <= most)


def options(kernel: Node, target: Target) -> Mapping[str, tuple[Any, ...]]:
    """Choices: `flat` (one loop), `vector` (lanes), `overlap` (a last vector is moved back), `tile`
    (0, or the size of register tiles, which take the place of these), `order` (the tensor in which
    tiles follow each other: the one that is read, or the one that is written), `share` (what cores
    take: a part of the loops, or of the rows of an image, as convolutions do), `parallel`."""
    lanes, tiles = _lanes(kernel, target), _tiles(kernel, target)
    return {
        "flat": (False, True) if _is_flat(kernel) else (False,),
        "vector": tuple(v for v in (1, 4, 8, 16, 32) if v <= 2 * lanes),
        "overlap": (False, True),
        "tile": (0, *tiles),
        "order": ("written", "read") if tiles else ("written",),
        "share": ("loops", "rows") if shares_rows(kernel, target) else ("loops",),
        "parallel": (False, True),
    }


def _extent(kernel: Node, flat: np.ndarray) -> np.ndarray:
    """Elements of the loop that vectors are of."""
    shape = inner_root(kernel.regions[0]).type.static_shape
    row = shape[_innermost(kernel)] if shape else 1
    return np.where(flat, math.prod(shape), row)


def _legal(kernel: Node, target: Target, points: Points) -> np.ndarray:
    """Whole vectors, or one that is moved back; tiles and shared rows have no flat loop."""
    flat, tile = points["flat"], points["tile"] > 0
    fits = vectors_fit(_extent(kernel, flat), points)
    alone = ~tile | (~flat & (points["vector"] == 1))
    alone = alone & (tile | (points["order"] == "written"))
    rows = points["share"] == "rows"
    return np.asarray(fits & alone & (~rows | (points["parallel"] & ~flat)))


def _registers(kernel: Node, target: Target, vector: np.ndarray) -> np.ndarray:
    """Registers for the vectors of a step; a polynomial keeps its constants, and some steps."""
    lengthy = instructions_of(kernel) >= min(LENGTHY.values())
    each = 2 + len(kernel.inputs) + (4 if lengthy else 0)
    return np.ceil(vector / _lanes(kernel, target)) * each + (6 if lengthy else 0)


def _scattered(stride: int) -> float:
    """Times as long that lines of rows take which are so many bytes apart, one of each in turn.

    Lines that follow each other are fetched ahead; rows far apart share sets of a cache, and
    pages; a row that does not begin with a line leaves parts, which are fetched twice.
    """
    return 1 + _FURTHER * math.log2(stride) + (_PARTIAL if stride % CACHE_LINE else 0.0)


def _turning(kernel: Node, points: Points) -> dict[str, Numbers]:
    """Fields of Work of register tiles; `parts` is how many times as long bytes take."""
    digits, itemsize = permutation(kernel.regions[0]), kernel.output.type.dtype.itemsize
    column = turned(digits) if digits else None
    if not digits or column is None:
        return {}
    size, row = np.maximum(points["tile"], 1), digits[-1]
    piece = np.minimum(size, _PIECE // itemsize)
    others = kernel.output.type.elements // (row.extent * column.extent)
    count = others * -(-row.extent // size) * -(-column.extent // size)
    lines = np.maximum(1, CACHE_LINE / (size * itemsize))
    apart = np.where(
        points["order"] == "read",
        _scattered(column.written * itemsize),
        _scattered(row.read * itemsize),
    )
    return {
        "multiplies": np.log2(piece),
        "loads": size / piece + 1,
        "steps": size * _RUN,
        "tiles": count / _RUN,
        "parts": (1 + _AGAIN * (lines - 1)) * apart,
        "vector_bytes": size * itemsize,
    }


def _work(kernel: Node, target: Target, points: Points) -> Work:
    (body,) = kernel.regions
    out = inner_root(body).type
    vector, tile = points["vector"], points["tile"] > 0
    extent = _extent(kernel, points["flat"])
    # Lane by lane, where a vector is not read from one place.
    together = _is_vectorizable(kernel) or _is_flat(kernel)
    lanes = _lanes(kernel, target)
    each = np.ceil(vector / lanes) if together else 2 * vector
    l2, l3 = moved(kernel, target)
    rows = points["share"] == "rows"
    plain: dict[str, Numbers] = {
        "multiplies": instructions_of(kernel) * each,
        "loads": (len(body.inputs) + 1) * each,
        "steps": -(-extent // vector),
        "tiles": out.elements // np.maximum(extent, 1),
        "vector_bytes": target.vector_bytes,
    }
    turning = _turning(kernel, points)
    parts = turning.pop("parts", 1.0)
    fields = {name: np.where(tile, turning.get(name, 0.0), n) for name, n in plain.items()}
    return Work(
        **fields,
        sums=1e9,  # no step waits for another
        registers=_registers(kernel, target, vector),
        finish=0.0,
        l2=l2 * parts,
        l3=l3 * parts,
        shares=np.where(rows, target.cores, np.maximum(out.elements // vector, 1)),
        parallel=points["parallel"],
        **from_others(kernel, target, points),
    )


def directives(kernel: Node, target: Target, choices: Choices) -> Steps:
    """out: (all but the last axis) parallel | last axis in vectors; trailing ones left out."""
    if choices["tile"]:
        return []
    last = 0 if choices["flat"] else _innermost(kernel)
    outer = [f"d{i}" for i in range(last)]
    steps: Steps = []
    innermost = in_vectors(steps, last, choices)
    if choices["flat"] or not outer:
        outer.append(innermost)
    if choices["share"] == "rows":
        return [*steps, *by_rows(kernel, target, outer)]
    if choices["parallel"]:
        if len(outer) > 1:
            steps.append(("fuse", "out", tuple(outer), "task"))
        steps.append(("parallel", "out", "task" if len(outer) > 1 else outer[0]))
    return steps


def emitter(choices: Choices) -> str | None:
    """Register tiles are written by an emitter."""
    return "permute" if choices["tile"] else None


SPACE = Space(
    "pointwise",
    (),
    options,
    None,
    directives,
    version=4,
    emitter=emitter,
    legal=_legal,
    work=_work,
)
