"""Row-wise kernels: trailing reductions, softmax and layer norm, all stages under one row loop."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from planish.autotune.analytic import FMA_LATENCY, L2_BYTES, Work
from planish.autotune.spaces.space import (
    LENGTHY,
    Choices,
    Points,
    Space,
    Steps,
    required_anchor,
)
from planish.autotune.spaces.streams import (
    from_others,
    in_vectors,
    instructions_of,
    moved,
    vectors_fit,
)
from planish.ir.graph import Node
from planish.ir.target import CACHE_LINE, Target
from planish.passes.fuse import inner_root
from planish.passes.local.row_stages import fold_widths, is_in_one_pass, taken_in_lanes
from planish.passes.local.stages import is_aligned, vector_axis

_NORMS = ("layer_norm", "rms_norm")
_ARGS = ("arg_max", "arg_min")
#: Cycles of a step's vector instructions, and those until the next step can begin: those that look
#: for NaN take more than one addition or maximum, and so does a layer norm in one pass.
_STEPS = {
    **dict.fromkeys(("reduce_max", "reduce_min", *_ARGS), (2.5, 11.0)),
    "layer_norm": (2.0, FMA_LATENCY),
}
#: Elements of as many rows as a core works on at the same time.
_IN_FLIGHT = 512


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
    """Choices: `lanes` (partial results), `vector` (lanes of the output), `overlap` (a last vector
    is moved back), `together` (rows at once), `ahead` (the next row is fetched), `parallel`."""
    anchor = required_anchor(kernel)
    lanes = target.lanes(anchor.inputs[0].type.dtype.itemsize)
    widths = tuple(v for v in (4, 8, 16, 32) if v <= lanes)
    _, length, contiguous = _rows(kernel)
    partial = [n for n in (*widths, 2 * lanes, 4 * lanes) if n <= length and contiguous]
    extent, overlap = _extent(kernel), _may_overlap(kernel)
    vectors = [v for v in widths if v <= extent and (overlap or extent % v == 0)]
    return {
        "rows": (True,),
        "lanes": (1, *partial),
        "vector": (1,) if _leaves_one(kernel) else (1, *vectors),
        "overlap": (False, True) if overlap else (False,),
        "together": _together(kernel, target),
        "ahead": _ahead(kernel, target),
        "parallel": (False, True),
    }


def _together(kernel: Node, target: Target) -> tuple[int, ...]:
    """How many neighbouring rows may be taken at once, which hides latencies.

    What follows the anchor must keep its rows. Those that follow each other gain where they are so
    short that both are in registers.
    """
    anchor = required_anchor(kernel)
    outer, length, contiguous = _rows(kernel)
    vectors = -(-length // target.lanes(anchor.inputs[0].type.dtype.itemsize))
    is_short = 4 * vectors <= target.vector_registers
    most = 2 if is_short and not _leaves_one(kernel) else 1
    most = {**dict.fromkeys(_ARGS, 4), "layer_norm": 2}.get(anchor.op, most)
    result = inner_root(kernel.regions[0]).type.static_shape
    if not contiguous or not outer or result[: len(outer)] != outer:
        return (1,)
    return tuple(n for n in (1, 2, 4) if n <= most and outer[-1] % n == 0)


def _side_by_side(kernel: Node) -> bool:
    """True if rows taken together are in one loop; else they follow each other, stage by stage.

    One row of comparisons has too few that are independent, and two rows share the loads of a layer
    norm's weights, which bound it.
    """
    return required_anchor(kernel).op in ("layer_norm", *_ARGS)


def _ahead(kernel: Node, target: Target) -> tuple[bool, ...]:
    """Whether the next row may be fetched while this one, which is read again, is computed.

    Not for a layer norm: it is bound by loads.
    """
    op = required_anchor(kernel).op
    several = (op == "rms_norm" or "softmax" in op) and _rows(kernel)[2]
    is_far = sum(value.type.nbytes for value in kernel.inputs) > target.l1
    return (False, True) if several and is_far else (False,)


def _may_overlap(kernel: Node) -> bool:
    """True if vectors of the result may be moved back: they read stages of whole rows only.

    The powers of a softmax are kept in vectors of their own, which must be those of the result.
    """
    if _leaves_one(kernel) or not _rows(kernel)[2]:
        return False
    shape = inner_root(kernel.regions[0]).type.static_shape
    if required_anchor(kernel).op != "softmax":
        return vector_axis(shape) >= len(_rows(kernel)[0])
    at_end = vector_axis(shape) == len(shape) - 1
    return at_end and is_aligned(kernel.regions[0], required_anchor(kernel))


def _vector_axis(kernel: Node) -> int:
    """The axis of the result that vectors run along: of the row, or the columns side by side."""
    outer, _, contiguous = _rows(kernel)
    shape = inner_root(kernel.regions[0]).type.static_shape
    axis = vector_axis(shape)
    return axis if contiguous and axis >= len(outer) else max(0, len(shape) - 1)


def _extent(kernel: Node) -> int:
    shape = inner_root(kernel.regions[0]).type.static_shape
    return shape[_vector_axis(kernel)] if shape else 1


def _legal(kernel: Node, target: Target, points: Points) -> np.ndarray:
    """Vectors of the result fit it; partial results of rows taken together are in registers."""
    anchor, (_, length, _) = required_anchor(kernel), _rows(kernel)
    fit = vectors_fit(np.asarray(_extent(kernel)), points)
    lanes, together = points["lanes"], points["together"]
    each = np.ceil(lanes / target.lanes(anchor.inputs[0].type.dtype.itemsize))
    kept = 1 if anchor.op not in ("layer_norm", *_ARGS) else 2  # registers for each of its lanes
    held = each * kept * (together if _side_by_side(kernel) else 1)
    few = held * 4 <= target.vector_registers * 3
    if anchor.op == "softmax":  # lanes narrower than tiles that overlap cannot add them up
        fit = fit & (~points["overlap"] | (lanes == 1) | (lanes >= points["vector"]))
    return np.asarray(fit & ((together == 1) | (few & (lanes > 1) & (lanes <= length))))


def _work(kernel: Node, target: Target, points: Points) -> Work:
    """A step is a pass over vectors of partial results, or columns; a tile is `together` rows."""
    anchor = required_anchor(kernel)
    outer, length, contiguous = _rows(kernel)
    itemsize = anchor.inputs[0].type.dtype.itemsize
    lanes, vector = points["lanes"], points["vector"]
    widest = target.lanes(itemsize)
    count = np.maximum((lanes if contiguous else vector) / widest, 1.0)
    together = points["together"]
    beside, behind = (together, 1) if _side_by_side(kernel) else (1, together)
    passes = _passes(kernel, lanes)
    steps = -(-length // np.where(contiguous, lanes, 1)) * passes * behind
    folds = np.asarray([8 * len(fold_widths(int(n))) for n in lanes])
    # Vectors of the rest that are wider than a tile are put together from several.
    rest = 8 + np.where(points["overlap"] & (anchor.op == "softmax"), 12, 6) * count
    folds = folds + np.where((lanes > 1) & (length % lanes > 0), rest, 0)
    lengthy = LENGTHY["exp"] if anchor.op in ("softmax", "log_softmax") else 0
    results = 0 if _leaves_one(kernel) else length
    rows = math.prod(outer) // np.where(contiguous, together, vector)
    shared = np.where(behind == 1, 1, together) * (len(anchor.inputs) - 1)
    each = together * (instructions_of(kernel) + lengthy + 2) + shared
    last = -(-results // np.where(contiguous, vector, 1)) * each
    waits = together * length * itemsize * np.where(points["ahead"], 0.5 / CACHE_LINE, 1 / L2_BYTES)
    waits = waits * (len(_ahead(kernel, target)) > 1)
    l2, l3 = moved(kernel, target)
    instructions, latency = _STEPS.get(anchor.op, (1, FMA_LATENCY))
    in_flight = max(1.0, _IN_FLIGHT / max(1, length))  # short rows hide each other's latencies
    return Work(
        multiplies=beside * instructions * count,
        sums=beside * instructions * count * FMA_LATENCY / latency * in_flight,
        loads=beside * count,
        registers=0.0,
        steps=steps,
        tiles=np.maximum(rows, 1),
        finish=folds * passes + last + waits,
        l2=l2,
        l3=l3,
        shares=np.maximum(rows, 1),
        parallel=points["parallel"],
        vector_bytes=target.vector_bytes,
        **from_others(kernel, target, points),
    )


def _passes(kernel: Node, lanes: np.ndarray) -> np.ndarray:
    """How often a row is read before its result is computed."""
    op, length = required_anchor(kernel).op, _rows(kernel)[1]
    if op == "layer_norm":
        return np.asarray([1 if is_in_one_pass(length, int(n)) else 2 for n in lanes])
    return np.where(lanes > 1, 1, 2) if op in _ARGS else np.full(len(lanes), 1 + ("softmax" in op))


def _stages(kernel: Node, lanes: int, length: int, tile: int = 0) -> list[str]:
    """The stages before `out`, last first; a softmax may keep its powers in tiles that overlap."""

    def reduction(name: str) -> list[str]:
        in_tiles = tile > 0 and name == "sum"
        whole = taken_in_lanes(length, lanes, tile if in_tiles else 0)
        if not whole:
            return [name]
        folds = [f"{name}_{width}" for width in reversed(fold_widths(lanes))]
        rest = [f"{name}_rest"] if in_tiles or whole % lanes else []
        return [name, *folds, *rest, f"{name}_part"]

    op = required_anchor(kernel).op
    if op == "layer_norm" and is_in_one_pass(length, lanes):
        ends = ["", *(f"_{width}" for width in reversed(fold_widths(lanes))), "_rest"]
        squares, sums = ([name + end for end in ends] for name in ("squares", "sum"))
        return ["inverse", *squares, "mean", *sums, "moments_part"]
    if op == "layer_norm":
        return ["inverse", *reduction("squares"), "mean", *reduction("sum")]
    if op == "rms_norm":
        return ["inverse", *reduction("squares")]
    if op == "softmax":
        return [*reduction("sum"), "exp", *reduction("max")]
    if op == "log_softmax":
        return [*reduction("sum"), *reduction("max")]
    if op in _ARGS:
        # The candidates of the lanes stand in the stages of `best` already.
        return [s for s in (*reduction("acc"), *reduction("best")) if s != "acc_rest"]
    return reduction("acc")


def directives(kernel: Node, target: Target, choices: Choices) -> Steps:
    """row (parallel) | each stage in turn, partial results in vectors | out in vectors.

    Loops over rows taken together are unrolled, inside all others but those of vectors where rows
    are side by side; else those of long stages are outside.
    """
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
    vector, last = choices["vector"], _vector_axis(kernel)
    tile = vector if choices["overlap"] and anchor.op == "softmax" else 0
    stages = _stages(kernel, choices["lanes"], length, tile)
    together, near = choices["together"], f"d{len(outer) - 1}"
    steps: Steps = []
    if together > 1:
        steps.append(("split", "out", near, together, f"{near}.o", f"{near}.r"))
        lead = [*(f"d{i}" for i in range(len(outer) - 1)), f"{near}.o"]
    steps += _under_rows(lead, stages, choices["parallel"])
    side_by_side = together > 1 and _side_by_side(kernel)
    for stage in stages:
        is_sum = stage.endswith("_part") and (anchor.op not in _ARGS or stage == "best_part")
        if together > 1 and (side_by_side or not (is_sum or stage == "exp")):
            steps.append(("unroll", stage, near))
        if is_sum:
            steps += [
                ("reorder", stage, ("ko", *([near] if side_by_side else []), "lane")),
                ("vectorize", stage, "lane"),
                ("decompose_reduction", stage, "ko"),
                ("vectorize", f"{stage}.init", "lane"),
            ]
            steps += [("unroll", f"{stage}.init", near)] if side_by_side else []
        elif stage.endswith(("_part", "_rest")) or stage.rpartition("_")[2].isdigit():
            steps.append(("vectorize", stage, "lane"))
    if vector == 1:
        return steps
    along = in_vectors(steps, last, choices)
    if side_by_side:
        lane = f"d{last + 1}" if choices["overlap"] else f"d{last}.v"
        steps += [("reorder", "out", (along, f"{near}.r", lane)), ("unroll", "out", f"{near}.r")]
    if anchor.op == "softmax" and choices["overlap"]:
        steps.append(("vectorize", "exp", "k.v"))
    elif anchor.op == "softmax" and length % vector == 0:
        steps += [("split", "exp", "k", vector, "k.o", "k.v"), ("vectorize", "exp", "k.v")]
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
    None,
    directives,
    version=5,
    legal=_legal,
    work=_work,
)
