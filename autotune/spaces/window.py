"""Reductions over leading or inner axes, and pooling.

The result's last axis stays innermost: it is what lies side by side in memory.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from planish.autotune.analytic import Work
from planish.autotune.spaces.space import Choices, Points, Space, Steps, required_anchor
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
from planish.ir.target import Target
from planish.passes.fuse import inner_root
from planish.passes.local.stages import is_aligned, vector_axis

#: Vectors of sums up to which LLVM writes the loop over them out, and wants them in registers.
_WRITTEN_OUT = 64
#: Bytes that could be read in the time that a row's first ones take to come.
_BEGINNING = 384


def _reduced(anchor: Node) -> list[str]:
    """Names of the reduction loops, as the expressions give them."""
    if anchor.op == "pool":
        return [f"w{d}" for d, n in enumerate(anchor.attrs["window"]) if n > 1] or ["w0"]
    return [f"r{i}" for i in range(len(anchor.attrs["axes"]))]


def _reads_last_axis_in_order(anchor: Node) -> bool:
    last = anchor.inputs[0].type.rank - 1
    if anchor.op == "pool":
        a = anchor.attrs
        return all(a[name][last] == one for name, one in (("window", 1), ("strides", 1)))
    return last not in anchor.attrs["axes"]


def options(kernel: Node, target: Target) -> Mapping[str, tuple[Any, ...]]:
    """Choices: `vector` (elements of the last axis at once), `overlap` (a last vector is moved
    back), `block` (vectors of a task, the sums of which are in memory if several), `share` (what
    cores take: a part of the loops, or of an image's rows), `parallel`."""
    lanes = target.lanes(required_anchor(kernel).output.type.dtype.itemsize)
    row, overlap = _row(kernel), _may_overlap(kernel)
    widths = [v for v in (2, 4, 8, 16, 32, 64) if v <= min(4 * lanes, row)]
    return {
        "rows": (False,),
        "vector": (1, *(v for v in widths if overlap or row % v == 0)),
        "overlap": (False, True) if overlap else (False,),
        "block": (1, 4, 8, 16, 32) if _in_blocks(kernel) else (1,),
        "share": ("loops", "rows") if _is_image(kernel, target) else ("loops",),
        "parallel": (False, True),
    }


def _is_image(kernel: Node, target: Target) -> bool:
    return required_anchor(kernel).op == "pool" and shares_rows(kernel, target)


def _in_blocks(kernel: Node) -> bool:
    """True for sums of columns: rows are read in blocks of them, as they lie in memory."""
    anchor = required_anchor(kernel)
    return anchor.op != "pool" and _reads_last_axis_in_order(anchor)


def _row(kernel: Node) -> int:
    """Elements of the result's last axis."""
    shape = inner_root(kernel.regions[0]).type.static_shape
    return shape[-1] if shape else 1


def _may_overlap(kernel: Node) -> bool:
    """True if `acc` has the vectors of the result."""
    anchor, shape = required_anchor(kernel), inner_root(kernel.regions[0]).type.static_shape
    return (
        _reads_last_axis_in_order(anchor)
        and len(shape) > 0
        and vector_axis(shape) == len(shape) - 1
        and is_aligned(kernel.regions[0], anchor)
    )


def _legal(kernel: Node, target: Target, points: Points) -> np.ndarray:
    """Whole vectors, or one that is moved back; cores that share rows are several."""
    fits = vectors_fit(np.asarray(_row(kernel)), points)
    fits = fits & ((points["share"] != "rows") | points["parallel"])
    block, vector = points["block"], points["vector"]
    whole = -(-_row(kernel) // vector) % block == 0
    return np.asarray(fits & whole & ((vector > 1) | (block == 1)))


def _work(kernel: Node, target: Target, points: Points) -> Work:
    """A step is one element of the window for a vector of results."""
    anchor, out = required_anchor(kernel), kernel.output.type
    itemsize, vector = anchor.output.type.dtype.itemsize, points["vector"]
    wide = np.minimum(vector, target.lanes(itemsize))
    # Lane by lane, where neighbours of the result are not neighbours of the source.
    count = vector / wide if _reads_last_axis_in_order(anchor) else 2.0 * vector
    if anchor.op == "pool":
        steps = math.prod(anchor.attrs["window"])
    else:
        steps = math.prod(anchor.inputs[0].type.static_shape[d] for d in anchor.attrs["axes"])
    row = _row(kernel)
    block = points["block"]
    tiles = out.elements // max(row, 1) * -(-row // vector)
    l2, l3 = moved(kernel, target)
    # What is read of a row before the next is no stream that a core would fetch ahead.
    scattered = 1 + _BEGINNING / (block * vector * itemsize) if _in_blocks(kernel) else 1.0
    together = count * np.where(_in_blocks(kernel), block, 1)
    in_memory = np.where(block > 1, 2 * count, 0)
    return Work(
        multiplies=count,
        sums=np.where(block > 1, 1e9, count),
        loads=count + in_memory,
        registers=np.where(together <= _WRITTEN_OUT, together + 2, 0),
        steps=steps,
        tiles=tiles,
        finish=count * instructions_of(kernel),
        l2=l2 * scattered,
        l3=l3 * scattered,
        shares=np.where(points["share"] == "rows", target.cores, tiles // block),
        parallel=points["parallel"],
        vector_bytes=target.vector_bytes,
        **from_others(kernel, target, points),
    )


def directives(kernel: Node, target: Target, choices: Choices) -> Steps:
    """leading axes (parallel) | last.o | reduction | last.v vector."""
    anchor = required_anchor(kernel)
    rank, vector = max(1, kernel.output.type.rank), choices["vector"]
    steps: Steps = []
    innermost = in_vectors(steps, rank - 1, choices)
    lead = [f"d{i}" for i in range(rank - 1)]
    if vector > 1 or rank == 1:
        lead.append(innermost)
    if choices["share"] == "rows":
        steps += by_rows(kernel, target, lead)
        lead = ["d1", "d2.c", *lead[3:]]
    if choices["block"] > 1:
        steps.append(("split", "out", lead[-1], choices["block"], "block.o", "block.i"))
        lead[-1] = "block.o"
    task = lead[0]
    if len(lead) > 1:
        task = "task"
        steps.append(("fuse", "out", tuple(lead), task))
    if choices["parallel"] and choices["share"] != "rows":
        steps.append(("parallel", "out", task))
    steps.append(("compute_at", "acc", "out", task))
    last = _last_kept(anchor, rank)
    if last is None or vector == 1:
        return steps
    return [*steps, *_sums(_reduced(anchor), last, choices)]


def _sums(reduced: list[str], last: int, choices: Choices) -> Steps:
    """acc: reduction | vectors of a block | vector of the axis `last`."""
    steps: Steps = []
    columns, lane = [f"d{last}"], f"d{last + 1}"
    if not choices["overlap"]:
        columns, lane = [], f"d{last}"
        if choices["block"] > 1:
            columns, lane = [f"d{last}.o"], f"d{last}.v"
            steps.append(("split", "acc", f"d{last}", choices["vector"], *columns, lane))
    return [
        *steps,
        ("reorder", "acc", (*reduced, *columns, lane)),
        ("vectorize", "acc", lane),
        ("decompose_reduction", "acc", reduced[0]),
        ("vectorize", "acc.init", lane),
    ]


def _last_kept(anchor: Node, rank: int) -> int | None:
    """The number of the stage's last axis that is kept, which vectors run along."""
    if anchor.op == "pool":
        return rank - 1
    kept = anchor.inputs[0].type.rank - len(anchor.attrs["axes"])
    return kept - 1 if kept else None


SPACE = Space("window", ("pool",), options, None, directives, version=2, legal=_legal, work=_work)
