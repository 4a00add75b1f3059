"""What spaces of kernels that stream through memory have in common: vectors, rows, bytes."""

from __future__ import annotations

import numpy as np

from planish.autotune.analytic import Numbers, reads
from planish.autotune.spaces.space import LENGTHY, Choices, Points, Steps
from planish.ir.graph import Node
from planish.ir.target import Target
from planish.passes.fuse import inner_root
from planish.passes.local.stages import vector_axis

#: Bytes of a tensor from which on it matters which core wrote it.
_WORTH_SHARING = 32 << 10


def shares_rows(kernel: Node, target: Target) -> bool:
    """True if the result is images [N, C, H, W] or [N, C, H, W, c] of rows for each core."""
    shape = inner_root(kernel.regions[0]).type.static_shape
    is_image = len(shape) in (4, 5) and vector_axis(shape) > 2
    return is_image and target.cores > 1 and shape[2] % target.cores == 0


def wants_rows(kernel: Node, target: Target) -> bool:
    """True if cores had better take rows: the convolutions around the kernel do.

    Those are on blocks; what follows and precedes other tensors of four dimensions is not known.
    """
    types = [value.type for value in (*kernel.inputs, *kernel.outputs)]
    large = any(t.rank == 5 and t.nbytes >= _WORTH_SHARING for t in types)
    return large and shares_rows(kernel, target)


def by_rows(kernel: Node, target: Target, outer: list[str]) -> Steps:
    """core, n (parallel) | the other loops of `outer`, which begins with those of [N, C, H]."""
    rows = inner_root(kernel.regions[0]).type.static_shape[2]
    batch, channels, height, *inner = outer
    return [
        ("split", "out", height, rows // target.cores, "core", f"{height}.c"),
        ("reorder", "out", (batch, "core", channels, f"{height}.c", *inner)),
        ("fuse", "out", (batch, "core"), "share"),
        ("parallel", "out", "share"),
    ]


def vectors_fit(extent: np.ndarray, points: Points) -> np.ndarray:
    """Points whose vectors divide a loop, or are moved back at its end."""
    vector, overlap = points["vector"], points["overlap"]
    even = extent % vector == 0
    return np.asarray((even & ~overlap) | (~even & overlap & (vector <= extent)))


def in_vectors(steps: Steps, last: int, choices: Choices) -> str:
    """Adds to `steps` the vectors of the axis `last` of `out`; the loop over them.

    Vectors that overlap are axes of their own already.
    """
    axis = f"d{last}"
    if choices["vector"] == 1:
        return axis
    if choices["overlap"]:
        steps.append(("vectorize", "out", f"d{last + 1}"))
        return axis
    steps.append(("split", "out", axis, choices["vector"], f"{axis}.o", f"{axis}.v"))
    steps.append(("vectorize", "out", f"{axis}.v"))
    return f"{axis}.o"


def instructions_of(kernel: Node) -> int:
    """Instructions for each vector of results, loads and stores aside."""
    return sum(LENGTHY.get(node.op, 1) for node in kernel.regions[0].nodes)


def from_others(kernel: Node, target: Target, points: Points) -> dict[str, Numbers]:
    """Fields of Work: bytes that another core wrote, where a kernel before was shared.

    One core that does all gathers from the others what they made; cores that share an image by
    channels read what those made that share it by rows.
    """
    taken = sum(v.type.nbytes for v in kernel.inputs if v.type.nbytes >= _WORTH_SHARING)
    by_loops = points["share"] != "rows" if "share" in points else True
    across = wants_rows(kernel, target) & by_loops
    return {
        "foreign": np.where(across, float(taken), 0.0),
        "gathered": np.where(points["parallel"], 0.0, taken * (1 - 1 / target.cores)),
    }


def moved(kernel: Node, target: Target) -> tuple[np.ndarray, np.ndarray]:
    """Bytes from L2 and L3, each tensor once."""
    return reads(target, sum(v.type.nbytes for v in (*kernel.inputs, *kernel.outputs)), 1)
