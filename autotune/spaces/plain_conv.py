"""Direct convolution in plain layout: a register tile of channels by vectors of output columns.

For few channels: blocks of channels would be mostly padding, while rows of pixels fill vectors.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from planish.autotune.analytic import Work, reads
from planish.autotune.spaces.space import (
    Choices,
    Points,
    Space,
    Steps,
    finishing,
    moving,
    required_anchor,
)
from planish.ir.graph import Node
from planish.ir.target import Target


def _columns(kernel: Node) -> int:
    return required_anchor(kernel).output.type.static_shape[-1]


def _lanes(kernel: Node, target: Target) -> tuple[int, ...]:
    """Vector widths along a row; strided rows are read element by element."""
    anchor = required_anchor(kernel)
    lanes = target.lanes(anchor.output.type.dtype.itemsize)
    if anchor.attrs["strides"][-1] != 1:
        return (1,)
    return tuple(v for v in (1, 2, 4, 8, 16) if v <= min(lanes, _columns(kernel)))


def options(kernel: Node, target: Target) -> Mapping[str, tuple[Any, ...]]:
    """Choices: `oc` (channels of a tile), `ow` (columns of a tile), `vector`, `parallel`."""
    anchor = required_anchor(kernel)
    per_group = anchor.output.type.static_shape[1] // anchor.attrs["groups"]
    vectors = _lanes(kernel, target)
    most = target.vector_registers - 4
    columns = {v * u for v in vectors for u in range(1, most + 1) if v * u <= _columns(kernel)}
    return {
        "oc": tuple(u for u in range(1, 9) if per_group % u == 0),
        "ow": tuple(sorted(columns)),
        "vector": vectors,
        "parallel": (False, True),
    }


def _legal(kernel: Node, target: Target, points: Points) -> np.ndarray:
    """Tiles are whole vectors."""
    return np.asarray(points["ow"] % points["vector"] == 0)


def _work(kernel: Node, target: Target, points: Points) -> Work:
    anchor = required_anchor(kernel)
    x, w, out = (value.type for value in (*anchor.inputs[:2], anchor.output))
    channels, vector = points["oc"], points["vector"]
    count = points["ow"] // vector
    again = out.static_shape[1] // channels
    rows = out.elements // (out.static_shape[1] * out.static_shape[-1])
    tiles = rows * -(-out.static_shape[-1] // points["ow"]) * again
    input_l2, input_l3 = reads(target, x.nbytes, again)
    moved = moving(kernel, target)
    return Work(
        multiplies=channels * count,
        sums=channels * count,
        loads=channels + 1.5 * count,  # half of the vectors of pixels cross a cache line
        registers=channels * count + channels + 1,
        steps=w.elements // w.static_shape[0],
        tiles=tiles,
        finish=channels * count * finishing(kernel),
        l2=input_l2 + moved[0],
        l3=input_l3 + moved[1],
        shares=tiles,
        parallel=points["parallel"],
        vector_bytes=vector * out.dtype.itemsize,
    )


def directives(kernel: Node, target: Target, choices: Choices) -> Steps:
    """n, oc.o, o.., ow (parallel) | ic, k.. | ow.u, oc.i unrolled | ow.v vector."""
    rank = required_anchor(kernel).output.type.rank
    leading = tuple(f"o{d}" for d in range(rank - 3))
    lead = ("n", "oc.o", *leading, "ow")
    reduced = ("ic", *(f"k{d}" for d in range(rank - 2)))
    steps: Steps = [
        ("split", "acc", "oc", choices["oc"], "oc.o", "oc.i"),
        ("split", "acc", "ow.i", choices["vector"], "ow.u", "ow.v"),
        ("reorder", "acc", (*lead, *reduced, "ow.u", "oc.i", "ow.v")),
        ("fuse", "acc", lead, "task"),
        ("reverse_compute_at", "out", "acc", "task"),
        ("set_scope", "acc", "local"),
        ("split", "out", "ow.i", choices["vector"], "ow.u", "ow.v"),
        ("unroll", "out", "ow.u"),
        ("unroll", "out", "oc"),
    ]
    if choices["parallel"]:
        steps.append(("parallel", "acc", "task"))
    vector = choices["vector"] > 1
    for stage in ("out", "acc", "acc.init"):
        if stage == "acc.init":
            steps.append(("decompose_reduction", "acc", reduced[0]))
        if stage != "out":
            steps += [("unroll", stage, "ow.u"), ("unroll", stage, "oc.i")]
        if vector:
            steps.append(("vectorize", stage, "ow.v"))
    return steps


SPACE = Space(
    "plain_conv",
    ("conv",),
    options,
    None,
    directives,
    legal=_legal,
    work=_work,
)
