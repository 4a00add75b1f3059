"""Row-wise kernels: trailing reductions, softmax and layer norm, all stages under one row loop."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from planish.autotune.spaces.space import (
    Choices,
    Space,
    Steps,
    is_parallel,
    required_anchor,
    widest_vector,
)
from planish.ir.graph import Node
from planish.ir.target import Target
from planish.passes.fuse import inner_root

_NORMS = ("layer_norm", "rms_norm")


def _rows(kernel: Node) -> tuple[tuple[int, ...], int, bool]:
    """Outer extents, row length, and whether a row's elements lie side by side."""
    anchor = required_anchor(kernel)
    shape = anchor.inputs[0].type.static_shape
    if anchor.op in _NORMS:
        axis = anchor.attrs["axis"] % len(shape)
        return shape[:axis], math.prod(shape[axis:]), True
    if "softmax" in anchor.op:
        axis = anchor.attrs["axis"] % len(shape)
        return (*shape[:axis], *shape[axis + 1 :]), shape[axis], axis == len(shape) - 1
    axes = anchor.attrs["axes"]
    outer = tuple(n for d, n in enumerate(shape) if d not in axes)
    return outer, math.prod(shape[d] for d in axes), True


def has_rows(kernel: Node) -> bool:
    """True if the reduction's axes are the trailing ones."""
    anchor = required_anchor(kernel)
    rank = anchor.inputs[0].type.rank
    return tuple(anchor.attrs["axes"]) == tuple(range(rank - len(anchor.attrs["axes"]), rank))


def options(kernel: Node, target: Target) -> Mapping[str, tuple[Any, ...]]:
    """Choices: `lanes` (partial results), `vector` (lanes of the output), `parallel`."""
    anchor = required_anchor(kernel)
    lanes = target.lanes(anchor.inputs[0].type.dtype.itemsize)
    return {
        "rows": (True,),
        "lanes": (1, lanes, 2 * lanes, 4 * lanes),
        # A reduction leaves one element of a row: no row of the output to take in vectors.
        "vector": (1,) if anchor.op.startswith("reduce") else (1, lanes),
        "parallel": (False, True),
    }


def pick(kernel: Node, target: Target) -> Choices:
    """Two vectors of partial results hide the latency of the adder."""
    lanes = target.lanes(required_anchor(kernel).inputs[0].type.dtype.itemsize)
    _, length, contiguous = _rows(kernel)
    count = next((c for c in (2 * lanes, lanes) if length >= 2 * c), 1) if contiguous else 1
    shape = inner_root(kernel.regions[0]).type.static_shape
    vector = 1
    if not required_anchor(kernel).op.startswith("reduce") and shape:
        vector = widest_vector(shape[-1], lanes) if contiguous else 1
    return {
        "rows": True,
        "lanes": count,
        "vector": vector,
        "parallel": is_parallel(kernel, target),
    }


def _stages(kernel: Node, lanes: int, length: int) -> list[str]:
    """The stages before `out`, last first."""

    def reduction(name: str) -> list[str]:
        if lanes <= 1 or length < 2 * lanes:
            return [name]
        if length % lanes == 0:
            return [name, f"{name}_part"]
        return [name, f"{name}_lanes", f"{name}_tail", f"{name}_part"]

    op = required_anchor(kernel).op
    if op == "layer_norm":
        return ["inverse", *reduction("squares"), "mean", *reduction("sum")]
    if op == "rms_norm":
        return ["inverse", *reduction("squares")]
    if op == "softmax":
        return [*reduction("sum"), "exp", *reduction("max")]
    if op == "log_softmax":
        return [*reduction("sum"), *reduction("max")]
    return reduction("acc")


def directives(kernel: Node, target: Target, choices: Choices) -> Steps:
    """row (parallel) | each stage in turn, partial results in vectors | out in vectors."""
    outer, length, contiguous = _rows(kernel)
    out_rank = max(1, kernel.output.type.rank)
    anchor = required_anchor(kernel)
    if anchor.op.startswith("reduce"):
        lead = [f"d{i}" for i in range(out_rank)]
    elif anchor.op in _NORMS:
        lead = [f"d{i}" for i in range(len(outer))]
    else:
        lead = [f"d{i}" for i in range(anchor.attrs["axis"] % out_rank)]
    if not lead:
        return []
    steps: Steps = []
    row = lead[0]
    if len(lead) > 1:
        row = "row"
        steps.append(("fuse", "out", tuple(lead), row))
    if choices["parallel"]:
        steps.append(("parallel", "out", row))
    stages = _stages(kernel, choices["lanes"], length)
    steps += [("compute_at", stage, "out", row) for stage in stages]
    for stage in stages:
        if stage.endswith("_part"):
            steps += [
                ("reorder", stage, ("ko", "lane")),
                ("vectorize", stage, "lane"),
                ("decompose_reduction", stage, "ko"),
                ("vectorize", f"{stage}.init", "lane"),
            ]
    if contiguous and choices["vector"] > 1:
        last = f"d{out_rank - 1}"
        steps += [
            ("split", "out", last, choices["vector"], f"{last}.o", f"{last}.v"),
            ("vectorize", "out", f"{last}.v"),
        ]
        if anchor.op == "softmax" and length % choices["vector"] == 0:
            steps += [
                ("split", "exp", "k", choices["vector"], "k.o", "k.v"),
                ("vectorize", "exp", "k.v"),
            ]
    return steps


SPACE = Space(
    "rows",
    (
        "reduce_sum",
        "reduce_mean",
        "reduce_max",
        "reduce_min",
        "reduce_prod",
        "softmax",
        "log_softmax",
        *_NORMS,
    ),
    options,
    pick,
    directives,
)
