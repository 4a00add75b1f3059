"""Matrix products: a register tile of rows by a panel of columns."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from planish.autotune.analytic import Work, again_from_l2, reads
from planish.autotune.spaces.register_tiles import keeps_broadcasts, product_registers
from planish.autotune.spaces.space import (
    Choices,
    Points,
    Space,
    Steps,
    epilogues,
    finish_cost,
    moving,
    partial_sum,
    required_anchor,
    tile_candidates,
    widest_vector,
)
from planish.ir.graph import Node
from planish.ir.target import Target

#: Copies of the innermost statement at most: more take minutes to compile, and run no faster.
MOST_BODIES = 256


def _panel(kernel: Node, target: Target) -> tuple[int, ...]:
    """Panel widths (columns of a tile) that the right operand allows."""
    anchor = required_anchor(kernel)
    if anchor.op == "packed_matmul":
        return (anchor.inputs[1].type.static_shape[2],)
    columns = anchor.output.type.static_shape[-1]
    lanes = target.lanes(anchor.output.type.dtype.itemsize)
    vector = widest_vector(columns, lanes)
    return tuple(vector * u for u in (4, 3, 2, 1) if columns % (vector * u) == 0)


def options(kernel: Node, target: Target) -> Mapping[str, tuple[Any, ...]]:
    """Choices: `m` (rows of a tile), `n` (columns of a tile), `vector` (lanes), `outer` (what the
    outermost loop runs over: columns or rows), `chunk` (products of a partial sum), `epilogue`
    (its loops unrolled, or not where the sums are in memory), `parallel`.

    Narrow vectors are none: LLVM joins them into wide ones alone, but not in a kernel whose result
    takes the memory of an operand.
    """
    rows = required_anchor(kernel).output.type.static_shape[-2]
    lanes = target.lanes(required_anchor(kernel).output.type.dtype.itemsize)
    depth = required_anchor(kernel).inputs[0].type.static_shape[-1]
    chunk = partial_sum(depth, 1)
    panels = _panel(kernel, target)
    widest = widest_vector(math.gcd(*panels), min(lanes, 16))
    return {
        "m": tile_candidates(rows, target.vector_registers - 3),
        "n": panels,
        "vector": (widest // 2, widest) if widest >= 8 else (widest,),
        "outer": ("columns", "rows"),
        "chunk": (chunk,),
        "epilogue": epilogues(chunk != depth),
        "parallel": (False, True),
    }


def _legal(kernel: Node, target: Target, points: Points) -> np.ndarray:
    """Columns of a tile are whole vectors, and few enough to be written out."""
    bodies = points["m"] * points["n"] // points["vector"]
    return np.asarray((points["n"] % points["vector"] == 0) & (bodies <= MOST_BODIES))


def _work(kernel: Node, target: Target, points: Points) -> Work:
    anchor = required_anchor(kernel)
    a, b, out = (value.type for value in (*anchor.inputs[:2], anchor.output))
    depth, size = a.static_shape[-1], out.dtype.itemsize
    rows, columns = out.static_shape[-2:]
    batch = math.prod(out.static_shape[:-2])
    down, across = -(-rows // points["m"]), -(-columns // points["n"])
    vectors = points["n"] // points["vector"]
    sums = points["m"] * vectors
    by_columns = points["outer"] == "columns"
    several = max(1, batch)
    left_l2, left_l3 = reads(target, a.nbytes / several, np.where(by_columns, across, 1))
    right_l2, right_l3 = reads(target, b.nbytes / several, np.where(by_columns, 1, down))
    tile = np.where(by_columns, points["n"], points["m"]) * depth * size
    inner = again_from_l2(target, tile, down * across)
    tiles = batch * down * across
    moved = moving(kernel, target)
    return Work(
        multiplies=sums,
        sums=sums,
        loads=points["m"] + vectors,
        registers=product_registers(target, points["m"], vectors),
        steps=depth,
        tiles=tiles,
        finish=finish_cost(kernel, sums, points["epilogue"]),
        l2=batch * (left_l2 + right_l2 + inner) + moved[0],
        l3=batch * (left_l3 + right_l3) + moved[1],
        shares=tiles,
        parallel=points["parallel"],
        vector_bytes=points["vector"] * size,
    )


def directives(kernel: Node, target: Target, choices: Choices) -> Steps:
    """b.., n.o, m (parallel) | k | m.i, n.u unrolled | n.v vector."""
    batch = [f"b{d}" for d in range(required_anchor(kernel).output.type.rank - 2)]
    tiles = ("n.o", "m") if choices["outer"] == "columns" else ("m", "n.o")
    lead = (*batch, *tiles)
    partial = choices["chunk"] != required_anchor(kernel).inputs[0].type.static_shape[-1]
    reduced = "part" if partial else "k"
    by_vectors = bool(keeps_broadcasts(target, choices["m"], choices["n"] // choices["vector"]))
    tile = ("n.u", "m.i", "n.v") if by_vectors else ("m.i", "n.u", "n.v")
    steps: Steps = [
        ("split", "acc", "n", choices["n"], "n.o", "n.i"),
        ("split", "acc", "n.i", choices["vector"], "n.u", "n.v"),
        ("reorder", "acc", (*lead, reduced, *tile)),
        ("fuse", "acc", lead, "task"),
        ("reverse_compute_at", "out", "acc", "task"),
        ("set_scope", "acc", "local"),
        ("split", "out", "n", choices["vector"], "n.u", "n.v"),
        *_unrolled("out", choices, choices["epilogue"] == "unrolled"),
    ]
    if choices["parallel"]:
        steps.append(("parallel", "acc", "task"))
    if partial:
        steps += [
            ("compute_at", "part", "acc", "part"),
            ("set_scope", "part", "local"),
            ("split", "part", "n", choices["vector"], "n.u", "n.v"),
            ("reorder", "part", ("k", *tile)),
            *_unrolled("part", choices),
            ("decompose_reduction", "part", "k"),
            *_unrolled("part.init", choices),
        ]
    steps += [*_unrolled("acc", choices), ("decompose_reduction", "acc", reduced)]
    return [*steps, *_unrolled("acc.init", choices)]


def _unrolled(stage: str, choices: Choices, written_out: bool = True) -> Steps:
    """A register tile: vectors along the columns, all else written out."""
    steps: Steps = [("unroll", stage, "m.i"), ("unroll", stage, "n.u")] if written_out else []
    return [*steps, ("vectorize", stage, "n.v")] if choices["vector"] > 1 else steps


SPACE = Space(
    "matmul",
    ("matmul", "packed_matmul"),
    options,
    None,
    directives,
    version=4,
    legal=_legal,
    work=_work,
)
