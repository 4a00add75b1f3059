"""Matrix products: a register tile of rows by a panel of columns."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from planish.autotune.spaces.conv import accumulators
from planish.autotune.spaces.space import (
    Choices,
    Space,
    Steps,
    is_parallel,
    padded_share,
    required_anchor,
    tile_candidates,
    widest_vector,
)
from planish.ir.graph import Node
from planish.ir.target import Target


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
    """Choices: `m` (rows of a tile), `n` (columns of a tile), `vector` (lanes), `parallel`."""
    rows = required_anchor(kernel).output.type.static_shape[-2]
    lanes = target.lanes(required_anchor(kernel).output.type.dtype.itemsize)
    return {
        "m": tile_candidates(rows, target.vector_registers - 3),
        "n": _panel(kernel, target),
        "vector": tuple(v for v in (1, 2, 4, 8, 16) if v <= lanes),
        "parallel": (False, True),
    }


def pick(kernel: Node, target: Target) -> Choices:
    """The tile with the least waste and the fewest loads that fits the registers."""
    choices = options(kernel, target)
    anchor = required_anchor(kernel)
    rows = anchor.output.type.static_shape[-2]
    lanes = target.lanes(anchor.output.type.dtype.itemsize)
    best, chosen = float("inf"), (1, choices["n"][0])
    for width in choices["n"]:
        count = -(-width // lanes)
        for m in choices["m"]:
            if not accumulators(target, count, m) and m > 1:
                continue
            tile = m * count
            cost = padded_share(rows, m) * max(1.0, 8.0 / tile) * (1 + 0.25 * (m + count) / tile)
            if cost < best:
                best, chosen = cost, (m, width)
    return {
        "m": chosen[0],
        "n": chosen[1],
        "vector": widest_vector(chosen[1], lanes),
        "parallel": is_parallel(kernel, target),
    }


def directives(kernel: Node, target: Target, choices: Choices) -> Steps:
    """b.., n.o, m (parallel) | k | m.i, n.u unrolled | n.v vector."""
    batch = [f"b{d}" for d in range(required_anchor(kernel).output.type.rank - 2)]
    lead = (*batch, "n.o", "m")
    steps: Steps = [
        ("split", "acc", "n", choices["n"], "n.o", "n.i"),
        ("split", "acc", "n.i", choices["vector"], "n.u", "n.v"),
        ("reorder", "acc", (*lead, "k", "m.i", "n.u", "n.v")),
        ("fuse", "acc", lead, "task"),
        ("reverse_compute_at", "out", "acc", "task"),
        ("set_scope", "acc", "local"),
        ("split", "out", "n", choices["vector"], "n.u", "n.v"),
        ("unroll", "out", "n.u"),
        ("unroll", "out", "m.i"),
    ]
    if choices["parallel"]:
        steps.append(("parallel", "acc", "task"))
    vector = choices["vector"] > 1
    for stage in ("out", "acc", "acc.init"):
        if stage == "acc.init":
            steps.append(("decompose_reduction", "acc", "k"))
        if stage != "out":
            steps += [("unroll", stage, "m.i"), ("unroll", stage, "n.u")]
        if vector:
            steps.append(("vectorize", stage, "n.v"))
    return steps


SPACE = Space("matmul", ("matmul", "packed_matmul"), options, pick, directives)
