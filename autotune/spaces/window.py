"""Reductions over leading or inner axes, pooling, and convolution in plain layout.

The result's last axis stays innermost: it is what lies side by side in memory.
"""

from __future__ import annotations

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


def _reduced(anchor: Node) -> list[str]:
    """Names of the reduction loops, as the expressions give them."""
    if anchor.op == "pool":
        return [f"w{d}" for d, n in enumerate(anchor.attrs["window"]) if n > 1] or ["w0"]
    if anchor.op == "conv":
        return ["ic", *(f"k{d}" for d in range(anchor.output.type.rank - 2))]
    return [f"r{i}" for i in range(len(anchor.attrs["axes"]))]


def _reads_last_axis_in_order(anchor: Node) -> bool:
    last = anchor.inputs[0].type.rank - 1
    if anchor.op == "pool":
        a = anchor.attrs
        return all(a[name][last] == one for name, one in (("window", 1), ("strides", 1)))
    return anchor.op != "conv" and last not in anchor.attrs["axes"]


def options(kernel: Node, target: Target) -> Mapping[str, tuple[Any, ...]]:
    """Choices: `vector` (elements of the last axis at once), `parallel`."""
    lanes = target.lanes(required_anchor(kernel).output.type.dtype.itemsize)
    return {
        "rows": (False,),
        "vector": tuple(v for v in (1, 2, 4, 8, 16, 32, 64) if v <= 4 * lanes),
        "parallel": (False, True),
    }


def pick(kernel: Node, target: Target) -> Choices:
    """The widest vector of the last axis that leaves no tail; several hide the adder's latency."""
    anchor = required_anchor(kernel)
    shape = inner_root(kernel.regions[0]).type.static_shape
    lanes = target.lanes(anchor.output.type.dtype.itemsize)
    vector = 1
    if shape and _reads_last_axis_in_order(anchor):
        widest = 4 * lanes if anchor.op.startswith("reduce_") else lanes
        vector = widest_vector(shape[-1], widest)
    return {"rows": False, "vector": vector, "parallel": is_parallel(kernel, target)}


def directives(kernel: Node, target: Target, choices: Choices) -> Steps:
    """leading axes (parallel) | last.o | reduction | last.v vector."""
    anchor = required_anchor(kernel)
    rank = max(1, kernel.output.type.rank)
    plain = anchor.op == "conv"
    names = ("n", "oc", *(f"o{d}" for d in range(rank - 2))) if plain else _out_axes(rank)
    steps: Steps = []
    if not plain and choices["vector"] > 1:
        last = names[-1]
        steps.append(("split", "out", last, choices["vector"], f"{last}.o", f"{last}.v"))
        steps.append(("vectorize", "out", f"{last}.v"))
        lead = (*names[:-1], f"{last}.o")
    else:
        lead = names[:-1] if plain or rank > 1 else names
    task = lead[0]
    if len(lead) > 1:
        task = "task"
        steps.append(("fuse", "out", lead, task))
    if choices["parallel"]:
        steps.append(("parallel", "out", task))
    steps.append(("compute_at", "acc", "out", task))
    inner = _inner_axis(anchor, rank)
    if inner is not None and (plain or choices["vector"] > 1):
        reduced = _reduced(anchor)
        steps.append(("reorder", "acc", (*reduced, inner)))
        if choices["vector"] > 1:
            steps.append(("vectorize", "acc", inner))
        steps.append(("decompose_reduction", "acc", reduced[0]))
        if choices["vector"] > 1:
            steps.append(("vectorize", "acc.init", inner))
    return steps


def _out_axes(rank: int) -> tuple[str, ...]:
    return tuple(f"d{i}" for i in range(rank))


def _inner_axis(anchor: Node, rank: int) -> str | None:
    """The stage's last kept axis: what the vector runs along."""
    if anchor.op == "conv":
        return f"o{rank - 3}"
    if anchor.op == "pool":
        return f"d{rank - 1}"
    kept = anchor.inputs[0].type.rank - len(anchor.attrs["axes"])
    return f"d{kept - 1}" if kept else None


SPACE = Space("window", ("pool",), options, pick, directives)
