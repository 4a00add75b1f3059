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
from planish.passes.local.stages import fold_widths

_NORMS = ("layer_norm", "rms_norm")
_ARGS = ("arg_max", "arg_min")


def _rows(kernel: Node) -> tuple[tuple[int, ...], int, bool]:
    """Outer extents, row length, and whether a row's elements lie side by side."""
    anchor = required_anchor(kernel)
    shape = anchor.inputs[0].type.static_shape
    if anchor.op in _NORMS:
        axis = anchor.attrs["axis"] % len(shape)
        return shape[:axis], math.prod(shape[axis:]), True
    if "softmax" in anchor.op or anchor.op in _ARGS:
        axis = anchor.attrs["axis"] % len(shape)
        return (*shape[:axis], *shape[axis + 1 :]), shape[axis], axis == len(shape) - 1
    axes = anchor.attrs["axes"]
    outer = tuple(n for d, n in enumerate(shape) if d not in axes)
    return outer, math.prod(shape[d] for d in axes), True


def _leaves_one(kernel: Node) -> bool:
    """True if a row of the input becomes one element of the output."""
    anchor = required_anchor(kernel)
    return anchor.op.startswith("reduce") or (anchor.op in _ARGS and _rows(kernel)[2])


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
        "vector": (1,) if _leaves_one(kernel) else (1, lanes),
        "parallel": (False, True),
    }


def pick(kernel: Node, target: Target) -> Choices:
    """As many partial results as hide the latency of the adder and leave a short tail."""
    lanes = target.lanes(required_anchor(kernel).inputs[0].type.dtype.itemsize)
    _, length, contiguous = _rows(kernel)
    counts = [c for c in (lanes, 2 * lanes, 4 * lanes) if length >= 2 * c] if contiguous else []
    shape = inner_root(kernel.regions[0]).type.static_shape
    vector = 1
    if not _leaves_one(kernel) and shape:
        vector = widest_vector(shape[-1], lanes)
    return {
        "rows": True,
        "lanes": min(counts, key=lambda count: _row_cycles(length, count, lanes), default=1),
        "vector": vector,
        "parallel": is_parallel(kernel, target),
    }


def _row_cycles(length: int, count: int, lanes: int) -> float:
    """Cycles for the sum of a row: an adder takes four, two vectors are loaded a cycle."""
    body = length // count * max(4.0, count / lanes / 2)
    return body + 4 * (length % count) + 8 * len(fold_widths(count))


def _stages(kernel: Node, lanes: int, length: int) -> list[str]:
    """The stages before `out`, last first."""

    def reduction(name: str) -> list[str]:
        if lanes <= 1 or length < 2 * lanes:
            return [name]
        folds = [f"{name}_{width}" for width in reversed(fold_widths(lanes))]
        ends = [] if length % lanes == 0 else [f"{name}_lanes", f"{name}_tail"]
        return [name, *ends, *folds, f"{name}_part"]

    op = required_anchor(kernel).op
    if op == "layer_norm":
        return ["inverse", *reduction("squares"), "mean", *reduction("sum")]
    if op == "rms_norm":
        return ["inverse", *reduction("squares")]
    if op == "softmax":
        return [*reduction("sum"), "exp", *reduction("max")]
    if op == "log_softmax":
        return [*reduction("sum"), *reduction("max")]
    if op in _ARGS:
        return [*reduction("acc"), *reduction("best")]
    return reduction("acc")


def directives(kernel: Node, target: Target, choices: Choices) -> Steps:
    """row (parallel) | each stage in turn, partial results in vectors | out in vectors."""
    outer, length, contiguous = _rows(kernel)
    if not contiguous:
        return _columns(kernel, choices)
    out_rank = max(1, kernel.output.type.rank)
    anchor = required_anchor(kernel)
    if _leaves_one(kernel):
        lead = [f"d{i}" for i in range(out_rank)]
    elif anchor.op in _NORMS:
        lead = [f"d{i}" for i in range(len(outer))]
    else:
        lead = [f"d{i}" for i in range(anchor.attrs["axis"] % out_rank)]
    if not lead:
        return []
    stages = _stages(kernel, choices["lanes"], length)
    steps = _under_rows(lead, stages, choices["parallel"])
    for stage in stages:
        if stage.endswith("_part"):
            steps += [
                ("reorder", stage, ("ko", "lane")),
                ("vectorize", stage, "lane"),
                ("decompose_reduction", stage, "ko"),
                ("vectorize", f"{stage}.init", "lane"),
            ]
        elif stage.rpartition("_")[2].isdigit():
            steps.append(("vectorize", stage, "lane"))
    if choices["vector"] > 1:
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


def _under_rows(lead: list[str], stages: list[str], parallel: bool) -> Steps:
    """The loops `lead` of `out` as one, and the stages, last first, under it."""
    steps: Steps = []
    row = lead[0]
    if len(lead) > 1:
        row = "row"
        steps.append(("fuse", "out", tuple(lead), row))
    if parallel:
        steps.append(("parallel", "out", row))
    return steps + [("compute_at", stage, "out", row) for stage in stages]


def _columns(kernel: Node, choices: Choices) -> Steps:
    """Rows that are columns in memory: row.. (parallel) | each stage: k | vector of columns."""
    anchor, outer = required_anchor(kernel), _rows(kernel)[0]
    rank, vector = kernel.output.type.rank, choices["vector"]
    last = f"d{rank - 1}"
    # Of softmax the whole column is computed under one iteration of the loops before.
    within = [f"d{anchor.attrs['axis'] % rank}"] if "softmax" in anchor.op else []
    lead = [f"d{i}" for i in range(rank - 1) if f"d{i}" not in within]
    steps: Steps = []
    if vector > 1:
        steps.append(("split", "out", last, vector, f"{last}.o", f"{last}.v"))
        lead.append(f"{last}.o")
        steps.append(("reorder", "out", (*lead, *within, f"{last}.v")))
    else:
        lead.append(last)
        steps.append(("reorder", "out", (*lead, *within)))
    stages = _stages(kernel, 1, 1)
    steps += _under_rows(lead, stages, choices["parallel"])
    if vector == 1:
        return steps
    steps.append(("vectorize", "out", f"{last}.v"))
    column = f"d{len(outer) - 1}"  # the last of a stage's axes beside k
    for stage in stages:
        steps += [("reorder", stage, ("k", column)), ("vectorize", stage, column)]
        if stage != "exp":
            steps.append(("decompose_reduction", stage, "k"))
            steps.append(("vectorize", f"{stage}.init", column))
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
        *_ARGS,
    ),
    options,
    pick,
    directives,
    version=2,
)
